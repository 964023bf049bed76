"""What the page says about each record, without the page."""

from datetime import timedelta

import pytest

from common.failures import Failure, Limit
from common.ports import LimitReached
from common.record import MAX_ATTEMPTS
from page import texts, times
from page.snapshot import Snapshot
from tests.conftest import make_settings
from tests.fakes import ID, with_fields
from tests.states import (
    CANCELLED,
    CLAIMED_AT,
    FAILED,
    READY,
    RETRYING,
    TTL,
    USUAL,
    WAITING,
    WRITING,
    seconds,
)


@pytest.mark.parametrize(
    ("snapshot", "is_listed", "title", "more"),
    [
        (Snapshot(ID, WAITING), None, "In the queue", ""),
        (Snapshot(ID, WRITING), None, "Being written now", ""),
        (
            Snapshot(ID, RETRYING),
            None,
            "Trying again soon, second try of three",
            " The AI service was busy.",
        ),
        (Snapshot(ID, READY), None, "The analysis is ready", ""),
        (
            Snapshot(ID, FAILED),
            None,
            "This text didn't get through",
            f" {Failure.CONTENT_FILTERED.sentence}",
        ),
        (Snapshot(ID, CANCELLED), None, "Cancelled", ""),
        (Snapshot(ID, failures=1), None, "One moment", f" {texts.UNAVAILABLE_FROM_THE_START}"),
        (Snapshot(ID, is_gone=True), None, "One moment", ""),
        (Snapshot(ID, is_gone=True), True, "No longer kept", ""),
        (Snapshot(ID, is_gone=True), False, "Nothing here", ""),
    ],
)
def test_each_state_is_read_aloud(
    snapshot: Snapshot, is_listed: bool | None, title: str, more: str
) -> None:
    assert texts.title(snapshot, is_listed) == title
    assert texts.announcement(snapshot, is_listed) == f"{title}.{more}"


def test_each_try_of_those_there_are_has_a_name() -> None:
    tries = [texts.try_of_all(number) for number in range(1, MAX_ATTEMPTS + 1)]

    assert tries == ["first try of three", "second try of three", "third try of three"]


def test_nobody_is_told_that_what_answered_with_an_error_could_not_be_reached() -> None:
    said = [failure.sentence for failure in Failure]
    said += [texts.UNAVAILABLE, texts.UNAVAILABLE_FROM_THE_START, texts.NOT_DONE]

    assert [sentence for sentence in said if "reach" in sentence] == []


def test_what_is_read_aloud_of_a_result_is_true_whoever_reads_it() -> None:
    for is_listed in (None, True, False):
        assert texts.announcement(Snapshot(ID, READY), is_listed) == "The analysis is ready."


def test_the_tab_names_the_state() -> None:
    assert texts.tab_title(Snapshot(ID, READY)) == "✓ Ready · Ask later"
    assert texts.tab_title(Snapshot(ID, WAITING)) == "⏳ Waiting · Ask later"
    assert texts.tab_title(Snapshot(ID)) == "Ask later"
    assert texts.tab_title(Snapshot(ID, is_gone=True)) == "Not found · Ask later"


# ── The promise ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "at OpenAI reads it, which is asked not to store it"),
        ({"openai_base_url": "https://eu.api.openai.com/v1"}, "which is asked not to store it"),
        (
            {"openai_base_url": "https://llm.example/v1"},
            "An AI model reads it, which is reached through llm.example. Whoever has",
        ),
        (
            {"openai_base_url": "https://api.openai.com.example/v1"},
            "reached through api.openai.com.example. Whoever",
        ),
        ({"openai_model": "local-stand-in"}, "No AI model reads it"),
    ],
)
def test_the_form_says_who_reads_the_text(settings: dict[str, str], said: str) -> None:
    explained = texts.explanation(make_settings(**settings), TTL, USUAL)

    assert said in explained["Who reads it"]
    assert "everything is deleted one hour later" in explained["How long"]
    assert "One minute in the queue, then about 8 seconds of writing" in explained["How it works"]


def test_without_recent_analyses_the_form_promises_no_number_of_writing() -> None:
    explained = texts.explanation(make_settings(qstash_delay="5s"), TTL, None)

    assert "5 seconds in the queue, then some seconds of writing" in explained["How it works"]


@pytest.mark.parametrize(
    ("delay", "usual", "said"),
    [
        ("60s", seconds(8), "Ready in about a minute"),
        ("5s", None, "Ready in about 15 seconds"),
        ("0s", seconds(0.2), "Ready in about one second"),
        ("2m", seconds(20), "Ready in about 2 minutes"),
        ("1h", seconds(8), "Ready in about an hour"),
    ],
)
def test_one_line_promises_how_soon_by_what_is_set(
    delay: str, usual: timedelta | None, said: str
) -> None:
    promise = texts.promise(make_settings(qstash_delay=delay), timedelta(days=30), usual)

    assert promise == f"{said} · deleted after 30 days"


@pytest.mark.parametrize("limit", Limit)
def test_a_limit_says_what_it_is_and_when_to_try_again(limit: Limit) -> None:
    head, rest = texts.limit_note(LimitReached(limit, timedelta(minutes=4)))

    assert head == (limit.sentence if limit in (Limit.PAUSED, Limit.VISITOR) else texts.AT_LIMIT)
    assert rest == "Your text is still here: try again in 4 minutes."


# ── The end ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", Failure)
def test_a_failure_comes_with_what_to_do_next(code: Failure) -> None:
    failed = with_fields(FAILED, failure=code)

    assert texts.failure_text(failed, is_owner=True) == f"{code.sentence} {code.next_step}"
    assert code.next_step not in texts.failure_text(failed, is_owner=False)


def test_after_all_attempts_the_last_reason_is_named() -> None:
    failed = with_fields(
        FAILED, failure=Failure.ATTEMPTS_EXHAUSTED, last_failure=Failure.MODEL_TIMEOUT
    )

    said = texts.failure_text(failed, is_owner=True)

    assert "The last time, the AI service took too long to answer." in said


@pytest.mark.parametrize(
    ("code", "turn"),
    [
        (Failure.TIMED_OUT, "It has been tried as often as we can; please send a new request."),
        (Failure.KEY_REFUSED, "That's ours to fix; please send a new request later."),
        (Failure.CONTENT_FILTERED, Failure.CONTENT_FILTERED.next_step),
    ],
)
def test_after_all_rounds_nobody_is_asked_to_try_again(code: Failure, turn: str) -> None:
    failed = with_fields(FAILED, failure=code, round=5)

    assert texts.failure_text(failed, is_owner=True) == f"{code.sentence} {turn}"


def test_until_the_browser_has_replied_a_failure_asks_nothing_of_anybody() -> None:
    assert texts.failure_text(FAILED, is_owner=None) == Failure.CONTENT_FILTERED.sentence


def test_a_failure_out_of_the_history_asks_for_a_new_request() -> None:
    archived = with_fields(FAILED, failure=Failure.TIMED_OUT, input=None)

    said = texts.failure_text(archived, is_owner=True)

    assert "Its text is no longer kept; please send a new request." in said
    assert "try again" not in said


def test_cancelling_says_whether_the_model_was_asked() -> None:
    assert "has not been asked" in texts.cancel_warning(WAITING)
    assert "has already been asked" in texts.cancel_warning(WRITING)
    assert "was asked already" in texts.cancel_warning(RETRYING)
    assert "Nothing was sent to the AI. " in texts.cancelled_text(CANCELLED)
    during = WRITING.cancel(now=CLAIMED_AT)
    assert "The AI had been asked by then" in texts.cancelled_text(during)


def test_cancelling_a_later_round_says_nothing_about_the_earlier_ones() -> None:
    again = FAILED.reopen(now=CLAIMED_AT, delay=seconds(60), deadline=timedelta(minutes=10))

    assert "has not been asked this time" in texts.cancel_warning(again)
    cancelled = again.cancel(now=CLAIMED_AT)
    assert "sent to the AI this time" in texts.cancelled_text(cancelled)


def test_only_the_browser_that_sent_it_learns_that_a_request_existed() -> None:
    assert "You sent this from here" in texts.gone_text(is_listed=True)
    assert "not found, or is no longer kept" in texts.gone_text(is_listed=False)


@pytest.mark.parametrize(
    ("zone", "kept", "until"),
    [
        ("Asia/Tokyo", TTL, "23 November, 22:01"),
        (None, TTL, "23 November, 13:01"),
        ("No/Such", TTL, "23 November, 13:01 UTC"),
        ("../etc/passwd", TTL, "23 November, 13:01 UTC"),
        ("America", TTL, "23 November, 13:01 UTC"),
        ("x" * 300, TTL, "23 November, 13:01 UTC"),
        ("Pacific/Auckland", timedelta(days=30), "24 December"),
        (None, timedelta(days=365), "23 November 2027"),
    ],
)
def test_until_when_a_result_can_be_read_is_in_the_visitors_time_zone(
    zone: str | None, kept: timedelta, until: str
) -> None:
    assert texts.readable_until(READY, kept, zone) == (
        f"Whoever has the link can read this, until {until}."
    )


@pytest.mark.parametrize(
    ("number", "short", "spoken"),
    [
        (-1, "under 1 s", "no time"),
        (0.4, "under 1 s", "no time"),
        (1, "1 s", "one second"),
        (8.4, "8 s", "8 seconds"),
        (60, "60 s", "one minute"),
        (65, "65 s", "one minute"),
        (90, "90 s", "90 seconds"),
        (245, "4 min 5 s", "4 minutes"),
        (3599, "59 min 59 s", "one hour"),
        (3600, "1 h", "one hour"),
        (5400, "2 h", "90 minutes"),
        (86_400, "24 h", "24 hours"),
        (172_800, "48 h", "2 days"),
    ],
)
def test_durations_are_written_plainly(number: float, short: str, spoken: str) -> None:
    assert times.short(seconds(number)) == short
    assert times.spoken(seconds(number)) == spoken
