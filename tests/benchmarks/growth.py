"""What a login costs where there are many identities, or many other clients."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.peers import PEERS, STOCK
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import Program, Stage
from tests.benchmarks.samples import Sample, summary, take

_OURS = PEERS["pbauth"].path

#: The kind of login, of each peer.
_METHODS = {STOCK: "tcp", "pbauth": "remembered"}


def _takeOne(plan: Plan, server: Program, client: Program, where: Any, method: str) -> Sample:
    return take(
        server,
        client,
        "logins",
        kind=method,
        port=where["tcp"],
        accounts=where["accounts"],
        count=plan.growthLogins,
    )


def measureIdentities(
    plan: Plan, stage: Stage, certificate: str, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """
    Logins one after the other, with key remembered, by accounts all over the store.

    Args:
        plan: how much.
        stage: tells for how long; all processes are of stages of their own.
        certificate: the file of the servers' certificate.
        say: tells people how far it is.

    Returns:
        A summary for each store (``"memory"``, ``"SQLite"``) and number of identities.
    """
    stores = [("memory", number) for number in plan.identities]
    stores += [("SQLite", number) for number in plan.storedIdentities]
    say(f"identities: stores of up to {max(number for _, number in stores):,}")
    with tempfile.TemporaryDirectory() as folder, Stage(stage.deadline, stage) as fresh:
        servers = []
        for store, number in stores:
            path = os.path.join(folder, f"{number}.sqlite") if store == "SQLite" else None
            server = fresh.server(_OURS, certificate=certificate, accounts=number, store=path)
            server.tell("listen")
            servers.append(server)
        client = fresh.client(_OURS, certificate=certificate)
        where = [server.hear() for server in servers]
        taken: list[list[Sample]] = [[] for _ in stores]
        # The first round warms up.
        for number in range(plan.growthRounds + 1):
            for index, server in enumerate(servers):
                sample = _takeOne(plan, server, client, where[index], _METHODS["pbauth"])
                if number:
                    taken[index].append(sample)
    return [
        {"store": store, "identities": number, **summary(samples, None)}
        for (store, number), samples in zip(stores, taken, strict=True)
    ]


def measureConnections(
    plan: Plan, stage: Stage, certificate: str, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """
    Logins one after the other, while other clients are logged in and do nothing; and what part of a
    core these take from the server (``idleCpu``).

    Args:
        plan: how much.
        stage: for the processes.
        certificate: the file of the servers' certificate.
        say: tells people how far it is.

    Returns:
        A summary for each peer and number of idle clients.
    """
    made = []
    accounts = max(20, *plan.connections)
    servers = {
        name: stage.server(PEERS[name].path, certificate=certificate, accounts=accounts)
        for name in _METHODS
    }
    idle = {name: stage.client(PEERS[name].path, certificate=certificate) for name in _METHODS}
    clients = {name: stage.client(PEERS[name].path, certificate=certificate) for name in _METHODS}
    where = {name: server.ask("listen") for name, server in servers.items()}
    # Each takes a file from the server, and one from the client.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100
    for connections in (min(number, most) for number in plan.connections):
        say(f"logins beside {connections} idle clients")
        taken: dict[str, list[Sample]] = {name: [] for name in _METHODS}
        idling: dict[str, float] = {}
        for name in _METHODS:
            # In steps: a server need not take more clients at once that have not logged in.
            for step in [*range(200, connections, 200), connections]:
                idle[name].ask("hold", port=where[name]["tcp"], upTo=step)
                idle[name].ask("logHeldIn", accounts=accounts)
            servers[name].ask("collect")
            before = servers[name].ask("usage")["cpu"]
            time.sleep(plan.idleSeconds)
            idling[name] = (servers[name].ask("usage")["cpu"] - before) / plan.idleSeconds
        for number in range(plan.growthRounds + 1):
            for name, method in _METHODS.items():
                sample = _takeOne(plan, servers[name], clients[name], where[name], method)
                if number:
                    taken[name].append(sample)
        made += [
            {
                "peer": name,
                "connections": connections,
                "idleCpu": idling[name],
                **summary(samples, taken[STOCK]),
            }
            for name, samples in taken.items()
        ]
    return made
