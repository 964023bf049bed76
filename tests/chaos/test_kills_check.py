"""The checker of the kills excuses only what an injected fault explains."""

import json
from datetime import UTC, datetime

import pytest

from tests.chaos import kills
from tests.chaos.evidence import Evidence
from tests.chaos.history import Raw
from tests.toy.task import AnalysisInput

BEGAN = 1_800_000_000.0
PLAN = kills.Plan(analyses=3, seed=1, kills=1, redis_kills=0)
ACCEPTED = {
    request_id: AnalysisInput(
        name="Ada", age=36, description=f"{kills.PERSONAL} marker-normal-{number} about myself"
    )
    for number, request_id in enumerate(("a" * 32, "b" * 32, "c" * 32))
}
WORKER = 77


def at(seconds: float) -> str:
    return datetime.fromtimestamp(BEGAN + seconds, UTC).isoformat()


class Run:
    """What the witnesses of a made-up run saw."""

    def __init__(self) -> None:
        self.log: list[dict[str, object]] = []
        self.qstash: list[str] = []
        self.seen = Evidence({}, {request_id: [] for request_id in ACCEPTED}, [], "", "")

    def attempt(
        self, request_id: str, number: int, seconds: float, event: str | None = "failed"
    ) -> None:
        """A claim and its call, which the model let fail, answered, or never got to."""
        token = f"{request_id[0]}{number}"
        raw = {"status": "processing", "claimToken": token, "claimedAt": at(seconds)}
        self.seen.history[request_id].append(raw)
        where = {
            "request_id": request_id,
            "attempt": number,
            "pid": WORKER,
            "message_id": f"msg_{request_id[0]}",
        }
        self.log.append({"event": "claimed", "call_id": token, "time": at(seconds), **where})
        if event:
            marker = ACCEPTED[request_id].description.split()[2]
            self.seen.ledger += [
                {"event": name, "token": token, "marker": marker} for name in ("asked", event)
            ]
            line = "attempt failed" if event == "failed" else "settled"
            code = "model_error" if event == "failed" else None
            self.log.append({"event": line, "code": code, "time": at(seconds + 1), **where})

    def deliver(self, request_id: str, seconds: float, answer: str) -> None:
        url = "http://127.0.0.1:3001/webhook"
        message = f"msg_{request_id[0]} delivered to {url}: {answer}"
        self.qstash.append(f"{BEGAN + seconds:.3f} {message}")

    def give_up(self, request_id: str) -> None:
        self.qstash.append(f"{BEGAN + 200:.3f} msg_{request_id[0]} given up after 3 retries")

    def end(self, request_id: str, attempt: int, failure: str | None) -> None:
        status = "failed" if failure else "completed"
        record: Raw = {"status": status, "failure": failure, "attempt": attempt}
        record |= {"messageId": f"msg_{request_id[0]}"}
        self.seen.records[request_id] = record
        self.seen.history[request_id].append({**record, "claimToken": None})

    def wrong(self, what: str) -> int:
        self.seen.log = "\n".join(json.dumps(line) for line in self.log)
        self.seen.qstash_log = "\n".join(self.qstash)
        (row,) = (row for row in kills.check(PLAN, ACCEPTED, self.seen) if row.what == what)
        return row.wrong


@pytest.fixture
def run() -> Run:
    return Run()


def test_three_attempts_that_met_faults_are_excused(run: Run) -> None:
    for request_id in ACCEPTED:
        run.attempt(request_id, 1, 0)
        run.attempt(request_id, 2, 30)
        run.attempt(request_id, 3, 60, None)
        run.end(request_id, 3, "attempts_exhausted")
    run.seen.killed = {WORKER: BEGAN + 60.5}

    assert run.wrong(kills.COMPLETED) == 0


def test_a_third_attempt_that_no_fault_explains_is_not(run: Run) -> None:
    for request_id in ACCEPTED:
        run.attempt(request_id, 1, 0)
        run.attempt(request_id, 2, 30)
        run.attempt(request_id, 3, 60, "answered")
        run.end(request_id, 3, "attempts_exhausted")

    assert run.wrong(kills.COMPLETED) == 3


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_product_that_fails_after_the_first_error_is_caught(run: Run, attempt: int) -> None:
    for request_id in ACCEPTED:
        run.attempt(request_id, 1, 0)
        run.end(request_id, attempt, "attempts_exhausted")

    assert run.wrong(kills.COMPLETED) == 3


@pytest.mark.parametrize("event", ["store unavailable", "delivery ignored", "attempt failed"])
def test_a_product_that_answers_503_until_qstash_gives_up_is_caught(run: Run, event: str) -> None:
    for request_id in ACCEPTED:
        for seconds in (0, 25, 75, 150):
            where = {
                "request_id": request_id,
                "attempt": 1,
                "message_id": f"msg_{request_id[0]}",
                "pid": WORKER,
            }
            run.log.append({"event": event, "code": None, "time": at(seconds), **where})
            run.deliver(request_id, seconds, "503")
        run.give_up(request_id)
        run.end(request_id, 0, "delivery_failed")
    run.seen.killed = {WORKER: BEGAN + 300}

    assert run.wrong(kills.COMPLETED) == 3


def cut_every_delivery_off(run: Run) -> None:
    for request_id in ACCEPTED:
        for seconds in (0, 25, 75, 150):
            run.deliver(request_id, seconds, "no answer")
        run.give_up(request_id)
        run.end(request_id, 0, "delivery_failed")


def test_deliveries_without_an_answer_and_without_a_kill_are_not_excused(run: Run) -> None:
    cut_every_delivery_off(run)

    assert run.wrong(kills.COMPLETED) == 3


def test_deliveries_that_kills_cut_off_are_excused_in_small_numbers(run: Run) -> None:
    cut_every_delivery_off(run)
    run.seen.killed = {pid: BEGAN + seconds for pid, seconds in enumerate((0, 25, 75, 150))}

    assert run.wrong(kills.COMPLETED) == 0
    assert run.wrong(kills.GIVEN_UP) == 1


def test_planned_errors_and_kills_of_redis_explain_each_503(run: Run) -> None:
    for request_id in ACCEPTED:
        for number, seconds in ((1, 0), (2, 25)):
            run.attempt(request_id, number, seconds)
            run.deliver(request_id, seconds + 1, "503")
        for seconds in (75, 150):
            line = {"event": "store unavailable", "message_id": f"msg_{request_id[0]}"}
            run.log.append({**line, "time": at(seconds), "pid": WORKER})
            run.deliver(request_id, seconds, "503")
        run.give_up(request_id)
        run.end(request_id, 2, "delivery_failed")
    run.seen.redis_kills = [BEGAN + 74, BEGAN + 149]

    assert run.wrong(kills.COMPLETED) == 0


def test_a_claim_that_nobody_wrote_down_needs_a_kill_beside_it(run: Run) -> None:
    for request_id in ACCEPTED:
        for number in (1, 2, 3):
            run.attempt(request_id, number, 30 * number)
        run.end(request_id, 3, "attempts_exhausted")
    run.log = [line for line in run.log if line["attempt"] != 2]
    run.seen.ledger = [line for line in run.seen.ledger if not line["token"].endswith("2")]

    assert run.wrong(kills.COMPLETED) == 3
