"""``worker.py ENDPOINT NAME KEY``: runs jobs, logged in with a private key, until it is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import click
from joberrors import BadInput
from signin import KNOWN_SERVERS, run
from tasks import TASKS
from twisted.internet.defer import Deferred
from twisted.spread import pb

import pbauth


class Slot(pb.Referenceable):
    """Runs one job at a time, for the dispatcher."""

    def remote_tasks(self) -> list[str]:
        return sorted(TASKS)

    def remote_run(self, task: str, data: AsyncIterator[bytes]) -> AsyncIterator[str | bytes]:
        if task not in TASKS:
            raise BadInput(f"There is no task {task!r}.")
        return TASKS[task](data)

    def remote_announce(self, text: str) -> None:
        click.echo(text)


async def work(login: pbauth.Login, slots: int, reactor: Any) -> pbauth.PerspectiveClient:
    """
    Log in, and take as many jobs at a time as there are slots, on one connection.

    Args:
        login: to the perspective ``worker``, with a `Slot`.
        slots: how many.
        reactor: provides `IReactorTime`.

    Returns:
        The client, which stays logged in.
    """
    staying = pbauth.PerspectiveClient(login, reactor=reactor)
    staying.startService()
    await staying.whenAttached()
    for _ in range(slots - 1):
        await staying.attach("jobs", "worker", client=Slot())
    return staying


@click.command(help=__doc__)
@click.argument("endpoint")
@click.argument("name")
@click.argument("key")
@click.option("--slots", default=2, show_default=True, help="Run so many jobs at a time.")
@click.option("--accept-new", is_flag=True, help="Trust a server that is not known.")
def main(endpoint: str, name: str, key: str, slots: int, accept_new: bool) -> None:
    credentials = pbauth.PrivateKey.fromFile(key)

    def accept(address: str, fingerprint: str) -> bool:
        # A service has no terminal to ask on.
        click.echo(f"{address} shows the key {fingerprint}.")
        return accept_new

    async def workForEver(reactor: Any) -> None:
        trust = await pbauth.KnownServers(KNOWN_SERVERS, ask=accept).trustFor(endpoint)
        login = pbauth.Login(endpoint, name, credentials, "jobs", "worker", Slot(), trust)
        staying = await work(login, slots, reactor)
        click.echo(f"{name} is ready for {slots} jobs.")
        try:
            await Deferred[None]()
        finally:
            await staying.close()

    run(workForEver)


if __name__ == "__main__":
    main()
