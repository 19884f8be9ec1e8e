"""Authorizers in memory, and of one's own."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Application, MultiService
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pbauth import (
    Authorizer,
    DefaultAuthorizer,
    Hashing,
    IAuthorizer,
    Identity,
    Service,
    Unauthorized,
)
from pbauth.testing import MemoryServer, RecordingService
from tests.support.suites.lives import LifeSuite

VERIFIERS = Hashing.CHEAPEST.makeVerifiers("secret", b"0123456789abcdef")


class DefaultAuthorizerTests(LifeSuite, TestCase):
    """`DefaultAuthorizer` passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        return DefaultAuthorizer(services, hashing)


class InMemoryTests(SynchronousTestCase):
    """What is special about identities in memory."""

    def test_defaults(self) -> None:
        """Without arguments: the safe hashing, nobody in it, no services."""
        authorizer = DefaultAuthorizer()
        self.assertEqual(authorizer.hashing, Hashing())
        self.assertEqual(authorizer.identities, {})
        self.assertIs(authorizer.identityClass, Identity)

    def test_dict(self) -> None:
        """The identities are in a dict."""
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        identity = authorizer.createIdentity("alice")
        authorizer.addIdentity(identity)
        self.assertEqual(authorizer.identities, {"alice": identity})
        self.assertIs(self.successResultOf(authorizer.getIdentityRequest("alice")), identity)
        authorizer.removeIdentity("alice")
        self.assertEqual(authorizer.identities, {})

    def test_errorsAreRaised(self) -> None:
        """Without I/O, errors are raised at once."""
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        authorizer.addIdentity(authorizer.createIdentity("alice"))
        with self.assertRaises(KeyError):
            authorizer.addIdentity(authorizer.createIdentity("alice"))
        with self.assertRaises(KeyError):
            authorizer.updateIdentity(authorizer.createIdentity("bob"))
        with self.assertRaises(KeyError):
            authorizer.removeIdentity("bob")

    def test_changesCountAtOnce(self) -> None:
        """Nothing needs to be saved for a change to count."""
        memory = MemoryServer()
        game = RecordingService("game", memory.services, memory.authorizer)
        alice = memory.addUser("alice", "secret", ("game", "alice"))
        for change in (
            lambda: alice.setPassword("other"),
            lambda: alice.setPassword(None),
            lambda: setattr(alice, "locked", True),
            lambda: alice.removeKey("game", "alice"),
        ):
            alice.setPassword("secret")
            alice.locked = False
            alice.addKeyByString("game", "alice")
            self.successResultOf(memory.logIn("alice", "secret", "game"))
            change()
            self.assertEqual(game.kinds()[-2:], ["attached", "detached"])

    def test_updateByAnother(self) -> None:
        """An identity of the same name takes the place of the stored one."""
        memory = MemoryServer()
        game = RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        self.successResultOf(memory.logIn("alice", "secret", "game"))
        other = memory.authorizer.createIdentity("alice")
        memory.authorizer.updateIdentity(other)
        self.assertEqual(game.kinds(), ["attached", "detached"])
        self.assertIs(memory.authorizer.identities["alice"], other)

    def test_strangerChangesNothing(self) -> None:
        """An identity of the same name that was not stored ends nobody's session."""
        memory = MemoryServer()
        game = RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        self.successResultOf(memory.logIn("alice", "secret", "game"))
        memory.authorizer.createIdentity("alice").setPassword("other")
        self.assertEqual(game.kinds(), ["attached"])

    def test_collections(self) -> None:
        """A `MultiService` will do, and an `Application`."""
        for collection in (MultiService(), Application("tests")):
            authorizer = DefaultAuthorizer(collection)
            service = Service("game", collection, authorizer)
            self.assertIs(authorizer.getServiceNamed("game"), service)


class OwnAuthorizerTests(SynchronousTestCase):
    """An authorizer of one's own overrides one method."""

    def test_copies(self) -> None:
        """Making another copy of an identity, for another login, ends no session of the first."""

        class FromFile(Authorizer):
            def getIdentityRequest(self, name: str) -> Any:
                identity = self.createIdentity(name)
                identity.setVerifiers(VERIFIERS)
                identity.addKeyByString("game", name)
                identity.locked = False
                return identity

        memory = MemoryServer(FromFile(hashing=Hashing.CHEAPEST))
        memory.authorizer.setServiceCollection(memory.services)
        game = RecordingService("game", memory.services, memory.authorizer)
        for _ in range(2):
            self.successResultOf(memory.logIn("alice", "secret", "game"))
        self.assertEqual(game.kinds(), ["attached", "attached"])
        one, other = memory.authorizer.sessions
        one.identity.removeKey("game", "alice")
        self.assertFalse(one.live)
        self.assertTrue(other.live)

    def test_abstract(self) -> None:
        """The base class says what has to be defined."""
        authorizer = Authorizer(hashing=Hashing.CHEAPEST)
        verifyObject(IAuthorizer, authorizer)
        with self.assertRaises(NotImplementedError):
            authorizer.getIdentityRequest("alice")
        for call in (
            lambda: authorizer.addIdentity(authorizer.createIdentity("alice")),
            lambda: authorizer.updateIdentity(authorizer.createIdentity("alice")),
            lambda: authorizer.removeIdentity("alice"),
        ):
            with self.assertRaises(NotImplementedError):
                call()

    def test_getIdentityRequest(self) -> None:
        """A plain value, a coroutine or a Deferred; made on demand, or refused."""

        async def coroutine(value: Any) -> Any:
            return value

        for wrap in (lambda value: value, coroutine, succeed):
            made: dict[str, Any] = {}

            class OnDemand(Authorizer):
                def getIdentityRequest(
                    self, name: str, wrap: Any = wrap, made: dict[str, Any] = made
                ) -> Any:
                    if name == "mallory":
                        raise Unauthorized()
                    identity = made.setdefault(name, self.createIdentity(name))
                    if not identity.getAllKeys():
                        identity.setPassword("1234")
                        identity.addKeyByString("game", name)
                    return wrap(identity)

            memory = MemoryServer(OnDemand(hashing=Hashing.CHEAPEST))
            memory.authorizer.setServiceCollection(memory.services)
            game = RecordingService("game", memory.services, memory.authorizer)
            self.successResultOf(memory.logIn("anybody", "1234", "game"))
            self.failureResultOf(memory.logIn("mallory", "1234", "game"), Unauthorized)
            made["anybody"].removeKey("game", "anybody")
            self.assertEqual(game.kinds(), ["attached", "detached"])
