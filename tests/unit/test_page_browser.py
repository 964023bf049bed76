"""What of Streamlit's own page ours goes by."""

import re
from pathlib import Path

import pytest
import streamlit as st

from page.browser import COMPONENTS, STYLE


@pytest.mark.parametrize(
    "name", ["data-test-connection-state", "stDialog", "DISCONNECTED_FOREVER", "_stcore/health"]
)
def test_what_takes_the_place_of_streamlits_dialog_knows_its_names(name: str) -> None:
    scripts = (Path(st.__file__).parent / "static" / "static" / "js").glob("index.*.js")
    ours = STYLE.read_text() + (COMPONENTS / "connection.js").read_text()

    assert name in ours
    assert any(re.search(f'[`"]{name}[`"]', script.read_text()) for script in scripts)
