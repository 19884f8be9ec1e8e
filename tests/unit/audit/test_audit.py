"""The audit: each thing that happens is one event, in a form that nobody can forge."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import stat
from contextlib import closing
from datetime import timedelta
from hashlib import md5 as plainMD5
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.application.service import MultiService
from twisted.cred.credentials import UsernamePassword
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.task import Clock
from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    eventAsJSON,
    eventAsText,
    eventFromJSON,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.log import FileLogObserver, theLogPublisher
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    Anonymous,
    Audit,
    AuthRoot,
    CertificateKey,
    DefaultAuthorizer,
    Detached,
    DropReason,
    EndReason,
    Hashing,
    IdentityChecker,
    KeyNotFound,
    Password,
    Perspective,
    PlainPassword,
    Policy,
    PrivateKey,
    Service,
    SQLAuthorizer,
    Unauthorized,
    Voucher,
    connect,
    getObjectAt,
)
from pbauth.admin.administration import Administration
from pbauth.admin.service import AdminService
from pbauth.audit import file as auditfile
from pbauth.audit.events import KINDS, NAMESPACE, LeanLogger, asLine
from pbauth.audit.file import AuditFile, AuditUnwritable, auditing
from pbauth.login import attempts, root
from pbauth.login.policy import LISTABLE
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.onemessage import OneMessageClient
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.net.origin import ELSEWHERE, Origin, newId, originOf
from pbauth.net.proxy import UNKNOWN
from pbauth.server.services import AuditService, ReloadService
from pbauth.tap import Options, makeService
from pbauth.testing import MemoryServer, RecordingPerspective
from tests.support.disks import smallFiles
from tests.support.processes import PBAUTH, TWISTD, Program, run
from tests.support.tls import PIN
from tests.support.wire import SCRAM, WireTestCase

ROOT = str(Path(__file__).parent.parent.parent.parent)
SECRET = Password("secret")
ADDRESS = IPv4Address("TCP", "127.0.0.1", 50_000)
HERE = Origin(ADDRESS)

#: Characters that end a line, colour it, turn it round, or hide in it.
EVIL = "\n\r\t\0\x0b\x0c\x1b\x7f\x85\x9b\u2028\u2029\u202a\u202e\u2066\u200b\ufeff\ud800'\"\\{}%é漢"


class AuditTestCase(WireTestCase):
    """Keeps the events of the audit."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        super().setUp()

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        super().serve(policy or Policy(throttle=False), **options)

    def observe(self, event: dict[str, Any]) -> None:
        if event["log_namespace"] == NAMESPACE:
            self.events.append(event)

    def names(self) -> list[str]:
        """The names of the events."""
        return [event["event"] for event in self.events]

    def only(self, name: str) -> dict[str, Any]:
        """The one event of this name."""
        (event,) = (event for event in self.events if event["event"] == name)
        return event

    def told(self, name: str) -> list[tuple[Any, ...]]:
        """Identity and reason of the events of this name."""
        return [
            (event["identity"], event["reason"]) for event in self.events if event["event"] == name
        ]


class EventTests(AuditTestCase):
    """What happens on the wire."""

    def test_login(self) -> None:
        """A login is two events, which know of each other."""
        begun = self.root()
        client, challenger = self.scram(begun)
        self.memory.clock.advance(2.5)
        self.answer(
            challenger, "respond", client.get_client_final().encode(), "game", "alice", None
        )
        self.assertEqual(self.names(), ["login.accepted", "session.attached"])
        login, session = self.events
        (live,) = self.memory.authorizer.sessions
        for event in self.events:
            self.assertEqual(
                {name: event[name] for name in ("identity", "mechanism", "host", "port", "peer")},
                {
                    "identity": "alice",
                    "mechanism": SCRAM,
                    "host": "127.0.0.1",
                    "port": 50_000,
                    "peer": "127.0.0.1 port 50000",
                },
            )
        self.assertEqual(login["seconds"], 2.5)
        self.assertEqual(login["connection"], session["connection"])
        self.assertEqual(
            (session["service"], session["perspective"], session["session"]),
            ("game", "alice", live.id),
        )

    def test_hangingUp(self) -> None:
        """The end of a session tells the same, and why."""
        self.memory.disconnect(self.successResultOf(self.login()))
        attached, detached = self.events[1:]
        self.assertEqual(detached["event"], "session.detached")
        self.assertEqual(detached["reason"], "connection lost")
        for field in ("session", "connection", "identity", "service", "perspective", "host"):
            self.assertEqual(attached[field], detached[field])

    def test_reasons(self) -> None:
        """Each way to end a session has its reason; what the server takes away is told as such."""
        identity = self.identity()
        sessions = self.memory.authorizer.sessions

        def attach() -> Any:
            return self.answer(identity, "attach", "game", "alice", None)

        self.answer(identity, "detach", attach())
        attach()
        sessions.end(*sessions)
        attach()
        self.alice.removeKey("game", "alice")
        self.alice.addKeyByString("game", "alice")
        attach()
        self.memory.authorizer.removeIdentity("alice")
        self.assertEqual(
            self.told("session.revoked"),
            [
                ("alice", reason.value)
                for reason in (EndReason.ADMINISTRATOR, EndReason.KEY_REVOKED, EndReason.REMOVED)
            ],
        )
        self.assertEqual(
            self.told("session.detached"),
            [
                ("alice", "detached by the client"),
                ("alice", "ended by the administrator"),
                ("alice", "key revoked"),
                ("alice", "identity removed"),
            ],
        )
        self.assertEqual(self.names().count("session.attached"), 4)

    def test_attachingFails(self) -> None:
        """What was never attached is not detached; what was ended meanwhile is both."""
        waiting: Deferred[Any] = Deferred()

        class Waiting(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                return waiting

        self.game.perspectiveClass = Waiting
        login = self.login()
        self.alice.removeKey("game", "alice")
        self.assertEqual(self.names(), ["login.accepted", "session.revoked"])
        waiting.callback(self.game.perspectives["alice"])
        self.memory.flush()
        self.failureResultOf(login, Detached)
        self.assertEqual(self.names()[2:4], ["session.attached", "session.detached"])
        self.events.clear()
        waiting = fail(ZeroDivisionError())
        self.failureResultOf(self.login("alice", SECRET, "game", "shared"))
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.names(), ["login.accepted"])

    def test_attachRefused(self) -> None:
        """Somebody asks for what they hold no key to, or for what is not there."""
        identity = self.identity()
        for service, perspective in [("game", "bob"), ("chess", None), ("x" * 900, "\x1b[2J")]:
            self.assertIsInstance(
                self.refusal(identity, "attach", service, perspective, None), KeyNotFound
            )

        # A key alone makes no perspective.
        Service("chat", self.memory.services, self.memory.authorizer)
        self.alice.addKeyByString("chat", "carol")
        self.alice.addKeyByString("go", "alice")
        self.refusal(identity, "attach", "chat", "carol", None)
        self.refusal(identity, "attach", "go", None, None)

        def refuses(name: str, identity: Any) -> Any:
            return fail(Unauthorized("The game is full."))

        self.game.getPerspectiveForIdentity = refuses
        self.refusal(identity, "attach", "game", None, None)
        self.alice.locked = True
        self.refusal(identity, "attach", "game", "alice", None)
        told = [event for event in self.events if event["event"] == "session.refused"]
        self.assertEqual(
            [(event["service"], event["perspective"], event["reason"]) for event in told],
            [
                ("game", "bob", "no such key"),
                ("chess", None, "no such key"),
                ("x" * 255 + "...", "\x1b[2J", "no such key"),
                ("chat", "carol", "no such perspective"),
                ("go", None, "no such service"),
                ("game", None, "the service refused"),
                ("game", "alice", "the login is no longer valid"),
            ],
        )

    def test_refusals(self) -> None:
        """The operator is told why, where the client is told nothing."""
        locked = self.memory.addUser("carol", "secret", ("game", "carol"))
        locked.locked = True
        for name, password in (("alice", "guess"), ("bob", "secret"), ("carol", "secret")):
            client, challenger = self.scram(self.root(), name, password)
            self.refusal(challenger, "respond", client.get_client_final().encode())
        self.refusal(challenger, "respond", b"")
        self.refusal(self.root(), "username", "alice", SCRAM, b"nonsense")
        self.assertEqual(
            self.told("login.refused"),
            [
                ("alice", "wrong password"),
                # The same work was done as for a wrong password.
                ("bob", "no such identity"),
                ("carol", "the account is locked"),
                ("", "a second response"),
                ("alice", "malformed client-first message"),
            ],
        )
        self.assertEqual(set(self.names()), {"login.refused"})

    def test_mechanisms(self) -> None:
        """A mechanism that is not offered, by native and by stock clients."""
        self.serve(Policy(maxAttempts=7))
        begun = self.root()
        for call in (
            ["username", "alice", "PLAIN", b""],
            ["username", b"alice"],
            ["username", "alice", 5, b""],
            ["username", "alice", "P\n" * 900, b""],
            ["login", "alice"],
            ["loginAnonymous", None],
        ):
            self.refusal(begun, *call)
        self.assertEqual(
            [
                (event["event"], event["identity"], event["mechanism"][:7], len(event["mechanism"]))
                for event in self.events
            ],
            [
                ("mechanism.refused", "alice", "PLAIN", 5),
                ("mechanism.refused", "alice", "PB-MD5", 6),
                ("mechanism.refused", "alice", "int", 3),
                ("mechanism.refused", "alice", "P\nP\nP\nP", 258),
                ("mechanism.refused", "alice", "PB-MD5", 6),
                ("mechanism.refused", "", "ANONYMO", 9),
            ],
        )

    def test_limits(self) -> None:
        """Each limit that drops a connection has its name, and whether there was a login."""
        self.serve(Policy(maxAttempts=1, graceTime=5, throttle=False))
        self.root()
        self.memory.clock.advance(6)
        self.refusal(self.root(), "username", "alice", SCRAM, b"nonsense")
        begun = self.root()
        for _ in range(attempts.MOST_UNANSWERED):
            begun.callRemote("username", "alice", SCRAM, b"n,,n=alice,r=nonce")
        self.refusal(begun, "username", "alice", SCRAM, b"n,,n=alice,r=nonce")
        loggedIn = self.identity()
        loggedIn.broker.transport.write(b"\x00" * 100)
        self.memory.flush()
        self.assertEqual(
            [
                (event["reason"], event["authenticated"], event["fault"])
                for event in self.events
                if event["event"] == "connection.dropped"
            ],
            [
                (DropReason.GRACE_TIME.value, False, None),
                (DropReason.ATTEMPTS.value, False, None),
                (DropReason.CHALLENGERS.value, False, None),
                (
                    DropReason.PROTOCOL.value,
                    True,
                    "Security precaution: longer than 64 bytes worth of prefix",
                ),
            ],
        )

    def test_silent(self) -> None:
        """A client that is gone without a word, once."""
        self.memory.cut(self.successResultOf(self.login()))
        self.memory.advance(300)
        self.assertEqual(self.only("connection.dropped")["reason"], DropReason.IDLE.value)

    def test_password(self) -> None:
        """A new password, and a better verifier of the same one."""
        self.memory.authorizer.hashing = Hashing(iterations=5000)
        perspective = self.successResultOf(self.login("alice", Password("secret"), "game"))
        self.memory.flush()
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 5000)
        self.answer(perspective.identity, "changePassword", verifier.encode())
        self.assertEqual(self.names()[2:], ["verifier.renewed", "password.changed"])
        for event in self.events[2:]:
            self.assertEqual((event["identity"], event["mechanism"]), ("alice", SCRAM))
            self.assertEqual(event["connection"], self.events[0]["connection"])

    def test_stockFactory(self) -> None:
        """Under Twisted's own factory, too, connections are told apart."""
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.serve(factory=pb.PBServerFactory(AuthRoot(authorizer, reactor=Clock())))
        for begun in (self.root(), self.root()):
            for _ in "12":
                self.refusal(begun, "username", "alice", SCRAM, b"nonsense")
        first, same, second, _ = (event["connection"] for event in self.events)
        self.assertEqual((first == same, first == second), (True, False))

    def test_checker(self) -> None:
        """Logins of other servers on the same accounts."""
        checker = IdentityChecker(self.memory.authorizer)
        self.successResultOf(checker.requestAvatarId(UsernamePassword(b"alice", b"secret")))
        self.failureResultOf(checker.requestAvatarId(UsernamePassword(b"\xff\n", b"secret")))
        accepted, refused = self.events
        self.assertEqual(
            (accepted["event"], accepted["identity"], accepted["mechanism"], accepted["peer"]),
            ("login.accepted", "alice", "password", "elsewhere"),
        )
        self.assertEqual((refused["event"], refused["identity"]), ("login.refused", "\ufffd\n"))
        self.assertEqual(ELSEWHERE.authenticated, False)
        self.assertNotIn(b"connection", asLine(accepted) or b"")

    def test_throttled(self) -> None:
        """What a throttle has to tell."""
        Audit().throttled(HERE, "alice\n", "", 12.3)
        (event,) = self.events
        self.assertEqual(event["retryAfter"], 12.3)
        self.assertEqual(
            eventAsText(event, includeTimestamp=False, includeSystem=False),
            "Throttled 'alice\\n' by no mechanism from 127.0.0.1 port 50000 for 12 seconds",
        )

    def test_oneLineForEachEvent(self) -> None:
        """The ordinary log, new or old, says once that a client attached, and once how it ended."""
        name = "a\u202eb"
        self.alice.addKeyByString("game", name)
        self.game.addPerspective(Perspective(name))
        out, legacy = StringIO(), StringIO()
        observer, old = textFileLogObserver(out), FileLogObserver(legacy)
        globalLogPublisher.addObserver(observer)
        theLogPublisher.addObserver(old.emit)
        try:
            self.memory.disconnect(self.successResultOf(self.login("alice", SECRET, "game", name)))
            self.successResultOf(self.login("alice", SECRET, "game", name))
            self.alice.removeKey("game", name)
        finally:
            globalLogPublisher.removeObserver(observer)
            theLogPublisher.removeObserver(old.emit)
        for written in (out.getvalue(), legacy.getvalue()):
            lines = [line.partition("] ")[2] for line in written.splitlines()]
            self.assertEqual(
                [re.sub(r"127.0.0.1 port \d+|session \w+", "...", line) for line in lines],
                [
                    "'alice' logged in with SCRAM-SHA-256 from ...",
                    r"Attached 'alice' to 'a\u202eb' of 'game' from ... (...)",
                    r"Detached 'alice' from 'a\u202eb' of 'game' (...): connection lost",
                    "'alice' logged in with SCRAM-SHA-256 from ...",
                    r"Attached 'alice' to 'a\u202eb' of 'game' from ... (...)",
                    r"Detached 'alice' from 'a\u202eb' of 'game' (...): key revoked",
                ],
            )
        self.assertEqual(self.names()[-2:], ["session.revoked", "session.detached"])

    def test_handedIn(self) -> None:
        """Whatever works on an authorizer's accounts records it in the authorizer's audit."""
        events: list[Any] = []
        observer: Any = events.append
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST, audit=Audit(observer))
        self.successResultOf(ensureDeferred(Administration(authorizer).addUser("bob", "secret")))
        service = AdminService("admin", None, authorizer)
        self.successResultOf(ensureDeferred(service.administration.setLocked("bob", True)))
        checker = IdentityChecker(authorizer)
        self.failureResultOf(checker.requestAvatarId(UsernamePassword(b"bob", b"secret")))
        self.assertEqual(
            [event["event"] for event in events], ["user.added", "user.locked", "login.refused"]
        )
        del events[:]
        self.memory = MemoryServer(authorizer, Policy(throttle=False))
        self.refusal(self.root(), "username", "bob", SCRAM, b"nonsense")
        reference = self.root()
        reference.broker.transport.write(b"\x00" * 100)
        self.memory.flush()
        self.assertEqual(
            [event["event"] for event in events], ["login.refused", "connection.dropped"]
        )
        self.assertEqual(self.events, [])

    def test_observes(self) -> None:
        """An audit changes nothing of what it is told."""
        origin = Origin(ADDRESS)
        Audit().loggedIn(origin, "alice", SCRAM)
        self.assertFalse(origin.authenticated)


class AdministrationTests(AuditTestCase):
    """What an administrator does."""

    def test_acts(self) -> None:
        """Each change is one event, once it is done; looking is none."""
        administration = Administration(DefaultAuthorizer(hashing=Hashing.CHEAPEST), "root\n")
        key = PublicKey(bytes(32))

        def do(name: str, *arguments: Any) -> None:
            operation = getattr(administration, name)(*arguments)
            self.successResultOf(Deferred.fromCoroutine(operation))

        do("addUser", "bob", "secret")
        do("setPassword", "bob", "a new secret")
        do("setLocked", "bob", True)
        do("setLocked", "bob", False)
        do("grantKey", "bob", "game", "black")
        do("addPublicKeys", "bob", [key, CertificateKey(PIN)])
        do("listKeys", "bob")
        do("listPublicKeys", "bob")
        do("removePublicKey", "bob", PIN)
        do("revokeKey", "bob", "game", "black")
        do("removeUser", "bob")
        self.assertEqual(
            self.names(),
            [
                *("user.added", "user.password", "user.locked", "user.unlocked", "key.granted"),
                *("publickey.added", "publickey.added", "publickey.removed", "key.revoked"),
                "user.removed",
            ],
        )
        for event in self.events:
            self.assertEqual((event["identity"], event["operator"]), ("bob", "root\n"))
            self.assertNotIn("\n", eventAsText(event))
            self.assertNotIn("secret", repr(event))
        self.assertEqual(self.events[5]["fingerprint"], key.fingerprint())
        self.assertEqual(self.only("key.granted")["perspective"], "black")

    def test_failures(self) -> None:
        """What was not done is not told."""
        administration = Administration(self.memory.authorizer)
        for name, *arguments in (
            ("addUser", "alice", "secret"),
            ("removeUser", "bob"),
            ("revokeKey", "alice", "game", "bob"),
        ):
            operation = getattr(administration, name)(*arguments)
            self.failureResultOf(Deferred.fromCoroutine(operation))
        self.assertEqual(self.events, [])


class SecretTests(AuditTestCase):
    """No secret is in any event."""

    def collect(self, exchange: Any, name: str, mechanism: str) -> Any:
        """Log in, by hand, and keep all that crosses the wire."""
        begun = self.root()
        answer = self.ask(begun, "username", name, mechanism, exchange.initial)
        result: list[Any] = []
        answer.addBoth(result.append)
        self.crossed.append(exchange.initial)
        if not isinstance(result[0], tuple):
            return
        challenge, challenger = result.pop()
        response = self.successResultOf(Deferred.fromCoroutine(self.settle(exchange, challenge)))
        self.crossed += [challenge, response]
        self.ask(challenger, "respond", response, "game", "alice", None).addErrback(lambda f: None)

    async def settle(self, exchange: Any, challenge: bytes) -> Any:
        """The client's response."""
        response = exchange.respond(challenge)
        return await response if hasattr(response, "__await__") else response

    def test_noSecrets(self) -> None:
        """
        Logins of all mechanisms, right and wrong: neither passwords, keys and verifiers nor what
        crosses the wire is in an event, in any of its forms, in hex or base64.
        """
        binding = b"the binding of this connection!!"
        facts = Channel(secure=True, channelBinding=binding, peerPin=PIN)
        self.patch(root, "channelOf", lambda broker: facts)
        key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        secrets: list[bytes] = [binding]
        self.crossed: list[bytes] = []
        tried = set()
        for elsewhere in (False, True):
            self.serve(
                Policy(
                    mechanisms=sorted(LISTABLE - {"ANONYMOUS"}),
                    legacyLogin=True,
                    guest="guest",
                    defaultService="game",
                    throttle=False,
                )
            )
            self.memory.authorizer.externalPasswords = elsewhere
            self.memory.authorizer.hashing = attrs.evolve(Hashing.CHEAPEST, md5=True)
            self.memory.addUser("guest", "nobody knows this")
            self.alice.setPassword("swordfish")
            self.alice.addPublicKey(PublicKey(key.public_key().public_bytes_raw()))
            self.alice.addPublicKey(CertificateKey(PIN))
            until = self.memory.authorizer.now() + timedelta(hours=1)
            self.voucher: Voucher = self.successResultOf(
                self.memory.authorizer.issueVoucher("alice", "friend", until)
            )
            secrets += [self.voucher._key.private_bytes_raw(), self.voucher.text().encode()]
            for mechanism in self.answer(self.root(), "mechanisms"):
                tried.add(mechanism)
                for exchange in self.exchanges(mechanism, facts, key, other):
                    for name in ("alice", "mallory"):
                        self.collect(exchange(name), name, mechanism)
            scram: Any = self.successResultOf(self.alice.getVerifiers())["SCRAM-SHA-256"]
            secrets += [scram.storedKey, scram.serverKey, scram.salt, scram.encode().encode()]
            if not elsewhere:
                self.changePassword(key, facts)
        checker = IdentityChecker(self.memory.authorizer)
        checker.requestAvatarId(UsernamePassword(b"alice", b"swordfish"))
        checker.requestAvatarId(UsernamePassword(b"alice", b"a wrong guess")).addErrback(str)
        self.assertEqual(tried, LISTABLE | {"PB-MD5"})
        self.assertGreater(self.names().count("login.accepted"), 6)
        self.assertGreater(self.names().count("login.refused"), 12)
        self.only("password.changed")
        secrets += [b"swordfish", b"a wrong guess", b"nobody knows this", b"changed by her"]
        secrets += [plainMD5(word, usedforsecurity=False).digest() for word in secrets[-4:]]
        secrets += [key.private_bytes_raw(), other.private_bytes_raw()]
        self.searchFor([each for each in [*secrets, *self.crossed] if len(each) > 7])

    def exchanges(
        self, mechanism: str, facts: Channel, key: Ed25519PrivateKey, other: Ed25519PrivateKey
    ) -> list[Any]:
        """Makers of exchanges that succeed and fail, for a name."""
        if mechanism == "PB-MD5":
            return [lambda name, word=word: MD5Client(word) for word in ("swordfish", "bad guess")]
        good, bad = {
            "SCRAM-SHA-256": (Password("swordfish"), Password("a wrong guess")),
            "SCRAM-SHA-256-PLUS": (Password("swordfish"), Password("a wrong guess")),
            "PLAIN": (PlainPassword("swordfish"), PlainPassword("a wrong guess")),
            "ED25519": (PrivateKey(key), PrivateKey(other)),
            "ANONYMOUS": (Anonymous("swordfish"), Anonymous("swordfish")),
            "EXTERNAL": (None, None),
            "VOUCHER": (self.voucher, self.voucher.only(networks=["10.0.0.0/8"])),
        }[mechanism]
        if good is None:
            return [lambda name: OneMessageClient(b"")]
        return [
            lambda name, one=one: one.begin(mechanism, name, facts)
            for one in (good, bad)
            if one is not None
        ]

    def changePassword(self, key: Ed25519PrivateKey, facts: Channel) -> None:
        """Change a password, after a login with a key."""
        exchange = PrivateKey(key).begin("ED25519", "alice", facts)
        challenge, challenger = self.answer(
            self.root(), "username", "alice", "ED25519", exchange.initial
        )
        _, identity = self.answer(challenger, "respond", exchange.respond(challenge))
        verifier = ScramVerifier.fromPassword("changed by her", b"0123456789abcdef", 4096)
        self.answer(identity, "changePassword", verifier.encode())
        self.crossed.append(verifier.encode().encode())

    def searchFor(self, secrets: list[bytes]) -> None:
        """No event shows any of these."""
        told = "\n".join(
            form
            for event in self.events
            for form in (
                eventAsText(event),
                repr(event),
                (asLine(event) or b"").decode(),
                eventAsJSON(dict(event)),
            )
        )
        lower = told.lower()
        self.assertIn("alice", told)
        for secret in secrets:
            self.assertNotIn(secret.decode("latin-1"), told)
            self.assertNotIn(repr(secret)[2:-1], told)
            self.assertNotIn(secret.hex(), lower)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                # What may be in front of it shifts it.
                for shift in range(3):
                    encoded = encode(bytes(shift) + secret)[4 if shift else 0 : -4]
                    self.assertTrue(len(encoded) < 6 or encoded.decode() not in told)


class MD5Client:
    """The client's half of PB-MD5."""

    initial = b""

    def __init__(self, password: str) -> None:
        self._verifier = MD5Verifier.fromPassword(password)

    def respond(self, challenge: bytes) -> bytes:
        return plainMD5(self._verifier.digest + challenge, usedforsecurity=False).digest()


class FormTests(AuditTestCase):
    """Nobody can forge a line."""

    @settings(max_examples=80)
    @given(
        st.text(st.sampled_from(EVIL + "abc'/ :") | st.characters(), max_size=20),
        st.booleans(),
    )
    def test_names(self, name: str, asBytes: bool) -> None:
        """Whatever name is claimed, an event is one line of what can be printed."""
        claimed: Any = name.encode("utf-8", "replace") if asBytes else name
        self.events.clear()
        out, legacy = StringIO(), StringIO()
        observers: list[Any] = [textFileLogObserver(out)]
        globalLogPublisher.addObserver(observers[0])
        old = FileLogObserver(legacy)
        theLogPublisher.addObserver(old.emit)
        try:
            Audit().refused(HERE, root.asName(claimed), "SCRAM-SHA-256", f"it is {name}")
            Audit().mechanismRefused(HERE, name, name)
        finally:
            globalLogPublisher.removeObserver(observers[0])
            theLogPublisher.removeObserver(old.emit)
        for written in (out.getvalue(), legacy.getvalue()):
            lines = [line for line in written.split("\n")[:-1] if NAMESPACE in line or name in line]
            self.assertEqual(len(written.split("\n")[:-1]), 2, written)
            for line in lines:
                self.assertTrue(line.isprintable(), ascii(line))
        for event, expected in zip(self.events, (root.asName(claimed), name), strict=True):
            line = asLine(event) or b""
            self.assertEqual(line.count(b"\n"), 1)
            self.assertTrue(line[:-1].decode("ascii").isprintable())
            self.assertEqual(json.loads(line)["identity"], expected)

    def test_overTheWire(self) -> None:
        """A name that looks like the end of one line, and like another one, stays one."""
        forged = "x' by SCRAM-SHA-256 from 10.0.0.1 port 1: wrong password\n'root' logged in"
        self.refusal(self.root(), "username", forged, SCRAM, b"nonsense")
        (event,) = self.events
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self.assertTrue(text.startswith("Refused \"x' by SCRAM"))
        self.assertTrue(
            text.endswith(
                '" by SCRAM-SHA-256 from 127.0.0.1 port 50000: malformed client-first message'
            )
        )

    def test_mechanismOverTheWire(self) -> None:
        """Nor is what was sent as the name of a mechanism more than a quoted text, cut."""
        forged = "SCRAM from 10.0.0.1\n'root' logged in by ED25519"
        self.serve(Policy(maxAttempts=20))
        begun = self.root()
        self.refusal(begun, "username", "a" * 300, forged * 99, b"")
        for _ in range(5):
            self.refusal(begun, "username", "a" * 300, SCRAM, b"")
        self.refusal(begun, "username", "alice", forged, b"")
        refused, throttled = self.events[0], self.events[-1]
        self.assertEqual(
            (refused["event"], throttled["event"]), ("login.refused", "login.throttled")
        )
        long = ascii((forged * 99)[:255] + "...")
        for event, quoted in (refused, long), (throttled, ascii(forged)):
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self.assertTrue(text.isprintable(), ascii(text))
            self.assertIn(f" by {quoted}", text)
            self.assertLess(len(text), 1_000)

    def test_everyField(self) -> None:
        """Whatever any event holds, it is cut, and its text is one line."""
        evil = "\x1b[2J\n\x9b\u202e" * 9_999
        origin = Origin(IPv4Address("TCP", evil, 1))
        audit = Audit()
        audit.loggedIn(origin, evil, evil)
        audit.refused(origin, evil, evil, evil)
        audit.throttled(origin, evil, evil, 1.0)
        audit.mechanismRefused(origin, evil, evil)
        audit.attachRefused(origin, evil, SCRAM, (evil, evil), evil)
        audit.dropped(origin, DropReason.PROTOCOL, evil)
        audit.passwordChanged(origin, evil, SCRAM)
        audit.userAdded(evil, evil)
        audit.keyGranted(evil, evil, evil, evil)
        audit.publicKeyAdded(evil, evil, evil)
        audit.sessionEnded(evil, evil, evil)
        audit.imported(evil, 1)
        audit.exported(evil)
        self.assertEqual(len(self.events), 13)
        for event in self.events:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self.assertTrue(text.isprintable(), ascii(text))
            self.assertLess(len(asLine(event) or b""), 25_000)

    def test_longNames(self) -> None:
        """What is longer than a name can be is cut."""
        self.refusal(self.root(), "username", "a" * 5_000, SCRAM, b"nonsense")
        self.assertEqual(self.events[0]["identity"], "a" * 255 + "...")

    def test_addresses(self) -> None:
        """Addresses of all kinds; a load balancer may say anything."""
        for address, host, peer in [
            (ADDRESS, "127.0.0.1", "127.0.0.1 port 50000"),
            (IPv6Address("TCP", "fe80::1%eth0", 7), "fe80::1%eth0", "fe80::1%eth0 port 7"),
            (IPv4Address("TCP", "1.2.3.4\n x", 7), "'1.2.3.4\\n x'", "'1.2.3.4\\n x' port 7"),
            (IPv4Address("TCP", "1\u202e2", 7), "'1\\u202e2'", "'1\\u202e2' port 7"),
            (UNIXAddress("/run/\x1bsocket"), "unix", "unix"),
            (UNIXAddress(None), "unix", "unix"),
            (HostnameAddress(b"example.com", 7), "example.com", "example.com port 7"),
            (HostnameAddress(b"a\n\xff b", 0), "'a\\n\\ufffd b'", "'a\\n\\ufffd b'"),
            (UNKNOWN, "unknown", "unknown"),
            (None, None, "elsewhere"),
        ]:
            origin = Origin(address)
            self.assertEqual((origin.host, origin.peer), (host, peer))

    def test_line(self) -> None:
        """The fields of a line, in their order."""
        Audit().refused(HERE, "alice", SCRAM, "wrong password")
        self.events[0]["log_time"] = 1_700_000_000.25
        self.assertEqual(
            asLine(self.events[0]),
            b'{"time":"2023-11-14T22:13:20.250000Z","event":"login.refused","identity":"alice",'
            b'"mechanism":"SCRAM-SHA-256","reason":"wrong password","host":"127.0.0.1",'
            b'"port":50000,"connection":"' + str(HERE.connection).encode() + b'"}\n',
        )
        for other in ({}, {"log_namespace": NAMESPACE}, {"log_namespace": "x", "event": "x"}):
            self.assertIsNone(asLine(other))

    def test_kinds(self) -> None:
        """All that a kind's text shows of what others choose is quoted."""
        shown = {"{peer}", "{mechanism}", "{reason}", "{session}", "{fingerprint}", "{lost}"}
        shown |= {"{identity!r}", "{perspective!r}", "{service!r}", "{operator!r}", "{mechanism!r}"}
        shown |= {"{retryAfter:.0f}", "{users}", "{expires}", "{group!r}", "{label!r}"}
        shown |= {"{voucher}", "{vouchers}"}
        for kind in KINDS.values():
            for field in (kind.text or "").split("{")[1:]:
                self.assertIn("{" + field.partition("}")[0] + "}", shown)
            self.assertEqual(len(set(kind.fields)), len(kind.fields))

    def test_asTwistedJSON(self) -> None:
        """The events go through Twisted's own JSON (`twist --log-format=json`) as others do."""
        Audit().loggedIn(HERE, "alice", SCRAM, 1.5)
        restored = eventFromJSON(eventAsJSON(self.events[0]))
        self.assertEqual(restored["log_level"], LogLevel.info)
        self.assertEqual((restored["identity"], restored["seconds"]), ("alice", 1.5))
        self.assertIn("'alice' logged in with SCRAM-SHA-256 from", eventAsText(restored))


class LoggerTests(SynchronousTestCase):
    """The logger that does less."""

    def test_sameEvents(self) -> None:
        """It gives the events of Twisted's own, to the observers of Twisted."""
        events: list[Any] = []
        for cls in (Logger, LeanLogger):
            cls("space", observer=LogPublisher(events.append)).warn("{a}", a=1, log_trace=[])
        stock, lean = events
        self.assertEqual(stock.keys(), lean.keys())
        for name in ("log_level", "log_namespace", "log_source", "log_format", "a"):
            self.assertEqual(stock[name], lean[name])
        self.assertEqual(len(stock["log_trace"]), len(lean["log_trace"]))
        self.assertEqual(LeanLogger().namespace, __name__)

    def test_ids(self) -> None:
        """No two are the same."""
        self.assertEqual(len({newId() for _ in range(1000)}), 1000)

    def test_noConnectionYet(self) -> None:
        """A broker without a transport has no origin, and gets one later."""
        broker = pb.Broker()
        self.assertIs(originOf(broker), ELSEWHERE)


class FileTests(SynchronousTestCase):
    """The file of the audit."""

    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir()
        self.path = self.folder / "audit.jsonl"
        self.log: list[str] = []

    def open(self) -> AuditFile:
        """Open it, and let the audit write there."""
        file = AuditFile(str(self.path))
        self.addCleanup(file.close)
        self.audit = Audit(file)
        self.patch(
            auditfile,
            "_log",
            LeanLogger("test", observer=lambda event: self.log.append(eventAsText(event))),
        )
        return file

    def tell(self, *names: str) -> None:
        """Tell of users that were added."""
        for name in names:
            self.audit.userAdded("root", name)

    def read(self, path: Path | None = None) -> list[Any]:
        """The identities of the lines, or how many were lost."""
        lines = (path or self.path).read_text().split("\n")
        self.assertEqual(lines.pop(), "")
        return [
            record.get("identity", record.get("lost"))
            for record in (json.loads(line) for line in lines if line.endswith("}"))
        ]

    def test_writes(self) -> None:
        """Lines are there at once, for the owner only; other events are not."""
        file = self.open()
        self.tell("alice", "bob")
        file({"log_namespace": "other", "event": "user.added"})
        self.assertEqual(self.read(), ["alice", "bob"])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_appends(self) -> None:
        """What is there already stays."""
        self.open()
        self.tell("alice")
        self.open()
        self.tell("bob")
        self.assertEqual(self.read(), ["alice", "bob"])

    def test_rotation(self) -> None:
        """A file that was renamed has all lines until it is opened anew."""
        file = self.open()
        self.tell("alice")
        old = self.path.rename(self.folder / "audit.1")
        self.tell("bob")
        file.reopen()
        self.tell("carol")
        self.assertEqual((self.read(old), self.read()), (["alice", "bob"], ["carol"]))

    def test_cannotReopen(self) -> None:
        """If it can't be opened anew, it goes on in the old one."""
        file = self.open()
        old = self.path.rename(self.folder / "audit.1")
        self.path.mkdir()
        file.reopen()
        self.tell("alice")
        self.assertEqual(self.read(old), ["alice"])
        (line,) = self.log
        self.assertIn("Is a directory. The old file stays in use.", line)

    def test_removed(self) -> None:
        """One that was removed is made anew."""
        self.open()
        self.path.unlink()
        self.tell("alice")
        self.assertEqual((self.read(), self.log), (["alice"], []))

    def test_folderVanished(self) -> None:
        """Without its folder lines are lost; it is said once, and how many, in the end."""
        file = self.open()
        self.path.unlink()
        self.folder.rmdir()
        self.tell("alice", "bob")
        self.assertEqual(file.lost, 2)
        self.folder.mkdir()
        self.tell("carol")
        self.assertEqual(self.read(), [2, "carol"])
        lost, again = self.log
        self.assertIn("No such file or directory. Events are lost until it can be written.", lost)
        self.assertIn("2 events are missing", again)

    def test_fullDisk(self) -> None:
        """The same for a full disk; a line that was cut off takes no other one with it."""
        self.open()
        self.tell("alice")
        with smallFiles(self.path.stat().st_size + 20):
            self.tell("bob", "carol", "dave")
        self.tell("eve")
        self.tell("frank")
        self.assertEqual(self.read(), ["alice", 3, "eve", "frank"])
        self.assertIn('\n{"time":"20', self.path.read_text().split("alice", 1)[1])
        self.assertEqual(len(self.log), 2)
        self.assertIn("File too large", self.log[0])

    def test_mistakes(self) -> None:
        """What can't be the audit is said in one line."""
        pipe, open_ = self.folder / "pipe", self.folder / "open"
        os.mkfifo(pipe)
        open_.touch()
        open_.chmod(0o622)
        for path, said in [
            (self.folder / "no" / "such", "No such file or directory."),
            (self.folder, "Is a directory."),
            (pipe, "No such device or address."),
            (Path("/dev/null"), "is not a regular file. Name another one."),
            (open_, f"(mode 0622). Run: chmod 600 {open_}"),
        ]:
            with self.assertRaises(AuditUnwritable) as raised:
                AuditFile(str(path))
            self.assertIn(said, str(raised.exception))
            self.assertNotIn("\n", str(raised.exception))

    def test_auditing(self) -> None:
        """For as long as something is done; and it is an error if that is not in the file."""
        with auditing(None):
            Audit().userAdded("root", "nobody")
        with auditing(str(self.path)):
            Audit().userAdded("root", "alice")
        Audit().userAdded("root", "nobody")
        self.assertEqual(self.read(), ["alice"])
        with self.assertRaises(AuditUnwritable) as raised:
            with auditing(str(self.path)):
                self.path.unlink()
                self.folder.rmdir()
                Audit().userAdded("root", "bob")
        self.assertIn("The change was made, but could not be written", str(raised.exception))


class ServerTests(TestCase):
    """`twistd pbauth --audit FILE` and `pbauth --audit FILE`, in processes of their own."""

    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir()
        self.state = str(self.folder / "state")
        self.path = self.folder / "logs" / "audit.jsonl"
        self.path.parent.mkdir()

    async def logIn(self) -> None:
        """Log in and hang up, and wait until the server has told all that."""
        perspective = await connect("127.0.0.1", self.port, "alice", "secret", "echo")
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()
        self.logins += 1
        await self.server.waitFor(rf"(?s)(Detached 'alice' from .*){{{self.logins}}}")
        # The file is written after the log, and before the server answers anybody else.
        later = await getObjectAt("127.0.0.1", self.port)
        later.broker.transport.loseConnection()
        await later.broker.whenClosed()

    def read(self, path: Path) -> list[str]:
        """The names of the events."""
        return [json.loads(line)["event"] for line in path.read_text().splitlines()]

    async def test_server(self) -> None:
        """
        All lines are kept when the file is renamed while the server runs; it goes on without the
        folder; and what happens at its end is told as well.
        """
        authorizer = SQLAuthorizer(self.makeState(), hashing=Hashing.CHEAPEST)
        with closing(authorizer):
            alice = authorizer.createIdentity("alice")
            alice.setPassword("secret")
            alice.addKeyByString("echo", "alice")
            await alice.save()
        self.server = server = Program(
            *(*TWISTD, "--state", self.state, "--port", "tcp:0:interface=127.0.0.1"),
            *("--audit", str(self.path)),
            PYTHONPATH=ROOT,
        )
        self.addCleanup(server.stop)
        self.port = int((await server.waitFor(r"Listening on 127\.0\.0\.1:(\d+)"))[1])
        self.logins = 0
        await self.logIn()
        old = self.path.with_suffix(".1")
        self.path.rename(old)
        await self.logIn()
        server.kill("HUP")
        while not self.path.exists():
            # It has to run to take the signal.
            await self.logIn()
        await self.logIn()
        login = ["login.accepted", "session.attached", "session.detached"]
        self.assertEqual(self.read(old) + self.read(self.path), login * self.logins)
        self.assertGreater(len(self.read(self.path)), 2)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

        self.path.unlink()
        old.unlink()
        self.path.parent.rmdir()
        for _ in "12":
            await self.logIn()
        self.path.parent.mkdir()
        perspective = await connect("127.0.0.1", self.port, "alice", "secret", "echo")
        server.kill("INT")
        await perspective.broker.whenClosed()
        await server.whenEnded()
        self.assertEqual(self.read(self.path), ["audit.gap", *login])
        self.assertIn('"lost":6}', self.path.read_text())
        self.assertEqual(server.output.count("Events are lost until it can be written."), 1)
        self.assertNotIn("Traceback", server.output)

    def makeState(self) -> str:
        """Make the state folder, and give the path of the database."""
        os.mkdir(self.state, 0o700)
        return os.path.join(self.state, "accounts.sqlite")

    async def test_command(self) -> None:
        """The command tells what it did, and who it was."""
        command = (*PBAUTH, "--state", self.state, "--audit", str(self.path))
        await run(*command, "user", "add", "alice", "--no-password")
        await run(*command, "user", "list")
        failed = await run(*command[:-1], str(self.folder), "user", "lock", "alice")
        self.assertIn("Is a directory", failed.output)
        self.assertEqual((failed.exitCode, failed.output.count("\n")), (1, 1))
        (line,) = self.path.read_text().splitlines()
        record = json.loads(line)
        self.assertEqual((record["event"], record["identity"]), ("user.added", "alice"))
        self.assertTrue(record["operator"])

    def test_unwritable(self) -> None:
        """A file that can't be opened stops the server before it listens, with one line."""
        options = Options()
        options.parseOptions(
            [
                *("--state", self.state, "--port", "tcp:0:interface=127.0.0.1"),
                *("--audit", str(self.folder / "no" / "such")),
            ]
        )
        with self.assertRaises(SystemExit) as raised:
            makeService(options)
        self.assertRegex(str(raised.exception), r"^pbauth: Can't open the audit .*directory\.$")

    def test_service(self) -> None:
        """Whoever starts and stops the service gets the signal back as it was."""
        before = signal.getsignal(signal.SIGHUP)
        triggers: list[Any] = []
        reactor: Any = Clock()
        reactor.addSystemEventTrigger = lambda phase, event, end: triggers.append(end)
        reactor.callFromThread = lambda act: act()
        file = AuditFile(str(self.path))
        parent = MultiService()
        AuditService(reactor, file).setServiceParent(parent)
        ReloadService(reactor, [file.reopen]).setServiceParent(parent)
        # As `twist` does it; `twistd` calls `privilegedStartService` first.
        parent.startService()
        old = self.path.rename(self.path.with_suffix(".1"))
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertTrue(self.path.exists())
        parent.stopService()
        Audit().userAdded("root", "alice")
        for trigger in [*triggers, *triggers]:
            trigger()
        Audit().userAdded("root", "bob")
        self.assertEqual((self.read(old), self.read(self.path)), ([], ["user.added"]))
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    def test_twist(self) -> None:
        """The same where the start has no part with privileges, as with `twist`."""
        before = signal.getsignal(signal.SIGHUP)
        triggers: list[Any] = []
        done: list[str] = []
        reactor: Any = Clock()
        reactor.addSystemEventTrigger = lambda phase, event, end: triggers.append(end)
        reactor.callFromThread = lambda act: act()
        service = ReloadService(reactor, [lambda: done.append("read again")])
        service.startService()
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), before)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(done, ["read again"])
        service.stopService()
        for trigger in triggers:
            trigger()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)
