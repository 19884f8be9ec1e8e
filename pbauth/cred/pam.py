"""
Passwords that the machine's own PAM checks, for `pbauth.CredAuthorizer`.

PAM waits: for a directory server, and two seconds after each wrong password.  So each check runs in
a thread; in threads of its own, since the reactor's are needed by others.  They are few, and so are
the checks that wait for one; and they are daemons, so that a module that hangs does not keep the
server from being stopped.

The library that binds libpam (``python-pam``) is imported when the first checker is made: the extra
``pam`` installs it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from ctypes import c_char_p
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from pbauth._async import chooseReactor
from pbauth.errors import ExchangeRefused, InvalidName, StoreError
from pbauth.interfaces import Reactor
from pbauth.names import checkName

#: Checks at once, and checks that may wait for their turn.
THREADS = 8
MOST_WAITING = 200

# The item of PAM that holds where a user comes from (_pam_types.h).
_RHOST = 4

_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")

#: What PAM answers if it knows that this is not to be let in. (Linux-PAM, _pam_types.h: permission
#: denied, wrong password, not enough rights, no such user, too many tries, a new password is
#: needed, account expired, credentials expired, password expired.) Anything else: it could not
#: tell.
_REFUSALS = {6, 7, 8, 10, 11, 12, 13, 16, 27}

# What the audit log calls them, as it calls those of other accounts. The rest is in PAM's words.
_KNOWN = {7: "wrong password (PAM)", 10: "no such identity (PAM)"}


class PAMMissing(RuntimeError):
    """The library that binds PAM is not installed, or the machine has no PAM."""


def _importLibrary() -> Any:
    try:
        import pam  # type: ignore[import-untyped]
    except ModuleNotFoundError as missing:
        if missing.name not in ("pam", "six"):
            raise
        pam = None
    # Other packages have a module of that name.
    if not hasattr(pam, "PamAuthenticator"):
        raise PAMMissing("PAM needs one more package. Run: pip install 'pbauth[pam]'")
    try:
        pam.PamAuthenticator()
    except (AttributeError, OSError):
        raise PAMMissing("There is no PAM on this machine: libpam was not found.") from None
    return pam


@implementer(ICredentialsChecker)
class PAMChecker:
    """
    Checks a name and a password by PAM, and whether PAM lets that account in now
    (``pam_acct_mgmt``): expired accounts, times of day and the like. It opens no session and takes
    no credentials over.

    Args:
        service: of PAM: the name of a file in ``/etc/pam.d``.
        reactor: gets the answers; the global one by default.
        threads: how many checks run at once.
        mostWaiting: how many checks wait for their turn at most.

    Raises:
        PAMMissing: the extra ``pam`` is not installed, or the machine has no PAM.
        ValueError: that can't be the name of a service.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        service: str = "login",
        *,
        reactor: Reactor = None,
        threads: int = THREADS,
        mostWaiting: int = MOST_WAITING,
    ) -> None:
        if not _SERVICE.fullmatch(service):
            raise ValueError(
                f"{service!r} can't be a service of PAM. Give the name of a file in /etc/pam.d."
            )
        self._library = _importLibrary()
        self._service = service
        self._reactor = reactor
        self._turns = DeferredSemaphore(threads)
        self._mostWaiting = mostWaiting

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """
        Let a password be checked.

        Args:
            credentials: an `IUsernamePassword`, both in bytes. Its `host`, if it has one, is
                passed to PAM as the host that the user comes from (``PAM_RHOST``).

        Returns:
            Fires with the name; fails with `UnauthorizedLogin` if PAM refuses it, or with
            `StoreError` if PAM can't tell, or too many checks wait already.
        """
        host = getattr(credentials, "host", None)
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password, host))

    async def _check(self, name: bytes, password: bytes, host: str | None) -> bytes | tuple[()]:
        if not _possible(name, password):
            raise UnauthorizedLogin() from ExchangeRefused(
                "a name or a password that PAM can't have"
            )
        if len(self._turns.waiting) >= self._mostWaiting:
            raise StoreError(
                f"PAM, service {self._service!r}: more than {self._mostWaiting} checks are "
                "waiting. Is a server down that PAM asks?"
            )
        code, reason = await self._turns.run(self._inThread, self._ask, name, password, host)
        if code in _REFUSALS:
            why = _KNOWN.get(code) or f"{reason} (PAM)"
            raise UnauthorizedLogin() from ExchangeRefused(why)
        if code != 0:
            raise StoreError(f"PAM, service {self._service!r}, can't tell: {reason}.")
        return name

    def _ask(self, name: bytes, password: bytes, host: str | None) -> tuple[int, str]:
        # A new one each time: one is not for two threads. Latin 1 reads whatever a module says.
        asked = self._library.PamAuthenticator()
        if host is not None:
            _tellHost(asked, host)
        let = asked.authenticate(
            *(name, password, self._service.encode("ascii")),
            encoding="latin-1",
            resetcreds=False,
        )
        # Who is let in has the code 0, and nobody else.
        code = int(asked.code)
        return (code if let or code else -1), str(asked.reason)

    def _inThread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        reactor = chooseReactor(self._reactor)
        answer: Deferred[Any] = Deferred()

        def work() -> None:
            try:
                result = function(*arguments)
            except Exception as error:
                # Without the traceback, in whose frames the password is.
                result = Failure(
                    StoreError(f"PAM, service {self._service!r}: {type(error).__name__}.")
                )
            reactor.callFromThread(answer.callback, result)

        threading.Thread(target=work, name="pbauth PAM", daemon=True).start()
        return answer

    def __repr__(self) -> str:
        return f"<PAMChecker {self._service!r}>"


def _tellHost(asked: Any, host: str) -> None:
    """Let PAM know where a user comes from before it is asked; the library has no way to."""
    authenticate = asked.pam_authenticate

    def authenticateFrom(handle: Any, flags: int) -> Any:
        code = asked.pam_set_item(handle, _RHOST, c_char_p(host.encode("ascii")))
        # Rules may depend on it, so nobody gets in without.
        return code or authenticate(handle, flags)

    asked.pam_authenticate = authenticateFrom


def _possible(name: object, password: object) -> bool:
    """
    Return whether PAM may be asked: a name that is one, and a password that is not empty, and no
    NUL in either, at which C would end them.
    """
    if not isinstance(name, bytes) or not isinstance(password, bytes):
        return False
    try:
        checkName(name.decode("utf-8"))
    except (InvalidName, UnicodeDecodeError):
        return False
    return bool(password) and b"\0" not in password


@implementer(ICheckerFactory, IPlugin)
class PAMCheckerFactory:
    """The plugin of `twisted.cred` behind ``--auth pam:SERVICE``."""

    authType = "pam"
    authHelp = (
        "Lets the machine's PAM check passwords, and whether the account may log in now. "
        "Takes the extra: pip install 'pbauth[pam]'"
    )
    argStringFormat = "A service of PAM: the name of a file in /etc/pam.d. By default: login"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argString: str) -> PAMChecker:
        """
        Make the checker.

        Args:
            argString: the name of the service; empty: ``login``.
        """
        return PAMChecker(argString) if argString else PAMChecker()
