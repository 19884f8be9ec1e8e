"""
The logins of Twisted 1.x and of stock Twisted, by PB-MD5; off unless the policy lets them in.

The objects here stand in front of those of `pbauth.login.root` and of a session, and answer as
those clients expect.  Such a client does not have pbauth: it drops the connection when it meets
one of our errors as itself, and the call never ends.  So every error that goes to it is one that
it can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth.errors import Unauthorized, WireError, forStockClient
from pbauth.perspectives.sessions import EndReason, SessionReference
from pbauth.wire.calls import WireObject
from pbauth.wire.twistedprivate import whenReleased


@contextmanager
def readableErrors() -> Iterator[None]:
    """Raise pbauth's errors so that a client without pbauth can read them."""
    try:
        yield
    except WireError as error:
        raise forStockClient(error) from None


def _asReadable(failure: Failure) -> Failure:
    if isinstance(failure.value, WireError):
        return Failure(forStockClient(failure.value))
    return failure


class StockReference(pb.Referenceable):
    """
    What a client holds that does not have pbauth: passes calls on, and makes errors readable.

    Args:
        reference: what other clients hold, a `SessionReference`.
    """

    def __init__(self, reference: SessionReference) -> None:
        self.reference = reference

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Pass a call on."""
        with readableErrors():
            answer = self.reference.remoteMessageReceived(broker, message, args, kw)
        if isinstance(answer, Deferred):
            answer.addErrback(_asReadable)
        return answer


async def attachStockClient(wrapper: Any, serviceName: str, mind: Any) -> StockReference:
    """
    Attach a client of stock Twisted, whose way to log out is to drop its reference.

    Args:
        wrapper: its `IdentityWrapper`.
        serviceName: the service that such clients get.
        mind: a reference to the client's object, or `None`.

    Returns:
        The perspective.
    """
    reference = StockReference(await wrapper.attach(serviceName, None, mind))
    session = reference.reference.session
    # As Twisted's own login does.
    whenReleased(session.broker, reference, lambda: session.end(EndReason.DETACHED))
    return reference


class LegacyIdentity(WireObject):
    """
    What a client of Twisted 1.x holds that has proved who it is.

    Args:
        wrapper: its `IdentityWrapper`, where the methods are described.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper

    async def remote_attach(self, serviceName: Any, perspectiveName: Any, client: Any) -> Any:
        """Attach the client to a perspective."""
        with readableErrors():
            return StockReference(await self._wrapper.attach(serviceName, perspectiveName, client))

    async def remote_detach(self, perspective: Any) -> None:
        """End one session."""
        with readableErrors():
            await self._wrapper.remote_detach(getattr(perspective, "reference", None))

    async def remote_keys(self) -> Any:
        """Return the keys on the keyring."""
        with readableErrors():
            return await self._wrapper.remote_keys()


class LegacyChallenger(WireObject):
    """
    Takes the response of a client of Twisted 1.x.

    Args:
        challenger: the `AuthChallenger` that checks it.
    """

    def __init__(self, challenger: Any) -> None:
        self._challenger = challenger

    async def remote_respond(self, response: Any) -> Any:
        """
        Take the response.

        Returns:
            The identity, or `None` if the password was wrong.
        """
        with readableErrors():
            try:
                _, wrapper = await self._challenger.prove(response)
            except Unauthorized:
                return None
            return LegacyIdentity(wrapper)


class StockChallenger(WireObject):
    """
    Takes the response of a client of stock Twisted.

    Args:
        challenger: the `AuthChallenger` that checks it.
        serviceName: the service that such clients get.
    """

    def __init__(self, challenger: Any, serviceName: str) -> None:
        self._challenger = challenger
        self._serviceName = serviceName

    async def remote_respond(self, response: Any, mind: Any = None) -> Any:
        """
        Take the response.

        Args:
            response: by PB-MD5.
            mind: a reference to the client's object, or `None`.

        Returns:
            The identity's perspective of the service.
        """
        with readableErrors():
            _, wrapper = await self._challenger.prove(response)
            return await attachStockClient(wrapper, self._serviceName, mind)
