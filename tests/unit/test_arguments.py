"""Who passes the wrong object is told so by the method that gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    AuthRoot,
    AuthServerFactory,
    DefaultAuthorizer,
    Identity,
    IdentityChecker,
    Perspective,
    Service,
    SQLAuthorizer,
)


class ArgumentTests(SynchronousTestCase):
    """Methods that take an object of the domain."""

    def test_wrongObjects(self) -> None:
        """A `TypeError` names what was wanted, and what was given."""
        authorizer = DefaultAuthorizer(MultiService())
        identity = Identity("alice", authorizer)
        service = Service("game", authorizer=authorizer)
        sql = SQLAuthorizer(self.mktemp())
        self.addCleanup(sql.close)
        methods: list[Callable[[Any], Any]] = [
            Perspective("alice").setIdentity,
            service.addPerspective,
            service.cachePerspective,
            service.uncachePerspective,
            authorizer.addIdentity,
            authorizer.updateIdentity,
            authorizer.endUnauthorized,
            authorizer.sessions.end,
            identity.addKeyForPerspective,
            identity.addPublicKey,
            AuthRoot,
            AuthServerFactory,
            IdentityChecker,
            lambda wrong: sql.addIdentity(wrong),
            lambda wrong: sql.updateIdentity(wrong),
        ]
        for method in methods:
            for wrong in (object(), None, 1, "alice", Identity):
                failure = self.failureResultOf(maybeDeferred(method, wrong), TypeError)
                self.assertRegex(
                    str(failure.value),
                    rf"^An? [a-z ]+ (provides I\w+, which|is) .*{type(wrong).__name__}",
                )
        for wrong in (object(), 1, "alice"):
            self.assertRaises(TypeError, Service, "other", None, wrong)
            self.assertRaises(TypeError, AuthServerFactory, authorizer, wrong)
