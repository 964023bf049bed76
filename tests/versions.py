"""Records as other versions have stored them: released, newer, and such as nobody can read."""

import json
from hashlib import sha256
from typing import Any

from common.record import AnalysisRecord
from common.store import Store
from common.versions import VERSION
from tests.processes import ROOT

OWNER = "owner-token"
OWNER_HASH = sha256(OWNER.encode()).hexdigest()
MORE: dict[str, Any] = {
    "urgency": {"level": 3, "because": ["it", "rains"]},
    "self": None,
    "cost": 0.5,
}


def released(name: str) -> list[str]:
    """What a released version has stored, to the letter: a record a line of `tests/stored/`."""
    return (ROOT / "tests" / "stored" / f"{name}.jsonl").read_text().splitlines()


def stored_as(record: AnalysisRecord, **changes: object) -> str:
    """A record as another version stores it: with other fields, or without those that are `...`."""
    data = json.loads(record.model_dump_json(by_alias=True)) | changes
    return json.dumps({name: value for name, value in data.items() if value is not Ellipsis})


def of_newer(record: AnalysisRecord) -> str:
    """Of a version that has been raised since."""
    return stored_as(record, schemaVersion=VERSION + 1)


def with_more(record: AnalysisRecord, *, is_first: bool = False) -> str:
    """With fields that a newer version has added; these may stand anywhere."""
    data = json.loads(record.model_dump_json(by_alias=True))
    if data["tokens"]:
        data["tokens"] |= {"cachedTokens": 7}
    both = {**MORE, **data} if is_first else {**data, **MORE}
    return json.dumps(both, separators=(",", ":"))


def of_older(record: AnalysisRecord) -> str:
    """Of a version that had not yet a field that must be there now."""
    return stored_as(record, schemaVersion=1, dueAt=...)


class Newer(AnalysisRecord):
    """The record of a version that has one field more, which may be missing."""

    urgency: int = 0


class NewerStore(Store):
    """The store of that version."""

    def _load(self, request_id: str) -> Any:
        _, raw, now = super()._load(request_id)
        return Newer.model_validate_json(raw), raw, now
