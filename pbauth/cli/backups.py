"""``pbauth backup`` and ``pbauth restore``: all that a server keeps, in one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pbauth.audit import Audit
from pbauth.audit.file import AuditUnwritable, auditing
from pbauth.cli.running import GlobalOptions, operatorName
from pbauth.errors import StoreError
from pbauth.server.backup import backUp
from pbauth.server.backup import restore as putBack


@click.command()
@click.argument("file")
@click.pass_context
def backup(context: click.Context, file: str) -> None:
    """Write the accounts, the server's key and its certificate to FILE.

    A running server is not disturbed. Whoever can read FILE can pretend to be the server, and try
    out passwords: it is made for its owner only.
    """
    options = _local(context)
    with _explained(file), auditing(options.audit):
        Audit().exported(operatorName())
        backUp(options.state, options.accounts, file)
    click.echo(f"Wrote {file}. Keep it where nobody else can read it.")


@click.command()
@click.argument("file")
@click.option("--replace", is_flag=True, help="Replace all accounts that are there.")
@click.pass_context
def restore(context: click.Context, file: str, replace: bool) -> None:
    """Put back what pbauth backup wrote to FILE.

    A running server notices it within a second or two: it ends the sessions that are no longer
    allowed, and shows the restored key to new connections.
    """
    options = _local(context)
    if not os.path.exists(file):
        raise click.ClickException(f"There is no file {file}.")
    with _explained(file), auditing(options.audit):
        putBack(options.state, options.accounts, file, replace)
        Audit().restored(operatorName())
    click.echo(f"Restored {file}. A server that is running uses it from now on.")


def _local(context: click.Context) -> GlobalOptions:
    options: GlobalOptions = context.obj
    if options.remote is not None:
        raise click.UsageError("Run this where the accounts are, without --server.")
    return options


@contextmanager
def _explained(file: str) -> Iterator[None]:
    try:
        yield
    except (StoreError, AuditUnwritable) as error:
        said = str(error)
    except OSError as error:
        # What is named like a draft is where the backup was to be.
        name = str(error.filename or file)
        name = file if os.path.basename(name).startswith(".draft-") else name
        said = f"{name}: {error.strerror or error}."
    else:
        return
    raise click.ClickException(said)
