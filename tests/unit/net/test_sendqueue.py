"""What the system still has to send, on sockets of this machine."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbauth.net import sendqueue
from pbauth.net.sendqueue import bytesAcknowledged, bytesQueued


class SendQueueTests(SynchronousTestCase):
    """`bytesQueued` and `bytesAcknowledged`."""

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a TCP connection; the second one takes little before it is read from."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        sending = socket.create_connection(listening.getsockname())
        self.addCleanup(sending.close)
        receiving, _ = listening.accept()
        self.addCleanup(receiving.close)
        sending.setblocking(False)
        return sending, receiving

    def fill(self, sending: socket.socket) -> int:
        """Send until the system takes no more; give how much it took."""
        sent = 0
        try:
            while True:
                sent += sending.send(bytes(65536))
        except BlockingIOError:
            return sent

    def test_queued(self) -> None:
        """What a peer that does not read has not taken waits; what it reads waits no more."""
        sending, receiving = self.connect()
        self.assertEqual(bytesQueued(sending), 0)
        sent = self.fill(sending)
        waiting = bytesQueued(sending)
        self.assertGreater(waiting, 0)
        self.assertLess(waiting, sent)
        read = 0
        while read < sent:
            read += len(receiving.recv(65536))
        self.assertEqual(bytesQueued(sending), 0)

    def test_acknowledged(self) -> None:
        """So many have arrived; with those that wait, they are all that were sent."""
        sending, receiving = self.connect()
        begun = bytesAcknowledged(sending)
        if sys.platform != "linux":
            self.assertIsNone(begun)
            return
        assert begun is not None
        sent = self.fill(sending)
        acknowledged = bytesAcknowledged(sending)
        assert acknowledged is not None
        self.assertEqual(acknowledged - begun + bytesQueued(sending), sent)
        read = 0
        while read < sent:
            read += len(receiving.recv(65536))
        self.assertEqual(bytesAcknowledged(sending), begun + sent)

    def test_otherSockets(self) -> None:
        """Other sockets, and none at all."""
        one, other = socket.socketpair()
        self.assertIsNone(bytesAcknowledged(one))
        self.assertEqual(bytesQueued(one), 0)
        for each in (one, other):
            each.close()
            self.assertEqual(bytesQueued(each), 0)
            self.assertIsNone(bytesAcknowledged(each))
        for nothing in (None, object()):
            self.assertEqual(bytesQueued(nothing), 0)
            self.assertIsNone(bytesAcknowledged(nothing))

    def test_otherSystems(self) -> None:
        """Where the system tells in another way, or less, or nothing."""

        class Told:
            """A socket of which the system tells something."""

            def __init__(self, answers: dict[tuple[int, int], Any]) -> None:
                self.getsockopt = lambda level, option, *size: answers[level, option]

            def fileno(self) -> int:
                raise AssertionError("Not on this system.")

        self.patch(sendqueue, "sys", SimpleNamespace(platform="darwin"))
        self.assertEqual(bytesQueued(Told({(socket.SOL_SOCKET, 0x1024): 7})), 7)
        self.assertIsNone(bytesAcknowledged(Told({})))
        self.patch(sendqueue, "sys", SimpleNamespace(platform="win32"))
        self.patch(sendqueue, "ioctl", None)
        self.assertEqual(bytesQueued(Told({})), 0)
        self.assertIsNone(bytesAcknowledged(Told({})))
        # An older Linux, whose answer ends before that field, and the first one that has it.
        self.patch(sendqueue, "sys", SimpleNamespace(platform="linux"))
        names = {"IPPROTO_TCP": 6, "TCP_INFO": 11}
        self.patch(sendqueue, "socket", SimpleNamespace(**names))
        for answer, acknowledged in ((bytes(127), None), (bytes(120) + b"\5" + bytes(7), 5)):
            told = Told({(6, 11): answer})
            self.assertEqual(bytesAcknowledged(told), acknowledged)
