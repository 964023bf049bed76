"""What the operator does about analyses, from a shell: find, look at, run again, remove, check.

Never shows what a person wrote or was answered. Exit status 1 when anything asked for was not done.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from common.failures import Failure
from common.history import make_submissions, open_archive
from common.logs import start_logging
from common.qstash import DeadLetter, QStashRefused, QStashUnclear, Queue
from common.record import AnalysisRecord, Reason, Status, TransitionError
from common.setting_types import duration
from common.settings import ServiceSettings, SettingsError, load
from common.store import HistoryUnavailable, NotFound, StoreUnavailable, Unreadable, open_store
from operations.doctor import ALL_CHECKS, Fault, examine, make_clients
from operations.limits import LimitReached, day_of
from operations.settings import OperationsSettings

if TYPE_CHECKING:
    from operations.history.database import Archive

EVER = timedelta(days=36_500)
SAVED_AT_ONCE = 500
SECONDS_BETWEEN_REDRIVES = 0.2  # what failed together must not come back together
StorageReply = TypeVar("StorageReply")
HIDDEN = {"input", "result", "owner_hash", "claim_token"}


class Found(NamedTuple):
    """A record, and where it is: Redis, or the history alone."""

    record: AnalysisRecord
    where: str


class Failed(NamedTuple):
    """What is listed of a failed analysis; in this order, the oldest comes first."""

    finished_at: datetime
    request_id: str
    round: int
    code: str | None
    where: str


class CliContext:
    """All that the commands work with."""

    def __init__(self) -> None:
        self.is_complete = True  # whether all that was asked for could be told
        settings, self.options = _settings()
        self.store = open_store(settings)
        self.queue = Queue(settings)
        self.archive = open_archive(self.options)
        self.submissions = make_submissions(
            self.store, self.queue, settings, self.archive, limits=self.options, is_operator=True
        )

    def find(self, request_id: str) -> Found:
        """Raises: NotFound."""
        try:
            return Found(self.store.read(request_id), "Redis")
        except NotFound:
            if self.archive is None:
                raise
            return Found(self.archive.find(request_id), "history")

    def failed(self, code: str | None, after: datetime, before: datetime) -> list[Failed]:
        """The oldest first. Holds only what is listed of each, and of the rest nothing."""
        archived = self.ask_archive(lambda archive: archive.failed(code, after, before))
        found = {
            row.request_id: Failed(row.finished_at, row.request_id, row.round, row.code, "history")
            for row in archived
        }
        for record in self.every_record():
            found.pop(record.request_id, None)  # Redis decides
            if (
                record.failure
                and code in (None, record.failure)
                and record.finished_at
                and after <= record.finished_at <= before
            ):
                found[record.request_id] = Failed(
                    record.finished_at, record.request_id, record.round, record.failure, "Redis"
                )
        return sorted(found.values())

    def every_record(self) -> Iterator[AnalysisRecord]:
        """All in Redis that can be read; a warning if some can't."""
        unreadable: list[str] = []
        yield from self.store.every_record(unreadable)
        if unreadable:
            self.is_complete = False
            click.echo(f"{len(unreadable)} in Redis can't be read: see the log.", err=True)

    def ask_archive(self, ask: Callable[[Archive], Iterable[StorageReply]]) -> list[StorageReply]:
        """Ask the history, if there is one; a warning if it is away, as Redis knows the rest."""
        try:
            return list(ask(self.archive)) if self.archive else []
        except HistoryUnavailable as error:
            self.is_complete = False
            click.echo(f"The history does not answer: {error}", err=True)
            return []

    def dead_letters(self) -> dict[str, DeadLetter] | None:
        """What rests in QStash's dead-letter queue, by request id; None if it won't say."""
        try:
            return {letter.request_id: letter for letter in self.queue.dead_letters()}
        except (QStashRefused, QStashUnclear) as error:
            self.is_complete = False
            click.echo(f"QStash does not show its dead letters: {error}", err=True)
            return None

    def end(self) -> None:
        """Exit with status 1 if something that was asked for is not known."""
        if not self.is_complete:
            sys.exit(1)


class Commands(click.Group):
    """Tells what the world does wrong in a sentence."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (SettingsError, StoreUnavailable) as error:
            raise click.ClickException(str(error)) from None


def age(text: object) -> object:
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


commands = Commands(help=__doc__)
with_code = click.option("--code", type=click.Choice([code.value for code in Failure]))
with_ids = click.argument("request_ids", metavar="ID…", nargs=-1, required=True)


@commands.command()
@with_code
@click.option("--older-than", type=age, default=timedelta(0), help="2h, 3d, …")
@click.option("--newer-than", type=age, default=EVER, help="2h, 3d, …")
def failed(code: str | None, older_than: timedelta, newer_than: timedelta) -> None:
    """List the failed analyses: when, which, why, where they are kept."""
    desk = CliContext()
    letters, now = desk.dead_letters() or {}, desk.store.now()
    is_all = code is None and not older_than and newer_than == EVER
    for each in desk.failed(code, now - newer_than, now - older_than):
        letter = " dead-letter" if letters.pop(each.request_id, None) else ""
        click.echo(
            f"{each.finished_at:%Y-%m-%d %H:%M:%S}Z {each.request_id} "
            f"round={each.round} {each.code} {each.where}{letter}"
        )
    for request_id in letters if is_all and desk.is_complete else ():
        click.echo(f"{'-':20} {request_id} no failed record, only a dead-letter")
    desk.end()


@commands.command()
@click.argument("request_id", metavar="ID")
def show(request_id: str) -> None:
    """Show a record without its texts, where it is kept, and its message in the DLQ."""
    desk = CliContext()
    lines: list[str] = []
    try:
        record, where = desk.find(request_id)
        lines += [f"kept in: {where}", record.model_dump_json(exclude=HIDDEN, indent=2)]
    except NotFound:
        pass
    lines += desk.ask_archive(lambda archive: [_in_history(archive, request_id)])
    if letter := (desk.dead_letters() or {}).get(request_id):
        lines.append(
            f"dead letter: {letter.dlq_id} message={letter.message_id} "
            f"answered={letter.response_status}"
        )
    elif len(lines) < 2:
        raise click.ClickException(f"{request_id}: there is no such analysis.")
    click.echo("\n".join(lines))
    desk.end()


def _in_history(archive: Archive, request_id: str) -> str:
    try:
        archived = archive.find(request_id)
    except NotFound:
        return "history: not in it"
    return (
        f"history: {archived.status} round={archived.round} "
        f"finished={archived.finished_at} input={'kept' if archived.input else 'not kept'}"
    )


@commands.command()
@click.argument("request_ids", metavar="[ID…]", nargs=-1)
@with_code
@click.option("--dry-run", is_flag=True, help="Only tell what would be run.")
def redrive(request_ids: tuple[str, ...], code: str | None, dry_run: bool) -> None:
    """Run failed analyses again, at most 5 a second: these, or all that failed with a code."""
    if bool(request_ids) == bool(code):
        raise click.UsageError("Name ids, or a --code.")
    desk = CliContext()
    ids: Iterable[str] = request_ids
    if code:
        now = desk.store.now()
        ids = [each.request_id for each in desk.failed(code, now - EVER, now)]
    if not ids and desk.is_complete:
        click.echo(f"None that is kept has failed with {code}.", err=True)

    def run(request_id: str) -> str:
        if dry_run:
            record = desk.find(request_id).record
            record.reopen(now=desk.store.now(), delay=timedelta(0), deadline=timedelta(0))
            return f"would run round {record.round + 1}"
        time.sleep(SECONDS_BETWEEN_REDRIVES)
        record = desk.submissions.retry(request_id, "")
        if record.failure:
            raise click.ClickException(record.failure.sentence)
        return f"runs again, round {record.round}"

    _each(ids, run)
    desk.end()


@commands.command()
@with_ids
def cancel(request_ids: tuple[str, ...]) -> None:
    """Stop analyses that have not ended."""
    desk = CliContext()

    def stop(request_id: str) -> Status:
        if desk.find(request_id).where == "history":
            raise TransitionError(Reason.TERMINAL)
        return desk.submissions.cancel(request_id, "").status

    _each(request_ids, stop)


@commands.command()
@with_ids
def delete(request_ids: tuple[str, ...]) -> None:
    """Remove analyses for good, and what waits at QStash; a dead letter holds the id alone."""
    submissions = CliContext().submissions

    def remove(request_id: str) -> str:
        submissions.delete(request_id, "")
        return "deleted"

    _each(request_ids, remove)


@commands.command()
def stats() -> None:
    """Count the analyses in Redis and in the history, QStash's dead letters, and today's spend."""
    desk = CliContext()
    redis = Counter((each.status, each.failure) for each in desk.every_record())
    for (status, failure), number in sorted(redis.items(), key=str):
        click.echo(f"Redis        {number:7} {status} {failure or ''}".rstrip())
    for count in desk.ask_archive(lambda archive: archive.counts()):
        click.echo(f"history      {count.number:7} {count.status} {count.code or ''}".rstrip())
    letters = desk.dead_letters()
    click.echo(f"dead letters {'unknown' if letters is None else len(letters):>7}")
    analyses, tokens_in, tokens_out = desk.store.spent(day_of(desk.store.now()))
    if desk.options.daily_analyses:
        click.echo(f"today        {analyses:7} analyses")
    click.echo(f"today        {tokens_in:7} tokens in\ntoday        {tokens_out:7} tokens out")
    desk.end()


@commands.command()
def save() -> None:
    """Write what has ended and Redis still has into the history: after it was away, say."""
    desk = CliContext()
    if desk.archive is None:
        raise click.ClickException("There is no history: DATABASE_URL is not set.")
    ended = (record for record in desk.every_record() if record.status.is_terminal)
    saved = 0
    try:
        # Redis decides: a later state of one of these replaces what is written now, never back.
        while batch := list(islice(ended, SAVED_AT_ONCE)):
            desk.archive.write_many(batch)
            saved += len(batch)
    finally:
        click.echo(f"{saved} are in the history.")
    desk.end()


@commands.command()
def purge() -> None:
    """Remove from the history what is older than HISTORY_DAYS."""
    archive = open_archive(_settings()[1])
    if archive is None:
        raise click.ClickException("There is no history: DATABASE_URL is not set.")
    click.echo(f"{sum(iter(archive.purge, 0))} were removed.")


@commands.command()
def doctor() -> None:
    """Check all that is configured, with one smallest call of the model."""
    wrong = 0
    at = make_clients(*_settings())
    with closing(at.analyst):
        for found in examine(at, ALL_CHECKS):
            is_wrong = isinstance(found, Fault)
            wrong += is_wrong
            click.echo(f"{'WRONG' if is_wrong else 'ok   '} {found}", err=is_wrong)
    sys.exit(1 if wrong else 0)


def _settings() -> tuple[ServiceSettings, OperationsSettings]:
    """Raises: SettingsError."""
    settings, options = load(ServiceSettings, OperationsSettings)
    start_logging(settings)
    return settings, options


def _each(request_ids: Iterable[str], act: Callable[[str], object]) -> None:
    """Do it to each, tell what came of it, and go on when one is refused."""
    is_done = True
    for request_id in request_ids:
        try:
            click.echo(f"{request_id} {act(request_id)}")
        except NotFound:
            is_done = False
            click.echo(f"{request_id}: there is no such analysis.", err=True)
        except (TransitionError, LimitReached, Unreadable, click.ClickException) as refusal:
            is_done = False
            click.echo(f"{request_id}: not done: {str(refusal).removesuffix('.')}.", err=True)
    if not is_done:
        sys.exit(1)
