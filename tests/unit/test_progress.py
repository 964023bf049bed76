"""The ring and the timeline of each state."""

from datetime import timedelta

from common.record import AnalysisRecord
from page.progress import Shape, progress
from tests.fakes import ANALYSIS, CALL, LEASE, NOW, with_fields
from tests.states import (
    CANCELLED,
    CLAIMED_AT,
    FAILED,
    READY,
    RETRYING,
    USUAL,
    WAITING,
    WRITING,
    seconds,
)


def steps(record: AnalysisRecord) -> list[tuple[str, str, str]]:
    shown = progress(record, NOW, USUAL).steps
    return [(step.shape.value, step.title, step.note) for step in shown]


# ── The ring ────────────────────────────────────────────────────────────────────────────────


def test_while_waiting_the_ring_drains_from_submitting_to_due() -> None:
    clock = progress(WAITING, NOW, USUAL).clock

    assert clock
    assert (clock.counts, clock.start, clock.end) == ("down", NOW, WAITING.due_at)
    assert clock.before.headline == "Starts in {time}"
    assert clock.after.headline == "Starting any moment now"


def test_a_later_rounds_ring_starts_with_its_round() -> None:
    again = FAILED.reopen(
        now=CLAIMED_AT + seconds(30), delay=seconds(60), deadline=timedelta(minutes=10)
    )

    clock = progress(again, NOW, USUAL).clock

    assert clock
    assert clock.start == CLAIMED_AT + seconds(30)


def test_on_a_retry_the_ring_names_the_next_attempt_and_the_reason() -> None:
    clock = progress(RETRYING, NOW, USUAL).clock

    assert clock
    assert (clock.start, clock.end) == (CLAIMED_AT + seconds(6), CLAIMED_AT + seconds(20))
    assert clock.before.headline == "Trying again in {time}, attempt 2 of 3"
    assert clock.before.note == "The AI service was busy. There is nothing for you to do."


def test_while_writing_time_counts_up_until_it_is_longer_than_usual() -> None:
    clock = progress(WRITING, NOW, USUAL).clock

    assert clock
    assert (clock.counts, clock.start, clock.end) == ("up", CLAIMED_AT, CLAIMED_AT + seconds(16))
    assert clock.before.headline == "Usually about 8 s"
    assert clock.after.headline == "This takes longer than usual"


def test_a_single_slow_second_is_not_longer_than_usual() -> None:
    clock = progress(WRITING, NOW, seconds(0.3)).clock

    assert clock
    assert clock.end == CLAIMED_AT + seconds(5.3)


def test_what_is_over_has_no_clock() -> None:
    assert [progress(r, NOW, USUAL).clock for r in (READY, FAILED, CANCELLED)] == [None] * 3


# ── The timeline ────────────────────────────────────────────────────────────────────────────


def test_the_way_of_an_analysis_from_received_to_ready() -> None:
    received = ("done", "Received", "")
    waited = ("done", "Waited in the queue", "for 1 min")

    assert steps(WAITING) == [
        received,
        ("now", "Waiting in the queue", ""),
        ("ahead", "Writing the analysis", ""),
        ("ahead", "Ready", ""),
    ]
    assert steps(WRITING) == [
        received,
        waited,
        ("now", "Writing the analysis", "Attempt 1 of 3"),
        ("ahead", "Ready", ""),
    ]
    assert steps(READY) == [
        received,
        waited,
        ("done", "Wrote the analysis", "in 9 s"),
        ("done", "Ready", "1 min 9 s after it was sent"),
    ]


def test_a_retry_is_on_the_timeline_with_its_reason() -> None:
    note = "Attempt 1 of 3 did not work: The AI service was busy."

    assert steps(RETRYING)[1] == ("now", "Waiting to try again", note)


def test_a_later_attempt_does_not_pretend_to_know_how_long_the_first_waited() -> None:
    second = with_fields(WRITING, attempt=2)

    assert steps(second)[1] == ("done", "Waited in the queue", "")
    assert steps(second.complete("a", ANALYSIS, model="m", now=CLAIMED_AT + seconds(9)))[2] == (
        "done",
        "Wrote the analysis",
        "in 9 s, attempt 2 of 3",
    )


def test_what_stopped_ends_the_timeline() -> None:
    assert steps(FAILED)[-1] == ("stopped", "Stopped", "At attempt 1 of 3")
    assert steps(CANCELLED)[-1] == ("stopped", "Cancelled while waiting", "")
    assert not [step for step in steps(FAILED) if step[0] == Shape.AHEAD]


def test_what_stopped_between_two_attempts_stopped_after_the_first_and_not_at_it() -> None:
    stopped = RETRYING.cancel(now=CLAIMED_AT + seconds(8))
    second = RETRYING.claim("b", of_round=1, now=CLAIMED_AT + seconds(20), call=CALL, lease=LEASE)

    assert steps(stopped)[-1] == ("stopped", "Cancelled", "After attempt 1 of 3")
    during = second.cancel(now=CLAIMED_AT + seconds(22))
    assert steps(during)[-1] == ("stopped", "Cancelled", "At attempt 2 of 3")
