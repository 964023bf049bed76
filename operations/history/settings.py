"""Settings of the history."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from common.environment import Part
from common.setting_types import Duration
from operations.history.address import database
from operations.packages import require


def _check(url: SecretStr | None) -> SecretStr | None:
    """Accept what the history can use; its packages are not needed otherwise."""
    if url is not None:
        address = database(url.get_secret_value()).url
        scheme, _, file = address.partition(":///")
        is_file = scheme == "sqlite"
        require("sqlalchemy", "alembic", "aiosqlite" if is_file else "psycopg")
        if is_file:
            _check_file(Path(file))
    return url


def _check_file(path: Path) -> None:
    """Refuse what SQLite can't write: it says neither which file nor why."""
    if not path.parent.is_dir():
        raise ValueError("there is no such folder")
    needed = [path.parent, *([path] if path.exists() else [])]  # its journal stands beside it
    if not all(os.access(each, os.W_OK) for each in needed):
        raise ValueError(
            "this file or its folder can't be written; in a container use sqlite:////data/history.db"
        )


class HistorySettings(Part):
    """The history.

    It keeps in a database what Redis forgets after its time. Needs
    `pip install -r requirements-operator.txt`.
    """

    database_url: Annotated[SecretStr | None, AfterValidator(_check)] = Field(
        default=None,
        description="Keeps a history in PostgreSQL: `postgresql://user:password@host/name`. "
        "Empty: no history.",
    )
    history_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="After how many days an analysis is removed from the history.",
    )
    history_max_outage: Duration = Field(
        default=timedelta(days=1),
        description="For how long the database may be away before anything is lost: Redis keeps "
        "what has ended so much longer, about 2 kB each.",
    )
    keep_input: bool = Field(
        default=False,
        description="Whether the history keeps the text of failed analyses, so that they can be "
        "run again.",
    )
