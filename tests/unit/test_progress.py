"""The card of each state: what it says, when, and how its times add up."""

from datetime import timedelta

import pytest

from common.failures import Failure
from common.record import AnalysisRecord
from page.progress import Phase, Ring, progress
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

SECOND_TRY = RETRYING.claim("b", of_round=1, now=CLAIMED_AT + seconds(20), call=CALL, lease=LEASE)


def steps(record: AnalysisRecord) -> list[tuple[str, str, str]]:
    shown = progress(record, NOW, USUAL).steps
    return [(step.shape.value, step.title, step.note) for step in shown]


def ring(record: AnalysisRecord, usual: timedelta | None = USUAL) -> Ring:
    shown = progress(record, NOW, usual).ring
    assert shown
    return shown


def phases(record: AnalysisRecord, usual: timedelta | None = USUAL) -> list[Phase]:
    return progress(record, NOW, usual).phases


# ── The ring ────────────────────────────────────────────────────────────────────────────────


def test_one_ring_runs_through_the_queue_and_the_writing_until_it_is_ready() -> None:
    waiting, writing = ring(WAITING), ring(WRITING)

    assert (waiting.part, waiting.starts_at, waiting.writes_at) == ("queue", NOW, WAITING.due_at)
    assert waiting.ready_at == WAITING.due_at + USUAL
    assert (writing.part, writing.writes_at) == ("writing", CLAIMED_AT)
    assert writing.ready_at == CLAIMED_AT + USUAL


def test_a_retry_keeps_what_was_waited_and_moves_the_end() -> None:
    again = ring(RETRYING)

    assert (again.part, again.starts_at) == ("retry", NOW)
    assert again.ready_at == RETRYING.next_attempt_at + USUAL


def test_a_later_rounds_ring_starts_with_its_round() -> None:
    again = FAILED.reopen(
        now=CLAIMED_AT + seconds(30), delay=seconds(60), deadline=timedelta(minutes=10)
    )

    assert ring(again).starts_at == CLAIMED_AT + seconds(30)


@pytest.mark.parametrize(
    ("usual", "whole"), [(None, 10), (seconds(0.2), 1), (seconds(7.4), 7), (seconds(7.6), 8)]
)
def test_the_usual_time_is_in_whole_seconds(usual: timedelta | None, whole: int) -> None:
    assert ring(WAITING, usual).ready_at == WAITING.due_at + seconds(whole)
    assert progress(WAITING, NOW, usual).steps[2].note == f"about {whole} s"


def test_what_is_over_has_no_ring() -> None:
    assert [progress(r, NOW, USUAL).ring for r in (READY, FAILED, CANCELLED)] == [None] * 3


# ── What is said ────────────────────────────────────────────────────────────────────────────


def test_the_heading_of_the_waiting_says_when_and_past_its_due_time_soon() -> None:
    waiting, late = phases(WAITING)

    assert (waiting.headline, waiting.unit, waiting.counts) == (
        "Ready at about {at}",
        "to go",
        True,
    )
    assert waiting.until == WAITING.due_at + seconds(2)
    assert (late.headline, late.counts, late.until) == ("Ready any moment now", False, None)


def test_what_takes_long_to_write_is_not_ready_at_any_moment() -> None:
    assert phases(WAITING, seconds(90))[-1].headline == "Starting any moment now"


@pytest.mark.parametrize(
    ("ahead", "is_owner", "said"),
    [
        (None, None, "You can close this page"),
        (0, True, "Next in line · you can close this page"),
        (2, True, "2 before you · you can close this page"),
        (2, False, "2 before this one · you can close this page"),
    ],
)
def test_the_quiet_line_names_the_place_in_the_queue(
    ahead: int | None, is_owner: bool | None, said: str
) -> None:
    shown = progress(WAITING, NOW, USUAL, ahead=ahead, is_owner=is_owner)

    assert {phase.line for phase in shown.phases} == {said}


def test_the_first_try_is_not_counted() -> None:
    for record in (WAITING, WRITING):
        assert " try" not in str([phase.note for phase in phases(record)])
        assert " try" not in str(steps(record))


def test_a_retry_says_when_and_why() -> None:
    (until_then, _), reason = phases(RETRYING), "The AI service was busy."

    assert until_then.headline == "Ready at about {at}"
    assert until_then.note
    assert until_then.note.lead == "Trying again in {time}"
    assert until_then.note.text == (
        f"(second try of three): {reason} There is nothing for you to do."
    )
    writing = phases(SECOND_TRY)[0].note
    assert writing
    assert (writing.lead, writing.text) == ("Trying again now", until_then.note.text)


def test_what_takes_longer_says_what_comes_next() -> None:
    on_time, late, slow = phases(WRITING)

    assert (on_time.until, late.until) == (CLAIMED_AT + seconds(8), CLAIMED_AT + seconds(16))
    assert late.headline == "Ready any moment now"
    assert slow.headline == "Taking a little longer than usual"
    assert slow.line == "If it fails, we try again automatically."
    last = phases(with_fields(WRITING, attempt=3))[-1]
    assert last.line == "This is the third try of three."


def test_a_single_slow_second_is_not_longer_than_usual() -> None:
    assert phases(WRITING, seconds(0.3))[1].until == CLAIMED_AT + seconds(1 + 5)


def test_what_failed_says_why_and_whose_turn_it_is() -> None:
    shown = progress(FAILED, NOW, USUAL, is_owner=True)
    (phase,) = shown.phases

    assert (shown.badge, phase.headline) == ("stopped", "This text didn't get through")
    assert phase.line.startswith(Failure.CONTENT_FILTERED.sentence)
    assert phase.line.endswith(Failure.CONTENT_FILTERED.next_step)


def test_what_is_ours_to_fix_has_a_sign_of_its_own() -> None:
    shown = progress(with_fields(FAILED, failure=Failure.QUOTA_EXCEEDED), NOW, USUAL)

    assert (shown.badge, shown.phases[0].headline) == ("wrench", "That was us, not you")


def test_what_is_ready_is_told_in_a_line() -> None:
    assert [phase.line for phase in phases(READY)] == ["Waited 60 s · written in 9 s"]
    assert progress(READY, NOW, USUAL).badge is None


# ── The steps ───────────────────────────────────────────────────────────────────────────────


def test_the_way_of_an_analysis_from_received_to_ready() -> None:
    received = ("done", "Received", "")
    waited = ("done", "In the queue", "for 60 s")

    assert steps(WAITING) == [
        received,
        ("now", "In the queue", "now"),
        ("ahead", "Writing", "about 8 s"),
        ("ahead", "Ready", ""),
    ]
    assert steps(WRITING) == [
        received,
        waited,
        ("now", "Writing", "about 8 s"),
        ("ahead", "Ready", ""),
    ]
    assert steps(READY) == [
        received,
        waited,
        ("done", "Writing", "in 9 s"),
        ("done", "Ready", "after 69 s"),
    ]


@pytest.mark.parametrize("tenths", [(0, 0, 0), (0, 4, 8), (9, 5, 1), (5, 5, 5), (9, 9, 0)])
def test_the_times_add_up_however_they_are_rounded(tenths: tuple[int, int, int]) -> None:
    """To the time of day, too, at which each step is said to have been."""
    sent, begun, ended = (seconds(tenth / 10) for tenth in tenths)
    record = with_fields(
        READY,
        created_at=NOW + sent,
        claimed_at=NOW + seconds(62) + begun,
        finished_at=NOW + seconds(69) + ended,
    )

    assert [note for _, _, note in steps(record)[1:]] == ["for 62 s", "in 7 s", "after 69 s"]
    assert phases(record)[0].line == "Waited 62 s · written in 7 s"


def test_a_retry_is_drawn_as_one() -> None:
    assert steps(RETRYING)[1:3] == [
        ("done", "In the queue", "for 60 s"),
        ("again", "Writing", "second try"),
    ]
    assert steps(SECOND_TRY)[2] == ("now", "Writing", "second try")


def test_a_later_attempt_does_not_pretend_to_know_how_long_the_first_waited() -> None:
    done = SECOND_TRY.complete("b", ANALYSIS, model="m", now=CLAIMED_AT + seconds(29))

    assert steps(SECOND_TRY)[1] == ("done", "In the queue", "")
    assert [note for _, _, note in steps(done)[1:]] == ["", "in 9 s", "after 89 s"]
    assert phases(done)[0].line == "Written in 9 s, at the second try"


def test_a_later_round_does_not_count_from_the_first() -> None:
    assert progress(with_fields(READY, round=2), NOW, USUAL).steps[-1].at == READY.finished_at


def test_what_stopped_is_drawn_where_it_did() -> None:
    unsent = with_fields(FAILED, attempt=0, claimed_at=None, failure=Failure.NOT_QUEUED)
    exhausted = with_fields(FAILED, attempt=3, failure=Failure.ATTEMPTS_EXHAUSTED)

    assert steps(FAILED)[2] == ("stopped", "Writing", "stopped here")
    assert steps(unsent)[1:3] == [
        ("stopped", "In the queue", "stopped here"),
        ("ahead", "Writing", ""),
    ]
    assert steps(exhausted)[2] == ("stopped", "Writing", "after three tries")
    assert steps(CANCELLED)[1] == ("stopped", "In the queue", "cancelled here")


def test_what_stopped_between_two_attempts_stopped_after_the_first_and_not_at_it() -> None:
    between = RETRYING.cancel(now=CLAIMED_AT + seconds(8))
    during = SECOND_TRY.cancel(now=CLAIMED_AT + seconds(22))

    assert steps(between)[2] == ("stopped", "Writing", "after the first try")
    assert steps(during)[2] == ("stopped", "Writing", "cancelled here")


def test_not_yet_is_said_only_of_what_can_be_tried_again() -> None:
    assert phases(FAILED)[0].ready == "not yet"
    assert phases(with_fields(FAILED, round=5))[0].ready == ""
    assert phases(CANCELLED)[0].ready == ""
