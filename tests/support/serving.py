"""What tests share that serve on a real port, to processes of their own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from pbauth.testing import RecordingPerspective, RecordingService


class AwaitedService(RecordingService):
    """A service whose events can be waited for."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def whenHappened(self, events: int) -> Deferred[None]:
        """Wait until so many events have happened."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((events, waiter))
        self.happened()
        return waiter

    def happened(self) -> None:
        """Tell those who have waited long enough."""
        for item in list(self._waiting):
            if len(self.events) >= item[0]:
                self._waiting.remove(item)
                item[1].callback(None)


class AwaitedPerspective(RecordingPerspective):
    """A perspective of an `AwaitedService`, with its last client at hand."""

    client: Any = None

    def _record(self, kind: str, clientref: Any, identity: Any) -> None:
        super()._record(kind, clientref, identity)
        self.client = clientref if kind == "attached" else None
        self.getService().happened()


class ServingTestCase(TestCase):
    """Listens on loopback; after the test all connections are closed."""

    def listen(self, factory: Any) -> int:
        """Listen, and give the port."""
        from twisted.internet import reactor as running

        reactor: Any = running
        closed: list[Deferred[None]] = []
        build = factory.buildProtocol

        def buildProtocol(address: Any) -> Any:
            broker = build(address)
            closed.append(Deferred())
            broker.notifyOnDisconnect(lambda ended=closed[-1]: ended.callback(None))
            return broker

        factory.buildProtocol = buildProtocol
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        # In this order, after the clients were ended: cleanups run last to first.
        self.addCleanup(lambda: gatherResults(closed))
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)
