"""What the witnesses of a run saw, and which failures the faults that were injected explain."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from tests.chaos.history import Raw

DELIVERED = re.compile(r"^(\S+) (msg_\w+) delivered to \S+/webhook: (.+)$", re.MULTILINE)
GIVEN_UP = re.compile(r"^\S+ (msg_\w+) given up", re.MULTILINE)
# The design's own numbers, not the product's: it may have them wrong.
MAX_ATTEMPTS = 3
MAX_DELIVERIES = 4
SOON = 5.0  # seconds until a busy machine has written down what a kill led to
STORE_SECONDS = 15.0  # how long after a kill of Redis a delivery may be told that it is away


@dataclass
class Evidence:
    """Redis's values now and before, the model's ledger, both logs, and the times of the kills."""

    records: dict[str, Raw | None]
    history: dict[str, list[Raw]]
    ledger: list[dict[str, str]]
    log: str
    qstash_log: str
    killed: dict[int, float] = field(default_factory=dict)  # when, by pid
    redis_kills: list[float] = field(default_factory=list)
    rolls: list[float] = field(default_factory=list)

    # What failed

    def used_up_attempts(self, request_id: str) -> bool:
        """Whether all attempts were made, and each of them ended by a fault."""
        record = self.records[request_id]
        tokens = self._tokens(request_id)
        return (
            record is not None
            and record["failure"] == "attempts_exhausted"
            and record["attempt"] == len(tokens) == MAX_ATTEMPTS
            and tokens <= self.failed_calls | self.cut_off[request_id]
        )

    def was_never_delivered(self, request_id: str) -> bool:
        """Whether QStash gave its message up, and a fault explains each answer that it got."""
        record = self.records[request_id]
        if record is None or record["failure"] != "delivery_failed":
            return False
        message_id = record["messageId"]
        answers = self.answers[message_id]
        return (
            message_id in GIVEN_UP.findall(self.qstash_log)
            and len(answers) >= MAX_DELIVERIES
            and all(self._is_explained(request_id, message_id, *answer) for answer in answers)
        )

    def _is_explained(self, request_id: str, message_id: str, at: float, answer: str) -> bool:
        if answer == "no answer":
            return _follows(at, [*self.killed.values(), *self.rolls], SOON)
        return answer == "503" and any(
            self._is_fault(request_id, line)
            for line in self._by_message[message_id]
            if -1 <= at - _time(line["time"]) <= SOON
        )

    def _is_fault(self, request_id: str, line: dict[str, Any]) -> bool:
        """Whether this line of the service's log tells of a fault that was injected."""
        match line["event"]:
            case "store unavailable":
                return _follows(_time(line["time"]), self.redis_kills, STORE_SECONDS)
            case "attempt failed":
                return self._calls.get((request_id, line["attempt"])) in self.failed_calls
            case "delivery ignored":  # an earlier attempt has the lease, or ended a moment ago
                return bool(
                    self._tokens(request_id) & (self.failed_calls | self.cut_off[request_id])
                )
        return False

    # What the witnesses say

    @cached_property
    def failed_calls(self) -> set[str]:
        """The claim tokens of the calls that the model let fail."""
        return {line["token"] for line in self.ledger if line["event"] == "failed"}

    @cached_property
    def cut_off(self) -> dict[str, set[str]]:
        """For each analysis the claims whose worker was killed before it wrote what came of
        them; and those that nobody wrote down, as a worker or Redis was killed just then.
        """
        found: dict[str, set[str]] = defaultdict(set)
        claims: dict[tuple[int, str, int], str] = {}
        ended: set[tuple[int, str, int]] = set()
        for line in self._lines:
            if line["event"] == "claimed":
                claims[line["pid"], line["request_id"], line["attempt"]] = line["call_id"]
            elif line["event"] in ("settled", "attempt failed"):
                ended.add((line["pid"], line["request_id"], line["attempt"]))
        for (pid, request_id, attempt), token in claims.items():
            if pid in self.killed and (pid, request_id, attempt) not in ended:
                found[request_id].add(token)
        written = set(claims.values())
        kills = [*self.killed.values(), *self.redis_kills]
        for request_id, values in self.history.items():
            found[request_id] |= {
                raw["claimToken"]
                for raw in values
                if raw["status"] == "processing" and raw["claimToken"] not in written
                if raw["claimedAt"] and _precedes(_time(raw["claimedAt"]), kills, SOON)
            }
        return found

    @cached_property
    def late(self) -> Counter[str]:
        """By analysis, the calls that reached the time limit, though the model is never so slow:
        the machine was busy.
        """
        return Counter(
            line["request_id"]
            for line in self._lines
            if line["event"] == "attempt failed" and line["code"] == "model_timeout"
        )

    @cached_property
    def answers(self) -> dict[str, list[tuple[float, str]]]:
        """What each message's deliveries were answered, and when."""
        found = defaultdict(list)
        for at, message_id, answer in DELIVERED.findall(self.qstash_log):
            found[message_id].append((float(at), answer))
        return found

    @cached_property
    def delivered_twice(self) -> int:
        """How many messages came twice at once; a retry would come later."""
        times = ([at for at, _ in answers] for answers in self.answers.values())
        return sum(any(b - a < SOON for a, b in pairwise(t)) for t in times)

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.log.splitlines():
            with suppress(ValueError):  # a kill may cut a line off
                found.append(json.loads(line))
        return found

    @cached_property
    def _by_message(self) -> dict[str, list[dict[str, Any]]]:
        found = defaultdict(list)
        for line in self._lines:
            found[line.get("message_id", "")].append(line)
        return found

    @cached_property
    def _calls(self) -> dict[tuple[str, int], str]:
        """The claim token of each analysis's attempt."""
        claims = [line for line in self._lines if line["event"] == "claimed"]
        return {(line["request_id"], line["attempt"]): line["call_id"] for line in claims}

    def _tokens(self, request_id: str) -> set[str]:
        return {
            raw["claimToken"] for raw in self.history[request_id] if raw["status"] == "processing"
        }


def _time(written: str) -> float:
    return datetime.fromisoformat(written).timestamp()


def _follows(at: float, causes: Iterable[float], seconds: float) -> bool:
    """Whether this came so soon after one of these, give or take a second."""
    return any(-1 <= at - cause <= seconds for cause in causes)


def _precedes(at: float, ends: Iterable[float], seconds: float) -> bool:
    return any(-1 <= end - at <= seconds for end in ends)
