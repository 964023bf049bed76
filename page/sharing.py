"""What can be done with a result: share it, copy it, download it, and delete it for good."""

import streamlit as st

from common.questions import in_words
from common.record import AnalysisRecord
from common.task import TASK
from page import browser, export, texts
from page.actions import draw_quiet_actions
from page.connection import connect


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
        with st.popover("More", key="more"):
            _draw_downloads(record)
    until = texts.readable_until(record, connect().kept, st.context.timezone)
    st.html(f'<p class="quiet until">{until}</p>')
    if owner_token:
        draw_quiet_actions(record, owner_token)


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
