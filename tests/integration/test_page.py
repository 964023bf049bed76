"""The page in each state, through AppTest, on the real server and a scripted QStash."""

import json
import tomllib
from hashlib import sha256
from unittest.mock import Mock

import pytest
import redis
import streamlit as st
from streamlit.runtime.caching import cache_utils
from streamlit.testing.v1 import AppTest

from common.connection import StoreUnavailable
from common.failures import Failure
from common.states import Status
from common.store import Store, utc_now
from page.errors import SORRY
from page.snapshot import poll_seconds
from page.state import KEY
from tests.conftest import BROKEN, broken, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    DEADLINE,
    DELAY,
    ID,
    LEASE,
    OTHER_ID,
    note_duration,
    pending,
    with_fields,
)
from tests.http_server import HttpServer, answer, serve
from tests.log_lines import logged
from tests.page import (
    button,
    configured,
    data,
    fill,
    first_run,
    heading,
    labels,
    note,
    open_page,
    problems,
    qstash,
    request_id_of,
    show,
    show_owner,
    state,
    text,
)
from tests.processes import ROOT
from tests.toy.task import TASK

__all__ = ["configured", "qstash"]
pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    return make_store(real_redis)


def test_a_good_form_stores_publishes_and_puts_the_id_into_the_url(
    store: Store, qstash: HttpServer
) -> None:
    page = fill(open_page())

    request_id = request_id_of(page)
    record = store.read(request_id)
    assert (record.status, record.input, record.message_id) == (Status.PENDING, ADA, "msg_1")
    assert len(qstash.requests) == 1
    assert state(page) == "pending"
    assert data(page, "copy")["buttons"][0]["text"].endswith(f"?request={request_id}")


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"name": "", "age": None, "description": ""}, 3),
        ({"name": "   "}, 1),
        ({"age": 36.5}, 1),
        ({"age": 0}, 1),
        ({"age": 1e300}, 1),
        ({"description": "short"}, 1),
        ({"name": "A\x00"}, 1),
        ({"name": "\u3164", "description": "\u2800" * 20}, 2),
    ],
)
def test_each_wrong_field_gets_a_message_and_nothing_happens(
    real_redis: redis.Redis, qstash: HttpServer, changes: dict[str, object], number: int
) -> None:
    page = fill(open_page(), **changes)  # type: ignore[arg-type]

    assert len(problems(page)) == number
    assert "Not sent yet" in note(page)
    assert real_redis.keys("*") == []
    assert qstash.requests == []
    assert "request" not in page.query_params


def test_the_form_keeps_what_was_written_when_a_field_is_wrong() -> None:
    page = fill(open_page(), age=None)

    assert page.text_input[0].value == "Ada"
    assert page.text_area[0].value == ADA.description


def test_a_refused_publish_keeps_the_text_and_the_next_try_works(
    monkeypatch: pytest.MonkeyPatch, store: Store, real_redis: redis.Redis
) -> None:
    with serve(answer(500), answer(201, {"messageId": "msg_2"})) as flaky:
        monkeypatch.setenv("QSTASH_URL", flaky.url)
        page = fill(open_page())
        assert Failure.NOT_QUEUED.sentence in note(page)
        assert page.text_area[0].value == ADA.description

        page.button("send").click().run()

    request_id = request_id_of(page)
    assert (store.read(request_id).round, store.read(request_id).message_id) == (2, "msg_2")
    assert len(real_redis.keys("analysis:*")) == 1


def test_text_changed_after_a_refusal_is_another_analysis(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    with serve(answer(500), answer(201, {"messageId": "msg_2"})) as flaky:
        monkeypatch.setenv("QSTASH_URL", flaky.url)
        page = fill(open_page())

        fill(page, name="Adele")

    record = store.read(request_id_of(page))
    assert (record.round, record.input) == (1, ADA.model_copy(update={"name": "Adele"}))


def test_the_same_text_sent_twice_from_one_form_is_one_analysis(qstash: HttpServer) -> None:
    page = fill(open_page())
    first = request_id_of(page)
    page.query_params.clear()  # the second click was on its way before the page changed
    page.run()

    fill(page)

    assert request_id_of(page) == first
    assert len(qstash.requests) == 1


def test_the_same_text_after_cancelling_is_another_analysis(qstash: HttpServer) -> None:
    page = fill(open_page())
    first = request_id_of(page)
    button(page, "Yes, cancel it").click().run()
    page.query_params.clear()  # as the browser's Back does
    page.run()

    fill(page)

    assert request_id_of(page) != first
    assert state(page) == "pending"


def test_the_same_text_from_a_new_form_is_another_analysis(qstash: HttpServer) -> None:
    page = fill(open_page())
    first = request_id_of(page)
    page.button("new").click().run()

    fill(page)

    assert request_id_of(page) != first
    assert len(qstash.requests) == 2


def test_redis_away_keeps_the_text_and_says_so(
    monkeypatch: pytest.MonkeyPatch, qstash: HttpServer
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    page = fill(open_page())

    assert "Your text is still here" in note(page)
    assert page.text_area[0].value == ADA.description
    assert qstash.requests == []


def test_a_page_without_settings_says_so_to_the_person_and_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("QSTASH_TOKEN")

    page = open_page()

    assert page.title[0].value == "Not ready yet"
    told = logged(caplog.text, "not set up")
    assert "QSTASH_TOKEN: missing" in told[0]["cause"]


def test_a_waiting_analysis_shows_no_word_of_what_was_written(store: Store) -> None:
    page = show(store, pending(store.now()))

    assert state(page) == "pending"
    assert "Ada" not in text(page)


def test_a_running_analysis_is_shown(store: Store) -> None:
    now = store.now()
    page = show(
        store, pending(now).claim("a", of_round=1, now=pending(now).due_at, call=CALL, lease=LEASE)
    )

    assert state(page) == "processing"


def test_a_retry_shows_the_reason_and_the_next_attempt(store: Store) -> None:
    record = with_fields(pending(store.now()), attempt=1, last_failure=Failure.RATE_LIMITED)

    page = show(store, record)

    assert Failure.RATE_LIMITED.sentence in text(page)
    assert "Trying again in {time}" in text(page)


def test_a_result_is_drawn_as_text_whatever_the_model_wrote(store: Store) -> None:
    hostile = '<img src="https://canary.example/a"> ![x](https://canary.example/b) $\\frac{1}{2}$'
    result = ANALYSIS.model_copy(
        update={"summary": hostile, "tone": hostile, "themes": [hostile], "suggestions": [hostile]}
    )
    record = with_fields(
        pending(store.now()),
        status=Status.COMPLETED,
        result=result,
        model=hostile,
        finished_at=store.now(),
    )

    page = show(store, record)

    markdown = "".join(str(element.value) for element in [*page.markdown, *page.caption])
    drawn = "".join(str(getattr(element, "body", "")) for element in page.get("html"))
    assert "canary" not in markdown
    assert drawn.count("canary.example/a") == 5
    assert "<img" not in drawn


def test_the_stand_ins_answer_is_not_called_an_ai_models(store: Store) -> None:
    record = with_fields(
        pending(store.now()),
        status=Status.COMPLETED,
        result=ANALYSIS,
        model="local-stand-in",
        finished_at=store.now(),
    )

    assert "No AI model was asked" in text(show(store, record))


@pytest.mark.parametrize("code", Failure)
def test_a_failure_is_shown_with_what_to_do(store: Store, code: Failure) -> None:
    record = with_fields(
        pending(store.now()), status=Status.FAILED, failure=code, finished_at=store.now()
    )

    page = show_owner(store, record)

    assert code.sentence in text(page)
    assert code.next_step in text(page)
    assert f"Reference: {ID}" in text(page)
    assert "Try again" in labels(page)


@pytest.mark.parametrize("request_id", [ID, "nonsense", "", "../../etc/passwd", "<b>x</b>"])
def test_a_dead_link_offers_the_form(request_id: str) -> None:
    page = open_page(request_id)

    assert heading(page) == "Nothing here"
    button(page, "New request").click().run()
    assert heading(page) == TASK.headline


def test_whoever_has_only_the_link_can_change_nothing(store: Store) -> None:
    page = show(store, pending(store.now()))

    assert labels(page) == ["New"]


def test_the_submitter_can_cancel_and_delete(store: Store, real_redis: redis.Redis) -> None:
    page = fill(open_page())
    request_id = request_id_of(page)

    button(page, "Yes, cancel it").click().run()
    assert state(page) == "cancelled"
    assert store.read(request_id).status is Status.CANCELLED

    button(page, "Yes, delete it").click().run()
    assert heading(page) == TASK.headline
    assert "Deleted." in text(page)
    assert data(page, "requests")["forget"] == request_id
    assert real_redis.keys("analysis:*") == []


def test_the_submitter_can_try_a_failed_analysis_again(store: Store) -> None:
    page = fill(open_page())
    request_id = request_id_of(page)
    store.update(request_id, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE))
    page.run()

    button(page, "Try again").click().run()

    assert state(page) == "pending"
    assert store.read(request_id).round == 2


def test_redis_away_while_waiting_keeps_the_last_state(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = show(store, pending(store.now()))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    st.cache_resource.clear()

    page.run()
    assert "can't look this up" not in text(page)
    page.run()

    assert not page.exception
    assert state(page) == "pending"
    assert "can't look this up" in text(page)


def test_redis_away_at_the_first_fetch_says_so_and_leaves_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    page = open_page(ID)

    assert "as long as this page is open" in text(page)
    assert labels(page) == ["New"]


# ── The browser's storage ───────────────────────────────────────────────────────────────────


def test_the_submitter_is_known_again_after_a_reload(store: Store) -> None:
    page = show_owner(store, pending(store.now()))

    assert {"Yes, cancel it", "Yes, delete it"} <= set(labels(page))
    button(page, "Yes, cancel it").click().run()
    assert store.read(ID).status is Status.CANCELLED


@pytest.mark.parametrize(
    "reply",
    [
        {"requestId": ID, "ownerToken": "wrong"},
        {"requestId": ID, "ownerToken": ""},
        {"requestId": OTHER_ID, "ownerToken": "token"},
    ],
)
def test_a_wrong_owner_token_changes_nothing(store: Store, reply: dict[str, object]) -> None:
    record = with_fields(pending(store.now()), owner_hash=sha256(b"token").hexdigest())
    page = show(store, record, **reply)

    for label in ("Yes, cancel it", "Yes, delete it"):
        if label in labels(page):
            button(page, label).click().run()
            assert "That was not possible any more." in text(page)

    assert store.read(ID) == record


@pytest.mark.parametrize(
    "reply",
    [
        {"requestId": "../etc", "ownerToken": "token"},
        {"requestId": ID, "ownerToken": ["token"]},
        {"requestId": ID, "ownerToken": "x" * 101},
        {"unfinished": [ID] * 21},
        {"unfinished": "everything"},
        {"wanted": [ID]},
        {"wanted": float("nan")},
        {"ownerToken": float("nan")},
        {"unfinished": [float("nan")]},
    ],
)
def test_nonsense_from_the_browser_counts_as_no_reply(
    store: Store, reply: dict[str, object]
) -> None:
    page = show(store, pending(store.now()), **reply)

    assert labels(page) == labels(first_run(ID)) == ["New"]
    assert data(page, "requests")["reply"] == NOTHING


NOTHING: dict[str, object] = {
    "wanted": None,
    "requestId": None,
    "ownerToken": None,
    "unfinished": [],
}


@pytest.mark.parametrize("request_id", [None, ID])
@pytest.mark.parametrize(
    "sent",
    [
        {"reply": float("nan")},
        {"reply": [float("nan")]},
        {"reply": [1]},
        {"reply": "x" * 100_000},
        {"reply": json.loads("[" * 400 + "]" * 400)},
        {"reply": {"wanted": {"wanted": float("nan")}}},
        [1],
        float("nan"),
        "reply",
        True,
    ],
    ids=lambda sent: str(sent)[:20],
)
def test_whatever_the_browser_sends_the_page_does_not_run_again_and_again(
    request_id: str | None, sent: object
) -> None:
    page = first_run(request_id)
    page.session_state["requests"] = sent

    page.run()  # this fails if it doesn't come to an end

    assert not page.exception
    assert data(page, "requests")["reply"] == NOTHING


def test_the_owner_token_goes_into_the_browsers_storage_once(store: Store) -> None:
    page = fill(open_page())
    request_id = request_id_of(page)
    (entry,) = data(page, "requests")["entries"]
    assert len(entry["ownerToken"]) == 32

    page.session_state["requests"] = {
        "reply": {"requestId": request_id, "ownerToken": entry["ownerToken"]}
    }
    page.run()
    assert "Yes, cancel it" in labels(page)
    page.session_state["requests"] = {"reply": {"wanted": request_id}}  # after "Clear the list"
    page.run()

    assert data(page, "requests")["entries"][0]["ownerToken"] is None
    assert "Yes, cancel it" not in labels(page)


def test_of_what_was_written_its_owners_browser_alone_gets_the_first_words(store: Store) -> None:
    page = fill(open_page(), description=f"{ADA.description} {'Much more. ' * 20}")
    (entry,) = data(page, "requests")["entries"]
    stranger = open_page(request_id_of(page))

    assert entry["label"] == "I sketch machines and like long walks…"
    assert "Ada" not in json.dumps(data(page, "requests"))
    assert "Much more" not in json.dumps(data(page, "requests"))
    assert "machines" not in json.dumps(data(stranger, "requests"))


def test_the_list_gets_the_state_of_its_unfinished_requests(store: Store) -> None:
    record = pending(store.now())
    store.create(record.cancel(now=record.created_at))

    page = open_page(unfinished=[ID, OTHER_ID])

    entries = data(page, "requests")["entries"]
    assert [(entry["requestId"], entry["state"]) for entry in entries] == [
        (ID, "Cancelled"),
        (OTHER_ID, "No longer kept"),
    ]
    assert data(page, "requests")["isShown"]


def test_until_the_browser_has_replied_nobody_is_taken_for_a_stranger(
    store: Store,
) -> None:
    failed = {"status": Status.FAILED, "failure": Failure.TIMED_OUT, "finished_at": store.now()}
    store.create(with_fields(pending(store.now()), **failed))

    page, dead = first_run(ID), first_run(OTHER_ID)

    assert Failure.TIMED_OUT.sentence in text(page)
    assert Failure.TIMED_OUT.next_step not in text(page)
    assert labels(page) == ["New"]
    assert labels(dead) == []
    assert heading(dead) == "One moment"
    assert data(dead, "requests")["announcement"] == "One moment."


def test_a_reply_about_another_page_says_nothing_about_this_one(store: Store) -> None:
    failed = {"status": Status.FAILED, "failure": Failure.TIMED_OUT, "finished_at": store.now()}
    page = show_owner(store, with_fields(pending(store.now()), **failed))
    page.session_state["requests"] = {"reply": {"wanted": None}}  # on the form; then Back
    page.run()

    assert Failure.TIMED_OUT.sentence in text(page)
    assert Failure.TIMED_OUT.next_step not in text(page)
    assert labels(page) == ["New"]


def test_a_dead_link_is_expired_only_for_the_browser_that_sent_it() -> None:
    assert "not found, or is no longer kept" in text(open_page(ID))
    assert "It has expired and was deleted" in text(open_page(ID, requestId=ID, ownerToken="token"))


# ── Ready, or not ───────────────────────────────────────────────────────────────────────────


def test_what_came_of_a_press_is_said_until_something_else_happens(store: Store) -> None:
    page = fill(open_page())
    ready = {"status": Status.COMPLETED, "result": ANALYSIS, "model": "m"}
    store.update(request_id_of(page), lambda r, now: with_fields(r, **ready, finished_at=now))
    button(page, "Yes, cancel it").click().run()

    page.run()
    assert "That was not possible any more." in text(page)

    page.button("new").click().run()
    assert "That was not possible any more." not in text(page)
    assert not page.toast


def test_the_heading_is_gone_to_once_it_is_ready_and_not_by_who_comes_later(store: Store) -> None:
    page = show(store, pending(store.now()))
    ready = {"status": Status.COMPLETED, "result": ANALYSIS, "model": "m"}
    store.update(ID, lambda r, now: with_fields(r, **ready, finished_at=now))

    page.run()

    assert data(page, "arrival") == {"view": ID, "hasArrived": True}
    assert data(open_page(ID), "arrival") == {"view": ID, "hasArrived": False}


def test_cancelling_what_has_just_become_ready_comes_too_late(store: Store) -> None:
    page = fill(open_page())
    ready = {"status": Status.COMPLETED, "result": ANALYSIS, "model": "m"}
    store.update(request_id_of(page), lambda r, now: with_fields(r, **ready, finished_at=now))

    button(page, "Yes, cancel it").click().run()

    assert heading(page) == "Your analysis"
    assert "That was not possible any more." in text(page)


def test_a_text_that_cannot_be_analysed_is_given_back_to_its_owner(store: Store) -> None:
    now = store.now()
    failed = {"status": Status.FAILED, "failure": Failure.CONTENT_FILTERED, "finished_at": now}
    page = show_owner(store, with_fields(pending(now), **failed))

    button(page, "Change the text").click().run()

    assert heading(page) == TASK.headline
    assert page.text_input[0].value == ADA.name
    assert page.number_input[0].value == ADA.age
    assert page.text_area[0].value == ADA.description
    fill(page, description="Something milder to read about.")
    assert request_id_of(page) != ID


def test_a_stranger_sees_that_it_failed_and_neither_text_nor_buttons(store: Store) -> None:
    now = store.now()
    failed = {"status": Status.FAILED, "failure": Failure.CONTENT_FILTERED, "finished_at": now}
    page = show(store, with_fields(pending(now), **failed))

    assert labels(page) == ["New"]
    assert "Only the browser that sent this request" in text(page)
    assert "Ada" not in text(page)


def test_past_its_deadline_an_analysis_has_failed(store: Store) -> None:
    now = store.now()
    page = show_owner(store, pending(now - DELAY - DEADLINE))

    assert state(page) == "failed"
    assert Failure.TIMED_OUT.sentence in text(page)
    assert "Try again" in labels(page)


def test_after_the_last_round_trying_again_is_not_offered(store: Store) -> None:
    now = store.now()
    failed = {"status": Status.FAILED, "failure": Failure.TIMED_OUT, "finished_at": now}

    page = show_owner(store, with_fields(pending(now), **failed, round=5))

    assert "Try again" not in labels(page)


def test_a_result_can_be_copied_and_downloaded(store: Store) -> None:
    ready = {"status": Status.COMPLETED, "result": ANALYSIS, "model": "m"}
    page = show(store, with_fields(pending(store.now()), **ready, finished_at=store.now()))

    files = [download.proto.label for download in page.get("download_button")]
    assert files == ["Download Markdown", "Download JSON"]
    share, copy = data(page, "copy")["buttons"]
    assert share["text"].endswith(f"/?request={ID}")
    assert share["sharedAs"] == "Analysis · Ask later"
    assert ANALYSIS.summary in copy["text"]
    assert data(page, "progress")["ring"] is None


def test_the_form_says_that_the_stand_in_asks_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "local-stand-in")

    assert "No AI model reads it" in text(open_page())


def test_the_form_says_the_usual_duration(store: Store) -> None:
    note_duration(store, 8)

    assert "then about 8 seconds of writing" in text(open_page())


def test_while_the_store_is_away_its_latest_usual_duration_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0] * 100)
    monkeypatch.setattr(cache_utils, "TTLCACHE_TIMER", lambda: next(times, 31.0))
    note_duration(store, 8)
    page = open_page()
    list(times)  # what is cached for 30 s is asked for again
    monkeypatch.setattr(Store, "usual_duration", Mock(side_effect=StoreUnavailable))

    page.run()

    assert "then about 8 seconds of writing" in text(page)
    assert Store.usual_duration.called  # type: ignore[attr-defined]


def test_no_run_of_the_page_ends_with_a_full_garbage_collection() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())

    assert config["runner"]["postScriptGC"] is False


@pytest.mark.parametrize("how", [*BROKEN, "not JSON"])
def test_an_analysis_that_cannot_be_read_is_said_once(
    how: str, real_redis: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    real_redis.set(f"analysis:{{{ID}}}", broken(how))

    page = open_page(ID)

    assert heading(page) == "No longer readable here"
    assert "Trying again will not help" in text(page)
    assert labels(page) == ["New request"]
    assert poll_seconds(page.session_state[KEY].snapshot, utc_now()) is None
    assert "Traceback" not in caplog.text


def test_a_fault_of_the_page_is_one_sentence_without_its_details() -> None:
    def page() -> None:
        from page.errors import on_script_error

        assert on_script_error(ValueError("canary")) is True

    shown = AppTest.from_function(page).run()

    assert text(shown).count(SORRY) == 1
    assert not shown.exception
