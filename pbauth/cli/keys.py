"""``pbauth key``: which user holds the key to which perspective."""

from __future__ import annotations

import click

from pbauth.cli.completion import completeServices, completeUsers
from pbauth.cli.running import administer
from pbauth.cli.tables import Listing, jsonOption


@click.group()
def key() -> None:
    """Grant, revoke and list keys to perspectives."""


@key.command("grant")
@click.argument("name", shell_complete=completeUsers)
@click.argument("service", shell_complete=completeServices)
@click.argument("perspective", required=False)
@click.pass_context
def grantKey(context: click.Context, name: str, service: str, perspective: str | None) -> None:
    """Grant a user the key to a perspective of a service; by default, their own."""
    wanted = name if perspective is None else perspective
    administer(context, lambda admin: admin.grantKey(name, service, wanted))
    click.echo(f"{name} holds the key to {wanted} of service {service}.")


@key.command("revoke")
@click.argument("name", shell_complete=completeUsers)
@click.argument("service", shell_complete=completeServices)
@click.argument("perspective", required=False)
@click.pass_context
def revokeKey(context: click.Context, name: str, service: str, perspective: str | None) -> None:
    """Revoke a key of a user."""
    wanted = name if perspective is None else perspective
    administer(context, lambda admin: admin.revokeKey(name, service, wanted))
    click.echo(f"{name} no longer holds the key to {wanted} of service {service}.")


@key.command("list")
@click.argument("name", shell_complete=completeUsers)
@jsonOption
@click.pass_context
def listKeys(context: click.Context, name: str, asJSON: bool) -> None:
    """List the keys of a user: service and perspective."""
    listing = Listing(("service", "perspective"), lambda *cells: cells, asJSON)
    listing.add(administer(context, lambda admin: admin.listKeys(name), reading=True))
    listing.end()
