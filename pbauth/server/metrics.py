"""
Metrics of a server, for Prometheus; needs the extra ``metrics`` (the package prometheus-client).

What happens is counted from the events of `pbauth.audit`; what is, is looked up when somebody
asks.  There are as many series as the configuration has services, mechanisms and limits, whatever
clients say: no name that a client chose is ever a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from twisted.internet.protocol import connectionDone
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from pbauth import __version__
from pbauth._async import SingleFlight, settled
from pbauth.audit import events
from pbauth.audit.events import DropReason
from pbauth.interfaces import IAuthorizer, IChangesService
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.policy import Policy
from pbauth.login.root import AuthServerFactory
from pbauth.mechanisms import MECHANISMS
from pbauth.net.servercertificate import ServerCertificate
from pbauth.perspectives.sessions import EndReason, Session
from pbauth.server.health import ACCOUNTS, Readiness, addPages
from pbauth.wire.broker import Broker

#: Upper ends of the buckets of the duration of a login, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: Accounts that expire in this time are counted.
SOON = timedelta(days=14)

_log = Logger()

#: Whatever is none of those that a label may be.
OTHER = "other"

_OUTCOMES = {
    events.LOGIN_ACCEPTED.name: "accepted",
    events.LOGIN_REFUSED.name: "refused",
    events.LOGIN_THROTTLED.name: "throttled",
    events.MECHANISM_REFUSED.name: "not offered",
}
# Those of `IdentityChecker` are no mechanisms of Perspective Broker.
_MECHANISMS = frozenset({*(each.name for each in MECHANISMS), "password", "ssh key"})
_LIMITS = {reason.value: reason.name.lower() for reason in DropReason}
_AFTER_LOGIN = ("maxSessions", "maxCallsPerSecond", "maxCallsAtOnce", "maxMessageBytes")
_ENDS = {reason.value: reason.name.lower() for reason in EndReason}


class Traffic:
    """
    What went over the connections of a server.

    Attributes:
        connections: how many there were.
        open: how many there are.
        received: bytes of Perspective Broker that came in; TLS is not counted.
        sent: bytes that went out.
    """

    __slots__ = ("connections", "open", "received", "sent")

    def __init__(self) -> None:
        self.connections = self.open = self.received = self.sent = 0


class MeteredBroker(Broker):
    """
    A `Broker` that counts.

    Args:
        traffic: where.
    """

    def __init__(self, traffic: Traffic, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._traffic = traffic

    def makeConnection(self, transport: Any) -> None:
        """Count a connection that is made."""
        self._traffic.connections += 1
        self._traffic.open += 1
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Count a connection that is closed."""
        self._traffic.open -= 1
        super().connectionLost(reason)

    def dataReceived(self, chunk: bytes) -> None:
        """Take what the peer sent."""
        self._traffic.received += len(chunk)
        super().dataReceived(chunk)

    def _send(self, data: bytes) -> None:
        self._traffic.sent += len(data)
        super()._send(data)


@implementer(ILogObserver)
class Metrics:
    """
    Observes the log, and gives the metrics.

    Args:
        services: the names of the services that the server runs by option; sessions of others are
            counted together.
        sessions: the sessions of the authorizer.
        changes: notices what other processes change in the accounts.
        certificates: that the server shows, by the descriptions of the ports.
        readiness: of the server; the accounts count as reachable until it has found out.
        countExpiring: counts the accounts that will have expired at a moment, or a Deferred of it.

    Attributes:
        traffic: of all `serverFactory`.
    """

    def __init__(
        self,
        services: Iterable[str],
        sessions: Iterable[Session],
        changes: IChangesService,
        certificates: Mapping[str, ServerCertificate] = MappingProxyType({}),
        readiness: Readiness | None = None,
        countExpiring: Callable[[datetime], Any] | None = None,
    ) -> None:
        self._expiring = float("nan")
        self._countExpiring = countExpiring
        # However often somebody asks, there is one count at a time.
        self._counting: SingleFlight[None] = SingleFlight(self._count)
        self._changes = changes
        self._certificates = certificates
        self._readiness = readiness
        self.traffic = Traffic()
        self._services = tuple(services)
        self._sessions = sessions
        self._logins: Counter[tuple[str, str]] = Counter()
        self._drops: Counter[tuple[str, str]] = Counter()
        self._ends: Counter[str] = Counter()
        self._attached = 0
        self._factories: list[AuthServerFactory] = []
        # One more for those that took longer than all of them.
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._observers: dict[str, Callable[[LogEvent], None]] = {
            **dict.fromkeys(_OUTCOMES, self._login),
            events.SESSION_ATTACHED.name: self._attach,
            events.SESSION_DETACHED.name: self._detach,
            events.CONNECTION_DROPPED.name: self._drop,
        }
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def serverFactory(
        self,
        authorizer: IAuthorizer,
        policy: Policy | None = None,
        reactor: Any = None,
        limits: ConnectionLimits | None = None,
    ) -> AuthServerFactory:
        """
        Return a factory for servers whose connections and traffic are counted.

        Args:
            authorizer: as for `AuthServerFactory`.
            policy: as for `AuthServerFactory`.
            reactor: as for `AuthServerFactory`.
            limits: as for `AuthServerFactory`.
        """
        factory = AuthServerFactory(authorizer, policy, reactor, limits)
        factory.protocol = partial(MeteredBroker, self.traffic)  # type: ignore[assignment]
        self._factories.append(factory)
        return factory

    def __call__(self, event: LogEvent) -> None:
        """Count an event (see `ILogObserver`)."""
        if event.get("log_namespace") == events.NAMESPACE:
            observe = self._observers.get(event.get("event", ""))
            if observe is not None:
                observe(event)

    def _login(self, event: LogEvent) -> None:
        mechanism = event["mechanism"]
        known = mechanism if mechanism in _MECHANISMS else OTHER
        self._logins[_OUTCOMES[event["event"]], known] += 1
        seconds = event.get("seconds")
        if seconds is not None:
            self._buckets[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def _attach(self, event: LogEvent) -> None:
        self._attached += 1

    def _detach(self, event: LogEvent) -> None:
        self._ends[_ENDS.get(event["reason"], OTHER)] += 1

    def _drop(self, event: LogEvent) -> None:
        when = "after login" if event["authenticated"] else "before login"
        self._drops[_LIMITS.get(event["reason"], OTHER), when] += 1

    def collect(self) -> Iterator[Metric]:
        """Return all metrics, those included that are 0 (see `prometheus_client.registry`)."""
        yield _counter(
            "pbauth_logins",
            "Logins, by outcome and mechanism.",
            ("outcome", "mechanism"),
            {
                (outcome, mechanism): self._logins[outcome, mechanism]
                for outcome in _OUTCOMES.values()
                for mechanism in (*sorted(_MECHANISMS), OTHER)
            },
        )
        yield self._durations()
        yield self._live()
        yield _counter("pbauth_sessions_attached", "Sessions that began.", (), {(): self._attached})
        yield _counter(
            "pbauth_sessions_detached",
            "Sessions that ended, by the reason.",
            ("reason",),
            {(reason,): self._ends[reason] for reason in (*_ENDS.values(), OTHER)},
        )
        yield _counter(
            "pbauth_connections_dropped",
            "Connections that were dropped, by the limit that they ran into.",
            ("reason", "when"),
            {
                (reason, when): self._drops[reason, when]
                for reason in (*_LIMITS.values(), OTHER)
                for when in ("before login", "after login")
            },
        )
        # Ports may share them.
        limits = {id(each.limits): each.limits for each in self._factories}
        refused = sum((each.refused for each in limits.values()), Counter[str]())
        yield _counter(
            "pbauth_requests_refused",
            "What clients asked for beyond a limit after their login, by the limit.",
            ("limit",),
            {(limit,): refused[limit] for limit in _AFTER_LOGIN},
        )
        traffic = self.traffic
        yield _counter(
            "pbauth_connections", "Connections that were made.", (), {(): traffic.connections}
        )
        yield GaugeMetricFamily(
            "pbauth_connections_open", "Connections that are open.", traffic.open
        )
        yield _counter(
            "pbauth_received_bytes", "Bytes received, without TLS.", (), {(): traffic.received}
        )
        yield GaugeMetricFamily(
            "pbauth_changes_heard",
            "Whether changes by other processes are heard of at once; 0: later, or not.",
            int(self._changes.hears),
        )
        yield _counter("pbauth_sent_bytes", "Bytes sent, without TLS.", (), {(): traffic.sent})
        yield from self._state()
        if self._countExpiring is not None:
            # For the next time.
            self._counting.run()
        yield GaugeMetricFamily(
            "pbauth_accounts_expiring",
            "Accounts that expire within 14 days, counted when the metrics were shown last.",
            self._expiring,
        )

    async def _count(self) -> None:
        try:
            assert self._countExpiring is not None  # noqa: S101 - see `collect`
            until = datetime.now(timezone.utc) + SOON
            self._expiring = await settled(self._countExpiring(until))
        except Exception as error:
            # The reason is in the log already, where the accounts can't be read.
            _log.debug("Accounts that expire can't be counted: {error!r}", error=error)
            self._expiring = float("nan")

    def _state(self) -> Iterator[Metric]:
        if self._readiness is not None:
            # For the next time.
            self._readiness.problems()
        problems = [] if self._readiness is None else self._readiness.last
        yield GaugeMetricFamily(
            "pbauth_accounts_reachable",
            "Whether the accounts could be read when the metrics were shown last.",
            int(ACCOUNTS not in problems),
        )
        expiry = GaugeMetricFamily(
            "pbauth_certificate_expiry_timestamp_seconds",
            "When the certificate of a port expires, in seconds since the epoch.",
            labels=["port"],
        )
        for port, certificate in self._certificates.items():
            expiry.add_metric([port], certificate.expires.timestamp())
        yield expiry
        build = GaugeMetricFamily("pbauth_build_info", "The version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _live(self) -> Metric:
        live = Counter(session.serviceName for session in self._sessions if session.live)
        family = GaugeMetricFamily(
            "pbauth_sessions", "Live sessions, by service.", labels=["service"]
        )
        for service in self._services:
            family.add_metric([service], live.pop(service, 0))
        if OTHER not in self._services:
            family.add_metric([OTHER], live.total())
        return family

    def _durations(self) -> Metric:
        total = 0
        buckets = []
        for end, count in zip((*BUCKETS, float("inf")), self._buckets, strict=True):
            total += count
            buckets.append(("+Inf" if end == float("inf") else str(end), total))
        return HistogramMetricFamily(
            "pbauth_login_seconds",
            "How long accepted logins took, from the claim to the proof.",
            buckets=buckets,
            sum_value=self._seconds,
        )

    def exposition(self) -> bytes:
        """Return all metrics, with those of the process, in the text format of Prometheus."""
        return generate_latest(self._registry)


def _counter(
    name: str, meaning: str, labels: tuple[str, ...], counts: dict[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


class _Page(Resource):
    """Shows the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def render_GET(self, request: Any) -> bytes:
        """Answer."""
        request.setHeader(b"content-type", CONTENT_TYPE_LATEST.encode("ascii"))
        return self._metrics.exposition()


class MetricsSite(Site):
    """
    A web server that has the page ``/metrics``, and those on health.

    Args:
        metrics: what to show.
        readiness: of the server.
    """

    noisy = False
    displayTracebacks = False

    def __init__(self, metrics: Metrics, readiness: Readiness) -> None:
        root = Resource()
        root.putChild(b"metrics", _Page(metrics))
        addPages(root, readiness)
        super().__init__(root, timeout=30)

    def log(self, request: Any) -> None:
        """Say nothing: Prometheus asks every few seconds."""
