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
    """

    label: str
    inFlight: int
    value: Any = field(repr=False)
    first: int = IN_FLIGHT


WORKS = {
    "sequential": Work("one call after the other, an int", 1, 7, first=5),
    "int": Work(f"{IN_FLIGHT} calls in flight, an int", IN_FLIGHT, 7),
    "text": Work(f"{IN_FLIGHT} calls in flight, a str of 1 kB", IN_FLIGHT, "0123456789" * 100),
    "dict": Work(
        f"{IN_FLIGHT} calls in flight, a small dict",
        IN_FLIGHT,
        {"name": "alice", "x": 3, "y": 7, "ok": True, "note": None},
    ),
    "list": Work(
        "one call after the other, a list of 100 kB", 1, list(range(LIST_LENGTH)), first=1
    ),
}
