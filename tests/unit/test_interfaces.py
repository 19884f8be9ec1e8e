"""The interfaces are all that the wire needs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from twisted.internet.defer import maybeDeferred
from zope.interface import Interface
from zope.interface.verify import verifyObject

import pbauth
from pbauth import (
    Authorizer,
    DefaultAuthorizer,
    Detached,
    Hashing,
    IAuthorizer,
    Identity,
    IIdentity,
    IPerspective,
    IService,
    KeyNotFound,
    Perspective,
    Service,
)
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.testing import MemoryServer, RecordingService
from tests.support.interfaces import (
    OnlyAuthorizer,
    OnlyPerspective,
    OnlyService,
    only,
)
from tests.support.wire import WireTestCase


class VerifyTests(WireTestCase):
    """Each default class provides its interface."""

    def test_defaults(self) -> None:
        """`verifyObject` finds nothing missing."""
        authorizer = DefaultAuthorizer()
        for interface, provider in [
            (IAuthorizer, authorizer),
            (IAuthorizer, Authorizer()),
            (IIdentity, Identity("alice", authorizer)),
            (IService, Service("game")),
            (IPerspective, Perspective("black")),
        ]:
            verifyObject(interface, provider)

    def test_exports(self) -> None:
        """What the package exports is there, and what is there is exported."""
        there = {
            name
            for name, value in vars(pbauth).items()
            if not name.startswith("_") and not isinstance(value, ModuleType)
        }
        self.assertEqual(set(pbauth.__all__), there)
        self.assertEqual(len(pbauth.__all__), len(there))


class GameService(RecordingService):
    """Gives perspectives that are nothing but the interface."""

    async def getPerspectiveForIdentity(self, name: str, identity: Any) -> Any:
        return OnlyPerspective(
            await maybeDeferred(super().getPerspectiveForIdentity, name, identity)
        )


class InterfaceOnlyTests(WireTestCase):
    """Classes of an application that only provide the interfaces work everywhere."""

    def serve(self, *policy: Any, **options: Any) -> None:
        original = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.memory = MemoryServer(OnlyAuthorizer(original))
        self.game = GameService("game", None, original)

        class Services:
            def getServiceNamed(_, name: str) -> Any:
                if name != "game":
                    raise KeyError(name)
                return OnlyService(self.game)

        original._services = Services()
        self.original = original
        self.alice = original.createIdentity("alice")
        self.alice.setPassword("secret")
        self.alice.addKeyByString("game", "alice")
        self.alice.addKeyByString("game", "shared")
        self.alice.save()

    def test_everything(self) -> None:
        """Log in, attach, call, list keys, change the password, detach, be revoked, hang up."""
        identity = self.identity()
        self.assertEqual(self.answer(identity, "keys"), [("game", "alice"), ("game", "shared")])
        own = self.answer(identity, "attach", "game", None, None)
        self.assertEqual(self.answer(own, "whoami"), "alice")
        shared = self.answer(identity, "attach", "game", "shared", None)
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 4096)
        self.answer(identity, "changePassword", verifier.encode())
        self.answer(identity, "detach", own)
        self.assertIsInstance(self.refusal(own, "whoami"), Detached)
        self.assertEqual(self.answer(shared, "whoami"), "shared")
        self.alice.removeKey("game", "shared")
        self.assertIsInstance(self.refusal(shared, "whoami"), Detached)
        last = self.successResultOf(self.login("alice", "changed", "game"))
        self.memory.disconnect(last)
        self.assertEqual(self.game.kinds().count("attached"), 3)
        self.assertEqual(self.game.kinds().count("detached"), 3)
        self.assertIsInstance(self.refusal(identity, "attach", "chat", "x", None), KeyNotFound)
        self.assertEqual(self.game.perspectives, {})
        self.assertEqual(self.flushLoggedErrors(), [])


class NoInterface(Interface):
    """Declares nothing: to see that the rig itself can fail."""


class RigTests(WireTestCase):
    """The rig of these tests."""

    def test_hides(self) -> None:
        """What an interface does not declare can't be reached."""
        with self.assertRaises(AttributeError):
            only(NoInterface)(self.alice).name  # noqa: B018
