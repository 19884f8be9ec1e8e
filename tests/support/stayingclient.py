"""Clients that stay logged in, on a server in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet import error as netError
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth import BackOff, Password, PerspectiveClient, Policy
from pbauth.client.reconnect import State
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase

REFUSED = netError.ConnectionRefusedError()

#: Remembers its key, so that many logins take one derivation.
SECRET = Password("secret")

#: Waits a second after each failure.
EVERY_SECOND = BackOff(longest=1, jitter=0)


class Player(RecordingPerspective):
    """Remembers what it was called with."""

    def perspective_note(self, what: Any) -> Any:
        notes = self.service.__dict__.setdefault("notes", [])
        notes.append(what)
        return what

    def perspective_wait(self) -> Any:
        self.service.answer = Deferred()
        return self.service.answer


class Watched(PerspectiveClient):
    """Keeps a list of what its hooks were told."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.told: list[str] = []

    def attached(self, perspective: Any) -> None:
        assert isinstance(perspective, pb.RemoteReference)
        self.told.append("attached")

    def detached(self) -> None:
        self.told.append("detached")

    def gaveUp(self, reason: Failure) -> None:
        self.told.append(f"gave up: {type(reason.value).__name__}")


class ClientTestCase(WireTestCase):
    """A server in memory, and clients of it."""

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        super().serve(policy, **options)
        self.game.perspectiveClass = Player

    def client(self, credentials: Any = SECRET, *more: Any, **options: Any) -> Watched:
        """Make a client."""
        options = {
            "username": "alice",
            "reactor": self.memory.clock,
            "retryPolicy": EVERY_SECOND,
            **options,
        }
        return Watched(self.memory, credentials, *(more or ("game",)), **options)

    def started(self, *args: Any, **options: Any) -> Watched:
        """Make a client, and start it."""
        client = self.client(*args, **options)
        client.startService()
        self.memory.flush()
        return client

    def state(self, client: PerspectiveClient) -> State:
        """The state of its machine, which its repr shows."""
        state = client._machine.state
        self.assertTrue(repr(client).endswith(f": {state.name.lower().replace('_', ' ')}>"))
        return state

    def call(self, client: PerspectiveClient, *call: Any, **keywords: Any) -> Deferred[Any]:
        """Call, and carry everything."""
        answer = client.callRemote(*call, **keywords)
        self.memory.flush()
        return answer

    def crash(self) -> None:
        """The server is gone: all connections are closed, and no others come to be."""
        self.memory.refusal = REFUSED
        for pump in self.memory.pumps:
            pump.serverIO.loseConnection()
        self.memory.flush()

    def reference(self, client: PerspectiveClient) -> Any:
        """The perspective that a client has."""
        return self.successResultOf(client.whenAttached())

    def assertQuiet(self, client: PerspectiveClient) -> None:
        """It does nothing any more."""
        self.memory.advance(300)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        for pump in self.memory.pumps:
            self.assertTrue(pump.clientIO.disconnected)

    def stop(self, client: PerspectiveClient) -> None:
        """Stop it, and see that it is stopped."""
        stopped = client.stopService()
        self.memory.flush()
        self.successResultOf(stopped)
        self.assertIs(self.state(client), State.STOPPED)
        self.assertFalse(client.running)
        self.assertQuiet(client)
