"""PLAIN: the message, without a connection."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth import (
    ICredentials,
    InvalidPassword,
    MechanismNotSupported,
    PlainPassword,
    ServerNotTrusted,
)
from pbauth.errors import ExchangeRefused
from pbauth.interfaces import IClientExchange
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.plain import makeMessage, maySend, readMessage

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


class MessageTests(SynchronousTestCase):
    """RFC 4616, section 2."""

    def test_example(self) -> None:
        """The message of the RFC's example (section 4), without and with an identity to act as."""
        self.assertEqual(makeMessage("tim", "tanstaaftanstaaf"), b"\0tim\0tanstaaftanstaaf")
        self.assertEqual(readMessage(b"tim\0tim\0secret", "tim"), "secret")

    @given(
        NAMES,
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=200,
        ),
    )
    def test_roundTrip(self, name: str, password: str) -> None:
        """What the client makes, the server reads, whatever the script."""
        self.assertEqual(readMessage(makeMessage(name, password), name), password)

    @given(st.binary() | st.text() | st.none() | st.integers())
    def test_anything(self, message: Any) -> None:
        """Whatever is sent is read, or refused, and nothing of it is in the refusal."""
        try:
            self.assertTrue(readMessage(message, "tim"))
        except ExchangeRefused as refusal:
            self.assertIsNone(refusal.__cause__)
            self.assertIn(
                str(refusal),
                {
                    "the message is not bytes, or too long",
                    "malformed message",
                    "the message is for another name than the login",
                    "acting as somebody else is not supported",
                },
            )

    def test_refused(self) -> None:
        """Messages that are not for this login."""
        for message in (
            *(b"", b"\0tim\0", b"\0\0secret", b"tim\0secret", b"\0tim\0se\0cret", b"\0bob\0secret"),
            *(b"bob\0tim\0secret", b"\0tim\0\xff", b"\0tim\0" + b"x" * 2048, "\0tim\0secret"),
        ):
            with self.assertRaises(ExchangeRefused):
                readMessage(message, "tim")  # type: ignore[arg-type]

    def test_offered(self) -> None:
        """Over TLS and UNIX sockets only; not even on loopback without."""
        self.assertTrue(maySend(Channel(secure=True)))
        self.assertTrue(maySend(Channel(unix=True, local=True)))
        self.assertFalse(maySend(Channel(local=True)))


class PlainPasswordTests(SynchronousTestCase):
    """What a client logs in with."""

    def test_credentials(self) -> None:
        """It is sent where nobody can read it, and shown nowhere."""
        password = PlainPassword("secret")
        verifyObject(ICredentials, password)
        self.assertNotIn("secret", repr(password))
        exchange = password.begin("PLAIN", "alice", Channel(secure=True))
        verifyObject(IClientExchange, exchange)
        self.assertNotIn("secret", repr(exchange))
        self.assertEqual(exchange.initial, b"\0alice\0secret")
        self.assertEqual(exchange.respond(b""), b"")
        exchange.checkOutcome(b"")
        for check in (exchange.respond, exchange.checkOutcome):
            with self.assertRaises(ServerNotTrusted):
                check(b"more")

    def test_refused(self) -> None:
        """Without TLS nothing is made; another mechanism is none of this."""
        password = PlainPassword("secret")
        for connection in (Channel(), Channel(local=True)):
            with self.assertRaises(ServerNotTrusted):
                password.begin("PLAIN", "alice", connection)
        with self.assertRaises(MechanismNotSupported):
            password.begin("SCRAM-SHA-256", "alice", Channel(secure=True))

    def test_passwords(self) -> None:
        """What can't be a password."""
        for bad in ("", "a\0b", "\ud800", "x" * 1025):
            with self.assertRaises(InvalidPassword):
                PlainPassword(bad)
        with self.assertRaises(TypeError):
            PlainPassword(b"secret")  # type: ignore[arg-type]
