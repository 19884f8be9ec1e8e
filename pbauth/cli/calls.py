"""``pbauth call``: log in to a server, and call a method."""

from __future__ import annotations

import json
from typing import Any

import click
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.spread import pb

from pbauth._quoting import visible
from pbauth.cli.connecting import Connecting, connectingOptions, explained
from pbauth.cli.running import run as runCommand


@click.command()
@click.argument("endpoint")
@click.argument("name")
@click.argument("service")
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[ARG]...")
@click.option("--perspective", help="The perspective to attach to; by default the user's own.")
@connectingOptions
def call(
    endpoint: str,
    name: str,
    service: str,
    method: str,
    arguments: tuple[str, ...],
    perspective: str | None,
    connecting: Connecting,
) -> None:
    """Log in to a server, call a method, and print the result as JSON.

    For instance: pbauth call tls:127.0.0.1:8787 alice echo say hello
    """

    async def run(reactor: Any) -> Any:
        trust = await connecting.settleTrust(reactor, endpoint)
        credentials = connecting.credentials()
        login = connecting.login(endpoint, name, credentials, trust, service, perspective)
        remote = await login.run(reactor)
        try:
            answer = remote.callRemote(method, *arguments)
            return await answer.addTimeout(connecting.timeout, reactor)
        finally:
            await connecting.hangUp(reactor, remote.broker, credentials)

    with explained(endpoint):
        try:
            answer = runCommand(run)
        except DeferTimeout:
            raise click.ClickException(
                f"{method} did not answer within {connecting.timeout:g} seconds."
            ) from None
        except pb.RemoteError as error:
            kind = error.remoteType
            kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else kind
            raise click.ClickException(
                visible(f"The method failed on the server: {kind}: {error}")
            ) from None
    click.echo(asJSON(_plain(answer)))


def asJSON(answer: Any) -> str:
    """Write an answer as JSON, with escapes for whatever a terminal would not show, or obey."""
    text = json.dumps(answer, ensure_ascii=False)
    if text.isprintable():
        return text
    # Outside of strings JSON has only what can be printed.
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _plain(answer: Any) -> Any:
    """Return what JSON can hold, of what PB can send."""
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
