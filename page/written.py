"""What was written: folded on its own page, and edited until the attempt begins."""

import html
from dataclasses import replace

import streamlit as st

from common.connection import StoreUnavailable
from common.form import Form
from common.logs import get_logger
from common.record import AnalysisRecord
from common.states import TransitionError
from common.store import NotFound
from common.submission import NotOwner
from common.task import TASK
from common.versions import Unreadable
from page import texts
from page.connection import connect
from page.form import ask_for, draw_note
from page.head import draw_header, draw_heading
from page.parts import Text, parts
from page.quoted import first_words
from page.result import as_html
from page.state import go_to, page_state

log = get_logger("page")


def draw_written(form: Form) -> None:
    """Draw, folded, what its owner wrote."""
    plain = [replace(p, is_lead=False) if isinstance(p, Text) else p for p in parts(form)]
    begins = html.escape(first_words(form, most=200))
    st.html(
        '<details class="written"><summary>'
        f'<span>You wrote <q dir="auto">{begins}</q></span></summary>'
        f'<div class="result">{as_html(plain)}</div></details>'
    )


def draw_edit(record: AnalysisRecord, owner_token: str) -> None:
    """Draw the form with what was written; saved, it is a new version of the same request."""
    draw_header()
    draw_heading("Edit what you wrote")
    st.html(f'<p class="promise">{texts.edit_until(record, st.context.timezone)}</p>')
    form, note = ask_for(TASK.form, "Save", page_state().prefilled)
    st.button("Keep it as it was", type="tertiary", on_click=go_to, args=(record.request_id,))
    if form:
        with note, st.spinner("Saving…"):
            problem = _save(record.request_id, owner_token, form)
        draw_note(note, problem)


def _save(request_id: str, owner_token: str, form: Form) -> str:
    """Save and go back; else return why that did not work. The text is never lost."""
    try:
        connect().submissions.edit(request_id, owner_token, form)
    except (NotFound, NotOwner, TransitionError) as error:
        log.info("not edited", request_id=request_id, cause=str(error) or type(error).__name__)
        return go_to(None, texts.EDITED_TOO_LATE, prefilled=form)
    except (StoreUnavailable, Unreadable) as error:
        log.error("not edited", request_id=request_id, cause=str(error))
        return f"{texts.NOT_DONE} {texts.TEXT_KEPT}"
    page_state().draft = None  # the text as it was is another request from here on
    return go_to(request_id)
