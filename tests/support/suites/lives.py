"""What every store keeps of the life of an account, and what follows from it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.application.service import MultiService
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock, deferLater

from pbauth import (
    AuthServerFactory,
    Detached,
    Password,
    PasswordChangeRequired,
    PrivateKey,
    PublicKey,
    Unauthorized,
    authIdentity,
    changePassword,
    connect,
    getObjectAt,
)
from pbauth._async import settled
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.errors import LastAdministrator
from pbauth.testing import RecordingService
from tests.support.suites.authorizers import MD5, SCRAM
from tests.support.suites.groups import GroupStoreSuite

LATER = timedelta(days=30, microseconds=123456)


def now() -> datetime:
    """Return the time."""
    return datetime.now(timezone.utc)


class LifeSuite(GroupStoreSuite):
    """As `GroupStoreSuite`, for stores that keep the life of an account."""

    async def test_dates(self) -> None:
        """What is set is stored, to the microsecond; a new account has none of it but one."""
        store = self.makeAuthorizer()
        begun = now()
        await self.make(store)
        alice = await self.find(store)
        self.assertTrue(begun <= alice.created <= now(), alice.created)
        self.assertEqual(
            (alice.expires, alice.mustChangePassword, alice.lastLogin), (None, False, None)
        )
        expires = (begun + LATER).astimezone(timezone(timedelta(hours=-5)))
        alice.expires = expires
        alice.mustChangePassword = True
        created = alice.created
        await alice.save()
        alice = await self.find(self.reopened(store))
        self.assertEqual(
            (alice.expires, alice.mustChangePassword, alice.created), (expires, True, created)
        )
        alice.expires = None
        alice.mustChangePassword = False
        await alice.save()
        alice = await self.find(store)
        self.assertEqual((alice.expires, alice.mustChangePassword), (None, False))

    async def test_countExpiring(self) -> None:
        """Accounts that expire soon are counted: not those that have, or never do."""
        store = self.makeAuthorizer()
        for name, days in (("alice", 1), ("bob", 13), ("carol", 15), ("dave", -1), ("eve", None)):
            identity = await self.make(store, name)
            identity.expires = None if days is None else now() + timedelta(days=days)
            await identity.save()
        self.assertEqual(await store.countExpiring(now() + timedelta(days=14)), 2)

    async def test_badDates(self) -> None:
        """A date without a time zone says nothing; what is no date is none."""
        alice = await self.make(self.makeAuthorizer())
        with self.assertRaises(ValueError):
            alice.expires = datetime(2030, 1, 1)
        for bad in ("2030-01-01", 5, timedelta(days=1)):
            with self.assertRaises(TypeError):
                alice.expires = bad
        self.assertIsNone(alice.expires)

    async def test_lifeInRecords(self) -> None:
        """A record carries all of it to another store."""
        store, other = self.makeAuthorizer(), self.makeAuthorizer()
        alice = await self.make(store)
        alice.expires = now() + LATER
        alice.mustChangePassword = True
        alice.lastLogin = now() - LATER
        alice.addPublicKey(PublicKey(b"k" * 32, "laptop", now() + LATER))
        await alice.save()
        records = await settled(store.readRecords())
        await settled(other.addRecords(records))
        self.assertEqual(await settled(other.readRecords()), records)
        there = await self.find(other)
        self.assertEqual(
            (there.expires, there.created, there.lastLogin, there.mustChangePassword),
            (alice.expires, alice.created, alice.lastLogin, True),
        )
        (key,), (same,) = there.getPublicKeys(), alice.getPublicKeys()
        self.assertEqual((key.expires, key.label), (same.expires, "laptop"))

    async def test_expired(self) -> None:
        """Nobody gets in by the password of an account that has expired."""
        store = self.makeAuthorizer(hashing=MD5)
        alice = await self.make(store)
        alice.expires = now() + LATER
        await alice.save()
        await (await self.find(store)).verifyPlainPassword("secret")
        alice.expires = now()
        await alice.save()
        found = await self.find(store)
        with self.assertRaises(Unauthorized):
            await found.verifyPlainPassword("secret")
        challenge = found.challenge()
        with self.assertRaises(Unauthorized):
            await found.verifyPassword(challenge, self.respond(challenge))
        for proof in (None, (await found.getVerifiers())[SCRAM]):
            self.assertFalse(found.isProvedBy(proof))

    def respond(self, challenge: bytes) -> bytes:
        """Answer a challenge of Twisted 1.x."""
        from twisted.spread import pb

        return pb.respond(challenge, b"secret")

    async def test_expiredKey(self) -> None:
        """Nor by a public key that has expired; the password and other keys still open it."""
        store = self.makeAuthorizer()
        alice = await self.make(store)
        old, new = PublicKey(b"o" * 32, "old", now()), PublicKey(b"n" * 32, "new", now() + LATER)
        for key in (old, new):
            alice.addPublicKey(key)
        await alice.save()
        found = await self.find(store)
        self.assertFalse(found.isProvedBy(old))
        self.assertTrue(found.isProvedBy(new))
        self.assertEqual(found.standsUntil(new), new.expires)
        self.assertIsNone(found.standsUntil(None))
        await found.verifyPlainPassword("secret")

    async def test_administratorForAWhile(self) -> None:
        """Who expires is not the administrator who must be left."""
        store = self.makeAuthorizer()
        await self.administrators(store, "alice")
        keeping = KeptAdministrator("admin")

        def expire(record: Any) -> Any:
            from attrs import evolve

            return evolve(record, expires=now() + LATER)

        with self.assertRaises(LastAdministrator):
            await store.changeIdentity("alice", expire, keeping)
        await self.administrators(store, "bob")
        await store.changeIdentity("alice", expire, keeping)
        with self.assertRaises(LastAdministrator):
            await store.changeIdentity("bob", lambda record: None, keeping)

    # Over a real connection.

    async def serveLife(self, name: str = "alice") -> tuple[Any, int]:
        """Serve, with an identity that holds a key to the service `game`."""
        from twisted.internet import reactor

        services = MultiService()
        store = self.makeAuthorizer(services)
        self.game = RecordingService("game", services, store)
        await self.make(store, name, ("game", name))
        port = reactor.listenTCP(0, AuthServerFactory(store), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return store, port.getHost().port

    def stopTime(self, store: Any) -> Clock:
        """Stop the time at which accounts expire; the test says how it goes on."""
        clock = Clock()
        clock.advance(time.time())
        store._clock = clock
        return clock

    async def until(self, happened: Any) -> Any:
        """Wait until something is true, and return it."""
        from twisted.internet import reactor

        while True:
            found = await settled(happened())
            if found:
                return found
            await deferLater(reactor, 0.01)

    async def enter(self, port: int, credentials: Any) -> Any:
        """Log alice in."""
        perspective = await connect("127.0.0.1", port, "alice", credentials, "game")
        self.addCleanup(self.close, perspective)
        return perspective

    async def test_sameAnswer(self) -> None:
        """The answer of an expired account is that of a wrong password."""
        store, port = await self.serveLife()
        texts = []
        for password, expires in (("wrong", None), ("secret", now()), ("wrong", now())):
            alice = await self.find(store)
            alice.expires = expires
            await alice.save()
            with self.assertRaises(Unauthorized) as raised:
                await connect("127.0.0.1", port, "alice", Password(password, renew=False), "game")
            texts.append((type(raised.exception), str(raised.exception)))
        self.assertEqual(len(set(texts)), 1, texts)
        self.assertEqual(self.game.events, [])

    async def test_sessionsExpire(self) -> None:
        """A live session ends when its account expires, or the key that opened it."""
        store, port = await self.serveLife()
        clock = self.stopTime(store)
        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes_raw()
        for credentials in (Password("secret", renew=False), PrivateKey(private)):
            end = store.now() + timedelta(seconds=70)
            alice = await self.find(store)
            byKey = isinstance(credentials, PrivateKey)
            alice.expires = None if byKey else end
            alice.addPublicKey(PublicKey(raw, "", end if byKey else None))
            await alice.save()
            self.game.events.clear()
            perspective = await self.enter(port, credentials)
            other = None
            if byKey:
                other = await self.enter(port, Password("secret", renew=False))
            clock.advance(69)
            self.assertEqual(await perspective.callRemote("whoami"), "alice")
            clock.advance(1.5)
            await self.until(lambda: "detached" in self.game.kinds())
            with self.assertRaises(Detached) as raised:
                await perspective.callRemote("whoami")
            self.assertEqual(raised.exception.reason, "account expired")
            with self.assertRaises(Unauthorized):
                await connect("127.0.0.1", port, "alice", credentials, "game")
            if other is not None:
                self.assertEqual(await other.callRemote("whoami"), "alice")

    async def test_moreTime(self) -> None:
        """Who is given more time meanwhile stays; the saved change counts."""
        store, port = await self.serveLife()
        clock = self.stopTime(store)
        alice = await self.find(store)
        alice.expires = store.now() + timedelta(seconds=50)
        await alice.save()
        perspective = await self.enter(port, Password("secret", renew=False))
        alice = await self.find(store)
        alice.expires = store.now() + LATER
        await alice.save()
        clock.advance(60)
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        alice = await self.find(store)
        alice.expires = store.now()
        await alice.save()
        await self.until(lambda: "detached" in self.game.kinds())

    async def test_lastLogin(self) -> None:
        """A login is noted, and the next one within the hour is not."""
        store, port = await self.serveLife()
        begun = now()
        await self.enter(port, Password("secret", renew=False))

        async def noted() -> Any:
            return (await self.find(store)).lastLogin

        first = await self.until(noted)
        self.assertTrue(begun <= first <= now())
        await self.enter(port, Password("secret", renew=False))
        with self.assertRaises(Unauthorized):
            await self.enter(port, Password("wrong", renew=False))
        self.assertEqual(await noted(), first)
        alice = await self.find(store)
        alice.lastLogin = now() - timedelta(minutes=61)
        await alice.save()
        await self.enter(port, Password("secret", renew=False))

        async def again() -> bool:
            return bool(await noted() >= first)

        await self.until(again)

    async def test_mustChangePassword(self) -> None:
        """Who has to change the password can do that, and nothing else before."""
        store, port = await self.serveLife()
        alice = await self.find(store)
        alice.mustChangePassword = True
        await alice.save()
        with self.assertRaises(PasswordChangeRequired):
            await self.enter(port, Password("secret", renew=False))
        root = await getObjectAt("127.0.0.1", port)
        self.addCleanup(self.close, root)
        identity = await authIdentity(root, "alice", Password("secret", renew=False))
        self.assertEqual(await identity.callRemote("keys"), [("game", "alice")])
        with self.assertRaises(PasswordChangeRequired):
            await identity.callRemote("attach", "game", "alice", None)
        self.assertEqual(self.game.events, [])
        await maybeDeferred(changePassword, identity, "another secret")
        self.assertFalse((await self.find(store)).mustChangePassword)
        perspective = await identity.callRemote("attach", "game", "alice", None)
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        await self.enter(port, Password("another secret", renew=False))
