"""Many analyses while workers and Redis are killed and the service is replaced; then what Redis,
its append-only file, the model's ledger and the log say is held against each other.
"""

import json
import re
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from common.failures import Failure
from common.models import AnalysisInput
from common.store import StoreUnavailable
from tests.chaos.history import Raw, read_history
from tests.chaos.report import Row
from tests.chaos.site import PRODUCT, Site, open_site

SECONDS_BETWEEN_KILLS = 0.7
DUPLICATES = 0.10
DOOMED = 0.001  # of the analyses: each call for them fails
SUBMITTERS = 12
DELIVERED = re.compile(r"^(msg_\w+) delivered to \S+/webhook: (.+)$", re.MULTILINE)
GIVEN_UP = re.compile(r"^(msg_\w+) given up", re.MULTILINE)
COMPLETED = "analyses: completed, unless faults used up the attempts or deliveries"
UNFINISHED = "… of them left pending or processing"
ASKED_TWICE = "claim tokens: the model asked twice with one"
EXTRA_CALLS = "calls cut off by a kill or the time limit: asked again more often than that"
PLAIN_FAILS = (COMPLETED, UNFINISHED, ASKED_TWICE)  # or the harness sees nothing
PERSONAL = "Canary Personal"
SECRET = "sk-canary-secret"


class Plan(NamedTuple):
    """What a run does, made from its seed alone."""

    analyses: int
    seed: int
    kills: int
    redis_kills: int

    def inputs(self) -> dict[str, AnalysisInput]:
        random = Random(self.seed)
        return {
            f"{random.getrandbits(128):032x}": AnalysisInput(
                name=PERSONAL,
                age=36,
                description=f"{PERSONAL} marker-{self._want(random)}-{number} about myself",
            )
            for number in range(self.analyses)
        }

    def duplicates(self) -> list[bool]:
        random = Random(self.seed + 1)
        return [random.random() < DUPLICATES for _ in range(self.analyses)]

    def _want(self, random: Random) -> str:
        return "doomed" if random.random() < DOOMED else "normal"


def run(plan: Plan, directory: Path, app: str = PRODUCT, patience: float = 300) -> list[Row]:
    """Do all of it on a fresh site, wait so many seconds at most, and check what is left."""
    with open_site(directory, app, seed=plan.seed, secret=SECRET) as site:
        site.duplicate(plan.duplicates())
        accepted = _submit_amid_kills(site, plan)
        site.wait_until_settled(list(accepted), patience)
        records = site.raw_records(list(accepted))
        return _check(site, plan, accepted, records)


def _submit_amid_kills(site: Site, plan: Plan) -> dict[str, AnalysisInput]:
    inputs = plan.inputs()
    submissions = site.submissions()
    accepted: dict[str, AnalysisInput] = {}

    def submit(id: str) -> None:
        for _ in range(20):
            try:
                submissions.submit(inputs[id], request_id=id, owner_token="owner")
            except StoreUnavailable:
                time.sleep(0.5)  # the person presses the button again
            else:
                accepted[id] = inputs[id]
                return

    has_all = threading.Event()

    def kill() -> None:
        random = Random(plan.seed + 2)
        for _ in range(plan.kills):
            time.sleep(SECONDS_BETWEEN_KILLS)
            site.kill_a_worker(random)

    def upset() -> None:
        """Kill Redis, and replace the service, when so many are accepted."""
        steps = plan.redis_kills + 1
        for step in range(1, steps + 1):
            while len(accepted) < plan.analyses * step / (steps + 1) and not has_all.is_set():
                time.sleep(0.02)
            site.kill_redis() if step < steps else site.roll()

    with ThreadPoolExecutor(SUBMITTERS + 2) as pool:
        upsets = [pool.submit(kill), pool.submit(upset)]
        list(pool.map(submit, inputs))
        has_all.set()
        for upset_ in upsets:
            upset_.result()
    return accepted


def _check(
    site: Site, plan: Plan, accepted: dict[str, AnalysisInput], records: dict[str, Raw | None]
) -> list[Row]:
    log = site.service_log_path.read_text(errors="replace")
    ledger = site.ledger()
    history = read_history(site.data)
    cut_off = _cut_off(log, set(site.killed), history)
    failed_calls = {line["token"] for line in ledger if line["event"] == "failed"}
    statuses = Counter(str(record and record["status"]) for record in records.values())

    def used_up(id: str) -> bool:
        """Whether each attempt of a failed analysis ended by an injected fault."""
        tokens = {r["claimToken"] for r in history[id] if r["status"] == "processing"}
        return bool(tokens) and tokens <= failed_calls | cut_off[id]

    unfinished = [id for id, r in records.items() if r and r["status"] in ("pending", "processing")]
    lost = [id for id, record in records.items() if record is None]
    failed = [id for id, record in records.items() if record and record["status"] == "failed"]
    unheard = _unheard(site.qstash_log_path.read_text())
    excused = [id for id in failed if used_up(id) or (records[id] or {})["messageId"] in unheard]
    asked = Counter(line["token"] for line in ledger if line["event"] == "asked")
    answered = Counter(line["marker"] for line in ledger if line["event"] == "answered")
    extra, unexplained = 0, 0
    for id, input in accepted.items():
        more = answered[input.description.split()[2]] - 1
        extra += max(0, more)
        unexplained += max(0, more - len(cut_off[id]))
    return [
        Row(
            COMPLETED,
            len(accepted),
            len(accepted) - statuses["completed"] - len(excused),
            f"{statuses['completed']} completed; used up: {_names(excused, accepted)}",
        ),
        Row(UNFINISHED, len(accepted), len(unfinished)),
        Row("… gone from Redis", len(accepted), len(lost)),
        Row("… timed out", len(accepted), _with_failure(records, "timed_out")),
        Row(
            "… changed after their end",
            len(history),
            sum(map(_changes_after_end, history.values())),
        ),
        Row(ASKED_TWICE, len(asked), _more_than_once(asked)),
        Row(
            EXTRA_CALLS,
            sum(map(len, cut_off.values())),
            unexplained,
            f"{extra} answered calls more than one per analysis",
        ),
        Row("workers killed with SIGKILL", len(site.killed), plan.kills - len(site.killed)),
        Row("Redis killed, and the service replaced", plan.redis_kills + 1, 0),
        Row(
            "log lines, completed records and messages with personal text or the key",
            log.count("\n"),
            _leaks(site, log, records),
        ),
    ]


def _cut_off(log: str, killed: set[int], history: dict[str, list[Raw]]) -> dict[str, set[str]]:
    """For each analysis the claims whose worker was killed before it wrote that it had settled,
    or even before it wrote that it had claimed; and those that a busy machine kept waiting until
    the call's time limit, while the model's side went on to answer.
    """
    claims = defaultdict(list)
    settled: Counter[tuple[int, str]] = Counter()
    found: dict[str, set[str]] = defaultdict(set)
    for line in log.splitlines():
        with suppress(ValueError):  # a kill may cut a line off
            logged = json.loads(line)
            if logged["event"] == "claimed":
                claims[logged["pid"], logged["request_id"]].append(logged["call_id"])
            elif logged["event"] == "settled":
                settled[logged["pid"], logged["request_id"]] += 1
            elif logged["event"] == "attempt failed" and logged["code"] == Failure.MODEL_TIMEOUT:
                found[logged["request_id"]].add(claims[logged["pid"], logged["request_id"]][-1])
    for (pid, id), tokens in claims.items():
        if pid in killed and len(tokens) > settled[pid, id]:
            found[id].add(tokens[-1])
    written = {token for tokens in claims.values() for token in tokens}
    for id, values in history.items():
        found[id] |= {raw["claimToken"] for raw in values if raw["claimToken"]} - written
    return found


def _unheard(qstash_log: str) -> set[str]:
    """The messages that were given up and never got another answer than none, or 503."""
    answers = defaultdict(set)
    for message_id, answer in DELIVERED.findall(qstash_log):
        answers[message_id].add(answer)
    given_up = set(GIVEN_UP.findall(qstash_log))
    return {id for id in given_up if answers[id] <= {"no answer", "503"}}


def _changes_after_end(values: list[Raw]) -> int:
    """How often a record was written after it was terminal, a second result included."""
    ends = [n for n, raw in enumerate(values) if raw["status"] in ("completed", "failed")]
    return len(values) - 1 - ends[0] if ends else 0


def _more_than_once(counts: Counter[str]) -> int:
    return sum(count > 1 for count in counts.values())


def _with_failure(records: dict[str, Raw | None], code: str) -> int:
    return sum(bool(record) and record["failure"] == code for record in records.values() if record)


def _names(ids: list[str], accepted: dict[str, AnalysisInput]) -> str:
    return ", ".join(sorted(accepted[id].description.split()[2] for id in ids)) or "none"


def _leaks(site: Site, log: str, records: dict[str, Raw | None]) -> int:
    texts = [log, site.qstash_log_path.read_text()]
    texts += [json.dumps(r) for r in records.values() if r and r["status"] == "completed"]
    return sum(text.count(word) for text in texts for word in (PERSONAL, SECRET))
