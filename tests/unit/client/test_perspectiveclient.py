"""A client that stays logged in."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.application.service import IService, MultiService
from twisted.internet import error as netError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface.verify import verifyObject

from pbauth import (
    AuthServ,
    AuthServerFactory,
    BackOff,
    DefaultAuthorizer,
    Detached,
    EndReason,
    Hashing,
    InvalidName,
    InvalidPassword,
    KeyNotFound,
    LoginTimeout,
    MechanismNotSupported,
    NotAttached,
    Password,
    PerspectiveClient,
    Policy,
    PrivateKey,
    ProtocolViolation,
    ServerNotTrusted,
    StoreError,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.client.reconnect import LONGEST_WAIT, State
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.testing import MemoryServer, RecordingPerspective
from pbauth.wire.broker import Broker
from pbauth.wire.peerobject import MOST_ENDED
from tests.support.listings import ListingTestCase
from tests.support.proxies import ProxyFactory
from tests.support.serving import AwaitedPerspective, AwaitedService, ServingTestCase
from tests.support.stayingclient import (
    REFUSED,
    SECRET,
    ClientTestCase,
    Player,
    Watched,
)


class LoginTests(ClientTestCase):
    """How it gets its perspective."""

    def test_interface(self) -> None:
        """It is a service, and may be part of another."""
        client = self.client()
        verifyObject(IService, client)
        parent = MultiService()
        client.setServiceParent(parent)
        parent.startService()
        self.memory.flush()
        self.assertEqual(self.answer(self.reference(client), "whoami"), "alice")
        stopped = parent.stopService()
        self.memory.flush()
        self.successResultOf(stopped)
        self.assertQuiet(client)

    def test_whenAttached(self) -> None:
        """Who asks early waits; who asks later is given it at once."""
        client = self.client()
        early = client.whenAttached()
        self.assertNoResult(early)
        client.startService()
        waiting = client.whenAttached()
        self.memory.flush()
        for each in (early, waiting, client.whenAttached()):
            self.assertEqual(self.answer(self.successResultOf(each), "whoami"), "alice")
        self.assertEqual(client.told, ["attached"])
        self.stop(client)
        self.assertEqual(client.told, ["attached", "detached"])
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_cancelledWaiter(self) -> None:
        """Who gives up waiting is forgotten."""
        client = self.client()
        waiting, patient = client.whenAttached(), client.whenAttached()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        client.startService()
        self.memory.flush()
        self.successResultOf(patient)

    def test_names(self) -> None:
        """User and perspective are called the same, unless it is said otherwise."""
        for options, expected in [
            ({"username": "alice"}, "alice"),
            ({"username": None, "perspectiveName": "alice"}, "alice"),
            ({"username": "alice", "perspectiveName": "shared"}, "shared"),
        ]:
            client = self.started(SECRET, "game", **options)
            self.assertEqual(self.successResultOf(self.call(client, "whoami")), expected)
            self.assertEqual(self.game.events[-1].identityName, "alice")
            self.stop(client)

    def test_wrongArguments(self) -> None:
        """What can't be right is said at once, in one line, and nothing is opened."""
        for arguments, options, error in [
            (("secret", "game"), {"username": None}, TypeError),
            (("secret", "game"), {"username": b"alice"}, TypeError),
            ((b"secret", "game"), {}, TypeError),
            (("secret", 5), {}, TypeError),
            (("secret", "game", "alice", "client"), {}, TypeError),
            (("secret", "game"), {"username": ""}, InvalidName),
            (("", "game"), {}, InvalidPassword),
            (("secret", "game"), {"timeout": -1}, ValueError),
            (("secret", "game"), {"pingInterval": "often"}, ValueError),
            (("secret", "game"), {"mostWaiting": -1}, ValueError),
            (("secret", "game"), {"trust": "SHA256:x"}, ValueError),
        ]:
            with self.assertRaises(error) as raised:
                self.client(*arguments, **options)
            self.assertNotIn("\n", str(raised.exception))
        for endpoint, error in [
            ("nonsense", ValueError),
            (5, TypeError),
            ("tcp:192.0.2.1:8787", ServerNotTrusted),
        ]:
            with self.assertRaises(error):
                PerspectiveClient(endpoint, "secret", "game", "alice", reactor=self.memory.clock)
        PerspectiveClient(
            "tcp:192.0.2.1:8787",
            "secret",
            "game",
            "alice",
            insecure=True,
            reactor=self.memory.clock,
        )
        self.assertEqual(self.memory.pumps, [])

    def test_derivedOnce(self) -> None:
        """The key of the password is derived once, however often it logs in."""
        derived: list[int] = []
        derive = Password._derive

        def count(password: Any, salt: bytes, iterations: int) -> Any:
            derived.append(iterations)
            return derive(password, salt, iterations)

        self.patch(Password, "_derive", count)
        client = self.started("secret")
        for _ in range(3):
            self.memory.disconnect(self.reference(client))
            self.memory.advance(1)
        self.assertEqual(self.game.kinds().count("attached"), 4)
        self.assertEqual(derived, [4096])

    def test_sayNothing(self) -> None:
        """Neither its repr nor the log shows the password, nor do broken lines."""
        said: list[Any] = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        self.memory.refusal = netError.ConnectError("two\nlines")
        client = self.started("a secret that shows")
        self.memory.refusal = None
        self.memory.advance(1)
        self.assertIs(self.state(client), State.GAVE_UP)
        text = "\n".join(
            [repr(client), *(str(event.get("log_format", "")).format(**event) for event in said)]
        )
        self.assertNotIn("a secret", text)
        self.assertIn("two\\nlines", text)
        self.assertIn("gave up attaching to 'game': Unauthorized", text)


class ReconnectTests(ClientTestCase):
    """What it comes back from."""

    def test_reconnects(self) -> None:
        """After the server was gone it logs in again, and its client object is attached again."""

        class Screen(pb.Referenceable):
            def remote_show(self, what: str) -> str:
                return f"seen: {what}"

        client = self.started(SECRET, "game", client=Screen())
        for _ in range(3):
            self.crash()
            self.assertIs(self.state(client), State.WAITING)
            self.memory.advance(10)
            self.memory.refusal = None
            self.memory.advance(1)
            clientref: Any = self.game.events[-1].clientref
            seen = clientref.callRemote("show", "it")
            self.memory.flush()
            self.assertEqual(self.successResultOf(seen), "seen: it")
        self.assertEqual(client.told, ["attached", *["detached", "attached"] * 3])
        self.assertEqual(self.game.kinds(), client.told)

    def test_backOff(self) -> None:
        """Each time it waits longer; by chance less, and never more than it may."""
        chances = iter([0.0, 1.0] * 10)
        policy = BackOff(shortest=2, longest=9, factor=2, jitter=0.5, random=lambda: next(chances))
        self.memory.refusal = REFUSED
        attempts: list[float] = []
        connect = self.memory.connect

        def note(factory: Any) -> Any:
            attempts.append(self.memory.clock.seconds())
            return connect(factory)

        self.memory.connect = note  # type: ignore[method-assign]
        self.started(retryPolicy=policy)
        self.memory.advance(40)
        pauses = [later - before for before, later in pairwise(attempts)]
        self.assertEqual(pauses[:6], [2, 2, 8, 4.5, 9, 4.5])

    def test_temporary(self) -> None:
        """Whatever servers and networks recover from."""

        def raising(error: Exception) -> Any:
            async def fail(serv: Any, *arguments: Any) -> None:
                raise error

            return fail

        for error in [
            REFUSED,
            netError.DNSLookupError("no such host"),
            netError.TCPTimedOutError(),
            netError.ConnectionLost(),
            OSError("odd"),
        ]:
            self.memory.refusal = error
            client = self.started()
            self.memory.advance(5)
            self.assertIs(self.state(client), State.WAITING)
            self.memory.refusal = None
            self.memory.advance(1)
            self.reference(client)
            self.stop(client)
        for error in [StoreError(), ProtocolViolation(), Detached(), ZeroDivisionError()]:
            patch = self.patch(AuthServ, "remote_username", raising(error))
            client = self.started()
            self.memory.advance(5)
            self.assertIs(self.state(client), State.WAITING)
            patch.restore()
            self.memory.advance(1)
            self.reference(client)
            self.stop(client)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_silence(self) -> None:
        """A server that does not answer is tried again after the timeout."""
        authorizer = self.memory.authorizer
        authorizer.getIdentityRequest = lambda name: Deferred()
        client = self.started(timeout=7)
        self.memory.advance(6.9)
        self.assertIs(self.state(client), State.LOGGING_IN)
        self.memory.advance(0.1)
        self.assertIs(self.state(client), State.WAITING)
        self.assertIsInstance(client._reason.value, LoginTimeout)  # type: ignore[union-attr]
        del authorizer.getIdentityRequest
        self.memory.advance(1)
        self.reference(client)

    def test_attachedFails(self) -> None:
        """A server whose `attached` fails may do better later."""

        class Failing(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                raise ZeroDivisionError

        self.game.perspectiveClass = Failing
        client = self.started()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIs(self.state(client), State.WAITING)
        self.game.perspectiveClass = Player
        self.memory.advance(1)
        self.reference(client)

    def test_tooManyAttempts(self) -> None:
        """Where the server says when to come again, it does not come before."""
        asked: list[float] = []

        async def refuse(serv: Any, *arguments: Any) -> None:
            asked.append(self.memory.clock.seconds())
            serv.broker.readsOurErrors = True
            raise TooManyAttempts(40)

        patch = self.patch(AuthServ, "remote_username", refuse)
        client = self.started()
        self.memory.advance(90)
        self.assertEqual(asked, [0, 41, 82])
        patch.restore()
        self.memory.advance(40)
        self.reference(client)

    def test_restartsOften(self) -> None:
        """A server that drops whom it lets in is not overrun."""
        client = self.started(retryPolicy=BackOff(jitter=0))
        for _ in range(5):
            self.memory.disconnect(self.reference(client))
            self.memory.advance(63)
        self.assertEqual(self.game.kinds().count("attached"), 6)
        begun = self.memory.clock.seconds()
        while self.memory.clock.seconds() < begun + 120:
            if self.state(client) is State.ATTACHED:
                self.memory.disconnect(self.reference(client))
            self.memory.advance(1)
        self.assertLess(self.game.kinds().count("attached"), 6 + 9)

    def test_halfDead(self) -> None:
        """
        The server still believes in the old connection when the client comes again: both are
        attached, until the old one is noticed to be dead; the new one is not disturbed.
        """
        self.serve(Policy(pingInterval=1000))
        client = self.started(pingInterval=10)
        self.memory.cut(self.reference(client))
        lost = self.call(client, "note", "lost")
        self.memory.advance(21)
        self.failureResultOf(lost, pb.PBConnectionLost)
        self.assertEqual(self.game.kinds(), ["attached", "attached"])
        self.assertEqual(len(self.memory.authorizer.sessions), 2)
        self.assertEqual(self.successResultOf(self.call(client, "note", "new")), "new")
        self.memory.advance(2000)
        self.assertEqual(self.game.kinds(), ["attached", "attached", "detached"])
        self.assertEqual(self.successResultOf(self.call(client, "note", "newer")), "newer")
        self.assertEqual(self.game.notes, ["new", "newer"])
        self.assertEqual(client.told, ["attached", "detached", "attached"])

    def test_pingOff(self) -> None:
        """Who does not want to know does not learn that the server is gone."""
        self.serve(Policy(pingInterval=0))
        client = self.started(pingInterval=None)
        self.memory.cut(self.reference(client))
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        self.memory.advance(1000)
        self.assertIs(self.state(client), State.ATTACHED)


class TellingTests(ClientTestCase):
    """The server says at once that it has ended the session, and why."""

    def onlySession(self) -> Any:
        """The one session that there is."""
        (session,) = self.memory.authorizer.sessions
        return session

    def test_kicked(self) -> None:
        """A client that only listens learns of it without asking, and logs in again."""
        client = self.started(pingInterval=None)
        perspective = self.successResultOf(client.whenAttached())
        self.memory.authorizer.sessions.end(self.onlySession())
        self.memory.flush()
        self.assertEqual(client.told, ["attached", "detached"])
        self.assertIs(self.state(client), State.WAITING)
        # The old reference says why, even when its connection is gone.
        error = self.failureResultOf(perspective.callRemote("whoami"), Detached).value
        self.assertEqual(error.reason, EndReason.ADMINISTRATOR.value)
        self.assertIn(EndReason.ADMINISTRATOR.value, str(error))
        self.memory.advance(1)
        self.assertEqual(client.told, ["attached", "detached", "attached"])

    def test_final(self) -> None:
        """Where another login would be refused, none is tried."""
        key = PrivateKey(Ed25519PrivateKey.generate())

        def lock() -> None:
            self.alice.locked = True

        def changePassword() -> None:
            self.alice.setPassword("another")
            self.alice.save()

        def removePublicKey() -> None:
            self.alice.removePublicKey(key.publicKey)
            self.alice.save()

        def revokeKey() -> None:
            self.alice.removeKey("game", "alice")

        def remove() -> None:
            self.memory.authorizer.removeIdentity("alice")

        cases: list[tuple[Any, Any, type[Exception], EndReason]] = [
            (SECRET, lock, Unauthorized, EndReason.LOCKED),
            (SECRET, changePassword, Unauthorized, EndReason.PASSWORD_CHANGED),
            (key, removePublicKey, Unauthorized, EndReason.PUBLIC_KEY_REMOVED),
            (SECRET, revokeKey, KeyNotFound, EndReason.KEY_REVOKED),
            (SECRET, remove, Unauthorized, EndReason.REMOVED),
        ]
        for credentials, change, expected, reason in cases:
            self.serve()
            self.alice.addPublicKey(key.publicKey)
            self.alice.save()
            client = self.started(credentials, pingInterval=None)
            waiting = self.call(client, "wait")
            session = self.onlySession()
            change()
            self.memory.flush()
            self.assertIs(session.endReason, reason)
            self.assertEqual(self.failureResultOf(waiting, Detached).value.reason, reason.value)
            self.memory.advance(60)
            self.assertEqual(client.told, ["attached", "detached", f"gave up: {expected.__name__}"])
            error = self.failureResultOf(client.whenAttached(), expected).value
            if expected is Unauthorized:
                self.assertIn(reason.value, str(error))
            self.assertEqual(self.memory.pumps[1:], [], "There was another login.")

    def test_nonsense(self) -> None:
        """What no server of ours would say changes nothing, and is not kept without bounds."""
        client = self.started(pingInterval=None)
        perspective = self.successResultOf(client.whenAttached())
        broker = self.onlySession().broker
        named = broker.remoteForName("pbauth")
        for arguments in [
            (),
            (1,),
            ("1", "reason"),
            (1, b"x"),
            (1, "x" * 101),
            (1, "\n"),
            (1, 2, 3),
        ]:
            named.callRemote("ended", *arguments)
        for number in range(5000, 5000 + 2 * MOST_ENDED):
            named.callRemote("ended", number, "whatever", pbanswer=False)
        self.memory.flush()
        self.assertEqual(len(perspective.broker._ended.reasons), MOST_ENDED)
        self.assertEqual(self.successResultOf(self.call(client, "whoami")), "alice")
        # A reason that is not known here is no reason to give up.
        named.callRemote("ended", perspective.luid, "for fun", pbanswer=False)
        self.memory.flush()
        self.assertIs(self.state(client), State.ATTACHED)

    def test_unknownReason(self) -> None:
        """Servers to come may have other reasons: the client logs in again."""
        client = self.started(pingInterval=None)
        perspective = self.successResultOf(client.whenAttached())
        named = self.onlySession().broker.remoteForName("pbauth")
        named.callRemote("ended", perspective.luid, "the moon is full", pbanswer=False)
        self.memory.advance(1)
        self.assertEqual(client.told, ["attached", "detached", "attached"])

    def test_others(self) -> None:
        """A client without pbauth's broker is told nothing that it could not read."""
        client = self.started(pingInterval=None)
        session = self.onlySession()
        session.broker.readsOurErrors = False
        self.memory.authorizer.sessions.end(session)
        self.memory.flush()
        self.assertIs(self.state(client), State.ATTACHED)
        self.failureResultOf(self.call(client, "whoami"), Detached)


class GivingUpTests(ClientTestCase):
    """What it does not come back from by itself."""

    def assertGaveUp(self, client: Watched, error: type[Exception]) -> None:
        """It says why to all who want to know, and does nothing more."""
        self.assertIs(self.state(client), State.GAVE_UP)
        self.failureResultOf(client.whenAttached(), error)
        self.failureResultOf(client.callRemote("whoami"), error)
        self.assertEqual(client.told[-1], f"gave up: {error.__name__}")
        self.assertQuiet(client)

    def test_refusals(self) -> None:
        """Wrong names and passwords, and keys that are not held."""
        for credentials, options, error in [
            ("wrong", {}, Unauthorized),
            (SECRET, {"username": "mallory"}, Unauthorized),
            (SECRET, {"perspectiveName": "bob"}, KeyNotFound),
        ]:
            client = self.client(credentials, "game", **options)
            waiting, call = client.whenAttached(), client.callRemote("whoami")
            client.startService()
            self.memory.flush()
            self.failureResultOf(waiting, error)
            self.failureResultOf(call, error)
            self.assertGaveUp(client, error)
            stopped = client.stopService()
            self.successResultOf(stopped)
            # It is still the reason.
            self.failureResultOf(client.whenAttached(), error)

    def test_refusedOnce(self) -> None:
        """
        Once it was attached, one refusal may be that of somebody who sits on the port for the
        moment; three in a row are meant.
        """
        for refusals in (2, 3):
            self.serve()
            client = self.started()
            self.memory.refusal = Unauthorized()
            self.memory.disconnect(self.reference(client))
            # A second after the loss, and then every ten.
            self.memory.advance(1.5 + 10 * (refusals - 1))
            self.memory.refusal = None
            self.memory.advance(10)
            if refusals == 2:
                self.assertEqual(client.told, ["attached", "detached", "attached"])
                # From then on they are counted again.
                self.stop(client)
            else:
                self.assertEqual(client.told[2:], ["gave up: Unauthorized"])
                self.assertGaveUp(client, Unauthorized)

    def test_serverNotTrustedForAWhile(self) -> None:
        """A server that it does not trust is tried again each minute, and that is an error."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        client = self.client(pingInterval=None)
        self.memory.refusal = ServerNotTrusted("another key")
        client.startService()
        self.memory.advance(200)
        alarms = [each for each in events if each.get("kind") == "ServerNotTrusted"]
        self.assertEqual([each["log_level"].name for each in alarms], ["error"] * 4)
        self.memory.refusal = None
        self.memory.advance(60)
        self.assertEqual(client.told, ["attached"])

    def test_longestWait(self) -> None:
        """A server can't put a client off for days."""
        client = self.client(pingInterval=None)
        self.memory.refusal = TooManyAttempts(86_000)
        client.startService()
        self.memory.flush()
        self.memory.refusal = None
        self.memory.advance(LONGEST_WAIT + 2)
        self.assertEqual(client.told, ["attached"])

    def test_otherVerifier(self) -> None:
        """A server that does not know the verifier is no exception, and gets no password."""
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        imposter = ScramVerifier(verifier.salt, verifier.iterations, verifier.storedKey, bytes(32))
        self.alice.setVerifiers({"SCRAM-SHA-256": imposter})
        client = self.started("secret")
        self.assertIs(self.state(client), State.WAITING)
        self.alice.setPassword("secret")
        self.memory.advance(61)
        self.assertEqual(client.told, ["attached"])

    def test_mechanismNotSupported(self) -> None:
        """Nor is one with which there is no mechanism in common."""
        self.serve(Policy(mechanisms=[]))
        self.assertGaveUp(self.started(), MechanismNotSupported)

    def test_laterOn(self) -> None:
        """What was allowed once may be no longer: it notices, and gives up."""
        client = self.started()
        self.alice.removeKey("game", "alice")
        self.failureResultOf(self.call(client, "whoami"), Detached)
        self.memory.advance(1)
        self.assertGaveUp(client, KeyNotFound)
        self.assertEqual(client.told, ["attached", "detached", "gave up: KeyNotFound"])

    def test_backoff(self) -> None:
        """Its policy may have enough, of failures and of losses."""
        self.memory.refusal = REFUSED
        client = self.started(retryPolicy=BackOff(jitter=0, attempts=2))
        self.memory.advance(3)
        self.assertGaveUp(client, netError.ConnectionRefusedError)
        self.memory.refusal = None
        client = self.started(retryPolicy=lambda failures: None)
        self.memory.disconnect(self.reference(client))
        self.assertGaveUp(client, netError.ConnectionLost)

    def test_startedAgain(self) -> None:
        """Once the matter is settled it may be started again."""
        client = self.started("other")
        self.assertGaveUp(client, Unauthorized)
        self.alice.setPassword("other")
        client.startService()
        waiting = client.whenAttached()
        self.memory.flush()
        self.assertEqual(self.answer(self.successResultOf(waiting), "whoami"), "alice")

    def test_stopInHook(self) -> None:
        """A program may stop it as it learns of the end, or of any other turn."""
        for hook, credentials in [("gaveUp", "wrong"), ("attached", SECRET), ("detached", SECRET)]:
            client = self.client(credentials, retryPolicy=BackOff(attempts=0))
            stopped: list[Deferred[None]] = []
            setattr(
                client, hook, lambda *a, client=client, s=stopped: s.append(client.stopService())
            )
            client.startService()
            self.memory.flush()
            if hook == "detached":
                self.memory.disconnect(self.reference(client))
            self.successResultOf(stopped[0])
            self.assertIs(self.state(client), State.STOPPED)
            self.assertQuiet(client)

    def test_failed(self) -> None:
        """A program learns why a login failed that will be tried again, and may have enough."""
        self.memory.refusal = REFUSED
        reasons: list[Any] = []
        stopped: list[Any] = []

        def failed(reason: Any) -> None:
            reasons.append(reason.type)
            if len(reasons) == 3:
                stopped.append(client.stopService())

        client = self.client(SECRET, retryPolicy=BackOff(jitter=0))
        client.failed = failed
        client.startService()
        self.memory.advance(60)
        self.successResultOf(stopped[0])
        self.assertEqual(reasons, [netError.ConnectionRefusedError] * 3)
        self.assertIs(self.state(client), State.STOPPED)
        self.assertQuiet(client)
        self.memory.refusal = None
        reasons.clear()
        refused = self.client("wrong")
        refused.failed = reasons.append
        refused.startService()
        self.memory.flush()
        self.assertGaveUp(refused, Unauthorized)
        self.assertEqual(reasons, [])


class CallTests(ClientTestCase):
    """Calls."""

    def test_waiting(self) -> None:
        """Calls that wait are sent in their order, before others."""
        client = self.client()
        calls = [client.callRemote("note", number) for number in range(3)]
        client.whenAttached().addCallback(lambda perspective: perspective.callRemote("note", 3))
        client.startService()
        self.memory.flush()
        self.assertEqual([self.successResultOf(call) for call in calls], [0, 1, 2])
        self.assertEqual(self.game.notes, [0, 1, 2, 3])

    def test_waitingForReturn(self) -> None:
        """While it is away, too."""
        client = self.started()
        self.crash()
        call = self.call(client, "note", what="later")
        self.memory.advance(10)
        self.assertNoResult(call)
        self.memory.refusal = None
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(call), "later")

    def test_bounded(self) -> None:
        """Only so many wait; the others are told at once."""
        client = self.client(mostWaiting=2)
        calls = [client.callRemote("note", number) for number in range(3)]
        failure = self.failureResultOf(calls[2], NotAttached)
        self.assertIn("2 calls are waiting already", str(failure.value))
        client.startService()
        self.memory.flush()
        self.assertEqual([self.successResultOf(call) for call in calls[:2]], [0, 1])
        for number in range(5):
            self.assertEqual(self.successResultOf(self.call(client, "note", number)), number)

    def test_noneWaits(self) -> None:
        """Who does not want calls to wait is told at once."""
        client = self.client(mostWaiting=0)
        self.failureResultOf(client.callRemote("note", 0), NotAttached)
        client.startService()
        self.memory.flush()
        self.assertEqual(self.successResultOf(self.call(client, "note", 1)), 1)
        self.crash()
        failure = self.failureResultOf(client.callRemote("note", 2), NotAttached)
        self.assertIn("calls do not wait", str(failure.value))
        self.assertTrue(failure.check(pb.DeadReferenceError))
        self.assertEqual(self.game.notes, [1])

    def test_neverTwice(self) -> None:
        """A call that was sent and lost its connection fails, and is not sent again."""
        client = self.started()
        call = self.call(client, "wait")
        self.memory.disconnect(self.reference(client))
        self.failureResultOf(call, pb.PBConnectionLost)
        answers = self.game.answer
        self.memory.advance(5)
        self.assertIs(self.state(client), State.ATTACHED)
        self.assertIs(self.game.answer, answers)

    def test_callFromErrback(self) -> None:
        """Who tries again as the connection is being lost waits for the next one."""
        client = self.started()
        call = self.call(client, "wait")
        call.addErrback(lambda failure: client.callRemote("note", "once more"))
        self.memory.disconnect(self.reference(client))
        self.assertNoResult(call)
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(call), "once more")

    def test_cancelled(self) -> None:
        """A call may be cancelled, before it is sent and after that."""
        client = self.client(mostWaiting=1)
        call = client.callRemote("note", 1)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        call = client.callRemote("wait")
        client.startService()
        self.memory.flush()
        self.assertNoResult(call)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.game.answer.callback("too late")
        self.assertEqual(self.successResultOf(self.call(client, "note", 2)), 2)
        self.assertEqual(self.game.notes, [2])

    def test_noAnswer(self) -> None:
        """Calls without an answer are over once they are sent."""
        client = self.client()
        call = client.callRemote("note", 1, pbanswer=False)
        client.startService()
        self.assertNoResult(call)
        self.memory.flush()
        self.assertIsNone(self.successResultOf(call))
        self.assertIsNone(self.successResultOf(self.call(client, "note", 2, pbanswer=False)))
        self.assertEqual(self.game.notes, [1, 2])

    def test_cannotBeSent(self) -> None:
        """What can't be sent fails; the calls behind it do not."""
        client = self.client()
        # A reference is good for its own connection only.
        other = self.successResultOf(self.login("alice", SECRET, "game"))
        bad, good = client.callRemote("note", other), client.callRemote("note", 1)
        client.startService()
        self.memory.flush()
        self.failureResultOf(bad, AssertionError)
        self.assertEqual(self.successResultOf(good), 1)

    def test_remoteErrors(self) -> None:
        """What the method raises is the caller's, and the session goes on."""
        client = self.started()
        self.failureResultOf(self.call(client, "nothing of the kind"))
        self.flushLoggedErrors(pb.NoSuchMethod)
        self.assertIs(self.state(client), State.ATTACHED)


class SessionTests(ClientTestCase):
    """The server ends the session, and does not say so: a stock broker can't."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Broker, "tellEnded", lambda broker, reference, reason: None)

    def end(self) -> None:
        """An administrator ends all sessions."""
        for session in self.memory.authorizer.sessions:
            self.memory.authorizer.sessions.end(session)
        self.memory.flush()

    def test_noticedByCall(self) -> None:
        """A call says so: it fails, those after it wait for the new session."""
        client = self.started()
        self.end()
        first, second = client.callRemote("note", 1), client.callRemote("note", 2)
        self.memory.flush()
        for call in (first, second):
            self.failureResultOf(call, Detached)
        third = self.call(client, "note", 3)
        self.assertNoResult(third)
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(third), 3)
        self.assertEqual(self.game.notes, [3])
        self.assertEqual(self.game.kinds(), ["attached", "detached", "attached"])
        self.assertEqual(client.told, ["attached", "detached", "attached"])
        self.assertTrue(self.memory.pumps[0].clientIO.disconnected)

    def test_noticedByWaitingCall(self) -> None:
        """So does one that was under way."""
        client = self.started()
        call = self.call(client, "wait")
        self.end()
        self.failureResultOf(call, Detached)
        self.memory.advance(1)
        self.assertEqual(self.game.kinds(), ["attached", "detached", "attached"])

    def test_noticedByListener(self) -> None:
        """A client that calls nothing asks, each interval, although its server talks."""

        class Listener(pb.Referenceable):
            def remote_hear(self) -> None:
                heard.append(self)

        heard: list[Any] = []
        client = self.started(SECRET, "game", client=Listener(), pingInterval=30)
        self.memory.advance(95)
        self.end()
        clientref: Any = self.game.events[0].clientref
        while not clientref.broker.disconnected:
            clientref.callRemote("hear", pbanswer=False)
            self.memory.advance(1)
        self.assertEqual(len(heard), 25)
        self.memory.advance(1)
        self.assertEqual(self.game.kinds(), ["attached", "detached", "attached"])
        self.reference(client)

    def test_sessionOfAnother(self) -> None:
        """
        `Detached` that the method raises, since the server is a client itself, is the caller's
        alone. Calls that were made before that was known are sent.
        """

        class Gateway(Player):
            def perspective_pass(self) -> None:
                raise Detached()

        self.game.perspectiveClass = Gateway
        client = self.started()
        call = client.callRemote("pass")
        after: list[Any] = []
        attached: list[Any] = []

        def failed(failure: Failure) -> Failure:
            after.append(client.callRemote("note", 1))
            attached.append(client.whenAttached())
            return failure

        call.addErrback(failed)
        self.memory.flush()
        self.failureResultOf(call, Detached)
        self.assertEqual(self.successResultOf(after[0]), 1)
        self.successResultOf(attached[0])
        self.memory.advance(100)
        self.assertEqual(self.game.kinds(), ["attached"])
        self.assertEqual(client.told, ["attached"])

    def test_lostInDoubt(self) -> None:
        """The connection may be lost before the server has said whether it was this session."""
        client = self.started()
        self.end()
        call = client.callRemote("note", 1)
        self.memory.pumps[0].pump()
        self.memory.pumps[0].pump()
        self.assertIs(self.state(client), State.DOUBTFUL)
        later = client.callRemote("note", 2)
        self.memory.disconnect(client._perspective)
        self.failureResultOf(call, Detached)
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(later), 2)
        self.stop(client)

    def test_stoppedInDoubtAndLeaving(self) -> None:
        """It may be stopped at that time, and just after."""
        for pumped, state in ((2, State.DOUBTFUL), (4, State.LEAVING)):
            self.serve()
            client = self.started()
            self.end()
            call = client.callRemote("note", 1)
            for _ in range(pumped):
                self.memory.pumps[0].pump()
            self.assertIs(self.state(client), state)
            later = client.callRemote("note", 2)
            self.stop(client)
            self.failureResultOf(call, Detached)
            self.failureResultOf(later, NotAttached)
            self.assertEqual(client.told, ["attached", "detached"])


class StopTests(ClientTestCase):
    """Stopping, and starting again."""

    def test_beforeStart(self) -> None:
        """Who waited for a client that was never started is told, too."""
        client = self.client()
        waiting, call = client.whenAttached(), client.callRemote("whoami")
        self.stop(client)
        for each in (waiting, call, client.whenAttached(), client.callRemote("whoami")):
            self.failureResultOf(each, NotAttached)

    def test_whileLoggingIn(self) -> None:
        """The login is given up, and its connection closed."""
        authorizer = self.memory.authorizer
        authorizer.getIdentityRequest = lambda name: Deferred()
        client = self.started()
        self.assertIs(self.state(client), State.LOGGING_IN)
        waiting = client.whenAttached()
        self.stop(client)
        self.failureResultOf(waiting, NotAttached)
        self.assertEqual(client.told, [])

    def test_whileWaiting(self) -> None:
        """There is no timer any more."""
        self.memory.refusal = REFUSED
        client = self.started(retryPolicy=BackOff(shortest=50))
        waiting, call = client.whenAttached(), client.callRemote("whoami")
        self.assertIs(self.state(client), State.WAITING)
        stopped = client.stopService()
        self.successResultOf(stopped)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        self.failureResultOf(waiting, NotAttached)
        self.failureResultOf(call, NotAttached)

    def test_whileAttached(self) -> None:
        """What was called is sent, and not waited for."""
        client = self.started()
        call = client.callRemote("wait")
        self.stop(client)
        self.failureResultOf(call, pb.PBConnectionLost)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_whoDoesNotHangUp(self) -> None:
        """A connection that does not close is cut after a few seconds."""
        client = self.started()
        transport = self.reference(client).broker.transport
        transport.loseConnection = lambda: None
        aborted: list[float] = []
        abort = transport.abortConnection

        def note() -> None:
            aborted.append(self.memory.clock.seconds())
            abort()

        transport.abortConnection = note
        stopped = client.stopService()
        again = client.stopService()
        self.memory.advance(4.9)
        self.assertNoResult(stopped)
        self.memory.advance(0.1)
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual(aborted, [5])
        self.assertQuiet(client)

    def test_startedWhileStopping(self) -> None:
        """Stopped and started in one go: the old connection is closed before the new login."""
        client = self.started()
        first = self.reference(client)
        stopped = client.stopService()
        client.startService()
        client.startService()
        waiting, call = client.whenAttached(), client.callRemote("note", 1)
        self.assertNoResult(waiting)
        self.memory.flush()
        self.successResultOf(stopped)
        self.assertIsNot(self.successResultOf(waiting), first)
        self.assertEqual(self.successResultOf(call), 1)
        self.assertEqual(self.game.kinds(), ["attached", "detached", "attached"])

    def test_stoppedWhileRestarting(self) -> None:
        """And stopped again before that."""
        for logIn in (True, False):
            self.serve()
            if not logIn:
                self.memory.authorizer.getIdentityRequest = lambda name: Deferred()
            client = self.started()
            stopped = [client.stopService()]
            client.startService()
            waiting = client.whenAttached()
            stopped.append(client.stopService())
            self.failureResultOf(waiting, NotAttached)
            self.memory.flush()
            for each in stopped:
                self.successResultOf(each)
            self.assertIs(self.state(client), State.STOPPED)
            self.assertQuiet(client)

    def test_again(self) -> None:
        """Start, stop, start, stop."""
        client = self.client()
        for _ in range(3):
            client.startService()
            self.memory.flush()
            self.assertEqual(self.successResultOf(self.call(client, "whoami")), "alice")
            self.stop(client)
        self.assertEqual(self.game.kinds(), ["attached", "detached"] * 3)

    def test_failingHooks(self) -> None:
        """What a subclass gets wrong is logged, and changes nothing."""

        class Failing(PerspectiveClient):
            def attached(self, perspective: Any) -> None:
                raise ZeroDivisionError

            detached = attached  # type: ignore[assignment]

        client = Failing(self.memory, SECRET, "game", "alice", reactor=self.memory.clock)
        client.startService()
        self.memory.flush()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.successResultOf(self.call(client, "whoami")), "alice")
        self.stop(client)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class AnyOrderTests(ClientTestCase):
    """Everything that can happen to a client, in any order."""

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def test_balance(self, chance: random.Random) -> None:
        """
        No call reaches the server twice, all get an answer or a reason, and whatever happened, the
        client is attached once the server lets it be, and leaves nothing behind once it is stopped.
        """
        self.serve(Policy(pingInterval=chance.choice([0, 5, 50])))
        client = self.client(
            pingInterval=chance.choice([0, 5, 50]), mostWaiting=chance.choice([0, 3, 100])
        )
        asked = 0
        outcomes: list[Any] = []
        stopped: list[Deferred[None]] = []
        steps = "start start stop call call call call wait end cut close refuse heal heal time time"
        for number in range(60):
            step = chance.choice(steps.split())
            if step == "start":
                client.startService()
            elif step == "stop":
                stopped.append(client.stopService())
            elif step == "call":
                asked += 1
                client.callRemote("note", number).addBoth(outcomes.append)
            elif step == "wait":
                asked += 1
                client.whenAttached().addBoth(outcomes.append)
            elif step == "end":
                for session in self.memory.authorizer.sessions:
                    self.memory.authorizer.sessions.end(session)
            elif step == "refuse":
                self.memory.refusal = REFUSED
            elif step == "heal":
                self.memory.refusal = None
            elif step == "time":
                self.memory.advance(chance.choice([0.5, 1, 5, 20]))
            elif client._perspective is not None:
                if step == "cut":
                    self.memory.cut(client._perspective)
                else:
                    client._perspective.broker.transport.loseConnection()
            if chance.random() < 0.7:
                self.memory.flush()
            elif chance.random() < 0.5 and self.memory.pumps:
                self.memory.pumps[-1].pump()
        self.memory.refusal = None
        client.startService()
        last = client.whenAttached()
        # Cables that were cut where nobody asks are noticed by nobody.
        for pump in self.memory.pumps:
            pump.serverIO.loseConnection()
            pump.clientIO.loseConnection()
        self.memory.advance(200)
        self.successResultOf(last)
        self.assertEqual(self.successResultOf(self.call(client, "note", "last")), "last")
        self.assertEqual(len(outcomes), asked)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                outcome.trap(NotAttached, pb.PBConnectionLost, Detached)
        self.assertEqual(len(self.game.notes), len(set(self.game.notes)))
        noted = [number for number in self.game.notes if number != "last"]
        self.assertEqual(noted, sorted(noted))
        self.stop(client)
        for each in stopped:
            self.successResultOf(each)
        self.assertEqual(client.told, ["attached", "detached"] * (len(client.told) // 2))
        kinds = self.game.kinds()
        self.assertEqual(kinds.count("attached"), kinds.count("detached"))


class ProxyTests(ServingTestCase):
    """Over real TCP, through a proxy that stops forwarding."""

    async def test_cut(self) -> None:
        """Both ends notice, and the client comes again; each `attached` has its `detached`."""
        from twisted.internet import reactor

        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing.CHEAPEST))
        memory.authorizer.setServiceCollection(memory.services)
        game = AwaitedService("game", memory.services, memory.authorizer)
        game.perspectiveClass = AwaitedPerspective
        memory.addUser("alice", "secret", ("game", "alice"))
        server = self.listen(AuthServerFactory(memory.authorizer, Policy(pingInterval=0.2)))
        proxy = ProxyFactory("127.0.0.1", server)
        port = reactor.listenTCP(0, proxy, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.addCleanup(proxy.close)
        client = PerspectiveClient(
            f"tcp:127.0.0.1:{port.getHost().port}",
            *("secret", "game", "alice"),
            pingInterval=0.2,
            retryPolicy=BackOff(shortest=0.05, longest=0.1),
        )
        client.startService()
        self.addCleanup(client.stopService)
        await game.whenHappened(1)
        for rounds in (1, 2):
            self.assertEqual(await client.callRemote("whoami"), "alice")
            call = client.callRemote("whoami")
            proxy.cut()
            with self.assertRaises(pb.PBConnectionLost):
                await call
            await game.whenHappened(1 + 2 * rounds)
        self.assertEqual(await client.callRemote("whoami"), "alice")
        kinds = game.kinds()
        self.assertEqual((kinds.count("attached"), kinds.count("detached")), (3, 2))

    async def test_serverThatHangsUp(self) -> None:
        """A server that hangs up during the TLS handshake is no reason to give up."""
        from twisted.internet import reactor

        met: Deferred[None] = Deferred()
        count: list[Any] = []

        class HangUp(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.abortConnection()  # type: ignore[union-attr]
                count.append(data)
                if len(count) == 3:
                    met.callback(None)

        port = reactor.listenTCP(0, Factory.forProtocol(HangUp), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        client = PerspectiveClient(
            f"tls:127.0.0.1:{port.getHost().port}",
            *("secret", "game", "alice"),
            retryPolicy=BackOff(shortest=0.02, longest=0.02),
        )
        client.startService()
        self.addCleanup(client.stopService)
        await met


class ProcessTests(ListingTestCase):
    """A server in a process of its own, killed and started again."""

    async def test_killed(self) -> None:
        """What was called meanwhile is answered by the new one."""
        server, port = await self.serve("pb5server.py", "0")
        client = PerspectiveClient(
            f"tcp:127.0.0.1:{port}",
            *("pass1", "myservice", "perspective1"),
            username="user1",
            retryPolicy=BackOff(shortest=0.05, longest=0.1),
        )
        client.startService()
        self.addCleanup(client.stopService)
        self.assertEqual(await client.callRemote("foo", 21), 42)
        server.kill()
        await server.whenEnded()
        call = client.callRemote("foo", 22)
        self.assertFalse(call.called)
        await self.serve("pb5server.py", port)
        self.assertEqual(await call, 44)
