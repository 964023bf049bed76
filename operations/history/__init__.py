"""The durable history, when there is a `DATABASE_URL`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from common.ports import NoHistory
from common.store import Store
from operations.history.settings import HistorySettings
from operations.statistics import Statistics

if TYPE_CHECKING:
    from operations.history.archive import DatabaseHistory
    from operations.history.database import Database

logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells how it starts; we, what it did


def connect_history(
    settings: HistorySettings,
    store: Store,
    statistics: Statistics | None = None,
    *,
    in_background: bool = False,
) -> DatabaseHistory | NoHistory:
    """Make the history of a store, if there is to be one; once per process.

    Connects at first use, as it limits its connections. The statistics then tell how far it is.
    `in_background`, nobody waits for what is written after the fact.
    """
    if settings.database_url is None:
        return NoHistory()
    from operations.history.archive import (
        DatabaseHistory,  # its libraries are the operator's choice
    )

    history = DatabaseHistory(settings, store, in_background=in_background)
    if statistics:
        statistics.add_gauges(history.gauges)
    return history


def database_of(history: DatabaseHistory | NoHistory) -> Database | None:
    """What the operator's commands ask."""
    return None if isinstance(history, NoHistory) else history.database
