"""Records whose input or result has a shape that this version's task doesn't know."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import Field, create_model

from common.failures import Failure
from common.fields import Model
from common.form import Form
from common.other_task import OfTask, OtherForm, OtherResult
from common.record import REPUBLISH_AFTER, AnalysisRecord
from common.states import Reason, Status, TransitionError
from common.store import parse_record
from common.task import TASK
from common.versions import Unreadable
from tests.fakes import ADA, ANALYSIS, CALL, DEADLINE, DELAY, LEASE, NOW
from tests.states import (
    CANCELLED,
    CLAIMED_AT,
    FAILED,
    OTHER_INPUT,
    OTHER_RESULT,
    OTHER_TASK,
    READY,
    RETRYING,
    WAITING,
    WRITING,
    of_other_task,
    seconds,
)
from tests.toy.task import Analysis, AnalysisInput

DUE = WAITING.due_at


def other(record: AnalysisRecord, task: str | None = OTHER_TASK) -> AnalysisRecord:
    return parse_record(of_other_task(record, task))


def claim(record: AnalysisRecord, after: float = 0) -> AnalysisRecord:
    return record.claim("b", of_round=1, now=DUE + seconds(after), call=CALL, lease=LEASE)


def changed(record: AnalysisRecord, **changes: Any) -> str:
    data = json.loads(record.model_dump_json(by_alias=True))
    return json.dumps(data | changes)


def status(record: AnalysisRecord) -> str:
    return record.status


def refusal(action: Callable[[], object]) -> Reason:
    with pytest.raises(TransitionError) as caught:
        action()
    return caught.value.reason


@pytest.mark.parametrize("task", [OTHER_TASK, None], ids=["of another", "from before"])
@pytest.mark.parametrize(
    "record", [WAITING, WRITING, RETRYING, READY, FAILED], ids=lambda record: record.status
)
def test_it_is_kept_as_it_is(record: AnalysisRecord, task: str | None) -> None:
    text = of_other_task(record, task)

    read = parse_record(text, record.request_id)

    assert read.is_of_other_task
    assert read.status is record.status
    assert read.model_dump_json(by_alias=True) == text


@pytest.mark.parametrize(
    "value",
    [{}, OTHER_INPUT, {"name": "Ada"}, {**ADA.model_dump(), "age": "unknown"}],
    ids=["empty", "another", "too little", "of another type"],
)
def test_an_input_that_does_not_fit_is_another_tasks_or_damaged(value: dict[str, object]) -> None:
    assert parse_record(changed(WAITING, input=value, task=OTHER_TASK)).is_of_other_task
    with pytest.raises(Unreadable, match="can't be read: damaged: input"):
        parse_record(changed(WAITING, input=value))


@pytest.mark.parametrize(
    "value",
    [OTHER_RESULT, {"summary": "Short."}, {**ANALYSIS.model_dump(), "tone": ""}],
    ids=["another", "too little", "blank"],
)
def test_a_result_that_does_not_fit_is_another_tasks_or_damaged(value: dict[str, object]) -> None:
    assert parse_record(changed(READY, result=value, task=OTHER_TASK)).is_of_other_task
    with pytest.raises(Unreadable, match="can't be read: damaged: result"):
        parse_record(changed(READY, result=value))


@pytest.mark.parametrize("value", ["text", 7, [ADA.model_dump()], True])
def test_what_is_no_object_is_damaged_whoever_wrote_it(value: object) -> None:
    with pytest.raises(Unreadable, match="can't be read: damaged: input"):
        parse_record(changed(WAITING, input=value, task=OTHER_TASK))


@pytest.mark.parametrize(
    "record", [WAITING, WRITING, READY, FAILED, CANCELLED], ids=lambda record: record.status
)
def test_what_fits_is_read_whoever_wrote_it(record: AnalysisRecord) -> None:
    read = parse_record(changed(record, task=OTHER_TASK))

    assert not read.is_of_other_task
    assert (read.input, read.result) == (record.input, record.result)


@pytest.mark.parametrize("task", [OTHER_TASK, TASK.fingerprint], ids=["of another", "of ours"])
def test_fields_that_are_gone_or_not_known_yet_are_ignored(task: str) -> None:
    more = {**ADA.model_dump(), "city": "Paris"}, {**ANALYSIS.model_dump(), "score": 3}

    waiting = parse_record(changed(WAITING, input=more[0], task=task))
    ready = parse_record(changed(READY, result=more[1], task=task))

    assert (waiting.input, ready.result) == (ADA, ANALYSIS)


class Wish(Form):
    """All of it may be left out."""

    name: Annotated[str | None, Field(max_length=80)] = None
    wish: Annotated[str | None, Field(max_length=80)] = None


class Wishes(Model):
    """A record of them."""

    task: str | None
    input: Annotated[Form, OfTask(Wish, OtherForm, TASK.fingerprint)]


@pytest.mark.parametrize(
    ("value", "is_other"),
    [({"name": "Ada", "wish": None}, False), ({"name": "Ada"}, False), (ADA.model_dump(), True)],
    ids=["ours", "from before a field was added", "another"],
)
def test_a_form_of_optional_fields_does_not_fit_everything(
    value: dict[str, object], is_other: bool
) -> None:
    read = Wishes.model_validate({"task": OTHER_TASK, "input": value}, extra="ignore")

    assert isinstance(read.input, OtherForm) is is_other


class Asked(AnalysisInput):
    """The form with a field more, which must be filled in."""

    city: Annotated[str, Field(max_length=80)]


class MayBeAsked(AnalysisInput):
    """The form with a field more, which may be left out."""

    city: Annotated[str | None, Field(max_length=80)] = None


class Answered(Analysis):
    """The result with a field more: a model must always answer it."""

    city: str | None


@pytest.mark.parametrize(
    ("model", "other", "value", "is_other"),
    [
        (Asked, OtherForm, ADA, True),
        (MayBeAsked, OtherForm, ADA, False),
        (Answered, OtherResult, ANALYSIS, True),
    ],
    ids=["asked", "may be asked", "answered"],
)
def test_a_field_more_in_the_task_makes_it_another_or_is_left_out_and_damages_nothing(
    model: type[Model], other: type[Model], value: Model, is_other: bool
) -> None:
    fields: dict[str, Any] = {
        "task": (str, ...),
        "value": (Annotated[Any, OfTask(model, other, "of the new one")], ...),
    }
    stored = {"task": TASK.fingerprint, "value": value.model_dump(mode="json")}

    read = create_model("Stored", **fields).model_validate(stored)

    assert isinstance(vars(read)["value"], other if is_other else model)


def test_what_fits_says_so_once_it_is_written_again() -> None:
    """Else a version of the task that wrote it first would take the change for damage."""
    read = parse_record(changed(WAITING, task=OTHER_TASK))

    assert read.published("msg_1", of_round=1).task == TASK.fingerprint
    assert claim(read).task == TASK.fingerprint


def test_a_due_one_fails_as_its_task_has_changed() -> None:
    ended = claim(other(WAITING))

    assert (ended.status, ended.failure) == (Status.FAILED, Failure.TASK_CHANGED)
    assert (ended.attempt, ended.task) == (0, OTHER_TASK)
    assert ended.input == other(WAITING).input


def test_one_that_is_not_due_waits_as_any() -> None:
    assert refusal(lambda: claim(other(WAITING), after=-10)) is Reason.NOT_DUE
    assert refusal(lambda: claim(other(RETRYING))) is Reason.NOT_DUE


def test_a_running_attempt_is_left_alone_until_its_lease_ends() -> None:
    running = other(WRITING)

    assert refusal(lambda: claim(running, after=39)) is Reason.CLAIMED
    assert claim(running, after=41).failure is Failure.TASK_CHANGED


@pytest.mark.parametrize("record", [READY, FAILED], ids=status)
def test_a_terminal_one_is_never_claimed(record: AnalysisRecord) -> None:
    assert refusal(lambda: claim(other(record))) is Reason.TERMINAL


def test_its_time_passes_as_anybodys() -> None:
    late = other(WAITING).time_out(now=DUE + DEADLINE)

    assert late.failure is Failure.TIMED_OUT
    assert late.input == other(WAITING).input


def test_it_can_be_given_up_and_cancelled() -> None:
    given_up = other(WAITING).give_up(of_round=1, now=DUE, lease=LEASE)
    cancelled = other(WRITING).cancel(now=CLAIMED_AT)

    assert given_up.failure is Failure.DELIVERY_FAILED
    assert cancelled.status is Status.CANCELLED
    assert not cancelled.is_of_other_task, "its input is forgotten"


def test_what_it_asked_for_is_not_changed() -> None:
    assert refusal(lambda: other(WAITING).edit(ADA)) is Reason.OTHER_TASK


def test_it_is_not_published_again() -> None:
    long_ago = NOW + REPUBLISH_AFTER

    assert WAITING.is_unpublished(long_ago)
    assert not other(WAITING).is_unpublished(long_ago)


def test_it_is_not_tried_again() -> None:
    def reopen() -> AnalysisRecord:
        return other(FAILED).reopen(now=DUE, delay=DELAY, deadline=DEADLINE)

    assert refusal(reopen) is Reason.OTHER_TASK
