"""How passwords become verifiers, and where that slow work is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ClassVar, TypeVar

from attrs import Attribute, field, frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.threads import deferToThread
from twisted.python.threadable import isInIOThread

from pbauth.mechanisms import Verifier, md5, scram
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramVerifier

_Result = TypeVar("_Result")

#: This much is done on the spot: it takes about two milliseconds.
QUICK_ITERATIONS = 4_096


def runDerivation(
    iterations: int, function: Callable[..., _Result], *arguments: object
) -> Deferred[_Result]:
    """
    Run a derivation of keys where it blocks nobody.

    That is: in the reactor's thread pool, if a reactor is running, this is its thread, and the
    work is more than `QUICK_ITERATIONS`; otherwise here and now.

    Args:
        iterations: how much work it is.
        function: does it.
        arguments: for the function.

    Returns:
        Fires with what the function returns, or fails with what it raises.
    """
    reactor = sys.modules.get("twisted.internet.reactor")
    if (
        iterations <= QUICK_ITERATIONS
        or not getattr(reactor, "running", False)
        or not isInIOThread()
    ):
        return execute(function, *arguments)
    return deferToThread(function, *arguments)


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
    How new passwords become verifiers.

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
