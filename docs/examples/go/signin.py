"""
Log in from a terminal: whom to trust, by what to log in, and errors in one line.

Nobody is asked for a password before it is known that the server may be trusted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth import (
    ClientCertificate,
    KnownServers,
    Login,
    LoginTimeout,
    PassphraseNeeded,
    Password,
    PlainPassword,
    PrivateKey,
    Voucher,
)
from pbauth.errors import WireError
from pbauth.interfaces import ICredentials

_Result = TypeVar("_Result")


@frozen
class SignIn:
    """
    How the user wants to log in.

    Attributes:
        timeout: seconds for each step.
        insecure: connect without TLS to another machine.
        trust: certificates, or the server's key; `None`: that of a server that is known.
        known_servers: the path of the file of known servers.
        accept_new: trust a server that is not known without asking.
        password_stdin: read the password from standard input.
        key: the file of a private key to log in with.
        certificate: the file of a TLS client certificate to log in with.
        voucher: the file of a voucher to log in with.
        plain: let the server see the password.
    """

    timeout: float
    insecure: bool
    trust: str | None
    known_servers: str
    accept_new: bool
    password_stdin: bool
    key: str | None
    certificate: str | None
    voucher: str | None
    plain: bool

    async def login(self, reactor: Any, endpoint: str, name: str, service: str) -> Login:
        """
        Find out whether the server may be trusted, and then ask what to log in with.

        Args:
            reactor: makes the connections that look at the server's key.
            endpoint: where the server is.
            name: of the user.
            service: to attach to.

        Returns:
            What to log in with.
        """
        trust = self.trust
        if trust is None:
            # Without `ask`, `KnownServers` asks on the terminal.
            ask = {"ask": self._accept} if self.accept_new else {}
            servers = KnownServers(self.known_servers, **ask)
            trust = await servers.trustFor(endpoint, timeout=self.timeout, reactor=reactor)
        with interruptible():
            credentials = self._credentials()
        how: dict[str, Any] = {"insecure": self.insecure, "timeout": self.timeout}
        return Login(endpoint, name, credentials, service, trust=trust, **how)

    def _accept(self, address: str, pin: str) -> bool:
        click.echo(
            f"The server {address} shows the key {pin}. It is trusted from now on.", err=True
        )
        return True

    def _credentials(self) -> ICredentials:
        if self.key is not None:
            return self._read(PrivateKey.fromFile, self.key)
        if self.certificate is not None:
            return self._read(ClientCertificate.fromFile, self.certificate)
        if self.voucher is not None:
            return Voucher.fromFile(self.voucher)
        password = self._ask("Password")
        return PlainPassword(password) if self.plain else Password(password)

    def _read(self, read: Callable[..., ICredentials], path: str) -> ICredentials:
        try:
            return read(path)
        except PassphraseNeeded:
            return read(path, self._ask("Passphrase"))

    def _ask(self, what: str) -> str:
        if self.password_stdin:
            return sys.stdin.readline().rstrip("\r\n")
        if not sys.stdin.isatty():
            raise click.ClickException("There is no terminal to ask on. Use --password-stdin.")
        secret: str = click.prompt(what, hide_input=True, err=True)
        return secret


_OPTIONS = (
    click.option("--timeout", default=30.0, show_default=True, help="Seconds for each step."),
    click.option("--insecure", is_flag=True, help="Connect without TLS to another machine."),
    click.option("--key", metavar="FILE", help="Log in with the private key in this file."),
    click.option("--certificate", metavar="FILE", help="Log in with this TLS client certificate."),
    click.option("--voucher", metavar="FILE", help="Log in with the voucher in this file."),
    click.option("--plain", is_flag=True, help="Let the server see the password."),
    click.option(
        "--trust", metavar="FILE|SHA256:...", help="Trust these certificates, or this server's key."
    ),
    click.option(
        "--known-servers",
        metavar="FILE",
        default=lambda: os.path.join(click.get_app_dir("pbauth"), "known_servers"),
        show_default="that of the pbauth command",
        help="The keys of servers that were trusted before.",
    ),
    click.option(
        "--accept-new", is_flag=True, help="Trust a server that is not known without asking."
    ),
    click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
)


def signInOptions(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `SignIn`, and an argument `signIn` made of them."""

    def gather(**given: Any) -> None:
        own = {name: given.pop(name) for name in SignIn.__annotations__}
        files = (own["key"], own["certificate"], own["voucher"])
        if sum(each is not None for each in files) + own["plain"] > 1:
            raise click.UsageError(
                "Only one of --key, --certificate, --voucher and --plain may be given."
            )
        command(signIn=SignIn(**own), **given)

    gather.__name__, gather.__doc__ = command.__name__, command.__doc__
    for option in reversed(_OPTIONS):
        gather = option(gather)
    return gather


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end a prompt although a reactor runs; the prompt puts the terminal back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def hangUp(broker: Any, credentials: ICredentials) -> None:
    """Close a connection, once a verifier that is being renewed is renewed."""
    if isinstance(credentials, Password):
        await credentials.whenRenewed()
    broker.transport.loseConnection()
    await broker.whenClosed()


def run(main: Callable[[Any], Coroutine[Any, Any, _Result]], endpoint: str) -> _Result:
    """
    Run the reactor until a coroutine is done.

    Args:
        main: takes the reactor.
        endpoint: of the server, for the errors.

    Returns:
        What the coroutine returns.

    Raises:
        KeyboardInterrupt: it was interrupted.
        click.ClickException: what the user can do something about, in one line.
    """
    outcome: list[Any] = []

    def start(reactor: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(main(reactor)).addBoth(outcome.append)

    try:
        react(start)
    except SystemExit:
        # `react` ends the program; what came out of it is said below.
        pass
    if not outcome:
        raise KeyboardInterrupt
    (result,) = outcome
    if not isinstance(result, Failure):
        return result  # type: ignore[no-any-return]
    try:
        result.raiseException()
    except (WireError, LoginTimeout) as error:
        raise click.ClickException(str(error)) from None
    except (ConnectError, ConnectionClosed, DNSLookupError, pb.PBConnectionLost) as error:
        text = f"No connection to {endpoint}: {error} Is the server running there?"
        raise click.ClickException(text) from None
    except (TypeError, ValueError) as error:
        raise click.ClickException(f"Can't log in at {endpoint}: {error}") from None
