"""
A dispatcher of jobs, as a service of perspectives.

A key to the perspective ``user`` lets its holder submit jobs. A client with a key to ``worker``
runs them, one at a time for each session. ``operator`` sees all jobs and everybody who is attached,
and may end their sessions. No method takes the name of its caller: the session knows who calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from joberrors import JobFailed, NoSuchJob, Refused
from joblog import Log
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

import pbauth

_log = Logger()

#: How many jobs are kept, and the most bytes of the input of one.
MOST_JOBS = 1000
LONGEST_INPUT = 1 << 30
#: Seconds that a job may take, unless its owner says something else.
DEADLINE = 3600.0
#: Seconds within which a client has to answer the server.
PATIENCE = 5.0
#: So many workers may be lost over a job.
MOST_ATTEMPTS = 3

#: What a call to a client fails with that is no longer there.
GONE = (pbauth.Detached, pb.PBConnectionLost, pb.DeadReferenceError)


class Job:
    """
    What somebody wants to have done.

    Args:
        number: of the job.
        task: what is to be done, one of those that the workers know.
        owner: the name of the identity.
        seconds: that it may take.
        folder: for its files.

    Attributes:
        state: ``"waiting"``, ``"running"``, ``"done"``, or why there is no result.
        log: what the workers say about it.
        attempts: how many workers have begun it.
        running: what is under way while a worker is at it.
    """

    def __init__(self, number: int, task: str, owner: str, seconds: float, folder: Path) -> None:
        self.number = number
        self.task = task
        self.owner = owner
        self.seconds = seconds
        self.input = folder / f"{number}.input"
        self.output = folder / f"{number}.output"
        self.state = "waiting"
        self.log = Log()
        self.attempts = 0
        self.running: Deferred[None] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "running")

    def end(self, state: str) -> None:
        """Say how it has ended; only the first to do so counts."""
        if not self.over:
            self.state = state
            self.log.end()

    def describe(self) -> dict[str, Any]:
        """Return what its owner and the operators get to see."""
        return {
            "number": self.number,
            "task": self.task,
            "owner": self.owner,
            "state": self.state,
        }

    def forget(self) -> None:
        """Remove its files."""
        self.input.unlink(missing_ok=True)
        self.output.unlink(missing_ok=True)


class User(pbauth.Perspective):
    """Submits jobs, and sees those of its own."""

    def mayUse(self, job: Job) -> bool:
        """Whether the caller may see and cancel a job."""
        session = pbauth.currentSession()
        return session is not None and session.identity.name == job.owner

    def job(self, number: int) -> Job:
        """Find a job of the caller's."""
        job: Job | None = self.service.jobs.get(number)
        if job is None or not self.mayUse(job):
            raise NoSuchJob(number)
        return job

    async def perspective_submit(
        self, task: str, data: AsyncIterator[bytes], seconds: float = DEADLINE
    ) -> int:
        job: Job = await self.service.submit(task, self.identityName, data, seconds)
        return job.number

    def perspective_jobs(self) -> list[dict[str, Any]]:
        return [job.describe() for job in self.service.jobs.values() if self.mayUse(job)]

    def perspective_log(self, number: int) -> AsyncIterator[str]:
        return self.job(number).log.follow()

    def perspective_result(self, number: int) -> pbauth.Stream:
        job = self.job(number)
        if job.state != "done":
            raise JobFailed(number, job.state)
        return pbauth.sendBytes(job.output.open("rb"))

    def perspective_cancel(self, number: int) -> None:
        self.service.cancel(self.job(number), f"cancelled by {self.identityName}")


class Worker(pbauth.Perspective):
    """Runs jobs: the server calls its client, which calls nothing."""


class Operator(User):
    """Sees all jobs, and everybody who is attached."""

    def mayUse(self, job: Job) -> bool:
        return True

    def perspective_online(self) -> list[dict[str, Any]]:
        return [
            {
                "name": session.identity.name,
                "perspective": session.perspectiveName,
                "host": session.peer.host,
                "since": session.since,
            }
            for session in self.service.online()
        ]

    def perspective_events(self) -> AsyncIterator[str]:
        events: Log = self.service.events
        return events.follow(events.written)

    async def perspective_announce(self, text: str) -> list[bool]:
        answers = await self.service.clients.callEach("announce", text, timeout=PATIENCE)
        return [heard for client, heard, answer in answers]

    async def perspective_kick(self, name: str) -> int:
        sessions = [each for each in self.service.online() if each.identity.name == name]
        for session in sessions:
            await self.service.authorizer.sessions.end(session)
        return len(sessions)


class JobsService(pbauth.Service):
    """
    Take on jobs, and give each to a worker that knows its task.

    Args:
        serviceName: as for `pbauth.Service`, and so are the next two.
        serviceParent: what it runs under.
        authorizer: knows the accounts.
        clock: provides `IReactorTime`; by default the reactor.

    Attributes:
        jobs: by number, oldest first.
        events: who comes and goes, and what becomes of the jobs.
    """

    def __init__(
        self,
        serviceName: str,
        serviceParent: Any = None,
        authorizer: Any = None,
        clock: Any = None,
    ) -> None:
        if clock is None:
            from twisted.internet import reactor as clock
        self._clock = clock
        self.jobs: dict[int, Job] = {}
        self.events = Log()
        self._numbers = 0
        self._waiting: deque[Job] = deque()
        #: The tasks that each idle worker knows, and the jobs of those that are not idle.
        self._idle: dict[pbauth.Session, list[str]] = {}
        self._busy: dict[pbauth.Session, Job] = {}
        self._folder = TemporaryDirectory(prefix="jobs-")
        super().__init__(serviceName, serviceParent, authorizer)
        for perspective in (User("user"), Worker("worker"), Operator("operator")):
            self.addPerspective(perspective)

    # Who is there.

    def sessionAttached(self, session: pbauth.Session) -> None:
        """Take note that somebody has come; a worker is asked what it can do."""
        self.events.write(f"{session.identity.name} came, as {session.perspectiveName}")
        if session.perspectiveName == "worker" and session.clientref is not None:
            Deferred.fromCoroutine(self._employ(session)).addErrback(self._report)

    def sessionDetached(self, session: pbauth.Session) -> None:
        """Take note that somebody has gone; somebody else runs the job of a worker."""
        reason = "" if session.endReason is None else session.endReason.value
        self.events.write(f"{session.identity.name} went: {reason}")
        self._idle.pop(session, None)
        job = self._busy.get(session)
        if job is not None and job.running is not None:
            job.running.cancel()

    async def _employ(self, worker: pbauth.Session) -> None:
        try:
            tasks = await pbauth.call(worker.clientref, "tasks", timeout=PATIENCE)
        except (*GONE, TimeoutError):
            return
        if worker.live:
            self._idle[worker] = tasks
            self._dispatch()

    # Jobs.

    async def submit(
        self, task: str, owner: str, data: AsyncIterator[bytes], seconds: float = DEADLINE
    ) -> Job:
        """
        Take on a job.

        Args:
            task: what is to be done.
            owner: the name of the identity.
            data: what to do it with.
            seconds: that it may take.

        Returns:
            The job.

        Raises:
            Refused: there are too many jobs, or this one is too large.
        """
        if len(self.jobs) >= MOST_JOBS:
            self._forgetOne()
        self._numbers += 1
        job = Job(self._numbers, task, owner, seconds, Path(self._folder.name))
        self.jobs[job.number] = job
        try:
            size = 0
            with job.input.open("wb") as file:
                async for chunk in data:
                    size += file.write(chunk)
                    if size > LONGEST_INPUT:
                        raise Refused(f"The input has more than {LONGEST_INPUT:,} bytes.")
        except BaseException:
            # The user has gone, or has cancelled the call.
            del self.jobs[job.number]
            job.forget()
            raise
        if not job.over:
            self.events.write(f"job {job.number} of {owner} is waiting")
            self._waiting.append(job)
            self._dispatch()
        return job

    def _forgetOne(self) -> None:
        for job in self.jobs.values():
            if job.over:
                del self.jobs[job.number]
                job.forget()
                return
        raise Refused(f"There are {MOST_JOBS} jobs. Wait until some are done.")

    def cancel(self, job: Job, why: str) -> None:
        """
        End a job before it is done.

        Args:
            job: one of these.
            why: what its owner is told.
        """
        if job.over:
            return
        job.end(why)
        self.events.write(f"job {job.number}: {why}")
        if job in self._waiting:
            self._waiting.remove(job)
        if job.running is not None:
            job.running.cancel()

    def _dispatch(self) -> None:
        """Give jobs to idle workers, the oldest first."""
        while (pair := self._match()) is not None:
            job, worker = pair
            self._waiting.remove(job)
            job.running = Deferred.fromCoroutine(self._run(job, worker, self._idle.pop(worker)))
            job.running.addErrback(self._report)

    def _match(self) -> tuple[Job, pbauth.Session] | None:
        for job in self._waiting:
            for worker, tasks in self._idle.items():
                if job.task in tasks:
                    return job, worker
        return None

    async def _run(self, job: Job, worker: pbauth.Session, tasks: list[str]) -> None:
        job.state = "running"
        job.attempts += 1
        self._busy[worker] = job
        self.events.write(f"job {job.number} runs at {worker.identity.name}")
        late = f"took longer than {job.seconds:g} seconds"
        deadline = self._clock.callLater(job.seconds, self.cancel, job, late)
        try:
            await self._work(job, worker.clientref)
        except (*GONE, CancelledError):
            # If nobody has ended the job, the worker has gone.
            if job.attempts < MOST_ATTEMPTS and not job.over:
                job.state = "waiting"
                self._waiting.appendleft(job)
            else:
                job.end(f"{job.attempts} workers were lost")
        except (pb.Error, pbauth.WireError) as error:
            job.end(f"failed: {error}")
        else:
            job.end("done")
        finally:
            job.running = None
            del self._busy[worker]
            if deadline.active():
                deadline.cancel()
            self.events.write(f"job {job.number}: {job.state}")
            if worker.live:
                self._idle[worker] = tasks
            self._dispatch()

    async def _work(self, job: Job, client: pb.RemoteReference) -> None:
        data = pbauth.sendBytes(job.input.open("rb"))
        with job.output.open("wb") as output:
            async for part in pbauth.stream(client, "run", job.task, data):
                # A line of the log, or a piece of the result.
                if isinstance(part, str):
                    job.log.write(part)
                else:
                    output.write(part)

    def _report(self, failure: Failure) -> None:
        _log.failure("The dispatcher failed", failure)


@implementer(IPlugin, pbauth.IConfigurableServiceFactory)
class JobsServiceFactory:
    """``twistd pbauth --service jobs``."""

    name = "jobs"
    description = "A dispatcher of jobs: keys to user, worker and operator."
    parameters = ()

    def makeService(
        self, serviceName: str, authorizer: pbauth.IAuthorizer, **options: str | None
    ) -> JobsService:
        """Make the service."""
        return JobsService(serviceName, authorizer=authorizer)
