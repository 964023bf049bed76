"""What each page begins with: the product's name, and a heading."""

import html
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from common.task import TASK
from page.notices import draw_connection
from page.state import go_to


def view(name: Literal["form", "analysis"]) -> DeltaGenerator:
    """Return the place of one of the two views.

    What Streamlit leaves of the other one until the run ends is hidden at once, so that none of it
    moves meanwhile.
    """
    other = "analysis" if name == "form" else "form"
    wrapper = f'[data-testid="stLayoutWrapper"]:has(> .st-key-view-{other})'
    st.html(f"<style>{wrapper} {{ display: none !important; }}</style>")
    places = {each: st.container(key=f"view-{each}") for each in ("form", "analysis")}
    return places[name]


def draw_header(*, offers_new: bool = False) -> None:
    """Draw the product's name, which leads to the form, and a button that does."""
    with st.container(
        key="head", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        name = html.escape(TASK.name)
        st.html(f'<a class="brand" href="./" target="_self">{name}</a>', width="content")
        if offers_new:
            _draw_new()
    draw_connection()


@st.fragment  # for the reason that `draw_actions` has
def _draw_new() -> None:
    st.button("New", type="tertiary", key="new", on_click=go_to, args=(None,))


def draw_heading(text: str, *, is_minor: bool = False) -> None:
    """Draw the page's heading. A new text is a new element, also where a browser translates."""
    style = "minor" if is_minor else ""
    st.html(f'<h1 dir="auto" class="{style}">{html.escape(text)}</h1>')
