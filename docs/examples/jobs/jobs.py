"""
``jobs.py ENDPOINT NAME COMMAND``: submit jobs and look after them. The password is asked for.

``online``, ``events``, ``announce`` and ``kick`` are for operators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import IO, Any

import click
from signin import KNOWN_SERVERS, askPassword, run
from twisted.internet.defer import CancelledError
from twisted.spread import pb

import pbauth

#: Seconds within which the server has to answer.
PATIENCE = 10.0


class Screen(pb.Referenceable):
    """Shows what the operators have to say."""

    def remote_announce(self, text: str) -> None:
        click.echo(f"*** {text}", err=True)


async def runJob(
    jobs: pb.RemoteReference,
    task: str,
    data: bytes | IO[bytes],
    seconds: float = 3600.0,
    show: Callable[[str], object] = click.echo,
) -> AsyncIterator[bytes]:
    """
    Submit a job, and follow its log to the end; whoever stops following cancels the job.

    Args:
        jobs: the perspective.
        task: what is to be done.
        data: what to do it with.
        seconds: that it may take.
        show: is called with each line of the log.

    Yields:
        The result.

    Raises:
        joberrors.JobFailed: there is none.
    """
    number = await jobs.callRemote("submit", task, pbauth.sendBytes(data), seconds)
    try:
        async for line in pbauth.stream(jobs, "log", number):
            show(line)
    except CancelledError:
        await pbauth.call(jobs, "cancel", number, timeout=PATIENCE)
        raise
    async for chunk in pbauth.stream(jobs, "result", number):
        yield chunk


@click.group(help=__doc__)
@click.argument("endpoint")
@click.argument("name")
@click.pass_context
def main(context: click.Context, endpoint: str, name: str) -> None:
    async def talk(
        perspective: str, work: Callable[[pb.RemoteReference], Coroutine[Any, Any, None]]
    ) -> None:
        # The password is asked for once the server is known.
        trust = await pbauth.KnownServers(KNOWN_SERVERS).trustFor(endpoint)
        password = askPassword()
        login = pbauth.Login(endpoint, name, password, "jobs", perspective, Screen(), trust)
        async with pbauth.connected(login) as jobs:
            await work(jobs)

    context.obj = lambda *arguments: run(lambda reactor: talk(*arguments))


@main.command("run")
@click.argument("task")
@click.argument("source", type=click.File("rb"))
@click.argument("target", type=click.File("wb"), default="-")
@click.option("--seconds", default=3600.0, show_default=True, help="So long it may take.")
@click.pass_obj
def run_(talk: Any, task: str, source: Any, target: Any, seconds: float) -> None:
    """Do TASK with the file SOURCE; the result goes to TARGET, or is shown."""

    async def work(jobs: pb.RemoteReference) -> None:
        async for chunk in runJob(jobs, task, source, seconds):
            target.write(chunk)

    talk("user", work)


@main.command("list")
@click.option("--all", "perspective", flag_value="operator", default="user", help="Of everybody.")
@click.pass_obj
def list_(talk: Any, perspective: str) -> None:
    """List your jobs."""

    async def work(jobs: pb.RemoteReference) -> None:
        for job in await pbauth.call(jobs, "jobs", timeout=PATIENCE):
            click.echo("{number} {owner} {task}: {state}".format(**job))

    talk(perspective, work)


@main.command()
@click.argument("number", type=int)
@click.pass_obj
def cancel(talk: Any, number: int) -> None:
    """Cancel a job of yours."""
    talk("user", lambda jobs: pbauth.call(jobs, "cancel", number, timeout=PATIENCE))


@main.command()
@click.pass_obj
def online(talk: Any) -> None:
    """List who is attached."""

    async def work(jobs: pb.RemoteReference) -> None:
        for one in await pbauth.call(jobs, "online", timeout=PATIENCE):
            click.echo("{name}, as {perspective}, from {host}".format(**one))

    talk("operator", work)


@main.command()
@click.pass_obj
def events(talk: Any) -> None:
    """Follow who comes and goes, and what becomes of the jobs."""

    async def work(jobs: pb.RemoteReference) -> None:
        async for line in pbauth.stream(jobs, "events"):
            click.echo(line)

    talk("operator", work)


@main.command()
@click.argument("text")
@click.pass_obj
def announce(talk: Any, text: str) -> None:
    """Show TEXT to everybody."""

    async def work(jobs: pb.RemoteReference) -> None:
        heard = await pbauth.call(jobs, "announce", text, timeout=2 * PATIENCE)
        click.echo(f"{heard.count(True)} of {len(heard)} have heard it.")

    talk("operator", work)


@main.command()
@click.argument("user")
@click.pass_obj
def kick(talk: Any, user: str) -> None:
    """End the sessions of USER."""

    async def work(jobs: pb.RemoteReference) -> None:
        click.echo(f"{await pbauth.call(jobs, 'kick', user, timeout=PATIENCE)} sessions ended.")

    talk("operator", work)


if __name__ == "__main__":
    main()
