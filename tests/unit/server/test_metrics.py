"""Metrics for Prometheus."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody
from zope.interface.verify import verifyObject

import pbauth
from pbauth import (
    Audit,
    DefaultAuthorizer,
    DropReason,
    EndReason,
    Hashing,
    Password,
    Policy,
    SQLAuthorizer,
    StoreError,
    Unauthorized,
    connect,
)
from pbauth.login.policy import LISTABLE
from pbauth.net.origin import ELSEWHERE
from pbauth.server.metrics import BUCKETS, Metrics
from pbauth.tap import Options, makeService
from pbauth.testing import MemoryServer, RecordingService
from tests.support.processes import TWISTD, Program
from tests.support.wire import SCRAM, WireTestCase

ROOT = str(Path(__file__).parent.parent.parent.parent)
LOOPBACK = "tcp:0:interface=127.0.0.1"

_Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: bytes) -> _Samples:
    """The samples, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode("utf-8"))
        for sample in family.samples
    }


def value(samples: _Samples, name: str, **labels: str) -> float:
    """One sample."""
    return samples[f"pbauth_{name}", tuple(sorted(labels.items()))]


class Changes:
    """Notices changes, or does not."""

    hears = True


class ExpiringTests(SynchronousTestCase):
    """Accounts that expire soon."""

    def shown(self, metrics: Metrics) -> str:
        """What is shown of them."""
        return metrics.exposition().decode().split("\npbauth_accounts_expiring ")[1].split("\n")[0]

    def test_counted(self) -> None:
        """They are counted when somebody asks, for the next time; NaN: it is not known."""
        authorizer = DefaultAuthorizer()
        for days in (1, 13, 15):
            identity = authorizer.createIdentity(f"user{days}")
            identity.expires = authorizer.now() + timedelta(days=days)
            authorizer.addIdentity(identity)
        changes: Any = Changes()
        metrics = Metrics([], [], changes, countExpiring=authorizer.countExpiring)
        self.assertEqual(self.shown(metrics), "2.0")
        counts: list[Deferred[int]] = [Deferred(), Deferred()]
        left = list(counts)
        metrics = Metrics([], [], changes, countExpiring=lambda until: left.pop(0))
        self.assertEqual([self.shown(metrics) for _ in range(2)], ["NaN", "NaN"])
        counts[0].callback(7)
        self.assertEqual(self.shown(metrics), "7.0")

        def fail(until: Any) -> Any:
            raise StoreError()

        metrics = Metrics([], [], changes, countExpiring=fail)
        self.assertEqual([self.shown(metrics) for _ in range(2)], ["NaN", "NaN"])


class MetricsTests(WireTestCase):
    """What is counted, in memory."""

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.changes: Any = Changes()
        self.metrics = Metrics(["game", "chess"], authorizer.sessions, self.changes)
        globalLogPublisher.addObserver(self.metrics)
        self.addCleanup(globalLogPublisher.removeObserver, self.metrics)
        clock = Clock()
        policy = policy or Policy(throttle=False)
        factory = self.metrics.serverFactory(authorizer, policy, clock)
        self.memory = MemoryServer(authorizer, factory=factory)
        self.memory.clock = clock
        authorizer.setServiceCollection(self.memory.services)
        self.game = RecordingService("game", self.memory.services, authorizer)
        self.alice = self.memory.addUser("alice", "secret", ("game", "alice"), ("hidden", "alice"))

    def value(self, name: str, **labels: str) -> float:
        """One sample of now."""
        return value(parse(self.metrics.exposition()), name, **labels)

    def test_interface(self) -> None:
        """They observe the log."""
        verifyObject(ILogObserver, self.metrics)

    def test_logins(self) -> None:
        """Logins with outcome and mechanism."""
        self.successResultOf(self.login())
        for _ in "12":
            self.failureResultOf(self.login("alice", Password("wrong"), "game"), Unauthorized)
        begun = self.root()
        self.refusal(begun, "username", "alice", "PLAIN", b"")
        self.refusal(begun, "username", "alice", "\x1b", b"")
        Audit().throttled(ELSEWHERE, "alice", SCRAM, 3)
        for outcome, mechanism, count in [
            ("accepted", SCRAM, 1),
            ("accepted", "ED25519", 0),
            ("refused", SCRAM, 2),
            ("throttled", SCRAM, 1),
            ("not offered", "PLAIN", 1),
            ("not offered", "other", 1),
        ]:
            self.assertEqual(
                self.value("logins_total", outcome=outcome, mechanism=mechanism), count
            )

    def test_duration(self) -> None:
        """How long logins took, on the reactor's clock."""
        for seconds in (0.003, 0.7, 100):
            client, challenger = self.scram(self.root())
            self.memory.clock.advance(min(seconds, 29))
            self.answer(challenger, "respond", client.get_client_final().encode())
        for end, count in (("0.001", 0), ("0.005", 1), ("1.0", 2), ("30.0", 3), ("+Inf", 3)):
            self.assertEqual(self.value("login_seconds_bucket", le=end), count)
        self.assertEqual(self.value("login_seconds_count"), 3)
        self.assertAlmostEqual(self.value("login_seconds_sum"), 29.703)
        self.assertEqual(sorted(BUCKETS), list(BUCKETS))

    def test_sessions(self) -> None:
        """Live sessions by service, and how they ended."""
        RecordingService("hidden", self.memory.services, self.memory.authorizer)
        secret = Password("secret")
        remote = self.successResultOf(self.login("alice", secret, "game"))
        self.successResultOf(self.login("alice", secret, "game"))
        self.successResultOf(self.login("alice", secret, "hidden"))
        for service, count in (("game", 2), ("chess", 0), ("other", 1)):
            self.assertEqual(self.value("sessions", service=service), count)
        self.memory.disconnect(remote)
        self.alice.locked = True
        self.assertEqual(self.value("sessions", service="game"), 0)
        self.assertEqual(self.value("sessions_attached_total"), 3)
        for reason, count in (("connection_lost", 1), ("locked", 2), ("other", 0)):
            self.assertEqual(self.value("sessions_detached_total", reason=reason), count)

    def test_connections(self) -> None:
        """Connections, and bytes in both directions."""
        root = self.root()
        self.root()
        received, sent = self.value("received_bytes_total"), self.value("sent_bytes_total")
        self.assertGreater(received, 0)
        self.answer(root, "mechanisms")
        self.assertGreater(self.value("received_bytes_total"), received)
        self.assertGreater(self.value("sent_bytes_total"), sent)
        self.memory.disconnect(root)
        self.assertEqual(self.value("connections_total"), 2)
        self.assertEqual(self.value("connections_open"), 1)

    def test_allBytes(self) -> None:
        """No byte is missed, in either direction."""
        counted = {"clientIO": 0, "serverIO": 0}
        connecting = self.memory.connect

        def connect(factory: Any) -> Any:
            made = connecting(factory)
            for side in counted:
                transport = getattr(self.memory.pumps[-1], side)

                def write(data: bytes, side: str = side, write: Any = transport.write) -> None:
                    counted[side] += len(data)
                    write(data)

                transport.write = write
            return made

        self.memory.connect = connect
        remote = self.successResultOf(self.login())
        self.answer(remote, "whoami")
        self.refusal(remote, "nonsense")
        self.flushLoggedErrors()
        # What the server wrote when it was connected was before the test could look.
        greeting = self.value("sent_bytes_total") - counted["serverIO"]
        self.assertTrue(0 <= greeting < 20, greeting)
        self.assertEqual(self.value("received_bytes_total"), counted["clientIO"])

    def test_drops(self) -> None:
        """Drops by the limit, and whether there was a login."""
        self.serve(Policy(maxAttempts=1, throttle=False))
        self.root()
        self.memory.clock.advance(31)
        self.refusal(self.root(), "username", "alice", SCRAM, b"")
        identity = self.identity()
        identity.broker.transport.write(b"\x00" * 100)
        self.memory.flush()
        for reason, when, count in [
            ("grace_time", "before login", 1),
            ("attempts", "before login", 1),
            ("protocol", "before login", 0),
            ("protocol", "after login", 1),
        ]:
            self.assertEqual(
                self.value("connections_dropped_total", reason=reason, when=when), count
            )

    def test_refused(self) -> None:
        """What clients ask for beyond a limit after their login is counted, by the limit."""
        policy = Policy(maxCallsPerSecond=1, maxSessions=1)
        factory = self.metrics.serverFactory(self.memory.authorizer, policy, self.memory.clock)
        self.metrics.serverFactory(self.memory.authorizer, policy, limits=factory.limits)
        factory.limits.refused["maxSessions"] += 3
        self.assertEqual(self.value("requests_refused_total", limit="maxSessions"), 3)
        self.assertEqual(self.value("requests_refused_total", limit="maxCallsAtOnce"), 0)

    def test_bounded(self) -> None:
        """However much happens, and whatever clients say, there are no more series than before."""
        before = set(parse(self.metrics.exposition()))
        RecordingService("hidden", self.memory.services, self.memory.authorizer)
        self.successResultOf(self.login("alice", Password("secret"), "hidden"))
        for number in range(50):
            self.refusal(self.root(), "username", f"user{number}", f"mechanism{number}", b"")
            self.failureResultOf(self.login(f"user{number}", Password("x"), f"service{number}"))
        Audit().loggedIn(ELSEWHERE, "alice", "a mechanism of their own")
        self.assertEqual(set(parse(self.metrics.exposition())), before)
        self.assertLess(len(before), 200)
        labels = {label for _, pairs in before for _, label in pairs}
        known = {*LISTABLE, "PB-MD5", "game", "chess", "other", *(f"{end}" for end in BUCKETS)}
        known |= {reason.name.lower() for each in (DropReason, EndReason) for reason in each}
        known |= {"accepted", "refused", "throttled", "not offered", "+Inf"}
        known |= {"maxSessions", "maxCallsPerSecond", "maxCallsAtOnce", "maxMessageBytes"}
        known |= {"before login", "after login", "password", "ssh key"}
        known |= {pbauth.__version__}
        self.assertEqual(labels - known, set())

    def test_serviceNames(self) -> None:
        """The names of services may hold anything that names may."""
        self.metrics = Metrics(['"\\{}=', "other"], [], Changes())
        self.assertEqual(self.value("sessions", service='"\\{}='), 0)
        self.assertEqual(self.value("sessions", service="other"), 0)


class ServerTests(TestCase):
    """`twistd pbauth --metrics`, in a process of its own."""

    async def test_server(self) -> None:
        """Prometheus finds at `/metrics` what happened, and nothing elsewhere."""
        state = os.path.abspath(self.mktemp())
        os.mkdir(state, 0o700)
        authorizer = SQLAuthorizer(os.path.join(state, "accounts.sqlite"), None, Hashing.CHEAPEST)
        with closing(authorizer):
            alice = authorizer.createIdentity("alice")
            alice.setPassword("secret")
            alice.addKeyByString("echo", "alice")
            await alice.save()
        server = Program(
            *(*TWISTD, "--state", state, "--port", LOOPBACK, "--metrics", LOOPBACK), PYTHONPATH=ROOT
        )
        self.addCleanup(server.stop)
        url = (await server.waitFor(r"Metrics are at (http://127\.0\.0\.1:\d+)/metrics"))[1]
        port = int((await server.waitFor(r"Listening on 127\.0\.0\.1:(\d+)"))[1])
        perspective = await connect("127.0.0.1", port, "alice", "secret", "echo")
        with self.assertRaises(Unauthorized):
            await connect("127.0.0.1", port, "alice", "wrong", "echo")
        status, kind, page = await self.get(f"{url}/metrics")
        self.assertEqual((status, kind.partition(";")[0]), (200, "text/plain"))
        samples = parse(page)
        self.assertEqual(value(samples, "logins_total", outcome="accepted", mechanism=SCRAM), 1)
        self.assertEqual(value(samples, "logins_total", outcome="refused", mechanism=SCRAM), 1)
        self.assertEqual(value(samples, "login_seconds_count"), 1)
        self.assertEqual(value(samples, "sessions", service="echo"), 1)
        self.assertEqual(value(samples, "connections_total"), 2)
        self.assertGreater(value(samples, "received_bytes_total"), 100)
        self.assertGreater(samples["process_resident_memory_bytes", ()], 10**6)
        for path in ("", "/", "/metrics/", "/metrics/x", "/other"):
            status, _, page = await self.get(url + path)
            self.assertEqual((path, status), (path, 404))
        status, _, _ = await self.get(f"{url}/metrics", b"POST")
        self.assertEqual(status, 405)
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()
        self.assertNotIn("GET /", server.output)
        self.assertNotIn("Traceback", server.output)

    async def get(self, url: str, method: bytes = b"GET") -> tuple[int, str, bytes]:
        """Ask for a page; give its status, type and text."""
        from twisted.internet import reactor

        agent: Any = Agent(reactor)
        response: Any = await agent.request(method, url.encode("ascii"))
        (kind,) = response.headers.getRawHeaders("content-type")
        return response.code, kind, await readBody(response)


class MistakeTests(SynchronousTestCase):
    """What can't be ends the program with one line."""

    def stopped(self, *arguments: str) -> str:
        """What it says."""
        state = self.mktemp()
        options = Options()
        options.parseOptions(["--state", state, "--port", LOOPBACK, *arguments])
        with self.assertRaises(SystemExit) as raised:
            makeService(options)
        self.assertFalse(os.path.exists(state))
        self.assertNotIn("\n", str(raised.exception))
        return str(raised.exception)

    def test_otherMachines(self) -> None:
        """Other machines see the metrics only if the operator insists."""
        self.assertIn("--insecure", self.stopped("--metrics", "tcp:9187"))
        self.assertIn("not an endpoint", self.stopped("--metrics", "nonsense"))

    def test_noPackage(self) -> None:
        """Without the package the extra is named."""
        loaded = pbauth.server.metrics  # type: ignore[attr-defined]
        self.addCleanup(setattr, pbauth, "metrics", loaded)
        del pbauth.server.metrics  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, {"prometheus_client": None}):
            del sys.modules["pbauth.server.metrics"]
            said = self.stopped("--metrics", LOOPBACK)
        self.assertEqual(
            said,
            "pbauth: --metrics needs one more package. Run: pip install 'pbauth[metrics]'",
        )
