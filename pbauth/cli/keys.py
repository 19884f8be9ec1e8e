"""``pbauth key``: which user, and which group, holds the key to which perspective."""

from __future__ import annotations

from typing import Any

import click

from pbauth.cli.completion import completeGroups, completeServices, completeUsers
from pbauth.cli.running import administer
from pbauth.cli.tables import Listing, jsonOption
from pbauth.names import OWN

_groupOption = click.option(
    "--group",
    metavar="GROUP",
    shell_complete=completeGroups,
    help="The key is one of this group: leave out NAME.",
)


@click.group()
def key() -> None:
    """Grant, revoke and list keys to perspectives.

    PERSPECTIVE may be '*', any perspective of the service, or '{name}', the one that is named like
    the user.
    """


def _keyOf(group: str | None, words: tuple[str, ...]) -> tuple[str, str, str]:
    """Return who holds a key, its service, and its perspective; by default, their own."""
    if group is not None:
        words = (group, *words)
    if not 2 <= len(words) <= 3:
        wanted = "NAME SERVICE [PERSPECTIVE]" if group is None else "SERVICE [PERSPECTIVE]"
        raise click.UsageError(f"The arguments are: {wanted}")
    holder, service, *more = words
    own = OWN if group is not None else holder
    return holder, service, more[0] if more else own


@key.command("grant")
@_groupOption
@click.argument("name", shell_complete=completeUsers)
@click.argument("service", shell_complete=completeServices, required=False)
@click.argument("perspective", required=False)
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="The key is good for this method. May be given more than once; by default, for all.",
)
@click.pass_context
def grantKey(
    context: click.Context,
    group: str | None,
    name: str,
    service: str | None,
    perspective: str | None,
    methods: tuple[str, ...],
) -> None:
    """Grant a user the key to a perspective of a service; by default, their own.

    With --group, grant it to all members of a group: pbauth key grant --group GROUP SERVICE
    """
    holder, of, wanted = _keyOf(group, _given(name, service, perspective))
    if group is None:
        more = (methods,) if methods else ()
        administer(context, lambda admin: admin.grantKey(holder, of, wanted, *more))
    elif methods:
        raise click.UsageError("The keys of a group are good for all methods.")
    else:
        administer(context, lambda admin: admin.grantGroupKey(holder, of, wanted))
    who = holder if group is None else f"The group {holder}"
    good = f", for {', '.join(methods)}" if methods else ""
    click.echo(f"{who} holds the key to {wanted} of service {of}{good}.")


@key.command("revoke")
@_groupOption
@click.argument("name", shell_complete=completeUsers)
@click.argument("service", shell_complete=completeServices, required=False)
@click.argument("perspective", required=False)
@click.pass_context
def revokeKey(
    context: click.Context,
    group: str | None,
    name: str,
    service: str | None,
    perspective: str | None,
) -> None:
    """Revoke a key of a user, or of a group."""
    holder, of, wanted = _keyOf(group, _given(name, service, perspective))
    if group is None:
        administer(context, lambda admin: admin.revokeKey(holder, of, wanted))
    else:
        administer(context, lambda admin: admin.revokeGroupKey(holder, of, wanted))
    who = holder if group is None else f"The group {holder}"
    click.echo(f"{who} no longer holds the key to {wanted} of service {of}.")


def _given(*words: str | None) -> tuple[str, ...]:
    return tuple(word for word in words if word is not None)


@key.command("list")
@_groupOption
@click.argument("name", shell_complete=completeUsers, required=False)
@jsonOption
@click.pass_context
def listKeys(context: click.Context, group: str | None, name: str | None, asJSON: bool) -> None:
    """List the keys of a user, or of a group: service and perspective."""
    if (group is None) is (name is None):
        raise click.UsageError("Give NAME, or --group GROUP.")
    columns: tuple[str, ...] = ("service", "perspective")
    keys: list[tuple[Any, ...]]
    if group is not None:
        keys = administer(context, lambda admin: admin.groupKeys(group), reading=True)
    else:
        record = administer(context, lambda admin: admin.showUser(name), reading=True)
        keys = sorted(record.keys)
        if record.methods:
            columns = (*columns, "methods")
            keys = [(*key, sorted(record.methodsOf(key) or ())) for key in keys]
    listing = Listing(columns, lambda *cells: (*cells[:2], *map(",".join, cells[2:])), asJSON)
    listing.add(keys)
    listing.end()
