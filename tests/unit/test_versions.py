"""Records of every version that was released, and of some that will be."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from common.failures import Failure
from common.record import REPUBLISH_AFTER, AnalysisRecord
from common.store import parse_record
from common.versions import UPGRADES, VERSION, Unreadable, Why, upgrade
from tests.fakes import (
    ANALYSIS,
    BOB,
    CALL,
    DEADLINE,
    DELAY,
    ID,
    LEASE,
    NOW,
    OTHER_ID,
    TOKENS,
    with_fields,
)
from tests.states import CLAIMED_AT, FAILED, READY, WAITING, WRITING
from tests.versions import MORE, OWNER_HASH, of_newer, of_older, released, stored_as, with_more

EACH_RELEASED = [*released("1"), *released("1-made-by")]
GONE = {"schemaVersion", "madeBy", "idempotencyKey"}
OWNED = with_fields(WAITING, owner_hash=OWNER_HASH, created_by="app", message_id="msg_1", round=2)


def why(text: str, request_id: str = ID) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        parse_record(text, request_id)
    return caught.value


# ── Of before ──


@pytest.mark.parametrize("text", EACH_RELEASED, ids=lambda text: json.loads(text)["status"])
def test_what_was_released_is_read_and_written_as_this_version(text: str) -> None:
    read = parse_record(text, ID)

    kept = {name: value for name, value in json.loads(text).items() if name not in GONE}
    written = json.loads(read.model_dump_json(by_alias=True))
    assert written["schemaVersion"] == VERSION
    assert written == written | kept
    assert not GONE & written.keys() - {"schemaVersion"}
    assert not read.is_of_other_task
    assert read.is_consistent


def test_who_made_one_is_known_whatever_the_field_was_called() -> None:
    assert parse_record(released("1-made-by")[0]).created_by == "app"


def test_one_that_does_not_say_its_version_is_of_the_first() -> None:
    text = stored_as(WAITING, schemaVersion=..., createdBy=..., madeBy="app")

    assert parse_record(text).created_by == "app"


def test_each_step_leads_to_the_next_version_and_leaves_this_one_alone() -> None:
    first = json.loads(released("1-made-by")[0])

    assert len(UPGRADES) == VERSION - 1
    assert upgrade(dict(first), 1)["schemaVersion"] == VERSION
    newest = json.loads(WAITING.model_dump_json(by_alias=True))
    assert upgrade(dict(newest), VERSION) == newest


def test_what_a_record_must_have_is_that_of_its_version() -> None:
    """A field more that must be there, or one that goes, is another version.

    See `common/versions.py`: add a step to `UPGRADES`, a file to `tests/stored/`, and change this.
    """
    fields = AnalysisRecord.model_fields
    needed = {name for name, field in fields.items() if field.is_required()}

    assert VERSION == 2
    assert needed == {
        "request_id",
        "input",
        "created_at",
        "due_at",
        "deadline_at",
        "published_at",
        "next_attempt_at",
    }
    released_names = set(json.loads(released("1")[0]))
    assert released_names <= {field.alias for field in fields.values()}


# ── Of a newer one, with fields that may be missing ──

Change = Callable[[AnalysisRecord], AnalysisRecord]
CHANGES: dict[str, tuple[AnalysisRecord, Change]] = {
    "claim": (
        WAITING,
        lambda r: r.claim("a", of_round=1, now=CLAIMED_AT, call=CALL, lease=LEASE),
    ),
    "complete": (
        WRITING,
        lambda r: r.complete("a", ANALYSIS, model="m", tokens=TOKENS, now=CLAIMED_AT),
    ),
    "fail, and try again": (
        WRITING,
        lambda r: r.fail(
            "a", Failure.RATE_LIMITED, now=CLAIMED_AT, retry_after=DELAY, longest_wait=DELAY
        ),
    ),
    "fail": (
        WRITING,
        lambda r: r.fail(
            "a", Failure.CONTENT_FILTERED, now=CLAIMED_AT, retry_after=DELAY, longest_wait=DELAY
        ),
    ),
    "give up": (WAITING, lambda r: r.give_up(of_round=1, now=CLAIMED_AT, lease=LEASE)),
    "time out": (WAITING, lambda r: r.time_out(now=r.deadline_at)),
    "publish again": (WAITING, lambda r: r.try_publish(now=NOW + REPUBLISH_AFTER)),
    "published": (WAITING, lambda r: r.published("msg_2", of_round=1)),
    "not queued": (WAITING, lambda r: r.not_queued(of_round=1, is_first=True, now=NOW)),
    "edit": (WAITING, lambda r: r.edit(BOB)),
    "cancel": (WRITING, lambda r: r.cancel(now=CLAIMED_AT)),
    "reopen": (FAILED, lambda r: r.reopen(now=CLAIMED_AT, delay=DELAY, deadline=DEADLINE)),
}


@pytest.mark.parametrize("is_first", [True, False], ids=["before ours", "after ours"])
@pytest.mark.parametrize(("record", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_every_change_keeps_what_a_newer_version_has_written(
    record: AnalysisRecord, change: Change, is_first: bool
) -> None:
    read = parse_record(with_more(record, is_first=is_first), ID)

    written = json.loads(change(read).model_dump_json(by_alias=True))

    assert {name: written[name] for name in MORE} == MORE
    ours = {name: value for name, value in written.items() if name not in MORE}
    plain = json.loads(change(record).model_dump_json(by_alias=True))
    ignored = {"nonce"} if written["round"] > 1 else set()
    assert {k: v for k, v in ours.items() if k not in ignored} == {
        k: v for k, v in plain.items() if k not in ignored
    }


def test_fields_within_objects_of_ours_are_kept() -> None:
    read = parse_record(with_more(with_fields(READY, tokens=TOKENS)))

    written = json.loads(with_fields(read, message_id="msg_2").model_dump_json(by_alias=True))

    assert written["tokens"] == {"inputTokens": 300, "outputTokens": 200, "cachedTokens": 7}


@pytest.mark.parametrize("record", [WAITING, WRITING, READY, FAILED], ids=lambda r: r.status)
def test_what_is_read_is_written_to_the_letter(record: AnalysisRecord) -> None:
    """A change is swapped in by the whole text: `known` in `Store.update` saves a read so."""
    for text in (record.model_dump_json(by_alias=True), with_more(record)):
        assert parse_record(text).model_dump_json(by_alias=True) == text


# ── What can't be read ──

CANNOT: dict[str, tuple[str, Why, str]] = {
    "raised since": (of_newer(OWNED), Why.NEWER, f"schemaVersion {VERSION + 1}"),
    "raised since, with another shape": (
        stored_as(OWNED, schemaVersion=VERSION + 7, input=..., status=5),
        Why.NEWER,
        f"schemaVersion {VERSION + 7}",
    ),
    "a status of next year": (stored_as(OWNED, status="reviewing"), Why.NEWER, "status"),
    "a failure of next year": (
        stored_as(OWNED, status="failed", failure="bored", finishedAt="2026-11-23T12:00:05Z"),
        Why.NEWER,
        "failure",
    ),
    "a field less than must be there": (of_older(OWNED), Why.OLDER, "dueAt"),
    "the same, though the version was not raised": (
        stored_as(OWNED, dueAt=...),
        Why.OLDER,
        "dueAt",
    ),
    "older, and another type": (
        stored_as(OWNED, schemaVersion=1, round="first"),
        Why.OLDER,
        "round",
    ),
    "another type": (stored_as(OWNED, attempt="first"), Why.DAMAGED, "attempt"),
    "incomplete": (stored_as(OWNED, status="processing"), Why.DAMAGED, "incomplete for processing"),
    "no version": (stored_as(OWNED, schemaVersion="two"), Why.DAMAGED, "schemaVersion"),
    "version 0": (stored_as(OWNED, schemaVersion=0), Why.DAMAGED, "schemaVersion"),
}


@pytest.mark.parametrize(("text", "expected", "cause"), CANNOT.values(), ids=CANNOT.keys())
def test_why_one_can_not_be_read_is_told_with_all_that_deletes_it(
    text: str, expected: Why, cause: str
) -> None:
    error = why(text)

    assert str(error) == f"a stored record can't be read: {expected}: {cause}"
    assert (error.request_id, error.owner_hash, error.created_by) == (ID, OWNER_HASH, "app")
    assert error.message_id == "msg_1"
    assert error.round == json.loads(text)["round"] or error.round is None


@pytest.mark.parametrize(
    "text", ["", "not JSON", "null", "[]", "{}", '"text"', '{"ownerHash": "x"}', "[" * 100_000]
)
def test_what_is_no_record_is_damaged_and_nobodys(text: str) -> None:
    error = why(text)

    assert (error.why, error.owner_hash) == (Why.DAMAGED, None)


@pytest.mark.parametrize("text", [stored_as(OWNED), of_newer(OWNED), of_older(OWNED)])
def test_one_under_another_id_tells_nothing_of_its_own_owner(text: str) -> None:
    error = why(text, OTHER_ID)

    assert (error.why, error.owner_hash, error.created_by) == (Why.DAMAGED, None, None)
    assert error.request_id == OTHER_ID


@pytest.mark.parametrize("value", [7, None, [], {}, "", "\udc00", True])
def test_what_is_no_text_is_nobodys(value: Any) -> None:
    error = why(stored_as(OWNED, schemaVersion=VERSION + 1, ownerHash=value, createdBy=value))

    assert not error.owner_hash
    assert not error.created_by


def test_a_step_that_meets_what_it_did_not_expect_says_that_it_is_older(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"dueAt": record["due"]["at"]}

    monkeypatch.setattr("common.versions.UPGRADES", (step,))

    assert why(released("1")[0]).why is Why.OLDER
