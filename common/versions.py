"""Versions of what is stored: a record in Redis, and the same JSON in a row of the history.

A record says its `schemaVersion`; one that does not is of the first. When it is read (`stored.py`),
`UPGRADES` takes it to the version of this program, a step at a time; it is written so at its next
change.

**Raise the version**, by a step more in `UPGRADES`, for what a program before can't read, or would
do wrong with: a field that must be there, or that is renamed, goes, or changes its type or meaning;
and one that holds what a person wrote, as a program before would keep it when it forgets the input.
**Don't** for a field more that may be missing, nor for a status or failure more.

While programs of both versions run:

record               read by the one before                    read by this one
of before            as ever                                   upgraded; written so when it changes
with a field more    keeps the field, whatever it changes      as ever
raised, or with a    `Unreadable`: left as it is, shown as of  as ever
  status more        a newer version, its delivery comes again
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


def _name_creator(record: Json) -> Json:
    """1 → 2: `createdBy` was `madeBy` for a while, and an `Idempotency-Key` had a key in Redis."""
    creator = record.pop("madeBy", None)
    record.pop("idempotencyKey", None)
    return {"createdBy": creator} | record


UPGRADES: tuple[Callable[[Json], Json], ...] = (_name_creator,)  # from 1, from 2, …
VERSION = len(UPGRADES) + 1


def upgrade(record: Json, version: int) -> Json:
    """Take a record of an earlier version to this one. Raises what a step raises."""
    for step in UPGRADES[version - 1 :]:
        record = step(record)
    return record | {"schemaVersion": VERSION}


class Why(StrEnum):
    """Why something that is stored can't be read."""

    OLDER = "of an older version"
    NEWER = "of a newer version"
    DAMAGED = "damaged"


class Unreadable(Exception):
    """What is stored can't be read by this version; Redis is well.

    What could be told of it, unchecked, is enough to delete it: whose it is, and what waits for it.
    """

    def __init__(
        self,
        request_id: str | None,
        why: Why,
        cause: str,
        record: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"a stored record can't be read: {why}: {cause}")
        found = record or {}
        self.request_id = request_id or _text(found.get("requestId"))
        self.why = why
        self.owner_hash = _text(found.get("ownerHash"))
        self.created_by = _text(found.get("createdBy", found.get("madeBy")))
        self.message_id = _text(found.get("messageId"))
        number = found.get("round")
        self.round = number if isinstance(number, int) else None

    @property
    def is_newer(self) -> bool:
        """Whether another process, of the newer version, can read it."""
        return self.why is Why.NEWER


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None
