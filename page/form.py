"""The form: draw it, and submit what was written."""

import html

import streamlit as st
from pydantic import ValidationError
from streamlit.delta_generator import DeltaGenerator

from common.connection import StoreUnavailable
from common.failures import Failure
from common.form import Form, problems
from common.logs import get_logger
from common.ports import LimitReached
from common.states import TransitionError
from common.store import NotFound
from common.submission import OtherInput, new_owner_token, new_request_id
from common.task import TASK
from page import browser, texts
from page.connection import connect, timing
from page.head import draw_header, draw_heading
from page.notices import draw_notice
from page.state import Draft, go_to, page_state, visitor
from page.widgets import as_label, draw_fields

log = get_logger("page")


def draw_form() -> None:
    """Draw the form; once it is sent, submit it and go to the analysis, or say what is wrong."""
    browser.name_tab()
    draw_header()
    draw_notice("calm")
    connection, usual = connect(), timing().usual
    draw_heading(TASK.headline)
    st.html(f'<p class="promise">{texts.promise(connection.settings, connection.kept, usual)}</p>')
    form, note = ask_for(TASK.form, f"Get my {TASK.noun}", page_state().prefilled)
    _draw_explanation()
    if form is None:
        return
    with note, st.spinner("Sending…"):
        problem = _submit(form)
    draw_note(note, problem)


def ask_for(
    asked: type[Form], label: str, prefilled: Form | None = None
) -> tuple[Form | None, DeltaGenerator]:
    """Draw the fields of a form; return it once it is sent, or say what is wrong with it.

    Beside it, return the place for what comes of it, which is where the finger is: at the button.
    """
    with st.form("analysis", enter_to_submit=False, border=False):
        fields = draw_fields(asked, prefilled)
        note = st.empty()
        is_sent = st.form_submit_button(
            as_label(label), key="send", type="primary", width="stretch"
        )
    if not is_sent:
        return None, note
    try:
        return asked.model_validate(fields.values), note
    except ValidationError as error:
        found = problems(asked, error)
    of_all = [found.pop(key) for key in list(found) if key not in fields.slots]
    for key, problem in found.items():
        fields.slots[key].html(f'<p class="problem" role="alert">{html.escape(problem)}</p>')
    where = [texts.not_sent(len(found))] if found else [texts.NOT_SENT]
    draw_note(note, " ".join([*where, *of_all]))
    return None, note


def draw_note(place: DeltaGenerator, text: str) -> None:
    """Draw what came of pressing the button."""
    place.html(f'<p class="note amber" role="alert">{html.escape(text)}</p>')


def _draw_explanation() -> None:
    """Draw, folded, what becomes of the text."""
    connection = connect()
    rows = texts.explanation(connection.settings, connection.kept, timing().usual).items()
    lines = "".join(f"<dt>{topic}</dt><dd>{html.escape(text)}</dd>" for topic, text in rows)
    st.html(
        "<details><summary>What happens to your text, and who reads it</summary>"
        f'<dl class="explained">{lines}</dl></details>'
    )


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
