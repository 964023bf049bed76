"""The operator's commands that change the history: fill it, empty it, bring its tables forward."""

from __future__ import annotations

from itertools import islice

import click

from common.ports import NoHistory
from operations.cli_context import CliContext

SAVED_AT_ONCE = 500
TOLD_EVERY = 10_000


@click.command()
def save() -> None:
    """Write what has ended and Redis still has into the history: after it was away, say.

    May be cut off at any time, and run again: what is there already is not changed.
    """
    context = CliContext()
    context.database_to_change()
    history = context.history
    assert not isinstance(history, NoHistory), "there is a database"
    ended = (record for record in context.every_record() if record.status.is_terminal)
    saved = 0
    try:
        # Redis decides: a later state of one of these replaces what is written now, never back.
        while batch := list(islice(ended, SAVED_AT_ONCE)):
            history.save(batch)
            saved += len(batch)
            if saved % TOLD_EVERY == 0:
                click.echo(f"{saved} so far …", err=True)
    except BaseException:
        click.echo(f"{saved} were saved, and not the rest: run it again.")
        raise
    click.echo(f"{saved} are in the history.")
    context.end()


@click.command()
def purge() -> None:
    """Remove from the history what is older than HISTORY_DAYS. Have it run every hour."""
    database = CliContext().database_to_change()
    removed = 0
    try:
        for number in database.reports.purge_all():
            removed += number
            if removed % TOLD_EVERY == 0:
                click.echo(f"{removed} so far …", err=True)
    finally:
        click.echo(f"{removed} were removed.")


@click.command()
def upgrade() -> None:
    """Make the history's tables those of this version, and its indexes, while others write."""
    database = CliContext().database_to_change()
    database.reports.build_indexes(lambda step: click.echo(f"{step} …", err=True))
    click.echo("The history is up to date.")


COMMANDS = [save, purge, upgrade]
