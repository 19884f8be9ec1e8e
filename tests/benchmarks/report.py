"""The tables: for people at a terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from tests.benchmarks.logins import KINDS
from tests.benchmarks.peers import PEERS
from tests.benchmarks.streams import KINDS as STREAMS
from tests.benchmarks.streams import PIECE
from tests.benchmarks.work import WORKS


@frozen
class Table:
    """
    Attributes:
        title: of the table.
        heads: of the columns; the first column is text, and so are those in `texts`.
        rows: as many cells each.
        texts: numbers of more columns that are aligned to the left.
    """

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    texts: frozenset[int] = frozenset()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _range(spread: dict[str, float], number: Callable[[float], str] = _number) -> str:
    return f"{number(spread['min'])} to {number(spread['max'])}"


def _times(summary: dict[str, Any], name: str = "timesStock") -> str:
    return f"{summary[name]['median']:.2f}" if name in summary else "-"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def tables(made: dict[str, Any]) -> list[Table]:
    """
    Args:
        made: as `tests.benchmarks.suite.runAll` gives it.

    Returns:
        The tables, of what was measured.
    """
    return [
        *_bars(made["bars"]),
        *(_calls(work, peers) for work, peers in made.get("calls", {}).items()),
        *(_streams(kind, made["streams"]) for kind in STREAMS if "streams" in made),
        *(_logins(way, made["logins"]) for way in ("alone", "together") if "logins" in made),
        *([_memory(made["memory"])] if "memory" in made else []),
        *([_identities(made["identities"])] if "identities" in made else []),
        *([_connections(made["connections"])] if "connections" in made else []),
        *([_stores(made["stores"])] if "stores" in made else []),
    ]


def _bars(bars: list[dict[str, Any]]) -> list[Table]:
    rows = [
        (
            bar["work"],
            bar["compared"],
            bar["bar"],
            f"{bar['value']:,.2f}",
            "reached" if bar["reached"] else "short",
        )
        for bar in bars
        if bar["value"] is not None
    ]
    if not rows:
        return []
    heads = ("work", "pbauth, beside", "bar", "value", "so")
    return [Table("To reach", heads, rows, frozenset({1, 2, 4}))]


def _calls(work: str, peers: dict[str, Any]) -> Table:
    heads = ("calls", "a second", "from ... to", "times stock", "µs of server CPU")
    rows = [
        (
            PEERS[name].label,
            _number(summary["rate"]["median"]),
            _range(summary["rate"]),
            _times(summary),
            _number(summary["serverCpu"]["median"] * 1e6),
        )
        for name, summary in sorted(peers.items(), key=lambda item: -item[1]["rate"]["median"])
    ]
    return Table(WORKS[work].label, heads, rows)


def _streams(kind: str, found: dict[str, Any]) -> Table:
    peers = sorted(found[kind].items(), key=lambda item: -item[1]["rate"]["median"])
    if kind == "items":
        heads: tuple[str, ...] = ("streams", "a second", "from ... to", "µs of server CPU")
        rows: list[tuple[str, ...]] = [
            (
                PEERS[name].label,
                _number(summary["rate"]["median"]),
                _range(summary["rate"]),
                _number(summary["serverCpu"]["median"] * 1e6),
            )
            for name, summary in peers
        ]
        return Table(STREAMS[kind], heads, rows)
    heads = (
        "streams",
        "MB a second",
        "from ... to",
        "MB streamed",
        "MB that the server grew by",
        "MB that the client grew by",
    )
    rows = [
        (
            PEERS[name].label,
            _number(summary["rate"]["median"] * PIECE / 1e6),
            _range(summary["rate"], lambda rate: _number(rate * PIECE / 1e6)),
            _number(summary["streamed"] / 1e6),
            f"{summary['grown']['server'] / 1e6:.1f}",
            f"{summary['grown']['client'] / 1e6:.1f}",
        )
        for name, summary in peers
    ]
    return Table(STREAMS[kind], heads, rows)


def _logins(way: str, kinds: dict[str, Any]) -> Table:
    title = {
        "alone": "logins, one after the other",
        "together": "logins, several in flight",
    }[way]
    heads = ("logins", "a second", "from ... to", "times stock", "ms of server CPU", "times stock")
    rows = [
        (
            kind.label,
            _number(kinds[name][way]["rate"]["median"]),
            _range(kinds[name][way]["rate"]),
            _times(kinds[name][way]),
            _milliseconds(kinds[name][way]["serverCpu"]["median"]),
            _times(kinds[name][way], "serverCpuOfStock"),
        )
        for name, kind in KINDS.items()
        if way in kinds.get(name, {})
    ]
    return Table(title, heads, rows)


def _memory(peers: dict[str, Any]) -> Table:
    clients = max(peer["clients"] for peer in peers.values())
    heads = ("kB of the server's memory", "connected", "times stock", "logged in", "times stock")
    rows = [
        (
            PEERS[name].label,
            f"{peer['connected']['bytes']['median'] / 1000:.1f}",
            _times(peer["connected"]),
            f"{peer['loggedIn']['bytes']['median'] / 1000:.1f}",
            _times(peer["loggedIn"]),
        )
        for name, peer in peers.items()
    ]
    return Table(f"memory for each of {clients:,} clients", heads, rows)


def _identities(stores: list[dict[str, Any]]) -> Table:
    heads = ("identities in", "number", "logins a second", "from ... to", "ms of server CPU")
    rows = [
        (
            store["store"],
            f"{store['identities']:,}",
            _number(store["rate"]["median"]),
            _range(store["rate"]),
            _milliseconds(store["serverCpu"]["median"]),
        )
        for store in stores
    ]
    return Table("logins to a pbauth server with many identities, one after the other", heads, rows)


def _connections(found: list[dict[str, Any]]) -> Table:
    heads = (
        "idle clients",
        "number",
        "% of a core",
        "logins a second",
        "from ... to",
        "ms of server CPU",
    )
    rows = [
        (
            PEERS[each["peer"]].label,
            f"{each['connections']:,}",
            f"{each['idleCpu'] * 100:.1f}",
            _number(each["rate"]["median"]),
            _range(each["rate"]),
            _milliseconds(each["serverCpu"]["median"]),
        )
        for each in found
    ]
    return Table("logins beside other clients, one after the other", heads, rows)


def _stores(stores: list[dict[str, Any]]) -> Table:
    heads = (
        "identities in SQLite, three keys each",
        "µs a look-up",
        "times the first",
        "s to start",
        "MB of a server",
        "MB after look-ups",
        "imported a second",
    )
    rows = [
        (
            f"{store['identities']:,}",
            _number(store["lookup"]["seconds"]["median"] * 1e6),
            _times(store["lookup"], "timesFirst"),
            f"{store['start']['median']:.2f}",
            _number(store["memory"]["median"] / 1e6),
            _number(store["lookup"]["memory"] / 1e6),
            _number(store["import"]["rate"]),
        )
        for store in stores
    ]
    return Table("stores with many identities, filled by pbauth import", heads, rows)


def conditions(made: dict[str, Any]) -> list[str]:
    """What has to be known in order to read the tables, a line each."""
    machine = made["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    pinned = (
        f"server on core {machine['serverCore']}, client on core {machine['clientCore']}"
        if machine["serverCore"] is not None
        else "not pinned, for there is one core only"
    )
    return [
        f"{made['when']}, plan '{made['plan']}', {made['seconds']:.0f} s; "
        f"load of the machine before: {machine['load']:.2f}",
        f"{machine['cpu']}, {machine['cores']} cores; {pinned}",
        f"{machine['system']}, {machine['python']}, {machine['reactor']}, {machine['openssl']}",
        versions,
        *(f"{PEERS[each['peer']].label}: {each['why']}" for each in made["leftOut"]),
    ]


def asText(made: dict[str, Any]) -> str:
    """All tables, for a terminal."""
    blocks = ["\n".join(conditions(made))]
    for table in tables(made):
        lines = [table.heads, *table.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(table.heads))]
        # A title over the column of names saves a line.
        body = [
            "  ".join(
                cell.ljust(width) if column == 0 or column in table.texts else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        blocks.append("\n".join([table.title, "-" * len(table.title), *body]))
    return "\n\n".join(blocks) + "\n"


def asReStructuredText(made: dict[str, Any]) -> str:
    """All tables, to be included by a page."""
    blocks = [
        ".. Written by: python -m tests.benchmarks --rst FILE",
        "\n".join(f"| {line}" for line in conditions(made)),
    ]
    for table in tables(made):
        blocks.append(_simpleTable(table))
    return "\n\n".join(blocks) + "\n"


def _simpleTable(table: Table) -> str:
    # A list-table needs no widths, and takes any text.
    lines = [f".. list-table:: {table.title}", "   :header-rows: 1", ""]
    for row in (table.heads, *table.rows):
        for column, cell in enumerate(row):
            lines.append(f"   {'*' if column == 0 else ' '} - {cell}".rstrip())
    return "\n".join(lines)
