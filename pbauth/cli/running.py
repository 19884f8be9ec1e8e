"""Run a coroutine from the command line: start the reactor, and turn errors into one line."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from pbauth._quoting import visible
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.admin.administration import Administration
from pbauth.audit.file import AuditUnwritable, auditing
from pbauth.cli.demo import DemoFailed
from pbauth.cli.output import outputFailing
from pbauth.errors import InvalidName, InvalidPassword, LoginTimeout, WireError
from pbauth.server.state import openAuthorizer

_Result = TypeVar("_Result")

# What the user can fix. Any other exception is a bug, and shows its traceback.
_EXPLAINED = (
    WireError,
    InvalidName,
    InvalidPassword,
    LoginTimeout,
    DemoFailed,
    AuditUnwritable,
)


class CarefulGroup(click.Group):
    """
    The ``pbauth`` command: whatever an error quotes of a server, a file or the command line, a
    terminal shows it and does not obey it.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command, and end with one line if what it says can't be written."""
        with outputFailing():
            return super().main(*args, **extra)

    def invoke(self, context: click.Context) -> Any:
        """Run the subcommand, and escape the text of the error that it ends with."""
        try:
            return super().invoke(context)
        except click.ClickException as error:
            # Final, by its type.
            vars(error)["message"] = visible(error.message, keep="\n")
            raise


@frozen
class GlobalOptions:
    """
    The options in front of the subcommand: what the command works on, and how.

    Attributes:
        state: the path of the state folder.
        audit: the path of the audit file; `None`: no audit file is written.
        accounts: where the accounts are, as for `pbauth.server.state.openAuthorizer`.
        policy: what new passwords must be like.
        remote: the running server to administer, a `RemoteServer`; `None`: the accounts are opened
            directly.
    """

    state: str
    audit: str | None = None
    accounts: str | None = None
    policy: PasswordPolicy = PasswordPolicy()  # noqa: RUF009 - immutable
    remote: Any = None


def runOnce(main: Callable[[Any], Coroutine[Any, Any, _Result]]) -> _Result:
    """
    Run the reactor until a coroutine is done.

    Args:
        main: takes the reactor.

    Returns:
        What the coroutine returns.

    Raises:
        KeyboardInterrupt: it was interrupted (Ctrl-C, or SIGTERM).
        Exception: whatever the coroutine raised.
    """
    outcome: list[_Result | Failure] = []

    def start(reactor: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(main(reactor)).addBoth(outcome.append)

    try:
        react(start, ())
    except SystemExit:
        pass
    if not outcome:
        raise KeyboardInterrupt
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[return-value]


def run(main: Callable[[Any], Coroutine[Any, Any, _Result]]) -> _Result:
    """
    Run the reactor until a coroutine is done, as `runOnce` does, with errors for people.

    Args:
        main: takes the reactor.

    Returns:
        What the coroutine returns.

    Raises:
        click.ClickException: it failed for a reason that the user can fix, in one line.
        Exception: any other error that the coroutine raised.
    """
    try:
        return runOnce(main)
    except _EXPLAINED as error:
        raise click.ClickException(visible(str(error))) from None


def administer(
    context: click.Context,
    operation: Callable[..., Coroutine[Any, Any, _Result]],
    hashing: Hashing = Hashing(),  # noqa: B008 - immutable
    ask: Callable[[], Any] | None = None,
    *,
    reading: bool = False,
    audited: bool = False,
) -> _Result:
    """
    Run an administrative operation, on the accounts directly or on a running server.

    Args:
        context: of the subcommand; its object is a `GlobalOptions`.
        operation: takes the administration, an `Administration` or a `RemoteAdministration`, and
            the result of `ask` if there is one.
        hashing: how new passwords become verifiers. A running server has its own settings, except
            for `md5`.
        ask: asks the user for what the operation needs, or reads it from standard input; called
            after the user's own password is read, and before anything is opened.
        reading: the operation changes nothing, and so nothing is written.
        audited: events of the operation are written to the audit file, though it changes nothing.

    Returns:
        What the operation returns.

    Raises:
        click.ClickException: the operation failed for a reason that the user can fix.
    """
    options: GlobalOptions = context.obj
    if options.remote is not None:
        done: _Result = options.remote.administer(operation, hashing, ask, options.policy.check)
        return done
    arguments = () if ask is None else (ask(),)

    async def main(reactor: Any) -> _Result:
        with auditing(options.audit if audited or not reading else None):
            authorizer = openAuthorizer(
                options.state, options.accounts, reading=reading, hashing=hashing, reactor=reactor
            )
            upgraded = getattr(authorizer, "upgraded", "")
            if upgraded:
                click.echo(f"{upgraded}.", err=True)
            try:
                administration = Administration(authorizer, operatorName(), options.policy)
                return await operation(administration, *arguments)
            finally:
                authorizer.close()

    return run(main)


def operatorName() -> str:
    """
    Return who runs the command, as the system has it: what the environment says, its user has said.
    Only root may be believed that somebody else is behind it.
    """
    try:
        import pwd
    except ImportError:
        # There are no such users where there is no POSIX.
        return getpass.getuser()
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo: {behind})" if behind and not user else name
