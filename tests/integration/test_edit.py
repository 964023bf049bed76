"""A change of what was written, and the attempt that would send it, at the same moment.

On the real server.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import redis

from common.form import Form
from common.record import AnalysisRecord
from common.states import Status, TransitionError
from common.submission import Submissions
from tests.conftest import make_settings, make_store
from tests.fakes import ADA, ANALYSIS, BOB, FakeAnalyst, FakeQueue
from tests.monitor import monitored
from webhook_service.worker import Delivery, Worker

OWNER = "owner-token"
RACES = 150
SETTINGS = make_settings(qstash_delay="0s")
EVE = ADA.model_copy(update={"name": "Eve"})


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Run each in a thread of its own, from the same moment on; give results and refusals."""
    start = Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        start.wait()
        try:
            return act()
        except TransitionError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


class Race:
    """One request that is due, whoever changes it, and the delivery of its message."""

    def __init__(self, client: redis.Redis, number: int) -> None:
        self.request_id = f"{number:032x}"
        self.store, self.analyst = make_store(client), FakeAnalyst()
        self.person = Submissions(self.store, FakeQueue(), SETTINGS)
        self.worker = Worker(self.store, self.analyst, SETTINGS.times)
        self.person.submit(ADA, request_id=self.request_id, owner_token=OWNER)

    def edit(self, form: Form) -> AnalysisRecord:
        return self.person.edit(self.request_id, OWNER, form)

    def deliver(self) -> object:
        return self.worker.process(Delivery(request_id=self.request_id, round=1))


def test_either_the_change_is_refused_or_the_model_is_asked_about_it(
    real_redis: redis.Redis,
) -> None:
    seen = Counter[tuple[bool, Form]]()

    for number in range(RACES):
        race = Race(real_redis, number)
        edited, _ = at_once(partial(race.edit, BOB), race.deliver)
        (asked,) = race.analyst.calls
        seen[isinstance(edited, TransitionError), asked] += 1
        assert race.store.read(race.request_id).result == ANALYSIS

    assert set(seen) == {(True, ADA), (False, BOB)}, "each was the first at times"


def test_of_two_changes_at_once_the_model_is_asked_about_one_that_was_confirmed(
    real_redis: redis.Redis,
) -> None:
    for number in range(RACES // 3):
        race = Race(real_redis, number)
        *edited, _ = at_once(partial(race.edit, BOB), partial(race.edit, EVE), race.deliver)
        confirmed = [each.input for each in edited if isinstance(each, AnalysisRecord)]

        assert race.analyst.calls in [[form] for form in confirmed or [ADA]]


def test_a_change_costs_three_commands_and_what_is_refused_two(real_redis: redis.Redis) -> None:
    race = Race(real_redis, 0)
    race.edit(BOB)  # loads the script

    with monitored(real_redis) as sent:
        race.edit(EVE)
        changed = sent()
        race.edit(EVE)
        again = sent()

    assert (changed, again) == (["GET", "TIME", "EVALSHA"], ["GET", "TIME"])
    race.deliver()
    assert race.store.read(race.request_id).status is Status.COMPLETED
