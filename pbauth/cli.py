"""The ``pbauth`` command: administers accounts, and tries a server out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.spread import pb

from pbauth import __version__
from pbauth.admin import Administration, UnknownKey, UnknownPublicKey, UnknownUser
from pbauth.client import connect
from pbauth.credentials import PassphraseNeeded, Password, PrivateKey
from pbauth.demo import DemoFailed, runDemo
from pbauth.errors import InvalidName, InvalidPassword, LoginTimeout, WireError
from pbauth.interfaces import ICredentials
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.running import runOnce
from pbauth.state import DEFAULT_FOLDER, openAuthorizer

_Result = TypeVar("_Result")

# What the user can mend. Any other exception is a bug, and shows its traceback.
_EXPLAINED = (
    WireError,
    InvalidName,
    InvalidPassword,
    LoginTimeout,
    UnknownUser,
    UnknownKey,
    UnknownPublicKey,
    DemoFailed,
)


def _run(main: Callable[[Any], Coroutine[Any, Any, _Result]]) -> _Result:
    try:
        return runOnce(main)
    except _EXPLAINED as error:
        raise click.ClickException(str(error)) from None


def _administer(
    context: click.Context,
    operation: Callable[[Administration], Coroutine[Any, Any, _Result]],
) -> _Result:
    async def main(reactor: Any) -> _Result:
        authorizer = openAuthorizer(context.obj, reactor=reactor)
        try:
            return await operation(Administration(authorizer))
        finally:
            authorizer.close()

    return _run(main)


def _readPassword(fromStdin: bool, confirm: bool) -> str:
    if fromStdin:
        line = sys.stdin.readline()
        if not line:
            raise click.ClickException("There is no password on standard input.")
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.ClickException(
            "There is no terminal to ask for the password on. Say --password-stdin, and write "
            "the password to standard input."
        )
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm)
    return password


def _readKey(path: str, fromStdin: bool) -> PrivateKey:
    try:
        try:
            return PrivateKey.fromFile(path)
        except PassphraseNeeded:
            return PrivateKey.fromFile(path, _readPassword(fromStdin, confirm=False))
    except (ValueError, TypeError) as mistake:
        raise click.ClickException(str(mistake)) from None


_passwordOption = click.option(
    "--password-stdin", is_flag=True, help="Read the password from one line of standard input."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state",
    metavar="DIR",
    default=DEFAULT_FOLDER,
    show_default=True,
    help="The folder of the accounts. Made if there is none.",
)
@click.version_option(__version__, prog_name="pbauth")
@click.pass_context
def main(context: click.Context, state: str) -> None:
    """Administer the accounts of a pbauth server, or try a server out.

    The server itself is started by: twistd pbauth
    """
    context.obj = state


@main.group()
def user() -> None:
    """Add, remove and change users."""


@user.command("add")
@click.argument("name")
@_passwordOption
@click.pass_context
def addUser(context: click.Context, name: str, password_stdin: bool) -> None:
    """Add a user. Grant them keys after that: pbauth key grant NAME SERVICE"""
    password = _readPassword(password_stdin, confirm=True)
    _administer(context, lambda admin: admin.addUser(name, password))
    click.echo(f"Added {name}.")


@user.command("remove")
@click.argument("name")
@click.pass_context
def removeUser(context: click.Context, name: str) -> None:
    """Remove a user, with all keys."""
    _administer(context, lambda admin: admin.removeUser(name))
    click.echo(f"Removed {name}.")


@user.command("passwd")
@click.argument("name")
@_passwordOption
@click.pass_context
def setPassword(context: click.Context, name: str, password_stdin: bool) -> None:
    """Give a user a new password."""
    password = _readPassword(password_stdin, confirm=True)
    _administer(context, lambda admin: admin.setPassword(name, password))
    click.echo(f"Changed the password of {name}.")


@user.command("lock")
@click.argument("name")
@click.pass_context
def lockUser(context: click.Context, name: str) -> None:
    """Lock a user out; the keys and the password are kept."""
    _administer(context, lambda admin: admin.setLocked(name, True))
    click.echo(f"Locked {name}.")


@user.command("unlock")
@click.argument("name")
@click.pass_context
def unlockUser(context: click.Context, name: str) -> None:
    """Let a locked user in again."""
    _administer(context, lambda admin: admin.setLocked(name, False))
    click.echo(f"Unlocked {name}.")


@user.command("addkey")
@click.argument("name")
@click.argument("file", type=click.File(), default="-")
@click.pass_context
def addPublicKeys(context: click.Context, name: str, file: Any) -> None:
    """Let public keys of a user in: lines as in OpenSSH's authorized_keys or .pub files.

    They are read from FILE, or from standard input.
    """
    lines = [line for line in file.read().splitlines() if line.strip() and line[0] != "#"]
    try:
        keys = [PublicKey.fromLine(line) for line in lines]
    except ValueError as mistake:
        raise click.ClickException(str(mistake)) from None
    if not keys:
        raise click.ClickException(f"There is no public key in {file.name}.")
    _administer(context, lambda admin: admin.addPublicKeys(name, keys))
    for each in keys:
        click.echo(f"Added {each.fingerprint()} {each.label}".rstrip())


@user.command("keys")
@click.argument("name")
@click.pass_context
def listPublicKeys(context: click.Context, name: str) -> None:
    """List the public keys of a user: fingerprint and label."""
    for each in _administer(context, lambda admin: admin.listPublicKeys(name)):
        click.echo(f"{each.fingerprint()}\t{each.label}".rstrip())


@user.command("rmkey")
@click.argument("name")
@click.argument("public_key", metavar="KEY")
@click.pass_context
def removePublicKey(context: click.Context, name: str, public_key: str) -> None:
    """Let a public key in no more; KEY is its fingerprint or its label."""
    _administer(context, lambda admin: admin.removePublicKey(name, public_key))
    click.echo(f"Removed {public_key}.")


@user.command("list")
@click.pass_context
def listUsers(context: click.Context) -> None:
    """List the users: name, number of keys, and whether locked."""
    users = _administer(context, lambda admin: admin.listUsers())
    if not users:
        click.echo("There are no users yet. Add one: pbauth user add NAME", err=True)
    for name, locked, keys in users:
        columns = [name, "1 key" if keys == 1 else f"{keys} keys"]
        click.echo("\t".join([*columns, "locked"] if locked else columns))


@main.group()
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
    _administer(context, lambda admin: admin.grantKey(name, service, wanted))
    click.echo(f"{name} holds the key to {wanted} of service {service}.")


@key.command("revoke")
@click.argument("name")
@click.argument("service")
@click.argument("perspective", required=False)
@click.pass_context
def revokeKey(context: click.Context, name: str, service: str, perspective: str | None) -> None:
    """Take a key from a user."""
    wanted = name if perspective is None else perspective
    _administer(context, lambda admin: admin.revokeKey(name, service, wanted))
    click.echo(f"{name} no longer holds the key to {wanted} of service {service}.")


@key.command("list")
@click.argument("name")
@click.pass_context
def listKeys(context: click.Context, name: str) -> None:
    """List the keys of a user: service and perspective."""
    for service, perspective in _administer(context, lambda admin: admin.listKeys(name)):
        click.echo(f"{service}\t{perspective}")


@main.command()
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
@_passwordOption
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
        Password(_readPassword(password_stdin, confirm=False))
        if keyFile is None
        else _readKey(keyFile, password_stdin)
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
        answer = _run(run)
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


@main.command()
def demo() -> None:
    """Show a server and two users at work, in a temporary folder."""
    _run(lambda reactor: runDemo(reactor, click.echo))


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
