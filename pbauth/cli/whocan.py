"""``pbauth who-can``: who holds a key to a service."""

from __future__ import annotations

import click

from pbauth.cli.completion import completeServices
from pbauth.cli.running import administer
from pbauth.cli.tables import Listing, jsonOption


@click.command("who-can")
@click.argument("service", shell_complete=completeServices)
@jsonOption
@click.pass_context
def whoCan(context: click.Context, service: str, asJSON: bool) -> None:
    """List who holds a key to a service: name, perspective, whether locked, and by which group."""
    listing = Listing(
        ("name", "perspective", "locked", "group"),
        lambda name, perspective, locked, group: (
            *(name, perspective, "locked" if locked else ""),
            f"by group {group}" if group else "",
        ),
        asJSON,
    )
    listing.add(administer(context, lambda admin: admin.whoCan(service), reading=True))
    listing.end(f"Nobody holds a key to {service}. Grant one: pbauth key grant NAME {service}")
