"""Passwords that somebody else checks: `CredAuthorizer`, by PLAIN."""

from __future__ import annotations

import os
from typing import Any

from twisted.cred import credentials, strcred
from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse as Memory
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import ssl
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pbauth import (
    AuthServerFactory,
    CredAuthorizer,
    DefaultAuthorizer,
    DuplicateIdentity,
    Hashing,
    IAuthorizer,
    IIdentity,
    KeyNotFound,
    MechanismNotSupported,
    PlainPassword,
    Policy,
    PrivateKey,
    SQLAuthorizer,
    StoreError,
    Unauthorized,
    connect,
)
from pbauth.errors import ExchangeRefused
from pbauth.mechanisms.terms import reasonOf
from pbauth.net.certificates import makeCertificate
from pbauth.net.trust import serverOptions
from pbauth.testing import MemoryServer, RecordingService
from tests.support.keys import KEY, PUBLIC
from tests.support.tls import TLSTestCase, pinOf

POLICY = Policy(mechanisms=["PLAIN", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "ED25519"])


@implementer(ICredentialsChecker)
class Checker:
    """
    A checker that answers as it is told, and counts.

    Args:
        answer: gives the avatar id, or raises; takes the credentials.
    """

    credentialInterfaces = (credentials.IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    def requestAvatarId(self, given: Any) -> Any:
        self.asked += 1
        return self.answer(given)


class AuthorizerTests(SynchronousTestCase):
    """The authorizer, without a connection."""

    def verify(self, authorizer: CredAuthorizer, name: str, password: str) -> Any:
        """Let a password be checked."""
        identity = self.successResultOf(authorizer.getIdentityRequest(name))
        return identity.verifyPlainPassword(password)

    def test_interfaces(self) -> None:
        """It is an authorizer, and gives identities."""
        authorizer = CredAuthorizer([Memory(alice=b"secret")])
        verifyObject(IAuthorizer, authorizer)
        identity = self.successResultOf(authorizer.getIdentityRequest("alice"))
        verifyObject(IIdentity, identity)
        self.assertEqual(repr(identity), "<CheckedIdentity 'alice'>")

    def test_password(self) -> None:
        """A right password passes; a wrong one and an unknown name do not."""
        authorizer = CredAuthorizer([Memory(alice=b"secret"), Memory(bob=b"geheim")])
        self.assertIsNone(self.successResultOf(self.verify(authorizer, "alice", "secret")))
        self.assertIsNone(self.successResultOf(self.verify(authorizer, "bob", "geheim")))
        for name, password in [("alice", "geheim"), ("carol", "secret"), ("bob", "")]:
            self.failureResultOf(self.verify(authorizer, name, password), Unauthorized)

    def test_locked(self) -> None:
        """A locked account stays out, whatever the checker says, which is asked all the same."""
        checker = Checker(lambda given: given.username)
        authorizer = CredAuthorizer([checker])
        account = authorizer.createIdentity("alice")
        account.locked = True
        account.save()
        self.failureResultOf(self.verify(authorizer, "alice", "secret"), Unauthorized)
        self.assertEqual(checker.asked, 1)

    def test_answers(self) -> None:
        """Deferreds and coroutines are waited for; nobody else's avatar opens the account."""
        later: Deferred[bytes] = Deferred()

        async def coroutine(given: Any) -> bytes:
            return bytes(given.username)

        waiting = self.verify(CredAuthorizer([Checker(lambda given: later)]), "alice", "x")
        self.assertNoResult(waiting)
        later.callback(b"alice")
        self.assertIsNone(self.successResultOf(waiting))
        authorizer = CredAuthorizer(
            [Checker(lambda given: Deferred.fromCoroutine(coroutine(given)))]
        )
        self.assertIsNone(self.successResultOf(self.verify(authorizer, "alice", "x")))
        for avatar in (b"bob", (), None, b"ALICE", True):
            authorizer = CredAuthorizer([Checker(lambda given, avatar=avatar: avatar)])
            self.failureResultOf(self.verify(authorizer, "alice", "x"), Unauthorized)

    def test_reasons(self) -> None:
        """Why a password is refused is known to the operator, as far as the checkers say it."""

        def refuses(given: Any) -> None:
            raise UnauthorizedLogin("the password was hunter2")

        def unknown(given: Any) -> None:
            raise UnauthorizedLogin from ExchangeRefused("no such identity (PAM)")

        locked = CredAuthorizer([Checker(lambda given: given.username)])
        account = locked.createIdentity("alice")
        account.locked = True
        account.save()
        for authorizer, reason in [
            (CredAuthorizer([Checker(refuses)]), "wrong password"),
            (CredAuthorizer([Checker(unknown)]), "no such identity (PAM)"),
            (
                CredAuthorizer([Checker(refuses), Checker(unknown)]),
                "wrong password; no such identity (PAM)",
            ),
            (
                CredAuthorizer([Checker(lambda given: b"bob")]),
                "the checker vouches for somebody else",
            ),
            (locked, "the account is locked"),
        ]:
            failure = self.failureResultOf(self.verify(authorizer, "alice", "x"), Unauthorized)
            self.assertEqual(reasonOf(failure.value, ""), reason)
            self.assertNotIn(reason, repr(failure.value.getStateToCopy()))

    def test_broken(self) -> None:
        """A checker that fails lets nobody in, and does not say that the password is wrong."""

        def fails(given: Any) -> None:
            raise OSError("the directory server is away")

        def refuses(given: Any) -> None:
            raise UnauthorizedLogin

        authorizer = CredAuthorizer([Checker(fails), Checker(refuses)])
        self.failureResultOf(self.verify(authorizer, "alice", "a password"), StoreError)
        (logged,) = self.flushLoggedErrors(OSError)
        self.assertNotIn("a password", logged.getTraceback())
        second = CredAuthorizer([Checker(fails), Memory(alice=b"secret")])
        self.assertIsNone(self.successResultOf(self.verify(second, "alice", "secret")))
        self.flushLoggedErrors(OSError)

    def test_sameWorkForAll(self) -> None:
        """A checker is asked once for each login, whether there is an account or not."""
        checker = Checker(lambda given: None)
        authorizer = CredAuthorizer([checker])
        authorizer.createIdentity("alice").save()
        for asked, name in enumerate(["alice", "mallory"], 1):
            self.failureResultOf(self.verify(authorizer, name, "wrong"), Unauthorized)
            self.assertEqual(checker.asked, asked)

    def test_notCheckers(self) -> None:
        """What is no checker, or takes no passwords, is refused at once."""
        for bad in (object(), AllowAnonymousAccess()):
            with self.assertRaises(TypeError):
                CredAuthorizer([bad])  # type: ignore[list-item]

    def test_accounts(self) -> None:
        """Accounts are kept elsewhere, and seen through."""
        authorizer = CredAuthorizer([Memory(alice=b"secret")])
        account = authorizer.createIdentity("alice")
        account.addKeyByString("game", "alice")
        account.save()
        with self.assertRaises(DuplicateIdentity):
            authorizer.addIdentity(authorizer.createIdentity("alice"))
        identity = self.successResultOf(authorizer.getIdentityRequest("alice"))
        self.assertEqual(identity.getAllKeys(), [("game", "alice")])
        identity.addKeyByString("chat", "alice")
        authorizer.updateIdentity(identity)
        self.assertTrue(account.holdsKey("chat", "alice"))
        authorizer.removeIdentity("alice")
        with self.assertRaises(KeyError):
            authorizer.removeIdentity("alice")
        gone = self.successResultOf(authorizer.getIdentityRequest("alice"))
        self.assertEqual(gone.getAllKeys(), [])


class LoginTests(TLSTestCase):
    """Logins over TLS, over a UNIX socket, and over what others can read."""

    def authorize(self, checkers: Any, accounts: Any = None) -> None:
        """Make the authorizer and its service."""
        accounts = accounts or DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        memory = MemoryServer(CredAuthorizer(checkers, accounts=accounts))
        self.authorizer = memory.authorizer
        self.authorizer.setServiceCollection(memory.services)
        self.game = RecordingService("game", memory.services, self.authorizer)

    def serveTLS(self, policy: Policy = POLICY) -> int:
        """Listen."""
        from twisted.internet import reactor

        self.pem = makeCertificate()
        self.pin = pinOf(self.pem)
        port = reactor.listenSSL(
            0,
            AuthServerFactory(self.authorizer, policy),
            serverOptions(ssl.PrivateCertificate.loadPEM(self.pem)),
            interface="127.0.0.1",
        )
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def addAlice(self) -> Any:
        """Add alice's account, which holds a key and a public key, and a password of its own."""
        alice = self.authorizer.createIdentity("alice")
        alice.setPassword("ignored")
        alice.addKeyByString("game", "alice")
        alice.addPublicKey(PUBLIC)
        await maybeDeferred(alice.save)
        return alice

    def logIn(self, port: int, credentials: Any, name: str = "alice") -> Any:
        """Log somebody in."""
        return connect(f"tls:127.0.0.1:{port}", None, name, credentials, "game", trust=self.pin)

    async def test_login(self) -> None:
        """The checker's password opens the account, and its own does not."""
        store = SQLAuthorizer(self.mktemp(), hashing=Hashing.CHEAPEST)
        self.addCleanup(store.close)
        self.authorize([Memory(alice=b"secret", bob=b"secret")], store)
        port = self.serveTLS()
        await self.addAlice()
        perspective = await self.logIn(port, PlainPassword("secret"))
        self.assertEqual(await self.works(perspective), "PLAIN")
        for password in ("ignored", "wrong"):
            with self.assertRaises(Unauthorized):
                await self.logIn(port, PlainPassword(password))
        with self.assertRaises(Unauthorized):
            await self.logIn(port, PlainPassword("secret"), "mallory")
        with self.assertRaises(KeyNotFound):
            await self.logIn(port, PlainPassword("secret"), "bob")
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_neverInPlaceOfSCRAM(self) -> None:
        """A client with a `Password` does not send it; public keys log in as ever."""
        self.authorize([Memory(alice=b"secret")])
        port = self.serveTLS()
        await self.addAlice()
        with self.assertRaises(MechanismNotSupported) as raised:
            await self.logIn(port, "secret")
        self.assertEqual(raised.exception.offered, ["PLAIN", "ED25519", "VOUCHER"])
        self.assertEqual(await self.works(await self.logIn(port, PrivateKey(KEY))), "ED25519")

    async def test_notWhereVerifiersAreKept(self) -> None:
        """An authorizer that keeps verifiers does not take it, whatever the policy says."""
        port = self.serve(Policy(mechanisms=["PLAIN", "SCRAM-SHA-256"]))
        with self.assertRaises(MechanismNotSupported) as raised:
            await self.attempt(port, PlainPassword("secret"), trust=self.pin)  # type: ignore
        self.assertEqual(raised.exception.offered, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])

    async def test_revoked(self) -> None:
        """Sessions end when the account loses the key, or is locked."""
        self.authorize([Memory(alice=b"secret")])
        port = self.serveTLS()
        alice = await self.addAlice()
        for revoke in (
            lambda: alice.removeKey("game", "alice"),
            lambda: setattr(alice, "locked", 1),
        ):
            perspective = await self.logIn(port, PlainPassword("secret"))
            revoke()
            self.assertEqual(self.game.kinds()[-2:], ["attached", "detached"])
            await self.hangUp(perspective)
            alice.addKeyByString("game", "alice")

    async def test_changePassword(self) -> None:
        """The password is not ours to change."""
        from pbauth import ProtocolViolation, authIdentity, getObjectAt
        from pbauth.mechanisms.scram import ScramVerifier

        self.authorize([Memory(alice=b"secret")])
        port = self.serveTLS()
        root = await getObjectAt(f"tls:127.0.0.1:{port}", None, trust=self.pin)
        identity = await authIdentity(root, "alice", PlainPassword("secret"))
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 4096).encode()
        with self.assertRaises(ProtocolViolation):
            await identity.callRemote("changePassword", verifier)
        await self.hangUp(root)

    async def test_unix(self) -> None:
        """Over a UNIX socket it goes; over loopback without TLS nothing is sent."""
        from twisted.internet import reactor

        self.authorize([Memory(alice=b"secret")])
        await self.addAlice()
        factory = AuthServerFactory(self.authorizer, POLICY)
        path = self.mktemp()[-30:].replace(os.sep, "_")
        for port, where in [
            (reactor.listenUNIX(path, factory), (f"unix:{path}", None)),
            (reactor.listenTCP(0, factory, interface="127.0.0.1"), None),
        ]:
            self.addCleanup(port.stopListening)
            attempt = connect(  # type: ignore[call-arg]
                *(where or ("127.0.0.1", port.getHost().port)),
                "alice",
                PlainPassword("secret"),
                "game",
            )
            if where:
                self.assertEqual(await self.works(await attempt), "PLAIN")
            else:
                with self.assertRaises(Exception) as raised:
                    await attempt
                self.assertIn("without TLS", str(raised.exception))
        await deferLater(reactor, 0, lambda: None)


class StrcredTests(TestCase):
    """What `--auth` makes."""

    async def test_file(self) -> None:
        """A passwd file by its string."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("alice:secret\n")
        authorizer = CredAuthorizer([strcred.makeChecker(f"file:{path}")])
        identity = await authorizer.getIdentityRequest("alice")
        await identity.verifyPlainPassword("secret")
        with self.assertRaises(Unauthorized):
            await identity.verifyPlainPassword("wrong")


class GroupTests(SynchronousTestCase):
    """Groups that somebody else knows."""

    def setUp(self) -> None:
        self.elsewhere: Any = ["staff", "unknown"]
        test = self

        class Directory(CredAuthorizer):
            async def groupsOf(self, identityName: str) -> Any:
                if isinstance(test.elsewhere, Exception):
                    raise test.elsewhere
                return test.elsewhere

        checker = Memory(alice=b"secret")
        self.authorizer = Directory([checker])
        self.accounts: Any = self.authorizer.accounts
        for group in ("staff", "night"):
            self.successResultOf(self.accounts.addGroup(group))
        self.successResultOf(self.accounts.grantGroupKey("staff", "game", "{name}"))

    def find(self, name: str = "alice") -> Any:
        """Find an identity, as a login does."""
        return self.successResultOf(self.authorizer.getIdentityRequest(name))

    def test_followed(self) -> None:
        """They are written to the accounts; who has none gets one, without a password."""
        alice = self.find()
        self.assertEqual(alice.groups, {"staff"})
        self.assertTrue(alice.holdsKey("game", "alice"))
        self.assertEqual(self.successResultOf(self.accounts.members("staff")), ["alice"])
        self.elsewhere = ("night",)
        self.assertEqual(self.find().groups, {"night"})
        self.elsewhere = ()
        self.assertEqual(self.find().groups, frozenset())
        self.assertEqual(self.successResultOf(self.accounts.members("night")), [])

    def test_nobody(self) -> None:
        """Of somebody who is in no group of the accounts nothing is stored."""
        self.elsewhere = ["unknown"]
        self.find("mallory")
        self.assertEqual(self.accounts.identities, {})

    def test_sessionsEnd(self) -> None:
        """What rested on a group ends when the next login finds the user out of it."""
        memory = MemoryServer(self.authorizer)
        self.authorizer.setServiceCollection(memory.services)
        game = RecordingService("game", memory.services, self.authorizer)
        alice = self.accounts.createIdentity("alice")
        alice.addPublicKey(PUBLIC)
        self.accounts.addIdentity(alice)
        self.successResultOf(memory.logIn("alice", PrivateKey(KEY), "game"))
        self.elsewhere = []
        self.failureResultOf(memory.logIn("alice", PrivateKey(KEY), "game"), KeyNotFound)
        self.assertEqual(game.kinds(), ["attached", "detached"])

    def test_broken(self) -> None:
        """Nobody gets in by what it raises, and the reason is in the log."""
        self.elsewhere = OSError("the directory is away")
        self.failureResultOf(self.authorizer.getIdentityRequest("alice"), StoreError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_notOverridden(self) -> None:
        """By default the groups are those that are stored."""
        authorizer = CredAuthorizer([Memory(alice=b"secret")], accounts=self.accounts)
        self.accounts.addIdentity(self.accounts.createIdentity("alice"))
        self.successResultOf(self.accounts.addMember("night", "alice"))
        alice = self.successResultOf(authorizer.getIdentityRequest("alice"))
        self.assertEqual(alice.groups, {"night"})
