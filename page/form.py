"""The form: draw it, and submit what was written."""

import html
from collections.abc import Mapping

import streamlit as st
from pydantic import ValidationError
from streamlit.delta_generator import DeltaGenerator

from common.connection import StoreUnavailable
from common.failures import Failure
from common.form import Form, problems, questions
from common.logs import get_logger
from common.owners import new_owner_token
from common.ports import LimitReached
from common.states import TransitionError
from common.store import NotFound
from common.submission import OtherInput, new_request_id
from common.task import TASK
from common.versions import Unreadable
from page import browser, texts
from page.connection import connect, timing
from page.head import draw_header, draw_heading
from page.notices import draw_notice
from page.state import Draft, go_to, page_state, visitor
from page.typed import read_typed
from page.widgets import Values, as_label, can_be_emptied, draw_fields, widget_key

log = get_logger("page")


def draw_form() -> None:
    """Draw the form; once it is sent, submit it and go to the analysis, or say what is wrong."""
    browser.name_tab()
    draw_header()
    draw_notice()
    draw_heading(TASK.headline)
    _draw_promise()
    state = page_state()
    form, note = ask_for(
        TASK.form, f"Get my {TASK.noun}", state.prefilled, is_new=True, reason=state.reason
    )
    _draw_explanation()
    if form is None:
        return
    with note, st.spinner("Sending…"):
        problem, more = _submit(form)
    draw_note(note, more, problem)


def ask_for(
    asked: type[Form],
    label: str,
    prefilled: Form | Values | None = None,
    *,
    is_new: bool = False,
    reason: str = "",
) -> tuple[Form | None, DeltaGenerator]:
    """Draw the fields of a form; return it once it is sent, or say what is wrong with it.

    Beside it, return the place for what comes of it, which is where the finger is: at the button.
    There stands the reason for this form, until the button is pressed. A new one offers the task's
    examples, and what is typed into it outlives a reload of its tab.
    """
    examples = texts.names_of_examples() if is_new else ()
    with st.form("analysis", enter_to_submit=False, border=False):
        fields = draw_fields(asked, prefilled, examples)
        note = st.empty()
        is_sent = st.form_submit_button(
            as_label(label), key="send", type="primary", width="stretch"
        )
    form, found = _check(asked, fields.values) if is_sent else (None, {})
    refused = tuple(key for key in found if key in fields.slots)
    _look_after(asked, is_sent=is_sent, refused=refused, is_new=is_new)
    if reason and not is_sent:
        draw_note(note, reason, style="calm")
    for question in questions(asked):
        if question.key in refused:
            problem = html.escape(found.pop(question.key))
            place = f"{html.escape(widget_key(question))}-problem"
            fields.slots[question.key].html(f'<p class="problem mark" id="{place}">{problem}</p>')
    if is_sent and form is None:
        said = filter(None, [texts.not_sent(len(refused)), *found.values()])
        draw_note(note, " ".join(said), texts.NOT_SENT)
    return form, note


def _check(asked: type[Form], values: Values) -> tuple[Form | None, dict[str, str]]:
    """Return the form, or what is wrong with it."""
    try:
        return asked.model_validate(values), {}
    except ValidationError as error:
        return None, problems(asked, error)


def _look_after(
    asked: type[Form], *, is_sent: bool, refused: tuple[str, ...], is_new: bool
) -> None:
    """Have the browser do for the form what Streamlit doesn't: see `form.js`."""
    state, drawn = page_state(), questions(asked)
    browser.draw_form(
        browser.FormOnPage(
            form_id=state.form_id,
            task=TASK.fingerprint,
            fields=tuple(
                {"key": each.key, "widget": widget_key(each), "kind": each.kind} for each in drawn
            ),
            keeps=is_new,
            asks=state.drawn != state.form_id and any(map(can_be_emptied, drawn)),
            press=new_request_id() if is_sent else "",
            refused=refused,
        ),
        _react,
    )


def _react(event: str, reply: object) -> None:
    """Begin a form with what was typed into this tab before, or with an example that was tapped."""
    state = page_state()
    if event == "drawn" and reply == state.form_id:
        state.drawn = state.form_id
    elif event == "typed" and isinstance(reply, Mapping):
        state.begin_form(read_typed(TASK.form, reply))
    elif event == "example" and isinstance(reply, int) and 0 <= reply < len(TASK.examples):
        state.begin_form(TASK.examples[reply])


def draw_note(place: DeltaGenerator, text: str, head: str = "", style: str = "amber") -> None:
    """Draw what came of pressing the button, or why there is one."""
    strong = f"<strong>{html.escape(head)}</strong> " if head else ""
    said = f"<span>{strong}{html.escape(text)}</span>"
    place.html(f'<p class="note mark {style}" role="alert">{said}</p>')


def _draw_promise() -> None:
    """Draw how soon it is ready, kept how long, and a way to who reads it: see `form.js`."""
    connection = connect()
    promise = texts.promise(connection.settings, connection.kept, timing().usual)
    st.html(
        f'<p class="promise">{promise}<span class="last"> · </span>'
        '<a class="opens" href="#explanation" target="_self">who reads it?</a></p>'
    )


def _draw_explanation() -> None:
    """Draw, folded, what becomes of the text."""
    connection = connect()
    rows = texts.explanation(connection.settings, connection.kept, timing().usual).items()
    lines = "".join(f"<dt>{topic}</dt><dd>{html.escape(text)}</dd>" for topic, text in rows)
    st.html(
        '<details class="explanation" id="explanation">'
        "<summary>What happens to your text, and who reads it</summary>"
        f'<dl class="explained">{lines}</dl></details>'
    )


def _submit(form: Form) -> tuple[str, str]:
    """Submit and go to the analysis; else return why that did not work, and what to do."""
    state = page_state()
    if state.draft is None or state.draft.form != form:
        state.draft = Draft(form, new_request_id(), new_owner_token())
    _, request_id, owner_token = state.draft
    try:
        record = connect().submissions.submit(
            form, request_id=request_id, owner_token=owner_token, visitor=visitor()
        )
    except LimitReached as error:
        return texts.limit_note(error)
    except (StoreUnavailable, Unreadable, NotFound, OtherInput, TransitionError) as error:
        cause = str(error) or type(error).__name__
        log.error("not submitted", request_id=request_id, cause=cause)
        return texts.NOT_SUBMITTED, texts.KEPT_TRY_AGAIN
    if record.failure is Failure.NOT_QUEUED:
        return record.failure.sentence, f"{record.failure.next_step} {texts.TEXT_KEPT}"
    state.owner_tokens[request_id] = owner_token
    return go_to(request_id)
