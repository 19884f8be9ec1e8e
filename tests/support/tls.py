"""What tests of TLS share: servers on loopback, and a man in the middle."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.spread import pb
from twisted.trial.unittest import TestCase

from pbauth import (
    AuthRoot,
    AuthServerFactory,
    DefaultAuthorizer,
    Hashing,
    MechanismNotSupported,
    Policy,
    connect,
)
from pbauth.net.certificates import makeCertificate
from pbauth.net.fingerprints import fingerprintOf
from pbauth.testing import MemoryServer, RecordingService

PLUS = "SCRAM-SHA-256-PLUS"


class TLSTestCase(TestCase):
    """Servers on loopback, over TLS."""

    def listen(self, factory: Any, pem: bytes, minimum: Any = None) -> int:
        """Listen over TLS on a free port."""
        from twisted.internet import reactor

        certificate = ssl.PrivateCertificate.loadPEM(pem)
        options = certificate.options()
        if minimum is not None:
            options = ssl.CertificateOptions(
                privateKey=certificate.privateKey.original,
                certificate=certificate.original,
                lowerMaximumSecurityTo=minimum,
            )
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def serve(self, policy: Policy | None = None, stock: bool = False, **options: Any) -> int:
        """Run a server with alice."""
        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing.CHEAPEST))
        self.authorizer = memory.authorizer
        self.authorizer.setServiceCollection(memory.services)
        self.game = RecordingService("game", memory.services, self.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        self.pem = makeCertificate()
        self.pin = fingerprintOf(x509.load_pem_x509_certificate(self.pem))
        factory = (
            pb.PBServerFactory(AuthRoot(self.authorizer, policy))
            if stock
            else AuthServerFactory(self.authorizer, policy)
        )
        return self.listen(factory, self.pem, **options)

    def attempt(self, port: int, password: str = "secret", **options: Any) -> Any:
        """Log alice in."""
        where = f"tls:{options.pop('host', 'localhost')}:{port}{options.pop('more', '')}"
        return connect(where, None, "alice", password, "game", **options)

    async def works(self, perspective: Any) -> str:
        """Use a perspective, hang up, and give the mechanism of its login."""
        (session,) = self.authorizer.sessions
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        await self.hangUp(perspective)
        mechanism: str = session.mechanism
        return mechanism

    async def hangUp(self, reference: Any) -> None:
        """Close a connection."""
        reference.broker.transport.loseConnection()
        await reference.broker.whenClosed()
        while len(self.authorizer.sessions):
            await self.turn()

    async def turn(self) -> None:
        """Let the reactor run once."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0, lambda: None)


class Relay(pb.Root):
    """
    A man in the middle, whose certificate the client accepts, and who passes everything on.

    Args:
        server: a reference to the real root.
        offered: what it says is offered; `None`: the truth.
    """

    def __init__(self, server: Any, offered: list[str] | None = None) -> None:
        self.server = server
        self.offered = offered
        self.won = False

    def remote_username(self, name: str, mechanism: str, initial: bytes) -> Any:
        if self.offered is not None and mechanism not in self.offered:
            raise MechanismNotSupported(self.offered)
        return self.passOn(self.server, "username", name, mechanism, initial)

    async def pass_(self, reference: Any, *call: Any) -> Any:
        first, second = await reference.callRemote(*call)
        return first, RelayedChallenger(self, second)

    def passOn(self, reference: Any, *call: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.pass_(reference, *call))


class RelayedChallenger(pb.Referenceable):
    """Passes the response on; if that is accepted, the relay has a session of alice."""

    def __init__(self, relay: Relay, challenger: Any) -> None:
        self.relay = relay
        self.challenger = challenger

    def remote_respond(self, response: bytes, *attach: Any) -> Any:
        answer = self.challenger.callRemote("respond", response)

        def won(result: Any) -> Any:
            self.relay.won = True
            return result[0], self, self

        return answer.addCallback(won)


PIN = "SHA256:" + "A" * 43 + "="


def pinOf(pem: bytes) -> str:
    """The fingerprint of the certificate in a PEM file."""
    return fingerprintOf(x509.load_pem_x509_certificate(pem))
