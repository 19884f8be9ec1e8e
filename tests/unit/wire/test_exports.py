"""Every way out: what leaves because of a session ends with it, and nothing else does."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth import Detached, EndReason, IdentityConnector, Password
from pbauth.testing import RecordingPerspective
from tests.support.pieces import Board, BoardCopy, Piece
from tests.support.wire import WireTestCase


class Handle(pb.Error, pb.Copyable):
    """An error with an object of the server's in its state."""

    def __init__(self, piece: Any = None) -> None:
        super().__init__("no")
        self.piece = piece


class RemoteHandle(pb.Error, pb.RemoteCopy):
    """What the client makes of it."""

    seen: Any = None

    def setCopyableState(self, state: Any) -> None:
        RemoteHandle.seen = state["piece"]


pb.setUnjellyableForClass(Handle, RemoteHandle)


class Last(pb.Copyable, pb.RemoteCopy):
    """Ends the session while it is serialised."""

    endMe: Any = None

    def getStateToCopy(self) -> Any:
        self.endMe()
        return {}


pb.setUnjellyableForClass(Last, Last)


class LastPiece(pb.Referenceable):
    """Ends the session while it is given a number."""

    endMe: Any = None

    def processUniqueID(self) -> int:
        endMe, self.endMe = self.endMe, None
        if endMe is not None:
            endMe()
        return super().processUniqueID()


class Ear(pb.Referenceable):
    """An object of the client's that keeps what it is told, and gives another one."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.other: Any = None

    def remote_hear(self, *things: Any) -> Any:
        self.heard.extend(things)
        return self.other

    def remote_another(self) -> Any:
        self.other = Ear()
        return self.other

    def remote_anotherAmongOthers(self) -> Any:
        self.other = Ear()
        # Not plain, so that Twisted's jelly reads it.
        return [{"it": self.other}, {1, 2}]


class Talker(RecordingPerspective):
    """Gives pieces in each way there is."""

    board = Board()
    shared = Piece("shared")
    greets = False

    def attached(self, clientref: Any, identity: Any) -> Any:
        self.client = clientref
        if self.greets:
            clientref.callRemote("hear", Piece("greeting"))
        return super().attached(clientref, identity)

    def perspective_tell(self) -> Any:
        return self.client.callRemote("hear", Piece("told"))

    def perspective_keep(self, ear: Any) -> Any:
        self.ear = ear
        return ear.callRemote("hear", Piece("kept"))

    def perspective_keepIn(self, ears: Any) -> Any:
        (self.ear,) = ears["ears"]
        return self.ear.callRemote("hear", Piece("kept"))

    async def perspective_another(self) -> Any:
        other = await self.client.callRemote("another")
        await other.callRemote("hear", Piece("another"))

    async def perspective_anotherAmongOthers(self) -> Any:
        found = await self.client.callRemote("anotherAmongOthers")
        await found[0]["it"].callRemote("hear", Piece("another"))

    async def perspective_tellLast(self) -> Any:
        await self.client.callRemote("hear")
        # The call that this belongs to fails while this is serialised.
        await self.client.callRemote("hear", self.last())

    def perspective_wait(self) -> Any:
        self.waiting: Deferred[Any] = Deferred()
        return self.waiting

    def perspective_fail(self) -> Any:
        raise Handle(Piece("failed"))

    async def perspective_failLater(self) -> Any:
        await self.client.callRemote("hear")
        raise Handle(Piece("failed"))

    def perspective_shared(self) -> Any:
        return self.shared

    def perspective_board(self) -> Any:
        return self.board

    def perspective_endYourself(self) -> Any:
        self.endMe()
        return Piece("too late")

    def perspective_endWhileSerialised(self, *names: str) -> Any:
        return [*(getattr(self, name) for name in names), self.last()]

    def perspective_endWhileNumbered(self) -> Any:
        piece = LastPiece()
        piece.endMe = self.endMe
        return ["plain", piece]

    def perspective_endAndFail(self, isOurs: bool) -> Any:
        self.endMe()
        raise Handle(Piece("failed")) if isOurs else ValueError("secret")

    async def perspective_endAndFailLater(self, isOurs: bool) -> Any:
        return self.perspective_endAndFail(isOurs)

    def perspective_endAndWait(self) -> Any:
        self.endMe()
        return Deferred()

    def last(self) -> Any:
        """What ends the session."""
        last = Last()
        last.endMe = self.endMe
        return last

    def perspective_failWhileSerialised(self) -> Any:
        raise Handle([Piece("failed"), self.last()])

    def perspective_endYourselfPlainly(self) -> Any:
        self.endMe()
        return "plain"


class ExportTests(WireTestCase):
    """One connection with one session or two, each with an object of the client's."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Talker
        Talker.board, Talker.shared, Talker.greets = Board(), Piece("shared"), False
        self.connector = IdentityConnector(
            self.memory, None, "alice", Password("secret"), reactor=self.memory.clock
        )

    def attach(self, name: str = "alice", client: Any = None) -> Any:
        """Attach to a perspective on the connection."""
        request = self.connector.requestService("game", name, client)
        self.memory.flush()
        return self.successResultOf(request)

    def perspective(self, name: str = "alice") -> Any:
        """The server's."""
        return self.session(name).perspective

    def session(self, name: str = "alice") -> Any:
        """The server's."""
        sessions = self.memory.authorizer.sessions
        (found,) = [each for each in sessions if each.perspectiveName == name]
        return found

    def end(self, name: str = "alice") -> None:
        """End a session."""
        self.successResultOf(self.session(name).end(EndReason.ADMINISTRATOR))
        self.memory.flush()

    def assertEnds(self, piece: Any, name: str) -> None:
        """It answers until the session has ended."""
        self.assertEqual(self.answer(piece, "name"), name)
        self.end()
        self.assertIsInstance(self.refusal(piece, "name"), Detached)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_toldToTheClient(self) -> None:
        """What the client's object is called with, in `attached`, too."""
        for greets, method in [(False, "tell"), (True, "whoami")]:
            Talker.greets = greets
            ear = Ear()
            self.answer(self.attach(client=ear), method)
            (piece,) = ear.heard
            self.assertEnds(piece, "greeting" if greets else "told")

    def test_endedWhileAttaching(self) -> None:
        """What a slow `attached` has told the client does not wait for it to end."""
        attaching: Deferred[Any] = Deferred()

        def attached(talker: Any, clientref: Any, identity: Any) -> Any:
            clientref.callRemote("hear", Piece("greeting"))
            talker.client = clientref
            return attaching

        self.patch(Talker, "attached", attached)
        ear = Ear()
        request = self.connector.requestService("game", "alice", ear)
        self.memory.flush()
        (greeting,) = ear.heard
        waiting = self.ask(greeting, "wait")
        (session,) = self.memory.authorizer.sessions
        session.end(EndReason.ADMINISTRATOR)
        self.memory.flush()
        self.failureResultOf(waiting, Detached)
        self.assertIsInstance(self.refusal(greeting, "name"), Detached)
        late = session.clientref.callRemote("hear", Piece("late"))
        self.failureResultOf(late, Detached)
        attaching.callback(Talker("alice"))
        self.memory.flush()
        self.failureResultOf(request, Detached)

    def test_referencesThatCameIn(self) -> None:
        """What is given by references that calls, and answers to them, brought in."""
        for method, argument in [
            ("keep", lambda ear: ear),
            ("keepIn", lambda ear: {"ears": [ear], "more": {1}}),
        ]:
            ear = Ear()
            self.answer(self.attach(), method, argument(ear))
            self.assertEnds(ear.heard[0], "kept")
        for method in ("another", "anotherAmongOthers"):
            ear = Ear()
            self.answer(self.attach(client=ear), method)
            self.assertEnds(ear.other.heard[0], "another")

    def test_errors(self) -> None:
        """What is in the state of an error."""
        for method in ("fail", "failLater"):
            self.refusal(self.attach(client=Ear()), method)
            self.assertEnds(RemoteHandle.seen, "failed")

    def test_errorThatCantBeSent(self) -> None:
        """An error whose state can't be had is told by its own name."""

        def wrong() -> None:
            raise SystemExit

        alice = self.attach()
        self.perspective().endMe = wrong
        refusal = self.refusal(alice, "failWhileSerialised")
        self.assertIn("Handle, an error that can't be sent", str(refusal))
        self.assertTrue(self.flushLoggedErrors(SystemExit))
        self.assertEqual(self.answer(self.answer(alice, "shared"), "name"), "shared")

    def test_updatesOfCaches(self) -> None:
        """What an observer is told."""
        heard: list[Any] = []
        BoardCopy.observe_told = lambda copy, piece: heard.append(piece)  # type: ignore[attr-defined]
        self.addCleanup(delattr, BoardCopy, "observe_told")
        board = self.answer(self.attach(), "board")
        (observer,) = Talker.board.observers
        observer.callRemote("told", Piece("update"))
        self.memory.flush()
        self.assertEnds(heard[0], "update")
        del board

    def test_afterTheEnd(self) -> None:
        """By a reference of an ended session nothing is given; what is plain still arrives."""
        ear, kept = Ear(), Ear()
        self.answer(self.attach(client=ear), "keep", kept)
        talker = self.perspective()
        server = self.session().broker
        self.end()
        before = dict(server.localObjects)
        for reference in (talker.client, talker.ear):
            self.failureResultOf(reference.callRemote("hear", Piece("late")), Detached)
            told = reference.callRemote("hear", "bye")
            self.memory.flush()
            self.successResultOf(told)
        self.assertEqual(server.localObjects, before)
        self.assertEqual((ear.heard[-1], kept.heard[-1]), ("bye", "bye"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_manyReferences(self) -> None:
        """That others of its references went does not make the object anybody's."""
        ear = Ear()
        alice = self.attach()
        self.answer(alice, "keep", ear)
        for _ in range(3):
            # Nothing keeps these.
            self.refusal(alice, "nonsense", ear)
            self.refusal(self.connector._identity, "nonsense", ear)
            self.refusal(self.connector._identity, "nonsense", {1: ear, 2: {3}})
        self.flushLoggedErrors(pb.NoSuchMethod)
        gc.collect()
        self.memory.flush()
        self.answer(alice, "keep", ear)
        self.assertEnds(ear.heard[-1], "kept")

    def test_methodThatEndsItsSession(self) -> None:
        """Its result goes nowhere, and is no object that may be called."""
        for method in ("endYourself", "endYourselfPlainly"):
            alice = self.attach()
            server = self.session().broker
            self.perspective().endMe = self.end
            numbers = set(server.localObjects)
            self.assertIsInstance(self.refusal(alice, method), Detached)
            self.assertLessEqual(set(server.localObjects), numbers)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_methodThatEndsItsSessionAndFails(self) -> None:
        """Its error goes nowhere, but to the log if it is a bug; nor does anybody wait for it."""
        for call in [
            ("endAndFail", True),
            ("endAndFail", False),
            ("endAndFailLater", True),
            ("endAndFailLater", False),
            ("endAndWait",),
            ("failWhileSerialised",),
        ]:
            alice = self.attach()
            server = self.session().broker
            self.perspective().endMe = self.end
            numbers = set(server.localObjects)
            self.assertIsInstance(self.refusal(alice, *call), Detached, call)
            self.assertLessEqual(set(server.localObjects), numbers)
            self.assertEqual(
                [each.type for each in self.flushLoggedErrors()],
                [ValueError] if False in call else [],
            )

    def test_endedWhileSerialised(self) -> None:
        """What was serialised before that is taken back, once; what follows goes nowhere."""
        for names in [(), ("board",), ("shared", "board"), ("board", "shared")]:
            alice = self.attach()
            server = self.session().broker
            self.perspective().endMe = self.end
            numbers = set(server.localObjects)
            self.assertIsInstance(self.refusal(alice, "endWhileSerialised", *names), Detached)
            self.assertLessEqual(set(server.localObjects), numbers)
            self.assertEqual(set(server.luids.values()), set(server.localObjects) - {b"root"})
            self.assertEqual(server.remotelyCachedLUIDs, {})
            self.assertEqual(Talker.board.observers, [])
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_endedWhileTold(self) -> None:
        """The state of what the client is told ends the session whose call that belongs to."""
        alice = self.attach(client=Ear())
        self.perspective().endMe = self.end
        self.assertIsInstance(self.refusal(alice, "tellLast"), Detached)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.answer(self.answer(self.attach(), "shared"), "name"), "shared")

    def test_otherAnswers(self) -> None:
        """Answers that are ready while something else is serialised are of their own sessions."""
        for name in ("result", "failed"):
            alice, other = self.attach(client=Ear()), self.attach("shared")
            waiting, answer = self.ask(other, "wait"), self.perspective("shared").waiting
            outcome = Piece(name) if name == "result" else Failure(Handle(Piece(name)))
            self.perspective().endMe = lambda ready=answer.callback, it=outcome: ready(it)
            self.answer(alice, "tellLast")
            if name == "result":
                piece = self.successResultOf(waiting)
            else:
                self.failureResultOf(waiting, RemoteHandle)
                piece = RemoteHandle.seen
            self.end()
            self.assertEqual(self.answer(piece, "name"), name)
            self.end("shared")

    def test_attachedMeanwhile(self) -> None:
        """A session that is attached while something is serialised for another is its own."""
        alice = self.attach(client=Ear())
        ready: Deferred[None] = Deferred()

        async def attached(talker: Any, clientref: Any, identity: Any) -> Any:
            await ready
            return talker

        self.patch(Talker, "attached", attached)
        request = self.connector.requestService("game", "shared")
        self.memory.flush()
        self.perspective().endMe = lambda: ready.callback(None)
        self.answer(alice, "tellLast")
        shared = self.successResultOf(request)
        self.end()
        self.assertEqual(self.answer(self.answer(shared, "shared"), "name"), "shared")

    def test_endedWhileNumbered(self) -> None:
        """An object that ends its session when it is about to be given is not given."""
        alice = self.attach()
        server = self.session().broker
        self.perspective().endMe = self.end
        numbers = set(server.localObjects)
        self.assertIsInstance(self.refusal(alice, "endWhileNumbered"), Detached)
        self.assertLessEqual(set(server.localObjects), numbers)

    def test_endedWhileSerialisedAsTwisted(self) -> None:
        """What is serialised as by Twisted is not sent either, once the session has ended."""
        alice = self.attach()
        self.session().broker.stockSerialization = True
        self.perspective().endMe = self.end
        self.assertIsInstance(self.refusal(alice, "endWhileSerialised"), Detached)

    def test_memory(self) -> None:
        """What the client, and what the server, has dropped is forgotten."""
        ear = Ear()
        alice = self.attach(client=ear)

        def exchange() -> None:
            self.answer(alice, "keep", Ear())
            self.answer(alice, "shared")
            self.answer(alice, "board")
            self.answer(alice, "tell")
            ear.heard.clear()
            gc.collect()
            self.memory.flush()

        exchange()
        exports = self.session().broker._exports
        before = len(exports)
        for _ in range(50):
            exchange()
        self.assertEqual(len(exports), before)

    def test_attachingAgain(self) -> None:
        """Sessions that have ended are not kept for the sake of a client's object that stays."""
        ear, ended = Ear(), []
        for _ in range(3):
            self.attach(client=ear)
            ended.append(weakref.ref(self.session()))
            self.end()
        gc.collect()
        self.assertEqual([each() for each in ended[:-1]], [None, None])

    def test_callsOfShared(self) -> None:
        """A call of what two sessions hold is answered while one lives, and not after both."""
        for first, last in [("alice", "shared"), ("shared", "alice")] * 4:
            Talker.shared = Piece("shared")
            pieces = [self.answer(self.attach(name), "shared") for name in (first, last)]
            call = self.ask(pieces[0], "wait")
            self.end(first)
            self.assertNoResult(call)
            Talker.shared.waiting.callback("answer")
            self.memory.flush()
            self.assertEqual(self.successResultOf(call), "answer")
            Talker.shared.waiting = Deferred()
            late = self.ask(pieces[0], "wait")
            self.end(last)
            self.failureResultOf(late, Detached)

    def test_laterBySharedAfterTheFirst(self) -> None:
        """What becomes ready after the first of two sessions has ended ends with the second."""
        alice, shared = self.attach(), self.attach("shared")
        piece = self.answer(alice, "shared")
        self.answer(shared, "shared")
        inner = self.ask(piece, "innerLater")
        exports = self.session().broker._exports
        self.end()
        Talker.shared.waiting.callback("now")
        self.memory.flush()
        late = self.successResultOf(inner)
        self.assertEqual(self.answer(late, "name"), "inner shared")
        self.end("shared")
        self.assertIsInstance(self.refusal(late, "name"), Detached)
        self.assertEqual(len(exports), 0)

    def test_sharedEarAfterTheFirst(self) -> None:
        """So does what a reference is told that two sessions brought in."""
        ear, board = Ear(), Board()
        alice, shared = self.attach(), self.attach("shared")
        self.answer(alice, "keep", ear)
        self.answer(shared, "keep", ear)
        kept = self.perspective("shared").ear
        self.end()
        kept.callRemote("hear", Piece("late"), board)
        self.memory.flush()
        piece = ear.heard[-2]
        self.assertEqual(self.answer(piece, "name"), "late")
        self.end("shared")
        self.assertIsInstance(self.refusal(piece, "name"), Detached)
        self.assertEqual(board.observers, [])

    def test_stoppedObservingThatAnswers(self) -> None:
        """Something else becomes ready when the connection is lost: nobody hears of it."""
        for ready in (Piece("late"), Board(), [Piece("late")], Failure(Handle(Piece("late")))):
            Talker.board = Board()
            alice = self.attach()
            copy = self.answer(alice, "board")
            self.ask(alice, "wait").addErrback(lambda failure: None)
            waiting = self.perspective().waiting
            Talker.board.stoppedObserving = lambda *_, it=ready, to=waiting: to.callback(it)
            alice.broker.transport.loseConnection()
            self.memory.flush()
            self.assertTrue(waiting.called, copy)
            self.assertEqual(self.flushLoggedErrors(), [])
            self.connector = IdentityConnector(
                self.memory, None, "alice", Password("secret"), reactor=self.memory.clock
            )

    def test_stoppedObservingThatEndsTheSession(self) -> None:
        """When the client drops its copy, this runs once, and the connection stays."""
        stopped: list[Any] = []

        def stoppedObserving(board: Any, perspective: Any, observer: Any) -> None:
            stopped.append(observer)
            self.end()

        self.patch(Board, "stoppedObserving", stoppedObserving)
        board = self.answer(self.attach(), "board")
        server = self.session().broker
        del board
        gc.collect()
        self.memory.flush()
        self.assertEqual(len(stopped), 1)
        self.assertEqual((server.remotelyCachedObjects, server.remotelyCachedLUIDs), ({}, {}))
        self.assertEqual(self.answer(self.attach(), "whoami"), "alice")
        self.assertFalse(server.disconnected)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_sharedCache(self) -> None:
        """A `Cacheable` that two sessions gave is observed until the last of them ends."""
        alice, shared = self.attach(), self.attach("shared")
        boards = [self.answer(each, "board") for each in (alice, shared)]
        self.end()
        self.assertEqual(len(Talker.board.observers), 1)
        self.end("shared")
        self.assertEqual(Talker.board.observers, [])
        del boards


class MistakeTests(WireTestCase):
    """Applications that raise while sessions end."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Talker
        Talker.board, Talker.greets = Board(), False

    def assertAllEnd(self, raised: type[BaseException], times: int) -> None:
        """A locked user is logged out everywhere, and the mistakes are logged."""
        sessions = list(self.memory.authorizer.sessions)
        self.assertTrue(sessions)
        self.alice.locked = True
        self.memory.flush()
        self.assertEqual(list(self.memory.authorizer.sessions), [])
        self.assertTrue(all(session.ended for session in sessions))
        self.assertGreaterEqual(len(self.flushLoggedErrors(raised)), times)

    def test_stoppedObserving(self) -> None:
        """A `Cacheable` that raises when somebody observes it no more."""

        def wrong(*args: Any) -> None:
            raise SystemExit

        self.patch(Board, "stoppedObserving", wrong)
        for _ in range(2):
            self.answer(self.successResultOf(self.login()), "board")
        self.assertAllEnd(SystemExit, 2)

    def test_perspectiveThatRaises(self) -> None:
        """`detached`, the service, and whatever else is theirs."""
        for kind, method in [
            (Talker, "detached"),
            (Talker, "brokerDetached"),
            (Talker, "getService"),
            (type(self.game), "uncachePerspective"),
        ]:
            for _ in range(2):
                self.successResultOf(self.login())

            def wrong(*args: Any) -> Any:
                raise ZeroDivisionError

            with_ = self.patch(kind, method, wrong)
            self.assertAllEnd(ZeroDivisionError, 2)
            with_.restore()
            self.alice.locked = False

    def test_clients(self) -> None:
        """An adapter to `IClients` of theirs."""

        def wrong(perspective: Any, interface: Any) -> Any:
            raise ZeroDivisionError

        self.patch(Talker, "__conform__", wrong)
        for _ in range(2):
            self.successResultOf(self.login(client=pb.Referenceable()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertAllEnd(ZeroDivisionError, 2)

    def test_serviceThatCantCache(self) -> None:
        """Who could not be attached is no session."""

        def wrong(*args: Any) -> Any:
            raise ZeroDivisionError

        self.patch(type(self.game), "cachePerspective", wrong)
        self.failureResultOf(self.login())
        self.assertEqual(list(self.memory.authorizer.sessions), [])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_identityThatRaises(self) -> None:
        """Nobody stays because the identity can't say what is allowed."""
        for _ in range(2):
            self.successResultOf(self.login())

        def wrong(*args: Any) -> Any:
            raise ZeroDivisionError

        self.patch(self.memory.authorizer.proofs, "proves", wrong)
        self.memory.authorizer.endUnauthorized(self.alice)
        self.memory.flush()
        self.assertEqual(list(self.memory.authorizer.sessions), [])
        # Two sessions, and the logins that they rest on.
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)


class ComparingTests(WireTestCase):
    """References compare by identity, across connections."""

    def test_references(self) -> None:
        """With each other, with `None`, and with anything."""
        one, other = self.successResultOf(self.login()), self.successResultOf(self.login())
        same = pb.RemoteReference(None, one.broker, one.luid, 0)
        self.assertTrue(one == same and not one != same and hash(one) == hash(same))
        for different in (other, None, 1, "x", object()):
            self.assertTrue(one != different)
            self.assertFalse(one == different)
        references = [other, None, one]
        self.assertIn(one, references)
        references.remove(same)
        self.assertEqual(references, [other, None])
        self.assertEqual(len({one, other, same}), 2)

    def test_observers(self) -> None:
        """Two clients share a cache, as in Twisted's tutorial."""
        self.game.perspectiveClass = Talker
        Talker.board, Talker.greets = Board(), False
        boards = [self.answer(self.successResultOf(self.login()), "board") for _ in range(2)]
        first, second = Talker.board.observers
        self.assertTrue(first != second and first != None)  # noqa: E711 - that it compares
        (session, _) = list(self.memory.authorizer.sessions)
        session.end(EndReason.ADMINISTRATOR)
        self.assertEqual(Talker.board.observers, [second])
        del boards
