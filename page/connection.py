"""What the page is connected to, once per process, and what time it is by Redis's clock."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zlib import crc32

import streamlit as st

from common.connection import StoreUnavailable
from common.events import Events
from common.logs import start_logging
from common.options import load_with_options, plug_in, process_started
from common.qstash import Queue
from common.record import AnalysisRecord
from common.settings import Settings
from common.states import Status
from common.store import open_store
from common.submission import Submissions, Timing
from page.snapshot import Crowd, Snapshot, is_near, poll_seconds


@dataclass
class Connection:
    """What every session shares."""

    settings: Settings
    events: Events
    submissions: Submissions
    kept: timedelta  # how long a terminal analysis can be read
    timing: Timing  # the latest one, used while Redis can't be reached
    crowd: Crowd = field(default_factory=Crowd)


@st.cache_resource(show_spinner=False)
def connect() -> Connection:
    """Connect once per process. Raises: SettingsError."""
    settings, chosen = load_with_options(Settings)
    start_logging(settings)
    process_started("page", chosen)
    store = open_store(settings)
    options = plug_in("page", settings, chosen, store)
    limits, history = options.limits, options.history
    submissions = Submissions(store, Queue(settings), settings, limits=limits, history=history)
    kept = max(settings.ttl, history.keeps)
    return Connection(settings, store.events, submissions, kept, Timing())


@st.cache_resource(ttl=30, show_spinner=False)
def timing() -> Timing:
    """Fetch it now and then, once for everybody who waits."""
    connection = connect()
    with suppress(StoreUnavailable):
        connection.timing = connection.submissions.timing()
    return connection.timing


def ahead(record: AnalysisRecord) -> int | None:
    """Ask now and then how many come before one that waits; None where nobody counts them."""
    if not connect().settings.qstash_parallelism or record.status is not Status.PENDING:
        return None
    return _ahead(record.request_id, record)


@st.cache_resource(ttl=30, max_entries=1000, show_spinner=False)
def _ahead(request_id: str, _record: AnalysisRecord) -> int | None:
    return connect().submissions.ahead(_record)


def now() -> datetime:
    """Return the time by Redis's clock."""
    return datetime.now(UTC) + timing().ahead


def pause_of(session: str, snapshot: Snapshot) -> float | None:
    """Return when this session fetches again what it shows, and count it if that is soon.

    It is a little more or less for each, or those who once asked at the same time would do so
    for ever.
    """
    crowd, usual, time = connect().crowd, timing().usual, now()
    member = f"{session} {snapshot.request_id}"
    pause = poll_seconds(snapshot, time, usual, crowd.size())
    if pause and snapshot.record and is_near(snapshot.record, time, usual):
        pause = crowd.join(member, pause)
    else:
        crowd.leave(member)
    return pause and pause * (0.95 + crc32(member.encode()) % 100 / 1000)
