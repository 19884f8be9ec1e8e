"""Perspectives: what a client may call."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import DuplicateIdentity, InvalidName, Perspective, Service, Unauthorized
from pbauth.errors import WireError
from pbauth.testing import MemoryServer, RecordingPerspective
from tests.support.wire import WireTestCase


class PerspectiveTests(SynchronousTestCase):
    """The members of a perspective, one by one."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.service = Service("game", self.memory.services, self.memory.authorizer)
        self.perspective = self.service.createPerspective("black")

    def test_names(self) -> None:
        """A perspective has a name, a service, and somebody whom it is for."""
        perspective = self.perspective
        self.assertEqual(perspective.perspectiveName, "black")
        self.assertEqual(perspective.getPerspectiveName(), "black")
        self.assertEqual(perspective.identityName, "Nobody")
        self.assertEqual(Perspective("black", "alice").identityName, "alice")
        self.assertIs(perspective.service, self.service)
        self.assertIs(perspective.getService(), self.service)
        self.assertIsNone(Perspective("white").getService())
        for bad in (b"black", None, 5):
            with self.assertRaises(TypeError):
                Perspective(bad)
        with self.assertRaises(InvalidName):
            Perspective("")

    def test_identity(self) -> None:
        """Whom it is for is asked of the authorizer."""
        alice = self.memory.addUser("alice", "secret")
        self.perspective.setIdentityName("alice")
        self.assertIs(self.successResultOf(self.perspective.getIdentityRequest()), alice)
        bob = self.memory.addUser("bob", "secret")
        self.perspective.setIdentity(bob)
        self.assertIs(self.successResultOf(self.perspective.getIdentityRequest()), bob)
        self.perspective.setIdentityName("mallory")
        self.failureResultOf(self.perspective.getIdentityRequest(), Unauthorized)
        self.failureResultOf(Perspective("white").getIdentityRequest(), Unauthorized)

    def test_makeIdentity(self) -> None:
        """All that a server with one service needs, in one call."""
        identity = self.perspective.makeIdentity("secret")
        self.assertEqual((identity.name, identity.getAllKeys()), ("black", [("game", "black")]))
        self.assertEqual(self.perspective.identityName, "black")
        self.successResultOf(self.memory.logIn("black", "secret", "game"))
        with self.assertRaises(DuplicateIdentity):
            self.perspective.makeIdentity("other")

    def test_attachedAndDetached(self) -> None:
        """By default the wire's calls reach `attached` and `detached`, which give `self`."""
        alice = self.memory.addUser("alice", "secret")
        given = self.perspective.brokerAttached(None, alice, None)
        self.assertIs(given, self.perspective)
        self.perspective.brokerDetached(None, alice, None)

    def test_brokerHooks(self) -> None:
        """Who needs the broker overrides what the wire calls."""
        seen = []

        class WithBroker(Perspective):
            def brokerAttached(self, clientref: Any, identity: Any, broker: Any) -> Any:
                seen.append(broker)
                return super().brokerAttached(clientref, identity, broker)

            def brokerDetached(self, clientref: Any, identity: Any, broker: Any) -> Any:
                seen.append(broker)
                return super().brokerDetached(clientref, identity, broker)

        self.service.addPerspective(WithBroker("white"))
        self.memory.addUser("alice", "secret", ("game", "white"))
        self.memory.disconnect(
            self.successResultOf(self.memory.logIn("alice", "secret", "game", "white"))
        )
        self.assertEqual(seen, [self.memory.pumps[0].server] * 2)


class CallTests(WireTestCase):
    """What a client's calls come to."""

    def perspective(self, perspectiveClass: type) -> Any:
        """Attach a client to a perspective of this class."""
        self.game.perspectiveClass = perspectiveClass
        return self.successResultOf(self.login())

    def test_onlyItsMethods(self) -> None:
        """Only methods named `perspective_...` are reachable."""
        perspective = self.perspective(RecordingPerspective)
        for name in ("attached", "getService", "perspective_whoami", "__init__", "", "service"):
            error = self.failureResultOf(self.ask(perspective, name))
            self.assertTrue(error.check(pb.NoSuchMethod), name)
        self.assertEqual(len(self.flushLoggedErrors(pb.NoSuchMethod)), 6)

    def test_anyForm(self) -> None:
        """Methods return plain values or Deferreds, or are coroutines; they take arguments."""

        class Player(RecordingPerspective):
            def perspective_plain(self, x: int, y: int = 0) -> Any:
                return (x, y)

            def perspective_deferred(self, x: int, y: int = 0) -> Any:
                return succeed((x, y))

            async def perspective_coroutine(self, x: int, y: int = 0) -> Any:
                return await succeed((x, y))

        perspective = self.perspective(Player)
        for name in ("plain", "deferred", "coroutine"):
            self.assertEqual(self.answer(perspective, name, 1, y=2), (1, 2))

    def test_bugs(self) -> None:
        """A bug reaches the client as PB does it, and the log, whatever the method's form."""

        class Player(RecordingPerspective):
            def perspective_plain(self) -> Any:
                raise ZeroDivisionError("a bug")

            def perspective_deferred(self) -> Any:
                return fail(ZeroDivisionError("a bug"))

            async def perspective_coroutine(self) -> Any:
                raise ZeroDivisionError("a bug")

        perspective = self.perspective(Player)
        for name in ("plain", "deferred", "coroutine"):
            failure = self.failureResultOf(self.ask(perspective, name))
            self.assertTrue(failure.check(ZeroDivisionError))
            self.assertIn("a bug", str(failure.value))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_errorsOfTheApplication(self) -> None:
        """An application's own error crosses as itself, and is not logged."""
        perspective = self.perspective(Referee)
        error = self.refusal(perspective, "move")
        self.assertIsInstance(error, IllegalMove)
        self.assertEqual(error.point, "D4")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_viewables(self) -> None:
        """A `Viewable` learns which perspective calls it."""

        class Player(RecordingPerspective):
            def perspective_now(self) -> Any:
                return BOARD

            def perspective_later(self) -> Any:
                return LATER

        LATER: Deferred[Any] = Deferred()
        perspective = self.perspective(Player)
        board = self.answer(perspective, "now")
        self.assertEqual(self.answer(board, "player", "x"), ("alice", "x"))
        later = self.ask(perspective, "later")
        LATER.callback(BOARD)
        self.memory.flush()
        self.assertEqual(self.answer(self.successResultOf(later), "player", "y"), ("alice", "y"))

    def test_eachItsOwnView(self) -> None:
        """The same `Viewable` knows two clients apart."""

        class Player(RecordingPerspective):
            def perspective_now(self) -> Any:
                return BOARD

        one = self.perspective(Player)
        other = self.successResultOf(self.login("alice", "secret", "game", "shared"))
        boards = [self.answer(each, "now") for each in (one, other)]
        self.assertEqual(
            [self.answer(board, "player", 0)[0] for board in boards], ["alice", "shared"]
        )

    def test_viewablesForTheClientsObject(self) -> None:
        """What is sent to the client's own object knows the perspective, too."""
        given = []

        class Client(pb.Referenceable):
            def remote_board(self, board: Any) -> None:
                given.append(board)

        class Player(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                clientref.callRemote("board", BOARD)
                return self

        self.game.perspectiveClass = Player
        self.successResultOf(self.login("alice", "secret", "game", client=Client()))
        self.assertEqual(self.answer(given[0], "player", 1), ("alice", 1))

    def test_copyables(self) -> None:
        """`getStateToCopyFor` gets the perspective that the copy is for."""

        class Player(RecordingPerspective):
            def perspective_cards(self) -> Any:
                return Hand()

        perspective = self.perspective(Player)
        self.assertEqual(self.answer(perspective, "cards").owner, "alice")

    def test_cacheables(self) -> None:
        """A `Cacheable` gets the perspective of its observer, from the first to the last."""
        table = Table()

        class Player(RecordingPerspective):
            def perspective_table(self) -> Any:
                return table

        perspective = self.perspective(Player)
        seen = self.answer(perspective, "table")
        self.assertEqual(seen.owner, "alice")
        table.observer.callRemote("moved", "D4").addErrback(self.fail)
        self.memory.flush()
        self.assertEqual(seen.last, "D4")
        self.memory.disconnect(perspective)
        self.assertEqual([each.perspectiveName for each in table.perspectives], ["alice", "alice"])


class Board(pb.Viewable):
    """Tells who looks at it."""

    def view_player(self, perspective: Any, argument: Any) -> Any:
        return (perspective.perspectiveName, argument)


BOARD = Board()


class IllegalMove(WireError):
    """An application's own error."""

    fields = {"point": str}  # noqa: RUF012

    def __init__(self, point: str) -> None:
        super().__init__(f"{point} is taken.")
        self.point = point


class Referee(RecordingPerspective):
    """Refuses moves."""

    def perspective_move(self) -> None:
        raise IllegalMove("D4")


class Hand(pb.Copyable):
    """Is another for each perspective."""

    def getStateToCopyFor(self, perspective: Any) -> Any:
        return {"owner": perspective.perspectiveName}


class RemoteHand(pb.RemoteCopy):
    """A client's copy of it."""


pb.setUnjellyableForClass(Hand, RemoteHand)


class Table(pb.Cacheable):
    """Tells its observer what happens."""

    def __init__(self) -> None:
        self.perspectives: list[Any] = []

    def getStateToCacheAndObserveFor(self, perspective: Any, observer: Any) -> Any:
        self.observer = observer
        self.perspectives.append(perspective)
        return {"owner": perspective.perspectiveName}

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        self.perspectives.append(perspective)


class RemoteTable(pb.RemoteCache):
    """A client's cache of it."""

    last = None

    def observe_moved(self, point: str) -> None:
        self.last = point


pb.setUnjellyableForClass(Table, RemoteTable)
