"""The form, and the state machine without Redis."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from common.failures import Failure, Kind
from common.record import MAX_ATTEMPTS, MAX_ROUNDS, AnalysisRecord
from common.states import Reason, Status, TransitionError
from tests.fakes import ADA, ANALYSIS, CALL, DEADLINE, DELAY, LEASE, NOW, pending
from tests.toy.task import Analysis, AnalysisInput

DUE = NOW + DELAY
SECOND = timedelta(seconds=1)
GOOD = {"name": "Ada", "age": 36, "description": "I sketch machines."}


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


# ── The form ──


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"name": ""}, "name", id="empty name"),
        pytest.param({"name": " \n\t "}, "name", id="blank name"),
        pytest.param({"name": "a" * 81}, "name", id="name too long"),
        pytest.param({"name": 7}, "name", id="name a number"),
        pytest.param({"name": None}, "name", id="name null"),
        pytest.param({"name": "A\x00da"}, "name", id="NUL in the name"),
        pytest.param({"name": "A\ud800da"}, "name", id="lone surrogate in the name"),
        pytest.param({"age": None}, "age", id="no age"),
        pytest.param({"age": 0}, "age", id="age too small"),
        pytest.param({"age": 121}, "age", id="age too large"),
        pytest.param({"age": -5}, "age", id="negative age"),
        pytest.param({"age": 36.5}, "age", id="age not whole"),
        pytest.param({"age": "36"}, "age", id="age as text"),
        pytest.param({"age": True}, "age", id="age a boolean"),
        pytest.param({"age": float("nan")}, "age", id="age not a number"),
        pytest.param({"age": 10**5000}, "age", id="age without end"),
        pytest.param({"age": [36]}, "age", id="age a list"),
        pytest.param({"description": "too short"}, "description", id="description too short"),
        pytest.param({"description": " " * 50}, "description", id="blank description"),
        pytest.param({"description": "a" * 2001}, "description", id="description too long"),
        pytest.param({"description": "I sketch\x1b[31m it"}, "description", id="escape character"),
        pytest.param({"description": {"a": 1}}, "description", id="description an object"),
        pytest.param({"role": "admin"}, "role", id="unknown field"),
    ],
)
def test_a_wrong_field_gets_a_sentence_of_its_own(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(GOOD | changes)

    problems = input_problems(caught.value)

    assert list(problems) == [field]
    assert problems[field].endswith(".")


NOTHING = [
    pytest.param("\u200b" * 12, id="zero width space"),
    pytest.param("\u200c\u200d" * 6, id="joiners"),
    pytest.param("\u2060\ufeff" * 6, id="word joiner and byte order mark"),
    pytest.param("\u00ad" * 12, id="soft hyphen"),
    pytest.param("\u200e\u200f\u061c\u202e\u2066\u2069" * 2, id="bidi controls"),
    pytest.param("\u115f\u1160\u3164\uffa0" * 3, id="Hangul fillers"),
    pytest.param("\u2800" * 12, id="blank Braille"),
    pytest.param("\ufe00\ufe0f\U000e0100\U000e01ef" * 3, id="variation selectors"),
    pytest.param("\u180b\u180e\u180f" * 4, id="Mongolian selectors"),
    pytest.param("\u17b4\u17b5" * 6, id="Khmer inherent vowels"),
    pytest.param("\u2061\u2063\u206a" * 4, id="invisible operators"),
    pytest.param("\U000e0001\U000e0041\U000e007f" * 4, id="tags"),
    pytest.param("\u0301\u20dd" * 6, id="marks without a base"),
    pytest.param("\u0301 \u0301\u034f" * 6, id="marks after spaces"),
    pytest.param("\u1680\u2003\u3000\u00a0" * 3, id="wide and narrow spaces"),
    pytest.param("\n\u2028\u2029\u200b\n" * 3, id="lines of nothing"),
    pytest.param("\ufff9\ufffa\ufffb\ufffc" * 3, id="annotations and placeholders"),
    pytest.param("\U0001d159\U0001d173\U00013441" * 4, id="blank notes and hieroglyphs"),
    pytest.param("\ufdd0\uffff\U0010ffff" * 4, id="noncharacters"),
    pytest.param("\u2065\ufff0\U000e0fff" * 4, id="ignorable though unassigned"),
]


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x85", "\ud800"])
@pytest.mark.parametrize("field", ["name", "description"])
def test_what_no_form_sends_is_to_be_removed(field: str, character: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(GOOD | {field: f"I sketch {character}machines."})

    assert input_problems(caught.value) == {field: "Remove the characters that can't be displayed."}


@pytest.mark.parametrize("field", ["name", "description"])
@pytest.mark.parametrize("nothing", NOTHING)
def test_a_text_that_draws_nothing_is_empty(nothing: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(GOOD | {field: nothing})

    assert input_problems(caught.value) == {field: INPUT_PROBLEMS[field]}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("field", ["summary", "tone", "themes", "suggestions"])
def test_an_answer_that_draws_nothing_is_refused(nothing: str, field: str) -> None:
    value = nothing if field in ("summary", "tone") else ["a theme", nothing]

    with pytest.raises(ValidationError):
        Analysis.model_validate(ANALYSIS.model_dump() | {field: value})


@pytest.mark.parametrize(
    "padded",
    [
        pytest.param("I sketch\u200b\u200b\u200b", id="ends invisibly"),
        pytest.param("\u2800".join("I sketch"), id="filled with blanks"),
        pytest.param("a" + "\ufe0f" * 20, id="one letter and selectors"),
        pytest.param("a" + " " * 20 + "b", id="one long gap"),
        pytest.param("a \u0301 \u0301 \u0301 \u0301 b", id="marks on spaces"),
        pytest.param("👨‍👩‍👧‍👦 👨‍👩‍👧‍👦", id="two families"),
    ],
)
def test_only_visible_characters_count_towards_the_shortest_description(padded: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(GOOD | {"description": padded})

    assert input_problems(caught.value) == {"description": INPUT_PROBLEMS["description"]}


@pytest.mark.parametrize(
    ("name", "description"),
    [
        pytest.param("A", "I draw now", id="a name of one letter"),
        pytest.param("王", "我喜欢画机器和散步很久", id="Chinese"),
        pytest.param("श्री", "मैं मशीनें बनाती हूँ।", id="Hindi"),
        pytest.param("ক্\u200dষ", "আমি ছবি আঁকি।", id="Bengali with a joiner"),
        pytest.param("ศรี", "ฉันชอบวาดรูป", id="Thai"),
        pytest.param("مُحَمَّد", "أُحِبُّ الرَّسْمَ", id="Arabic with harakat"),
        pytest.param("می\u200cشا", "می\u200cخواهم نقاشی کنم", id="Persian with non-joiner"),
        pytest.param("שָׁלוֹם", "אֲנִי מְצַיֵּר מְכוֹנוֹת", id="Hebrew with points"),
        pytest.param("\u200fדוד\u200e", "\u2067אני מצייר\u2069 daily", id="bidi marks"),
        pytest.param("김", "나는 기계를 그립니다.", id="Korean"),
        pytest.param("\u1112\u1161\u11ab", "\u1112\u1161\u11ab" * 4, id="Korean in jamo"),
        pytest.param("e\u0301", "J'aime le cafe\u0301", id="decomposed accent"),
        pytest.param("ᠮᠣᠩ\u180b", "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ", id="Mongolian"),
        pytest.param(
            "葛\U000e0100", "葛\U000e0100城市に住んでいる人です", id="ideographic variant"
        ),
        pytest.param("🇯🇵", "🇯🇵🇩🇪🇫🇷🇮🇳🇧🇷", id="flags"),
        pytest.param(
            "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            "I play football",
            id="flag of tags",
        ),
        pytest.param("👨‍👩‍👧‍👦", "My family 👨‍👩‍👧‍👦", id="family"),
        pytest.param("❤️", "I ❤️ to sketch", id="heart with a selector"),
        pytest.param("1️⃣", "1️⃣2️⃣3️⃣4️⃣5️⃣", id="keycaps"),
        pytest.param("👍🏽", "👍🏽👍🏽👍🏽👍🏽👍🏽", id="skin tones"),
        pytest.param("\U0001fae9", "I am tired \U0001fae9", id="emoji newer than Python"),
        pytest.param("\uf8ff", "\uf8ff makes machines", id="private use"),
    ],
)
def test_every_script_is_taken_as_it_was_written(name: str, description: str) -> None:
    given = AnalysisInput.model_validate(GOOD | {"name": name, "description": description})
    answer = Analysis.model_validate(ANALYSIS.model_dump() | {"summary": description, "tone": name})

    assert (given.name, given.description) == (name, description)
    assert (answer.tone, answer.summary) == (name, description)


@pytest.mark.parametrize("data", [None, [], "text", 7])
def test_what_is_no_object_is_one_problem(data: object) -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(data)

    assert list(input_problems(caught.value)) == ["input"]


def test_every_missing_field_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate({})

    assert list(input_problems(caught.value)) == ["name", "age", "description"]


def test_no_message_repeats_what_was_written() -> None:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(GOOD | {"name": "S3CRET" * 20})

    assert "S3CRET" not in str(caught.value)


def test_text_is_trimmed_and_keeps_its_lines() -> None:
    given = AnalysisInput.model_validate(GOOD | {"description": "  first line\nsecond 🌱  "})

    assert given.description == "first line\nsecond 🌱"


def test_a_whole_number_from_the_form_counts_as_one() -> None:
    assert AnalysisInput.model_validate(GOOD | {"age": 36.0}).age == 36


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": " "},
        {"summary": "a" * 4001},
        {"themes": ["a"] * 11},
        {"themes": [""]},
        {"extra": 1},
        {"tone": None},
    ],
)
def test_an_answer_out_of_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Analysis.model_validate(ANALYSIS.model_dump() | changes)


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
