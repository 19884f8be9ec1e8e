"""Two of pbauth's brokers, connected in memory, without a login."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import jelly, pb
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

    def connect(
        self,
        kind: type[Broker] = Broker,
        client: type[pb.Broker] | None = None,
        security: Any = jelly.globalSecurity,
    ) -> None:
        """
        Connect.

        Args:
            kind: of the brokers.
            client: of the client's, if it is another one.
            security: of the server.
        """
        self.root = Root()
        server = pb.PBServerFactory(self.root, security=security)
        factory = pb.PBClientFactory()
        server.protocol, factory.protocol = kind, client or kind
        self.server: Any = server.buildProtocol(None)
        self.client: Any = factory.buildProtocol(None)
        _, _, self.pump = iosim.connectedServerAndClient(
            lambda: self.server, lambda: self.client, greet=True
        )
        opening = factory.getRootObject()
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
