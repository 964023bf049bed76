"""What the operator does about analyses, from a shell: find, look at, run again, remove, check.

Never shows what a person wrote or was answered. Exit status 1 when anything asked for was not done.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from common.connection import StoreUnavailable
from common.environment import SettingsError
from common.failures import Failure
from common.ports import LimitReached
from common.setting_types import duration
from common.states import Reason, Status, TransitionError
from common.store import NotFound
from common.versions import Unreadable
from operations import cli_history
from operations.cli_context import EVER, CliContext, Wanted, load_settings
from operations.statistics import day_of

if TYPE_CHECKING:
    from common.record import AnalysisRecord
    from operations.history.database import Database

SECONDS_BETWEEN_REDRIVES = 0.2  # what failed together must not come back together
HIDDEN = {"input", "result", "owner_hash", "claim_token"}


class Commands(click.Group):
    """Tells what the world does wrong in a sentence."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (SettingsError, StoreUnavailable, Unreadable) as error:
            raise click.ClickException(str(error)) from None


def age(text: object) -> object:
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


commands = Commands(help=__doc__)
for command in cli_history.COMMANDS:
    commands.add_command(command)
with_code = click.option("--code", type=click.Choice([code.value for code in Failure]))
with_ids = click.argument("request_ids", metavar="ID…", nargs=-1, required=True)


def with_times(command: Callable[..., None]) -> Callable[..., None]:
    """Add what says when they failed, and how many of them are meant."""
    for option in (
        click.option("--limit", type=click.IntRange(1), help="The oldest so many."),
        click.option("--newer-than", type=age, default=EVER, help="2h, 3d, …"),
        click.option("--older-than", type=age, default=timedelta(0), help="2h, 3d, …"),
    ):
        command = option(command)
    return command


@commands.command()
@with_code
@with_times
def failed(
    code: str | None, older_than: timedelta, newer_than: timedelta, limit: int | None
) -> None:
    """List the failed analyses: when, which, why, where they are kept."""
    context = CliContext()
    letters = context.dead_letters(lambda found: {each.request_id for each in found}) or set()
    now = context.store.now()
    is_all = code is None and not older_than and newer_than == EVER and limit is None
    for each in context.failed(Wanted(code, now - newer_than, now - older_than), limit):
        letter = " dead-letter" if each.request_id in letters else ""
        letters.discard(each.request_id)
        click.echo(
            f"{each.finished_at:%Y-%m-%d %H:%M:%S}Z {each.request_id} "
            f"round={each.round} {each.code} {each.where}{letter}"
        )
    for request_id in sorted(letters) if is_all and context.is_complete else ():
        click.echo(f"{'-':20} {request_id} no failed record, only a dead-letter")
    context.end()


@commands.command()
@click.argument("request_id", metavar="ID")
def show(request_id: str) -> None:
    """Show a record without its texts, where it is kept, and its message in the DLQ."""
    context = CliContext()
    lines: list[str] = []
    try:
        record, where = context.find(request_id)
        other = ", and made for another task" if record.is_of_other_task else ""
        lines += [f"kept in: {where}{other}", _shown(record)]
    except NotFound:
        pass
    if in_history := context.ask_database(lambda database: _in_history(database, request_id)):
        lines.append(in_history)
    if letter := context.dead_letters(lambda found: next(found, None), request_id):
        lines.append(
            f"dead letter: {letter.dlq_id} message={letter.message_id} "
            f"answered={letter.response_status}"
        )
    elif len(lines) < 2 and context.is_complete:
        raise click.ClickException(f"{request_id}: there is no such analysis.")
    click.echo("\n".join(lines))
    context.end()


def _shown(record: AnalysisRecord) -> str:
    """All but texts and secrets; of a newer version's fields nobody knows what they are."""
    return record.model_dump_json(exclude=HIDDEN | (record.model_extra or {}).keys(), indent=2)


def _in_history(database: Database, request_id: str) -> str:
    try:
        archived = database.find(request_id)
    except NotFound:
        return "history: not in it"
    return (
        f"history: {archived.status} round={archived.round} "
        f"finished={archived.finished_at} input={'kept' if archived.input else 'not kept'}"
    )


@commands.command()
@click.argument("request_ids", metavar="[ID…]", nargs=-1)
@with_code
@with_times
@click.option("--dry-run", is_flag=True, help="Only tell what would be run.")
def redrive(
    request_ids: tuple[str, ...],
    code: str | None,
    older_than: timedelta,
    newer_than: timedelta,
    limit: int | None,
    dry_run: bool,
) -> None:
    """Run failed analyses again, at most 5 a second: these, or all that failed with a code."""
    is_any_time = not older_than and newer_than == EVER
    if bool(request_ids) == bool(code):
        raise click.UsageError("Name ids, or a --code.")
    if request_ids and (limit or not is_any_time):
        raise click.UsageError("--older-than, --newer-than and --limit go with a --code.")
    context = CliContext()
    ids: Iterable[str] = request_ids
    if code:
        now = context.store.now()
        wanted = Wanted(code, now - newer_than, now - older_than)
        ids = (each.request_id for each in context.failed(wanted, limit))

    def run(request_id: str) -> str:
        if dry_run:
            record = context.find(request_id).record
            record.reopen(now=context.store.now(), delay=timedelta(0), deadline=timedelta(0))
            return f"would run round {record.round + 1}"
        time.sleep(SECONDS_BETWEEN_REDRIVES)
        record = context.retry(request_id)
        if record.failure:
            raise click.ClickException(record.failure.sentence)
        return f"runs again, round {record.round}"

    if not _each(ids, run) and context.is_complete:
        then = "" if is_any_time else " in that time"
        click.echo(f"None that is kept has failed with {code}{then}.", err=True)
    context.end()


@commands.command()
@with_ids
def cancel(request_ids: tuple[str, ...]) -> None:
    """Stop analyses that have not ended."""
    context = CliContext()

    def stop(request_id: str) -> Status:
        if context.find(request_id).where == "history":
            raise TransitionError(Reason.TERMINAL)
        return context.submissions.cancel(request_id, "").status

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
    context = CliContext()
    redis = Counter((each.status, each.failure) for each in context.every_record())
    for (status, failure), number in sorted(redis.items(), key=str):
        click.echo(f"Redis        {number:7} {status} {failure or ''}".rstrip())
    _tell_history(context)
    letters = context.dead_letters(lambda found: sum(1 for _ in found))
    click.echo(f"dead letters {'unknown' if letters is None else letters:>7}")
    analyses, tokens_in, tokens_out = context.statistics.spent(day_of(context.store.now()))
    if context.options.daily_analyses:
        click.echo(f"today        {analyses:7} analyses")
    click.echo(f"today        {tokens_in:7} tokens in\ntoday        {tokens_out:7} tokens out")
    context.end()


def _tell_history(context: CliContext) -> None:
    if context.database is None:
        return
    counts = context.ask_database(lambda database: database.reports.counts())
    for count in counts or ():
        click.echo(f"history      {count.number:7} {count.status} {count.code or ''}".rstrip())
    if counts is None:
        click.echo("history      unknown")
        return
    for remark in context.ask_database(lambda database: database.reports.remarks()) or ():
        click.echo(f"The history: {remark}.", err=True)


@commands.command()
def doctor() -> None:
    """Check all that is configured, with one smallest call of the model."""
    from operations.doctor import ALL_CHECKS, Fault, examine, make_clients  # imports openai: 1 s

    wrong = 0
    at = make_clients(*load_settings())
    with closing(at.analyst):
        for found in examine(at, ALL_CHECKS):
            is_wrong = isinstance(found, Fault)
            wrong += is_wrong
            click.echo(f"{'WRONG' if is_wrong else 'ok   '} {found}", err=is_wrong)
    sys.exit(1 if wrong else 0)


def _each(request_ids: Iterable[str], action: Callable[[str], object]) -> int:
    """Do it to each, tell what came of it, and go on when one is refused; how many they were."""
    is_done, number = True, 0
    for request_id in request_ids:
        number += 1
        try:
            click.echo(f"{request_id} {action(request_id)}")
        except NotFound:
            is_done = False
            click.echo(f"{request_id}: there is no such analysis.", err=True)
        except (TransitionError, LimitReached, Unreadable, click.ClickException) as refusal:
            is_done = False
            click.echo(f"{request_id}: not done: {str(refusal).removesuffix('.')}.", err=True)
    if not is_done:
        sys.exit(1)
    return number
