"""Who is attached to a service, and who comes and goes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pbauth import EndReason, IPresence, ISessionObserver, NobodyAttached, Service
from pbauth.perspectives.clients import Clients
from pbauth.perspectives.presence import Presence
from pbauth.testing import RecordingPerspective, RecordingService
from tests.support.wire import WireTestCase


class Screen(pb.Referenceable):
    """A client's own object."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.answer: Any = None

    def remote_show(self, what: Any) -> Any:
        self.shown.append(what)
        return self.answer


@implementer(ISessionObserver)
class Observer:
    """Takes notes."""

    def __init__(self, notes: list[Any]) -> None:
        self.notes = notes

    def sessionAttached(self, session: Any) -> None:
        self.notes.append(("attached", session.identity.name, session.live))

    def sessionDetached(self, session: Any) -> None:
        self.notes.append(("detached", session.identity.name, session.endReason.value))


class Broken(Observer):
    """Raises."""

    def sessionAttached(self, session: Any) -> None:
        raise ZeroDivisionError

    def sessionDetached(self, session: Any) -> None:
        raise ZeroDivisionError


class Watching(RecordingService):
    """Takes notes of its own sessions."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.notes: list[Any] = []

    def sessionAttached(self, session: Any) -> None:
        self.notes.append(("attached", session.identity.name, session in self.online()))

    def sessionDetached(self, session: Any) -> None:
        self.notes.append(("detached", session.identity.name, session in self.online()))


class Refusing(RecordingPerspective):
    """Takes nobody."""

    def attached(self, clientref: Any, identity: Any) -> Any:
        raise ZeroDivisionError


class PresenceTests(WireTestCase):
    """Alice and Bob come and go."""

    def setUp(self) -> None:
        super().setUp()
        self.memory.addUser("bob", "secret", ("game", "bob"), ("hall", "bob"))

    def attach(self, name: str, service: str = "game", **options: Any) -> Any:
        """Log in."""
        return self.successResultOf(self.login(name, "secret", service, **options))

    def names(self, service: Any) -> list[str]:
        """The names of those who are there."""
        return [session.identity.name for session in service.online()]

    def test_interfaces(self) -> None:
        """They are provided."""
        verifyObject(IPresence, Presence("game", None))
        verifyObject(ISessionObserver, self.game)
        self.assertTrue(verifyObject(IPresence, IPresence(self.game)))

    def test_online(self) -> None:
        """Who is there, since when; another service has nothing to do with it."""
        hall = RecordingService("hall", self.memory.services, self.memory.authorizer)
        self.assertEqual(self.game.online(), [])
        self.attach("alice")
        self.memory.advance(5)
        bob = self.attach("bob")
        alice, other = self.game.online()
        self.assertEqual(other.since - alice.since, 5)
        self.assertEqual((alice.perspectiveName, alice.peer.host), ("alice", "127.0.0.1"))
        self.assertEqual(hall.online(), [])
        self.attach("bob", "hall")
        self.assertEqual(self.names(hall), ["bob"])
        self.memory.disconnect(bob)
        self.assertEqual((self.names(self.game), self.names(hall)), (["alice"], ["bob"]))

    def test_clients(self) -> None:
        """One call reaches all client objects of all perspectives."""
        screens = [Screen(), Screen()]
        self.failureResultOf(self.game.clients.callRemote("show", 0), NobodyAttached)
        alice = self.attach("alice", client=screens[0])
        self.attach("bob", client=screens[1])
        self.attach("bob")
        self.assertEqual((len(self.game.online()), len(self.game.clients)), (3, 2))
        answer = self.game.clients.callEach("show", 1)
        self.memory.flush()
        self.assertEqual(len(self.successResultOf(answer)), 2)
        self.assertEqual([screen.shown for screen in screens], [[1], [1]])
        self.memory.disconnect(alice)
        self.assertEqual(len(self.game.clients), 1)

    def test_notes(self) -> None:
        """A service, and observers of it, learn who comes and goes, each once."""
        game = Watching("watched", self.memory.services, self.memory.authorizer)
        self.alice.addKeyByString("watched", "alice")
        observer = Observer([])
        game.observeSessions(observer)
        alice = self.attach("alice", "watched")
        (session,) = game.online()
        self.memory.authorizer.sessions.end(session)
        self.memory.disconnect(alice)
        self.assertEqual(game.notes, [("attached", "alice", True), ("detached", "alice", False)])
        self.assertEqual(
            observer.notes,
            [("attached", "alice", True), ("detached", "alice", "ended by the administrator")],
        )
        game.unobserveSessions(observer)
        self.attach("alice", "watched")
        self.assertEqual(len(observer.notes), 2)
        with self.assertRaises(ValueError):
            game.unobserveSessions(observer)

    def test_broken(self) -> None:
        """An observer that fails is logged, and stops nothing."""
        notes: list[Any] = []
        for observer in (Broken([]), Observer(notes)):
            self.game.observeSessions(observer)
        self.memory.disconnect(self.attach("alice"))
        self.assertEqual([kind for kind, _, _ in notes], ["attached", "detached"])
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_refused(self) -> None:
        """Who was never attached was never there."""
        notes: list[Any] = []
        self.game.observeSessions(Observer(notes))
        self.game.addPerspective(Refusing("alice"))
        self.failureResultOf(self.login())
        self.flushLoggedErrors()
        self.assertEqual((notes, self.game.online(), len(self.game.clients)), ([], [], 0))

    def test_endedAtOnce(self) -> None:
        """An observer may end the session that it learns of."""
        ended: list[Any] = []

        class Bouncer(Observer):
            def sessionAttached(self, session: Any) -> None:
                super().sessionAttached(session)
                ended.append(session.end(EndReason.ADMINISTRATOR))

        notes: list[Any] = []
        self.game.observeSessions(Bouncer(notes))
        self.failureResultOf(self.login())
        self.assertEqual([kind for kind, _, _ in notes], ["attached", "detached"])
        self.assertEqual(self.game.online(), [])

    def test_wrong(self) -> None:
        """What is no observer is refused."""
        for method in (self.game.observeSessions, self.game.unobserveSessions):
            with self.assertRaises(TypeError):
                method(object())

    def test_ownUse(self) -> None:
        """A service may use the names for something else."""

        class Own(Service):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                self.clients = []  # type: ignore[assignment]

        self.assertEqual(Own("own").clients, [])


class BoundTests(WireTestCase):
    """Many clients are called."""

    def test_atOnce(self) -> None:
        """So many at once; others as these have answered, or are too slow."""
        clients = Clients("game", atOnce=2)
        screens = [Screen() for _ in range(5)]
        for screen in screens:
            screen.answer = Deferred()
            self.successResultOf(self.login(client=screen))
        for session in self.game.online():
            clients.joined(session)
        answer = clients.callRemote("show", "news", timeout=3)
        self.memory.flush()
        self.assertEqual([len(screen.shown) for screen in screens], [1, 1, 0, 0, 0])
        screens[1].answer.callback("seen")
        self.memory.flush()
        self.assertEqual([len(screen.shown) for screen in screens], [1, 1, 1, 0, 0])
        self.memory.advance(3)
        self.assertEqual([len(screen.shown) for screen in screens], [1, 1, 1, 1, 1])
        self.assertNoResult(answer)
        for screen in screens[3:]:
            screen.answer.callback("late")
        self.memory.flush()
        results = self.successResultOf(answer)
        self.assertEqual([success for success, _ in results], [False, True, False, True, True])
