"""Weak verifiers are renewed after a login, in the background, and nobody notices."""

from __future__ import annotations

import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.spread import pb
from zope.interface.verify import verifyObject

from pbauth import (
    Anonymous,
    Authorizer,
    AuthServerFactory,
    DefaultAuthorizer,
    Detached,
    Hashing,
    IdentityWrapper,
    Password,
    Policy,
    PrivateKey,
    ProtocolViolation,
    PublicKey,
    ServerNotTrusted,
    SQLAuthorizer,
    StoreError,
    Unauthorized,
    authIdentity,
    changePassword,
    connect,
)
from pbauth.client.renewal import askHashing
from pbauth.interfaces import IRenewingExchange
from pbauth.mechanisms import md5
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramServer, ScramVerifier
from pbauth.testing import MemoryServer, RecordingService
from tests.support.tls import PLUS, TLSTestCase
from tests.support.wire import SCRAM, WireTestCase

WANTED = 5000
WEAK = ScramVerifier.fromPassword("secret", b"weak verifier's ", 4096)
GOOD = ScramVerifier.fromPassword("secret", b"good verifier's ", WANTED)
AFAR = IPv4Address("TCP", "192.0.2.7", 4000)
KEY = Ed25519PrivateKey.from_private_bytes(b"alice's private key is no secret")


class RenewalTestCase(WireTestCase):
    """Alice has a verifier of 4,096 iterations, and the server wants 5,000."""

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        authorizer = DefaultAuthorizer(hashing=Hashing(WANTED))
        self.memory = MemoryServer(authorizer, policy, **options)
        authorizer.setServiceCollection(self.memory.services)
        self.game = RecordingService("game", self.memory.services, authorizer)
        self.alice = self.memory.addUser("alice", "secret", ("game", "alice"), ("game", "shared"))
        self.alice.setVerifiers({SCRAM: WEAK})
        self.asked = 0
        remote_hashing = IdentityWrapper.remote_hashing

        def count(wrapper: Any) -> Any:
            self.asked += 1
            return remote_hashing(wrapper)

        self.patch(IdentityWrapper, "remote_hashing", count)

    def tearDown(self) -> None:
        self.assertEqual(self.flushLoggedErrors(), [])

    def verifier(self, mechanism: str = SCRAM) -> Any:
        """Give what is stored of alice."""
        return self.successResultOf(self.alice.getVerifiers()).get(mechanism)

    def visit(self, password: Any = None, perspective: str = "alice") -> Any:
        """Log alice in, and give the perspective."""
        return self.successResultOf(
            self.login("alice", password or Password("secret"), "game", perspective)
        )

    def identityOf(self, credentials: Any) -> Any:
        """Log alice in, and give the reference to her `IdentityWrapper`."""
        attempt = authIdentity(self.root(), "alice", credentials)
        self.memory.flush()
        return self.successResultOf(attempt)


class ClientTests(RenewalTestCase):
    """What a client does by itself."""

    def test_renewed(self) -> None:
        """A login with the password replaces the verifier by one as the server wants it."""
        perspective = self.visit()
        made = self.verifier()
        self.assertEqual((made.iterations, len(made.salt)), (WANTED, 16))
        self.assertTrue(made.matches("secret"))
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.visit()
        self.assertIs(self.verifier(), made)

    def test_everyWay(self) -> None:
        """A `str`, `authIdentity`: each way to log in renews."""
        for logIn in (
            lambda: self.visit("secret"),
            lambda: self.identityOf("secret"),
        ):
            self.alice.setVerifiers({SCRAM: WEAK})
            logIn()
            self.assertEqual(self.verifier().iterations, WANTED)

    def test_remembered(self) -> None:
        """The password remembers the new keys: the next login neither derives nor asks."""
        password = Password("secret")
        self.visit(password)
        self.assertTrue(password.remembers(self.verifier().salt, WANTED))
        self.patch(password, "_derive", None)
        self.visit(password)
        self.assertEqual(self.asked, 1)

    def test_loginDoesNotWait(self) -> None:
        """The login is over before the server has answered the question."""
        silence: Deferred[Any] = Deferred()
        self.patch(IdentityWrapper, "remote_hashing", lambda wrapper: silence)
        password = Password("secret")
        perspective = self.visit(password)
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        ended = password.whenRenewed()
        self.assertNoResult(ended)
        self.memory.disconnect(perspective)
        self.successResultOf(ended)
        self.assertEqual(self.verifier(), WEAK)

    def test_whenRenewed(self) -> None:
        """Who waits for the end of renewals is told at once where there are none, or may stop."""
        password = Password("secret")
        self.successResultOf(password.whenRenewed())
        self.patch(IdentityWrapper, "remote_hashing", lambda wrapper: Deferred())
        perspective = self.visit(password)
        waiting = password.whenRenewed()
        waiting.cancel()
        self.memory.disconnect(perspective)
        self.assertTrue(self.failureResultOf(waiting))

    def test_notAsked(self) -> None:
        """Who does not agree, whom the server would refuse, who derived nothing: asks nothing."""
        self.visit(Password("secret", renew=False))
        password = Password("secret")
        self.successResultOf(password.keysFor(WEAK.salt, WEAK.iterations))
        self.visit(password)
        root = self.root()
        root.broker.transport.peerAddress = AFAR
        attempt = authIdentity(root, "alice", "secret")
        self.memory.flush()
        self.successResultOf(attempt)
        self.assertEqual((self.asked, self.verifier()), (0, WEAK))

    def test_nothingToDo(self) -> None:
        """A verifier that is as good as the server wants it, or better, stays."""
        for iterations in (WANTED, WANTED + 1):
            verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", iterations)
            self.alice.setVerifiers({SCRAM: verifier})
            self.visit()
            self.assertIs(self.verifier(), verifier)
        self.assertEqual(self.asked, 2)

    def test_hungUpWhileDeriving(self) -> None:
        """The connection is closed while the key is derived: nothing happens."""
        password = Password("secret")
        self.successResultOf(password.keysFor(WEAK.salt, WEAK.iterations))
        keys = self.successResultOf(password._derive(GOOD.salt, WANTED))
        deriving: Deferred[Any] = Deferred()
        self.patch(password, "remembers", lambda *what: False)
        self.patch(password, "_derive", lambda *what: deriving)
        perspective = self.visit(password)
        ended = password.whenRenewed()
        self.assertNoResult(ended)
        self.memory.disconnect(perspective)
        deriving.callback(keys)
        self.successResultOf(ended)
        self.assertEqual(self.verifier(), WEAK)
        self.assertEqual(password._remembered[0], WEAK.salt)  # type: ignore[index]

    def test_hungUpWhileSending(self) -> None:
        """The connection is closed before the server's answer: it is not taken for granted."""
        password = Password("secret")
        self.patch(IdentityWrapper, "remote_renewVerifier", lambda wrapper, verifier: Deferred())
        perspective = self.visit(password)
        self.memory.disconnect(perspective)
        self.successResultOf(password.whenRenewed())
        self.assertTrue(password.remembers(WEAK.salt, 4096))

    def test_unsafeServer(self) -> None:
        """What a server may not ask for is not done."""
        answers = [
            (1, 16),
            (4095, 16),
            (10_000_001, 16),
            (WANTED, 11),
            (WANTED, 65),
            (WANTED, 10**9),
            (WANTED, "16"),
            (WANTED, True),
            (float(WANTED), 16),
            (WANTED,),
            "much",
            None,
        ]
        for answer in answers:
            self.patch(IdentityWrapper, "remote_hashing", lambda wrapper, answer=answer: answer)
            self.visit()
            self.assertEqual(self.verifier(), WEAK)
            identity = self.identityOf(Password("secret", renew=False))
            asking = Deferred.fromCoroutine(askHashing(identity))
            self.memory.flush()
            self.failureResultOf(asking, ServerNotTrusted)

    def test_olderServer(self) -> None:
        """A server of pbauth that has neither method is left in peace."""
        remote_hashing = IdentityWrapper.remote_hashing
        self.addCleanup(setattr, IdentityWrapper, "remote_hashing", remote_hashing)
        del IdentityWrapper.remote_hashing
        self.visit()
        self.assertEqual(self.verifier(), WEAK)

    def test_refused(self) -> None:
        """A server that does not take the new verifier is not argued with."""
        self.patch(
            IdentityWrapper, "remote_renewVerifier", lambda wrapper, verifier: fail(StoreError())
        )
        password = Password("secret")
        self.visit(password)
        self.assertTrue(password.remembers(WEAK.salt, 4096))

    def test_bug(self) -> None:
        """A bug is logged, and does not break the login."""
        password = Password("secret")

        def broken(*arguments: Any) -> Any:
            raise ZeroDivisionError

        self.patch(password, "renewVerifier", broken)
        self.visit(password)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_interface(self) -> None:
        """The exchange of a password provides `IRenewingExchange`; that of a key has no need."""
        exchange = Password("secret").begin(SCRAM, "alice", Channel(local=True))
        verifyObject(IRenewingExchange, exchange)
        other = PrivateKey(KEY).begin("ED25519", "alice", Channel(local=True))
        self.assertFalse(IRenewingExchange.providedBy(other))
        self.assertFalse(hasattr(other, "renew"))


class StockRoot(pb.Root):
    """A server that is made of stock PB, and knows SCRAM and nothing else."""

    def remote_username(self, name: str, mechanism: str, initial: bytes) -> Any:
        server = ScramServer(name, WEAK, "nonce")
        challenger = pb.Referenceable()
        challenger.remote_respond = lambda response, *attach: (
            server.outcome(response),
            *(pb.Referenceable() for _ in range(2 if attach else 1)),
        )
        return server.challenge(initial), challenger


class StockServerTests(RenewalTestCase):
    """A server of stock PB that has neither method."""

    def test_stockServer(self) -> None:
        """The login works; on that server's log is what it was asked."""
        self.memory = MemoryServer(factory=pb.PBServerFactory(StockRoot()))
        password = Password("secret")
        self.visit(password)
        self.successResultOf(password.whenRenewed())
        self.assertTrue(password.remembers(WEAK.salt, 4096))
        self.assertEqual(len(self.flushLoggedErrors(pb.NoSuchMethod)), 1)


class ServerTests(RenewalTestCase):
    """What a server accepts, whoever asks."""

    def renew(self, identity: Any, verifier: Any = GOOD) -> Any:
        """Ask for a renewal, and give the Deferred."""
        text = verifier.encode() if isinstance(verifier, ScramVerifier) else verifier
        return self.ask(identity, "renewVerifier", text)

    def assertRefused(self, identity: Any, verifier: Any = GOOD, error: Any = None) -> None:
        """The renewal is refused."""
        self.failureResultOf(self.renew(identity, verifier), error or ProtocolViolation)

    def test_hashing(self) -> None:
        """`hashing` tells iterations and bytes of salt."""
        self.assertEqual(self.answer(self.identity(), "hashing"), (WANTED, 16))

    def test_othersStay(self) -> None:
        """Sessions that the old verifier opened stay, wherever they are; so do the logins."""
        quiet = Password("secret", renew=False)
        elsewhere = self.visit(quiet)
        loggedIn = self.identityOf(quiet)
        underWay = self.scram(self.root())
        identity = self.identity()
        own = self.answer(identity, "attach", "game", "alice", None)
        self.assertIsNone(self.successResultOf(self.renew(identity)))
        self.assertEqual(self.verifier(), GOOD)
        client, challenger = underWay
        response = client.get_client_final().encode()
        _, _, late = self.answer(challenger, "respond", response, "game", "shared", None)
        later = self.answer(loggedIn, "attach", "game", "shared", None)
        for reference in (elsewhere, own):
            self.assertEqual(self.answer(reference, "whoami"), "alice")
        for reference in (late, later):
            self.assertEqual(self.answer(reference, "whoami"), "shared")
        self.assertEqual({session.proof for session in self.memory.authorizer.sessions}, {GOOD})
        # It is the same for what comes after: another change, and the end of the account.
        self.alice.addKeyByString("chat", "alice")
        self.alice.removeKey("game", "shared")
        self.assertIsInstance(self.refusal(later, "whoami"), Detached)
        self.alice.setPassword("other")
        for reference in (elsewhere, own):
            self.assertIsInstance(self.refusal(reference, "whoami"), Detached)
        self.assertIsInstance(self.refusal(loggedIn, "keys"), Unauthorized)

    def test_changedElsewhere(self) -> None:
        """Who changes the password after a renewal by another connection keeps the sessions."""
        identity = self.identity()
        own = self.answer(identity, "attach", "game", "alice", None)
        elsewhere = self.visit()
        self.assertEqual(self.verifier().iterations, WANTED)
        changed = ScramVerifier.fromPassword("changed", b"0123456789abcdef", WANTED)
        self.answer(identity, "changePassword", changed.encode())
        self.assertEqual(self.answer(own, "whoami"), "alice")
        self.assertIsInstance(self.refusal(elsewhere, "whoami"), Detached)

    def test_otherVerifiersStay(self) -> None:
        """The MD5 verifier and the public keys stay, and the sessions that they opened."""
        self.serve(Policy(legacyLogin=True))
        old = MD5Verifier.fromPassword("secret")
        self.alice.setVerifiers({SCRAM: WEAK, md5.NAME: old})
        self.alice.addPublicKey(PublicKey(PrivateKey(KEY).publicKey.raw, "laptop"))
        byKey = self.visit(PrivateKey(KEY))
        self.successResultOf(self.renew(self.identity()))
        self.assertEqual(self.verifier(md5.NAME), old)
        self.assertEqual([key.label for key in self.alice.getPublicKeys()], ["laptop"])
        self.assertEqual(self.answer(byKey, "whoami"), "alice")

    def test_weak(self) -> None:
        """A verifier that is not good enough, or none at all, is refused."""
        identity = self.identity()
        for iterations in (4096, WANTED - 1):
            verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", iterations)
            self.assertRefused(identity, verifier)
        for verifier in ("secret", None, 5, b"\xff", MD5Verifier.fromPassword("s").encode()):
            self.assertRefused(identity, verifier)
        self.assertEqual(self.verifier(), WEAK)

    def test_notWeak(self) -> None:
        """A verifier that has enough iterations is not replaced."""
        self.alice.setVerifiers({SCRAM: GOOD})
        stronger = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 2 * WANTED)
        self.assertRefused(self.identity(), stronger)

    def test_late(self) -> None:
        """After somebody else was first, on this connection or another one, it is refused."""
        quiet = Password("secret", renew=False)
        first, second = self.identityOf(quiet), self.identityOf(quiet)
        self.successResultOf(self.renew(first))
        other = ScramVerifier.fromPassword("secret", b"0123456789abcdef", WANTED)
        for identity in (first, second):
            self.assertRefused(identity, other)
        self.assertEqual(self.verifier(), GOOD)

    def test_stale(self) -> None:
        """After the password was changed, or the account closed, it is refused."""
        for change in (
            lambda: self.alice.setPassword("other"),
            lambda: self.alice.setPassword(None),
            lambda: setattr(self.alice, "locked", True),
            lambda: self.memory.authorizer.removeIdentity("alice"),
        ):
            self.serve()
            identity = self.identity()
            change()
            before = self.verifier()
            self.assertRefused(identity, error=Unauthorized)
            self.assertEqual(self.verifier(), before)

    def test_changedMeanwhile(self) -> None:
        """Where the password is changed while the store is asked, that change wins."""
        identity = self.identity()
        renewVerifier = self.memory.authorizer.renewVerifier

        def meanwhile(*arguments: Any) -> Any:
            self.alice.setPassword("other")
            return renewVerifier(*arguments)

        self.memory.authorizer.renewVerifier = meanwhile
        self.assertRefused(identity)
        self.assertTrue(self.verifier().matches("other"))
        self.assertIsInstance(self.refusal(identity, "keys"), Unauthorized)

    def test_otherLogins(self) -> None:
        """Who logged in with something else than the verifier has nothing to renew."""
        self.serve(Policy(legacyLogin=True, guest="alice"))
        self.alice.setVerifiers({SCRAM: WEAK, md5.NAME: MD5Verifier.fromPassword("secret")})
        self.alice.addPublicKey(PrivateKey(KEY).publicKey)
        challenge, challenger = self.answer(self.root(), "username", "alice")
        byMD5 = self.answer(challenger, "respond", md5.respond("secret", challenge))
        guest = self.identityOf(Anonymous())
        for identity in (byMD5, self.identityOf(PrivateKey(KEY)), guest):
            self.assertRefused(identity)
        self.assertEqual(self.verifier(), WEAK)
        # And a guest has no password to change.
        error = self.refusal(guest, "changePassword", GOOD.encode())
        self.assertIsInstance(error, ProtocolViolation)

    def test_afar(self) -> None:
        """Over a connection that is neither local nor bound, nothing is renewed."""
        self.serve(peer=AFAR)
        self.assertRefused(self.identity())
        self.assertEqual(self.verifier(), WEAK)

    def test_storeFails(self) -> None:
        """Where it can't be stored, everything stays as it was."""
        authorizer = self.memory.authorizer
        updateIdentity = authorizer.updateIdentity
        authorizer.updateIdentity = lambda identity: fail(StoreError())
        elsewhere, identity = self.visit(Password("secret", renew=False)), self.identity()
        self.assertRefused(identity, error=StoreError)
        self.assertEqual(self.verifier(), WEAK)
        self.assertEqual(self.answer(elsewhere, "whoami"), "alice")
        authorizer.updateIdentity = updateIdentity
        self.successResultOf(self.renew(identity))
        self.assertEqual(self.answer(elsewhere, "whoami"), "alice")

    def test_noStore(self) -> None:
        """An authorizer that does not store refuses, and logs nothing."""

        class ReadOnly(Authorizer):
            def getIdentityRequest(self, name: str) -> Any:
                identity = self.createIdentity(name)
                identity.setVerifiers({SCRAM: WEAK})
                identity.addKeyByString("game", "alice")
                return identity

        services = self.memory.services
        self.memory = MemoryServer(ReadOnly(services, Hashing(WANTED)))
        self.assertEqual(self.answer(self.visit(), "whoami"), "alice")
        self.assertRefused(self.identity())

    def test_bounded(self) -> None:
        """Of a limited number of accounts it is remembered that they were renewed."""
        proofs = self.memory.authorizer.proofs
        self.patch(proofs, "_mostAccounts", 2)
        for name in ("one", "two", "three", "alice"):
            with proofs.renewing(name, 1, 2):
                pass
        self.assertEqual(proofs.of("two", 1), (1,))
        self.assertEqual(proofs.of("three", 1), (1, 2))
        self.assertEqual(proofs.of("three", 2), (2, 1))
        self.assertEqual(proofs.of("three", 3), (3,))
        self.assertEqual(proofs.of("nobody", None), (None,))
        self.memory.authorizer.removeIdentity("alice")
        self.assertEqual(proofs.of("alice", 1), (1,))


class ChangePasswordTests(RenewalTestCase):
    """`changePassword`, in the program of a client."""

    def change(self, identity: Any, password: Any) -> Any:
        """Change alice's password, and give the Deferred."""
        changing = changePassword(identity, password)
        self.memory.flush()
        return changing

    def test_changed(self) -> None:
        """The new password counts, hashed as the server wants it; the connection stays."""
        identity = self.identity()
        own = self.answer(identity, "attach", "game", "alice", None)
        self.assertIsNone(self.successResultOf(self.change(identity, "changed")))
        self.assertEqual(self.verifier().iterations, WANTED)
        self.assertTrue(self.verifier().matches("changed"))
        self.assertEqual(self.answer(own, "whoami"), "alice")

    def test_notPasswords(self) -> None:
        """What can't be a password is refused before anything is sent."""
        identity = self.identity()
        self.failureResultOf(self.change(identity, ""), ValueError)
        self.failureResultOf(self.change(identity, b"changed"), TypeError)
        self.assertEqual(self.asked, 0)

    def test_refused(self) -> None:
        """From afar the server refuses, and says so."""
        self.serve(peer=AFAR)
        self.failureResultOf(self.change(self.identity(), "changed"), ProtocolViolation)

    def test_unsafeServer(self) -> None:
        """A server that wants it hashed unsafely gets nothing."""
        self.patch(IdentityWrapper, "remote_hashing", lambda wrapper: (100, 16))
        self.failureResultOf(self.change(self.identity(), "changed"), ServerNotTrusted)
        self.assertEqual(self.verifier(), WEAK)

    def test_olderServer(self) -> None:
        """A server that does not say how gets it hashed as a new server would."""
        remote_hashing = IdentityWrapper.remote_hashing
        self.addCleanup(setattr, IdentityWrapper, "remote_hashing", remote_hashing)
        del IdentityWrapper.remote_hashing
        self.memory.authorizer.hashing = Hashing()
        self.successResultOf(self.change(self.identity(), "changed"))
        self.assertEqual(self.verifier().iterations, Hashing().iterations)


class OverTLSTests(TLSTestCase):
    """With a reactor that runs: threads, TLS, and an SQLite file."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def open(self, iterations: int = 20_000) -> SQLAuthorizer:
        """Open the SQLite file."""
        authorizer = SQLAuthorizer(self.path, hashing=Hashing(iterations))
        self.addCleanup(authorizer.close)
        return authorizer

    async def addAlice(self, authorizer: Any) -> None:
        """Add alice, with a weak verifier, a public key and a key to the game."""
        alice = authorizer.createIdentity("alice")
        alice.setVerifiers({SCRAM: WEAK})
        alice.addPublicKey(PrivateKey(KEY).publicKey)
        alice.addKeyByString("game", "alice")
        await alice.save()

    async def verifiers(self, authorizer: Any) -> Any:
        """Give what is stored of alice."""
        return await (await authorizer.getIdentityRequest("alice")).getVerifiers()

    async def test_bound(self) -> None:
        """After a bound login the verifier is renewed, in a thread."""
        port = self.serve()
        alice = self.authorizer.identities["alice"]
        self.authorizer.hashing = Hashing(20_000)
        password = Password("secret")
        perspective = await connect(
            f"tls:localhost:{port}", None, "alice", password, "game", trust=self.pin
        )
        await password.whenRenewed()
        self.assertEqual((await alice.getVerifiers())[SCRAM].iterations, 20_000)
        self.assertEqual(await self.works(perspective), PLUS)

    def test_notBound(self) -> None:
        """On TLS that was not bound, though it could be, nothing is asked for."""
        for mechanism, asked in ((PLUS, 1), (SCRAM, 0)):
            password = Password("secret")
            channel = Channel(local=True, secure=True, channelBinding=b"x" * 32)
            exchange = password.begin(mechanism, "alice", channel)
            verifier = ScramVerifier.fromPassword("secret", bytes(16), 4096)
            server = ScramServer(
                "alice", verifier, "nonce", binding=channel.channelBinding if asked else None
            )
            challenge = server.challenge(exchange.initial)
            response = self.successResultOf(exchange.respond(challenge))
            if asked:
                exchange.checkOutcome(server.outcome(response))
            questions: list[str] = []

            class Identity:
                def callRemote(self, method: str, questions: Any = questions) -> Any:
                    questions.append(method)
                    return succeed((4096, 16))

            self.successResultOf(Deferred.fromCoroutine(exchange.renew(Identity())))
            self.assertEqual(questions, ["hashing"] * asked)

    async def test_sql(self) -> None:
        """In an SQLite file the verifier is replaced, and all else stays; also the sessions."""
        self.authorizer = self.open()
        await self.addAlice(self.authorizer)
        memory = MemoryServer(self.authorizer)
        self.authorizer.setServiceCollection(memory.services)
        RecordingService("game", memory.services, self.authorizer)
        from twisted.internet import reactor

        port = reactor.listenTCP(0, AuthServerFactory(self.authorizer), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        where = ("127.0.0.1", port.getHost().port, "alice")
        quiet = await connect(*where, Password("secret", renew=False), "game")
        password = Password("secret")
        perspective = await connect(*where, password, "game")
        await password.whenRenewed()
        stored = await self.verifiers(self.authorizer)
        self.assertEqual(stored[SCRAM].iterations, 20_000)
        self.assertTrue(password.remembers(stored[SCRAM].salt, 20_000))
        self.assertEqual(
            [key.raw for key in stored["ED25519"].keys], [PrivateKey(KEY).publicKey.raw]
        )
        # What an administrator saves who had read the account before does not end them.
        alice = await self.authorizer.getIdentityRequest("alice")
        alice.addKeyByString("chat", "alice")
        await alice.save()
        for reference in (quiet, perspective):
            self.assertEqual(await reference.callRemote("whoami"), "alice")
            reference.broker.transport.loseConnection()
            await reference.broker.whenClosed()
        while len(self.authorizer.sessions):
            await self.turn()

    async def test_sqlChangedMeanwhile(self) -> None:
        """What another process changed in the meantime wins."""
        authorizer = self.open()
        await self.addAlice(authorizer)
        copy = await authorizer.getIdentityRequest("alice")
        administrator = self.open(4096)
        changed = await administrator.getIdentityRequest("alice")
        changed.setPassword("other")
        await changed.save()
        self.assertFalse(await authorizer.renewVerifier(copy, WEAK, GOOD))
        self.assertTrue((await self.verifiers(authorizer))[SCRAM].matches("other"))

    async def test_sqlOtherChangesStay(self) -> None:
        """Who saves other changes, read before the renewal, does not undo it; nor it them."""
        authorizer = self.open()
        await self.addAlice(authorizer)
        before = await authorizer.getIdentityRequest("alice")
        copy = await authorizer.getIdentityRequest("alice")
        other = PublicKey(bytes(range(32)), "phone")
        before.addPublicKey(other)
        self.assertTrue(await authorizer.renewVerifier(copy, WEAK, GOOD))
        await before.save()
        stored = await self.verifiers(authorizer)
        self.assertEqual(stored[SCRAM], GOOD)
        self.assertEqual(len(stored["ED25519"].keys), 2)
