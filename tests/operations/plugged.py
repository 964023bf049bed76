"""What a person and a delivery do with the options plugged in, each as in a process of its own."""

from collections.abc import Mapping

from common.options import Options, plug_in
from common.record import AnalysisRecord
from common.store import Store
from common.submission import Submissions
from operations.limits import RedisLimits
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import ADA, LEASE, FakeAnalyst, FakeQueue, with_fields
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, Worker

OWNER = "owner-token"
EVERY_LIMIT = {
    "visitor_submissions_per_hour": 1000,
    "submissions_per_hour": 1000,
    "most_waiting": 1000,
    "qstash_parallelism": 1000,
    "daily_analyses": 1000,
    "daily_tokens": 1000,
}
Setting = int | str


def split(settings: Mapping[str, Setting]) -> tuple[dict[str, Setting], dict[str, Setting]]:
    """Tell the core's settings from the options'."""
    core = {name: value for name, value in settings.items() if name.startswith("qstash")}
    return core, {name: value for name, value in settings.items() if name not in core}


def limits_with(store: Store, **limits: Setting) -> RedisLimits:
    core, own = split(limits)
    return RedisLimits(make_settings(**core), make_options(**own), store)


def plugged(store: Store, limits: Mapping[str, Setting]) -> tuple[Store, Options]:
    """Another store on the same server, with the options on its events."""
    core, own = split(limits)
    its_store = make_store(store.connection.client)
    return its_store, plug_in("page", make_settings(**core), make_options(**own), its_store)


def open_page(store: Store, queue: FakeQueue, limits: Mapping[str, Setting]) -> Submissions:
    its_store, options = plugged(store, limits)
    settings = make_settings(**split(limits)[0])
    return Submissions(its_store, queue, settings, limits=options.limits)


def submissions_with(store: Store, **limits: Setting) -> Submissions:
    return open_page(store, FakeQueue(), limits)


def submit(submissions: Submissions, number: int, visitor: str | None = None) -> AnalysisRecord:
    return submissions.submit(ADA, request_id=f"{number:032x}", owner_token=OWNER, visitor=visitor)


def fail(store: Store, number: int) -> None:
    store.update(f"{number:032x}", lambda r, now: r.give_up(of_round=r.round, now=now, lease=LEASE))


def deliver(store: Store, number: int, answer: Answer | AnalysisFailed) -> None:
    """Run an attempt, once it is due."""
    request_id = f"{number:032x}"
    store.update(request_id, lambda r, now: with_fields(r, next_attempt_at=now))
    worker = Worker(plugged(store, {})[0], FakeAnalyst(answer), make_settings().times)
    worker.process(Delivery(request_id=request_id, round=1))
