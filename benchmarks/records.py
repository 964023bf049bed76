"""The records that are measured, of the task in use: a benchmark imports this before any test's."""

from datetime import datetime, timedelta

from common.record import AnalysisRecord
from common.task import TASK

CALL = timedelta(seconds=25)
LEASE = timedelta(seconds=40)
DEADLINE = timedelta(minutes=10)


def due(now: datetime, request_id: str) -> AnalysisRecord:
    """One to be delivered now."""
    return AnalysisRecord.new(
        request_id, TASK.example, owner_hash=None, now=now, delay=timedelta(0), deadline=DEADLINE
    )


def processing(now: datetime, request_id: str, lease: timedelta = LEASE) -> AnalysisRecord:
    """One that the model is at."""
    return due(now, request_id).claim("t", of_round=1, now=now, call=CALL, lease=lease)


def completed(now: datetime, request_id: str) -> AnalysisRecord:
    """One that is ready."""
    return processing(now, request_id).complete("t", TASK.example_result, model="m", now=now)
