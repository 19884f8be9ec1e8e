"""Buildbot's worker, the real program, as a client of a master that pbauth serves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import buildbot_worker
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.spread import pb

from pbauth import AuthRoot, AuthServerFactory, DefaultAuthorizer, Hashing, Policy
from pbauth.admin.administration import Administration
from pbauth.server.state import openAuthorizer
from tests.support.processes import Program, run
from tests.support.serving import AwaitedPerspective, AwaitedService, ServingTestCase

COMMAND = ("-c", "from buildbot_worker.scripts.runner import run; run()")
# What `buildbot-worker start --nodaemon` runs, but with the log where a test can watch it.
TWISTD = (
    *("-c", "from twisted.scripts.twistd import run; run()"),
    *("--nodaemon", "--pidfile=", "--no_save", "--python=buildbot.tac"),
)
LISTING = Path(__file__).parent.parent.parent / "docs" / "listings" / "stockserver.py"

POLICY = Policy(legacyLogin=True, defaultService="builds")
HASHING = Hashing(iterations=Hashing.CHEAPEST.iterations, md5=True)


class Command(pb.Referenceable):
    """The master's end of a command that a worker runs."""

    def __init__(self) -> None:
        self.stdout = ""
        self.exitCode: int | None = None
        self.completed: Deferred[Any] = Deferred()

    def remote_update(self, updates: Any) -> None:
        for update, _ in updates:
            self.stdout += update.get("stdout", "")
            self.exitCode = update.get("rc", self.exitCode)

    def remote_complete(self, failure: Any) -> None:
        self.completed.callback(failure)


class Master(AwaitedPerspective):
    """What a worker expects of its master."""

    def perspective_keepalive(self) -> None:
        if not self.getService().keptAlive.called:
            self.getService().keptAlive.callback(None)

    async def perspective_shutdown(self) -> None:
        await self.client.callRemote("shutdown")


class Builds(AwaitedService):
    perspectiveClass = Master

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.keptAlive: Deferred[None] = Deferred()


class WorkerTestCase(ServingTestCase):
    """Starts workers."""

    async def start(self, port: int | str, password: str) -> Program:
        """Make a worker as its administrator does, and start it."""
        folder = os.path.abspath(self.mktemp())
        made = await run(
            *(*COMMAND, "create-worker", "--protocol=pb", "--keepalive=1", "--no-logrotate"),
            *("--allow-shutdown=signal", folder, f"127.0.0.1:{port}", "worker1", password),
            forked=True,
        )
        self.assertEqual(made.exitCode, 0, made.output)
        worker = Program(*TWISTD, directory=folder, forked=True)
        self.addCleanup(worker.stop)
        return worker


class WorkerTests(WorkerTestCase):
    """A worker and its master, by pbauth's own factory."""

    def makeFactory(self, authorizer: Any) -> Any:
        return AuthServerFactory(authorizer, POLICY)

    def setUp(self) -> None:
        services = MultiService()
        authorizer = DefaultAuthorizer(services, HASHING)
        self.builds = Builds("builds", services, authorizer)
        self.master = self.builds.createPerspective("worker1")
        self.master.makeIdentity("secret")
        self.port = self.listen(self.makeFactory(authorizer))

    async def test_work(self) -> None:
        """A worker logs in, answers its master, runs a command, and goes when it may."""
        worker = await self.start(self.port, "secret")
        await self.builds.whenHappened(1)
        bot = self.master.client
        self.assertEqual(await bot.callRemote("getVersion"), buildbot_worker.version)
        await bot.callRemote("print", "good morning")
        await worker.waitFor("message from master: good morning")
        builders = await bot.callRemote("setBuilderList", [("docs", "docs")])
        command = Command()
        await builders["docs"].callRemote(
            *("startCommand", command, "1", "shell"),
            {"command": ["echo", "built"], "workdir": "build"},
        )
        self.assertIsNone(await command.completed)
        self.assertEqual((command.stdout, command.exitCode), ("built\n", 0))
        await self.builds.keptAlive
        await worker.waitFor("Master replied to keepalive")
        worker.kill("HUP")
        await worker.whenEnded()
        await self.builds.whenHappened(2)
        self.assertEqual(self.builds.kinds(), ["attached", "detached"])
        self.assertNotIn("Traceback", worker.output)
        self.assertEqual(worker.exitCode, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_wrongPassword(self) -> None:
        """A worker that has a wrong password is told so; the next one comes in."""
        stranger = await self.start(self.port, "wrong")
        await stranger.waitFor("unauthorized login; check worker name and password")
        worker = await self.start(self.port, "secret")
        await worker.waitFor("Connected to buildmaster; worker is ready")
        stranger.kill()
        await stranger.whenEnded()
        worker.kill("TERM")
        await worker.whenEnded()
        await self.builds.whenHappened(2)
        self.assertEqual(self.builds.kinds(), ["attached", "detached"])
        for program in (stranger, worker):
            self.assertNotIn("Traceback", program.output)
        self.assertEqual(self.flushLoggedErrors(), [])


class StockServerWorkerTests(WorkerTests):
    """The same, by the factory of stock Twisted."""

    def makeFactory(self, authorizer: Any) -> Any:
        return pb.PBServerFactory(AuthRoot(authorizer, POLICY))


class ListingTests(WorkerTestCase):
    """The master of the documentation."""

    async def test_worker(self) -> None:
        """It takes a real worker."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        authorizer = openAuthorizer(os.path.join(folder, "pbauth-state"), hashing=HASHING)
        administration = Administration(authorizer)
        await administration.addUser("worker1", "secret")
        await administration.grantKey("worker1", "builds", "worker1")
        authorizer.close()
        master = Program(str(LISTING), "0", directory=folder)
        self.addCleanup(master.stop)
        port = (await master.waitFor(r"listening on 127\.0\.0\.1:(\d+)"))[1]
        worker = await self.start(port, "secret")
        await master.waitFor(f"worker1 attached, version {buildbot_worker.version}\n")
        await worker.waitFor("message from master: welcome, worker1")
        await worker.waitFor("worker is ready")
        worker.kill("HUP")
        await worker.whenEnded()
        await master.waitFor("worker1 detached\n")
        self.assertNotIn("Traceback", master.output + worker.output)
