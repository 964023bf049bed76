"""The form, and the list of the requests that were sent from this browser."""

import html

import streamlit as st
from pydantic import ValidationError
from streamlit.delta_generator import DeltaGenerator

from common.connection import StoreUnavailable
from common.failures import Failure
from common.form import Form
from common.logs import get_logger
from common.ports import LimitReached
from common.states import TransitionError
from common.store import NotFound
from common.submission import OtherInput, new_owner_token, new_request_id
from page import browser, texts
from page.connection import connect, timing
from page.state import Draft, fetch, go_to, page_state, visitor

log = get_logger("page")


def draw_form() -> None:
    """Draw the form; once it is sent, submit it and go to the analysis, or say what is wrong."""
    browser.name_tab()
    st.title(texts.form_title(connect().settings.qstash_delay), anchor=False)
    _draw_promise()
    summary = st.empty()
    with st.form("analysis", enter_to_submit=False):
        values, slots = _draw_fields()
        is_sent = st.form_submit_button("Send request", type="primary", width="stretch")
    if not is_sent:
        return
    try:
        form = AnalysisInput.model_validate(values)
    except ValidationError as error:
        problems = input_problems(error)
        for field, problem in problems.items():
            slots[field].markdown(f":red[:small[:material/error: {problem}]]")
        fields = "1 field" if len(problems) == 1 else f"{len(problems)} fields"
        summary.error(f"Nothing was sent yet. Please look at {fields} below.")
        return
    with summary, st.spinner("Sending…"):
        problem = _submit(form)
    summary.error(problem)


def _draw_promise() -> None:
    connection = connect()
    rows = texts.promise(connection.settings, connection.kept, timing().usual).items()
    lines = "".join(f"<dt>{topic}</dt><dd>{html.escape(text)}</dd>" for topic, text in rows)
    st.html(f'<dl class="promise">{lines}</dl>')


def _draw_fields() -> tuple[dict[str, object], dict[str, DeltaGenerator]]:
    """Draw the fields; return their values, and a place under each for what is wrong with it."""
    left, right = st.columns([2, 1])
    below = st.container()
    values: dict[str, object] = {
        "name": left.text_input("Name", key="name", autocomplete="name"),
        "age": right.number_input("Age", key="age", value=None, step=1.0, format="%g"),
        "description": below.text_area(
            "Short description (10 to 2,000 characters)",
            key="description",
            height=140,
            placeholder="What you do, what you like, what you would like to know",
        ),
    }
    return values, {"name": left.empty(), "age": right.empty(), "description": below.empty()}


def _submit(form: Form) -> str:
    """Submit and go to the analysis; else return why that did not work."""
    state = page_state()
    if state.draft is None or state.draft.form != form:
        state.draft = Draft(form, new_request_id(), new_owner_token())
    _, request_id, owner_token = state.draft
    try:
        record = connect().submissions.submit(
            form, request_id=request_id, owner_token=owner_token, visitor=visitor()
        )
    except LimitReached as error:
        return f"{texts.limit_text(error)} {texts.TEXT_KEPT}"
    except (StoreUnavailable, NotFound, OtherInput, TransitionError) as error:
        cause = str(error) or type(error).__name__
        log.error("not submitted", request_id=request_id, cause=cause)
        return texts.NOT_SUBMITTED
    if record.failure is Failure.NOT_QUEUED:
        return f"{record.failure.sentence} {record.failure.next_step} {texts.TEXT_KEPT}"
    state.owner_tokens[request_id] = owner_token
    return go_to(request_id)


def draw_requests() -> None:
    """List the requests of this browser; look up those that may have changed."""
    snapshots = []
    for request_id in browser.storage_reply().unfinished:
        snapshots.append(fetch(request_id))
        if snapshots[-1].failures:
            break  # each further one would only wait for the store, too
    browser.draw_requests(
        [browser.entry(snapshot, connect().kept) for snapshot in snapshots],
        forget=page_state().deleted,
    )
