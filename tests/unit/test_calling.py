"""Calls that are cut off: by whoever waits for them, and by a deadline."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.spread import pb
from twisted.test import iosim

from pbauth import CallTimeout, PerspectiveClient, call
from pbauth._calling import checkTimeout
from pbauth.admin.service import AdminService
from pbauth.testing import MemoryServer, RecordingPerspective
from tests.support.wire import WireTestCase


class Worker(pb.Referenceable):
    """Works for as long as it is let."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.waiting: Deferred[Any] = Deferred()

    async def remote_work(self, *args: Any, **kw: Any) -> Any:
        """Note what becomes of it."""
        try:
            return await self.waiting
        except CancelledError:
            self.seen.append("cancelled")
            raise

    def remote_wait(self) -> Deferred[Any]:
        return self.waiting

    async def remote_stubborn(self) -> Any:
        try:
            return await self.waiting
        except CancelledError:
            return "done all the same"

    async def remote_fail(self) -> Any:
        try:
            return await self.waiting
        except CancelledError:
            raise ZeroDivisionError from None


class Player(RecordingPerspective):
    """Has a worker, and passes its calls on to it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.worker = Worker()

    def perspective_work(self, *args: Any, **kw: Any) -> Any:
        return self.worker.remote_work(*args, **kw)

    def perspective_wait(self) -> Any:
        return self.worker.remote_wait()

    def perspective_stubborn(self) -> Any:
        return self.worker.remote_stubborn()

    def perspective_fail(self) -> Any:
        return self.worker.remote_fail()

    def perspective_worker(self) -> Any:
        return self.worker

    def perspective_take(self, *args: Any, **kw: Any) -> Any:
        return [args, kw]


class CallTests(WireTestCase):
    """A client calls, and gives up."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Player
        self.client = Worker()
        self.alice = self.successResultOf(self.login(client=self.client))
        self.player = self.game.perspectives["alice"]
        self.worker = self.player.worker
        self.server = self.player.clients

    def begin(self, *args: Any, **kw: Any) -> Deferred[Any]:
        """Call, and carry everything."""
        answer = call(*args, **kw)
        self.memory.flush()
        return answer

    def assertNothingLeft(self) -> None:
        """Neither end waits for anything."""
        self.memory.flush()
        client = self.alice.broker
        (pump,) = self.memory.pumps
        for broker in (client, pump.server):
            self.assertEqual(broker.waitingForAnswers, {})
            self.assertFalse(broker._underWay)
        calls = [str(each) for each in self.memory.clock.getDelayedCalls()]
        self.assertEqual([each for each in calls if "KeepAlive" not in each], [])

    def test_answer(self) -> None:
        """Arguments of all kinds arrive; the answer comes, and the clock is left alone."""
        answer = self.begin(self.alice, "take", 1, "b", timeout=5, key=3)
        self.assertEqual(self.successResultOf(answer), [(1, "b"), {"key": 3}])
        answer = self.begin(self.alice, "wait", timeout=5)
        self.worker.waiting.callback("result")
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "result")
        answer = self.begin(self.alice, "nonsense", timeout=5)
        self.assertIsInstance(self.failureResultOf(answer).value, pb.RemoteError)
        self.flushLoggedErrors(pb.NoSuchMethod)
        self.assertNothingLeft()

    def test_cancelled(self) -> None:
        """The coroutine of the other end gets a `CancelledError`, and nothing is logged."""
        answer = self.begin(self.alice, "work")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.worker.seen, [])
        self.memory.flush()
        self.assertEqual(self.worker.seen, ["cancelled"])
        self.assertNothingLeft()
        self.assertEqual(self.answer(self.alice, "whoami"), "alice")

    def test_deferred(self) -> None:
        """A Deferred of the other end is cancelled."""
        cancelled: list[Any] = []
        self.worker.waiting = Deferred(cancelled.append)
        answer = self.begin(self.alice, "wait")
        answer.cancel()
        self.memory.flush()
        self.assertEqual(cancelled, [self.worker.waiting])
        self.failureResultOf(answer, CancelledError)
        self.assertNothingLeft()

    def test_deadline(self) -> None:
        """A call that takes too long is cancelled at both ends."""
        answer = self.begin(self.alice, "work", timeout=5)
        self.memory.advance(4.9)
        self.assertNoResult(answer)
        self.memory.advance(0.2)
        error = self.failureResultOf(answer, CallTimeout).value
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual((error.call, error.seconds), ("work", 5))
        self.assertIn("'work' within 5 seconds", str(error))
        self.assertEqual(self.worker.seen, ["cancelled"])
        self.assertNothingLeft()

    def test_exported(self) -> None:
        """Calls of objects that a session gave are cancelled in the same way."""
        worker = self.answer(self.alice, "worker")
        answer = self.begin(worker, "work")
        answer.cancel()
        self.memory.flush()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.worker.seen, ["cancelled"])

    def test_fromServer(self) -> None:
        """So are those of a client's object, with the server's clock."""
        (clientref,) = self.server
        answer = self.begin(clientref, "work", timeout=5)
        self.memory.advance(5)
        self.failureResultOf(answer, CallTimeout)
        self.assertEqual(self.client.seen, ["cancelled"])
        self.assertNothingLeft()

    def test_others(self) -> None:
        """Other calls that are under way go on."""
        first = self.begin(self.alice, "stubborn")
        other = self.begin(self.alice, "take")
        self.successResultOf(other)
        self.worker.waiting, waiting = Deferred(), self.worker.waiting
        second = self.begin(self.alice, "work")
        second.cancel()
        self.memory.flush()
        self.assertNoResult(first)
        waiting.callback("first")
        self.memory.flush()
        self.assertEqual(self.successResultOf(first), "first")
        self.failureResultOf(second, CancelledError)

    def test_dropped(self) -> None:
        """What the other end answers all the same is dropped; its own errors are logged there."""
        for method in ("stubborn", "fail"):
            self.worker.waiting = Deferred()
            answer = self.begin(self.alice, method)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.assertNothingLeft()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_tooLate(self) -> None:
        """A cancel that crosses the answer does nothing, and neither does nonsense."""
        answer = self.begin(self.alice, "wait")
        self.worker.waiting.callback(1)
        answer.cancel()
        self.memory.flush()
        self.failureResultOf(answer, CancelledError)
        named = self.alice.broker.remoteForName(b"pbauth")
        nonsense: tuple[Any, ...]
        for nonsense in ((), (77,), ("1",), (None,), (1, 2), ([],), (1.0,)):
            self.assertIsNone(self.answer(named, "cancel", *nonsense))
        self.assertNothingLeft()

    def test_stock(self) -> None:
        """A peer that does not have pbauth goes on, hears nothing, and its answer is dropped."""
        worker = Worker()
        root: Any = pb.Root()
        root.remote_wait = worker.remote_wait
        factory, client = pb.PBServerFactory(root), pb.PBClientFactory()
        server = factory.buildProtocol(None)
        broker = client.buildProtocol(None)
        _, _, pump = iosim.connectedServerAndClient(lambda: server, lambda: broker, greet=True)
        opening = client.getRootObject()
        pump.flush()
        answer = call(self.successResultOf(opening), "wait")
        pump.flush()
        answer.cancel()
        pump.flush()
        self.failureResultOf(answer, CancelledError)
        worker.waiting.callback(1)
        pump.flush()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stockPeer(self) -> None:
        """Nothing is sent to a peer that is not known to have pbauth."""
        self.alice.broker.readsOurErrors = False
        answer = self.begin(self.alice, "work")
        answer.cancel()
        self.memory.flush()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.worker.seen, [])

    def test_disconnected(self) -> None:
        """A connection that is lost ends the call as ever, and the deadline with it."""
        answer = self.begin(self.alice, "work", timeout=5)
        self.memory.disconnect(self.alice)
        self.failureResultOf(answer, pb.PBConnectionLost)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        self.failureResultOf(call(self.alice, "work", timeout=5), pb.DeadReferenceError)
        self.worker.waiting.callback(1)

    def test_noAnswer(self) -> None:
        """A call that wants no answer has none."""
        self.assertIsNone(self.successResultOf(self.begin(self.alice, "take", pbanswer=False)))

    def test_ended(self) -> None:
        """A session that has ended ends calls as ever."""
        answer = self.begin(self.alice, "work", timeout=5)
        (session,) = self.memory.authorizer.sessions
        self.memory.authorizer.sessions.end(session)
        self.memory.flush()
        self.failureResultOf(answer)
        self.memory.advance(10)

    def test_wrong(self) -> None:
        """Arguments that make no sense are refused at once."""
        for bad in (None, object(), "alice"):
            with self.assertRaises(TypeError):
                call(bad, "work")
        with self.assertRaises(TypeError):
            call(self.alice, 5)  # type: ignore[arg-type]
        for timeout in (-1, "5", True, float("nan")):
            with self.assertRaises(ValueError):
                call(self.alice, "work", timeout=timeout)  # type: ignore[arg-type]

    def test_huge(self) -> None:
        """A deadline that is further away than any reactor takes is one that does not come."""
        answer = self.begin(self.alice, "wait", timeout=float("inf"))
        self.memory.advance(86_400)
        self.assertNoResult(answer)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        for timeout in (1e300, 10**400):
            self.assertLess(checkTimeout(timeout), 2e9)
        self.assertNothingLeft()

    def test_staying(self) -> None:
        """A client that stays logged in is called in the same way, also while it waits."""
        client = PerspectiveClient(
            self.memory, "secret", "game", username="alice", reactor=self.memory.clock
        )
        waiting = call(client, "work", timeout=2)
        self.memory.clock.advance(2)
        self.failureResultOf(waiting, CallTimeout)
        client.startService()
        self.memory.flush()
        answer = self.begin(client, "work", timeout=2)
        self.memory.advance(2)
        self.failureResultOf(answer, CallTimeout)
        self.assertEqual(self.worker.seen, ["cancelled"])
        client.stopService()
        self.memory.flush()


class AccountTests(WireTestCase):
    """Calls that change accounts are never cut off half-way."""

    def test_administration(self) -> None:
        """A store that takes its time finishes, though nobody waits for it."""
        admin = AdminService("admin", self.memory.services, self.memory.authorizer)
        self.assertIs(admin.authorizer, self.memory.authorizer)
        self.memory.addUser("root", "secret", ("admin", "root"))
        root = self.successResultOf(self.memory.logIn("root", "secret", "admin"))
        waiting: list[Deferred[None]] = []
        store = self.memory.authorizer
        remove = store.removeIdentity

        def removeLater(*args: Any, **kw: Any) -> Any:
            waiting.append(Deferred())
            return waiting[0].addCallback(lambda _: remove(*args, **kw))

        self.patch(store, "removeIdentity", removeLater)
        answer = call(root, "removeUser", "alice")
        self.memory.flush()
        answer.cancel()
        self.memory.flush()
        self.failureResultOf(answer, CancelledError)
        waiting[0].callback(None)
        self.assertNotIn("alice", [each.name for each in store.identities.values()])


class ClientsTests(WireTestCase):
    """A server calls all clients of a perspective."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Player
        self.workers = [Worker() for _ in range(3)]
        self.references = [
            self.successResultOf(self.login(client=worker)) for worker in self.workers
        ]
        self.clients = self.game.perspectives["alice"].clients

    def test_timeout(self) -> None:
        """The slowest client holds nobody up: it has no answer in time, and is cancelled."""
        self.workers[0].waiting = succeed("first")
        self.workers[2].waiting = succeed("third")
        answer = self.clients.callRemote("work", timeout=3)
        self.memory.advance(2)
        self.assertNoResult(answer)
        self.memory.advance(1)
        first, second, third = self.successResultOf(answer)
        self.assertEqual((first, third), ((True, "first"), (True, "third")))
        self.assertFalse(second[0])
        self.assertTrue(second[1].check(CallTimeout))
        self.assertEqual([worker.seen for worker in self.workers], [[], ["cancelled"], []])

    def test_each(self) -> None:
        """It is known who answered what."""
        self.workers[0].waiting = succeed("first")
        self.workers[2].waiting = succeed("third")
        answer = self.clients.callEach("work", timeout=3)
        self.memory.advance(3)
        results = self.successResultOf(answer)
        self.assertEqual([client for client, _, _ in results], list(self.clients))
        self.assertEqual([success for _, success, _ in results], [True, False, True])
        self.assertEqual(results[2][2], "third")

    def test_none(self) -> None:
        """Nobody is nobody."""
        other = self.memory.addUser("bob", "secret", ("game", "bob"))
        self.successResultOf(self.memory.logIn("bob", "secret", "game"))
        clients = self.game.perspectives["bob"].clients
        self.assertEqual(self.successResultOf(clients.callEach("work")), [])
        self.assertEqual(other.name, "bob")

    def test_newest(self) -> None:
        """So it is with the newest one."""
        answer = self.clients.callNewest("work", timeout=3)
        self.memory.advance(3)
        self.failureResultOf(answer, CallTimeout)
        self.assertEqual(self.workers[2].seen, ["cancelled"])

    def test_queued(self) -> None:
        """A message that waits has its time once it is sent."""
        self.game.perspectiveClass = type("Patient", (Player,), {"queueSize": 5})
        self.memory.addUser("bob", "secret", ("game", "bob"))
        bob = self.game.createPerspective("bob")
        answer = bob.clients.callNewest("work", timeout=3)
        self.memory.advance(10)
        self.assertNoResult(answer)
        worker = Worker()
        self.successResultOf(self.memory.logIn("bob", "secret", "game", client=worker))
        self.memory.advance(3)
        self.failureResultOf(answer, CallTimeout)

    def test_wrong(self) -> None:
        """A time that is none is refused at once."""
        for method in (self.clients.callRemote, self.clients.callEach, self.clients.callNewest):
            with self.assertRaises(ValueError):
                method("work", timeout=-1)


class ServerTests(WireTestCase):
    """The endpoint in memory serves other kinds of servers."""

    def test_factory(self) -> None:
        """One that never logs in has the global clock."""
        memory = MemoryServer(factory=pb.PBServerFactory(pb.Root()))
        factory = pb.PBClientFactory()
        memory.connect(factory)
        memory.flush()
        root = self.successResultOf(factory.getRootObject())
        answer = call(root, "nonsense")
        memory.flush()
        self.failureResultOf(answer)
        self.flushLoggedErrors()
