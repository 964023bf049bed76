"""Following what is unfinished in the list."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from common.record import AnalysisRecord
from page.requests import Following
from page.snapshot import Snapshot, poll_seconds
from tests.fakes import ANALYSIS, CALL, LEASE, NOW, pending

IDS = [f"{number:032x}" for number in range(20)]
FAR = timedelta(hours=1)


@dataclass
class Shelf:
    """Stands in for the store, and for the clock."""

    records: dict[str, AnalysisRecord] = field(default_factory=dict)
    now: datetime = NOW
    is_away: bool = False
    looked_up: list[str] = field(default_factory=list)

    def look_up(self, request_id: str, last: Snapshot | None) -> Snapshot:
        self.looked_up.append(request_id)
        if self.is_away:
            last = last or Snapshot(request_id)
            return replace(last, failures=last.failures + 1)
        record = self.records.get(request_id)
        return Snapshot(request_id, record, is_gone=record is None)

    def pace(self, snapshot: Snapshot) -> float | None:
        return poll_seconds(snapshot, self.now)

    def take_looks(self) -> list[str]:
        looks, self.looked_up = self.looked_up, []
        return looks

    def complete(self, request_id: str) -> None:
        record = pending(NOW, timedelta(), request_id)
        record = record.claim("t", of_round=1, now=NOW, call=CALL, lease=LEASE)
        self.records[request_id] = record.complete("t", ANALYSIS, model="m", now=NOW)


def follow(shelf: Shelf, ids: list[str]) -> Following:
    """Follow these; those that the shelf doesn't have are pending, and due."""
    shelf.records = {each: pending(NOW, timedelta(), each) for each in ids} | shelf.records
    following = Following(shelf.look_up, lambda: shelf.now)
    following.meet(ids)
    return following


def pause(following: Following, shelf: Shelf) -> float | None:
    soonest = following.soonest(shelf.pace)
    return shelf.pace(soonest) if soonest else None


def poll(following: Following, shelf: Shelf) -> None:
    seconds = pause(following, shelf)
    assert seconds
    shelf.now += timedelta(seconds=seconds)
    following.poll(shelf.pace)


def test_all_are_looked_up_at_first_and_then_one_in_each_poll() -> None:
    shelf = Shelf()
    following = follow(shelf, IDS)
    assert shelf.take_looks() == IDS
    following.meet(IDS)  # what else makes the fragment run
    assert shelf.take_looks() == []

    for _ in range(20):
        poll(following, shelf)

    assert sorted(shelf.take_looks()) == IDS


def test_one_that_is_due_soon_is_looked_up_more_often_than_one_that_is_not() -> None:
    shelf = Shelf({each: pending(NOW, FAR, each) for each in IDS[1:3]})
    following = follow(shelf, IDS[:3])
    shelf.take_looks()
    assert pause(following, shelf) == shelf.pace(following.snapshots[IDS[0]])

    for _ in range(60):
        poll(following, shelf)

    looks = shelf.take_looks()
    assert looks.count(IDS[0]) > looks.count(IDS[1]) > 0


def test_it_stops_when_none_is_unfinished() -> None:
    shelf = Shelf()
    following = follow(shelf, IDS[:2])
    shelf.complete(IDS[0])
    del shelf.records[IDS[1]]
    poll(following, shelf)
    poll(following, shelf)
    shelf.take_looks()

    assert pause(following, shelf) is None
    following.poll(shelf.pace)
    assert shelf.take_looks() == []
    following.meet([])
    assert following.snapshots == following.looked_at == {}


def test_only_what_became_ready_meanwhile_is_news() -> None:
    shelf = Shelf()
    shelf.complete(IDS[0])
    following = follow(shelf, IDS[:2])
    assert following.ready == []

    shelf.complete(IDS[1])
    poll(following, shelf)
    following.meet([])

    assert [snapshot.request_id for snapshot in following.ready] == [IDS[1]]


def test_while_the_store_is_away_it_asks_ever_more_rarely_and_for_one_at_a_time() -> None:
    shelf = Shelf(is_away=True)
    following = follow(shelf, IDS[:3])
    assert shelf.take_looks() == IDS[:1]
    pauses: list[float | None] = []

    for _ in range(6):
        poll(following, shelf)
        pauses.append(pause(following, shelf))
    assert len(shelf.take_looks()) == 6
    assert pauses[-1] == 30

    shelf.is_away = False
    for _ in range(3):
        poll(following, shelf)
    assert all(snapshot.record for snapshot in following.snapshots.values())
    assert pause(following, shelf) == shelf.pace(following.snapshots[IDS[0]])


def test_what_did_not_change_is_the_same_to_the_browser() -> None:
    shelf = Shelf()
    following = follow(shelf, IDS[:1])
    shelf.now += timedelta(minutes=1)
    following.poll(shelf.pace)
    assert following.changed_at == NOW

    shelf.complete(IDS[0])
    following.poll(shelf.pace)
    assert following.changed_at == shelf.now
