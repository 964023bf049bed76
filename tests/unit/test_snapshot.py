"""What is known of an analysis, and when it is fetched again."""

import pytest

from page import texts
from page.snapshot import Crowd, Snapshot, has_become_ready, has_changed, poll_seconds
from tests.fakes import ID, NOW, with_fields
from tests.states import (
    CANCELLED,
    CLAIMED_AT,
    FAILED,
    READY,
    USUAL,
    WAITING,
    WRITING,
    seconds,
)


@pytest.mark.parametrize(
    ("snapshot", "pause"),
    [
        (Snapshot(ID, WAITING), 5),
        (Snapshot(ID, with_fields(WAITING, next_attempt_at=NOW + seconds(9))), 2),
        (Snapshot(ID, WRITING), 2),
        (Snapshot(ID, READY), None),
        (Snapshot(ID, FAILED), None),
        (Snapshot(ID, CANCELLED), None),
        (Snapshot(ID), 2),
        (Snapshot(ID, is_gone=True), None),
        (Snapshot(ID, WRITING, failures=1), 2),
        (Snapshot(ID, WAITING, failures=2), 4),
        (Snapshot(ID, failures=3), 8),
        (Snapshot(ID, failures=1000), 30),
        (Snapshot(ID, READY, failures=1), None),
    ],
)
def test_polls_rarely_when_far_or_unavailable_and_never_when_over(
    snapshot: Snapshot, pause: float | None
) -> None:
    assert poll_seconds(snapshot, NOW, USUAL) == pause


@pytest.mark.parametrize(
    ("usual", "written_for", "pause"),
    [
        (8, 0, 2),
        (8, 1.9, 2),
        (8, 2.1, 0.5),  # in 2 s it would be half of the usual time
        (8, 8, 0.5),
        (8, 15, 0.5),
        (8, 16, 1),  # late, and ever later
        (8, 31, 2),
        (8, 61, 5),
        (8, 3600, 5),
        (60, 20, 2),
        (60, 29, 1),  # who has waited so long hardly notices
        (60, 40, 2),
        (1, 0, 0.5),
        (None, 0, 0.5),
        (None, 16, 1),
    ],
)
def test_polls_often_around_the_usual_time_and_the_rarer_the_longer_it_takes(
    usual: float | None, written_for: float, pause: float
) -> None:
    usually = None if usual is None else seconds(usual)

    assert poll_seconds(Snapshot(ID, WRITING), CLAIMED_AT + seconds(written_for), usually) == pause


@pytest.mark.parametrize(("late", "pause"), [(-1, 2), (0, 2), (2.1, 0.5), (20, 1), (600, 5)])
def test_one_that_is_late_to_start_is_expected_as_if_it_had_started(
    late: float, pause: float
) -> None:
    assert poll_seconds(Snapshot(ID, WAITING), WAITING.due_at + seconds(late), USUAL) == pause


@pytest.mark.parametrize(("crowd", "pause"), [(80, 0.5), (81, 1), (160, 1), (320, 2), (9000, 5)])
def test_a_crowd_polls_less_often_each(crowd: int, pause: float) -> None:
    near, far = CLAIMED_AT + seconds(8), CLAIMED_AT

    assert poll_seconds(Snapshot(ID, WRITING), near, USUAL, crowd) == pause
    assert poll_seconds(Snapshot(ID, WRITING), far, USUAL, crowd) == 2


def test_a_crowd_is_who_has_joined_and_neither_left_nor_been_silent_for_a_minute() -> None:
    time = 0.0
    crowd = Crowd(clock=lambda: time)

    for member in ("a", "b", "c", "a"):
        crowd.join(member, 0.5)
    assert crowd.size() == 3
    crowd.leave("a")
    crowd.leave("a")
    assert crowd.size() == 2
    time = 50
    crowd.join("b", 0.5)
    time = 61
    assert crowd.size() == 1


def test_in_a_crowd_no_pause_becomes_shorter_as_each_change_would_make_more_work() -> None:
    crowd = Crowd(clock=lambda: 0)

    assert [crowd.join("a", pause) for pause in (0.5, 2, 1)] == [0.5, 2, 2]
    crowd.leave("a")
    assert crowd.join("a", 0.5) == 0.5


def test_one_failure_is_nothing_new_and_two_are() -> None:
    assert not has_changed(Snapshot(ID, WRITING), Snapshot(ID, WRITING, failures=1))
    assert has_changed(Snapshot(ID, WRITING, failures=1), Snapshot(ID, WRITING, failures=2))
    assert not has_changed(Snapshot(ID, WRITING, failures=2), Snapshot(ID, WRITING, failures=3))
    assert has_changed(Snapshot(ID, WRITING, failures=2), Snapshot(ID, WRITING))
    assert has_changed(Snapshot(ID, WRITING), Snapshot(ID, READY))
    assert has_changed(Snapshot(ID, WRITING), Snapshot(ID, is_gone=True))


@pytest.mark.parametrize(
    ("snapshot", "says_unavailable"),
    [
        (Snapshot(ID, failures=1), True),  # there is nothing else to show
        (Snapshot(ID, WRITING, failures=1), False),  # nothing would take it away again
        (Snapshot(ID, WRITING, failures=2), True),
        (Snapshot(ID, READY, failures=1), False),
        (Snapshot(ID, READY, failures=2), False),
        (Snapshot(ID, WRITING), False),
    ],
)
def test_says_unavailable_only_while_something_is_still_to_come(
    snapshot: Snapshot, says_unavailable: bool
) -> None:
    assert snapshot.says_unavailable is says_unavailable
    assert (texts.unavailable_text(snapshot) in texts.announcement(snapshot)) is says_unavailable


def test_only_what_was_unfinished_before_becomes_ready() -> None:
    assert has_become_ready(Snapshot(ID, WRITING), Snapshot(ID, READY))
    assert has_become_ready(Snapshot(ID, WAITING, failures=2), Snapshot(ID, READY))
    assert not has_become_ready(Snapshot(ID), Snapshot(ID, READY))
    assert not has_become_ready(Snapshot(ID, READY), Snapshot(ID, READY))
    assert not has_become_ready(Snapshot(ID, WRITING), Snapshot(ID, FAILED))
