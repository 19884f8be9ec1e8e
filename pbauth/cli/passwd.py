"""``pbauth passwd``: change one's own password on a running server."""

from __future__ import annotations

from typing import Any

import click
from twisted.spread import pb

from pbauth._async import within
from pbauth.cli.connecting import Connecting, connectingOptions, explained
from pbauth.cli.running import GlobalOptions, run
from pbauth.client.connection import closeConnection
from pbauth.client.login import changePassword
from pbauth.errors import ProtocolViolation


@click.command()
@click.argument("endpoint")
@click.argument("name")
@connectingOptions
@click.pass_context
def passwd(context: click.Context, endpoint: str, name: str, connecting: Connecting) -> None:
    """Change your own password on a server.

    You log in with the old password or with a key, and your other sessions end. The server learns
    neither password. With --password-stdin the old one is read from the first line of standard
    input (with --key: the passphrase of the key, if it has one), and the new one from the next.

    For instance: pbauth passwd tls:example.com:8787 alice
    """

    options: GlobalOptions = context.obj

    async def main(reactor: Any) -> None:
        trust = await connecting.settleTrust(reactor, endpoint)
        credentials = connecting.credentials(renew=False)
        new = connecting.newPassword()
        options.policy.check(new, name)
        identity = await connecting.login(endpoint, name, credentials, trust).run(reactor)

        async def change() -> None:
            try:
                await changePassword(identity, new)
            except ProtocolViolation:
                raise click.ClickException(
                    "The server does not let the password be changed over this connection. Change "
                    "it on the server's own machine, or over TLS 1.3: tls:HOST:PORT"
                ) from None

        try:
            await within(connecting.timeout, reactor, change())
        finally:
            await closeConnection(identity.broker)

    with explained(endpoint):
        try:
            run(main)
        except pb.RemoteError:
            raise click.ClickException("The server failed. Ask its administrator.") from None
    click.echo(f"Changed the password of {name}.")
