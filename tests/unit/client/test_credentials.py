"""What a client proves itself with."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pbauth import ICredentials, InvalidPassword, MechanismNotSupported, Password
from pbauth.interfaces import IClientExchange
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.scram import ScramServer, ScramVerifier

SALT = b"0123456789abcdef"


class PasswordTests(SynchronousTestCase):
    """A password that shows nothing."""

    def test_interfaces(self) -> None:
        """It provides `ICredentials`, and its exchange `IClientExchange`."""
        password = Password("secret")
        verifyObject(ICredentials, password)
        verifyObject(IClientExchange, password.begin("SCRAM-SHA-256", "alice", Channel(local=True)))

    def test_bad(self) -> None:
        """What is no password is refused at once."""
        with self.assertRaises(TypeError):
            Password(b"secret")
        for bad in ("", "\x07"):
            with self.assertRaises(InvalidPassword):
                Password(bad)

    def test_hidden(self) -> None:
        """Its `repr` shows nothing, before and after a derivation."""
        password = Password("secret")
        self.successResultOf(password.keysFor(SALT, 4096))
        self.assertEqual(repr(password), "<Password, not shown>")

    def test_mechanisms(self) -> None:
        """It does nothing that a password is not for."""
        with self.assertRaises(MechanismNotSupported):
            Password("secret").begin("PLAIN", "alice", Channel())

    def test_exchange(self) -> None:
        """Its exchange logs in to a server that has the verifier; each has its own nonce."""
        password = Password("secret")
        verifier = ScramVerifier.fromPassword("secret", SALT, 4096)
        initials = set()
        for _ in range(2):
            exchange = password.begin("SCRAM-SHA-256", "alice", Channel())
            initials.add(exchange.initial)
            server = ScramServer("alice", verifier, "server")
            responding = exchange.respond(server.challenge(exchange.initial))
            response = self.successResultOf(Deferred.fromCoroutine(responding))
            exchange.checkOutcome(server.outcome(response))
        self.assertEqual(len(initials), 2)


class RememberingTests(TestCase):
    """A client that keeps the object derives once."""

    async def test_remembers(self) -> None:
        """The same salt and count take no time again; others do."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0, lambda: None)
        password = Password("secret")
        first = password.keysFor(SALT, 100_000)
        self.assertNoResult(first)
        keys = await first
        self.assertIs(self.successResultOf(password.keysFor(SALT, 100_000)), keys)
        for other in ((SALT[::-1], 100_000), (SALT, 100_001)):
            slow = password.keysFor(*other)
            self.assertNoResult(slow)
            self.assertNotEqual(await slow, keys)
