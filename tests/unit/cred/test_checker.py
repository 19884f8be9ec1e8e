"""The accounts for other servers: passwords and keys of SSH, checked for a portal."""

from __future__ import annotations

import os
import pwd
import shutil
from base64 import b64encode
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.conch.avatar import ConchUser
from twisted.conch.endpoints import AuthenticationFailed
from twisted.conch.error import ValidPublicKey
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession, wrapProtocol
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import (
    Anonymous,
    ISSHPrivateKey,
    IUsernamePassword,
    SSHPrivateKey,
    UsernamePassword,
)
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import globalLogPublisher
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pbauth import (
    AuthServerFactory,
    ConnectionLimits,
    DefaultAuthorizer,
    Hashing,
    Identity,
    IdentityChecker,
    Policy,
    PublicKey,
    ScramVerifier,
    StoreError,
    Throttle,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.cred.checker import MOST_WAITING
from pbauth.mechanisms import scram
from pbauth.mechanisms.scram import ScramKeys
from pbauth.testing import MemoryServer
from tests.support.interfaces import OnlyAuthorizer
from tests.support.keys import KEY, OTHER
from tests.support.otherclients import Prompt, getPage, runByConch
from tests.support.processes import Program, run

DATA = b"session, name, service and key"


def publicKey(key: Ed25519PrivateKey) -> PublicKey:
    """As an identity keeps it."""
    return PublicKey(key.public_key().public_bytes_raw())


def signed(
    key: Any = KEY, name: Any = b"alice", data: Any = DATA, **replaced: Any
) -> SSHPrivateKey:
    """What Conch makes of a login with this key; key and signature written by Conch."""
    conchKey = Key(key)
    fields = {
        "algName": b"ssh-ed25519",
        "blob": conchKey.public().blob(),
        "sigData": data,
        "signature": conchKey.sign(DATA),
    }
    return SSHPrivateKey(name, **{**fields, **replaced})


class CheckerTestCase(SynchronousTestCase):
    """An authorizer with alice, who has a password and a key, and a checker for it."""

    def setUp(self) -> None:
        self.authorizer: Any = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.alice = self.add("alice", "secret", KEY)
        self.limits = ConnectionLimits(Policy(throttle=False), Clock())
        self.checker = IdentityChecker(self.authorizer, limits=self.limits)

    def add(self, name: str, password: str | None, *keys: Ed25519PrivateKey) -> Any:
        """Make and save an identity."""
        identity = self.authorizer.createIdentity(name)
        identity.setPassword(password)
        for key in keys:
            identity.addPublicKey(publicKey(key))
        identity.save()
        return identity

    def request(self, credentials: Any) -> Any:
        """Ask the checker, as a portal does."""
        return self.checker.requestAvatarId(credentials)

    def assertLetIn(self, credentials: Any, name: bytes = b"alice") -> None:
        """These credentials are those of this identity."""
        self.assertEqual(self.successResultOf(self.request(credentials)), name)

    def assertRefused(self, credentials: Any) -> None:
        """These credentials are refused, in the same words as all others."""
        refusal = self.failureResultOf(self.request(credentials), Unauthorized).value
        self.assertIs(type(refusal), Unauthorized)
        self.assertEqual(str(refusal), str(Unauthorized()))
        self.assertIsInstance(refusal, UnauthorizedLogin)


class InterfaceTests(CheckerTestCase):
    """What a portal sees."""

    def test_interface(self) -> None:
        """It is a checker of passwords and of keys of SSH."""
        verifyObject(ICredentialsChecker, self.checker)
        self.assertEqual(
            set(self.checker.credentialInterfaces), {IUsernamePassword, ISSHPrivateKey}
        )

    def test_other(self) -> None:
        """Credentials of other kinds are not good."""
        self.assertRefused(Anonymous())

    def test_interfacesOnly(self) -> None:
        """Authorizer and identities need be no more than their interfaces say."""
        self.checker = IdentityChecker(OnlyAuthorizer(self.authorizer), limits=self.limits)
        self.assertLetIn(UsernamePassword(b"alice", b"secret"))
        self.assertRefused(UsernamePassword(b"alice", b"wrong"))
        self.assertRefused(UsernamePassword(b"bob", b"secret"))
        self.assertLetIn(signed())
        self.assertRefused(signed(OTHER))
        self.alice.locked = True
        self.assertRefused(UsernamePassword(b"alice", b"secret"))
        self.assertRefused(signed())

    def test_nameOfTheIdentity(self) -> None:
        """The avatar is that of the identity, by whatever name the authorizer found it."""
        self.patch(self.authorizer, "getIdentityRequest", lambda name: self.alice)
        self.assertLetIn(UsernamePassword(b"Alice", b"secret"))
        self.assertLetIn(signed(name=b"Alice"))

    def test_store(self) -> None:
        """A store that can't be read is the server's fault, and not the user's."""

        def broken(name: str) -> Any:
            raise StoreError("The disk is full.")

        self.patch(self.authorizer, "getIdentityRequest", broken)
        for credentials in (UsernamePassword(b"alice", b"secret"), signed()):
            self.failureResultOf(self.request(credentials), StoreError)

    def test_nobody(self) -> None:
        """An authorizer that gives nothing where it should fail lets nobody in."""
        self.patch(self.authorizer, "getIdentityRequest", lambda name: None)
        for credentials in (UsernamePassword(b"alice", b"secret"), signed()):
            self.assertRefused(credentials)

    def test_log(self) -> None:
        """The operator is told the reason of a refusal, and no password."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.assertRefused(UsernamePassword(b"alice", b"a typing mistake"))
        self.assertRefused(UsernamePassword(b"bob", b"a typing mistake"))
        self.assertRefused(signed(OTHER))
        told = [
            (event["identity"], event["mechanism"], event["reason"])
            for event in events
            if event["log_namespace"] == "pbauth.audit"
        ]
        self.assertEqual(
            told,
            [
                ("alice", "password", "wrong password"),
                ("bob", "password", "there is no such identity"),
                (
                    "alice",
                    "ssh key",
                    f"{publicKey(OTHER).fingerprint()} is not a key of this identity",
                ),
            ],
        )
        self.assertNotIn("typing", repr(events))


class PasswordTests(CheckerTestCase):
    """Logins with a password."""

    def setUp(self) -> None:
        super().setUp()
        self.add("Zoë", "pässword")

    def test_right(self) -> None:
        """The name comes back in UTF-8."""
        self.assertLetIn(UsernamePassword(b"alice", b"secret"))
        self.assertLetIn(UsernamePassword("Zoë".encode(), "pässword".encode()), "Zoë".encode())

    def test_text(self) -> None:
        """Servers that have `str` (FTP, IRC) are served, too."""
        self.assertLetIn(UsernamePassword("Zoë", "pässword"), "Zoë".encode())

    def test_wrong(self) -> None:
        """Another password, none, the name of somebody else, the case of the name."""
        for name, password in [
            (b"alice", b"Secret"),
            (b"alice", b""),
            (b"alice", b"secret\0"),
            (b"bob", b"secret"),
            (b"", b"secret"),
            (b"Alice", b"secret"),
            (b"alice\n", b"secret"),
            (b"a" * 10_000, b"secret"),
        ]:
            self.assertRefused(UsernamePassword(name, password))

    def test_notUTF8(self) -> None:
        """Bytes or text that can't be UTF-8, and what is neither."""
        for name, password in [
            ("Zoë".encode("latin-1"), "pässword".encode()),
            ("Zoë".encode(), "pässword".encode("latin-1")),
            ("\ud800", "secret"),
            ("alice", "\ud800"),
            (None, b"secret"),
            (b"alice", None),
            (7, b"secret"),
        ]:
            self.assertRefused(UsernamePassword(name, password))  # type: ignore[arg-type]

    def test_locked(self) -> None:
        """Also where an identity's own check of passwords does not look at the lock."""

        class Careless(Identity):
            async def verifyPlainPassword(self, password: str) -> None:  # type: ignore[override]
                pass

        self.alice.locked = True
        self.assertRefused(UsernamePassword(b"alice", b"secret"))
        self.authorizer.identityClass = Careless
        careless = self.add("careless", None)
        self.assertLetIn(UsernamePassword(b"careless", b"any"), b"careless")
        careless.locked = True
        self.assertRefused(UsernamePassword(b"careless", b"any"))

    def test_sameWork(self) -> None:
        """Whether and how somebody is known can't be told by the work that is done."""
        self.add("keys only", None, KEY)
        self.add("locked", "secret").locked = True
        work: list[tuple[int, int]] = []
        derive = ScramKeys.derive

        def counting(prepared: Any, salt: bytes, iterations: int) -> Any:
            work.append((len(salt), iterations))
            return derive(prepared, salt, iterations)

        self.patch(ScramKeys, "derive", counting)
        for name in ("alice", "mallory", "keys only", "locked", "not\na name", "x" * 10_000):
            for password, derivations in ((b"wrong", 1), (b"", 0), (b"secret\0", 0)):
                self.assertRefused(UsernamePassword(name.encode(), password))
                self.assertEqual(work, [(16, 4096)] * derivations, (name, password))
                work.clear()
        self.assertLetIn(UsernamePassword(b"alice", b"secret"))
        self.assertEqual(work, [(16, 4096)])

    @settings(max_examples=60)
    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_anyBytes(self, name: bytes, password: bytes) -> None:
        """No bytes lead to anything but a refusal."""
        self.assertRefused(UsernamePassword(name, password))
        self.assertRefused(UsernamePassword(b"alice", password))


class Slow(Identity):
    """An identity whose password is checked later."""

    asked: ClassVar[list[tuple[str, Any]]] = []

    def verifyPlainPassword(self, password: str) -> Any:
        answer: Any = Deferred()
        self.asked.append((password, answer))
        return answer


class LimitTests(CheckerTestCase):
    """Guesses, and work for the server."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.checker = IdentityChecker(self.authorizer, reactor=self.clock)

    def outcomes(self, guesses: list[Any]) -> list[Any]:
        """What came of guesses: errors by their class; `None`: nothing yet."""
        found = []
        for guess in guesses:
            told: list[Any] = []
            guess.addBoth(told.append)
            value = getattr(told[0], "value", told[0]) if told else None
            found.append(type(value) if isinstance(value, Exception) else value)
        return found

    def guess(self, *passwords: bytes, name: bytes = b"alice") -> list[Any]:
        """Guess passwords, all at once."""
        return [self.request(UsernamePassword(name, password)) for password in passwords]

    def test_throttled(self) -> None:
        """After some failures no password of that name is looked at, for some time."""
        guesses = self.guess(*[b"wrong"] * 7, b"secret")
        self.assertEqual(self.outcomes(guesses), [Unauthorized] * 6 + [TooManyAttempts] * 2)
        self.clock.advance(13)
        self.assertLetIn(UsernamePassword(b"alice", b"secret"))

    def test_shared(self) -> None:
        """Failures here and at a server of perspectives count together, where they share limits."""
        memory = MemoryServer(self.authorizer)
        limits = ConnectionLimits(Policy(), memory.clock)
        memory._factory = AuthServerFactory(self.authorizer, reactor=memory.clock, limits=limits)
        self.checker = IdentityChecker(self.authorizer, limits=limits)
        self.outcomes(self.guess(*[b"wrong"] * 6))
        self.failureResultOf(memory.logIn("alice", "secret", "game"), TooManyAttempts)

    def test_others(self) -> None:
        """Guesses at one name make no other one wait, and no key."""
        self.add("bob", "secret")
        self.outcomes(self.guess(*[b"wrong"] * 20))
        self.assertLetIn(UsernamePassword(b"bob", b"secret"), b"bob")
        self.assertLetIn(signed())

    def test_atOnce(self) -> None:
        """Guesses that are sent at once are of no use; few are under way at any time."""
        self.authorizer.identityClass = Slow
        Slow.asked.clear()
        self.add("slow", None)
        guesses = self.guess(*[b"wrong"] * 50, b"secret", name=b"slow")
        self.assertEqual(len(Slow.asked), Throttle().checksAtOnce)
        checked = 0
        while Slow.asked:
            checked += 1
            Slow.asked.pop(0)[1].errback(Unauthorized())
        self.assertEqual(checked, 6)
        self.assertEqual(self.outcomes(guesses), [Unauthorized] * 6 + [TooManyAttempts] * 45)

    def test_crowd(self) -> None:
        """Many who come at once wait for their turn; so many that it takes too long are told so."""
        self.authorizer.identityClass = Slow
        Slow.asked.clear()
        names = [f"user{number}" for number in range(Throttle().checksAtOnce + MOST_WAITING + 1)]
        for name in names:
            self.add(name, None)
        guesses = [self.guess(b"secret", name=name.encode())[0] for name in names]
        self.failureResultOf(guesses.pop(), TooManyAttempts)
        while Slow.asked:
            Slow.asked.pop(0)[1].callback(None)
        self.assertEqual(self.outcomes(guesses), [name.encode() for name in names[:-1]])

    def test_iterations(self) -> None:
        """A verifier that takes too many iterations is not tried; the work is that of a decoy."""
        derived: list[int] = []
        derive = ScramKeys.derive

        def counting(prepared: Any, salt: bytes, iterations: int) -> Any:
            derived.append(iterations)
            return derive(prepared, salt, 4096)

        greedy = self.add("greedy", None)
        greedy.setVerifiers(
            {"SCRAM-SHA-256": ScramVerifier(bytes(16), 10_000_000, bytes(32), bytes(32))}
        )
        self.patch(ScramKeys, "derive", counting)
        self.assertRefused(UsernamePassword(b"greedy", b"secret"))
        self.assertEqual(derived, [4096])

    def test_long(self) -> None:
        """
        Passwords that nobody has, since they are too long, are refused before they are normalised:
        that takes 20 seconds for 256 KiB of accents. Names are refused before the store is asked.
        """
        looked: list[Any] = []
        prepare = scram.saslprep
        self.patch(scram, "saslprep", looked.append)
        for name in (b"alice", b"nobody"):
            self.assertRefused(UsernamePassword(name, "a\u0315\u0300".encode() * 64_000))
        self.assertEqual(looked, [])
        self.patch(scram, "saslprep", prepare)
        self.patch(self.authorizer, "getIdentityRequest", looked.append)
        self.assertRefused(UsernamePassword(b"a" * 256, b"secret"))
        self.assertRefused(UsernamePassword("\u0130".encode() * 500_000, b"secret"))
        self.assertEqual(looked, [])


class KeyTests(CheckerTestCase):
    """Logins with a key of SSH."""

    def test_signed(self) -> None:
        """A signature by a key of the identity."""
        self.assertLetIn(signed())
        zoë = self.add("Zoë", None, KEY, OTHER)
        self.assertLetIn(signed(OTHER, "Zoë".encode()), "Zoë".encode())
        zoë.removePublicKey(publicKey(OTHER))
        self.assertRefused(signed(OTHER, "Zoë".encode()))

    def test_question(self) -> None:
        """A client that asks whether a key would do is told so, and is not let in."""
        unsigned = {"sigData": None, "signature": None}
        self.failureResultOf(self.request(signed(**unsigned)), ValidPublicKey)
        self.assertRefused(signed(OTHER, **unsigned))
        self.assertRefused(signed(name=b"bob", **unsigned))
        self.alice.locked = True
        self.assertRefused(signed(**unsigned))

    def test_locked(self) -> None:
        """No key opens a locked account."""
        self.alice.locked = True
        self.assertRefused(signed())

    def test_refused(self) -> None:
        """Keys of others, signatures of others or on something else, other names."""
        signature = Key(KEY).sign(DATA)
        elliptic = Key(generate_private_key(SECP256R1()))
        for credentials in [
            signed(OTHER),
            signed(signature=Key(OTHER).sign(DATA)),
            signed(data=DATA + b"."),
            signed(data=None),
            signed(name=b"bob"),
            signed(name=b""),
            signed(name=b"\xff"),
            signed(name=None),
            signed(algName=b"ssh-rsa"),
            signed(algName=b"ssh-ed25519-cert-v01@openssh.com"),
            signed(algName=None),
            signed(blob=None),
            signed(blob=Key(KEY).public().blob() + b"\0"),
            signed(blob=KEY.public_key().public_bytes_raw()),
            signed(blob=elliptic.public().blob(), algName=elliptic.sshType()),
            signed(signature=b""),
            signed(signature=signature[:-1]),
            signed(signature=signature + b"\0"),
            signed(signature=KEY.sign(DATA)),
            signed(signature=NS(b"ssh-rsa") + NS(KEY.sign(DATA))),
            signed(signature=NS(b"ssh-ed25519") + NS(bytes(64))),
        ]:
            self.assertRefused(credentials)
        self.assertLetIn(signed())

    @settings(max_examples=150)
    @given(st.data())
    def test_anything(self, data: Any) -> None:
        """Whatever stands in place of a field, or of a few of its bytes, is refused."""
        good = signed()
        field = data.draw(st.sampled_from(["username", "algName", "blob", "sigData", "signature"]))
        value = getattr(good, field)
        where = data.draw(st.integers(0, len(value)))
        piece = data.draw(st.binary(max_size=5))
        other = data.draw(
            st.one_of(
                st.binary(max_size=120),
                st.text(max_size=5).filter(lambda text: text.encode("utf-8") != value),
                st.integers(),
                st.just(value[:where] + piece + value[where + data.draw(st.integers(0, 5)) :]),
            ).filter(lambda other: other != value)
        )
        setattr(good, field, other)
        self.assertRefused(good)

    @settings(max_examples=100)
    @given(
        # Keys like 1000...: points of low order, for which signatures can be found by chance.
        st.binary(min_size=32, max_size=32).filter(lambda raw: any(raw[1:])),
        st.binary(min_size=64, max_size=64),
    )
    def test_anyKey(self, raw: bytes, signature: bytes) -> None:
        """Nor is there an error where the bytes of the right number are no key or signature."""
        key = PublicKey.fromBlob(NS(b"ssh-ed25519") + NS(raw))
        self.assertEqual(key, PublicKey(raw))
        self.alice.addPublicKey(key)
        try:
            self.assertRefused(
                signed(
                    blob=NS(b"ssh-ed25519") + NS(raw),
                    signature=NS(b"ssh-ed25519") + NS(signature),
                )
            )
        finally:
            self.alice.removePublicKey(key)


@implementer(ISession)
class Greeting(ConchUser):
    """An avatar of SSH, which answers each command by its name."""

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.name = name
        self.channelLookup[b"session"] = SSHSession

    def execCommand(self, process: Any, command: bytes) -> None:
        from twisted.internet import reactor

        # What the client sends goes nowhere.
        program = Protocol()
        program.makeConnection(process)
        process.makeConnection(wrapProtocol(program))

        def greet() -> None:
            process.outReceived(command + b" " + self.name)
            process.processEnded(Failure(ProcessDone(None)))

        # The client is told first that its request was granted.
        reactor.callLater(0, greet)  # type: ignore[attr-defined]

    def openShell(self, process: Any) -> None:
        raise NotImplementedError

    def getPty(self, terminal: bytes, windowSize: Any, modes: Any) -> None:
        raise NotImplementedError

    def windowChanged(self, windowSize: Any) -> None:
        pass

    def eofReceived(self) -> None:
        pass

    def closed(self) -> None:
        pass


class Page(Resource):
    """An avatar of the web."""

    isLeaf = True

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.name = name

    def render_GET(self, request: Any) -> bytes:
        return b"hello " + self.name


@implementer(IRealm)
class Realm:
    """Gives either."""

    def requestAvatar(self, name: Any, mind: object, *interfaces: Any) -> Any:
        (interface,) = interfaces
        return interface, {IConchUser: Greeting, IResource: Page}[interface](name), lambda: None


class ServerTestCase(TestCase):
    """Real servers on loopback, for alice, who has a password and a key."""

    def setUp(self) -> None:
        self.authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.alice = self.authorizer.createIdentity("alice")
        self.alice.setPassword("secret")
        self.alice.addPublicKey(publicKey(KEY))
        self.alice.save()
        self.portal = Portal(Realm(), [IdentityChecker(self.authorizer)])

    def listen(self, factory: Any) -> int:
        """Listen on a free port; at the end of the test, wait until all connections are closed."""
        from twisted.internet import reactor

        counted: Any = WrappingFactory(factory)
        port = reactor.listenTCP(0, counted, interface="127.0.0.1")  # type: ignore[attr-defined]

        async def close() -> None:
            await port.stopListening()  # type: ignore[misc]
            while counted.protocols:
                await deferLater(reactor, 0)  # type: ignore[arg-type]

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        number: int = port.getHost().port
        return number


class SSHTestCase(ServerTestCase):
    """An SSH server."""

    def setUp(self) -> None:
        super().setUp()
        host = Key(Ed25519PrivateKey.generate())
        self.hostKey = host.public()
        factory: Any = SSHFactory()
        factory.portal = self.portal
        factory.services = {b"ssh-userauth": Prompt, b"ssh-connection": SSHConnection}
        factory.privateKeys = {host.sshType(): host}
        factory.publicKeys = {host.sshType(): self.hostKey}
        self.port = self.listen(factory)


class ConchTests(SSHTestCase):
    """Conch's client logs in at Conch's server."""

    async def attempt(self, name: bytes = b"alice", **proof: Any) -> bytes:
        """Log in, and run a command."""
        return await runByConch(self.port, self.hostKey, self.mktemp(), name, b"hello", **proof)

    async def test_in(self) -> None:
        """By password and by key."""
        self.assertEqual(await self.attempt(password=b"secret"), b"hello alice")
        self.assertEqual(await self.attempt(keys=[Key(KEY)]), b"hello alice")

    async def test_refused(self) -> None:
        """A wrong password, an unknown key, an unknown name; and everything, once locked."""
        for attempt in [
            {"password": b"wrong"},
            {"keys": [Key(OTHER)]},
            {"name": b"bob", "password": b"secret"},
            {"name": b"bob", "keys": [Key(KEY)]},
        ]:
            with self.assertRaises(AuthenticationFailed):
                await self.attempt(**attempt)  # type: ignore[arg-type]
        self.alice.locked = True
        for proof in ({"password": b"secret"}, {"keys": [Key(KEY)]}):
            with self.assertRaises(AuthenticationFailed):
                await self.attempt(**proof)


def whyNoOpenSSH() -> str | None:
    """Why the program `ssh` can't be run here, if it can't."""
    if shutil.which("ssh") is None:
        return "there is no program 'ssh' on this machine; install OpenSSH's client to run this"
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return "this user has no entry in /etc/passwd, and the program 'ssh' runs for no such user"
    return None


class OpenSSHTests(SSHTestCase):
    """The program `ssh` logs in at Conch's server."""

    skip = whyNoOpenSSH()

    async def ssh(self, key: Any, name: str = "alice") -> Program:
        """Run a command by a key in a file."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        identity, known = os.path.join(folder, "id"), os.path.join(folder, "known_hosts")
        with open(identity, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        encoded = b64encode(self.hostKey.blob()).decode()
        with open(known, "w") as text:
            text.write(f"[127.0.0.1]:{self.port} ssh-ed25519 {encoded}\n")
        options = {
            "BatchMode": "yes",
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": known,
        }
        client = Program(
            *("-F", "none", "-p", str(self.port), "-i", identity),
            *(f"-o{option}={value}" for option, value in options.items()),
            *(f"{name}@127.0.0.1", "hello"),
            executable="ssh",
        )
        self.addCleanup(client.stop)
        await client.whenEnded()
        return client

    async def test_in(self) -> None:
        """By a key."""
        client = await self.ssh(KEY)
        self.assertEqual((client.exitCode, client.output), (0, "hello alice"))

    async def test_refused(self) -> None:
        """An unknown key, a key of another type, an unknown name, a locked account."""
        for key, name in [
            (OTHER, "alice"),
            (generate_private_key(SECP256R1()), "alice"),
            (KEY, "bob"),
        ]:
            client = await self.ssh(key, name)
            self.assertEqual(client.exitCode, 255, client.output)
            self.assertIn("Permission denied", client.output)
        self.alice.locked = True
        client = await self.ssh(KEY)
        self.assertIn("Permission denied", client.output)


class WebTests(ServerTestCase):
    """A web server with basic authentication."""

    def setUp(self) -> None:
        super().setUp()
        guard = HTTPAuthSessionWrapper(self.portal, [BasicCredentialFactory("accounts")])
        self.port = self.listen(Site(guard))

    async def get(self, *login: str) -> tuple[int, bytes]:
        """Ask for the page."""
        return await getPage(self.port, *login)

    async def test_in(self) -> None:
        """The right password gives the user's page."""
        self.assertEqual(await self.get("alice", "secret"), (200, b"hello alice"))

    async def test_refused(self) -> None:
        """A wrong password, an unknown name, no login, a locked account."""
        answers = [await self.get(*login) for login in [("alice", "wrong"), ("bob", "secret"), ()]]
        self.alice.locked = True
        answers.append(await self.get("alice", "secret"))
        self.assertEqual(answers, [(401, b"Unauthorized")] * 4)

    async def test_store(self) -> None:
        """Accounts that can't be read are an error of the server; it tells no more."""

        async def broken(name: str) -> Any:
            raise StoreError("The disk is full.")

        self.patch(self.authorizer, "getIdentityRequest", broken)
        code, page = await self.get("alice", "secret")
        self.assertEqual(code, 500)
        self.assertNotIn(b"disk", page)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)


class ImportTests(TestCase):
    """What the checker needs."""

    async def test_noExtras(self) -> None:
        """It can be imported without the packages that only Conch's SSH needs."""
        program = await run(
            "-c",
            "import sys; sys.modules.update(dict.fromkeys(['appdirs', 'bcrypt'])); import pbauth; "
            "print([name for name in sys.modules if name.startswith('twisted.conch.ssh')])",
        )
        self.assertEqual((program.exitCode, program.output), (0, "[]\n"), program.output)
