"""The end of a server that clients do not notice: it lets go of them before it stops."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from pbauth.login.drain import Drain
from pbauth.server.services import PortService

_log = Logger()

#: Seconds that calls under way have to end, unless the settings say something else.
DRAIN_TIME = 30.0


class DrainService(Service):
    """
    Drains the server on SIGTERM or on request, and stops it then; another SIGTERM stops it at once.

    Args:
        reactor: of the server.
        drain: lets go of the clients.
        seconds: how long that may take; 0: the server stops at once.
        beginning: called when it begins.

    Attributes:
        ports: the services that listen, which stop first.
    """

    def __init__(
        self,
        reactor: Any,
        drain: Drain,
        seconds: float = DRAIN_TIME,
        beginning: Callable[[], object] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._beginning = beginning
        self._drain = drain
        self._seconds = seconds
        self._before: Any = None
        self.ports: Sequence[PortService] = ()

    @property
    def draining(self) -> bool:
        """Return whether it has begun."""
        return self._drain.begun

    def startService(self) -> None:
        """Wait for the signal, from the time on when the reactor has installed its own handlers."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> None:
        """Stop handling signals."""
        super().stopService()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def begin(self) -> None:
        """Drain the server, and stop it; called once more, stop it at once."""
        if self._drain.begun:
            self._drain.hurry()
            return
        _log.info(
            "Draining: no more connections are taken, and those that are open are closed within "
            "{seconds:g} s",
            seconds=self._seconds,
        )
        # Before the ports are closed, so that whoever asks is told.
        self._drain.begun = True
        self._beginning()
        stopped = DeferredList([maybeDeferred(port.stopService) for port in self.ports])
        stopped.addCallback(lambda _: self._drain.run(self._seconds))
        stopped.addErrback(lambda bug: _log.failure("The server can't be drained", bug))
        stopped.addCallback(lambda _: self._stop())

    def _stop(self) -> None:
        # Ctrl-C may have stopped it meanwhile.
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def request(self) -> float:
        """
        Begin soon, once whoever asks for it has an answer; asked again, do nothing.

        Returns:
            The seconds that it takes at most.
        """
        self._reactor.callLater(0, lambda: None if self._drain.begun else self.begin())
        return self._seconds

    def _install(self) -> None:
        if self.running and self._seconds:
            self._before = signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, number: int, frame: Any) -> None:
        # A signal comes in the middle of anything.
        self._reactor.callFromThread(self.begin)
