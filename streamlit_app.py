"""The page, in the order the person sees it: the form, or one analysis from waiting to result.

The request id in the URL is all that is needed to come back. This script runs anew whenever
something is drawn; the modules of `page` that it calls are imported once.
"""

import streamlit as st

from common.environment import SettingsError
from common.logs import get_logger, start_logging
from common.tasks import load_task


def draw_page() -> None:
    """Draw what the URL asks for. Raises: SettingsError."""
    load_task()
    # These import the task, which is known to work now.
    from page import browser
    from page.analysis import draw_analysis
    from page.connection import connect
    from page.form import draw_form
    from page.head import view
    from page.requests import draw_requests
    from page.state import page_state

    st.html(browser.STYLE)
    connect()
    request_id = st.query_params.get("request")
    with view("form" if request_id is None else "analysis"):
        if request_id is None:
            draw_form()
            draw_requests()
        else:
            draw_analysis(request_id)
    shown = request_id or ""
    browser.draw_arrival(shown, has_arrived=shown == page_state().arrived)


start_logging()  # `python -m page` has done so; other hosts of Streamlit haven't
try:
    draw_page()
except SettingsError as error:
    get_logger("page").error("not set up", cause=str(error))
    st.title("Not ready yet", anchor=False)
    st.markdown("This page is not set up. Its operator finds the reason in the log.")
