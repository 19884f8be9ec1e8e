"""
How passwords become verifiers, and where that slow work is done.

Deriving a key takes a tenth of a second or more, by design.  `Derivations` runs it in a thread of
the reactor that it was handed, so that nobody has to wait; an authorizer has one, and so have a
client's credentials.  Without a reactor of their own they use the global one, and these are the
rules for that:

- Nothing here installs a reactor.  The global one is asked for only in a thread in which one has
  been started; so a program may make its accounts first, and choose its reactor after that.
- While no reactor runs, or in a thread that is not the reactor's, the work is done on the spot:
  nobody else has to wait then.  So ``identity.setPassword()`` works in any script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from attrs import Attribute, field, frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadable import isInIOThread

from pbauth._async import chooseReactor
from pbauth.interfaces import Reactor
from pbauth.mechanisms import Verifier, md5, scram
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramVerifier

_Result = TypeVar("_Result")

#: This much is done on the spot: it takes about two milliseconds.
QUICK_ITERATIONS = 4_096


@frozen
class Derivations:
    """
    Run derivations of keys where they block nobody.

    Attributes:
        reactor: provides threads (`IReactorThreads`), while it runs; `None`: the global one does.
    """

    reactor: Reactor = None

    def run(
        self, iterations: int, function: Callable[..., _Result], *arguments: object
    ) -> Deferred[_Result]:
        """
        Run a derivation: in the reactor's thread pool, if the reactor runs, this is its thread, and
        the work is more than `QUICK_ITERATIONS`; otherwise on the spot.

        Args:
            iterations: how much work it is.
            function: does it.
            arguments: for the function.

        Returns:
            Fires with what the function returns, or fails with what it raises.
        """
        if iterations <= QUICK_ITERATIONS or not isInIOThread():
            return execute(function, *arguments)
        reactor = chooseReactor(self.reactor)
        if not getattr(reactor, "running", False):
            return execute(function, *arguments)
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)


def _checkIterations(instance: Hashing, attribute: Attribute[int], value: int) -> None:
    if not scram.FEWEST_ITERATIONS <= value <= scram.MOST_ITERATIONS:
        raise ValueError(
            f"iterations must be from {scram.FEWEST_ITERATIONS} to {scram.MOST_ITERATIONS}: "
            "clients refuse others."
        )


def _checkSaltBytes(instance: Hashing, attribute: Attribute[int], value: int) -> None:
    if not 12 <= value <= 64:
        raise ValueError("saltBytes must be from 12 to 64.")


@frozen
class Hashing:
    """
    Say how new passwords become verifiers.

    Attributes:
        iterations: how often PBKDF2 hashes; 600,000 is what the OWASP Password Storage Cheat
            Sheet (2023) asks for with SHA-256.
        saltBytes: the length of the random salt, in bytes.
        md5: also keep the MD5 verifier that clients of Twisted 1.x and stock Twisted need.
            It is as good as the password to whoever steals it.
    """

    iterations: int = field(default=600_000, validator=_checkIterations)
    saltBytes: int = field(default=16, validator=_checkSaltBytes)
    md5: bool = False

    @property
    def mostIterations(self) -> int:
        """Return the most iterations of a new verifier, since they are work for each login."""
        return min(4 * self.iterations, scram.MOST_ITERATIONS)

    @property
    def mostSaltBytes(self) -> int:
        """Return the longest salt that a new verifier may have."""
        return min(4 * self.saltBytes, scram.MOST_SALT_BYTES)

    #: The least that clients accept (RFC 7677, section 4). For tests only.
    CHEAPEST: ClassVar[Hashing]

    def makeVerifiers(self, password: str, salt: bytes) -> dict[str, Verifier]:
        """
        Make all verifiers of a password. Slow, by design.

        Args:
            password: the password.
            salt: `saltBytes` random bytes.

        Returns:
            The verifiers by the name of the mechanism.

        Raises:
            InvalidPassword: it can't be a password.
        """
        verifiers: dict[str, Verifier] = {
            scram.NAME: ScramVerifier.fromPassword(password, salt, self.iterations)
        }
        if self.md5:
            verifiers[md5.NAME] = MD5Verifier.fromPassword(password)
        return verifiers


Hashing.CHEAPEST = Hashing(iterations=scram.FEWEST_ITERATIONS)
