"""What a server that ``twistd`` runs is made of: services of Twisted, each for one thing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.logger import Logger, globalLogPublisher

from pbauth.audit.file import AuditFile
from pbauth.net.listening import NotProtected, Port
from pbauth.server.firstrun import Reach, reachOf
from pbauth.wire.twistedprivate import listening, raiseAtOnce

_log = Logger()


class Stop(SystemExit, Exception):
    """
    The program ends, with one line that says why.

    As an `Exception` it is caught by a ``twistd`` that has gone to the background, which passes the
    line on to the process in the foreground, where somebody waits for it.
    """

    # That line is cut after some hundred characters, and begins with the name of this class.
    __module__ = "builtins"


def stop(message: str) -> NoReturn:
    """End the program, with one line that says why."""
    # A usage.UsageError would bury the line under a screenful of twistd's own help.
    raise Stop(f"pbauth: {message}")


class PortService(StreamServerEndpointService):
    """
    Listens on one port, says so, and ends the program with one line if it can't.

    Args:
        port: where.
        factory: for the connections.
    """

    #: The option that says where.
    option = "--port"

    def __init__(self, port: Port, factory: Any) -> None:
        super().__init__(port.endpoint, factory)
        raiseAtOnce(self)
        self._port = port
        self._refusal: NotProtected | None = None
        self._address: Any = None

    def privilegedStartService(self) -> None:
        """Listen."""
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError, OverflowError) as error:
            # The last one is for a port that can't be one.
            reason = getattr(error, "socketError", error)
            message = (
                f"Can't listen on {self._port.description}: "
                f"{getattr(reason, 'strerror', None) or str(reason).rstrip('.')}. "
                f"Choose another {self.option}, or stop the program that uses it."
            )
            stop(message)
        listening(self).addCallback(self._listening)
        if self._refusal is not None:
            stop(str(self._refusal))

    def _listening(self, port: Any) -> Any:
        address = port.getHost()
        try:
            self._port.check(address)
        except NotProtected as refusal:
            _log.critical("{refusal}", refusal=refusal)
            self._refusal = refusal
            port.stopListening()
            return port
        self._address = address
        where = getattr(address, "name", None) or f"{address.host}:{address.port}"
        if isinstance(where, bytes):
            where = where.decode("utf-8", "replace")
        self.say(where, self._port.fingerprint)
        return port

    @property
    def listens(self) -> bool:
        """Return whether the port listens."""
        return bool(self.running) and self._address is not None

    def reach(self) -> Reach:
        """Return how a client on this machine reaches this port."""
        return reachOf(self._address, self._port.fingerprint)

    def say(self, where: str, fingerprint: str | None) -> None:
        """
        Say that it listens.

        Args:
            where: the address.
            fingerprint: of the server's key, if it speaks TLS.
        """
        if fingerprint is None:
            _log.info("Listening on {where}", where=where)
        else:
            _log.info(
                "Listening on {where} over TLS, with the key {fingerprint}",
                where=where,
                fingerprint=fingerprint,
            )


class MetricsService(PortService):
    """As `PortService`, for the metrics."""

    option = "--metrics"

    def say(self, where: str, fingerprint: str | None) -> None:
        """Say where they are."""
        scheme = "http" if fingerprint is None else "https"
        _log.info("Metrics are at {scheme}://{where}/metrics", scheme=scheme, where=where)


class HealthService(PortService):
    """As `PortService`, for the pages on health."""

    option = "--health"

    def say(self, where: str, fingerprint: str | None) -> None:
        """Say where they are."""
        scheme = "http" if fingerprint is None else "https"
        _log.info("Health checks are at {scheme}://{where}/readyz", scheme=scheme, where=where)


class EarlyService(Service):
    """
    Begins before anybody listens. ``twistd`` starts services in two steps, the first with its
    privileges; ``twist`` starts them in one.
    """

    _begun = False

    def privilegedStartService(self) -> None:
        """Begin."""
        super().privilegedStartService()
        self._beginOnce()

    def startService(self) -> None:
        """Begin, unless that was done."""
        super().startService()
        self._beginOnce()

    def stopService(self) -> Any:
        """End; another start begins again."""
        self._begun = False
        return super().stopService()

    def begin(self) -> None:
        """Do what there is to be done at the start."""

    def _beginOnce(self) -> None:
        if not self._begun:
            self._begun = True
            self.begin()


class ObserverService(EarlyService):
    """
    Lets somebody observe the log while the server runs, and until all connections are closed.

    Args:
        reactor: of the server.
        observer: an `ILogObserver`.
    """

    def __init__(self, reactor: Any, observer: Any) -> None:
        self._reactor = reactor
        self._observer = observer

    def begin(self) -> None:
        """Begin to observe."""
        globalLogPublisher.addObserver(self._observer)

    def stopService(self) -> None:
        """
        End, once nothing can happen any more: the reactor closes the connections after it has
        stopped the services, and their sessions are recorded as detached.
        """
        super().stopService()
        self._reactor.addSystemEventTrigger("after", "shutdown", self.end)

    def end(self) -> None:
        """End it now."""
        globalLogPublisher.removeObserver(self._observer)


class AuditService(ObserverService):
    """
    Write the audit log.

    Args:
        reactor: of the server.
        file: to write to.
    """

    def __init__(self, reactor: Any, file: AuditFile) -> None:
        super().__init__(reactor, file)
        self._file = file

    def end(self) -> None:
        """Close the file."""
        super().end()
        self._file.close()


class ReloadService(EarlyService):
    """
    Read files again on SIGHUP, by which a server is asked for that, and which would end it.

    Args:
        reactor: of the server.
        actions: what to do.
    """

    def __init__(self, reactor: Any, actions: Iterable[Callable[[], object]]) -> None:
        self._reactor = reactor
        self._actions = list(actions)
        self._before: Any = None
        self._onTerminal = os.isatty(0)

    def begin(self) -> None:
        """Begin to listen for the signal."""
        if self._before is None:
            self._before = signal.signal(signal.SIGHUP, self._hungUp)

    def stopService(self) -> None:
        """Listen until the reactor has stopped."""
        super().stopService()
        self._reactor.addSystemEventTrigger("after", "shutdown", self._end)

    def _end(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None

    def _hungUp(self, number: int, frame: Any) -> None:
        # A signal comes in the middle of anything, a line that is being written for instance.
        self._reactor.callFromThread(self._reload)

    def _reload(self) -> None:
        if self._onTerminal and not os.isatty(0):
            # It means what it says: the terminal was closed that the server was started from.
            self._reactor.stop()
            return
        for action in self._actions:
            action()


class StoreService(Service):
    """
    Closes the accounts when the server stops.

    Args:
        authorizer: has them open.
    """

    def __init__(self, authorizer: Any) -> None:
        self._authorizer = authorizer

    def stopService(self) -> None:
        """Close them."""
        super().stopService()
        self._authorizer.close()
