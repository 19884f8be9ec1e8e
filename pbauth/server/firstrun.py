"""
The first run of a server: there are no accounts yet, so there is nobody who could make any.

If there is a terminal that somebody sits at, the server makes an administrator with a random
password, and shows it there, once. It writes to the terminal itself, never to the log, which is
kept, and collected by other programs; ``twistd -n`` sends it to the standard output. Where there is
no terminal nothing is made, and the log says how to make an administrator.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.logger import Logger

from pbauth._async import run
from pbauth.admin.protocol import NAME
from pbauth.errors import DuplicateIdentity, StoreError
from pbauth.server.state import DEFAULT_FOLDER

_log = Logger()

#: The name of the identity that is made.
ADMINISTRATOR = "admin"

#: The operator that the audit log names for this.
OPERATOR = "twistd pbauth"

# No letter or digit that looks like another one; 32 of them are 5 bits each.
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS, _LETTERS = 4, 6

_SHOWN = """
There were no accounts yet. This is the administrator of the server:

    name:      {name}
    password:  {password}

The password is shown only this once, and is not stored. In another terminal, type:

    pbauth --server {endpoint} --login {name} user list

and, to choose your own password:

    pbauth passwd {endpoint} {name}
"""

_KEY = """
Both commands show the key of the server, and ask whether to trust it. It must be:

    {fingerprint}
"""


def randomPassword() -> str:
    """Return a random password of 120 bits that is easy to read out and to type."""
    return "-".join(
        "".join(secrets.choice(_ALPHABET) for _ in range(_LETTERS)) for _ in range(_GROUPS)
    )


class Terminal:
    """
    A terminal that somebody sits at.

    Args:
        descriptor: an open file; belongs to this object from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """
        Write a text to the terminal, all of it, without waiting.

        Args:
            text: may have several lines.

        Raises:
            OSError: the terminal is gone, or does not take all of the text at once.
        """
        left = text.encode("utf-8")
        # A terminal may be set to stop programs in the background that write to it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def findTerminal() -> Terminal | None:
    """
    Find the terminal of this program. Look for it before the program goes to the background.

    Returns:
        The terminal, or `None`.
    """
    try:
        # One that takes nothing (Ctrl-S) must not keep the server.
        return Terminal(os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        pass
    for descriptor in (2, 1):
        if os.isatty(descriptor):
            return Terminal(os.dup(descriptor))
    return None


@frozen
class Reach:
    """
    How a client on this machine reaches the server.

    Attributes:
        endpoint: for ``pbauth --server``, as one types it into a shell.
        fingerprint: of the server's key, where it speaks TLS; else `None`.
    """

    endpoint: str = "tls:HOST:PORT"
    fingerprint: str | None = None


def reachOf(address: Any, fingerprint: str | None) -> Reach:
    """
    Return how a client on this machine reaches a server.

    Args:
        address: where the server listens; `None`: unknown.
        fingerprint: of the server's key if it speaks TLS; otherwise `None`.
    """
    if address is None:
        return Reach(fingerprint=fingerprint)
    if isinstance(address, UNIXAddress):
        path = os.path.abspath(os.fsdecode(address.name or b""))
        return Reach(shlex.quote(f"unix:{quoteStringArgument(path)}"))
    # A server on all interfaces also listens on this one.
    host = "127.0.0.1" if address.host == "0.0.0.0" else address.host  # noqa: S104
    host = "::1" if host == "::" else host
    kind = "tcp" if fingerprint is None else "tls"
    endpoint = f"{kind}:{quoteStringArgument(host)}:{address.port}"
    return Reach(shlex.quote(endpoint), fingerprint)


def howToBegin(state: str, accounts: str | None, externalPasswords: bool) -> str:
    """
    Return the commands that make an administrator, as a line for people.

    Args:
        state: the path of the state folder.
        accounts: as for `openAuthorizer`.
        externalPasswords: whether passwords are checked elsewhere, and not kept in these accounts.
    """
    command = "pbauth"
    if accounts is not None:
        command += f" --accounts {shlex.quote(accounts)}"
    elif state != DEFAULT_FOLDER:
        command += f" --state {shlex.quote(state)}"
    name, option = ("NAME", " --no-password") if externalPasswords else (ADMINISTRATOR, "")
    return (
        f"Create an administrator: {command} user add {name}{option}; "
        f"{command} key grant {name} {NAME}"
    )


class FirstRun(Service):
    """
    Looks, when the server starts, whether there are accounts.

    Args:
        accounts: an `IAccountStore`.
        reach: returns the `Reach` of the server, once it listens.
        help: what the log says where there are none, and no administrator is made.
        terminal: where to show the password; `None`: nothing is made.
    """

    def __init__(
        self,
        accounts: Any,
        reach: Callable[[], Reach],
        help: str,
        terminal: Terminal | None,
    ) -> None:
        self._accounts = accounts
        self._reach = reach
        self._help = help
        self._terminal = terminal

    def startService(self) -> None:
        """Look."""
        super().startService()
        # The server serves meanwhile.
        maybeDeferred(run, self._look()).addErrback(self._failed)

    async def _look(self) -> None:
        try:
            if await maybeDeferred(self._accounts.listIdentities, "", 1):
                return
            if self._terminal is None:
                _log.info("There are no accounts yet. {help}", help=self._help)
            else:
                await self._make(self._terminal)
        finally:
            if self._terminal is not None:
                self._terminal.close()

    async def _make(self, terminal: Terminal) -> None:
        password = randomPassword()
        identity = self._accounts.createIdentity(ADMINISTRATOR)
        identity.setPassword(password)
        identity.addKeyByString(NAME, ADMINISTRATOR)
        try:
            # All at once: of several servers that start on the same accounts one does it.
            await maybeDeferred(identity.save)
        except DuplicateIdentity:
            _log.info(
                "Another server has created the administrator {name}, and shown the password.",
                name=ADMINISTRATOR,
            )
            return
        audit = self._accounts.sessions.audit
        audit.userAdded(OPERATOR, ADMINISTRATOR)
        audit.keyGranted(OPERATOR, ADMINISTRATOR, NAME, ADMINISTRATOR)
        reach = self._reach()
        text = _SHOWN.format(name=ADMINISTRATOR, password=password, endpoint=reach.endpoint)
        if reach.fingerprint is not None:
            text += _KEY.format(fingerprint=reach.fingerprint)
        try:
            terminal.write(f"{text}\n")
        except OSError as error:
            _log.error(
                "The password of {name} could not be shown on the terminal ({reason}). "
                "Give it a new one: pbauth user passwd {name}",
                name=ADMINISTRATOR,
                reason=error.strerror,
            )
        else:
            _log.info(
                "The password of the administrator {name} was shown on the terminal.",
                name=ADMINISTRATOR,
            )

    def _failed(self, failure: Any) -> None:
        if not self.running:
            # The server was stopped meanwhile, and the accounts are closed.
            return
        if failure.check(StoreError):
            # The store has logged the reason.
            _log.error(
                "Can't find out whether there are accounts, so no administrator was created."
            )
        else:
            _log.failure("The first run failed", failure)
