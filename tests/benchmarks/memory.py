"""Memory of the server for each client, connected and logged in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.peers import PEERS, STOCK
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import Program, Stage
from tests.benchmarks.samples import ratios, spread

#: What each client of a server of its own logs in to.
_PEERS = (STOCK, "pbauth")

#: How many log in and out before anything is measured.
_WARM_UP = 20

#: How many clients are connected before the first look.
_FIRST = 500


def measureMemory(
    plan: Plan, stage: Stage, certificate: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """
    Clients connect, and later log in on the same connections; each has an account of its own, which
    was there before.

    Args:
        plan: how much.
        stage: tells for how long; all processes are of stages of their own.
        certificate: the file of the servers' certificate.
        say: tells people how far it is.

    Returns:
        For each peer: spreads of the bytes for each client that is ``connected`` and that is
        ``loggedIn``, and of the ratios to stock PB's.
    """
    taken: dict[str, dict[str, list[float]]] = {
        name: {"connected": [], "loggedIn": []} for name in _PEERS
    }
    for number in range(plan.memoryRounds):
        say(f"memory of {plan.held} clients, {number + 1} of {plan.memoryRounds}")
        for name in _PEERS:
            with Stage(stage.deadline, stage) as fresh:
                for state, size in _grow(plan, fresh, name, certificate).items():
                    taken[name][state].append(size)
    made: dict[str, Any] = {}
    for name in _PEERS:
        made[name] = {"clients": plan.held}
        for state, sizes in taken[name].items():
            compared = ratios(sizes, taken[STOCK][state])
            made[name][state] = {
                "samples": sizes,
                "bytes": spread(sizes),
                **({"timesStock": spread(compared)} if compared else {}),
            }
    return made


def _grow(plan: Plan, stage: Stage, name: str, certificate: str) -> dict[str, float]:
    options = {"mostConnected": 2 * plan.held} if name == "pbauth" else {}
    server = stage.server(
        PEERS[name].path, certificate=certificate, accounts=max(plan.held, _WARM_UP), **options
    )
    client = stage.client(PEERS[name].path, certificate=certificate)
    where = server.ask("listen")
    client.ask(
        "logins",
        kind="tcp" if name == STOCK else "remembered",
        port=where["tcp"],
        accounts=where["accounts"],
        count=min(_WARM_UP, plan.held),
    )
    # The first ones fit into memory that importing the modules has left free.
    first = min(_FIRST, plan.held // 2)
    client.ask("hold", port=where["tcp"], upTo=first)
    before = _size(server)
    client.ask("hold", port=where["tcp"], upTo=plan.held)
    connected = _size(server)
    client.ask("logHeldIn", accounts=where["accounts"])
    loggedIn = _size(server)
    forConnection = (connected - before) / (plan.held - first)
    return {
        "connected": forConnection,
        "loggedIn": forConnection + (loggedIn - connected) / plan.held,
    }


def _size(server: Program) -> int:
    server.ask("collect")
    return int(server.ask("usage")["rss"])
