"""Two of pbauth's brokers, connected in memory, without a login."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Broker


class Root(pb.Root):
    """Gives what a test says."""

    result: Any = None

    def remote_give(self) -> Any:
        return self.result() if callable(self.result) else self.result

    def remote_take(self, *args: Any, **kw: Any) -> int:
        return len(args) + len(kw)


class PairTestCase(SynchronousTestCase):
    """Two brokers, connected."""

    def setUp(self) -> None:
        self.connect()

    def connect(self, kind: type[Broker] = Broker) -> None:
        """Connect."""
        self.root = Root()
        server = pb.PBServerFactory(self.root)
        client = pb.PBClientFactory()
        server.protocol = client.protocol = kind
        self.server: Any = server.buildProtocol(None)
        self.client: Any = client.buildProtocol(None)
        _, _, self.pump = iosim.connectedServerAndClient(
            lambda: self.server, lambda: self.client, greet=True
        )
        opening = client.getRootObject()
        self.pump.flush()
        self.reference = self.successResultOf(opening)

    def call(self, name: str, *args: Any, **kw: Any) -> Deferred[Any]:
        """Call a method of the root."""
        answer: Deferred[Any] = self.reference.callRemote(name, *args, **kw)
        self.pump.flush()
        return answer

    def assertNothingLeft(self) -> None:
        """Neither end holds anything for the other, and calls still work."""
        for broker in (self.client, self.server):
            self.assertEqual(broker.waitingForAnswers, {})
            self.assertEqual(broker.luids, {})
            self.assertEqual({*broker.localObjects} - {b"root"}, set())
            self.assertEqual((broker.remotelyCachedObjects, broker.remotelyCachedLUIDs), ({}, {}))
            self.assertEqual(broker.currentLocalID, 0)
        self.assertEqual(self.successResultOf(self.call("take", 1)), 1)
