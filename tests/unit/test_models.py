"""The state machine, without Redis."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from common.failures import Failure, Kind
from common.record import MAX_ATTEMPTS, MAX_ROUNDS, AnalysisRecord
from common.states import Reason, Status, TransitionError
from tests.fakes import ADA, ANALYSIS, BOB, CALL, DEADLINE, DELAY, LEASE, NOW, pending, with_fields

DUE = NOW + DELAY
SECOND = timedelta(seconds=1)


def claimed(token: str = "a") -> AnalysisRecord:
    return pending().claim(token, of_round=1, now=DUE, call=CALL, lease=LEASE)


def completed() -> AnalysisRecord:
    return claimed().complete("a", ANALYSIS, model="m", now=DUE)


def failed() -> AnalysisRecord:
    return pending().not_queued(of_round=1, is_first=True, now=NOW)


def fail(record: AnalysisRecord, code: Failure, retry_after: float = 0) -> AnalysisRecord:
    return record.fail(
        record.claim_token or "",
        code,
        now=DUE,
        retry_after=timedelta(seconds=retry_after),
        longest_wait=timedelta(seconds=135),
    )


def fail_all_attempts(code: Failure) -> AnalysisRecord:
    record = pending()
    for token in "abc":
        record = record.claim(token, of_round=1, now=record.next_attempt_at, call=CALL, lease=LEASE)
        record = fail(record, code)
    return record


def refusal_of(act: object) -> Reason:
    with pytest.raises(TransitionError) as caught:
        act()  # type: ignore[operator]
    return caught.value.reason


# ── Claim ──


def test_a_due_record_is_claimed() -> None:
    record = pending().claim("a", of_round=1, now=DUE, call=CALL, lease=LEASE)

    assert (record.status, record.attempt, record.claim_token) == (Status.PROCESSING, 1, "a")


def test_a_claim_two_seconds_early_is_granted_and_earlier_is_told_how_long() -> None:
    assert (
        pending().claim("a", of_round=1, now=DUE - 2 * SECOND, call=CALL, lease=LEASE).attempt == 1
    )

    with pytest.raises(TransitionError) as caught:
        pending().claim("a", of_round=1, now=DUE - 3 * SECOND, call=CALL, lease=LEASE)

    assert caught.value.reason is Reason.NOT_DUE
    assert caught.value.retry_after == 3 * SECOND


def test_a_replayed_claim_changes_nothing() -> None:
    record = claimed("a")

    assert record.claim("a", of_round=1, now=DUE + SECOND, call=CALL, lease=LEASE) is record


def test_a_claim_after_a_dead_attempt_counts_as_another() -> None:
    record = claimed("a").claim("b", of_round=1, now=DUE + LEASE, call=CALL, lease=LEASE)

    assert (record.attempt, record.claim_token) == (2, "b")


@pytest.mark.parametrize(
    "act",
    [
        lambda record, now: record.claim("b", of_round=1, now=now, call=CALL, lease=LEASE),
        lambda record, now: record.give_up(of_round=1, now=now, lease=LEASE),
    ],
    ids=["claim", "give up"],
)
def test_a_running_attempt_is_left_alone_until_its_lease_has_ended(
    act: Callable[[AnalysisRecord, datetime], AnalysisRecord],
) -> None:
    with pytest.raises(TransitionError) as caught:
        act(claimed("a"), DUE + LEASE - SECOND)

    assert (caught.value.reason, caught.value.retry_after) == (Reason.CLAIMED, SECOND)
    assert act(claimed("a"), DUE + LEASE).claim_token != "a"


@pytest.mark.parametrize(
    ("record", "number", "now", "reason"),
    [
        pytest.param(completed(), 1, DUE, Reason.TERMINAL, id="completed"),
        pytest.param(failed(), 1, DUE, Reason.TERMINAL, id="failed"),
        pytest.param(pending().cancel(now=NOW), 1, DUE, Reason.TERMINAL, id="cancelled"),
        pytest.param(pending(), 2, DUE, Reason.OTHER_ROUND, id="a round to come"),
        pytest.param(
            failed().reopen(now=NOW, delay=DELAY, deadline=DEADLINE),
            1,
            DUE,
            Reason.OTHER_ROUND,
            id="an older round",
        ),
        pytest.param(
            pending(), 1, DUE + DEADLINE - CALL + SECOND, Reason.TOO_LATE, id="no time left"
        ),
    ],
)
def test_a_claim_is_refused(record: AnalysisRecord, number: int, now, reason: Reason) -> None:  # type: ignore[no-untyped-def]
    assert (
        refusal_of(lambda: record.claim("x", of_round=number, now=now, call=CALL, lease=LEASE))
        is reason
    )


def test_a_claim_beyond_the_last_attempt_fails_the_record() -> None:
    record = claimed("a")
    for number, token in enumerate("bcd", 1):
        record = record.claim(token, of_round=1, now=DUE + number * LEASE, call=CALL, lease=LEASE)

    assert record.attempt == MAX_ATTEMPTS
    assert record.failure is Failure.ATTEMPTS_EXHAUSTED


# ── Settle ──


def test_a_completed_record_holds_the_result_and_no_input() -> None:
    record = completed()

    assert (record.status, record.result, record.input) == (Status.COMPLETED, ANALYSIS, None)


def test_only_the_token_of_the_claim_settles() -> None:
    record = claimed("a").claim("b", of_round=1, now=DUE + LEASE, call=CALL, lease=LEASE)

    assert refusal_of(lambda: record.complete("a", ANALYSIS, model="m", now=DUE)) is (
        Reason.NOT_THE_CLAIM
    )


@pytest.mark.parametrize("code", Failure)
def test_a_settled_attempt_settled_again_changes_nothing(code: Failure) -> None:
    record = fail(claimed("a"), code)

    assert record.fail("a", code, now=DUE, retry_after=SECOND, longest_wait=SECOND) is record


def test_a_late_result_does_not_overwrite_a_cancellation() -> None:
    record = claimed("a").cancel(now=DUE)

    assert refusal_of(lambda: record.complete("a", ANALYSIS, model="m", now=DUE)) is (
        Reason.NOT_THE_CLAIM
    )


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in Failure
        if code.kind is Kind.TRANSIENT and code is not Failure.ANSWER_TRUNCATED
    ],
)
def test_a_transient_failure_waits_longer_each_time_and_then_fails(code: Failure) -> None:
    first = fail(claimed(), code)
    second = fail(
        first.claim("b", of_round=1, now=first.next_attempt_at, call=CALL, lease=LEASE), code
    )
    third = fail(
        second.claim("c", of_round=1, now=second.next_attempt_at, call=CALL, lease=LEASE), code
    )

    assert (first.status, first.next_attempt_at - DUE) == (Status.PENDING, 10 * SECOND)
    assert (second.status, second.next_attempt_at - DUE) == (Status.PENDING, 20 * SECOND)
    assert (third.failure, third.last_failure) == (Failure.ATTEMPTS_EXHAUSTED, code)
    assert (first.last_failed_at, second.last_failed_at) == (DUE, DUE)


@pytest.mark.parametrize(("wish", "granted"), [(0, 10), (5, 10), (60, 60), (100_000, 135)], ids=str)
def test_the_providers_longer_wish_is_obeyed_up_to_a_limit(wish: int, granted: int) -> None:
    record = fail(claimed(), Failure.RATE_LIMITED, retry_after=wish)

    assert record.next_attempt_at - DUE == granted * SECOND


@pytest.mark.parametrize("code", [code for code in Failure if code.kind is not Kind.TRANSIENT])
def test_a_permanent_failure_fails_at_once_and_keeps_the_input(code: Failure) -> None:
    record = fail(claimed(), code)

    assert (record.status, record.failure, record.input) == (Status.FAILED, code, ADA)


def test_an_answer_truncated_twice_is_given_up() -> None:
    first = fail(claimed(), Failure.ANSWER_TRUNCATED)
    second = first.claim("b", of_round=1, now=first.next_attempt_at, call=CALL, lease=LEASE)

    assert fail(second, Failure.ANSWER_TRUNCATED).failure is Failure.ANSWER_TOO_LONG


# ── Deadline, publishing, people ──


def test_an_unfinished_record_times_out_at_its_deadline_and_not_before() -> None:
    deadline = DUE + DEADLINE

    for record in (pending(), claimed()):
        assert record.time_out(now=deadline - SECOND) is record
        assert record.time_out(now=deadline).failure is Failure.TIMED_OUT


def test_terminal_records_do_not_time_out() -> None:
    assert completed().time_out(now=DUE + 2 * DEADLINE).status is Status.COMPLETED


def test_a_record_without_a_message_is_published_again_after_15_seconds() -> None:
    record = pending()

    assert refusal_of(lambda: record.try_publish(now=NOW + 14 * SECOND)) is Reason.NOT_DUE
    again = record.try_publish(now=NOW + 15 * SECOND)
    assert refusal_of(lambda: again.try_publish(now=NOW + 16 * SECOND)) is Reason.NOT_DUE
    assert not again.published("msg", of_round=1).is_unpublished(NOW + 60 * SECOND)
    assert not fail(claimed(), Failure.RATE_LIMITED).is_unpublished(DUE + 60 * SECOND)


def test_times_are_read_in_pythons_own_utc() -> None:
    original = claimed()
    stored = original.model_dump_json()
    record = AnalysisRecord.model_validate_json(stored.replace("Z", "+00:00", 1))

    times = [value for _, value in record if isinstance(value, datetime)]
    assert times
    assert all(time.tzinfo is UTC for time in times)
    assert record == original
    with pytest.raises(ValidationError, match="too early or too late"):
        AnalysisRecord.model_validate(record.model_dump() | {"due_at": "0001-01-01T00:00:00+10:00"})


def test_a_refused_publish_does_not_fail_a_record_that_another_publish_served() -> None:
    record = pending().published("msg", of_round=1)

    assert record.not_queued(of_round=1, is_first=True, now=NOW) is record


def test_a_refused_second_publish_fails_a_record_only_once_the_first_would_have_come() -> None:
    record = pending()

    def refuse(now: datetime) -> AnalysisRecord:
        return record.not_queued(of_round=1, is_first=False, now=now)

    assert refuse(DUE + 14 * SECOND) == record
    assert refuse(DUE + 15 * SECOND).failure is Failure.NOT_QUEUED


@pytest.mark.parametrize("record", [pending(), claimed()], ids=["before", "during"])
def test_cancelling_forgets_the_input(record: AnalysisRecord) -> None:
    cancelled = record.cancel(now=NOW)

    assert (cancelled.status, cancelled.input) == (Status.CANCELLED, None)


def reopened() -> AnalysisRecord:
    return failed().reopen(now=NOW, delay=DELAY, deadline=DEADLINE)


@pytest.mark.parametrize("record", [pending(), reopened()], ids=["first round", "second round"])
def test_what_was_written_can_be_changed_until_an_attempt_begins(record: AnalysisRecord) -> None:
    record = record.published("msg", of_round=record.round)

    edited = record.edit(BOB)

    assert edited == with_fields(record, input=BOB)


@pytest.mark.parametrize("record", [pending(), claimed(), fail(claimed(), Failure.RATE_LIMITED)])
def test_changing_it_to_the_same_changes_nothing(record: AnalysisRecord) -> None:
    assert record.edit(ADA) is record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param(claimed(), Reason.BEGUN, id="processing"),
        pytest.param(fail(claimed(), Failure.RATE_LIMITED), Reason.BEGUN, id="between attempts"),
        pytest.param(completed(), Reason.TERMINAL, id="completed"),
        pytest.param(failed(), Reason.TERMINAL, id="failed"),
        pytest.param(pending().cancel(now=NOW), Reason.TERMINAL, id="cancelled"),
    ],
)
def test_what_was_sent_to_the_model_or_is_over_is_not_changed(
    record: AnalysisRecord, reason: Reason
) -> None:
    assert refusal_of(lambda: record.edit(BOB)) is reason


def test_the_next_round_has_what_was_written_last() -> None:
    edited = pending().edit(BOB)

    again = edited.not_queued(of_round=1, is_first=True, now=NOW).reopen(
        now=NOW, delay=DELAY, deadline=DEADLINE
    )

    assert again.input == BOB


def test_a_reopened_record_starts_a_new_round_with_all_attempts() -> None:
    later = NOW + timedelta(hours=1)
    record = fail_all_attempts(Failure.RATE_LIMITED)
    assert record.failure is Failure.ATTEMPTS_EXHAUSTED

    reopened = record.reopen(now=later, delay=DELAY, deadline=DEADLINE)

    assert (reopened.status, reopened.round, reopened.attempt) == (Status.PENDING, 2, 0)
    assert (reopened.failure, reopened.message_id, reopened.claim_token) == (None, None, None)
    assert (reopened.created_at, reopened.due_at) == (NOW, later + DELAY)


@pytest.mark.parametrize("record", [pending(), claimed(), completed()])
def test_only_a_failed_record_is_reopened(record: AnalysisRecord) -> None:
    assert refusal_of(lambda: record.reopen(now=NOW, delay=DELAY, deadline=DEADLINE)) is (
        Reason.NOT_FAILED
    )


def test_rounds_are_capped() -> None:
    record = failed()
    for number in range(2, MAX_ROUNDS + 1):
        record = record.reopen(now=NOW, delay=DELAY, deadline=DEADLINE)
        record = record.give_up(of_round=number, now=NOW, lease=LEASE)

    assert refusal_of(lambda: record.reopen(now=NOW, delay=DELAY, deadline=DEADLINE)) is (
        Reason.ROUNDS_USED_UP
    )


@pytest.mark.parametrize("record", [pending(), claimed(), completed(), failed()])
def test_a_record_survives_json(record: AnalysisRecord) -> None:
    text = record.model_dump_json(by_alias=True)

    assert AnalysisRecord.model_validate_json(text) == record
    assert '"requestId"' in text


def test_every_failure_has_a_sentence_and_a_next_step() -> None:
    assert all(row.sentence.endswith(".") and row.next_step for row in Failure)
