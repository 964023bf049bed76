"""The page through AppTest: open it, fill its form in, read what it says."""

import html
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
import redis
import streamlit as st
from streamlit.testing.v1 import AppTest

from common.record import AnalysisRecord
from common.settings import DEVELOPMENT_TOKEN
from common.store import Store
from tests.conftest import WEBHOOK_URL
from tests.fakes import ADA, with_fields
from tests.http_server import HttpServer, answer, serve
from tests.processes import ROOT

PAGE = str(ROOT / "streamlit_app.py")


@pytest.fixture
def qstash() -> Iterator[HttpServer]:
    with serve(answer(201, {"messageId": "msg_1"})) as server:
        yield server


@pytest.fixture
def configured(
    monkeypatch: pytest.MonkeyPatch, valkey: str, real_redis: redis.Redis, qstash: HttpServer
) -> Iterator[None]:
    monkeypatch.setenv("REDIS_URL", valkey)
    monkeypatch.setenv("QSTASH_TOKEN", DEVELOPMENT_TOKEN)
    monkeypatch.setenv("QSTASH_URL", qstash.url)
    monkeypatch.setenv("QSTASH_WEBHOOK_URL", WEBHOOK_URL)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def open_page(request_id: str | None = None, **reply: object) -> AppTest:
    """The page, once the browser has replied what is in its storage."""
    page = first_run(request_id)
    page.session_state["requests"] = {"reply": {"wanted": request_id, **reply}}
    page.run()
    assert not page.exception
    return page


def first_run(request_id: str | None) -> AppTest:
    """The page before the browser has replied."""
    page = AppTest.from_file(PAGE, default_timeout=20)
    if request_id is not None:
        page.query_params["request"] = request_id
    return page.run()


def fill(
    page: AppTest, name: str = "Ada", age: float | None = 36, description: str = ADA.description
) -> AppTest:
    page.text_input[0].set_value(name)
    page.number_input[0].set_value(age)
    page.text_area[0].set_value(description)
    page.button("send").click().run()
    assert not page.exception
    return page


def problems(page: AppTest) -> list[str]:
    """What is said under the fields, in their order."""
    drawn = "".join(str(getattr(element, "body", "")) for element in page.get("html"))
    return [html.unescape(said) for said in re.findall('class="problem.*?>(.*?)</p>', drawn)]


def request_id_of(page: AppTest) -> str:
    value = page.query_params["request"]
    return value if isinstance(value, str) else value[0]


def button(page: AppTest, label: str):  # type: ignore[no-untyped-def]
    return next(button for button in page.button if button.label == label)


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def text(page: AppTest) -> str:
    """All that the page says."""
    elements = [
        *page.title,
        *page.markdown,
        *page.caption,
        *page.error,
        *page.info,
        *page.warning,
        *page.get("html"),
    ]
    said = [getattr(element, "value", None) or getattr(element, "body", "") for element in elements]
    return html.unescape("\n".join(map(str, [*said, json.dumps(data(page, "progress"))])))


def data(page: AppTest, component: str) -> dict[str, Any]:
    """What the browser is given to draw; nothing when this component is not on the page."""
    protos = [element.proto for element in page.get("bidi_component")]
    given = [proto.json for proto in protos if proto.component_name == f"page_{component}"]
    found: dict[str, Any] = json.loads(given[0]) if given else {}
    return found


def state(page: AppTest) -> str:
    """The state of the analysis that is drawn; empty on the form, and under a dead link."""
    return str(data(page, "progress").get("state", ""))


def heading(page: AppTest) -> str:
    """The heading that the page itself draws; in most states, the progress has it."""
    found = [re.search(r"<h1[^>]*>(.*?)</h1>", body) for body in bodies(page)]
    return next((html.unescape(match[1]) for match in found if match), "")


def note(page: AppTest) -> str:
    """What came of pressing Send."""
    notes = [body for body in bodies(page) if 'class="note' in body]
    return html.unescape(" ".join(re.sub(r"<[^>]+>", "", "".join(notes)).split()))


def bodies(page: AppTest) -> list[str]:
    """All that the page draws as HTML."""
    return [str(getattr(element, "body", "")) for element in page.get("html")]


def show(store: Store, record: AnalysisRecord, **reply: object) -> AppTest:
    store.create(record)
    return open_page(record.request_id, **reply)


def show_owner(store: Store, record: AnalysisRecord) -> AppTest:
    """The page in the submitter's browser, after a reload."""
    owner_hash = sha256(b"token").hexdigest()
    record = with_fields(record, owner_hash=owner_hash)
    return show(store, record, requestId=record.request_id, ownerToken="token")
