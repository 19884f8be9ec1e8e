"""``pbauth session``: the live sessions of a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from typing import Any

import click

from pbauth.cli.running import GlobalOptions, administer
from pbauth.cli.tables import Listing, jsonOption
from pbauth.interfaces import ISessionAdministration


@click.group()
@click.pass_context
def session(context: click.Context) -> None:
    """List and end the live sessions of a server. Needs --server."""
    options: GlobalOptions = context.obj
    if options.remote is None:
        raise click.UsageError(
            "Only a running server has sessions. Use: pbauth --server ENDPOINT session ..."
        )


@session.command("list")
@jsonOption
@click.pass_context
def listSessions(context: click.Context, asJSON: bool) -> None:
    """List the sessions: id, user, service, perspective, address, and start (UTC).

    Of all servers that share a PostgreSQL database; otherwise of the one that answers.
    """

    def row(id: str, name: str, service: str, perspective: str, peer: str, since: float) -> Any:
        return id, name, service, perspective, peer, _moment(since)

    listing = Listing(
        ("session", "user", "service", "perspective", "peer", "since"),
        lambda *cells: cells,
        asJSON,
    )
    sessions, unheard = administer(context, _asked(lambda admin: admin.listSessions()))
    listing.add(row(*each) for each in sorted(sessions, key=lambda each: (each[1:4], each[5])))
    listing.end("Nobody is attached.")
    _sayUnheard(unheard)


def _asked(operation: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Make an operation also return how many servers could not be heard."""

    async def both(admin: ISessionAdministration) -> tuple[Any, int | None]:
        return await operation(admin), await admin.unheardServers()

    return both


def _sayUnheard(servers: int | None) -> None:
    if servers is None:
        click.echo(
            "This covers one server only: it can't ask others that may share its accounts.",
            err=True,
        )
    elif servers:
        click.echo(
            f"Without those of {servers} other server{'' if servers == 1 else 's'}, which did not "
            "answer.",
            err=True,
        )


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        # It is the server's clock.
        return ""


@session.command("end")
@click.argument("session", required=False)
@click.option(
    "--user",
    metavar="NAME",
    help="End all sessions of this user (except this one, if it is yours).",
)
@click.pass_context
def endSession(context: click.Context, session: str | None, user: str | None) -> None:
    """End a session by its id, or all sessions of a user. To keep a user out, use user lock.

    On all servers that share a PostgreSQL database; otherwise on the one that answers.
    """
    if (session is None) == (user is None):
        raise click.UsageError("Give the id of a session, or --user NAME.")
    if user is not None:
        ended, unheard = administer(context, _asked(lambda admin: admin.endSessions(user)))
        click.echo(f"Ended {ended} session{'' if ended == 1 else 's'} of {user}.")
        _sayUnheard(unheard)
    else:
        administer(context, lambda admin: admin.endSession(session))
        click.echo(f"Ended {session}.")
