"""What `pbauth` says when a connection is not what it should be: one line of words."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from pbauth import AuthServerFactory
from pbauth.testing import RecordingPerspective
from tests.support.processes import PBAUTH, Program, run
from tests.support.tls import TLSTestCase


class Closing(Protocol):
    """Closes a connection when something comes."""

    def dataReceived(self, data: bytes) -> None:
        """Close it."""
        self.transport.loseConnection()  # type: ignore[union-attr]


class Talking(Closing):
    """Answers in another protocol."""

    def dataReceived(self, data: bytes) -> None:
        """Answer as a web server does."""
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[union-attr]


class WordsTests(TLSTestCase):
    """Each kind of connection that fails."""

    async def serveOther(self, protocol: Any) -> int:
        """Run a server of another kind."""
        from twisted.internet import reactor

        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(Factory.forProtocol(protocol))
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def call(self, where: str, *method: str) -> str:
        """Call a method by the command, which fails, and give what it says."""
        program: Program = await run(
            *(*PBAUTH, "call", "--password-stdin", "--timeout", "5", *method[:-1]),
            *(where, "alice", "game", method[-1]),
            stdin="secret\n",
        )
        self.assertEqual(program.exitCode, 1, program.output)
        self.assertRegex(program.output, r"^Error: [^\n]*\n$")
        self.assertNotIn("Failure", program.output)
        return program.output

    async def test_lost(self) -> None:
        """The server is gone in the middle of a call."""
        self.serve()
        brokers = []
        factory = AuthServerFactory(self.authorizer)
        build = factory.buildProtocol

        def buildProtocol(address: Any) -> Any:
            brokers.append(build(address))
            return brokers[-1]

        class Leaving(RecordingPerspective):
            def perspective_leave(self) -> Any:
                brokers[-1].transport.abortConnection()
                return Deferred()

        self.patch(factory, "buildProtocol", buildProtocol)
        self.game.perspectiveClass = Leaving
        port = self.listen(factory, self.pem)
        said = await self.call(f"tls:localhost:{port}", "--trust", self.pin, "leave")
        self.assertIn("was lost before the server answered", said)

    async def test_plainToTLS(self) -> None:
        """Plain TCP to a port that speaks TLS."""
        said = await self.call(f"tcp:127.0.0.1:{self.serve()}", "whoami")
        self.assertIn("Does it speak TLS? Then use tls:", said)

    async def test_TLSToPlain(self) -> None:
        """TLS to a port that speaks plain TCP, and to one of the web."""
        self.serve()
        from twisted.internet import reactor

        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        plain = await endpoint.listen(AuthServerFactory(self.authorizer))
        self.addCleanup(plain.stopListening)
        for port in (plain.getHost().port, await self.serveOther(Talking)):
            said = await self.call(f"tls:127.0.0.1:{port}", "--trust", self.pin, "whoami")
            # What the server has sent may be lost with the connection that it closes.
            self.assertRegex(said, r"does not answer in TLS|Does it speak plain TCP\?")

    async def test_closed(self) -> None:
        """A server that hangs up."""
        self.serve()
        port = await self.serveOther(Closing)
        said = await self.call(f"tls:127.0.0.1:{port}", "--trust", self.pin, "whoami")
        self.assertIn("the server closed it before it sent its greeting.", said)
        self.assertIn("use tcp: in place of tls:. Is the server running there?", said)
