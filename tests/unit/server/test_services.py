"""The services of a server, with a reactor in memory."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.logger import Logger, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pbauth.net.listening import NotProtected, Port
from pbauth.server.services import (
    AuditService,
    EarlyService,
    HealthService,
    MetricsService,
    ObserverService,
    PortService,
    ReloadService,
    Stop,
    StoreService,
)

HERE = IPv4Address("TCP", "127.0.0.1", 8787)
EVERYWHERE = IPv4Address("TCP", "0.0.0.0", 8787)  # noqa: S104


class Listening:
    """An endpoint, and the port that listens on it, or the error why none does."""

    def __init__(self, address: Any = HERE, error: Exception | None = None) -> None:
        self.address = address
        self.error = error
        self.stopped = 0

    def listen(self, factory: Any) -> Deferred[Any]:
        """Listen, or don't."""
        if self.error is not None:
            raise self.error
        return succeed(self)

    def getHost(self) -> Any:
        """Say where."""
        return self.address

    def stopListening(self) -> None:
        """Do that."""
        self.stopped += 1


class LogTestCase(SynchronousTestCase):
    """Collects what is logged."""

    def setUp(self) -> None:
        self.lines: list[str] = []

        def collect(event: Any) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(collect)
        self.addCleanup(globalLogPublisher.removeObserver, collect)


class PortTests(LogTestCase):
    """`PortService`, and its kinds."""

    def serve(
        self,
        listening: Listening,
        fingerprint: str | None = None,
        insecure: bool = False,
        kind: type[PortService] = PortService,
    ) -> PortService:
        """Make a service."""
        return kind(Port("tcp:8787", listening, fingerprint, insecure), Factory())

    def test_says(self) -> None:
        """Where it listens, in words for what it is."""
        for kind, plain, protected in (
            (
                PortService,
                "Listening on 127.0.0.1:8787",
                "Listening on 127.0.0.1:8787 over TLS, with the key SHA256:abc",
            ),
            (
                MetricsService,
                "Metrics are at http://127.0.0.1:8787/metrics",
                "Metrics are at https://127.0.0.1:8787/metrics",
            ),
            (
                HealthService,
                "Health checks are at http://127.0.0.1:8787/readyz",
                "Health checks are at https://127.0.0.1:8787/readyz",
            ),
        ):
            for fingerprint, line in ((None, plain), ("SHA256:abc", protected)):
                self.lines.clear()
                service = self.serve(Listening(), fingerprint, kind=kind)
                self.assertFalse(service.listens)
                service.privilegedStartService()
                self.assertEqual(self.lines, [line])
                service.startService()
                self.assertTrue(service.listens)
                service.stopService()
                self.assertFalse(service.listens)

    def test_unix(self) -> None:
        """The path of a socket, whichever bytes it has."""
        for name, said in (("/run/s", "/run/s"), (b"/run/s", "/run/s"), (b"/\xff", "/\ufffd")):
            self.lines.clear()
            self.serve(Listening(UNIXAddress(name))).privilegedStartService()
            self.assertEqual(self.lines, [f"Listening on {said}"])

    def test_reach(self) -> None:
        """How clients on this machine reach it; nothing but the key before it listens."""
        service = self.serve(Listening(EVERYWHERE), "SHA256:abc")
        self.assertEqual(service.reach().fingerprint, "SHA256:abc")
        self.assertNotIn("8787", str(service.reach()))
        service.privilegedStartService()
        self.assertIn("tls:127.0.0.1:8787", str(service.reach()))

    def test_cannot(self) -> None:
        """One line ends the program, which says why, and what to do."""
        taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        for error, reason in (
            (CannotListenError("127.0.0.1", 8787, taken), "Address already in use"),
            (CannotListenError("127.0.0.1", 8787, "no such host."), "no such host"),
            (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
            (OverflowError("bind(): port must be 0-65535."), "bind(): port must be 0-65535"),
        ):
            for kind, option in ((PortService, "--port"), (MetricsService, "--metrics")):
                with self.assertRaises(Stop) as raised:
                    self.serve(Listening(error=error), kind=kind).privilegedStartService()
                self.assertEqual(
                    str(raised.exception),
                    f"pbauth: Can't listen on tcp:8787: {reason}. "
                    f"Choose another {option}, or stop the program that uses it.",
                )
        with self.assertRaises(ZeroDivisionError):
            self.serve(Listening(error=ZeroDivisionError())).privilegedStartService()

    def test_notProtected(self) -> None:
        """It stops where it turns out that others can connect without TLS, unless they may."""
        listening = Listening(EVERYWHERE)
        service = self.serve(listening)
        with self.assertRaises(Stop) as raised:
            service.privilegedStartService()
        refusal = str(NotProtected("tcp:8787"))
        self.assertEqual(str(raised.exception), f"pbauth: {refusal}")
        self.assertEqual(self.lines, [refusal])
        self.assertEqual(listening.stopped, 1)
        self.assertFalse(service.listens)
        for fingerprint, insecure in ((None, True), ("SHA256:abc", False)):
            listening = Listening(EVERYWHERE)
            self.serve(listening, fingerprint, insecure).privilegedStartService()
            self.assertEqual(listening.stopped, 0)


class EarlyTests(SynchronousTestCase):
    """`EarlyService`."""

    def test_once(self) -> None:
        """It begins once for each start, in one step or in two."""
        begun = []

        class Service(EarlyService):
            def begin(self) -> None:
                begun.append(self)

        service = Service()
        service.privilegedStartService()
        self.assertEqual(len(begun), 1)
        service.startService()
        self.assertEqual(len(begun), 1)
        service.stopService()
        service.startService()
        self.assertEqual(len(begun), 2)

    def test_nothing(self) -> None:
        """By itself it does nothing."""
        EarlyService().startService()


class File(list[Any]):
    """An audit file: takes events."""

    closed = False

    def __call__(self, event: Any) -> None:
        self.append(formatEvent(event))

    def close(self) -> None:
        """Take no more."""
        self.closed = True


class AtTheEndTests(SynchronousTestCase):
    """What goes on until the reactor has closed the connections."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def shutDown(self) -> None:
        """Do what the reactor does last."""
        for act, arguments, named in self.reactor.triggers["after"]["shutdown"]:
            act(*arguments, **named)

    def test_observes(self) -> None:
        """An observer hears what is logged after the services have stopped, and then no more."""
        for kind in (ObserverService, AuditService):
            self.reactor = MemoryReactor()
            file = File()
            service: Any = kind(self.reactor, file)
            log = Logger()
            log.info("before")
            service.privilegedStartService()
            self.addCleanup(globalLogPublisher.removeObserver, file)
            log.info("while it runs")
            service.startService()
            service.stopService()
            log.info("afterwards")
            self.assertFalse(file.closed)
            self.shutDown()
            log.info("too late")
            self.assertEqual(file, ["while it runs", "afterwards"])
            self.assertEqual(file.closed, kind is AuditService)

    def test_accounts(self) -> None:
        """The accounts are closed when the server stops."""
        file = File()
        service = StoreService(file)
        service.startService()
        self.assertFalse(file.closed)
        service.stopService()
        self.assertTrue(file.closed)


class ReloadTests(SynchronousTestCase):
    """`ReloadService`."""

    if not hasattr(signal, "SIGHUP"):
        skip = "There is no such signal here."

    def setUp(self) -> None:
        self.before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, self.before)
        self.terminal = True
        self.patch(os, "isatty", lambda number: self.terminal)
        self.reactor = MemoryReactor()
        self.soon: list[Any] = []
        self.reactor.callFromThread = self.soon.append
        self.reactor.stop = lambda: self.done.append("stopped")
        self.done: list[str] = []

    def serve(self) -> ReloadService:
        """Start a service."""
        actions = [lambda: self.done.append("read"), lambda: self.done.append("read more")]
        service = ReloadService(self.reactor, actions)
        service.startService()
        return service

    def hangUp(self) -> None:
        """Send the signal, and let the reactor do what it asks for."""
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(self.done, [])
        while self.soon:
            self.soon.pop()()

    def test_reads(self) -> None:
        """All is read again, soon, on a terminal as elsewhere."""
        for self.terminal in (True, False):
            self.serve()
            self.hangUp()
            self.assertEqual(self.done, ["read", "read more"])
            self.done.clear()

    def test_terminalClosed(self) -> None:
        """It is the end of a server whose terminal was closed."""
        self.serve()
        self.terminal = False
        self.hangUp()
        self.assertEqual(self.done, ["stopped"])

    def test_untilTheEnd(self) -> None:
        """The signal means what it meant before, but only once the reactor has stopped."""
        service = self.serve()
        # A second start changes nothing.
        service.privilegedStartService()
        service.stopService()
        service.startService()
        self.hangUp()
        self.assertEqual(self.done, ["read", "read more"])
        for act, arguments, named in self.reactor.triggers["after"]["shutdown"]:
            act(*arguments, **named)
        self.assertEqual(signal.getsignal(signal.SIGHUP), self.before)
        service._end()
        self.assertEqual(signal.getsignal(signal.SIGHUP), self.before)
