"""What must hold of every write and of everything stored, told from the raw values alone.

Nothing here uses the product's own reading, transitions or limits: it is the second opinion.
The numbers are the invariants of the design.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.chaos.steps import Step

MAX_ATTEMPTS, MAX_ROUNDS = 2, 2  # fewer than in production, so that a search gets further
TTL = timedelta(hours=1)
LEASE = timedelta(seconds=40)
TOLERANCE = timedelta(seconds=2)
TERMINAL = ("completed", "failed", "cancelled")
UNFINISHED = ("pending", "processing")

Raw = dict[str, Any]


class Broken(AssertionError):
    """A promise is broken."""


def must(is_so: object, promise: str) -> None:
    if not is_so:
        raise Broken(promise)


@dataclass
class Actor:
    """Whose step writes: what it is for, and the token it claimed with, if it did."""

    kind: str  # submit, deliver, give_up, look_up, edit, cancel, retry or delete
    round: int = 0
    token: str | None = None
    life: str = ""  # which of an id's lives it has claimed: a wiped server ends one
    input: Raw | None = None  # what it writes; of a delivery, what the record held when claimed
    has_edited: bool = False


@dataclass
class Seen:
    """One moment of one analysis in Redis."""

    record: Raw | None
    ttl_ms: int
    now: datetime

    @property
    def status(self) -> str:
        return str(self.record["status"]) if self.record else "absent"

    def time(self, name: str) -> datetime:
        assert self.record
        return datetime.fromisoformat(self.record[name])

    @property
    def is_held(self) -> bool:
        """Whether somebody's attempt may still be running."""
        return self.status == "processing" and self.now < self.time("claimedAt") + LEASE

    @property
    def is_overdue(self) -> bool:
        return self.status in UNFINISHED and self.now >= self.time("deadlineAt")

    def is_claimed_with(self, token: str) -> bool:
        return (
            self.status == "processing"
            and self.record is not None
            and not self.is_overdue
            and self.record["claimToken"] == token
        )

    def is_settled_with(self, token: str) -> bool:
        return (
            self.status in ("completed", "failed", "pending")
            and self.record is not None
            and not self.is_overdue
            and self.record["claimToken"] == token
        )

    def may_be_claimed(self, number: int, call: timedelta) -> bool:
        """Invariant 3, read the other way round: whether a delivery must get its claim now."""
        return (
            self.record is not None
            and self.status in UNFINISHED
            and not self.is_held
            and self.record["round"] == number
            and self.record["attempt"] < MAX_ATTEMPTS
            and (self.status == "processing" or self.now >= self.time("nextAttemptAt") - TOLERANCE)
            and self.now + call <= self.time("deadlineAt")
        )


@dataclass
class Ledger:
    """What the model's side has seen: each call by life and claim token, for which round."""

    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    tokens: set[tuple[str, str]] = field(default_factory=set)  # each with its life
    births: Counter[str] = field(default_factory=Counter)  # by id: more than one after a wipe

    def life(self, request_id: str) -> str:
        """Which of its lives an id is in."""
        return f"{request_id} {self.births[request_id]}"

    def call(self, token: str, life: str, number: int) -> None:
        must((life, token) not in self.calls, "2: one call per claim token")
        self.calls[life, token] = number

    def count(self, life: str, number: int) -> int:
        """How many calls there were in a round."""
        return sum(each == number for (of, _), each in self.calls.items() if of == life)


def check_write(actor: Actor, before: Seen, after: Seen, ledger: Ledger, call: timedelta) -> None:
    """Judge one write that changed a record."""
    old, new = before.record, after.record
    if new is None:
        must(actor.kind == "delete", "only a deletion removes a record")
        return
    check_stored(after)
    if after.status in TERMINAL and before.status not in TERMINAL:
        kept = timedelta(milliseconds=after.ttl_ms)
        must(abs(kept - TTL) < timedelta(seconds=10), "6: from its end it is kept as long as said")
    if old is None:
        must(actor.kind == "submit" and after.status == "pending", "only a submission makes one")
        ledger.births[new["requestId"]] += 1
        must((new["round"], new["attempt"]) == (1, 0), "a new record begins at the beginning")
        return
    if before.status in TERMINAL:
        check_reopening(actor, before, after)
        return
    must(new["round"] == old["round"], "1: the round changes by reopening alone")
    if new["input"] != old["input"] and new["input"] is not None:
        check_edit(actor, before, after)
        return
    claims = new["claimToken"] not in (None, old["claimToken"]) or new["attempt"] != old["attempt"]
    if claims:
        check_claim(actor, before, after, ledger, call)
    elif before.status == "processing" and after.status != "processing":
        check_settling(actor, before, after)
    elif before.status != after.status and not times_out(before, after):
        allowed = {
            "failed": ("deliver", "give_up", "submit", "look_up", "retry"),
            "cancelled": ("cancel",),
        }
        must(actor.kind in allowed.get(after.status, ()), f"{actor.kind} made it {after.status}")
    check_failure(before, after)


def check_edit(actor: Actor, before: Seen, after: Seen) -> None:
    """Invariant 9: what was written changes by its owner alone, and never once it was sent."""
    old, new = before.record, after.record
    assert old
    assert new
    must(actor.kind == "edit", f"9: {actor.kind} changed what was written")
    must(before.status == "pending" and old["attempt"] == 0, "9: nothing was sent yet")
    must(new["input"] == actor.input, "9: it is what the person wrote")
    changed = {name for name in new if new[name] != old[name]}
    must(changed == {"input"}, "9: message, times and all else stay")
    actor.has_edited = True


def check_claim(actor: Actor, before: Seen, after: Seen, ledger: Ledger, call: timedelta) -> None:
    """Invariant 3: a claim is granted only when it may be."""
    assert before.record
    assert after.record
    token = after.record["claimToken"]
    must(actor.kind == "deliver", "only a delivery claims")
    must(after.status == "processing", "a claim begins an attempt")
    must(before.record["round"] == actor.round, "3: the round is the message's")
    must(not before.is_held, "3: nobody else's lease lives")
    must(after.record["attempt"] == before.record["attempt"] + 1, "2: each claim is counted")
    must(after.record["attempt"] <= MAX_ATTEMPTS, "2: attempts are limited")
    must(actor.token is None, "2: one delivery claims once")
    life = ledger.life(after.record["requestId"])
    must((life, token) not in ledger.tokens, "2: no two claims have the same token")
    if before.status == "pending":
        claimed_at = after.time("claimedAt")
        must(claimed_at >= before.time("nextAttemptAt") - TOLERANCE, "3: its time has come")
    must(after.time("claimedAt") + call <= after.time("deadlineAt"), "3: one call's time remains")
    ledger.tokens.add((life, token))
    actor.token = token
    actor.life = life
    actor.input = after.record["input"]


def check_settling(actor: Actor, before: Seen, after: Seen) -> None:
    """Invariant 4: a running attempt ends by its own token, unless it is overridden."""
    assert before.record
    if times_out(before, after):
        return
    if actor.kind == "cancel":
        must(after.status == "cancelled", "a cancellation cancels")
    elif actor.token is not None:
        must(before.record["claimToken"] == actor.token, "4: only the current token settles")
        must(after.status in ("completed", "failed", "pending"), "an attempt settles")
    else:
        must(actor.kind in ("deliver", "give_up"), f"{actor.kind} ended a running attempt")
        must(not before.is_held, "an attempt that runs is left alone")
        must(after.status == "failed", "another's attempt can only be failed")
        must(actor.round == before.record["round"], "an older round's message changes nothing")


def times_out(before: Seen, after: Seen) -> bool:
    """Whether this is what any reader may do at the deadline."""
    failure = after.record["failure"] if after.record else None
    return before.is_overdue and failure == "timed_out"


def check_failure(before: Seen, after: Seen) -> None:
    assert before.record
    assert after.record
    if after.status == "failed":
        must(after.record["failure"] and after.record["finishedAt"], "a failure says why and when")
    if after.record["failure"] == "timed_out":
        must(before.is_overdue, "7: it times out at the deadline and not before")
    if after.status == "completed":
        must(after.record["result"] and after.record["model"], "a completion has its result")


def check_reopening(actor: Actor, before: Seen, after: Seen) -> None:
    """Invariant 1: terminal is terminal, but for a failed analysis that is run again."""
    assert before.record
    assert after.record
    must(before.status == "failed", "1: what is completed or cancelled stays so")
    must(actor.kind in ("retry", "submit"), f"1: {actor.kind} changed a failed analysis")
    not_queued = before.record["failure"] == "not_queued"
    must(actor.kind == "retry" or not_queued, "a submission reopens only what was never queued")
    must(after.status == "pending", "reopened is pending")
    must(after.record["round"] == before.record["round"] + 1, "each reopening is a round")
    must(not_queued or after.record["round"] <= MAX_ROUNDS, "rounds are limited")
    must(after.record["attempt"] == 0, "2: attempts count per round")
    must(after.record["messageId"] is None, "a round has a message of its own")
    must(after.record["createdAt"] == before.record["createdAt"], "it was made when it was made")


def check_stored(seen: Seen) -> None:
    """What holds of a record at any moment."""
    record = seen.record
    assert record
    must(seen.status in (*TERMINAL, *UNFINISHED), "the status is one of five")
    must(seen.ttl_ms > 0, "6: every key has a time to live")
    lives_until = seen.now + timedelta(milliseconds=seen.ttl_ms)
    if seen.status in UNFINISHED:
        must(lives_until >= seen.time("deadlineAt"), "6: it outlives the deadline")
    has_input = record["input"] is not None
    must(has_input == (seen.status not in ("completed", "cancelled")), "8: input while needed")
    must((seen.status == "completed") == (record["result"] is not None), "1: a result when done")
    must((seen.status == "processing") <= (record["claimToken"] is not None), "claims have tokens")
    must(0 <= record["attempt"] <= MAX_ATTEMPTS, "2: attempts are limited")


def parse(raw: str | None) -> Raw | None:
    return json.loads(raw) if raw is not None else None


def current_actor(actors: dict[Step, Actor], kind: str = "look_up") -> Actor:
    """Who runs now; what runs outside of any step is a reader."""
    return actors.get(Step.current, Actor(kind)) if Step.current else Actor(kind)
