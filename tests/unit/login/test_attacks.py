"""Attacks on the login: each one was possible, and is shown here as whoever tries it would."""

from __future__ import annotations

import tracemalloc

from twisted.internet.task import Clock

from pbauth import TooManyAttempts, Unauthorized
from pbauth.login.attempts import MOST_UNANSWERED
from pbauth.login.throttle import Throttle
from pbauth.mechanisms import scram
from tests.support.wire import SCRAM, WireTestCase

FIRST = b"n,,n=alice,r=nonce"


class WorkTests(WireTestCase):
    """Much work for the server, for little work of somebody who has no account."""

    def test_longName(self) -> None:
        """A name that is too long for any identity is refused before anybody looks at it."""
        looked: list[str] = []
        self.patch(scram, "saslprep", looked.append)
        self.memory.authorizer.getIdentityRequest = looked.append
        self.memory.authorizer.getDecoyVerifier = lambda name, mechanism: looked.append(name)
        root = self.root()
        for name in ("\u0130" * 4000, "x" * 256, "\u0130" * 128):
            error = self.refusal(root, "username", name, SCRAM, b"n,,n=x,r=nonce")
            self.assertEqual((type(error), str(error)), (Unauthorized, str(Unauthorized())))
        self.assertEqual(looked, [])

    def test_longestName(self) -> None:
        """A name of 255 bytes is an identity's like any other."""
        name = "\u0130" * 127 + "x"
        self.memory.addUser(name, "secret", ("game", "alice"))
        self.successResultOf(self.memory.logIn(name, "secret", "game", "alice"))

    def test_longNamesAreNotKept(self) -> None:
        """What the throttle keeps of a name does not depend on the length of the name."""
        throttle = Throttle(Clock().seconds, 1000)
        tracemalloc.start()
        for number in range(1000):
            throttle.failed("203.0.113.1", f"{number}" + "x" * 8000)
            throttle.succeeded("203.0.113.1", f"{number}" + "x" * 8000)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(kept, 1_000_000)

    def beginAndGo(self, challenges: int) -> None:
        """Ask for challenges, answer none of them, and close the connection."""
        root = self.root()
        for _ in range(challenges):
            self.answer(root, "username", "alice", SCRAM, FIRST)
        self.memory.disconnect(root)

    def test_unanswered(self) -> None:
        """Who asks for challenges and never answers them has to wait after a few connections."""
        for _ in range(3):
            self.beginAndGo(1)
        self.assertIsInstance(
            self.refusal(self.root(), "username", "bob", SCRAM, b"n,,n=bob,r=nonce"),
            TooManyAttempts,
        )

    def test_tooManyUnanswered(self) -> None:
        """So does who asks for so many that the connection is dropped."""
        for _ in range(3):
            root = self.root()
            for _ in range(MOST_UNANSWERED):
                self.answer(root, "username", "alice", SCRAM, FIRST)
            self.ask(root, "username", "alice", SCRAM, FIRST).addErrback(lambda _: None)
        self.assertIsInstance(
            self.refusal(self.root(), "username", "bob", SCRAM, b"n,,n=bob,r=nonce"),
            TooManyAttempts,
        )

    def test_answeredIsFree(self) -> None:
        """Who logs in and goes, however often, never has to wait."""
        for _ in range(20):
            perspective = self.successResultOf(self.login())
            self.memory.disconnect(perspective)
        self.successResultOf(self.login())
