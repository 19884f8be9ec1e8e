"""Tests of the dispatcher, in memory: ``trial test_jobs``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dispatcher import JobsService
from joberrors import JobFailed, NoSuchJob
from jobs import Screen, runJob
from twisted.internet.defer import CancelledError, Deferred
from twisted.spread import pb
from twisted.trial.unittest import TestCase
from worker import Slot, work

import pbauth
from pbauth.testing import MemoryServer


class Stubborn(Slot):
    """Works until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def remote_run(self, task: str, data: Any) -> AsyncIterator[str | bytes]:
        yield "begun"
        try:
            await Deferred[None]()
        except CancelledError:
            self.cancelled += 1
            raise


class JobsTests(TestCase):
    """Users, workers and operators at one dispatcher."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.service = JobsService(
            "jobs", self.memory.services, self.memory.authorizer, self.memory.clock
        )
        self.memory.addUser("alice", "secret", ("jobs", "user"))
        self.memory.addUser("bob", "secret", ("jobs", "user"))
        self.memory.addUser("olga", "secret", ("jobs", "operator"))
        self.key = pbauth.PrivateKey(Ed25519PrivateKey.generate())
        worker = self.memory.authorizer.createIdentity("worker1")
        worker.addPublicKey(self.key.publicKey)
        worker.addKeyByString("jobs", "worker")
        worker.save()
        self.lines: list[str] = []

    async def startWorker(self, slot: Any, slots: int = 1) -> pbauth.PerspectiveClient:
        login = pbauth.Login(self.memory, "worker1", self.key, "jobs", "worker", slot)
        staying = await work(login, slots, self.memory.clock)
        self.addCleanup(staying.close)
        return staying

    async def logIn(self, name: str, perspective: str = "user") -> Any:
        return await self.memory.logIn(name, "secret", "jobs", perspective, Screen())

    async def result(
        self, jobs: pb.RemoteReference, task: str, data: bytes, seconds: float = 60.0
    ) -> bytes:
        result = runJob(jobs, task, data, seconds, self.lines.append)
        return b"".join([chunk async for chunk in result])

    async def firstLine(self, jobs: pb.RemoteReference, *call: Any) -> str:
        async for line in pbauth.stream(jobs, *call):
            return str(line)
        raise AssertionError("There was none.")

    async def test_result(self) -> None:
        """A job of a megabyte has a log and a result."""
        await self.startWorker(Slot())
        alice = await self.logIn("alice")
        self.assertEqual(await self.result(alice, "upper", b"a" * 1_000_000), b"A" * 1_000_000)
        await self.result(alice, "checksum", b"")
        self.assertEqual(self.lines, ["0 bytes were read"])

    async def test_waits(self) -> None:
        """A job waits until there is a worker that knows its task."""
        alice = await self.logIn("alice")
        waiting = Deferred.fromCoroutine(self.result(alice, "upper", b"a"))
        self.memory.flush()
        (job,) = await alice.callRemote("jobs")
        self.assertEqual((job["owner"], job["state"]), ("alice", "waiting"))
        await self.startWorker(Slot())
        self.assertEqual(await waiting, b"A")

    async def test_ownJobs(self) -> None:
        """Nobody sees the jobs of others, but for operators."""
        alice, bob = await self.logIn("alice"), await self.logIn("bob")
        number = await alice.callRemote("submit", "upper", pbauth.sendBytes(b"a"))
        self.assertEqual(await bob.callRemote("jobs"), [])
        with self.assertRaises(NoSuchJob) as raised:
            await self.firstLine(bob, "log", number)
        self.assertEqual(raised.exception.number, number)
        olga = await self.logIn("olga", "operator")
        self.assertEqual(len(await olga.callRemote("jobs")), 1)

    async def test_badInput(self) -> None:
        """A task that fails says why."""
        await self.startWorker(Slot())
        with self.assertRaises(JobFailed) as raised:
            await self.result(await self.logIn("alice"), "countdown", b"soon")
        self.assertEqual(raised.exception.reason, "failed: The input must be a number.")

    async def test_cancel(self) -> None:
        """A job that is cancelled is cancelled at the worker, which takes the next one."""
        slot = Stubborn()
        await self.startWorker(slot)
        alice = await self.logIn("alice")
        running = Deferred.fromCoroutine(self.result(alice, "upper", b"a"))
        self.memory.flush()
        self.assertEqual(self.lines, ["begun"])
        running.cancel()
        self.memory.flush()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(slot.cancelled, 1)
        self.assertEqual((await alice.callRemote("jobs"))[0]["state"], "cancelled by alice")

    async def test_deadline(self) -> None:
        """So is one that takes too long."""
        slot = Stubborn()
        await self.startWorker(slot)
        running = Deferred.fromCoroutine(self.result(await self.logIn("alice"), "upper", b"a", 5))
        self.memory.advance(5)
        error = self.failureResultOf(running, JobFailed).value
        self.assertEqual((error.reason, slot.cancelled), ("took longer than 5 seconds", 1))

    async def test_slots(self) -> None:
        """A worker takes several jobs at a time on one connection, and again after it broke."""
        await self.startWorker(Slot(), 3)
        self.assertEqual(len(self.memory.pumps), 1)
        self.assertEqual(len(self.service.online()), 3)
        self.memory.disconnect(self.service.online()[0].clientref)
        self.assertEqual(self.service.online(), [])
        self.memory.advance(2)
        self.assertEqual(len(self.service.online()), 3)

    async def test_lostWorker(self) -> None:
        """Another worker takes over the job of one that is gone."""
        await self.startWorker(Stubborn())
        running = Deferred.fromCoroutine(self.result(await self.logIn("alice"), "upper", b"a"))
        self.memory.flush()
        await self.startWorker(Slot())
        await self.memory.authorizer.sessions.end(self.service.online()[0])
        self.assertEqual(await running, b"A")

    async def test_operator(self) -> None:
        """An operator sees who is there, talks to all, and ends sessions."""
        alice, olga = await self.logIn("alice"), await self.logIn("olga", "operator")
        names = [each["name"] for each in await olga.callRemote("online")]
        self.assertEqual(names, ["alice", "olga"])
        self.assertEqual(await olga.callRemote("announce", "Lunch!"), [True, True])
        following = Deferred.fromCoroutine(self.firstLine(olga, "events"))
        self.memory.flush()
        self.assertEqual(await olga.callRemote("kick", "alice"), 1)
        self.assertEqual(await following, "alice went: ended by the administrator")
        with self.assertRaises(pbauth.Detached):
            await alice.callRemote("jobs")

    async def test_dashboard(self) -> None:
        """A key that is good for some methods of the operators' is good for no others."""
        identity: Any = self.memory.addUser("dashboard", "secret")
        identity.addKeyByString("jobs", "operator", ["jobs", "online"])
        identity.save()
        dashboard = await self.logIn("dashboard", "operator")
        self.assertEqual(len(await dashboard.callRemote("online")), 1)
        with self.assertRaises(pbauth.MethodNotAllowed):
            await dashboard.callRemote("kick", "alice")

    async def test_voucher(self) -> None:
        """An operator lends two methods, for a month."""
        olga = await self.logIn("olga", "operator")
        voucher = await pbauth.issueVoucher(
            olga.identity,
            "dashboard",
            datetime.now(timezone.utc) + timedelta(days=30),
            perspectives=["operator"],
            methods=["jobs", "online"],
        )
        dashboard = await self.memory.logIn("olga", voucher, "jobs", "operator")
        self.assertEqual(await dashboard.callRemote("jobs"), [])
        with self.assertRaises(pbauth.MethodNotAllowed):
            await dashboard.callRemote("kick", "alice")
