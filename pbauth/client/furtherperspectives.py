"""Further perspectives of a client that stays logged in, on the same connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth._async import OneShot
from pbauth._calling import send
from pbauth.client.reconnect import isFinal, nextRefusal
from pbauth.errors import Detached, NotAttached
from pbauth.interfaces import Reactor, WireValue

_log = Logger()

#: Seconds until it is attached again, after it could not be, or the server has ended the session.
PAUSE = 1.0

#: So many calls wait until it is attached again; more fail with `NotAttached`.
MOST_WAITING = 100

_LOST = (pb.PBConnectionLost, pb.DeadReferenceError)


class FurtherPerspective:
    """
    A further perspective of a `PerspectiveClient`: it comes back whenever the client logs in again.

    Args:
        serviceName: the service.
        perspectiveName: the perspective.
        client: an object that the server may call back, or `None`.
        clock: provides `IReactorTime`.
        closed: called when it is closed, with this object.
    """

    def __init__(
        self,
        serviceName: str,
        perspectiveName: str,
        client: pb.Referenceable | None,
        clock: Reactor,
        closed: Callable[[FurtherPerspective], None],
    ) -> None:
        self._key = serviceName, perspectiveName
        self._client = client
        self.clock: Any = clock
        self._closed = closed
        self._identity: Any = None
        self._reference: Any = None
        self._wasAttached = False
        self._served = OneShot()
        self._waiting = 0
        #: Why it will not come back.
        self._ended: Failure | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'/'.join(self._key)}>"

    def whenAttached(self) -> Deferred[pb.RemoteReference]:
        """
        Wait for the current perspective.

        Returns:
            Fires with a reference to it, which is good for one session. Fails with the reason if it
            does not come back, and with `NotAttached` if it was closed.
        """
        if self._ended is not None:
            return fail(self._ended)
        if self._reference is not None and not self._reference.broker.disconnected:
            return succeed(self._reference)
        return self._served.wait().addCallback(lambda _: self.whenAttached())

    def callRemote(self, _name: str, *args: WireValue, **kw: WireValue) -> Deferred[WireValue]:
        """
        Call a method of the current perspective, once there is one; see
        `PerspectiveClient.callRemote`.

        Args:
            _name: of the method.
            args: for the method, and so are those by name.

        Returns:
            Fires with the answer; fails as the method does, or with `NotAttached` if too many calls
            wait already.
        """
        if self._waiting >= MOST_WAITING:
            return fail(NotAttached(f"{MOST_WAITING} calls are waiting already."))
        self._waiting += 1

        def noLonger(result: Any) -> Any:
            self._waiting -= 1
            return result

        there = self.whenAttached().addBoth(noLonger)
        return there.addCallback(lambda reference: send(reference, _name, args, kw))

    def close(self) -> Deferred[None]:
        """
        Detach from this perspective; the client stays logged in.

        Returns:
            Fires when `detached` has run on the server, or the connection is gone.
        """
        self._closed(self)
        identity, reference = self._identity, self._reference
        self.end(Failure(NotAttached("The perspective was closed.")))
        if reference is None or reference.broker.disconnected:
            return succeed(None)
        detached: Deferred[None] = send(identity, "detach", (reference,), {})
        return detached.addErrback(lambda failure: failure.trap(Detached, *_LOST) and None)

    # The client calls these.

    def begin(self, identity: Any) -> None:
        """
        Attach, after a login.

        Args:
            identity: a reference to the `IdentityWrapper` of the connection.
        """
        self._identity = identity
        attaching = send(identity, "attach", (*self._key, self._client), {})
        attaching.addCallbacks(
            self._attached, self._failed, callbackArgs=(identity,), errbackArgs=(identity,)
        )

    def lost(self) -> None:
        """Take note that the connection is gone."""
        self._identity = self._reference = None

    def end(self, reason: Failure) -> None:
        """
        Take note that it does not come back.

        Args:
            reason: why.
        """
        self._ended = reason
        self.lost()
        served, self._served = self._served, OneShot()
        served.fail(reason)

    def restart(self) -> None:
        """Come back with the next login, after all."""
        self._ended = None

    def _attached(self, reference: Any, identity: Any) -> None:
        if identity is not self._identity:
            return
        self._reference = reference
        self._wasAttached = True
        reference.broker.endings.watch(
            reference.luid, lambda reason: self._sessionEnded(reference, reason)
        )
        served, self._served = self._served, OneShot()
        served.fire()

    def _failed(self, failure: Failure, identity: Any) -> None:
        if identity is not self._identity or failure.check(*_LOST):
            return
        error: Any = failure.value
        if isFinal(error) or not self._wasAttached:
            self.end(failure)
        else:
            _log.info("{perspective!r} is not attached: {text}", perspective=self, text=str(error))
            self.clock.callLater(PAUSE, self._again, identity)

    def _sessionEnded(self, reference: Any, reason: str) -> None:
        if reference is not self._reference:
            return
        self._reference = None
        refusal = nextRefusal(Detached(reason), *self._key)
        if refusal is not None:
            self.end(Failure(refusal))
        else:
            self.clock.callLater(PAUSE, self._again, self._identity)

    def _again(self, identity: Any) -> None:
        if identity is self._identity and identity is not None and not identity.broker.disconnected:
            self.begin(identity)
