"""The logins that stand on a connection, and what becomes of it when none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.testing import StringTransport

from pbauth import Detached, DropReason, IdentityConnector, Password, Policy
from pbauth.login.attempts import CLOSING_TIME, LAST_WORDS
from tests.support.wire import WireTestCase


class StandingTests(WireTestCase):
    """One connection, and accounts that change."""

    def setUp(self) -> None:
        super().setUp()
        self.bob = self.memory.addUser("bob", "secret", ("game", "bob"))

    def logInOn(self, root: Any, name: str) -> Any:
        """Log in on a connection, and give the `IdentityWrapper`."""
        client, challenger = self.scram(root, name)
        _, identity = self.answer(challenger, "respond", client.get_client_final().encode())
        return identity

    def attach(self) -> Any:
        """Log alice in, and attach her to two perspectives on one connection."""
        connector = IdentityConnector(
            self.memory, None, "alice", Password("secret"), reactor=self.memory.clock
        )
        request = connector.requestService("game", "alice")
        self.memory.flush()
        perspective = self.successResultOf(request)
        connector.requestService("game", "shared")
        self.memory.flush()
        return perspective

    def assertDropped(self, reference: Any) -> None:
        """The connection is closed after a second in which calls are answered."""
        self.assertIsInstance(self.refusal(reference, "whoami"), Detached)
        self.assertFalse(reference.broker.disconnected)
        self.memory.advance(LAST_WORDS)
        self.assertTrue(reference.broker.disconnected)
        self.assertEqual(len(self.memory.authorizer.sessions.logins), 0)

    def test_whatEndsALogin(self) -> None:
        """Locking, removing, and another password: nothing stands any more."""

        def lock() -> None:
            self.alice.locked = True

        def remove() -> None:
            self.memory.authorizer.removeIdentity("alice")

        def reset() -> None:
            self.alice.setPassword("other")
            self.alice.save()

        changes: list[Callable[[], None]] = [lock, remove, reset]
        for change in changes:
            self.serve()
            perspective = self.attach()
            change()
            self.assertDropped(perspective)

    def test_withoutASession(self) -> None:
        """A connection on which nobody has attached yet is dropped as well."""
        identity = self.identity()
        self.alice.locked = True
        self.memory.advance(LAST_WORDS)
        self.assertTrue(identity.broker.disconnected)

    def test_whatDoesNot(self) -> None:
        """A key, or a session, is not what a login rests on."""
        perspective = self.attach()
        self.alice.removeKey("game", "shared")
        for session in self.memory.authorizer.sessions:
            self.memory.authorizer.sessions.end(session)
        self.memory.advance(60)
        self.assertFalse(perspective.broker.disconnected)
        self.assertEqual(len(self.memory.authorizer.sessions.logins), 1)

    def test_anotherOneStands(self) -> None:
        """What somebody else has proved on the same connection goes on."""
        root = self.root()
        self.logInOn(root, "alice")
        bob = self.answer(self.logInOn(root, "bob"), "attach", "game", "bob", None)
        self.alice.locked = True
        self.memory.advance(60)
        self.assertEqual(self.answer(bob, "whoami"), "bob")
        self.bob.locked = True
        self.assertDropped(bob)

    def test_again(self) -> None:
        """Who logs in once more before the connection is closed keeps it."""
        root = self.root()
        self.logInOn(root, "alice")
        self.alice.locked = True
        self.memory.advance(LAST_WORDS / 2)
        bob = self.answer(self.logInOn(root, "bob"), "attach", "game", "bob", None)
        self.memory.advance(60)
        self.assertEqual(self.answer(bob, "whoami"), "bob")

    def test_countedOnce(self) -> None:
        """However often somebody logs in on one connection, nothing grows."""
        root = self.root()
        for _ in range(20):
            self.logInOn(root, "alice")
        self.assertEqual(len(self.memory.authorizer.sessions.logins), 1)
        self.memory.disconnect(root)
        self.assertEqual(len(self.memory.authorizer.sessions.logins), 0)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_closedMeanwhile(self) -> None:
        """If the client closes it first, nothing is left to do."""
        perspective = self.attach()
        self.alice.locked = True
        self.memory.disconnect(perspective)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_recorded(self) -> None:
        """The operator sees why."""
        dropped: list[Any] = []
        audit = self.memory.authorizer.sessions.audit
        self.patch(audit, "dropped", lambda origin, reason, *more: dropped.append(reason))
        self.attach()
        self.alice.locked = True
        self.memory.advance(LAST_WORDS)
        self.assertEqual(dropped, [DropReason.NO_LOGIN])

    def test_takesNothing(self) -> None:
        """A client that does not take what was written is cut off a little later."""
        perspective = self.attach()
        server = next(iter(self.memory.authorizer.sessions.logins)).broker
        stuck = StringTransport()
        cut: list[bool] = []
        stuck.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        server.transport = stuck
        self.alice.locked = True
        self.memory.clock.advance(LAST_WORDS)
        self.assertEqual((stuck.disconnecting, cut), (True, []))
        self.memory.clock.advance(CLOSING_TIME)
        self.assertEqual(cut, [True])
        self.assertFalse(perspective.broker.disconnected)

    def test_ownPassword(self) -> None:
        """Who changes the own password stays, on this connection; others are dropped."""
        self.serve(Policy())
        mine, other = self.attach(), self.attach()
        verifier = self.memory.authorizer.hashing.makeVerifiers("other", b"s" * 16)["SCRAM-SHA-256"]
        wrapper = self.logInOn(self.rootOf(mine), "alice")
        self.answer(wrapper, "changePassword", verifier.encode())
        self.memory.advance(60)
        self.assertTrue(other.broker.disconnected)
        self.assertEqual(self.answer(mine, "whoami"), "alice")

    def rootOf(self, reference: Any) -> Any:
        """The root object of a connection."""
        return reference.broker.remoteForName("root")
