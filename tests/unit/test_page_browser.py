"""What the browser is given to remember."""

from pathlib import Path

import pytest
import streamlit as st

from page.browser import COMPONENTS, STYLE, entry
from page.snapshot import Snapshot
from tests.fakes import ID, NOW
from tests.states import TTL, WAITING


def test_the_browser_remembers_time_state_and_token_and_no_text() -> None:
    kept = entry(Snapshot(ID, WAITING), TTL, "token")

    assert kept
    assert kept.model_dump() == {
        "request_id": ID,
        "state": "Waiting",
        "is_over": False,
        "created_at": NOW,
        "kept_until": WAITING.deadline_at + TTL,
        "owner_token": "token",
    }
    assert entry(Snapshot(ID, failures=1), TTL) is None
    gone = entry(Snapshot(ID, is_gone=True), TTL)
    assert gone
    assert (gone.state, gone.is_over) == ("No longer kept", True)


@pytest.mark.parametrize(
    "name", ["data-test-connection-state", "stDialog", "DISCONNECTED_FOREVER", "_stcore/health"]
)
def test_what_takes_the_place_of_streamlits_dialog_knows_its_names(name: str) -> None:
    scripts = (Path(st.__file__).parent / "static" / "static" / "js").glob("index.*.js")
    ours = STYLE.read_text() + (COMPONENTS / "connection.js").read_text()

    assert name in ours
    assert any(f"`{name}`" in script.read_text() for script in scripts)
