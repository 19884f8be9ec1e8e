"""What is to be reached, and whether it was."""

from __future__ import annotations

import operator
from collections.abc import Callable
from statistics import median
from typing import Any

from attrs import frozen

from tests.benchmarks.samples import rates, ratios
from tests.benchmarks.work import WORKS

#: Gives what was measured, or `None` if it was not.
_Find = Callable[[dict[str, Any]], "float | None"]

_COMPARED = {"at least": operator.ge, "at most": operator.le, "more than": operator.gt}


@frozen
class Bar:
    """
    Attributes:
        work: for people.
        compared: with what.
        how: ``"at least"``, ``"at most"`` or ``"more than"``.
        limit: the bar.
        find: what to hold against it.
    """

    work: str
    compared: str
    how: str
    limit: float
    find: _Find


def _calls(work: str, other: str, one: str = "pbauth") -> _Find:
    def find(made: dict[str, Any]) -> float | None:
        peers = made.get("calls", {}).get(work, {})
        if not {one, other} <= peers.keys():
            return None
        ours, theirs = (rates(peers[name]["samples"]) for name in (one, other))
        return median(ratios(ours, theirs))

    return find


def _leastOfPipelined(other: str) -> _Find:
    finds = [_calls(name, other) for name, work in WORKS.items() if work.inFlight > 1]

    def find(made: dict[str, Any]) -> float | None:
        found = [value for each in finds if (value := each(made)) is not None]
        return min(found, default=None)

    return find


def _median(*path: str) -> _Find:
    def find(made: dict[str, Any]) -> float | None:
        here: Any = made
        for name in path:
            here = here.get(name, {})
        value: float | None = here.get("median")
        return value

    return find


def _logins(kind: str, way: str, what: str) -> _Find:
    return _median("logins", kind, way, what)


def _store(*path: str) -> _Find:
    def find(made: dict[str, Any]) -> float | None:
        # Of the largest.
        here: Any = made["stores"][-1] if made.get("stores") else {}
        for name in path:
            here = here.get(name, {})
        return here or None

    return find


def _idleClients(what: str) -> _Find:
    def find(made: dict[str, Any]) -> float | None:
        # With the fewest clients, and with the most.
        ours = [each for each in made.get("connections", ()) if each["peer"] == "pbauth"]
        if not ours:
            return None
        if what == "idleCpu":
            return float(ours[-1]["idleCpu"]) * 100
        return float(ours[0]["rate"]["median"] / ours[-1]["rate"]["median"])

    return find


def _memoryOfServers(made: dict[str, Any]) -> float | None:
    sizes = [store["memory"]["median"] for store in made.get("stores", ())]
    return sizes[-1] / sizes[0] if sizes else None


BARS = [
    Bar("pipelined calls, int", "stock PB", "at least", 3.0, _calls("int", "stock")),
    Bar("pipelined calls, int", "Pyro5's batches", "more than", 1.0, _calls("int", "pyro")),
    Bar("pipelined calls, 1 kB", "stock PB", "at least", 3.0, _calls("text", "stock")),
    Bar("pipelined calls, 1 kB", "Pyro5's batches", "more than", 1.0, _calls("text", "pyro")),
    Bar("pipelined calls, small dict", "stock PB", "at least", 4.0, _calls("dict", "stock")),
    Bar("sequential calls", "stock PB", "at least", 1.3, _calls("sequential", "stock")),
    Bar("sequential calls", "RPyC", "more than", 1.0, _calls("sequential", "rpyc")),
    Bar("sequential calls", "bytes by Twisted", "at least", 0.65, _calls("sequential", "echo")),
    Bar("TLS, pipelined calls, int", "TCP", "at least", 0.7, _calls("int", "pbauth", "pbauth-tls")),
    *(
        bar
        for work in ("list", "texts", "pairs", "records")
        for bar in (
            Bar(WORKS[work].label, "gRPC with JSON", "more than", 1.0, _calls(work, "grpc")),
            Bar(WORKS[work].label, "stock PB", "at least", 20, _calls(work, "stock")),
        )
    ),
    *(
        Bar(WORKS[work].label, "bytes by Twisted", "at least", 1 / 1.2, _calls(work, "echo"))
        for work in ("16KiB", "512KiB")
    ),
    *(
        Bar("pipelined calls, the worst", label, "more than", 1.0, _leastOfPipelined(name))
        for name, label in (("foolscap", "Foolscap"), ("grpc", "gRPC aio"), ("rpyc", "RPyC"))
    ),
    *(
        Bar(f"logins, TCP, {way}", "stock PB", "at least", 1.0, _logins("scram", way, "timesStock"))
        for way in ("alone", "together")
    ),
    *(
        Bar(
            f"server CPU per login, {way}",
            "stock PB",
            "at most",
            1.0,
            _logins("scram", way, "serverCpuOfStock"),
        )
        for way in ("alone", "together")
    ),
    *(
        Bar(
            f"logins, TLS, PLUS, {way}",
            "stock PB, TLS",
            "at least",
            1.0,
            _logins("plus", way, "timesStock"),
        )
        for way in ("alone", "together")
    ),
    Bar(
        "memory per logged-in client",
        "stock PB",
        "at most",
        0.9,
        _median("memory", "pbauth", "loggedIn", "timesStock"),
    ),
    Bar("% of a core for idle clients, the most", "-", "at most", 2.0, _idleClients("idleCpu")),
    Bar("time of a login beside them", "alone", "at most", 1.3, _idleClients("rate")),
    Bar(
        "look-up in the largest SQLite file",
        "in the smallest",
        "at most",
        1.5,
        _store("lookup", "timesFirst", "median"),
    ),
    Bar("memory of a server on it", "on the smallest", "at most", 1.05, _memoryOfServers),
    Bar("start of a server on it, seconds", "-", "at most", 2.0, _store("start", "median")),
    Bar("import of verifiers, users a second", "-", "at least", 20_000, _store("import", "rate")),
]


def judge(made: dict[str, Any]) -> list[dict[str, Any]]:
    """
    Args:
        made: what the parts gave, by their names.

    Returns:
        For each bar the value and whether it was reached; `None` for both if it was not measured.
    """
    judged = []
    for bar in BARS:
        value = bar.find(made)
        judged.append(
            {
                "work": bar.work,
                "compared": bar.compared,
                "bar": f"{bar.how} {bar.limit:,.2f}",
                "value": value,
                "reached": None if value is None else _COMPARED[bar.how](value, bar.limit),
            }
        )
    return judged
