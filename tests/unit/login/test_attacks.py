"""Attacks on the login: each one was possible, and is shown here as whoever tries it would."""

from __future__ import annotations

import os
import socket
import tracemalloc
import zlib
from typing import Any

from twisted.application.service import MultiService
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pbauth import (
    Anonymous,
    Audit,
    AuthServerFactory,
    CredAuthorizer,
    DefaultAuthorizer,
    Hashing,
    Identity,
    InvalidName,
    Password,
    Policy,
    ProtocolViolation,
    StoreError,
    Throttle,
    TooManyAttempts,
    Unauthorized,
    getObjectAt,
)
from pbauth.login.attempts import MOST_UNANSWERED
from pbauth.login.throttle import ThrottleState
from pbauth.mechanisms import plain, scram
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.net import origin
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService
from tests.support.wire import SCRAM, WireTestCase

FIRST = b"n,,n=alice,r=nonce"


class WorkTests(WireTestCase):
    """Much work for the server, for little work of somebody who has no account."""

    def test_longName(self) -> None:
        """A name that is too long for any identity is refused before anybody looks at it."""
        looked: list[str] = []
        self.patch(scram, "saslprep", looked.append)
        self.memory.authorizer.getIdentityRequest = looked.append
        self.memory.authorizer.getDecoyVerifier = lambda name, mechanism: looked.append(name)
        root = self.root()
        for name in ("\u0130" * 4000, "x" * 256, "\u0130" * 128):
            error = self.refusal(root, "username", name, SCRAM, b"n,,n=x,r=nonce")
            self.assertEqual((type(error), str(error)), (Unauthorized, str(Unauthorized())))
        self.assertEqual(looked, [])

    def test_longestName(self) -> None:
        """
        A name of 255 bytes is an identity's like any other, also where SASLprep, or the escapes of
        SCRAM, make it several times as long.
        """
        for name in ("\u0130" * 127 + "x", "\ufdfa" * 85, "\ufb00" * 85, "," * 255, "=2C" * 85):
            identity = Identity(name, self.memory.authorizer)
            identity.setPassword("secret")
            identity.addKeyByString("game", "alice")
            self.memory.authorizer.addIdentity(identity)
            self.successResultOf(self.memory.logIn(name, "secret", "game", "alice"))
            with self.assertRaises(InvalidName):
                Identity(name + "x", self.memory.authorizer)

    def test_longNamesAreNotKept(self) -> None:
        """What the throttle keeps of a name does not depend on the length of the name."""
        throttle = ThrottleState(Clock().seconds, most=1000)
        tracemalloc.start()
        for number in range(1000):
            throttle.failed("203.0.113.1", f"{number}" + "x" * 8000)
            throttle.succeeded("203.0.113.1", f"{number}" + "x" * 8000)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(kept, 1_000_000)

    def beginAndGo(self, challenges: int) -> None:
        """Ask for challenges, answer none of them, and close the connection."""
        root = self.root()
        for _ in range(challenges):
            self.answer(root, "username", "alice", SCRAM, FIRST)
        self.memory.disconnect(root)

    def test_unanswered(self) -> None:
        """Who asks for challenges and never answers them has to wait after a few connections."""
        for _ in range(3):
            self.beginAndGo(1)
        self.assertIsInstance(
            self.refusal(self.root(), "username", "bob", SCRAM, b"n,,n=bob,r=nonce"),
            TooManyAttempts,
        )

    def test_tooManyUnanswered(self) -> None:
        """So does who asks for so many that the connection is dropped."""
        for _ in range(3):
            root = self.root()
            for _ in range(MOST_UNANSWERED):
                self.answer(root, "username", "alice", SCRAM, FIRST)
            self.ask(root, "username", "alice", SCRAM, FIRST).addErrback(lambda _: None)
        self.assertIsInstance(
            self.refusal(self.root(), "username", "bob", SCRAM, b"n,,n=bob,r=nonce"),
            TooManyAttempts,
        )

    def test_answeredIsFree(self) -> None:
        """Who logs in and goes, however often, never has to wait."""
        for _ in range(20):
            perspective = self.successResultOf(self.login())
            self.memory.disconnect(perspective)
        self.successResultOf(self.login())


@implementer(ICredentialsChecker)
class Slow:
    """
    Checks passwords as PAM does: the answer comes later.

    Attributes:
        asked: who waits for an answer, in their order: `(name, password, Deferred)`.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, Deferred[Any]]] = []
        self.passwords: list[bytes] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        """Let it wait."""
        answer: Deferred[Any] = Deferred()
        self.passwords.append(credentials.password)
        self.asked.append((credentials.username, credentials.password, answer))
        return answer

    def answer(self, error: type[Exception] | None = None) -> bool:
        """Answer whoever waits longest; say whether anybody did."""
        if not self.asked:
            return False
        name, password, answer = self.asked.pop(0)
        if error is not None:
            answer.errback(error())
        elif password == b"secret":
            answer.callback(name)
        else:
            answer.errback(UnauthorizedLogin())
        return True


class SlowCheckTests(SynchronousTestCase):
    """Guesses that are sent before the first answer is there."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, **policy: Any) -> None:
        """Serve accounts whose passwords are checked elsewhere, slowly, on a UNIX socket."""
        self.checker = Slow()
        self.events: list[Any] = []
        services = MultiService()
        accounts = DefaultAuthorizer(audit=Audit(self.events.append))
        self.memory = MemoryServer(
            CredAuthorizer([self.checker], services, accounts=accounts),
            Policy(mechanisms=["PLAIN"], **policy),
        )
        self.from_("alice's")
        RecordingService("game", services, self.memory.authorizer)
        alice = self.memory.authorizer.createIdentity("alice")
        alice.addKeyByString("game", "alice")
        alice.save()

    def from_(self, place: str) -> None:
        """Connect from another place from now on: over a UNIX socket, by another user."""
        peer: Any = UNIXAddress(b"socket")
        uid = zlib.crc32(place.encode())
        self.memory._peer = peer
        self.patch(origin, "uidOf", lambda transport: uid)

    def refused(self) -> list[Any]:
        """The refusals that the audit log has."""
        return [event for event in self.events if event["event"] == "login.refused"]

    def root(self) -> Any:
        """Open a connection, and give its root object."""
        opening = getObjectAt(self.memory, None, reactor=self.memory.clock)
        self.memory.flush()
        return self.successResultOf(opening)

    def guess(self, root: Any, password: str, name: str = "alice") -> list[Any]:
        """Guess once; give where the answer will be put."""
        message = plain.makeMessage(name, password)
        answers: list[Any] = []
        beginning = root.callRemote("username", name, "PLAIN", message)
        beginning.addCallback(lambda begun: begun[1].callRemote("respond", b""))
        beginning.addBoth(answers.append)
        self.memory.flush()
        return answers

    def kinds(self, answers: list[Any]) -> list[Any]:
        """The types of what was answered; `None`: nothing yet."""
        self.memory.flush()
        return [type(getattr(each[0], "value", each[0])) if each else None for each in answers]

    def answerAll(self, error: type[Exception] | None = None) -> None:
        """Answer all that wait, and those that come then."""
        while self.checker.answer(error):
            self.memory.flush()

    def test_onOneConnection(self) -> None:
        """No more guesses are looked at than may fail; the right one after them is of no use."""
        root = self.root()
        answers = [self.guess(root, f"wrong {number}") for number in range(329)]
        answers.append(self.guess(root, "secret"))
        self.answerAll()
        self.assertEqual(len(self.checker.passwords), 6)
        self.assertNotIn(b"secret", self.checker.passwords)
        self.assertNotIn(tuple, self.kinds(answers))

    def test_onManyConnections(self) -> None:
        """Nor on many connections from one network."""
        answers = [self.guess(self.root(), f"wrong {number}") for number in range(50)]
        answers.append(self.guess(self.root(), "secret"))
        self.answerAll()
        self.assertEqual(len(self.checker.passwords), 6)
        self.assertEqual(self.kinds(answers), [Unauthorized] * 6 + [TooManyAttempts] * 45)

    def test_fromManyNetworks(self) -> None:
        """Nor from many networks at one name."""
        answers = []
        for number in range(50):
            self.from_(f"place {number}")
            answers.append(self.guess(self.root(), f"wrong {number}"))
        self.answerAll()
        self.assertEqual(len(self.checker.passwords), 6)
        self.assertEqual(self.kinds(answers), [Unauthorized] * 6 + [TooManyAttempts] * 44)

    def test_roomForOthers(self) -> None:
        """One network never has more than a few checks under way; others find room."""
        for number in range(100):
            self.guess(self.root(), "wrong", f"user{number}")
        self.assertEqual(len(self.checker.asked), Throttle().checksAtOnce)
        self.from_("elsewhere")
        self.guess(self.root(), "secret")
        self.assertEqual(self.checker.asked[-1][:2], (b"alice", b"secret"))

    def test_crowd(self) -> None:
        """Many who log in at once from one network, with the right password, all get in."""
        answers = [self.guess(self.root(), "secret", f"user{number}") for number in range(100)]
        self.answerAll()
        self.assertEqual(self.kinds(answers), [tuple] * 100)

    def test_givenBack(self) -> None:
        """A check that succeeds costs nothing, however often it is made."""
        for _ in range(30):
            answers = [self.guess(self.root(), "secret") for _ in range(5)]
            self.answerAll()
            self.assertEqual(self.kinds(answers), [tuple] * 5)

    def test_goneMeanwhile(self) -> None:
        """Who closes the connection before the turn comes is not asked for; others are."""
        roots = [self.root() for _ in range(10)]
        answers = [self.guess(root, "secret", f"user{i}") for i, root in enumerate(roots)]
        for root in roots[4:9]:
            self.memory.disconnect(root)
        self.answerAll()
        self.assertEqual(len(self.checker.passwords), 5)
        self.assertEqual(self.kinds([answers[0], answers[9]]), [tuple, tuple])
        self.assertEqual(self.memory._factory._authRoot.limits.checks._counts, {})

    def test_storeError(self) -> None:
        """
        While passwords can't be checked, whoever tries gets an error without a traceback in the
        log. When they can again, nobody has to wait, neither a name nor a network.
        """
        answers = [self.guess(self.root(), "wrong") for _ in range(20)]
        self.assertEqual(len(self.checker.asked), Throttle().checksAtOnce)
        self.answerAll(StoreError)
        self.assertEqual(self.kinds(answers), [StoreError] * 20)
        told = [(each["identity"], each["reason"]) for each in self.refused()]
        self.assertEqual(told, [("alice", "it could not be checked")] * 20)
        self.assertEqual(self.flushLoggedErrors(), [])
        for place in ("alice's", "elsewhere"):
            self.from_(place)
            answer = self.guess(self.root(), "secret")
            self.answerAll()
            self.assertEqual(self.kinds([answer]), [tuple])

    def test_storeErrorsOfOneConnection(self) -> None:
        """A connection has no more of them than it may have failures."""
        root = self.root()
        answers = [self.guess(root, "wrong") for _ in range(20)]
        self.answerAll(StoreError)
        self.assertEqual(self.kinds(answers).count(StoreError), 6)
        self.assertEqual(len(self.checker.passwords), 6)

    def test_slowStore(self) -> None:
        """Where a check, or a look-up, takes longer than the grace time, no client is to blame."""
        for _ in range(10):
            self.guess(self.root(), "secret")
        self.memory.advance(31)
        self.answerAll()
        stuck: list[Any] = []
        finding = self.memory.authorizer.getIdentityRequest

        def find(name: str) -> Any:
            stuck.append(Deferred())
            return stuck[-1]

        self.memory.authorizer.getIdentityRequest = find
        for _ in range(10):
            self.guess(self.root(), "secret")
        self.memory.advance(31)
        self.assertEqual(len(stuck), 10)
        for each in stuck:
            each.errback(StoreError())
        self.memory.flush()
        self.memory.authorizer.getIdentityRequest = finding
        answer = self.guess(self.root(), "secret")
        self.answerAll()
        self.assertEqual(self.kinds([answer]), [tuple])

    def test_off(self) -> None:
        """Without a throttle the bounds of connections and networks remain."""
        self.serve(throttle=False)
        root = self.root()
        for number in range(100):
            self.guess(root, f"wrong {number}")
        self.assertEqual(len(self.checker.asked), Throttle().checksAtOnce)
        self.answerAll()
        self.assertEqual(len(self.checker.passwords), 6)


class LocalPeerTests(WireTestCase):
    """Others on this machine, and web pages that a browser on it shows."""

    def test_webPage(self) -> None:
        """HTTP on a plain port does not make a name wait that has logged in from there."""
        self.memory.disconnect(self.successResultOf(self.login()))
        for _ in range(20):
            factory: Any = Factory.forProtocol(Protocol)
            browser = self.successResultOf(self.memory.connect(factory))
            self.memory.flush()
            browser.transport.write(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8787\r\nAccept: */*" + b"x" * 99
            )
            self.memory.flush()
        self.successResultOf(self.login())
        self.memory.addUser("bob", "secret", ("game", "bob"))
        self.failureResultOf(self.login("bob", Password("secret"), "game"), TooManyAttempts)


class LocalUserTests(TestCase):
    """Users of one machine, on a UNIX socket."""

    async def test_uid(self) -> None:
        """A server knows which user is at the other end."""
        from twisted.internet import reactor

        memory = MemoryServer()
        factory = AuthServerFactory(memory.authorizer)
        path = self.mktemp()[-30:].replace("/", "_")
        port = reactor.listenUNIX(path, factory)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        made: list[Any] = []
        build = factory.buildProtocol

        def buildProtocol(address: Any) -> Any:
            made.append(build(address))
            return made[-1]

        factory.buildProtocol = buildProtocol  # type: ignore[method-assign]
        root = await getObjectAt(f"unix:{path}", None)
        await root.callRemote("mechanisms")
        self.assertEqual(origin.originOf(made[0]).uid, os.getuid())
        root.broker.transport.loseConnection()
        await deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]

    if not hasattr(socket, "SO_PEERCRED"):
        test_uid.skip = "This system does not tell users apart."  # type: ignore[attr-defined]


class ChangePasswordTests(WireTestCase):
    """A thief who is logged in, and an administrator who resets the password."""

    def changed(self, iterations: int = 4096, salt: bytes = b"0123456789abcdef") -> str:
        """The verifier of the thief's choice."""
        return ScramVerifier.fromPassword("the thief's", salt, iterations).encode()

    def test_reset(self) -> None:
        """A write of the thief's that is under way does not overwrite the administrator's reset."""
        thief = self.identity()
        replace = self.memory.authorizer.replacePassword

        def replacePassword(*given: Any) -> Any:
            self.alice.setPassword("reset")
            self.alice.save()
            return replace(*given)

        self.patch(self.memory.authorizer, "replacePassword", replacePassword)
        self.assertIsInstance(self.refusal(thief, "changePassword", self.changed()), Unauthorized)
        self.failureResultOf(self.login("alice", "the thief's", "game"), Unauthorized)
        self.successResultOf(self.login("alice", "reset", "game"))

    def test_renewedMeanwhile(self) -> None:
        """A renewal of the same password's verifier meanwhile is no obstacle."""
        identity = self.identity()
        replace = self.memory.authorizer.replacePassword
        verifiers: Deferred[dict[str, Any]] = self.alice.getVerifiers()
        (old,) = self.successResultOf(verifiers).values()
        better = [ScramVerifier.fromPassword("secret", b"f" * 16, 5000)]

        def replacePassword(*given: Any) -> Any:
            while better:
                new = better.pop()
                with self.memory.authorizer.proofs.renewing("alice", old, new):
                    self.alice.setVerifiers({SCRAM: new})
            return replace(*given)

        self.patch(self.memory.authorizer, "replacePassword", replacePassword)
        self.answer(identity, "changePassword", self.changed())
        self.successResultOf(self.login("alice", "the thief's", "game"))

    def test_strength(self) -> None:
        """No weaker verifier than the server's own, and none that makes each login dear."""
        identity = self.identity()
        self.memory.authorizer.hashing = Hashing(iterations=5000, saltBytes=16)
        for iterations, salt in [
            (4999, 16),
            (20_001, 16),
            (5000, 15),
            (5000, 65),
            (10_000_000, 16),
        ]:
            verifier = ScramVerifier(b"s" * salt, iterations, bytes(32), bytes(32)).encode()
            for method in ("changePassword", "renewVerifier"):
                error = self.refusal(identity, method, verifier)
                self.assertIsInstance(error, ProtocolViolation, (iterations, salt, method))
        self.answer(identity, "changePassword", self.changed(20_000, b"s" * 64))


class Unwanted(pb.Copyable, pb.RemoteCopy):
    """Something that this process could make of what a guest sends."""

    made = 0

    def setCopyableState(self, state: Any) -> None:
        Unwanted.made += 1


pb.setUnjellyableForClass(Unwanted, Unwanted)


class Visitor(pb.Referenceable):
    """A guest's object."""

    def remote_hello(self) -> str:
        return "hello"

    def remote_fail(self) -> None:
        raise pb.Error("no")


class GuestTests(WireTestCase):
    """Everybody can be the guest, so a guest is a stranger still."""

    def setUp(self) -> None:
        class Room(RecordingPerspective):
            def perspective_echo(self, value: Any) -> Any:
                return value

        self.serve(Policy(guest="guest", graceTime=30))
        self.game.perspectiveClass = Room
        self.memory.addUser("guest", "unguessable", ("game", "guest"))

    def waiting(self) -> int:
        """How many connections count as not logged in."""
        return len(self.memory._factory._authRoot.limits.unauthenticated)

    def enter(self, root: Any) -> Any:
        """Log in as the guest, and give the `IdentityWrapper`."""
        _, challenger = self.answer(root, "username", "", "ANONYMOUS", b"")
        return self.answer(challenger, "respond", b"")[1]

    def assertCutOff(self, reference: Any, *call: Any) -> None:
        """Such a call ends the connection."""
        self.ask(reference, *call).addErrback(lambda _: None)
        self.assertTrue(reference.broker.disconnected)

    def test_withoutAttaching(self) -> None:
        """Until it attaches, a guest is a stranger: sends as little, and has as little time."""
        room = self.enter(self.root())
        self.assertEqual(self.waiting(), 1)
        self.assertCutOff(room, "keys", list(range(100)))
        self.assertEqual(self.waiting(), 0)
        room = self.enter(self.root())
        self.memory.advance(31)
        self.assertTrue(room.broker.disconnected)

    def test_attached(self) -> None:
        """An attached guest is dropped no more, and can send ordinary values, many times."""
        room = self.enter(self.root())
        perspective = self.answer(room, "attach", "game", None, None)
        self.assertEqual(self.waiting(), 0)
        self.memory.advance(31)
        for _ in range(20):
            value = [{"x": (1, 2.5, None)}, "x" * 10_000, list(range(500))]
            self.assertEqual(self.answer(perspective, "echo", value), value)

    def test_large(self) -> None:
        """Large values, deep ones and registered classes end the connection of a guest."""
        deep: Any = 1
        for _ in range(20):
            deep = [deep]
        before = Unwanted.made
        for value in ("x" * 100_000, list(range(2_000)), [[1]] * 2_000, deep, Unwanted()):
            perspective = self.successResultOf(self.login("guest", Anonymous(), "game"))
            self.assertCutOff(perspective, "echo", value)
        self.assertEqual(Unwanted.made, before)

    def test_clientObject(self) -> None:
        """A guest's object can be called; what it answers is taken as little as what it sends."""
        for attach in (
            lambda mind: self.login("guest", Anonymous(), "game", client=mind),
            lambda mind: self.ask(self.enter(self.root()), "attach", "game", None, mind),
        ):
            self.successResultOf(attach(Visitor()))
            clientref = self.game.events[-1].clientref
            self.assertEqual(self.answer(clientref, "hello"), "hello")
            error = self.failureResultOf(self.ask(clientref, "fail"))
            self.assertIsInstance(error.value, pb.RemoteError)
            self.assertEqual(self.answer(clientref, "hello"), "hello")

    def test_thenSomebody(self) -> None:
        """A guest that logs in with a password on the same connection has the limits no more."""
        root = self.root()
        room = self.enter(root)
        self.answer(room, "attach", "game", None, None)
        client, challenger = self.scram(root)
        _, identity = self.answer(challenger, "respond", client.get_client_final().encode())
        perspective = self.answer(identity, "attach", "game", "alice", None)
        self.assertEqual(self.answer(perspective, "echo", "x" * 100_000), "x" * 100_000)

    def test_remembered(self) -> None:
        """
        Nobody is at home where a guest was: guests have proved nothing, and can't make the server
        forget where others have logged in.
        """
        throttle = self.memory._factory._authRoot.limits.throttle
        for _ in range(3):
            self.memory.disconnect(self.enter(self.root()))
        self.successResultOf(self.login("guest", Anonymous(), "game"))
        self.assertEqual((len(throttle._known), len(throttle._knownNetworks)), (0, 0))
        self.successResultOf(self.login())
        self.assertEqual((len(throttle._known), len(throttle._knownNetworks)), (1, 1))

    def test_refusedKey(self) -> None:
        """A guest that asks for what it has no key to stays a stranger."""
        room = self.enter(self.root())
        self.refusal(room, "attach", "game", "alice", None)
        self.assertEqual(self.waiting(), 1)
