"""The process dies before or after any of its side effects, and the world goes on.

Each act is run again and again, and dies one side effect later each time until it survives, so
that a new side effect is tried by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import fakeredis
import pytest
import redis

from common.failures import Failure
from common.form import Form
from common.qstash import QStashUnclear
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status, TransitionError
from common.store import NotFound, Store
from common.submission import Submissions
from tests.fakes import ADA, ANALYSIS, BOB, DEADLINE, DELAY, ID, FakeAnalyst, FakeQueue
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, OutcomeKind, Worker

OWNER = "owner-token"
KEY = f"analysis:{{{ID}}}"


class Died(BaseException):
    """The process is gone: nothing catches this."""


class Life:
    """Counts side effects, and ends before or after the one it is told, from 0 on."""

    def __init__(self, last: int | None = None, *, after: bool = False) -> None:
        self._last, self._after = last, after
        self._count = 0

    def live(self, effect: Callable[[], Any]) -> Any:
        """Have a side effect. Raises: Died."""
        is_last, self._count = self._count == self._last, self._count + 1
        if is_last and not self._after:
            raise Died
        try:
            return effect()
        finally:
            if is_last:
                raise Died


class MortalPipeline(redis.client.Pipeline):
    """The same for what is sent together."""

    life: Life

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        replies: list[Any] = self.life.live(lambda: super(MortalPipeline, self).execute())
        return replies


class MortalRedis(fakeredis.FakeRedis):
    """A client whose every round trip is a moment to die; reads are, too."""

    life: Life

    def execute_command(self, *args: Any, **options: Any) -> Any:
        send: Callable[..., Any] = super().execute_command
        return self.life.live(lambda: send(*args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: object = None) -> MortalPipeline:
        pipeline = MortalPipeline(self.connection_pool, self.response_callbacks, transaction, None)
        pipeline.life = self.life
        return pipeline


class MortalQueue(FakeQueue):
    """QStash: what was published stays, whoever dies."""

    life: Life

    def publish(self, record: AnalysisRecord, *, now: datetime, is_first: bool = False) -> str:
        message_id: str = self.life.live(lambda: super(MortalQueue, self).publish(record, now=now))
        return message_id

    def cancel(self, message_id: str) -> None:
        self.life.live(lambda: super(MortalQueue, self).cancel(message_id))


class MortalAnalyst(FakeAnalyst):
    """A model whose every answer is another one."""

    life: Life
    first: AnalysisFailed | None = None  # what the first call comes to instead

    def analyse(self, form: Form, call_id: str) -> Answer:
        is_first = not self.calls
        answer = Answer(ANALYSIS, model=f"answer {len(self.calls)}")
        self.answers = [self.first if is_first and self.first else answer]
        given: Answer = self.life.live(lambda: super(MortalAnalyst, self).analyse(form, call_id))
        return given


class World:
    """Redis, QStash and OpenAI, which go on; `reborn` starts our process anew."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._redis = fakeredis.FakeServer()
        self.queue, self.analyst = MortalQueue(), MortalAnalyst()
        self.passed = timedelta(0)
        self.reborn(Life())

    def reborn(self, life: Life) -> None:
        self.client = MortalRedis(server=self._redis, decode_responses=True)
        self.client.set_response_callback("TIME", self._later)
        self.client.life = self.queue.life = self.analyst.life = life
        times, ttl = self._settings.times, self._settings.ttl
        self.store = Store(self.client, ttl=ttl, clock=self._now)
        self.submissions = Submissions(self.store, self.queue, self._settings, clock=self._now)
        self.worker = Worker(self.store, self.analyst, times)

    def _later(self, reply: list[str], **_: object) -> tuple[int, int]:
        return int(reply[0]) + int(self.passed.total_seconds()), int(reply[1])

    def _now(self) -> datetime:
        return datetime.now().astimezone() + self.passed

    def let_pass(self, time: timedelta) -> None:
        self.passed += time

    @property
    def stored(self) -> AnalysisRecord | None:
        raw = self.client.get(KEY)
        return None if raw is None else AnalysisRecord.model_validate_json(str(raw))

    def deliver(self) -> None:
        """QStash delivers every message that was not answered with success, often enough."""
        for number in sorted({number for _, number in self.queue.published}):
            for _ in range(4):
                self.let_pass(DELAY)
                outcome = self.worker.process(Delivery(request_id=ID, round=number))
                if outcome.kind is not OutcomeKind.RETRY:
                    break

    def poll(self) -> None:
        """The person looks, finds nothing to have been published for a while, and looks again."""
        with suppress(NotFound):
            self.submissions.look_up(ID)
            self.let_pass(timedelta(seconds=16))
            self.submissions.look_up(ID)


def submit(world: World) -> None:
    world.submissions.submit(ADA, request_id=ID, owner_token=OWNER)


def process(world: World) -> None:
    world.worker.process(Delivery(request_id=ID, round=1))


def process_in_vain(world: World) -> None:
    world.analyst.first = AnalysisFailed(Failure.MODEL_UNAVAILABLE, "HTTP 503")
    process(world)


def edit(world: World) -> None:
    world.submissions.edit(ID, OWNER, BOB)


def call_back(world: World) -> None:
    world.worker.give_up(Delivery(request_id=ID, round=1))


def nothing(world: World) -> None:
    pass


def submitted(world: World) -> None:
    submit(world)
    world.let_pass(DELAY)


def failed(world: World) -> None:
    submitted(world)
    call_back(world)


def stored_alone(world: World) -> None:
    """The record is there, and its message is not."""
    world.queue.trouble = QStashUnclear("away")
    submit(world)
    world.queue.trouble = None
    world.let_pass(timedelta(seconds=16))


class Act(NamedTuple):
    """What has happened before, what is interrupted, and the calls it takes if nobody dies."""

    before: Callable[[World], object]
    act: Callable[[World], object]
    calls: int = 1


ACTS = {
    "submit": Act(nothing, submit),
    "look up and publish": Act(stored_alone, lambda world: world.submissions.look_up(ID)),
    "delivery": Act(submitted, process),
    "delivery in vain": Act(submitted, process_in_vain, calls=2),
    "failure callback": Act(submitted, call_back),
    "edit": Act(submitted, edit),
    "cancel": Act(submitted, lambda world: world.submissions.cancel(ID, OWNER)),
    "retry": Act(failed, lambda world: world.submissions.retry(ID, OWNER)),
    "delete": Act(submitted, lambda world: world.submissions.delete(ID, OWNER)),
}


def do_again(world: World, act: Callable[[World], object]) -> None:
    """The person, or QStash, does it once more; that it is done already is no surprise."""
    with suppress(TransitionError, NotFound):
        act(world)


# How the world goes on; the deadline comes last in any case.
GOES_ON = {
    "it is done again, and QStash delivers": (True, False, True),
    "the person polls, and QStash delivers": (False, True, True),
    "QStash delivers": (False, False, True),
    "nobody comes before the deadline": (False, False, False),
}


class Death(NamedTuple):
    """A world in which our process has just died."""

    world: World
    stored: AnalysisRecord | None
    paid: int


def deaths(settings: ServiceSettings, name: str) -> Iterator[Death]:
    """Die at every moment of an act, before and after each side effect."""
    before, act, _ = ACTS[name]
    for after in (False, True):
        for last in range(100):
            world = World(settings)
            before(world)
            world.reborn(Life(last, after=after))
            try:
                act(world)
            except Died:
                world.reborn(Life())
                yield Death(world, world.stored, len(world.analyst.calls))
            else:
                break


@pytest.mark.parametrize(
    ("is_done_again", "is_polled", "is_delivered"), GOES_ON.values(), ids=GOES_ON
)
@pytest.mark.parametrize("name", ACTS)
def test_whenever_the_process_dies_the_analysis_ends_once(
    settings: ServiceSettings, name: str, is_done_again: bool, is_polled: bool, is_delivered: bool
) -> None:
    count = 0
    for world, at_death, paid in deaths(settings, name):
        count += 1

        if is_done_again:
            do_again(world, ACTS[name].act)
        if is_polled:
            world.poll()
        if is_delivered:
            world.deliver()
        ended = world.stored
        world.let_pass(DELAY + 2 * DEADLINE)
        world.poll()
        world.deliver()

        stored = world.stored
        # After the answer and before it is stored: the one point that costs a call more.
        was_paid_in_vain = paid and at_death and at_death.status is Status.PROCESSING
        most_calls = ACTS[name].calls + bool(was_paid_in_vain)
        assert len(world.analyst.calls) <= most_calls
        assert len(set(world.analyst.call_ids)) == len(world.analyst.call_ids)
        if stored is None:
            assert name in ("submit", "delete")
            assert world.client.keys("*") == []
            assert world.analyst.calls == []
            continue
        assert stored.status.is_terminal
        if ended and ended.status.is_terminal:
            assert stored == ended
        if at_death and at_death.status.is_terminal and name != "retry":
            assert stored == at_death
        if stored.status is Status.CANCELLED:
            assert world.analyst.calls == []
        if stored.status is Status.COMPLETED:
            assert stored.model in {f"answer {number}" for number in range(most_calls)}
        assert world.client.pttl(KEY) > 0

    assert count >= 4


WITH_AN_ANSWER = ["submit", "look up and publish", "delivery", "delivery in vain", "edit", "retry"]


@pytest.mark.parametrize("name", WITH_AN_ANSWER)
def test_whoever_comes_back_after_a_death_gets_an_answer(
    settings: ServiceSettings, name: str
) -> None:
    for world, _, _ in deaths(settings, name):
        do_again(world, ACTS[name].act)
        world.poll()
        world.deliver()

        stored = world.stored
        assert stored is not None
        assert stored.status is Status.COMPLETED
        assert stored.model == f"answer {len(world.analyst.calls) - 1}"


def test_a_change_whose_process_died_is_answered_once_it_is_made_again(
    settings: ServiceSettings,
) -> None:
    for world, _, _ in deaths(settings, "edit"):
        edit(world)
        world.deliver()

        assert world.analyst.calls == [BOB]
