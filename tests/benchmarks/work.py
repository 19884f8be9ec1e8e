"""What is called: a method that gives back what it was given, with these values."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

#: Stock PB needs about 100 kB for a list of the numbers up to this.
LIST_LENGTH = 29_128

#: How many calls are under way at once where calls are pipelined.
IN_FLIGHT = 100


@frozen
class Work:
    """
    Attributes:
        label: for people.
        inFlight: how many calls are under way at once.
        value: the argument, and so the answer.
        first: how many calls to try first.
        without: peers that don't take such values, by their names.
    """

    label: str
    inFlight: int
    value: Any = field(repr=False)
    first: int = IN_FLIGHT
    without: frozenset[str] = frozenset()


def _one(label: str, value: Any, without: frozenset[str] = frozenset()) -> Work:
    return Work(f"one call after the other, {label}", 1, value, 1, without)


# Its messages are text.
_NO_BYTES = frozenset({"pyro"})


WORKS = {
    "sequential": Work("one call after the other, an int", 1, 7, first=5),
    "int": Work(f"{IN_FLIGHT} calls in flight, an int", IN_FLIGHT, 7),
    "text": Work(f"{IN_FLIGHT} calls in flight, a str of 1 kB", IN_FLIGHT, "0123456789" * 100),
    "dict": Work(
        f"{IN_FLIGHT} calls in flight, a small dict",
        IN_FLIGHT,
        {"name": "alice", "x": 3, "y": 7, "ok": True, "note": None},
    ),
    "list": _one(f"a list of {LIST_LENGTH:,} ints", list(range(LIST_LENGTH))),
    "texts": _one(
        "a list of 10,000 short strs", [f"word {number:04x}" for number in range(10_000)]
    ),
    "pairs": _one(
        "a dict of 5,000 strs to ints", {f"key{number}": number * 7 for number in range(5000)}
    ),
    "records": _one(
        "a list of 2,000 small dicts",
        [
            {"name": f"user{number}", "x": number % 19, "y": number % 17, "ok": True, "note": None}
            for number in range(2000)
        ],
    ),
    "16KiB": _one("16 KiB of bytes", bytes(range(256)) * 64, _NO_BYTES),
    "512KiB": _one("512 KiB of bytes", bytes(range(256)) * 2048, _NO_BYTES),
}
