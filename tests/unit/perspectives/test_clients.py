"""The client objects of a perspective: to be called while they are there, and waited for else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth import Clients, IClients, NobodyAttached, Password, Perspective, Policy
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase

#: Remembers its key.
SECRET = Password("secret")


class Client(pb.Referenceable):
    """A client's object, which records what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def remote_hear(self, what: Any, **more: Any) -> Any:
        self.heard.append({"what": what, **more} if more else what)
        return f"heard {what}"

    def remote_fail(self) -> None:
        raise pb.Error("not in the mood")


class Silent(Perspective):
    """Overrides all that tells who is there, and calls nothing of it."""

    queueSize = 3

    def attached(self, clientref: Any, identity: Any) -> Any:
        return self

    def detached(self, clientref: Any, identity: Any) -> None:
        pass


class Unsendable(pb.Copyable):
    """What can't be serialised."""

    def getStateToCopy(self) -> Any:
        raise ZeroDivisionError


class ClientsTestCase(WireTestCase):
    """A perspective that outlasts its clients."""

    perspectiveClass: type[Perspective] = Silent

    def serve(self, *policy: Any, **options: Any) -> None:
        super().serve(*policy, **options)
        self.game.perspectiveClass = self.perspectiveClass
        self.perspective = self.game.createPerspective("alice")
        self.clients: Clients = self.perspective.clients

    def attach(self, client: Any = None) -> tuple[Any, Client]:
        """Log in with a client object, and give the remote perspective and that."""
        client = Client() if client is None else client
        login = self.login("alice", SECRET, "game", client=client)
        return self.successResultOf(login), client

    def hear(self, what: Any) -> Any:
        """Tell something to all clients; give the Deferred after all bytes were carried."""
        answer = self.clients.callRemote("hear", what)
        self.memory.flush()
        return answer


class AttachedTests(ClientsTestCase):
    """Who is attached is called."""

    def test_interface(self) -> None:
        """A perspective adapts to the interface that the wire asks for."""
        verifyObject(IClients, self.clients)
        self.assertIs(IClients(self.perspective), self.clients)

    def test_all(self) -> None:
        """All clients are called at once, and each answer is there, oldest client first."""
        self.assertFalse(self.clients)
        (_, one), (_, other) = self.attach(), self.attach()
        self.assertEqual(len(self.clients), 2)
        answer = self.clients.callRemote("hear", "news", method="a keyword")
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), [(True, "heard news")] * 2)
        self.assertEqual(one.heard + other.heard, [{"what": "news", "method": "a keyword"}] * 2)

    def test_choose(self) -> None:
        """They can be gone through, and called one by one."""
        (_, one), (_, other) = self.attach(), self.attach()
        first, second = self.clients
        first.callRemote("hear", 1)
        second.callRemote("hear", 2)
        self.memory.flush()
        self.assertEqual((one.heard, other.heard), ([1], [2]))
        self.assertIn(first, self.clients)

    def test_oneFails(self) -> None:
        """A client that fails hides no other, whatever the matter with it is."""

        class Deaf(Client):
            def remote_hear(self, what: Any, **more: Any) -> Any:
                raise pb.Error("not in the mood")

        self.attach()
        self.attach(Deaf())
        self.attach()
        results = self.successResultOf(self.hear("news"))
        self.assertEqual([success for success, _ in results], [True, False, True])
        self.assertIsInstance(results[1][1], Failure)
        # What can't be sent fails for all.
        ((success, failure), *_) = self.successResultOf(self.hear(Unsendable()))
        self.assertEqual((success, failure.type), (False, ZeroDivisionError))

    def test_newest(self) -> None:
        """One client is called: the one that attached last."""
        (_, one), (last, other) = self.attach(), self.attach()
        answer = self.clients.callNewest("hear", "psst")
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "heard psst")
        self.assertEqual((one.heard, other.heard), ([], ["psst"]))
        self.memory.disconnect(last)
        answer = self.clients.callNewest("fail")
        self.memory.flush()
        self.failureResultOf(answer, pb.RemoteError, pb.Error)

    def test_gone(self) -> None:
        """Whoever hangs up, is detached or revoked, is called no more."""
        (_, one), (other, _) = self.attach(), self.attach()
        self.memory.disconnect(other)
        self.assertEqual(len(self.clients), 1)
        self.alice.removeKey("game", "alice")
        self.assertEqual(list(self.clients), [])
        self.hear("a secret")
        self.assertEqual(one.heard, [])

    def test_noObject(self) -> None:
        """A client that gave no object does not count."""
        self.successResultOf(self.login("alice", SECRET, "game"))
        self.assertEqual(len(self.clients), 0)
        self.assertNotIn("clients", vars(self.game.createPerspective("other")))

    def test_whileTold(self) -> None:
        """In `attached` the new client is not there yet, and in `detached` it is no more."""
        seen: list[tuple[str, int]] = []

        class Curious(Perspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                seen.append(("attached", len(self.clients)))
                return self

            def detached(self, clientref: Any, identity: Any) -> None:
                seen.append(("detached", len(self.clients)))

        self.game.perspectiveClass = Curious
        self.game.createPerspective("alice")
        remote, _ = self.attach()
        self.attach()
        self.memory.disconnect(remote)
        self.assertEqual(seen, [("attached", 0), ("attached", 1), ("detached", 1)])

    def test_closing(self) -> None:
        """While a connection tells that it is closed, its client is gone already."""
        seen: list[int] = []
        self.attach()
        (session,) = self.memory.authorizer.sessions
        # Before the session hears of it.
        session.broker.disconnects.insert(0, lambda: seen.append(len(self.clients)))
        self.memory.pumps[-1].clientIO.loseConnection()
        self.memory.flush()
        self.assertEqual(seen, [0])

    def test_otherPerspective(self) -> None:
        """When `attached` gives another perspective, that one has the client."""
        other = self.game.createPerspective("other")
        self.perspective.attached = lambda clientref, identity: other
        remote, client = self.attach()
        self.assertEqual((len(self.clients), len(other.clients)), (0, 1))
        other.clients.callRemote("hear", "news")
        self.memory.flush()
        self.assertEqual(client.heard, ["news"])
        self.memory.disconnect(remote)
        self.assertEqual(len(other.clients), 0)

    def test_ownUseOfTheName(self) -> None:
        """A perspective may have `clients` of its own, as some always had."""

        class Own(RecordingPerspective):
            def __init__(self, name: str) -> None:
                super().__init__(name)
                self.clients: list[Any] = []  # type: ignore[misc]

            def attached(self, clientref: Any, identity: Any) -> Any:
                self.clients.append(clientref)
                return super().attached(clientref, identity)

        self.game.perspectiveClass = Own
        perspective = self.game.createPerspective("alice")
        remote, _ = self.attach()
        self.assertEqual(len(perspective.clients), 1)
        self.memory.disconnect(remote)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])


class AwayTests(ClientsTestCase):
    """Who is away."""

    def test_error(self) -> None:
        """Without a queue, which is the default, whoever calls is told that nobody is there."""
        perspective = Perspective("bob")
        self.assertEqual(perspective.queueSize, 0)
        for call in (perspective.clients.callRemote, perspective.clients.callNewest):
            error = self.failureResultOf(call("hear", "news"), NobodyAttached).value
            self.assertEqual(error.perspectiveName, "bob")
            self.assertIn("'bob'", str(error))

    def test_queue(self) -> None:
        """What is said meanwhile is delivered in order, once, to the next client."""
        answers = [self.hear(number) for number in range(2)]
        answers.append(self.clients.callNewest("hear", 2))
        for answer in answers:
            self.assertNoResult(answer)
        self.assertIn("0 attached, 3 messages waiting", repr(self.clients))
        _, client = self.attach()
        self.assertEqual(client.heard, [0, 1, 2])
        self.assertEqual(self.successResultOf(answers[1]), [(True, "heard 1")])
        self.assertEqual(self.successResultOf(answers[2]), "heard 2")
        _, later = self.attach()
        self.assertEqual((later.heard, self.clients.waiting), ([], 0))

    def test_full(self) -> None:
        """The oldest are dropped from a full queue; the application and the log are told."""
        dropped: list[int] = []
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event["log_namespace"] == "pbauth.perspectives.clients":
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        def attached(clientref: Any, identity: Any) -> Any:
            dropped.append(self.clients.dropped)
            return self.perspective

        self.perspective.attached = attached
        one = self.clients.callNewest("hear", "to one")
        answers = [self.hear(number) for number in range(5)]
        self.assertEqual((self.clients.waiting, self.clients.dropped), (3, 3))
        self.failureResultOf(one, NobodyAttached)
        self.assertEqual(self.successResultOf(answers[1]), [])
        self.assertNoResult(answers[2])
        _, client = self.attach()
        self.assertEqual((client.heard, dropped, self.clients.dropped), ([2, 3, 4], [3], 0))
        full, told = lines
        self.assertIn("'alice' is full (3 messages)", full)
        self.assertIn("3 messages for 'alice' were dropped", told)

    def test_cancel(self) -> None:
        """A message can be withdrawn; one that is on its way can't."""
        first, second, third = (self.hear(number) for number in range(3))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        _, client = self.attach()
        self.assertEqual(client.heard, [0, 2])
        self.successResultOf(first)
        third.cancel()

    def test_cancelSent(self) -> None:
        """Nobody waits any more for the answer to a message that was cancelled when it was sent."""
        waiting: Deferred[None] = Deferred()

        class Slow(Client):
            def remote_hear(self, what: Any, **more: Any) -> Any:
                return waiting

        answers = [self.hear("news"), self.clients.callNewest("hear", "news")]
        self.attach(Slow())
        for answer in answers:
            answer.cancel()
        ((success, failure),) = self.successResultOf(answers[0])
        self.assertEqual((success, failure.type), (False, CancelledError))
        self.failureResultOf(answers[1], CancelledError)
        waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_brokenBeforeAnAnswer(self) -> None:
        """What was sent, and may have arrived, is not sent again."""

        class Slow(Client):
            def remote_hear(self, what: Any, **more: Any) -> Any:
                super().remote_hear(what)
                return Deferred()

        waiting = self.hear("news")
        remote, slow = self.attach(Slow())
        self.assertEqual(slow.heard, ["news"])
        self.memory.disconnect(remote)
        ((success, failure),) = self.successResultOf(waiting)
        self.assertEqual((success, failure.type), (False, pb.PBConnectionLost))
        _, next_ = self.attach()
        self.assertEqual(next_.heard, [])

    def test_unsendable(self) -> None:
        """What waits, and can't be serialised, fails; what comes after it does not."""
        bad, good = self.hear(Unsendable()), self.hear("news")
        _, client = self.attach()
        self.assertEqual(client.heard, ["news"])
        ((success, _),) = self.successResultOf(bad)
        self.assertFalse(success)
        self.successResultOf(good)

    def test_answeredWhileDelivering(self) -> None:
        """Whoever says something more, once the first message fails, does not get in between."""

        def more(results: Any) -> Any:
            self.clients.callRemote("hear", "more")
            return results

        self.hear(Unsendable()).addBoth(more)
        self.hear("news")
        _, client = self.attach()
        self.assertEqual(client.heard, ["news", "more"])

    def test_toACaller(self) -> None:
        """In a method of a perspective the error goes to whoever called it, as itself."""

        class Caller(Perspective):
            def perspective_tell(self, what: str) -> Any:
                return self.clients.callRemote("hear", what)

        self.game.perspectiveClass = Caller
        self.game.createPerspective("shared")
        remote = self.successResultOf(self.login("alice", SECRET, "game", "shared"))
        error = self.refusal(remote, "tell", "news")
        self.assertIsInstance(error, NobodyAttached)
        self.assertEqual(error.perspectiveName, "shared")
        self.assertEqual(self.flushLoggedErrors(), [])


class FakeBroker:
    """The broker of a `FakeSession`."""

    disconnected = 0


class FakeSession:
    """
    A session whose connection breaks after so many calls.

    Args:
        survives: so many calls.
        heard: where calls are recorded.
        tellsAtOnce: the session knows at once that the connection broke; or only the broker does.
    """

    def __init__(self, survives: int, heard: list[Any], tellsAtOnce: bool = True) -> None:
        self.survives = survives
        self.heard = heard
        self.live = True
        self.broker = FakeBroker()
        self.clientref = self
        self._tellsAtOnce = tellsAtOnce

    def callRemote(self, method: str, what: Any) -> Any:
        assert self.live
        assert not self.broker.disconnected
        self.heard.append(what)
        self.survives -= 1
        if self.survives <= 0:
            if self._tellsAtOnce:
                self.live = False
            else:
                self.broker.disconnected = 1
        return succeed(what)


class BrokenWhileDeliveringTests(SynchronousTestCase):
    """The connection of the new client breaks while what had waited is delivered."""

    @given(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=6))
    def test_restStays(self, messages: int, connections: list[tuple[int, bool]]) -> None:
        """The rest waits for the next one, and nothing is delivered twice."""
        clients, heard = Clients("alice", 20), []  # type: ignore[var-annotated]
        for number in range(messages):
            clients.callRemote("hear", number)
        for survives, tellsAtOnce in connections:
            session = FakeSession(survives, heard, tellsAtOnce)
            clients.joined(session)
            if clients.waiting:
                self.assertEqual(len(clients), 0)
            clients.left(session)
        delivered = min(messages, sum(survives for survives, _ in connections))
        self.assertEqual(heard, list(range(delivered)))
        self.assertEqual(clients.waiting, messages - delivered)


#: What may happen: so many messages; a client attaches, and breaks right then, or later.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 5)),
        st.tuples(st.just("attach"), st.just(0)),
        st.tuples(st.just("break"), st.integers(0, 12)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
        st.tuples(st.just("detach"), st.integers(0, 5)),
    ),
    max_size=12,
)


class AnyOrderTests(ClientsTestCase):
    """Over the wire, in any order."""

    def attachAndBreak(self, afterWrites: int) -> None:
        """A client whose connection takes so many writes of the server's, and then is cut."""
        made = self.memory.connect

        def connect(factory: Callable[..., Any]) -> Any:
            connecting = made(factory)
            transport = self.memory.pumps[-1].serverIO
            write = transport.write
            left = [afterWrites]

            def writeSome(data: bytes) -> None:
                left[0] -= 1
                if left[0] < 0:
                    transport.loseConnection()
                write(data)

            transport.write = writeSome
            return connecting

        self.memory.connect = connect
        client = Client()
        login = self.login("alice", SECRET, "game", client=client)
        login.addErrback(lambda failure: failure.trap(pb.PBConnectionLost) and None)
        self.memory.connect = made
        self.broken.append((login, client))

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    @example([*[("break", 1)] * 9, ("attach", 0)])
    def test_atMostOnce(self, steps: list[tuple[str, int]]) -> None:
        """
        All that was said was delivered once and in order, or was lost with a connection, or was
        dropped and counted, or waits; and never more waits than may.
        """
        # Connections that break during the login are failures.
        self.serve(Policy(throttle=False))
        self.broken: list[tuple[Any, Client]] = []
        attached: list[tuple[Any, Client]] = []
        everybody: list[Client] = []
        answers: list[Deferred[Any]] = []
        for step, number in steps:
            if step == "say":
                answers.extend(self.hear(len(answers)) for _ in range(number))
            elif step == "attach":
                attached.append(self.attach())
                everybody.append(attached[-1][1])
            elif step == "break":
                self.attachAndBreak(number)
                everybody.append(self.broken[-1][1])
            elif attached:
                remote, _ = attached.pop(number % len(attached))
                if step == "drop":
                    self.memory.disconnect(remote)
                else:
                    self.answer(remote.identity, "detach", remote)
            self.assertLessEqual(self.clients.waiting, self.perspective.queueSize)
        outcomes = [answer.result if answer.called else None for answer in answers]
        for client in everybody:
            self.assertEqual(client.heard, sorted(set(client.heard)))
        for number, outcome in enumerate(outcomes):
            hearers = sum(number in client.heard for client in everybody)
            if outcome is None or outcome == []:
                self.assertEqual(hearers, 0)
            else:
                self.assertLessEqual(hearers, len(outcome))
                self.assertGreaterEqual(hearers, sum(success for success, _ in outcome))
        self.assertEqual(outcomes.count(None), self.clients.waiting)
        self.assertEqual(self.flushLoggedErrors(), [])
