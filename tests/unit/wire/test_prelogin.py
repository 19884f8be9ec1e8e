"""The limits of a connection before its peer has logged in; see also the tests of a login."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbauth.wire.decoding import MalformedMessage
from pbauth.wire.prelogin import PreLoginLimits


class PreLoginLimitsTests(SynchronousTestCase):
    """How many bytes, and which messages."""

    def test_count(self) -> None:
        """So many bytes are permitted in all, and no more."""
        limits = PreLoginLimits(10)
        limits.count(b"x" * 6)
        limits.count(b"x" * 4)
        self.assertFalse(limits.exceeded)
        self.assertRaises(MalformedMessage, limits.count, b"x")
        self.assertTrue(limits.exceeded)

    def test_permit(self) -> None:
        """Calls of objects that there are, and what belongs to them."""
        limits = PreLoginLimits(10)
        known = {b"root": object()}.get
        for items, hasReferences, permitted in (
            ([b"message", 1, b"root", b"username", 1, (), {}], False, True),
            ([b"message", 1, b"root", b"username", 1, (), {}], True, False),
            ([b"message", 1, b"root", b"respond", 1, (), {}], True, True),
            ([b"message", 1, b"root", b"loginAnonymous", 1, (), {}], True, True),
            ([b"message", 1, b"other", b"username", 1, (), {}], False, False),
            ([b"message", 1, b"root"], False, False),
            ([b"message", 1, [b"root"], b"username", 1, (), {}], False, False),
            ([b"version", 6], False, True),
            ([b"decref", 1], False, True),
            ([b"decref", 1], True, False),
            ([b"answer", 1, 2], False, False),
            ([b"cachemessage", 1, b"root", b"x", 1, (), {}], False, False),
            ([5], False, False),
        ):
            self.assertIs(limits.permit(items, hasReferences, known), permitted, items)
