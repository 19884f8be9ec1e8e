"""Logins, by stock PB and by pbauth, of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from tests.benchmarks.peers import BESIDE, PEERS
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import Stage
from tests.benchmarks.samples import Sample, calibrate, summary, take


@frozen
class Kind:
    """
    Attributes:
        label: for people.
        peer: whose login.
        method: of the client: ``logInBy_...``.
        port: of the server.
        stock: the kind of stock PB's that it is compared with.
        slow: it takes a derivation that is slow on purpose.
    """

    label: str
    peer: str
    method: str
    port: str
    stock: str
    slow: bool = False


STOCK_TCP, STOCK_TLS = "stock", "stock-tls"

KINDS = {
    STOCK_TCP: Kind("stock PB, MD5", "stock", "tcp", "tcp", STOCK_TCP),
    "scram": Kind("SCRAM, key remembered", "pbauth", "remembered", "tcp", STOCK_TCP),
    "scram-4096": Kind("SCRAM, derived: 4,096", "pbauth", "derived", "tcp", STOCK_TCP),
    "scram-600000": Kind(
        "SCRAM, derived: 600,000", "pbauth", "derived", "slow", STOCK_TCP, slow=True
    ),
    "ed25519": Kind("ED25519", "pbauth", "key", "tcp", STOCK_TCP),
    "md5": Kind("PB-MD5, stock client", "pbauth", "legacy", "legacy", STOCK_TCP),
    STOCK_TLS: Kind("stock PB, MD5, TLS", "stock", "tls", "tls", STOCK_TLS),
    "plus": Kind("PLUS, key remembered, TLS", "pbauth", "plusRemembered", "tls", STOCK_TLS),
    "plus-4096": Kind("PLUS, derived: 4,096, TLS", "pbauth", "plusDerived", "tls", STOCK_TLS),
    "plus-by-name": Kind("PLUS, key remembered, 'tls:'", "pbauth", "plusByName", "tls", STOCK_TLS),
    "ed25519-tls": Kind("ED25519, TLS", "pbauth", "keyByTLS", "tls", STOCK_TLS),
}
# What the other checkout is measured by.
KINDS |= {
    f"{BESIDE}-{name}": evolve(
        KINDS[name], label=f"{KINDS[name].label}; the other checkout", peer=BESIDE
    )
    for name in ("scram", "plus")
}

ALONE, TOGETHER = "alone", "together"


def measureLogins(
    plan: Plan, stage: Stage, certificate: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """
    Args:
        plan: how much.
        stage: for the processes.
        certificate: the file of the servers' certificate.
        say: tells people how far it is.

    Returns:
        Summaries by the name of the kind, of logins one after the other (`ALONE`) and of several at
        once (`TOGETHER`).
    """
    shared: dict[str, Any] = {"certificate": certificate, "accounts": plan.together}
    servers = {
        "stock": stage.server(PEERS["stock"].path, **shared),
        "pbauth": stage.server(PEERS["pbauth"].path, **shared, logins=True),
    }
    if stage.other is not None:
        servers[BESIDE] = stage.server(PEERS[BESIDE].path, beside=True, **shared, logins=True)
    clients = {
        name: stage.client(PEERS[name].path, beside=name == BESIDE, certificate=certificate)
        for name in servers
    }
    where = {name: server.ask("listen") for name, server in servers.items()}

    made: dict[str, Any] = {}
    for way, atOnce in ((ALONE, 1), (TOGETHER, plan.together)):

        def takeOne(name: str, count: int, atOnce: int = atOnce) -> Sample:
            kind = KINDS[name]
            return take(
                servers[kind.peer],
                clients[kind.peer],
                "logins",
                kind=kind.method,
                port=where[kind.peer][kind.port],
                accounts=where[kind.peer]["accounts"],
                count=count,
                together=atOnce,
            )

        taken: dict[str, list[Sample]] = {}
        for slow in (False, True):
            kinds = [
                name for name, kind in KINDS.items() if kind.slow is slow and kind.peer in servers
            ]
            if slow and way == TOGETHER and not plan.slowTogether:
                continue
            say(f"logins, {way}" + (", with slow derivations" if slow else ""))
            counts = {
                # One after the other, two slow ones tell as much as many.
                name: min(2 if way == ALONE else atOnce, plan.mostLogins)
                if slow
                else calibrate(
                    lambda count, name=name: takeOne(name, count),  # type: ignore[misc]
                    plan.loginSeconds,
                    max(5, atOnce),
                    plan.mostLogins,
                )
                for name in kinds
            }
            taken |= {name: [] for name in kinds}
            for _ in range(plan.slowRounds if slow else plan.rounds):
                for name in kinds:
                    taken[name].append(takeOne(name, counts[name]))
        for name, samples in taken.items():
            made.setdefault(name, {})[way] = summary(samples, taken[KINDS[name].stock])
    return made
