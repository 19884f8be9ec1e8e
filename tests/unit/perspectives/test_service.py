"""Services: where perspectives come from."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService as IAnyService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from pbauth import InvalidName, KeyNotFound, Perspective, Service
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService


class ServiceTests(SynchronousTestCase):
    """The members of a service, one by one."""

    def setUp(self) -> None:
        self.parent = MultiService()
        self.service = Service("game", self.parent, None)

    def test_isService(self) -> None:
        """It is a service of Twisted's, under its parent, by its name."""
        self.assertTrue(IAnyService.providedBy(self.service))
        self.assertIs(self.parent.getServiceNamed("game"), self.service)
        self.assertEqual(self.service.getServiceName(), "game")
        self.assertEqual(self.service.getServiceType(), "pbauth.perspectives.service.Service")
        self.parent.startService()
        self.assertTrue(self.service.running)

    def test_names(self) -> None:
        """The name of a service is a name."""
        with self.assertRaises(TypeError):
            Service(b"game")
        with self.assertRaises(InvalidName):
            Service("")

    def test_createPerspective(self) -> None:
        """What it makes is of its class, its own, and listed."""

        class Player(Perspective):
            pass

        self.assertIs(Service.perspectiveClass, Perspective)
        self.service.perspectiveClass = Player
        perspective = self.service.createPerspective("black")
        self.assertIsInstance(perspective, Player)
        self.assertIs(perspective.getService(), self.service)
        self.assertEqual(self.service.perspectives, {"black": perspective})

    def test_addPerspective(self) -> None:
        """An existing one becomes its own; what is no perspective is refused."""
        perspective = Perspective("black")
        self.service.addPerspective(perspective)
        self.assertIs(perspective.getService(), self.service)
        self.assertIs(self.service.getPerspectiveNamed("black"), perspective)
        for thing in (None, "black", object()):
            with self.assertRaises(TypeError):
                self.service.addPerspective(thing)

    def test_getPerspectiveNamed(self) -> None:
        """What is not listed is a `KeyError`."""
        with self.assertRaises(KeyError):
            self.service.getPerspectiveNamed("black")

    def test_getPerspectiveRequest(self) -> None:
        """Listed, else loaded, else `KeyNotFound`."""
        perspective = self.service.createPerspective("black")
        request = self.service.getPerspectiveRequest("black")
        self.assertIs(self.successResultOf(request), perspective)
        failure = self.failureResultOf(self.service.getPerspectiveRequest("white"), KeyNotFound)
        self.assertEqual(failure.value.serviceName, "game")
        self.assertEqual(failure.value.perspectiveName, "white")

    def test_getPerspectiveForIdentity(self) -> None:
        """By default the identity does not matter."""
        perspective = self.service.createPerspective("black")
        request = self.service.getPerspectiveForIdentity("black", None)
        self.assertIs(self.successResultOf(request), perspective)

    def test_onTheFly(self) -> None:
        """`getPerspectiveNamed` may be overridden to create perspectives."""

        class OnTheFly(Service):
            def getPerspectiveNamed(self, name: str) -> Any:
                return self.perspectives.get(name) or self.createPerspective(name)

        service = OnTheFly("game")
        one, again = (
            self.successResultOf(service.getPerspectiveRequest("black")) for _ in range(2)
        )
        self.assertIs(one, again)

    def test_cache(self) -> None:
        """What is cached is listed until it is uncached as often; what was listed, stays."""
        loaded = Perspective("loaded")
        for _ in range(2):
            self.service.cachePerspective(loaded)
        self.service.uncachePerspective(loaded)
        self.assertIs(self.service.getPerspectiveNamed("loaded"), loaded)
        self.service.uncachePerspective(loaded)
        self.assertEqual(self.service.perspectives, {})
        listed = self.service.createPerspective("listed")
        self.service.cachePerspective(listed)
        self.service.uncachePerspective(listed)
        self.service.uncachePerspective(loaded)
        self.assertEqual(self.service.perspectives, {"listed": listed})


class LoadingTests(SynchronousTestCase):
    """`loadPerspective`, from wherever."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.game = RecordingService("game", self.memory.services, self.memory.authorizer)
        self.memory.addUser("alice", "secret", ("game", "alice"))
        self.loaded: list[Any] = []
        self.game.loadPerspective = self.load

    def load(self, name: str) -> Any:
        """Load a perspective, and remember it."""
        self.loaded.append(RecordingPerspective(name))
        return self.loaded[-1]

    def attach(self) -> Any:
        """Log alice in."""
        return self.successResultOf(self.memory.logIn("alice", "secret", "game"))

    def test_cachedWhileAttached(self) -> None:
        """It is loaded for the first client, and forgotten after the last."""
        one, other = self.attach(), self.attach()
        self.assertEqual(self.game.perspectives, {"alice": self.loaded[0]})
        self.memory.disconnect(one)
        self.attach()
        self.assertEqual(len(self.loaded), 1)
        for pump in self.memory.pumps:
            pump.clientIO.loseConnection()
        self.memory.flush()
        self.assertEqual(self.game.perspectives, {})
        self.attach()
        self.assertEqual(len(self.loaded), 2)
        self.assertTrue(other.broker.disconnected)

    def test_asksWhileLoading(self) -> None:
        """Who asks while it is being loaded gets the same object."""
        loading: Deferred[Any] = Deferred()
        asked = []

        def load(name: str) -> Deferred[Any]:
            asked.append(name)
            return loading

        self.game.loadPerspective = load
        requests = [self.game.getPerspectiveRequest("alice") for _ in range(3)]
        perspective = RecordingPerspective("alice")
        loading.callback(perspective)
        for request in requests:
            self.assertIs(self.successResultOf(request), perspective)
        self.assertEqual(asked, ["alice"])
        self.assertIs(perspective.getService(), self.game)

    def test_failsWhileLoading(self) -> None:
        """Who waits for what fails to load is told; the next one loads anew."""
        loading: Deferred[Any] = Deferred()
        self.game.loadPerspective = lambda name: loading
        requests = [self.game.getPerspectiveRequest("alice") for _ in range(3)]
        loading.errback(ZeroDivisionError())
        for request in requests:
            self.failureResultOf(request, ZeroDivisionError)
        self.game.loadPerspective = self.load
        self.successResultOf(self.game.getPerspectiveRequest("alice"))

    def test_anyForm(self) -> None:
        """A plain value, a coroutine or a Deferred."""

        async def coroutine(value: Any) -> Any:
            return value

        for wrap in (lambda value: value, coroutine, succeed):
            self.game.loadPerspective = lambda name, wrap=wrap: wrap(RecordingPerspective(name))  # type: ignore[misc]
            perspective = self.attach()
            self.memory.disconnect(perspective)
        self.assertEqual(self.game.kinds(), ["attached", "detached"] * 3)

    def test_refusal(self) -> None:
        """What can't be loaded is `KeyNotFound` for the client."""
        self.game.loadPerspective = lambda name: fail(KeyNotFound("game", name))
        self.failureResultOf(self.memory.logIn("alice", "secret", "game"), KeyNotFound)

    def test_nonsense(self) -> None:
        """What loads something else than a perspective is told so."""
        self.game.loadPerspective = lambda name: "perspective"  # type: ignore[return-value]
        self.failureResultOf(self.memory.logIn("alice", "secret", "game"))
        (logged,) = self.flushLoggedErrors(TypeError)
        self.assertIn("must return a perspective, not str", str(logged.value))
