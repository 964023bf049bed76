"""The tables of the history.

table     column                          holds
analyses  request_id                      the key: an analysis is there once
          round, finished_at, created_at  a later one replaces an earlier one, never back
          status, code                    for the operator's commands; `deleted`: a tombstone
          record                          AnalysisRecord as JSON; nothing in a tombstone

A tombstone's `finished_at` is when it was deleted. Change them by a migration (`migrations/`), and
the indexes here alone: they are no version, and `indexes.py` builds what is missing.

index                            serves
ix_analyses_finished_at          what is the oldest, to be purged
ix_analyses_status_finished_at   the failed of a time; counting, without looking at a row
ix_analyses_code_finished_at     those that failed with one code; of the others it has nothing
"""

from datetime import datetime

import sqlalchemy as sql

DELETED = "deleted"

metadata = sql.MetaData()
analyses = sql.Table(
    "analyses",
    metadata,
    sql.Column("request_id", sql.String(32), primary_key=True),
    sql.Column("round", sql.Integer, nullable=False),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("code", sql.String(40)),
    sql.Column("created_at", sql.DateTime(timezone=True), nullable=False),
    sql.Column("finished_at", sql.DateTime(timezone=True), nullable=False),
    sql.Column("record", sql.Text),
)

_has_code = analyses.c.code.is_not(None)
sql.Index("ix_analyses_finished_at", analyses.c.finished_at)
sql.Index(
    "ix_analyses_status_finished_at",
    analyses.c.status,
    analyses.c.finished_at,
    analyses.c.code,
)
sql.Index(
    "ix_analyses_code_finished_at",
    analyses.c.code,
    analyses.c.finished_at,
    postgresql_where=_has_code,
    sqlite_where=_has_code,
)


def is_kept(since: datetime) -> sql.ColumnElement[bool]:
    """Whether a row is an analysis, and not too old: those that ended before are not read."""
    return sql.and_(analyses.c.status != DELETED, analyses.c.finished_at > since)
