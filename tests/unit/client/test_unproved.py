"""What a client takes from a server before it has proved itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from twisted.internet import error as netError
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pbauth import (
    AuthRoot,
    Broker,
    ICredentials,
    ProtocolViolation,
    ServerNotTrusted,
    Unauthorized,
    getObjectAt,
)
from pbauth import logIn as logInOn
from pbauth._async import settled
from pbauth.errors import WireError
from pbauth.testing import MemoryServer, RecordingPerspective
from pbauth.wire.prelogin import LOGIN_SECURITY
from tests.support.streams import SIZES, cut, mutated
from tests.support.values import examples
from tests.support.wire import WireTestCase


class Copied(pb.Copyable, pb.RemoteCopy):
    """Of a class that the client's program has registered."""

    made = 0

    def setCopyableState(self, state: Any) -> None:
        Copied.made += 1
        super().setCopyableState(state)


pb.setUnjellyableForClass(Copied, Copied)


class Custom(WireError):
    """An application's own error."""

    def __init__(self) -> None:
        super().__init__("Come again tomorrow.")


class Client(pb.Referenceable):
    """The client's object; notes what is called."""

    def __init__(self) -> None:
        self.called: list[Any] = []

    def remote_note(self, *values: Any) -> int:
        self.called.append(values)
        return len(self.called)


class Exchange:
    """The client's half of a login, which finds out that the server has no proof."""

    initial = b"claim"

    def respond(self, challenge: bytes) -> bytes:
        return b"response"

    def checkOutcome(self, outcome: bytes) -> None:
        raise ServerNotTrusted()


@implementer(ICredentials)
class Credentials:
    """Begin such logins."""

    mechanisms = ("SCRAM-SHA-256",)
    clientCertificate = None

    def begin(self, mechanism: str, name: str, connection: Any) -> Any:
        return Exchange()


class Rogue(pb.Root):
    """A server that knows nothing of the account, and does what a test says."""

    def __init__(self) -> None:
        self.onUsername: Any = lambda: (b"challenge", self)
        self.onRespond: Any = lambda client: None
        self.client: Any = None

    def remote_username(self, *arguments: Any) -> Any:
        return self.onUsername()

    def remote_respond(self, response: Any, service: Any, perspective: Any, client: Any) -> Any:
        self.client = client
        return self.onRespond(client)


class RogueTests(SynchronousTestCase):
    """A server that has not proved itself."""

    def setUp(self) -> None:
        self.rogue = Rogue()
        self.client = Client()
        self.memory = MemoryServer(factory=pb.PBServerFactory(self.rogue))
        Copied.made = 0

    def logIn(self) -> Deferred[Any]:
        """Log in there; the challenge is as good as any."""
        login = self.memory.logIn("alice", Credentials(), "game", client=self.client)
        self.memory.flush()
        return login

    def assertCutOff(self) -> None:
        """The login fails, because the server broke the rules."""
        failure = self.failureResultOf(self.logIn(), pb.PBConnectionLost)
        failure.value.args[0].trap(ProtocolViolation)

    def test_calls(self) -> None:
        """It does not get to the client's object, neither before its answer nor with it."""
        for argument in (1, Copied(), [1] * 100, {"a": Copied()}):

            def respond(client: Any, argument: Any = argument) -> Any:
                client.callRemote("note", argument).addErrback(lambda failure: None)
                return b"no proof", self.rogue, self.rogue

            self.rogue.onRespond = respond
            self.failureResultOf(self.logIn(), ServerNotTrusted)
            self.memory.flush()
            self.assertEqual((self.client.called, Copied.made), ([], 0))

    def test_callsAfterTheAnswer(self) -> None:
        """Nor after it, in one piece with the answer."""

        answer: Deferred[Any] = Deferred()
        self.rogue.onRespond = lambda client: answer
        login = self.logIn()
        self.assertNoResult(login)
        answer.callback((b"no proof", self.rogue, self.rogue))
        self.rogue.client.callRemote("note", 1).addErrback(lambda failure: None)
        self.memory.flush()
        self.failureResultOf(login, ServerNotTrusted)
        self.assertEqual(self.client.called, [])

    def test_classes(self) -> None:
        """Nothing is made of classes that the program has registered."""
        self.rogue.onUsername = lambda: (b"challenge", Copied())
        self.failureResultOf(self.logIn())
        self.assertEqual(Copied.made, 0)

        def refuse() -> Any:
            raise Error

        class Error(pb.Error, Copied):
            pass

        pb.setUnjellyableForClass(Error, Error)
        self.rogue.onUsername = refuse
        failure = self.failureResultOf(self.logIn(), pb.RemoteError)
        self.assertIn("not known here", str(failure.value))
        self.assertEqual(Copied.made, 0)

    def test_bytes(self) -> None:
        """It can't fill the memory: after 1 MiB the connection is cut off."""

        def respond(client: Any) -> Any:
            for _ in range(2):
                client.callRemote("note", bytes(500_000)).addErrback(lambda failure: None)
            return Deferred()

        self.rogue.onRespond = respond
        login = self.logIn()
        self.assertNoResult(login)
        self.rogue.client.callRemote("note", bytes(48_576)).addErrback(lambda failure: None)
        self.memory.flush()
        failure = self.failureResultOf(login, pb.PBConnectionLost)
        failure.value.args[0].trap(ProtocolViolation)
        self.assertEqual(self.client.called, [])

    def test_proofs(self) -> None:
        """A proof that is none changes nothing; what can't be one breaks the rules."""

        def respond(client: Any) -> Any:
            named = client.broker.remoteForName("pbauth")
            named.callRemote("proved", b"no proof", pbanswer=False)
            client.callRemote("note", 1).addErrback(lambda failure: None)
            return b"no proof", self.rogue, self.rogue

        self.rogue.onRespond = respond
        self.failureResultOf(self.logIn(), ServerNotTrusted)
        self.assertEqual(self.client.called, [])
        arguments: tuple[Any, ...]
        for arguments in ((), (1,), (b"x", b"y")):

            def wrong(client: Any, arguments: Any = arguments) -> Any:
                named = client.broker.remoteForName("pbauth")
                named.callRemote("proved", *arguments, pbanswer=False)
                return Deferred()

            self.rogue.onRespond = wrong
            self.assertCutOff()

    def test_earlyProof(self) -> None:
        """Nor does one count that comes before there is anything to prove."""

        def challenge() -> Any:
            broker = self.memory.pumps[-1].server
            broker.remoteForName("pbauth").callRemote("proved", b"", pbanswer=False)
            return b"challenge", self.rogue

        self.rogue.onUsername = challenge
        self.assertCutOff()

    def test_otherMessages(self) -> None:
        """What no login takes ends the connection."""
        for message in ([b"uncache", 1], [b"decache", 1], [b"didNotUnderstand", b"x"], [b"x"]):

            def respond(client: Any, message: Any = message) -> Any:
                client.broker.sendCall(*message)
                return Deferred()

            self.rogue.onRespond = respond
            self.assertCutOff()

    def test_oddMessages(self) -> None:
        """Whatever it says instead of an answer, the login waits, or fails as logins do."""
        copied = [f"{__name__}.Copied".encode(), [b"dictionary"]]
        failure = b"twisted.spread.pb.CopyableFailure"
        deep: Any = 1
        for _ in range(300):
            deep = [b"list", deep]
        for message in (
            *([b"answer", number, 1] for number in (500, b"2", 2.5, -1, [1])),
            *([b"decref", number] for number in (500, b"root", -1)),
            *([b"version", number] for number in (6, 7, [6])),
            *([], [[b"message"]], [b"message", 1], [b"uncache", 1], [b"didNotUnderstand", b"x"]),
            [b"cachemessage", 1, 1, b"x", 1, [b"tuple"], [b"dictionary"]],
            *(
                [b"message", 1, b"pbauth", name, 0, [b"tuple", *arguments], [b"dictionary"]]
                for name, arguments in ((b"cancel", [1]), (b"ended", [1, b"x"]), (b"ping", []))
            ),
            *(
                [command, 2, value]
                for command in (b"answer", b"error")
                for value in (
                    *(5, 2.5, b"x", [b"None"], [b"list", 1], [b"remote", 5], [b"unicode", b"x"]),
                    *(deep, [b"unicode", b"\xff"], [b"boolean", b"x"], [b"set", [b"list"]]),
                    *([b"dictionary", [[b"list"], 1]], [b"decimal", 1, 10**9], [b"\xff"], []),
                    *([b"module", b"os"], [b"function", b"os.system"], [b"class", b"os.x"]),
                    *([b"cache", 1, *copied], [b"lcache", 1], [b"local", 1], copied, [b"x.Y"]),
                    *([b"dereference", 1], [b"reference", 1, [b"list", [b"dereference", 1]]]),
                    *(
                        [b"instance", [b"class", b"os.x"], copied],
                        [b"pbauth.Stream", [b"remote", 5]],
                    ),
                    [failure, [b"dictionary", [b"value", copied], [b"type", b"x" * 300_000]]],
                    [b"pbauth.errors.Unauthorized", [b"list"]],
                )
            ),
        ):
            for step in ("onUsername", "onRespond"):
                self.setUp()

                def say(client: Any = None, message: Any = message) -> Any:
                    server: Any = self.memory.pumps[-1].server
                    # It does not mind what the client drops.
                    server.proto_decref = lambda objectID: None
                    server.sendEncoded(message)
                    return Deferred()

                setattr(self.rogue, step, say)
                outcome: list[Any] = []
                self.logIn().addBoth(outcome.append)
                for each in outcome:
                    self.assertTrue(
                        each.check(
                            ProtocolViolation, pb.PBConnectionLost, pb.RemoteError, Unauthorized
                        ),
                        (message, each),
                    )
                self.memory.pumps[-1].client.transport.loseConnection()
                self.memory.flush()
                self.assertEqual((self.client.called, Copied.made), ([], 0))
                self.assertEqual(self.flushLoggedErrors(), [])

    def test_security(self) -> None:
        """What may come in."""
        for name, allowed in (
            ("unicode", True),
            ("remote", True),
            ("twisted.spread.pb.CopyableFailure", True),
            ("pbauth.errors.Unauthorized", True),
            (f"{__name__}.Custom", True),
            (f"{__name__}.Copied", False),
            ("module", False),
            ("class", False),
            ("function", False),
            ("instance", False),
            ("local", False),
            ("cached", False),
            ("lcache", False),
            ("persistent", False),
        ):
            self.assertIs(LOGIN_SECURITY.isTypeAllowed(name), allowed, name)
            self.assertIs(LOGIN_SECURITY.isTypeAllowed(name.encode()), allowed, name)


class AnyBytesTests(SynchronousTestCase):
    """Bytes by chance, from a server that has not proved itself."""

    @examples(100)
    @given(mutated(), SIZES)
    def test_anyBytes(self, data: bytes, sizes: list[int]) -> None:
        """Nothing is raised, made or called; if anything is wrong, it is the bytes."""
        client, broker = Client(), Broker()
        Copied.made = 0
        broker.factory = pb.PBClientFactory()
        broker.restrict(10_000)
        transport = StringTransport()
        broker.makeConnection(transport)
        broker.speakFirst()
        broker.dataReceived(banana.encode([b"pb", b"none"]))
        broker.registerReference(client)
        calls = [broker.remoteForName("root").callRemote("x") for _ in range(3)]
        for chunk in cut(data, sizes):
            broker.dataReceived(chunk)
        dropped = transport.disconnecting or getattr(transport, "aborting", False)
        self.assertEqual(dropped, broker.brokeProtocol)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        for call in calls:
            call.addErrback(lambda failure: None)
        self.assertEqual((client.called, Copied.made), ([], 0))
        self.assertEqual(self.flushLoggedErrors(), [])


class HonestTests(WireTestCase):
    """A server that proves itself."""

    def setUp(self) -> None:
        super().setUp()
        self.client = Client()

    def test_calls(self) -> None:
        """Calls that it has made before are done then, all of them, in their order."""

        class Player(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                self.answers = [
                    clientref.callRemote("note", value)
                    for value in (1, Copied(), [2] * 1000, pb.Referenceable(), "x" * 100_000)
                ]
                return super().attached(clientref, identity)

            def perspective_after(self) -> int:
                return len([answer for answer in self.answers if answer.called])

        Copied.made = 0
        self.game.perspectiveClass = Player
        done: list[int] = []
        login: Deferred[Any] = self.memory.logIn("alice", "secret", "game", client=self.client)

        def note(found: Any) -> Any:
            done.append(len(self.client.called))
            return found

        login.addCallback(note)
        self.memory.flush()
        perspective = self.successResultOf(login)
        self.assertEqual(done, [5])
        (one,), (copied,), (many,), (reference,), (long,) = self.client.called
        self.assertEqual((one, many, long), (1, [2] * 1000, "x" * 100_000))
        self.assertIsInstance(copied, Copied)
        self.assertEqual(reference.perspective, None)
        self.assertEqual(self.answer(perspective, "after"), 5)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_waits(self) -> None:
        """It may wait for the client's answer while it attaches: its proof comes before that."""

        class Player(RecordingPerspective):
            async def attached(self, clientref: Any, identity: Any) -> Any:
                self.answered = await clientref.callRemote("note", "who are you?")
                return await settled(super().attached(clientref, identity))

            def perspective_after(self) -> int:
                answered: int = self.answered
                return answered

        self.game.perspectiveClass = Player
        for memory in (self.memory, self.stockServer()):
            self.client.called.clear()
            login = memory.logIn("alice", "secret", "game", client=self.client)
            memory.flush()
            perspective = self.successResultOf(login)
            self.assertEqual(self.client.called, [("who are you?",)])
            answer = perspective.callRemote("after")
            memory.flush()
            self.assertEqual(self.successResultOf(answer), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def stockServer(self) -> MemoryServer:
        """The same accounts, under Twisted's own broker."""
        root = AuthRoot(self.memory.authorizer, None, self.memory.clock)
        return MemoryServer(self.memory.authorizer, factory=pb.PBServerFactory(root))

    def test_stockClient(self) -> None:
        """A client under Twisted's own broker takes no notice of the proof that comes before."""
        factory = pb.PBClientFactory()
        self.memory.connect(factory)
        opening = factory.getRootObject()
        self.memory.flush()
        login = logInOn(self.successResultOf(opening), self.client, "game", "alice", "secret")
        self.memory.flush()
        self.successResultOf(login)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_errors(self) -> None:
        """Its errors arrive as themselves, those of applications, too."""

        class Player(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                raise Custom()

        self.game.perspectiveClass = Player
        self.failureResultOf(self.memory.logIn("alice", "secret", "game"), Custom)
        self.failureResultOf(self.memory.logIn("alice", "wrong", "game"), Unauthorized)

    def test_ownConnection(self) -> None:
        """A second login on a connection does not disturb the first."""
        opening = getObjectAt(self.memory, None, reactor=self.memory.clock)
        self.memory.flush()
        root = self.successResultOf(opening)
        for password in ("secret", "wrong"):
            login = logInOn(root, self.client, "game", "alice", password)
            self.memory.flush()
            if password == "wrong":
                self.failureResultOf(login, Unauthorized)
            else:
                self.successResultOf(login)
        (session,) = self.memory.authorizer.sessions
        self.successResultOf(self.ask(session.clientref, "note", jelly.jelly(1)))
