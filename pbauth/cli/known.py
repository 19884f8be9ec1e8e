"""``pbauth known``: the servers that this user trusts, by their keys."""

from __future__ import annotations

import click

from pbauth.cli.connecting import defaultKnownServers
from pbauth.cli.tables import Listing, jsonOption
from pbauth.client.knownservers import KnownServers
from pbauth.errors import ServerNotTrusted

fileOption = click.option(
    "--known-servers",
    metavar="FILE",
    default=defaultKnownServers,
    show_default="known_servers in the user's folder for pbauth",
    help="The file of known servers.",
)


@click.group()
def known() -> None:
    """List and forget the servers that you trust."""


@known.command("list")
@fileOption
@jsonOption
def listKnown(known_servers: str, asJSON: bool) -> None:
    """List the servers: address, and fingerprint of the key."""
    listing = Listing(("server", "key"), lambda *cells: cells, asJSON)
    try:
        listing.add((each.address, each.pin) for each in KnownServers(known_servers).all())
    except ServerNotTrusted as error:
        raise click.ClickException(str(error)) from None
    listing.end("No server is known yet.")


@known.command("forget")
@click.argument("server", metavar="HOST:PORT")
@fileOption
def forgetKnown(server: str, known_servers: str) -> None:
    """Forget a server that has a new key. The next time, you are asked whether to trust it.

    HOST:PORT is as pbauth known list shows it, or an endpoint: tls:HOST:PORT
    """
    try:
        forgotten = KnownServers(known_servers).forget(server)
    except ServerNotTrusted as error:
        raise click.ClickException(str(error)) from None
    if not forgotten:
        raise click.ClickException(
            f"{server} is not known. To see which servers are: pbauth known list"
        )
    click.echo(f"Forgot {server}.")
