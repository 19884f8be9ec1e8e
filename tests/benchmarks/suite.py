"""All of it, part after part."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pbauth.net.certificates import makeCertificate
from tests.benchmarks.bars import judge
from tests.benchmarks.calls import measureCalls
from tests.benchmarks.growth import measureConnections, measureIdentities
from tests.benchmarks.logins import measureLogins
from tests.benchmarks.machine import describe
from tests.benchmarks.memory import measureMemory
from tests.benchmarks.peers import PEERS, STOCK
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import Stage
from tests.benchmarks.stores import measureStores
from tests.benchmarks.streams import measureStreams
from tests.benchmarks.work import WORKS

#: Of the JSON.
FORMAT = 1

_Part = Callable[[Plan, Stage, str, Callable[[str], None]], Any]

_PARTS: dict[str, _Part] = {
    "streams": measureStreams,
    "logins": measureLogins,
    "memory": measureMemory,
    "identities": measureIdentities,
    "connections": measureConnections,
    "stores": measureStores,
}
CALLS = "calls"
PARTS = (CALLS, *_PARTS)


def runAll(
    plan: Plan,
    *,
    parts: Iterable[str] = PARTS,
    peers: Iterable[str] = tuple(PEERS),
    works: Iterable[str] = tuple(WORKS),
    other: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """
    Measure.

    Args:
        plan: how much.
        parts: which of `PARTS`.
        peers: whose calls. Stock PB's are always measured, since all are compared with them.
        works: which calls.
        other: a checkout of pbauth that is measured beside, by the same benchmarks.
        say: tells people how far it is, and what is left out.

    Returns:
        Everything, as it goes into the JSON: all samples, and what they come to.

    Raises:
        BenchmarkFailed: something did not work, or took too long. No process is left then, or ever.
    """
    began = time.monotonic()
    whole = Stage(began + plan.limit, other=other)
    machine = describe(whole.cores)
    leftOut = []
    measured = []
    for name in dict.fromkeys([STOCK, *peers]):
        peer = PEERS[name]
        if peer.beside and other is None:
            continue
        if peer.installed:
            measured.append(name)
        else:
            why = f"not installed: pip install {peer.distribution}"
            leftOut.append({"peer": name, "why": why})
            say(f"{peer.label} is left out, {why}")
    made: dict[str, Any] = {}

    def sayWhen(line: str) -> None:
        say(f"{time.monotonic() - began:4.0f} s  {line}")

    with tempfile.TemporaryDirectory() as folder:
        certificate = os.path.join(folder, "certificate.pem")
        with open(certificate, "wb") as file:
            file.write(makeCertificate())
        for part in parts:
            with Stage(whole.deadline, whole) as stage:
                if part == CALLS:
                    made[CALLS] = measureCalls(plan, stage, measured, works, certificate, sayWhen)
                else:
                    made[part] = _PARTS[part](plan, stage, certificate, sayWhen)
    return {
        "format": FORMAT,
        "plan": plan.name,
        "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": time.monotonic() - began,
        "machine": machine,
        "leftOut": leftOut,
        "processes": whole.pids,
        **made,
        "bars": judge(made),
    }
