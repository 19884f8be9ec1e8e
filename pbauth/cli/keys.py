"""``pbauth key``: who may get at which perspective."""

from __future__ import annotations

import click

from pbauth.cli.running import administer


@click.group()
def key() -> None:
    """Grant, revoke and list keys to perspectives."""


@key.command("grant")
@click.argument("name")
@click.argument("service")
@click.argument("perspective", required=False)
@click.pass_context
def grantKey(context: click.Context, name: str, service: str, perspective: str | None) -> None:
    """Give a user the key to a perspective of a service; by default to their own."""
    wanted = name if perspective is None else perspective
    administer(context, lambda admin: admin.grantKey(name, service, wanted))
    click.echo(f"{name} holds the key to {wanted} of service {service}.")


@key.command("revoke")
@click.argument("name")
@click.argument("service")
@click.argument("perspective", required=False)
@click.pass_context
def revokeKey(context: click.Context, name: str, service: str, perspective: str | None) -> None:
    """Take a key from a user."""
    wanted = name if perspective is None else perspective
    administer(context, lambda admin: admin.revokeKey(name, service, wanted))
    click.echo(f"{name} no longer holds the key to {wanted} of service {service}.")


@key.command("list")
@click.argument("name")
@click.pass_context
def listKeys(context: click.Context, name: str) -> None:
    """List the keys of a user: service and perspective."""
    for service, perspective in administer(context, lambda admin: admin.listKeys(name)):
        click.echo(f"{service}\t{perspective}")
