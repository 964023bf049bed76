"""Reads a record as it is stored, of whichever version. What is written is always of this one."""

import json

from pydantic import ValidationError

from common.record import AnalysisRecord
from common.versions import VERSION, Json, Unreadable, Why, upgrade

ANOTHER_ID = "it has another id"  # and so another owner, of whom nothing is told


def read_record(raw: str, request_id: str | None = None) -> AnalysisRecord:
    """Read a record under this id; fields that a newer version has added stay in it.

    Raises: Unreadable.
    """
    try:
        record = AnalysisRecord.model_validate_json(raw)
    except ValidationError:
        record = _read_other(raw, request_id)
    else:
        if record.schema_version != VERSION:
            record = _read_other(raw, request_id)
    if request_id not in (None, record.request_id):
        raise Unreadable(request_id, Why.DAMAGED, ANOTHER_ID)
    if not record.is_consistent:
        cause = f"incomplete for {record.status}"
        raise Unreadable(request_id, Why.DAMAGED, cause, json.loads(raw))
    return record


def _read_other(raw: str, request_id: str | None) -> AnalysisRecord:
    """Upgrade and read what is not of this version, or say why that can't be."""
    data = _json(raw)
    if "requestId" not in data:
        raise Unreadable(request_id, Why.DAMAGED, "no record")
    if request_id not in (None, data["requestId"]):
        raise Unreadable(request_id, Why.DAMAGED, ANOTHER_ID)
    version = data.get("schemaVersion", 1)
    if type(version) is not int or version < 1:
        raise Unreadable(request_id, Why.DAMAGED, "schemaVersion", data)
    if version > VERSION:
        raise Unreadable(request_id, Why.NEWER, f"schemaVersion {version}", data)
    try:
        return AnalysisRecord.model_validate_json(json.dumps(upgrade({**data}, version)))
    except ValidationError as error:
        raise Unreadable(request_id, *_why(error, version), data) from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # of a step
        raise Unreadable(request_id, Why.OLDER, type(error).__name__, data) from None


def _why(error: ValidationError, version: int) -> tuple[Why, str]:
    """Tell by what is wrong which version has written it, where it does not say so itself."""
    problems = error.errors(include_url=False, include_input=False)
    of_record = {problem["type"] for problem in problems if len(problem["loc"]) == 1}
    if "enum" in of_record and version == VERSION:  # a status or failure that this one has not
        why = Why.NEWER
    elif "missing" in of_record or version < VERSION:
        why = Why.OLDER
    else:
        why = Why.DAMAGED
    fields = ", ".join(".".join(map(str, problem["loc"])) for problem in problems)
    return why, fields


def _json(raw: str) -> Json:
    """What it is as JSON; empty where that is no object."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
