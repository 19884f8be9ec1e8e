"""
Let a friend play for an hour::

    python lend.py tls:127.0.0.1:8787 alice black carol

makes a file ``carol.voucher``, with which the friend may look and play, and nothing else::

    python play.py --voucher carol.voucher tls:127.0.0.1:8787 alice black
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import Any

import click
from attrs import evolve
from signin import SignIn, hangUp, run, signInOptions

from pbauth import issueVoucher

#: What the friend may do: no resigning, and no talking in the player's name.
METHODS = ("state", "play", "pass")


@click.command()
@click.argument("endpoint")
@click.argument("name")
@click.argument("side")
@click.argument("friend")
@click.option("--minutes", default=60, show_default=True, help="For how long.")
@signInOptions
def main(signIn: SignIn, endpoint: str, name: str, side: str, friend: str, minutes: int) -> None:
    """Lend FRIEND the right to play for NAME on one SIDE."""

    async def lend(reactor: Any) -> str:
        login = evolve(await signIn.login(reactor, endpoint, name, "go"), perspective=side)
        player: Any = await login.run(reactor)
        until = datetime.now(timezone.utc) + timedelta(minutes=minutes)
        voucher = await issueVoucher(
            player.identity,
            friend,
            until,
            services=["go"],
            perspectives=[side],
            methods=METHODS,
            final=True,
        )
        await hangUp(player.broker, login.credentials)
        return voucher.text()

    path = f"{friend}.voucher"
    text = run(lend, endpoint)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(f"{text}\n")
    click.echo(f"Give the file {path} to {friend}: it is good for {minutes} minutes.")


if __name__ == "__main__":
    main()
