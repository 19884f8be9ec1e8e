"""Identities that are made for whoever asks."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    DefaultAuthorizer,
    Detached,
    Hashing,
    OnDemandAuthorizer,
    StoreError,
    Unauthorized,
    authIdentity,
    changePassword,
    getObjectAt,
)
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.testing import MemoryServer, RecordingService
from tests.support.memory import freezeHeap
from tests.support.suites.authorizers import SCRAM
from tests.support.suites.lives import LifeSuite

VERIFIERS = Hashing.CHEAPEST.makeVerifiers("1234", b"0123456789abcdef")


class OnDemandAuthorizerTests(LifeSuite, TestCase):
    """What is saved is kept as in memory: it passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        return OnDemandAuthorizer(lambda name: None, services, hashing)


class CreateTestCase(SynchronousTestCase):
    """Makes identities."""

    def setUp(self) -> None:
        self.asked: list[str] = []
        self.authorizer = self.authorize(self.create)

    def authorize(self, create: Any, **options: Any) -> OnDemandAuthorizer:
        """Make an authorizer."""
        return OnDemandAuthorizer(create, hashing=Hashing.CHEAPEST, **options)

    def create(self, name: str) -> Any:
        """Anyone is let in, by the password of the seed; but for mallory."""
        self.asked.append(name)
        if name == "mallory":
            return None
        identity = self.authorizer.createIdentity(name)
        identity.setVerifiers(VERIFIERS)
        identity.addKeyByString("game", name)
        return identity

    def find(self, name: str) -> Any:
        """Find somebody who is there."""
        return self.successResultOf(self.authorizer.getIdentityRequest(name))


class CreateTests(CreateTestCase):
    """When identities are made, and what is made of what `create` does."""

    def test_made(self) -> None:
        """Made once, and not saved."""
        alice = self.find("alice")
        self.assertIs(self.find("alice"), alice)
        self.assertEqual((self.asked, alice.stored), (["alice"], False))
        self.assertEqual(self.successResultOf(self.authorizer.listIdentities()), [])
        self.assertIsNone(self.successResultOf(alice.verifyPlainPassword("1234")))

    def test_nobody(self) -> None:
        """`None`, and `Unauthorized`, are nobody of that name; nothing is logged."""

        def refuse(name: str) -> None:
            raise Unauthorized()

        for authorizer in (self.authorizer, self.authorize(refuse)):
            self.failureResultOf(authorizer.getIdentityRequest("mallory"), Unauthorized)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_deferredsAndCoroutines(self) -> None:
        """Deferreds and coroutines are waited for."""
        later: Deferred[Any] = Deferred()

        async def create(name: str) -> Any:
            return self.create(name)

        self.authorizer = self.authorize(create)
        self.assertEqual(self.find("alice").name, "alice")
        self.authorizer = self.authorize(lambda name: later)
        waiting = self.authorizer.getIdentityRequest("alice")
        self.assertNoResult(waiting)
        later.callback(self.create("alice"))
        self.assertEqual(self.successResultOf(waiting).name, "alice")

    def test_atOnce(self) -> None:
        """Many who ask for a name at once get one identity, whoever of them gives up."""
        later: Deferred[Any] = Deferred()

        def create(name: str) -> Deferred[Any]:
            self.asked.append(name)
            return later

        self.authorizer = self.authorize(create)
        first, second, third = [self.authorizer.getIdentityRequest("alice") for _ in range(3)]
        first.addErrback(lambda failure: None)
        first.cancel()
        identity = self.authorizer.createIdentity("alice")
        later.callback(identity)
        self.assertIs(self.successResultOf(second), identity)
        self.assertIs(self.successResultOf(third), identity)
        self.assertIs(self.find("alice"), identity)
        self.assertEqual(self.asked, ["alice"])

    def test_failAtOnce(self) -> None:
        """If it fails, it fails for all who wait, and is tried again for the next."""
        later: Deferred[Any] = Deferred()
        answers = [later, None]
        authorizer = self.authorize(lambda name: answers.pop(0))
        asked = [authorizer.getIdentityRequest("alice") for _ in range(3)]
        later.errback(OSError("the directory is away"))
        for waiting in asked:
            self.failureResultOf(waiting, StoreError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.failureResultOf(authorizer.getIdentityRequest("alice"), Unauthorized)

    def test_raises(self) -> None:
        """What it raises is logged, and the client learns nothing of it."""

        def fail(name: str) -> None:
            raise OSError("the directory at 10.0.0.1 is away")

        authorizer = self.authorize(fail)
        failure = self.failureResultOf(authorizer.getIdentityRequest("alice"), StoreError)
        self.assertNotIn("10.0.0.1", str(failure.value))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_badResults(self) -> None:
        """Something else, somebody else, or somebody else's is refused; nobody gets in by it."""
        stranger = DefaultAuthorizer(hashing=Hashing.CHEAPEST).createIdentity("alice")
        for made, kind in [
            (5, TypeError),
            ("alice", TypeError),
            (self.create("bob"), ValueError),
            (self.create("Alice"), ValueError),
            (stranger, ValueError),
        ]:
            authorizer = self.authorize(lambda name, made=made: made)
            if made is not stranger and kind is ValueError:
                made.authorizer = authorizer
            for _ in range(2):
                self.failureResultOf(authorizer.getIdentityRequest("alice"), StoreError)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 2)

    def test_badNames(self) -> None:
        """What can't be a name is nobody's, and `create` is not asked."""
        for name in ("", "a\0b", "\u00ad", "a" * 256, b"alice", None, "\ud800"):
            self.failureResultOf(
                self.authorizer.getIdentityRequest(name),  # type: ignore[arg-type]
                Unauthorized,
            )
        self.assertEqual(self.asked, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_saves(self) -> None:
        """`create` may save what it makes; it is not asked again, but after a removal."""

        def create(name: str) -> Any:
            identity = self.create(name)
            identity.save()
            return identity

        self.authorizer = self.authorize(create, mostKept=0)
        alice = self.find("alice")
        self.assertEqual(self.authorizer.identities, {"alice": alice})
        self.assertIs(self.find("alice"), alice)
        self.assertEqual(self.asked, ["alice"])
        self.authorizer.removeIdentity("alice")
        self.assertIsNot(self.find("alice"), alice)

    def test_savedMeanwhile(self) -> None:
        """Whoever is saved while `create` is at work is who counts."""
        later: Deferred[Any] = Deferred()
        self.authorizer = self.authorize(lambda name: later)
        waiting = self.authorizer.getIdentityRequest("alice")
        saved, other = (self.authorizer.createIdentity("alice") for _ in range(2))
        saved.save()
        later.callback(other)
        self.assertIs(self.successResultOf(waiting), saved)


class MemoryTests(CreateTestCase):
    """What is kept, whatever strangers ask for."""

    def setUp(self) -> None:
        freezeHeap()
        super().setUp()
        self.authorizer = self.authorize(self.create, mostKept=10)
        self.server = MemoryServer(self.authorizer)
        self.authorizer.setServiceCollection(self.server.services)
        self.game = RecordingService("game", self.server.services, self.authorizer)

    def crowd(self, many: int = 200) -> None:
        """Strangers ask."""
        for number in range(many):
            self.find(f"stranger {number}")
        gc.collect()

    def kept(self) -> int:
        """How many identities are there."""
        return len(self.authorizer._made)

    def logIn(self, name: str) -> Any:
        """Log somebody in."""
        return self.successResultOf(self.server.logIn(name, "1234", "game"))

    def test_bounded(self) -> None:
        """Of those whom nobody holds the last ones are kept, and nothing else of anybody."""
        self.crowd()
        self.assertEqual(self.kept(), 10)
        for name in ("mallory", "\u00ad"):
            self.authorizer.getIdentityRequest(name).addErrback(lambda failure: None)
        self.assertEqual(self.authorizer._making._flights, {})
        self.asked.clear()
        self.find("stranger 199")
        self.find("stranger 0")
        self.assertEqual(self.asked, ["stranger 0"])

    def test_lastAsked(self) -> None:
        """Who is asked for again and again stays."""
        alice = self.find("alice")
        for number in range(100):
            self.find(f"stranger {number}")
            self.assertIs(self.find("alice"), alice)

    def test_strangersOnTheWire(self) -> None:
        """So it is for strangers who come over the wire and prove nothing."""
        for number in range(40):
            login = self.server.logIn(f"stranger {number}", "wrong", "game")
            self.failureResultOf(login, Unauthorized)
            self.server.clock.advance(60)
        for pump in self.server.pumps:
            pump.client.transport.loseConnection()
        self.server.flush()
        self.server.pumps.clear()
        gc.collect()
        self.assertLessEqual(self.kept(), 11)

    def test_sessions(self) -> None:
        """Who is logged in stays the same, and changes to that object count at once."""
        self.logIn("alice")
        self.crowd()
        self.assertEqual(self.kept(), 11)
        alice = self.find("alice")
        self.assertIs(self.authorizer.sessions.ofIdentity("alice")[0].identity, alice)
        alice.removeKey("game", "alice")
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_afterTheSession(self) -> None:
        """Who is gone is forgotten like the others."""
        reference = self.logIn("alice")
        self.crowd()
        self.server.disconnect(reference)
        self.server.pumps.clear()
        del reference
        gc.collect()
        self.asked.clear()
        self.find("alice")
        self.assertEqual(self.asked, ["alice"])

    def test_saved(self) -> None:
        """Who is saved stays."""
        self.find("alice").save()
        self.crowd()
        alice = self.find("alice")
        self.assertEqual(self.asked.count("alice"), 1)
        self.assertEqual(
            self.successResultOf(self.authorizer.listIdentities()), [("alice", False, 1)]
        )
        alice.locked = True
        self.failureResultOf(self.server.logIn("alice", "1234", "game"), Unauthorized)

    def test_changedPassword(self) -> None:
        """Whoever changes the password has an account that lasts."""
        self.logIn("alice")
        self.assertFalse(self.find("alice").stored)
        identity = self.successResultOf(self.identityOf("alice"))
        changed = changePassword(identity, "secret")
        self.server.flush()
        self.successResultOf(changed)
        self.assertEqual(
            self.successResultOf(self.authorizer.listIdentities()), [("alice", False, 1)]
        )
        self.crowd()
        self.failureResultOf(self.server.logIn("alice", "1234", "game"), Unauthorized)
        self.successResultOf(self.server.logIn("alice", "secret", "game"))

    def identityOf(self, name: str) -> Any:
        """Log in, without a perspective."""
        root = getObjectAt(self.server, None, reactor=self.server.clock)
        self.server.flush()
        login = authIdentity(self.successResultOf(root), name, "1234")
        self.server.flush()
        return login

    def test_remove(self) -> None:
        """Removing ends the sessions, of unsaved ones, too; and the next one is made anew."""
        self.logIn("alice")
        self.authorizer.removeIdentity("alice")
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.find("alice")
        self.assertEqual(self.asked, ["alice", "alice"])
        with self.assertRaises(KeyError):
            self.authorizer.removeIdentity("bob")

    def test_savedInItsPlace(self) -> None:
        """If another identity is saved under the name, sessions stand by that one."""
        reference = self.logIn("alice")
        other = self.authorizer.createIdentity("alice")
        other.save()
        called = reference.callRemote("whoami")
        self.server.flush()
        self.failureResultOf(called, Detached)
        self.assertIs(self.find("alice"), other)

    def test_renewed(self) -> None:
        """A renewed verifier does not save who is not saved."""
        alice = self.find("alice")
        old = VERIFIERS[SCRAM]
        better = ScramVerifier.fromPassword("1234", b"0123456789abcdef", 5000)
        for done in (True, False):
            renewed = self.authorizer.renewVerifier(alice, old, better)  # type: ignore[arg-type]
            self.assertIs(self.successResultOf(renewed), done)
        self.assertEqual(self.successResultOf(alice.getVerifiers())[SCRAM], better)
        self.assertEqual(self.authorizer.identities, {})


class GroupTests(SynchronousTestCase):
    """Groups that somebody else knows."""

    def test_groupsOf(self) -> None:
        """They are asked for at each login; sessions end that rested on those that are left."""
        elsewhere: list[Any] = [["staff", "unknown"]]

        class Directory(OnDemandAuthorizer):
            async def groupsOf(self, identityName: str) -> list[str]:
                if isinstance(elsewhere[0], Exception):
                    raise elsewhere[0]
                return list(elsewhere[0])

        def create(name: str) -> Any:
            identity = authorizer.createIdentity(name)
            identity.setPassword("secret")
            return identity

        authorizer = Directory(create, hashing=Hashing.CHEAPEST)
        memory = MemoryServer(authorizer)
        authorizer.setServiceCollection(memory.services)
        game = RecordingService("game", memory.services, authorizer)
        self.successResultOf(authorizer.addGroup("staff"))
        self.successResultOf(authorizer.grantGroupKey("staff", "game", "{name}"))
        for name in ("alice", "bob"):
            self.successResultOf(memory.logIn(name, "secret", "game"))
        elsewhere[0] = []
        self.failureResultOf(memory.logIn("alice", "secret", "game"))
        self.assertEqual(game.kinds(), ["attached", "attached", "detached"])
        self.successResultOf(authorizer.revokeGroupKey("staff", "game", "{name}"))
        self.assertEqual(game.kinds()[-1], "detached")
        self.assertEqual(len(authorizer.sessions), 0)
        elsewhere[0] = OSError("the directory is away")
        self.failureResultOf(authorizer.getIdentityRequest("alice"), StoreError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
