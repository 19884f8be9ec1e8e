"""What a service manager learns of the server: systemd's notification protocol, sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()


@frozen
class Notifier:
    """
    Sends notifications.

    Attributes:
        address: of the service manager's socket; `None`: there is no service manager.
        watchdog: seconds within which it expects a sign of life; `None`: it expects none.
    """

    address: str | None = None
    watchdog: float | None = None

    @classmethod
    def fromEnvironment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """
        Read what the service manager has set, and remove it, so that no child process uses it.

        Args:
            environment: such as `os.environ`.
        """
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        isMeant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog = int(microseconds) / 1e6 if microseconds.isdigit() and isMeant else 0.0
        return cls(address or None, watchdog or None)

    def send(self, *states: str) -> None:
        """
        Notify the service manager, if there is one; that it is gone is no reason to stop.

        Args:
            states: such as ``READY=1``.
        """
        if self.address is None:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.setblocking(False)
                sending.sendto("\n".join(states).encode(), address)
        except OSError as error:
            _log.warn("Can't notify the service manager: {error}", error=error)


class NotifyService(Service):
    """
    Notifies the service manager: ready, alive, stopping.

    Args:
        reactor: of the server.
        notifier: sends the notifications.
    """

    def __init__(self, reactor: Any, notifier: Notifier) -> None:
        self._reactor = reactor
        self._notifier = notifier
        self._loop = LoopingCall(notifier.send, "WATCHDOG=1")
        self._loop.clock = reactor

    def startService(self) -> None:
        """Begin once the reactor runs: all ports listen by then."""
        super().startService()
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> None:
        """End."""
        super().stopService()
        self.stopping()
        if self._loop.running:
            self._loop.stop()

    def stopping(self) -> None:
        """Say that the server is about to stop."""
        self._notifier.send("STOPPING=1")

    def _ready(self) -> None:
        if self.running:
            self._notifier.send("READY=1")
            if self._notifier.watchdog is not None:
                self._loop.start(self._notifier.watchdog / 2)
