"""What the page says about each record, without the page."""

import re
import string
from datetime import timedelta

import hypothesis
import pytest
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mdit_py_plugins.gfm import gfm_plugin

from common.failures import Failure
from common.record import AnalysisRecord, Status
from page import words
from page.words import Shape, Snapshot
from tests.conftest import make_settings
from tests.fakes import ANALYSIS, CALL, ID, LEASE, NOW, pending

TTL = timedelta(hours=1)
USUAL = timedelta(seconds=8)
WAITING = pending()
WRITING = WAITING.claim("a", round=1, now=WAITING.due_at, call=CALL, lease=LEASE)
CLAIMED_AT = WAITING.due_at
RETRYING = WAITING._evolve(
    attempt=1,
    claimed_at=CLAIMED_AT,
    next_attempt_at=CLAIMED_AT + timedelta(seconds=20),
    last_failure=Failure.RATE_LIMITED,
    last_failed_at=CLAIMED_AT + timedelta(seconds=6),
)
READY = WRITING.complete("a", ANALYSIS, model="m", now=CLAIMED_AT + timedelta(seconds=9))
FAILED = WRITING._evolve(
    status=Status.FAILED, failure=Failure.CONTENT_FILTERED, finished_at=CLAIMED_AT
)
CANCELLED = WAITING.cancel(now=NOW + timedelta(seconds=5))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def steps(record: AnalysisRecord) -> list[tuple[str, str, str]]:
    shown = words.progress(record, NOW, USUAL).steps
    return [(step.shape.value, step.title, step.note) for step in shown]


# ── When to look again ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("snapshot", "pause"),
    [
        (Snapshot(ID, WAITING), 5),
        (Snapshot(ID, WAITING._evolve(next_attempt_at=NOW + seconds(9))), 2),
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
def test_looks_often_when_near_rarely_when_away_and_never_when_over(
    snapshot: Snapshot, pause: int | None
) -> None:
    assert words.poll_seconds(snapshot, NOW) == pause


def test_one_miss_is_nothing_new_and_two_are() -> None:
    assert not words.has_changed(Snapshot(ID, WRITING), Snapshot(ID, WRITING, failures=1))
    assert words.has_changed(Snapshot(ID, WRITING, failures=1), Snapshot(ID, WRITING, failures=2))
    assert not words.has_changed(
        Snapshot(ID, WRITING, failures=2), Snapshot(ID, WRITING, failures=3)
    )
    assert words.has_changed(Snapshot(ID, WRITING, failures=2), Snapshot(ID, WRITING))
    assert words.has_changed(Snapshot(ID, WRITING), Snapshot(ID, READY))
    assert words.has_changed(Snapshot(ID, WRITING), Snapshot(ID, is_gone=True))


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
def test_says_that_the_store_is_away_only_while_something_is_still_to_come(
    snapshot: Snapshot, says_unavailable: bool
) -> None:
    assert snapshot.says_unavailable is says_unavailable
    assert (words.AWAY in words.announcement(snapshot)) is says_unavailable


def test_only_what_was_seen_unfinished_becomes_ready() -> None:
    assert words.has_become_ready(Snapshot(ID, WRITING), Snapshot(ID, READY))
    assert words.has_become_ready(Snapshot(ID, WAITING, failures=2), Snapshot(ID, READY))
    assert not words.has_become_ready(Snapshot(ID), Snapshot(ID, READY))
    assert not words.has_become_ready(Snapshot(ID, READY), Snapshot(ID, READY))
    assert not words.has_become_ready(Snapshot(ID, WRITING), Snapshot(ID, FAILED))


def test_the_tab_tells_the_state() -> None:
    assert words.tab_title(Snapshot(ID, READY)) == "✓ Ready · Ask later"
    assert words.tab_title(Snapshot(ID, WAITING)) == "⏳ Waiting · Ask later"
    assert words.tab_title(Snapshot(ID)) == "Ask later"
    assert words.tab_title(Snapshot(ID, is_gone=True)) == "Not found · Ask later"


# ── The promise ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "at OpenAI reads it, which is asked not to store it"),
        ({"openai_base_url": "https://eu.api.openai.com/v1"}, "which is asked not to store it"),
        (
            {"openai_base_url": "https://llm.example/v1"},
            "An AI model reads it, which is reached through llm.example. It is removed here",
        ),
        (
            {"openai_base_url": "https://api.openai.com.example/v1"},
            "reached through api.openai.com.example. It is",
        ),
        ({"openai_model": "local-stand-in"}, "No AI model reads it"),
    ],
)
def test_the_form_says_who_reads_the_text(settings: dict[str, str], said: str) -> None:
    promise = words.promise(make_settings(**settings), USUAL)

    assert said in promise["Your text"]
    assert "one hour later all is gone" in promise["Your text"]
    assert "One minute in the queue, then about 8 s of writing" in promise["How long"]


@pytest.mark.parametrize(
    ("delay", "title"),
    [
        (5, "Ask now, read in a moment"),
        (60, "Ask now, read in a minute"),
        (600, "Ask now, read in 10 minutes"),
    ],
)
def test_the_forms_title_promises_what_is_set(delay: int, title: str) -> None:
    assert words.form_title(seconds(delay)) == title


def test_without_recent_analyses_the_form_promises_no_number() -> None:
    promise = words.promise(make_settings(qstash_delay="5s"), None)

    assert "5 seconds in the queue, then some seconds of writing" in promise["How long"]


# ── The ring ────────────────────────────────────────────────────────────────────────────────


def test_while_waiting_the_ring_drains_from_submitting_to_due() -> None:
    clock = words.progress(WAITING, NOW, USUAL).clock

    assert clock
    assert (clock.counts, clock.start, clock.end) == ("down", NOW, WAITING.due_at)
    assert clock.before.headline == "Starts in {time}"
    assert clock.after.headline == "Starting any moment now"


def test_a_later_rounds_ring_starts_with_its_round() -> None:
    again = FAILED.reopen(
        now=CLAIMED_AT + seconds(30), delay=seconds(60), deadline=timedelta(minutes=10)
    )

    clock = words.progress(again, NOW, USUAL).clock

    assert clock
    assert clock.start == CLAIMED_AT + seconds(30)


def test_on_a_retry_the_ring_tells_the_next_attempt_and_the_reason() -> None:
    clock = words.progress(RETRYING, NOW, USUAL).clock

    assert clock
    assert (clock.start, clock.end) == (CLAIMED_AT + seconds(6), CLAIMED_AT + seconds(20))
    assert clock.before.headline == "Trying again in {time}, attempt 2 of 3"
    assert clock.before.note == "The AI service was busy. There is nothing for you to do."


def test_while_writing_time_counts_up_until_it_is_longer_than_usual() -> None:
    clock = words.progress(WRITING, NOW, USUAL).clock

    assert clock
    assert (clock.counts, clock.start, clock.end) == ("up", CLAIMED_AT, CLAIMED_AT + seconds(16))
    assert clock.before.headline == "Usually about 8 s"
    assert clock.after.headline == "This takes longer than usual"


def test_a_single_slow_second_is_not_longer_than_usual() -> None:
    clock = words.progress(WRITING, NOW, seconds(0.3)).clock

    assert clock
    assert clock.end == CLAIMED_AT + seconds(5.3)


def test_what_is_over_has_no_clock() -> None:
    assert [words.progress(r, NOW, USUAL).clock for r in (READY, FAILED, CANCELLED)] == [None] * 3


@pytest.mark.parametrize(
    ("snapshot", "was_here", "title", "announcement"),
    [
        (Snapshot(ID, WAITING), None, "Your request is in the queue", ""),
        (Snapshot(ID, WRITING), None, "Writing your analysis", " Attempt 1 of 3."),
        (Snapshot(ID, RETRYING), None, "Trying again soon", ""),
        (Snapshot(ID, READY), None, "Your analysis", ""),
        (Snapshot(ID, failures=1), None, "One moment", f" {words.AWAY}"),
        (Snapshot(ID, is_gone=True), None, "One moment", ""),
        (Snapshot(ID, is_gone=True), True, "No longer kept", ""),
        (Snapshot(ID, is_gone=True), False, "Nothing here", ""),
    ],
)
def test_each_state_has_a_headline_which_is_read_aloud(
    snapshot: Snapshot, was_here: bool | None, title: str, announcement: str
) -> None:
    assert words.title(snapshot, was_here) == title
    assert words.announcement(snapshot, was_here) == f"{title}.{announcement}"


# ── The timeline ────────────────────────────────────────────────────────────────────────────


def test_the_way_of_an_analysis_from_received_to_ready() -> None:
    received = ("done", "Received", "")
    waited = ("done", "Waited in the queue", "for 1 min")

    assert steps(WAITING) == [
        received,
        ("now", "Waiting in the queue", ""),
        ("ahead", "Writing the analysis", ""),
        ("ahead", "Ready", ""),
    ]
    assert steps(WRITING) == [
        received,
        waited,
        ("now", "Writing the analysis", "Attempt 1 of 3"),
        ("ahead", "Ready", ""),
    ]
    assert steps(READY) == [
        received,
        waited,
        ("done", "Wrote the analysis", "in 9 s"),
        ("done", "Ready", "1 min 9 s after it was sent"),
    ]


def test_a_retry_is_told_on_the_timeline() -> None:
    note = "Attempt 1 of 3 did not work: The AI service was busy."

    assert steps(RETRYING)[1] == ("now", "Waiting to try again", note)


def test_a_later_attempt_does_not_pretend_to_know_how_long_the_first_waited() -> None:
    second = WRITING._evolve(attempt=2)

    assert steps(second)[1] == ("done", "Waited in the queue", "")
    assert steps(second.complete("a", ANALYSIS, model="m", now=CLAIMED_AT + seconds(9)))[2] == (
        "done",
        "Wrote the analysis",
        "in 9 s, attempt 2 of 3",
    )


def test_what_stopped_ends_the_timeline() -> None:
    assert steps(FAILED)[-1] == ("stopped", "Stopped", "At attempt 1 of 3")
    assert steps(CANCELLED)[-1] == ("stopped", "Cancelled while waiting", "")
    assert not [step for step in steps(FAILED) if step[0] == Shape.AHEAD]


def test_what_stopped_between_two_attempts_stopped_after_the_first_and_not_at_it() -> None:
    stopped = RETRYING.cancel(now=CLAIMED_AT + seconds(8))
    second = RETRYING.claim("b", round=1, now=CLAIMED_AT + seconds(20), call=CALL, lease=LEASE)

    assert steps(stopped)[-1] == ("stopped", "Cancelled", "After attempt 1 of 3")
    during = second.cancel(now=CLAIMED_AT + seconds(22))
    assert steps(during)[-1] == ("stopped", "Cancelled", "At attempt 2 of 3")


# ── The end ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", Failure)
def test_a_failure_is_told_with_whose_turn_it_is(code: Failure) -> None:
    failed = FAILED._evolve(failure=code)

    assert words.failure_text(failed, is_owner=True) == f"{code.sentence} {code.next_step}"
    assert code.next_step not in words.failure_text(failed, is_owner=False)


def test_after_all_attempts_the_last_reason_is_told() -> None:
    failed = FAILED._evolve(failure=Failure.ATTEMPTS_EXHAUSTED, last_failure=Failure.MODEL_TIMEOUT)

    said = words.failure_text(failed, is_owner=True)

    assert "The last time: The AI service took too long to answer." in said


@pytest.mark.parametrize(
    ("code", "turn"),
    [
        (Failure.TIMED_OUT, "It has been tried as often as we can; please send a new request."),
        (Failure.KEY_REFUSED, "This is for us to mend. Please send a new request later."),
        (Failure.CONTENT_FILTERED, Failure.CONTENT_FILTERED.next_step),
    ],
)
def test_after_all_rounds_nobody_is_told_to_try_again(code: Failure, turn: str) -> None:
    failed = FAILED._evolve(failure=code, round=5)

    assert words.failure_text(failed, is_owner=True) == f"{code.sentence} {turn}"


def test_until_the_browser_has_told_who_reads_it_a_failure_is_nobodys_turn() -> None:
    assert words.failure_text(FAILED, is_owner=None) == Failure.CONTENT_FILTERED.sentence


def test_a_failure_out_of_the_history_asks_for_a_new_request() -> None:
    archived = FAILED._evolve(failure=Failure.TIMED_OUT, input=None)

    said = words.failure_text(archived, is_owner=True)

    assert "Its text is no longer kept; please send a new request." in said
    assert "try again" not in said


def test_cancelling_says_whether_the_model_was_asked() -> None:
    assert "has not been asked" in words.cancel_warning(WAITING)
    assert "has already been asked" in words.cancel_warning(WRITING)
    assert "was asked already" in words.cancel_warning(RETRYING)
    assert "before the model was asked" in words.cancelled_text(CANCELLED)
    during = WRITING.cancel(now=CLAIMED_AT)
    assert "after the model had been asked" in words.cancelled_text(during)


def test_cancelling_a_later_round_tells_nothing_about_the_earlier_ones() -> None:
    again = FAILED.reopen(now=CLAIMED_AT, delay=seconds(60), deadline=timedelta(minutes=10))

    assert "has not been asked this time" in words.cancel_warning(again)
    cancelled = again.cancel(now=CLAIMED_AT)
    assert "before the model was asked this time" in words.cancelled_text(cancelled)


def test_only_the_browser_that_sent_it_learns_that_a_request_existed() -> None:
    assert "sent from this browser" in words.gone_text(was_here=True)
    assert "not found, or is no longer kept" in words.gone_text(was_here=False)


def test_the_browser_remembers_time_state_and_token_and_no_text() -> None:
    entry = words.entry(Snapshot(ID, WAITING), TTL, "token")

    assert entry
    assert entry.model_dump() == {
        "request_id": ID,
        "state": "Waiting",
        "is_over": False,
        "created_at": NOW,
        "kept_until": WAITING.deadline_at + TTL,
        "owner_token": "token",
    }
    assert words.entry(Snapshot(ID, failures=1), TTL) is None
    gone = words.entry(Snapshot(ID, is_gone=True), TTL)
    assert gone
    assert (gone.state, gone.is_over) == ("No longer kept", True)


HOSTILE = ANALYSIS.model_copy(update={"summary": "![x](https://canary.example/x) <img src=y>"})


def test_what_is_copied_is_what_the_model_wrote() -> None:
    assert words.as_text(HOSTILE, "The end.") == (
        "Summary\n![x](https://canary.example/x) <img src=y>\n\n"
        "Tone\ncurious\n\n"
        "Themes\n- machines\n\n"
        "Suggestions\n- Build one.\n\n"
        "The end.\n"
    )


def test_the_file_holds_every_field_and_what_the_model_wrote_stays_text() -> None:
    assert words.as_markdown(HOSTILE, "The end.") == (
        "# Your analysis\n\n"
        "## Summary\n\n!\\[x\\](https\\:\\//canary\\.example/x) \\<img src=y\\>\n\n"
        "## Tone\n\ncurious\n\n"
        "## Themes\n\n- machines\n\n"
        "## Suggestions\n\n- Build one.\n\n"
        "---\n\nThe end.\n"
    )


GITHUB = MarkdownIt("gfm-like").use(gfm_plugin, dollarmath=True)
MARKUP = {
    "heading": "# Heading",
    "setext heading": "Heading\n===\nHeading\n---",
    "bullets": "- one\n+ two\n* three",
    "numbers": "1. one\n2) two\n\n1) one\n\n1.",
    "task list": "[ ] one\n- [x] two",
    "quotation": "> quoted",
    "alert": "> [!NOTE]\n> quoted",
    "thematic breaks": "---\n\n***\n\n_ _ _\n\n- - -",
    "indented code": "    code\n\n\tcode",
    "fenced code": "```sh\ncode\n```\n~~~\ncode",
    "hard breaks": "one  \ntwo\\\nthree",
    "emphasis": "*a* _b_ **c** __d__ ***e*** ~f~ ~~g~~",
    "code": "`code` ``co`de``",
    "maths": "$x$ $$y$$",
    "link": "[text](https://a.example) [text][1] [text]\n\n[1]: https://a.example\n[text]: /a",
    "image": "![text](https://a.example/a.png)",
    "autolink": "<https://a.example> <a@b.example>",
    "bare addresses": "https://a.example/b?c=d&e=f#g HTTP://A.EXAMPLE ftp://a.example //localhost",
    "bare names": "www.a.com a.com. (b.org) 例え.jp a.de/b",
    "mail": "a.b+c@d.com mailto:a@b.com xmpp:a@b.com/c",
    "entities": "&amp; &lt;b&gt; &#65; &#x41; &nbsp;",
    "HTML": "<b>bold</b>\n\n<script>\nalert()\n</script>\n\n<!-- x --> <?x?> <![CDATA[x]]>",
    "footnote": "text[^1] ^[inline]\n\n[^1]: note",
    "table": "a | b\n--|--\n1 | 2\n\n|a|\n|-|\n\na\n:-\nb\n\na\n-:\nb",
    "escapes": r"\* \\* \&amp; \\",
    "front matter": "---\na: b\n---",
}


def lines(text: str) -> list[str]:
    """What is kept of white space: where lines and words end. A NUL can't be shown.

    Source: https://spec.commonmark.org/0.31.2/#insecure-characters
    """
    return [" ".join(line.split()) for line in text.replace("\0", "\ufffd").splitlines()]


def blocks(markdown: str) -> list[tuple[str, str]]:
    """Each block of the rendered text with its elements, those within the text too."""
    found: list[tuple[str, str]] = []
    opened: list[str] = []
    for token in GITHUB.parse(markdown):
        if token.nesting:
            opened = [*opened, token.tag] if token.nesting > 0 else opened[:-1]
            continue
        leaves = token.children or []
        inner = {leaf.type for leaf in leaves} - {"text", "softbreak"}
        text = "".join("\n" if leaf.type == "softbreak" else leaf.content for leaf in leaves)
        found.append(
            (" ".join([*opened, token.tag, *sorted(inner)]).strip(), text or token.content)
        )
    return found


def assert_stays_text(text: str) -> None:
    result = ANALYSIS.model_copy(update={"summary": text, "themes": [text, "machines"]})
    paragraphs = re.split("\n\n+", "\n".join(lines(text)).strip("\n"))

    assert blocks(words.as_markdown(result, "The end.")) == [
        ("h1", "Your analysis"),
        ("h2", "Summary"),
        *(("p", paragraph) for paragraph in paragraphs),
        ("h2", "Tone"),
        ("p", "curious"),
        ("h2", "Themes"),
        ("ul li p", " ".join(filter(None, lines(text)))),
        ("ul li p", "machines"),
        ("h2", "Suggestions"),
        ("ul li p", "Build one."),
        ("hr", ""),
        ("p", "The end."),
    ]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in MARKUP.items()])
def test_markup_from_the_model_stays_text_in_the_file(text: str) -> None:
    assert_stays_text(text)


def test_www_is_no_link_though_a_space_follows() -> None:
    """GitHub's own parser links `www.` alone, the one used here doesn't."""
    result = ANALYSIS.model_copy(update={"summary": "www. a"})

    assert "\n\nwww\\. a\n\n" in words.as_markdown(result, "The end.")


pieces = (
    st.sampled_from([*string.punctuation, *" \t\n1ax", "\n\n", "    ", "www.", "http://", ".com"])
    | st.sampled_from([*MARKUP.values()])
    | st.text(st.characters(codec="utf-8"), max_size=3)
)


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
@hypothesis.given(st.lists(pieces, min_size=1, max_size=12).map("".join).filter(str.strip))
def test_whatever_the_model_writes_stays_text_in_the_file(text: str) -> None:
    assert_stays_text(text)


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("Asia/Tokyo", "Ready 23 November, 21:01 · Kept until 23 November, 22:01"),
        (None, "Ready 23 November, 12:01 · Kept until 23 November, 13:01"),
        ("No/Such", "Ready 23 November, 12:01 UTC · Kept until 23 November, 13:01 UTC"),
        ("../etc/passwd", "Ready 23 November, 12:01 UTC · Kept until 23 November, 13:01 UTC"),
        ("America", "Ready 23 November, 12:01 UTC · Kept until 23 November, 13:01 UTC"),
        ("x" * 300, "Ready 23 November, 12:01 UTC · Kept until 23 November, 13:01 UTC"),
    ],
)
def test_the_dates_of_a_result_are_in_the_visitors_time_zone(zone: str | None, told: str) -> None:
    assert words.dates(READY, TTL, zone) == told


@pytest.mark.parametrize(
    ("number", "short", "spoken"),
    [
        (-1, "under 1 s", "no time"),
        (0.4, "under 1 s", "no time"),
        (1, "1 s", "one second"),
        (8.4, "8 s", "8 seconds"),
        (60, "1 min", "one minute"),
        (65, "1 min 5 s", "one minute"),
        (90, "1 min 30 s", "90 seconds"),
        (245, "4 min 5 s", "4 minutes"),
        (3599, "59 min 59 s", "one hour"),
        (3600, "1 h", "one hour"),
        (5400, "2 h", "90 minutes"),
        (86_400, "24 h", "24 hours"),
        (172_800, "48 h", "2 days"),
    ],
)
def test_durations_are_told_plainly(number: float, short: str, spoken: str) -> None:
    assert words.short(seconds(number)) == short
    assert words.spoken(seconds(number)) == spoken
