"""``pbauth --server``: the same operations, on a running server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from attrs import frozen
from click.core import ParameterSource
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.error import ConnectionClosed
from twisted.spread import pb

from pbauth.accounts.hashing import Hashing
from pbauth.admin.remote import openAdministration
from pbauth.cli.connecting import Connecting, explained, networkOptions, trustOptions
from pbauth.cli.running import run
from pbauth.client.terminal import interruptible
from pbauth.server.firstrun import ADMINISTRATOR

_Result = TypeVar("_Result")

#: What works on a server that it names itself, or on none.
_ELSEWHERE = ("call", "passwd", "demo", "completion", "print-unit")


@frozen
class RemoteServer:
    """
    A running server to administer, and how to log in to it.

    Attributes:
        endpoint: the endpoint string of the server.
        login: the name of the administrator.
        connecting: how to connect and log in.
    """

    endpoint: str
    login: str
    connecting: Connecting

    def administer(
        self,
        operation: Callable[..., Coroutine[Any, Any, _Result]],
        hashing: Hashing,
        ask: Callable[[], Any] | None,
        check: Callable[[str, str], None] | None = None,
    ) -> _Result:
        """
        Log in and run an operation, as `pbauth.cli.running.administer` does.

        All passwords are asked for before the login.

        Args:
            operation: as for `pbauth.cli.running.administer`.
            hashing: as for `pbauth.cli.running.administer`.
            ask: as for `pbauth.cli.running.administer`.
            check: checks a new password and the name it is for, as `RemoteAdministration` takes it.

        Returns:
            What the operation returns.

        Raises:
            click.ClickException: the login or the operation failed; the message says whether the
                operation may have been done.
        """
        connecting = self.connecting

        async def main(reactor: Any) -> _Result:
            with explained(self.endpoint):
                trust = await connecting.settleTrust(reactor, self.endpoint)
            credentials = connecting.credentials()
            with interruptible():
                arguments = () if ask is None else (ask(),)
            with explained(self.endpoint):
                login = connecting.login(self.endpoint, self.login, credentials, trust)
                admin = await openAdministration(reactor, login, hashing.md5, check)
            try:
                return await operation(admin, *arguments)
            finally:
                await connecting.hangUp(reactor, admin.broker, credentials)

        unknown = "Check whether the change was made."
        try:
            return run(main)
        except DeferTimeout:
            raise click.ClickException(
                f"The server did not answer within {connecting.timeout:g} seconds. {unknown}"
            ) from None
        except (ConnectionClosed, pb.PBConnectionLost, pb.DeadReferenceError):
            raise click.ClickException(
                f"The connection to {self.endpoint} was lost. {unknown}"
            ) from None
        except pb.RemoteError:
            raise click.ClickException(
                f"The server failed; the reason is in its log. {unknown}"
            ) from None


_OPTIONS = (
    click.option(
        "--server",
        metavar="ENDPOINT",
        help="Administer a running server: tls:HOST:PORT, or unix:PATH. You log in to its "
        "service admin. The options that follow apply to this login.",
    ),
    click.option(
        "--login",
        metavar="NAME",
        default=ADMINISTRATOR,
        show_default=True,
        help="The name to log in as.",
    ),
    click.option("--login-key", metavar="FILE", help="Log in with the private key in this file."),
    click.option(
        "--login-certificate",
        metavar="FILE",
        help="Log in with the TLS client certificate in this PEM file, which also holds its key.",
    ),
    click.option(
        "--login-plain",
        is_flag=True,
        help="Send your password to the server, which has it checked elsewhere (--auth).",
    ),
    click.option(
        "--login-password-stdin",
        is_flag=True,
        help="Read your password from the first line of standard input.",
    ),
    *trustOptions,
    *networkOptions,
)

_NAMES = (
    *("login", "login_key", "login_certificate", "login_plain", "login_password_stdin"),
    *("trust", "known_servers", "accept_new", "timeout", "insecure"),
)


def serverOptions(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `serverOf` reads to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def serverOf(context: click.Context) -> RemoteServer | None:
    """
    Read the options that say which server to administer, and how to log in to it.

    Args:
        context: of the ``pbauth`` command, with the options in front of the subcommand.

    Returns:
        The server; `None`: there is no ``--server``, the accounts are administered directly.

    Raises:
        click.UsageError: the options, or the options and the subcommand, do not go together.
    """

    def given(*names: str) -> list[str]:
        return [
            f"--{name.replace('_', '-')}"
            for name in names
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]

    options = context.params
    if options["server"] is None:
        for option in given(*_NAMES):
            raise click.UsageError(f"{option} before the subcommand needs --server.")
        return None
    for option in given("state", "accounts", "audit"):
        raise click.UsageError(
            f"{option} can't be used with --server: the server has its own accounts and audit log."
        )
    if context.invoked_subcommand in _ELSEWHERE:
        raise click.UsageError(f"{context.invoked_subcommand} can't be used with --server.")
    ways = ("login_key", "login_certificate", "login_plain")
    if sum(bool(options[name]) for name in ways) > 1:
        raise click.UsageError(
            "Only one of --login-key, --login-certificate and --login-plain may be given."
        )
    connecting = Connecting(
        options["timeout"],
        options["insecure"],
        options["trust"],
        options["known_servers"],
        options["accept_new"],
        options["login_password_stdin"],
        options["login_key"],
        options["login_certificate"],
        options["login_plain"],
        passwordName=f"Password of {options['login']}",
        passwordOption="--login-password-stdin",
    )
    return RemoteServer(options["server"], options["login"], connecting)
