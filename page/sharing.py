"""What can be done with a result: share it, copy it, download it, and delete it for good."""

import streamlit as st

from common.questions import in_words
from common.record import AnalysisRecord
from common.task import TASK
from page import browser, export, texts
from page.actions import action_button, delete
from page.connection import connect

ASKED = "asks_to_delete"  # in the session: which one


@st.fragment
def draw_sharing(record: AnalysisRecord, owner_token: str | None) -> None:
    """Offer to take the result along; to its owner, to delete it, too.

    In a fragment, for the reason that `draw_actions` has.
    """
    result, ending = record.result, texts.ending(record)
    assert result, "a completed analysis has a result"
    link = browser.link_to(record.request_id)
    title = f"{in_words(TASK.noun)} · {TASK.name}"
    with st.container(key="sharing", horizontal=True, wrap=False):
        browser.draw_copy(
            browser.CopyButton(label="Share", text=link, shared_as=title),
            browser.CopyButton(label="Copy text", text=export.as_text(result, ending)),
        )
        with st.popover("More", key="more", on_change=_ask_no_more):
            _draw_downloads(record)
            if owner_token:
                _draw_delete(record, owner_token)
    until = texts.readable_until(record, connect().kept, st.context.timezone)
    st.html(f'<p class="quiet until">{until}</p>')


def _draw_downloads(record: AnalysisRecord) -> None:
    result, name = record.result, export.file_name(TASK.noun)
    assert result, "a completed analysis has a result"
    markdown = export.as_markdown(result, texts.ending(record))
    as_json = result.model_dump_json(by_alias=True, indent=2)
    for label, content, file_name, media_type in (
        ("Download Markdown", markdown, f"{name}.md", "text/markdown"),
        ("Download JSON", as_json, f"{name}.json", "application/json"),
    ):
        st.download_button(label, content, file_name, media_type, on_click="ignore")


def _draw_delete(record: AnalysisRecord, owner_token: str) -> None:
    """Ask first. Wherever the question opens, a second click of the same pointer keeps it all.

    Opened downwards, the warning takes the place of the button; upwards, "Keep it" does.
    """
    if st.session_state.get(ASKED) != record.request_id:
        st.button("Delete…", key="ask-to-delete", on_click=_ask, args=(record.request_id,))
        return
    with st.container(key="sure"):
        st.markdown(texts.DELETE_WARNING)
        action_button("Yes, delete it", delete, record, owner_token)
        st.button("Keep it", key="keep", on_click=_ask_no_more)


def _ask(request_id: str) -> None:
    st.session_state[ASKED] = request_id


def _ask_no_more() -> None:
    st.session_state.pop(ASKED, None)
