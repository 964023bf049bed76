"""The tables of the history.

table     column                          holds
analyses  request_id                      the key: an analysis is there once
          round, finished_at, created_at  a later one replaces an earlier one, never back
          status, code                    for the operator's commands; `deleted`: a tombstone
          record                          AnalysisRecord as JSON; nothing in a tombstone

A tombstone's `finished_at` is when it was deleted. Change them by a migration (`migrations/`).
"""

import sqlalchemy as sql

DELETED = "deleted"

metadata = sql.MetaData()
analyses = sql.Table(
    "analyses",
    metadata,
    sql.Column("request_id", sql.String(32), primary_key=True),
    sql.Column("round", sql.Integer, nullable=False),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("code", sql.String(40), index=True),
    sql.Column("created_at", sql.DateTime(timezone=True), nullable=False),
    sql.Column("finished_at", sql.DateTime(timezone=True), nullable=False, index=True),
    sql.Column("record", sql.Text),
)
