"""The promises of the design under any sequence of steps, and a search that can fail."""

import subprocess
import sys

import pytest

import common.models
from tests.chaos import promises, state_machine
from tests.processes import ROOT

SEQUENCES = 150


def test_no_sequence_of_steps_breaks_a_promise(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common.models, "MAX_ATTEMPTS", promises.MOST_ATTEMPTS)
    monkeypatch.setattr(common.models, "MAX_ROUNDS", promises.MOST_ROUNDS)

    assert state_machine.search(SEQUENCES, 1, valkey).tried == SEQUENCES


def test_every_seeded_fault_is_caught() -> None:
    search = [sys.executable, "-m", "tests.chaos.mutants"]

    found = subprocess.run(search, cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr
