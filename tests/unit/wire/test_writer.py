"""The coalescing writer."""

from __future__ import annotations

import gc
from socket import MSG_PEEK
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.testing import StringTransport
from twisted.spread import banana, pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Broker, getObjectAt
from pbauth.net.certificates import makeCertificate
from pbauth.wire.writer import CoalescingWriter, TLSWriter, writerFor
from tests.support.tls import TLSTestCase, pinOf
from tests.support.values import stockBanana


class Socket:
    """
    What a writer uses of a TCP transport.

    Args:
        takes: the most bytes that the system takes at once.
    """

    disconnecting = False
    producer: Any = None

    def __init__(self, takes: int = 1000) -> None:
        self.takes = takes
        self.dataBuffer = b""
        self._tempDataBuffer: list[bytes] = []
        self.sent: list[bytes] = []
        #: Is called between a part that was sent and the rest.
        self.between: Any = None

    def write(self, data: bytes) -> None:
        """Put bytes behind what waits."""
        self._tempDataBuffer.append(data)

    def writeSomeData(self, data: bytes) -> int | Exception:
        """Send as much as the system takes."""
        if self.takes < 0:
            return ConnectionError()
        self.sent.append(data[: self.takes])
        if self.between is not None:
            self.between()
        return min(len(data), self.takes)


class CoalescingWriterTests(SynchronousTestCase):
    """When what is written goes out, and in how many pieces."""

    def write(self, writer: CoalescingWriter, *messages: bytes) -> None:
        """Write messages while the writer holds back."""

        def act(argument: Any) -> None:
            for message in messages:
                writer.write(message)

        writer.hold(act, None)

    def test_outside(self) -> None:
        """A message that nothing holds back is left to the transport."""
        socket = Socket()
        CoalescingWriter(socket).write(b"one")
        self.assertEqual((socket.sent, socket._tempDataBuffer), ([], [b"one"]))

    def test_onePiece(self) -> None:
        """What is written inside of `hold` goes out at once, in one piece."""
        socket = Socket()
        self.write(CoalescingWriter(socket), b"one", b"two")
        self.assertEqual((socket.sent, socket._tempDataBuffer), ([b"onetwo"], []))

    def test_nested(self) -> None:
        """The outermost `hold` counts."""
        socket = Socket()
        writer = CoalescingWriter(socket)

        def act(argument: bytes) -> None:
            writer.write(argument)
            self.write(writer, b"two")
            self.assertEqual(socket.sent, [])

        writer.hold(act, b"one")
        self.assertEqual(socket.sent, [b"onetwo"])

    def test_many(self) -> None:
        """The peer gets the first of many messages while the others are made."""
        socket = Socket()
        self.write(CoalescingWriter(socket), *[b"x"] * 20)
        self.assertEqual(socket.sent, [b"x" * 16, b"x" * 4])

    def test_raises(self) -> None:
        """What was written before an error goes out all the same."""
        socket = Socket()
        writer = CoalescingWriter(socket)

        def act(argument: bytes) -> None:
            writer.write(argument)
            raise LookupError

        self.assertRaises(LookupError, writer.hold, act, b"one")
        self.assertEqual(socket.sent, [b"one"])
        self.write(writer, b"two")
        self.assertEqual(socket.sent, [b"one", b"two"])

    def test_rest(self) -> None:
        """What the system does not take waits in the transport."""
        socket = Socket(takes=4)
        self.write(CoalescingWriter(socket), b"one", b"two")
        self.assertEqual((socket.sent, socket._tempDataBuffer), ([b"onet"], [b"wo"]))

    def test_neverTorn(self) -> None:
        """What is written between a part and its rest queues behind the rest, however much."""
        for count in (1, 100):
            socket = Socket(takes=4)
            writer = CoalescingWriter(socket)

            def writeMany(writer: Any = writer, count: int = count) -> None:
                for _ in range(count):
                    writer.write(b"|")

            socket.between = writeMany
            self.write(writer, b"one", b"two")
            written = b"".join(socket.sent + socket._tempDataBuffer)
            self.assertEqual(written, b"onetwo" + b"|" * count)
            # Later ones are held back no more.
            writer.write(b"three")
            self.assertEqual(socket._tempDataBuffer[-1], b"three")

    def test_collected(self) -> None:
        """So does the note of a reference that is collected there, as garbage."""
        broker: Any = Broker()
        broker.factory = pb.PBClientFactory()
        broker.makeConnection(StringTransport())
        broker.dataReceived(banana.encode([b"pb"]))
        socket = Socket(takes=1000)
        broker._writer = CoalescingWriter(socket)
        # Something that only the collector finds.
        garbage: list[Any] = [pb.RemoteReference(None, broker, 7, 1)]
        garbage.append(garbage)
        self.addCleanup(gc.enable)
        gc.disable()
        del garbage
        socket.between = gc.collect
        broker._writer.hold(lambda text: broker.sendCall(b"message", text), bytes(3000))
        got: list[Any] = []
        reader = stockBanana()
        reader.expressionReceived = got.append
        reader.dataReceived(b"".join(socket.sent + socket._tempDataBuffer))
        self.assertEqual(got, [[b"message", bytes(3000)], [b"decref", 7]])

    def test_error(self) -> None:
        """An error of the socket is left to the reactor, which finds it again."""
        socket = Socket(takes=-1)
        self.write(CoalescingWriter(socket), b"one")
        self.assertEqual((socket.sent, socket._tempDataBuffer), ([], [b"one"]))

    def test_order(self) -> None:
        """Nothing overtakes what waits, or a producer, or the end of the connection."""
        for attribute, value in (
            ("dataBuffer", b"zero"),
            ("_tempDataBuffer", [b"zero"]),
            ("disconnecting", True),
            ("producer", object()),
        ):
            socket = Socket()
            setattr(socket, attribute, value)
            self.write(CoalescingWriter(socket), b"one")
            self.assertEqual((socket.sent, socket._tempDataBuffer[-1]), ([], b"one"), attribute)

    def test_otherTransports(self) -> None:
        """Transports that are not sockets of Twisted's have no such writer."""
        self.assertIsNone(writerFor(StringTransport()))


class TLSWriterTests(TLSTestCase):
    """Over TLS."""

    async def hangUp(self, reference: Any) -> None:
        """Close a connection."""
        reference.broker.transport.loseConnection()
        await reference.broker.whenClosed()

    async def test_atOnce(self) -> None:
        """
        What is written inside of `hold` is with the peer's system before the next round of the
        reactor, and in the order in which it was written.
        """
        heard: list[int] = []

        class Ear(pb.Referenceable):
            def remote_hear(self, number: int) -> None:
                heard.append(number)

        class Root(pb.Root):
            async def remote_keep(self, ear: Any) -> None:
                self.ear = ear

        root = Root()
        factory = pb.PBServerFactory(root)
        factory.protocol = Broker  # type: ignore[assignment]
        pem = makeCertificate()
        port = self.listen(factory, pem)
        found = await getObjectAt(f"tls:localhost:{port}", None, trust=pinOf(pem))
        self.addCleanup(self.hangUp, found)
        await found.callRemote("keep", Ear())
        server, client = root.ear.broker, found.broker
        self.assertIsInstance(server._writer, TLSWriter)
        socket = client.transport.transport.socket
        numbers = iter(range(100))
        answers = [root.ear.callRemote("hear", next(numbers))]

        def act(count: int) -> None:
            answers.extend(root.ear.callRemote("hear", next(numbers)) for _ in range(count))

        with self.assertRaises(BlockingIOError):
            socket.recv(1, MSG_PEEK)
        for count in (1, 2, 30):
            server._writer.hold(act, count)
            self.assertTrue(socket.recv(1, MSG_PEEK))
        await gatherResults(answers)
        self.assertEqual(heard, [*range(34)])
