"""What a person can do, with the real store on fakeredis and a fake queue."""

from datetime import timedelta

import pytest

from common.connection import StoreUnavailable, connect
from common.failures import Failure
from common.owners import new_owner_token, owns
from common.qstash import QStashRefused, QStashUnclear
from common.record import MAX_ROUNDS, AnalysisRecord
from common.settings import ServiceSettings
from common.states import Reason, Status, TransitionError
from common.store import NotFound, Store
from common.submission import NotOwner, OtherInput, Submissions, new_request_id
from tests.conftest import make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    BOB,
    CALL,
    ID,
    LEASE,
    OTHER_ID,
    FakeAnalyst,
    FakeQueue,
    note_duration,
    with_fields,
)
from webhook_service.worker import Delivery, Worker

OWNER = "owner-token"


@pytest.fixture
def submissions(store: Store, queue: FakeQueue, settings: ServiceSettings) -> Submissions:
    return Submissions(store, queue, settings)


def later(store: Store, queue: FakeQueue, seconds: float) -> Submissions:
    """The same submissions, a while later by this machine's clock."""
    return Submissions(
        store, queue, make_settings(), clock=lambda: store.now() + timedelta(seconds=seconds)
    )


def age(store: Store, seconds: float) -> None:
    """Make the record as old as if it had been published that long ago."""
    store.update(
        ID, lambda r, _: with_fields(r, published_at=r.published_at - timedelta(seconds=seconds))
    )


def submit(submissions: Submissions) -> AnalysisRecord:
    return submissions.submit(ADA, request_id=ID, owner_token=OWNER)


def test_submitting_stores_a_pending_record_and_publishes_its_message(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    record = submit(submissions)

    assert store.read(ID) == record
    assert (record.status, record.message_id) == (Status.PENDING, f"msg-{ID}-1")
    assert record.due_at - record.created_at == timedelta(seconds=60)
    assert queue.published == [(ID, 1)]


def test_submitting_twice_makes_one_analysis(submissions: Submissions, queue: FakeQueue) -> None:
    assert submit(submissions) == submit(submissions)
    assert queue.published == [(ID, 1)]


def test_the_record_is_stored_before_the_message_can_be_delivered(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    stored: list[AnalysisRecord] = []
    queue.before_answer = lambda: stored.append(store.read(ID))

    submit(submissions)

    assert stored[0].status is Status.PENDING


def test_a_delivery_faster_than_the_publishers_answer_is_not_overwritten(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    def deliver() -> None:
        store.update(
            ID, lambda r, now: r.claim("a", of_round=1, now=r.due_at, call=CALL, lease=LEASE)
        )
        store.update(ID, lambda r, now: r.complete("a", ANALYSIS, model="m", now=now))

    queue.before_answer = deliver

    assert submit(submissions).status is Status.COMPLETED


def test_an_id_stands_for_one_owner(submissions: Submissions, queue: FakeQueue) -> None:
    submit(submissions)

    for token in ("somebody else", "", None):
        with pytest.raises(OtherInput):
            submissions.submit(ADA, request_id=ID, owner_token=token)
    assert queue.published == [(ID, 1)]


def test_where_nobody_is_the_owner_an_id_stands_for_one_input(
    submissions: Submissions, queue: FakeQueue
) -> None:
    submissions.submit(ADA, request_id=ID)

    with pytest.raises(OtherInput):
        submissions.submit(BOB, request_id=ID)
    with pytest.raises(OtherInput):
        submissions.submit(ADA, request_id=ID, owner_token=OWNER)
    assert queue.published == [(ID, 1)]


def test_a_refused_publish_fails_the_record_and_a_further_call_publishes_again(
    submissions: Submissions, queue: FakeQueue
) -> None:
    queue.trouble = QStashRefused("429")
    refused = submit(submissions)

    queue.trouble = None
    record = submit(submissions)

    assert (refused.status, refused.failure) == (Status.FAILED, Failure.NOT_QUEUED)
    assert (record.status, record.round) == (Status.PENDING, 2)
    assert queue.published == [(ID, 2)]


def test_a_refused_publish_can_be_repeated_for_as_long_as_it_takes(
    submissions: Submissions, queue: FakeQueue
) -> None:
    queue.trouble = QStashRefused("429")
    for _ in range(2 * MAX_ROUNDS):
        assert submit(submissions).failure is Failure.NOT_QUEUED

    queue.trouble = None

    assert submit(submissions).status is Status.PENDING


def test_two_calls_that_publish_again_at_once_make_one_message(
    submissions: Submissions, store: Store, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.trouble = QStashRefused("429")
    submit(submissions)
    queue.trouble = None
    read = store.read

    def read_while_a_rival_is_quicker(request_id: str) -> AnalysisRecord:
        record = read(request_id)
        monkeypatch.undo()
        submit(submissions)
        return record

    monkeypatch.setattr(store, "read", read_while_a_rival_is_quicker)

    assert submit(submissions).status is Status.PENDING
    assert queue.published == [(ID, 2)]


def test_an_unclear_publish_stays_pending_and_a_further_call_publishes_again(
    submissions: Submissions, queue: FakeQueue
) -> None:
    queue.trouble = QStashUnclear("timeout")
    unclear = submit(submissions)

    queue.trouble = None
    record = submit(submissions)

    assert (unclear.status, unclear.message_id) == (Status.PENDING, None)
    assert (record.round, record.message_id) == (1, f"msg-{ID}-1")


def test_a_message_that_was_never_published_is_published_by_whoever_looks(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    queue.trouble = QStashUnclear("crash")
    submit(submissions)
    queue.trouble = None

    assert submissions.look_up(ID).message_id is None  # too early
    age(store, 16)
    healed = submissions.look_up(ID)

    assert healed.message_id == f"msg-{ID}-1"
    assert submissions.look_up(ID) == healed
    assert queue.published == [(ID, 1)]


def test_while_publishing_fails_it_is_tried_every_15_seconds_and_not_at_every_look(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    queue.trouble = QStashUnclear("away")
    submit(submissions)
    age(store, 16)

    first = submissions.look_up(ID).published_at
    second = submissions.look_up(ID).published_at

    assert first == second


def test_a_looker_whose_clock_is_ahead_publishes_nothing(
    store: Store, queue: FakeQueue, submissions: Submissions
) -> None:
    queue.trouble = QStashUnclear("away")
    submit(submissions)
    queue.trouble = None

    assert later(store, queue, 3600).look_up(ID).message_id is None
    assert queue.published == []


def test_looking_up_what_does_not_exist(submissions: Submissions) -> None:
    for request_id in (ID, "nonsense", ""):
        with pytest.raises(NotFound):
            submissions.look_up(request_id)


def test_cancelling_takes_the_message_back(submissions: Submissions, queue: FakeQueue) -> None:
    submit(submissions)

    record = submissions.cancel(ID, OWNER)

    assert (record.status, record.input) == (Status.CANCELLED, None)
    assert queue.cancelled == [f"msg-{ID}-1"]


def test_a_terminal_analysis_is_not_cancelled(submissions: Submissions) -> None:
    submit(submissions)
    submissions.cancel(ID, OWNER)

    with pytest.raises(TransitionError):
        submissions.cancel(ID, OWNER)


def test_a_failed_analysis_is_retried_in_a_new_round(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    submit(submissions)
    store.update(ID, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE))

    record = submissions.retry(ID, OWNER)

    assert (record.status, record.round, record.message_id) == (Status.PENDING, 2, f"msg-{ID}-2")
    with pytest.raises(TransitionError):
        submissions.retry(ID, OWNER)


def test_deleting_removes_record_and_message(submissions: Submissions, queue: FakeQueue) -> None:
    submit(submissions)

    submissions.delete(ID, OWNER)

    assert queue.cancelled == [f"msg-{ID}-1"]
    with pytest.raises(NotFound):
        submissions.look_up(ID)


def test_what_was_written_is_changed_under_the_same_link_with_the_one_message(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    before = submit(submissions)

    edited = submissions.edit(ID, OWNER, BOB)

    assert store.read(ID) == edited
    assert edited == with_fields(before, input=BOB)
    assert (queue.published, queue.cancelled) == ([(ID, 1)], [])


def test_changing_it_again_to_the_same_is_safe(submissions: Submissions, store: Store) -> None:
    submit(submissions)

    assert submissions.edit(ID, OWNER, BOB) == submissions.edit(ID, OWNER, BOB) == store.read(ID)


def test_the_model_is_asked_about_what_was_written_last(
    submissions: Submissions, store: Store, settings: ServiceSettings
) -> None:
    submit(submissions)
    submissions.edit(ID, OWNER, BOB)
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))
    analyst = FakeAnalyst()

    Worker(store, analyst, settings.times).process(Delivery(request_id=ID, round=1))

    assert analyst.calls == [BOB]


def test_what_the_model_is_asked_is_not_changed_under_its_feet(
    submissions: Submissions, store: Store, settings: ServiceSettings
) -> None:
    submit(submissions)
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))
    analyst, refused = FakeAnalyst(), list[Reason]()

    def edit() -> None:
        with pytest.raises(TransitionError) as caught:
            submissions.edit(ID, OWNER, BOB)
        refused.append(caught.value.reason)

    analyst.during_call = edit
    Worker(store, analyst, settings.times).process(Delivery(request_id=ID, round=1))

    assert (analyst.calls, refused) == ([ADA], [Reason.BEGUN])
    assert store.read(ID).status is Status.COMPLETED


def test_what_is_changed_while_it_is_published_keeps_the_message(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    queue.before_answer = lambda: submissions.edit(ID, OWNER, BOB)

    record = submit(submissions)

    assert (record.input, record.message_id) == (BOB, f"msg-{ID}-1")
    assert store.read(ID) == record


def test_a_late_click_on_send_finds_what_was_changed_since_and_leaves_it(
    submissions: Submissions, store: Store, queue: FakeQueue
) -> None:
    submit(submissions)
    edited = submissions.edit(ID, OWNER, BOB)

    assert submit(submissions) == edited == store.read(ID)
    assert queue.published == [(ID, 1)]
    with pytest.raises(OtherInput):
        submissions.submit(ADA, request_id=ID, owner_token="somebody else")


def test_a_late_click_on_send_queues_what_was_changed_and_could_not_be_queued(
    submissions: Submissions, queue: FakeQueue
) -> None:
    queue.trouble = QStashUnclear("timeout")
    submit(submissions)
    submissions.edit(ID, OWNER, BOB)
    queue.trouble = None

    record = submit(submissions)

    assert (record.input, record.message_id) == (BOB, f"msg-{ID}-1")


def test_the_owner_is_who_has_the_token(submissions: Submissions) -> None:
    record = submit(submissions)
    made_by_the_api = submissions.submit(ADA, request_id=OTHER_ID)

    assert owns(record, OWNER)
    for token in ("", "wrong", "ö", None):
        assert not owns(record, token)
        assert not owns(made_by_the_api, token)


@pytest.mark.parametrize("token", ["", "wrong", "ö"])
@pytest.mark.parametrize("act", ["edit", "cancel", "retry", "delete"])
def test_who_only_has_the_link_changes_nothing(
    submissions: Submissions, store: Store, act: str, token: str
) -> None:
    submit(submissions)
    before = store.read(ID)

    with pytest.raises(NotOwner):
        getattr(submissions, act)(ID, token, *([BOB] if act == "edit" else []))

    assert store.read(ID) == before


@pytest.mark.parametrize("token", ["", "any"])
def test_an_analysis_made_by_the_api_has_no_owner(submissions: Submissions, token: str) -> None:
    submissions.submit(ADA, request_id=ID)

    with pytest.raises(NotOwner):
        submissions.cancel(ID, token)
    with pytest.raises(NotOwner):
        submissions.edit(ID, token, BOB)


def test_redis_away_is_told_before_anything_is_published(queue: FakeQueue) -> None:
    settings = make_settings()
    submissions = Submissions(make_store(connect(settings)), queue, settings)

    with pytest.raises(StoreUnavailable):
        submit(submissions)

    assert queue.published == []


def test_ids_and_tokens_are_long_and_never_the_same() -> None:
    assert len({new_request_id() for _ in range(1000)}) == 1000
    assert len({new_owner_token() for _ in range(1000)}) == 1000
    assert len(new_request_id()) == 32


def test_what_was_written_is_given_back_to_its_owner_alone(submissions: Submissions) -> None:
    submit(submissions)

    assert submissions.input_of(ID, OWNER) == ADA
    with pytest.raises(NotOwner):
        submissions.input_of(ID, "other")
    submissions.cancel(ID, OWNER)
    assert submissions.input_of(ID, OWNER) is None


def test_the_pace_tells_rediss_clock_and_the_usual_duration(store: Store, queue: FakeQueue) -> None:
    note_duration(store, 8)

    ahead, usual = later(store, queue, seconds=-100).timing()

    assert abs(ahead - timedelta(seconds=100)) < timedelta(seconds=1)
    assert usual == timedelta(seconds=8)
