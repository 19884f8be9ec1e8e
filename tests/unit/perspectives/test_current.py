"""Who is calling."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.spread import pb

from pbauth import Perspective, currentSession
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase


class Thing(pb.Referenceable):
    """Something that a perspective gives."""

    def remote_who(self) -> Any:
        return who()


def who() -> Any:
    """Tell who calls, as far as it is known."""
    session = currentSession()
    return None if session is None else (session.identity.name, session.perspectiveName)


class Player(RecordingPerspective):
    """Asks who calls, in every way."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: list[Any] = []
        self.waiting: list[Deferred[Any]] = []

    def attached(self, clientref: Any, identity: Any) -> Any:
        self.seen.append(("attached", who(), self.identityName))
        return super().attached(clientref, identity)

    def detached(self, clientref: Any, identity: Any) -> None:
        self.seen.append(("detached", who(), self.identityName))

    def perspective_who(self) -> Any:
        return who()

    def perspective_name(self) -> str:
        return self.identityName

    def _wait(self) -> Deferred[Any]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    async def perspective_later(self) -> Any:
        before = who()
        await self._wait()
        return before, who(), self.identityName

    @inlineCallbacks
    def perspective_inline(self) -> Any:
        yield self._wait()
        return who()

    def perspective_callback(self) -> Any:
        return self._wait().addCallback(lambda _: who())

    def perspective_raise(self) -> None:
        raise ZeroDivisionError

    def perspective_session(self) -> Any:
        session = currentSession()
        assert session is not None
        assert session.perspective is self
        return session.id, session.clientref, session.peer.host, session.live

    def perspective_thing(self) -> Thing:
        return Thing()


class Later(Player):
    """Welcomes its clients in coroutines."""

    async def attached(self, clientref: Any, identity: Any) -> Any:
        self.seen.append(("attached", who(), self.identityName))
        await succeed(None)
        await self._wait()
        self.seen.append(("attached", who(), self.identityName))
        return self

    async def detached(self, clientref: Any, identity: Any) -> None:  # type: ignore[override]
        await self._wait()
        self.seen.append(("detached", who(), self.identityName))


class Own(Perspective):
    """A perspective for one session."""

    def perspective_where(self) -> Any:
        return self.getService().getServiceName(), self.identityName, self.perspectiveName


class Giving(RecordingPerspective):
    """Gives each client a perspective of its own."""

    def attached(self, clientref: Any, identity: Any) -> Any:
        return Own(f"{identity.name}'s own")


class CurrentTests(WireTestCase):
    """Alice and Bob share a perspective."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Player
        self.memory.addUser("bob", "secret", ("game", "shared"))
        self.things = pb.Referenceable()
        self.alice = self.successResultOf(
            self.login("alice", "secret", "game", "shared", self.things)
        )
        self.bob = self.successResultOf(self.login("bob", "secret", "game", "shared"))
        self.player: Any = self.game.perspectives["shared"]

    def test_calls(self) -> None:
        """Each call knows whose it is; outside of calls there is nobody."""
        for _ in range(2):
            self.assertEqual(self.answer(self.alice, "who"), ("alice", "shared"))
            self.assertEqual(self.answer(self.bob, "who"), ("bob", "shared"))
        self.assertIsNone(currentSession())
        self.refusal(self.alice, "raise")
        self.assertIsNone(currentSession())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_waiting(self) -> None:
        """Coroutines know it after they have waited, though others have called meanwhile."""
        answers = [self.ask(who, "later") for who in (self.alice, self.bob, self.alice)]
        for waiting in reversed(self.player.waiting):
            waiting.callback(None)
        self.memory.flush()
        alice, bob = ("alice", "shared"), ("bob", "shared")
        self.assertEqual(
            [self.successResultOf(answer) for answer in answers],
            [(alice, alice, "alice"), (bob, bob, "bob"), (alice, alice, "alice")],
        )
        self.assertIsNone(currentSession())

    def test_inline(self) -> None:
        """So do functions with `inlineCallbacks`; callbacks know nothing."""
        inline = self.ask(self.bob, "inline")
        callback = self.ask(self.bob, "callback")
        for waiting in self.player.waiting:
            waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.successResultOf(inline), ("bob", "shared"))
        self.assertIsNone(self.successResultOf(callback))

    def test_session(self) -> None:
        """It says who, with what client object, from where."""
        sessions = {each.identity.name: each for each in self.memory.authorizer.sessions}
        answer = self.answer(self.alice, "session")
        self.assertEqual(answer[0], sessions["alice"].id)
        self.assertIs(answer[1], self.things)
        self.assertEqual(answer[2:], ("127.0.0.1", True))

    def test_things(self) -> None:
        """Methods of the objects that a session was given also know."""
        thing = self.answer(self.bob, "thing")
        self.assertEqual(self.answer(thing, "who"), ("bob", "shared"))

    def test_names(self) -> None:
        """A perspective knows whom it is for, in calls; otherwise, who came first."""
        self.assertEqual(self.answer(self.bob, "name"), "bob")
        self.assertEqual(self.answer(self.alice, "name"), "alice")
        self.assertEqual(self.player.identityName, "alice")
        self.player.identityName = "carol"
        self.assertEqual(self.player.identityName, "carol")
        self.assertEqual(self.answer(self.bob, "name"), "bob")

    def test_attached(self) -> None:
        """So it does while clients come and go."""
        self.memory.disconnect(self.bob)
        self.assertEqual(
            self.player.seen,
            [
                ("attached", ("alice", "shared"), "alice"),
                ("attached", ("bob", "shared"), "bob"),
                ("detached", ("bob", "shared"), "bob"),
            ],
        )

    def test_attachedLater(self) -> None:
        """That is also so in coroutines."""
        self.game.addPerspective(Later("later"))
        later = self.game.perspectives["later"]
        identity = self.memory.authorizer.identities["bob"]
        identity.addKeyByString("game", "later")
        login = self.login("bob", "secret", "game", "later")
        later.waiting.pop().callback(None)
        self.memory.flush()
        self.memory.disconnect(self.successResultOf(login))
        later.waiting.pop().callback(None)
        bob = ("bob", "later")
        self.assertEqual(
            later.seen,
            [("attached", bob, "bob"), ("attached", bob, "bob"), ("detached", bob, "bob")],
        )

    def test_own(self) -> None:
        """A perspective that `attached` makes has its service, and knows whom it is for."""
        self.game.addPerspective(Giving("giving"))
        self.memory.authorizer.identities["bob"].addKeyByString("game", "giving")
        bob = self.successResultOf(self.login("bob", "secret", "game", "giving"))
        self.assertEqual(self.answer(bob, "where"), ("game", "bob", "bob's own"))
