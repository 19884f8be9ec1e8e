"""Calls, by everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.benchmarks.peers import PEERS, STOCK
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import BenchmarkFailed, Program, Stage
from tests.benchmarks.samples import Sample, calibrate, summary, take
from tests.benchmarks.work import WORKS


def measureCalls(
    plan: Plan,
    stage: Stage,
    peers: list[str],
    works: Iterable[str],
    certificate: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """
    Args:
        plan: how much.
        stage: for the processes.
        peers: whose calls, by the names of `PEERS`.
        works: which, by the names of `WORKS`.
        certificate: the file of the servers' certificate.
        say: tells people how far it is.

    Returns:
        A summary for each peer of each work.
    """
    servers: dict[str, Program] = {}
    clients: dict[str, Program] = {}
    for name in peers:
        peer = PEERS[name]
        takesCertificate = {"certificate": certificate} if peer.module in ("stock", "ours") else {}
        # One server serves what differs in the client only.
        if _serverOf(name) not in servers:
            servers[_serverOf(name)] = stage.server(
                peer.path, beside=peer.beside, **takesCertificate
            )
        clients[name] = stage.client(
            peer.path, beside=peer.beside, **takesCertificate, **peer.options
        )
    where = {module: server.ask("listen") for module, server in servers.items()}
    for name, client in clients.items():
        client.ask("connect", **where[_serverOf(name)])
    for name in peers:
        if PEERS[name].onTwisted:
            _checkSendsAtOnce(servers[_serverOf(name)])
            _checkSendsAtOnce(clients[name])

    made: dict[str, Any] = {}
    for work in works:
        say(f"calls: {WORKS[work].label}")
        taking = [name for name in peers if name not in WORKS[work].without]

        def takeOne(name: str, count: int, work: str = work) -> Sample:
            return take(servers[_serverOf(name)], clients[name], "calls", work=work, count=count)

        counts = {
            name: calibrate(
                lambda count, name=name: takeOne(name, count),  # type: ignore[misc]
                plan.callSeconds,
                WORKS[work].first,
                plan.mostCalls,
            )
            for name in taking
        }
        taken: dict[str, list[Sample]] = {name: [] for name in taking}
        for _ in range(plan.rounds):
            for name in taking:
                taken[name].append(takeOne(name, counts[name]))
        made[work] = {name: summary(samples, taken.get(STOCK)) for name, samples in taken.items()}
    return made


def _serverOf(name: str) -> str:
    peer = PEERS[name]
    return name if peer.beside else peer.module


def _checkSendsAtOnce(program: Program) -> None:
    if not program.ask("sendsAtOnce"):
        raise BenchmarkFailed(f"The {program.name} has connections with Nagle's algorithm.")
