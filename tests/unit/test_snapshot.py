"""What is known of an analysis, and when it is fetched again."""

import pytest

from page import texts
from page.snapshot import Snapshot, has_changed, poll_seconds
from tests.fakes import ID, NOW, with_fields
from tests.states import CANCELLED, FAILED, READY, WAITING, WRITING, seconds


@pytest.mark.parametrize(
    ("snapshot", "pause"),
    [
        (Snapshot(ID, WAITING), 5),
        (Snapshot(ID, with_fields(WAITING, next_attempt_at=NOW + seconds(9))), 2),
        (Snapshot(ID, WRITING), 2),
        (Snapshot(ID, READY), None),
        (Snapshot(ID, FAILED), None),
        (Snapshot(ID, CANCELLED), None),
        (Snapshot(ID, is_gone=True), None),
        (Snapshot(ID, WRITING, failures=1), 2),
        (Snapshot(ID, WAITING, failures=2), 4),
        (Snapshot(ID, failures=3), 8),
        (Snapshot(ID, failures=1000), 30),
        (Snapshot(ID, READY, failures=1), None),
    ],
)
def test_polls_often_when_near_rarely_when_unavailable_and_never_when_over(
    snapshot: Snapshot, pause: int | None
) -> None:
    assert poll_seconds(snapshot, NOW) == pause


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
