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
    """List who holds a key to a service: name, perspective, and whether locked."""
    listing = Listing(
        ("name", "perspective", "locked"),
        lambda name, perspective, locked: (name, perspective, "locked" if locked else ""),
        asJSON,
    )
    listing.add(administer(context, lambda admin: admin.whoCan(service)))
    listing.end(f"Nobody holds a key to {service}. Grant one: pbauth key grant NAME {service}")
