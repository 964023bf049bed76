"""The durable history, when there is a `DATABASE_URL`."""

from common.ports import History, NoHistory
from common.store import Store
from operations.history.settings import HistorySettings


def connect_history(settings: HistorySettings, store: Store) -> History:
    """Make the history of a store, if there is to be one; once per process.

    Connects at first use, as it limits its connections.
    """
    if settings.database_url is None:
        return NoHistory()
    from operations.history.archive import DatabaseHistory  # its libraries are the operator's choice

    return DatabaseHistory(settings, store)
