"""What a service manager learns of the server."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbauth.server.notify import Notifier, NotifyService


class NotifierTests(SynchronousTestCase):
    """With a real socket in the place of the service manager's."""

    def listen(self, address: str) -> None:
        """Be the service manager."""
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(address)
        self.manager.settimeout(5)

    def received(self) -> list[str]:
        """One notification."""
        return self.manager.recv(1000).decode().split("\n")

    def test_send(self) -> None:
        """By a path, and in the abstract namespace."""
        path = os.path.abspath(f"/tmp/{os.path.basename(self.mktemp())}-{os.getpid()}")  # noqa: S108
        self.addCleanup(os.unlink, path)
        for address, bound in ((path, path), (f"@pbauth-{os.getpid()}", f"\0pbauth-{os.getpid()}")):
            self.listen(bound)
            Notifier(address).send("READY=1", "STATUS=fine")
            self.assertEqual(self.received(), ["READY=1", "STATUS=fine"])

    def test_nobody(self) -> None:
        """Without a service manager nothing is sent; one that is gone is no reason to stop."""
        Notifier().send("READY=1")
        Notifier("/no/such/socket").send("READY=1")

    def test_environment(self) -> None:
        """It is read once: a child process is not meant."""
        environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "HOME": "/"}
        self.assertEqual(Notifier.fromEnvironment(environment), Notifier("/x", 3.0))
        self.assertEqual(environment, {"HOME": "/"})
        for wrong in ({"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "3", "WATCHDOG_PID": "1"}, {}):
            self.assertEqual(Notifier.fromEnvironment(dict(wrong)), Notifier())


class ServiceTests(SynchronousTestCase):
    """What is sent when."""

    def start(self, watchdog: float | None) -> NotifyService:
        """Start the service, on a reactor that runs."""
        self.sent: list[str] = []
        self.clock: Any = Clock()
        self.clock.callWhenRunning = lambda act: act()
        self.patch(Notifier, "send", lambda notifier, *states: self.sent.extend(states))
        service = NotifyService(self.clock, Notifier("/x", watchdog))
        service.startService()
        return service

    def test_life(self) -> None:
        """Ready, then a sign of life twice in the time of the watchdog, then the end."""
        service = self.start(3.0)
        self.clock.pump([1.5] * 4)
        service.stopService()
        self.clock.advance(100)
        self.assertEqual(self.sent, ["READY=1", *["WATCHDOG=1"] * 5, "STOPPING=1"])

    def test_noWatchdog(self) -> None:
        """Without one there are no signs of life."""
        self.start(None).stopService()
        self.assertEqual(self.sent, ["READY=1", "STOPPING=1"])
