"""Streams: many small values, and bytes of any length, with the memory that they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.peers import PEERS
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import Program, Stage
from tests.benchmarks.samples import Sample, calibrate, summary, take
from tests.stress.resources import forgetPeakOf, peakOf, sizeOf

#: Who has streams, by the names of `PEERS`.
STREAMING = ("pbauth", "grpc", "rpyc")

#: The length of the pieces that bytes are sent in.
PIECE = 65_536

#: What is streamed, by the name of the client's method.
KINDS = {"items": "streams of ints", "pieces": "streams of bytes, in pieces of 64 KiB"}


def measureStreams(
    plan: Plan, stage: Stage, certificate: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """
    Args:
        plan: how much.
        stage: for the processes.
        certificate: the file of the servers' certificate.
        say: tells people how far it is.

    Returns:
        A summary for each peer of each kind, and what the memory of both ends grew by while a long
        stream of bytes was sent.
    """
    servers: dict[str, Program] = {}
    clients: dict[str, Program] = {}
    for name in STREAMING:
        peer = PEERS[name]
        if peer.installed:
            options = {"certificate": certificate} if peer.module == "ours" else {}
            servers[name] = stage.server(peer.path, **options)
            clients[name] = stage.client(peer.path, **options)
            clients[name].ask("connect", **servers[name].ask("listen"))
    made: dict[str, Any] = {}
    for kind, label in KINDS.items():
        say(label)

        def takeOne(name: str, count: int, kind: str = kind) -> Sample:
            return take(servers[name], clients[name], kind, count=count)

        counts = {
            name: calibrate(
                lambda count, name=name: takeOne(name, count),  # type: ignore[misc]
                plan.callSeconds,
                10,
                plan.mostCalls,
            )
            for name in servers
        }
        taken: dict[str, list[Sample]] = {name: [] for name in servers}
        for _ in range(plan.rounds):
            for name in servers:
                taken[name].append(takeOne(name, counts[name]))
        made[kind] = {name: summary(samples, None) for name, samples in taken.items()}
    say(f"streams of {plan.streamed * PIECE / 1e6:,.0f} MB")
    for name in servers:
        both = {"server": servers[name], "client": clients[name]}
        before = {end: _settled(program) for end, program in both.items()}
        clients[name].ask("pieces", count=plan.streamed)
        made["pieces"][name]["grown"] = {
            end: max(0, peakOf(program.pid) - before[end]) for end, program in both.items()
        }
        made["pieces"][name]["streamed"] = plan.streamed * PIECE
    return made


def _settled(program: Program) -> int:
    program.ask("collect")
    forgetPeakOf(program.pid)
    return sizeOf(program.pid)
