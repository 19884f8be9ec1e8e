"""``pbauth call``: try a server out."""

from __future__ import annotations

import json
from typing import Any

import click
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.spread import pb

from pbauth.cli.passwords import passwordOption, readKey, readPassword
from pbauth.cli.running import run as runCommand
from pbauth.client import connect
from pbauth.credentials import Password
from pbauth.interfaces import ICredentials


@click.command()
@click.argument("endpoint")
@click.argument("name")
@click.argument("service")
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[ARG]...")
@click.option("--perspective", help="The perspective to attach to; by default the user's own.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds for login and call.")
@click.option("--insecure", is_flag=True, help="Connect without TLS to another machine.")
@click.option("--key", "keyFile", metavar="FILE", help="Log in by the private key in this file.")
@click.option(
    "--trust", metavar="FILE|SHA256:...", help="Trust these certificates, or this server's key."
)
@passwordOption
def call(
    endpoint: str,
    name: str,
    service: str,
    method: str,
    arguments: tuple[str, ...],
    perspective: str | None,
    timeout: float,
    insecure: bool,
    keyFile: str | None,
    trust: str | None,
    password_stdin: bool,
) -> None:
    """Log in to a server, call a method, and print the answer as JSON.

    For instance: pbauth call tcp:127.0.0.1:8787 alice echo say hello
    """
    credentials: ICredentials = (
        Password(readPassword(password_stdin, confirm=False))
        if keyFile is None
        else readKey(keyFile, password_stdin)
    )

    async def run(reactor: Any) -> Any:
        remote = await connect(
            endpoint,
            None,
            name,
            credentials,
            service,
            perspective,
            timeout=timeout,
            insecure=insecure,
            trust=trust,
            reactor=reactor,
        )
        try:
            return await remote.callRemote(method, *arguments).addTimeout(timeout, reactor)
        finally:
            closed = remote.broker.whenClosed()
            remote.broker.transport.loseConnection()
            await closed

    try:
        answer = runCommand(run)
    except DeferTimeout:
        raise click.ClickException(f"{method} did not answer within {timeout:g} seconds.") from None
    except pb.RemoteError as error:
        kind = error.remoteType
        kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else kind
        raise click.ClickException(f"The method failed on the server: {kind}: {error}") from None
    except (ConnectError, ConnectionClosed, pb.PBConnectionLost) as error:
        raise click.ClickException(
            f"No connection to {endpoint}: {error} Is the server running there?"
        ) from None
    except (ValueError, TypeError) as error:
        raise click.ClickException(
            f"Can't connect to {endpoint!r}: {error} An endpoint is: tcp:127.0.0.1:8787"
        ) from None
    click.echo(json.dumps(_plain(answer), ensure_ascii=False))


def _plain(answer: Any) -> Any:
    """What JSON can hold, of what PB can send."""
    if isinstance(answer, dict):
        return {str(_plain(name)): _plain(value) for name, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [_plain(item) for item in answer]
    if isinstance(answer, (set, frozenset)):
        return sorted((_plain(item) for item in answer), key=repr)
    if isinstance(answer, bytes):
        return answer.decode("utf-8", "backslashreplace")
    if answer is None or isinstance(answer, (bool, int, float, str)):
        return answer
    return f"<{type(answer).__name__}>"
