"""What the subcommands that log in to a server share: trust, credentials and timeouts."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from attrs import frozen
from OpenSSL import crypto
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.spread import pb

from pbauth._async import settled
from pbauth._quoting import visible
from pbauth.cli.passwords import passwordOption, readPassword, readSecretFile
from pbauth.client.connection import Target
from pbauth.client.credentials import ClientCertificate, Password, PlainPassword, PrivateKey
from pbauth.client.knownservers import KnownServers
from pbauth.client.login import Login
from pbauth.client.terminal import askOnTerminal, interruptible, shown
from pbauth.errors import ServerNotTrusted
from pbauth.interfaces import ICredentials, IRenewingCredentials
from pbauth.mechanisms.voucher import Voucher

#: The most seconds that a step may take.
_LONGEST = 86_400


@frozen
class Connecting:
    """
    How to connect and log in, as the options of the command say.

    Attributes:
        timeout: seconds for each step.
        insecure: connect without TLS to another machine.
        trust: what to trust; `None`: the known servers, and the system's certificate authorities.
        knownServers: the path of the file of known servers.
        acceptNew: trust a server that is not known without asking.
        passwordStdin: read passwords from standard input.
        keyFile: the path of a private key to log in with; `None`: a password is used.
        certificateFile: the path of a TLS client certificate and its key, to log in with.
        plain: whether to send the password to the server.
        voucherFile: the path of a voucher to log in with.
        passwordName: the prompt for the password.
        passwordOption: the option that sets `passwordStdin`, for messages.
    """

    timeout: float
    insecure: bool
    trust: str | None
    knownServers: str
    acceptNew: bool
    passwordStdin: bool
    keyFile: str | None = None
    certificateFile: str | None = None
    plain: bool = False
    voucherFile: str | None = None
    passwordName: str = "Password"
    passwordOption: str = "--password-stdin"

    def login(
        self,
        endpoint: str,
        name: str,
        credentials: ICredentials,
        trust: str | None,
        service: str | None = None,
        perspective: str | None = None,
    ) -> Login:
        """
        Return the login that the command makes.

        Args:
            endpoint: the endpoint string of the server.
            name: of the identity.
            credentials: what proves it.
            trust: what `settleTrust` returned.
            service: to attach to, or `None`.
            perspective: of that service; `None`: the identity's own.
        """
        if isinstance(credentials, Voucher) and credentials.identityName != name:
            raise click.UsageError(
                f"This voucher is one of {credentials.identityName!r}, not of {name!r}: name that "
                "user."
            )
        return Login(
            *(endpoint, name, credentials, service, perspective),
            trust=trust,
            insecure=self.insecure,
            timeout=self.timeout,
        )

    async def settleTrust(self, reactor: Any, endpoint: str) -> str | None:
        """
        Find out whether the server may be trusted, before the user is asked for a password.

        Args:
            reactor: makes the connections that look at the server's key.
            endpoint: where it is.

        Returns:
            What to trust, for `connect`.

        Raises:
            ServerNotTrusted: the server is not trusted, or the connection would not be protected.
        """
        trust = self.trust
        if trust is None:
            servers = KnownServers(self.knownServers, self._ask)
            trust = await servers.trustFor(endpoint, timeout=self.timeout, reactor=reactor)
        Target(endpoint, None, self.insecure, trust).endpoint(reactor)
        return trust

    def _ask(self, address: str, pin: str) -> bool:
        if self.acceptNew:
            click.echo(
                f"{shown(address, pin)} It is trusted from now on (see {self.knownServers}).",
                err=True,
            )
            return True
        if self.passwordStdin or not sys.stdin.isatty():
            raise ServerNotTrusted(
                f"{shown(address, pin)} It is not one that you trust, and there is no terminal to "
                f"ask on. If it is the right one, use --accept-new once, or --trust {pin}"
            )
        return askOnTerminal(address, pin)

    def credentials(self, *, renew: bool = True) -> ICredentials:
        """
        Ask for the credentials to log in with.

        Args:
            renew: as for `Password`.

        Returns:
            A password, a key, a certificate or a voucher.
        """
        with interruptible():
            if self.keyFile is not None:
                return readSecretFile(PrivateKey.fromFile, self.keyFile, self.passwordStdin)
            if self.voucherFile is not None:
                return readSecretFile(Voucher.fromFile, self.voucherFile, self.passwordStdin)
            if self.certificateFile is not None:
                return readSecretFile(
                    ClientCertificate.fromFile, self.certificateFile, self.passwordStdin
                )
            password = readPassword(
                self.passwordStdin, False, self.passwordName, self.passwordOption
            )
            return PlainPassword(password) if self.plain else Password(password, renew)

    def newPassword(self) -> str:
        """Ask for a new password, twice."""
        with interruptible():
            return readPassword(self.passwordStdin, confirm=True, what="New password")

    async def hangUp(self, reactor: Any, broker: Any, credentials: ICredentials) -> None:
        """
        Close a connection, after waiting for the renewal of a verifier.

        Args:
            reactor: provides `IReactorTime`.
            broker: of the connection.
            credentials: of the login.
        """
        if IRenewingCredentials.providedBy(credentials):
            renewing: IRenewingCredentials = credentials  # type: ignore[assignment]
            renewed = Deferred.fromCoroutine(settled(renewing.whenRenewed()))
            await renewed.addTimeout(self.timeout, reactor, lambda late, seconds: None)
        closed = broker.whenClosed()
        broker.transport.loseConnection()
        await closed


def defaultKnownServers() -> str:
    """Return the default path of the file of known servers."""
    folder = click.get_app_dir("pbauth")
    if folder.startswith("~"):
        raise click.UsageError("You have no home folder. Use --known-servers FILE.")
    return os.path.join(folder, "known_servers")


def _readSeconds(context: click.Context, option: Any, seconds: float) -> float:
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(
            f"{seconds:g} is not a number of seconds, more than 0 and at most {_LONGEST}."
        )
    return seconds


#: How a server is reached; and by what it is trusted.
networkOptions = (
    click.option(
        "--timeout",
        default=30.0,
        show_default=True,
        callback=_readSeconds,
        help="Seconds for each step.",
    ),
    click.option("--insecure", is_flag=True, help="Connect without TLS to another machine."),
)
trustOptions = (
    click.option(
        "--trust",
        metavar="FILE|SHA256:...",
        help="Trust these certificates, or the server with this key, and nothing else.",
    ),
    click.option(
        "--known-servers",
        metavar="FILE",
        default=defaultKnownServers,
        show_default="known_servers in the user's folder for pbauth",
        help="The keys of servers that were trusted before.",
    ),
    click.option(
        "--accept-new",
        is_flag=True,
        help="Trust a server that is not known yet from now on, without asking.",
    ),
)

_OPTIONS = (
    *networkOptions,
    click.option(
        "--key", "keyFile", metavar="FILE", help="Log in with the private key in this file."
    ),
    click.option(
        "--certificate",
        "certificateFile",
        metavar="FILE",
        help="Log in with the TLS client certificate in this PEM file, which also holds its key.",
    ),
    click.option(
        "--voucher", "voucherFile", metavar="FILE", help="Log in with the voucher in this file."
    ),
    click.option(
        "--plain",
        is_flag=True,
        help="Send the password to the server, which has it checked elsewhere (--auth).",
    ),
    *trustOptions,
    passwordOption,
)


def connectingOptions(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Connecting`, and an argument `connecting` made of them."""

    @functools.wraps(command)
    def gather(
        timeout: float,
        insecure: bool,
        keyFile: str | None,
        certificateFile: str | None,
        voucherFile: str | None,
        plain: bool,
        trust: str | None,
        known_servers: str,
        accept_new: bool,
        password_stdin: bool,
        **others: Any,
    ) -> None:
        files = (keyFile, certificateFile, voucherFile)
        if sum(each is not None for each in files) + plain > 1:
            raise click.UsageError(
                "Only one of --key, --certificate, --voucher and --plain may be given."
            )
        connecting = Connecting(
            timeout,
            insecure,
            trust,
            known_servers,
            accept_new,
            password_stdin,
            keyFile,
            certificateFile,
            plain,
            voucherFile,
        )
        command(connecting=connecting, **others)

    for option in reversed(_OPTIONS):
        gather = option(gather)
    return gather


#: Why a server may close a connection at once, by the beginning of the endpoint string.
_OTHER_PROTOCOL = {
    "tcp:": " Does it speak TLS? Then use tls: in place of tcp:.",
    "tls:": " Does it speak plain TCP? Then, if it is on this machine, use tcp: in place of tls:.",
}


@contextmanager
def explained(endpoint: str) -> Iterator[None]:
    """
    Turn errors of the connection into one line for the user.

    Args:
        endpoint: the endpoint string of the server.
    """
    try:
        yield
    except pb.PBConnectionLost:
        # Its text is a Failure.
        raise click.ClickException(
            f"The connection to {endpoint} was lost before the server answered. It is not "
            "known whether the request was carried out."
        ) from None
    except ConnectionClosed:
        hint = _OTHER_PROTOCOL.get(endpoint[:4], "")
        raise click.ClickException(
            f"No connection to {endpoint}: the server closed it before it sent its greeting.{hint} "
            "Is the server running there?"
        ) from None
    except (ConnectError, DNSLookupError) as error:
        raise click.ClickException(
            f"No connection to {endpoint}: {visible(str(error))} Is the server running there?"
        ) from None
    except OSError as error:
        # Of a file that the endpoint names; some have nothing to say.
        reason = error.strerror or str(error) or type(error).__name__
        where = f" {error.filename}" if error.filename else " what it names"
        raise click.ClickException(
            f"Can't connect to {endpoint!r}: can't read{where}: {visible(reason)}."
        ) from None
    except crypto.Error:
        raise click.ClickException(
            f"Can't connect to {endpoint!r}: a file that it names is no certificate or key in PEM."
        ) from None
    except (ValueError, TypeError) as error:
        raise click.ClickException(
            f"Can't connect to {endpoint!r}: {visible(str(error))} "
            "An endpoint is: tls:127.0.0.1:8787"
        ) from None
