"""What the page is connected to, once per process, and what time it is by Redis's clock."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import streamlit as st

from common.history import make_submissions, open_archive
from common.logs import start_logging
from common.qstash import Queue
from common.settings import Settings, load
from common.store import StoreUnavailable, open_store
from common.submission import Submissions, Timing
from common.tracing import start_tracing


@dataclass
class Connection:
    """What every session shares."""

    settings: Settings
    submissions: Submissions
    kept: timedelta  # how long a terminal analysis can be read
    timing: Timing  # the latest one, used while Redis can't be reached


@st.cache_resource(show_spinner=False)
def connect() -> Connection:
    """Connect once per process. Raises: SettingsError."""
    settings = load(Settings)
    start_logging(settings)
    start_tracing(settings, "ask-later-page")
    if settings.metrics_port:
        from operations import metrics

        metrics.serve(settings.metrics_port)
    store, archive = open_store(settings), open_archive(settings)
    submissions = make_submissions(store, Queue(settings), settings, archive)
    return Connection(settings, submissions, settings.kept, Timing())


@st.cache_resource(ttl=30, show_spinner=False)
def timing() -> Timing:
    """Fetch it now and then, once for everybody who waits."""
    connection = connect()
    with suppress(StoreUnavailable):
        connection.timing = connection.submissions.timing()
    return connection.timing


def now() -> datetime:
    """Return the time by Redis's clock."""
    return datetime.now(UTC) + timing().ahead
