"""What the page shows in place of an error of its own."""

import streamlit as st

SORRY = "Something went wrong on our side. Please reload this page; what you sent is kept."


def on_script_error(error: Exception) -> bool:
    """Draw one sentence, in place of Streamlit's box; Streamlit itself has logged the error."""
    st.html(f'<p class="note amber" role="alert">{SORRY}</p>')
    return True
