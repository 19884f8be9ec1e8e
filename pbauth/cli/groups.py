"""``pbauth group``: groups of users, and who belongs to them."""

from __future__ import annotations

from typing import Any

import click

from pbauth.cli.completion import completeGroups, completeUsers
from pbauth.cli.running import administer
from pbauth.cli.tables import Listing, jsonOption

# How many groups are read at once.
_PAGE = 1_000


@click.group()
def group() -> None:
    """Add and remove groups of users, and change who is in them.

    To let the members of a group use a perspective: pbauth key grant --group GROUP SERVICE
    """


@group.command("add")
@click.argument("group")
@click.pass_context
def addGroup(context: click.Context, group: str) -> None:
    """Add a group."""
    administer(context, lambda admin: admin.addGroup(group))
    click.echo(f"Added the group {group}.")


@group.command("remove")
@click.argument("group", shell_complete=completeGroups)
@click.pass_context
def removeGroup(context: click.Context, group: str) -> None:
    """Remove a group and its keys; its members stay users."""
    administer(context, lambda admin: admin.removeGroup(group))
    click.echo(f"Removed the group {group}.")


@group.command("list")
@jsonOption
@click.pass_context
def listGroups(context: click.Context, asJSON: bool) -> None:
    """List the groups."""
    listing = Listing(("name",), lambda name: (name,), asJSON)

    async def tell(admin: Any) -> None:
        after = ""
        while page := await admin.listGroups(after, _PAGE):
            listing.add((name,) for name in page)
            after = page[-1]

    administer(context, tell, reading=True)
    listing.end("There are no groups yet. Add one: pbauth group add GROUP")


@group.command("join")
@click.argument("group", shell_complete=completeGroups)
@click.argument("name", shell_complete=completeUsers)
@click.pass_context
def joinGroup(context: click.Context, group: str, name: str) -> None:
    """Make a user a member of a group."""
    administer(context, lambda admin: admin.joinGroup(group, name))
    click.echo(f"{name} is a member of {group}.")


@group.command("leave")
@click.argument("group", shell_complete=completeGroups)
@click.argument("name", shell_complete=completeUsers)
@click.pass_context
def leaveGroup(context: click.Context, group: str, name: str) -> None:
    """Take a user out of a group; sessions that rest on it end."""
    administer(context, lambda admin: admin.leaveGroup(group, name))
    click.echo(f"{name} is no longer a member of {group}.")


@group.command("members")
@click.argument("group", shell_complete=completeGroups)
@jsonOption
@click.pass_context
def listMembers(context: click.Context, group: str, asJSON: bool) -> None:
    """List the members of a group."""
    listing = Listing(("name",), lambda name: (name,), asJSON)
    members = administer(context, lambda admin: admin.listMembers(group), reading=True)
    listing.add((name,) for name in members)
    listing.end(f"Nobody is in {group}. Add a user: pbauth group join {group} NAME")
