"""One sample after the other, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from tests.benchmarks.program import Program

#: What `tests.benchmarks.child.Watch` gives, and the seconds of CPU of the server.
Sample = dict[str, Any]


def take(server: Program, client: Program, do: str, **arguments: Any) -> Sample:
    """Have the client take a sample, and add what it cost the server."""
    server.ask("collect")
    before = server.ask("usage")["cpu"]
    sample: Sample = client.ask(do, **arguments)
    sample["serverCpu"] = server.ask("usage")["cpu"] - before
    return sample


def calibrate(takeOne: Callable[[int], Sample], seconds: float, first: int, most: int) -> int:
    """
    Warm up, and find out how many calls or logins take so many seconds.

    Args:
        takeOne: takes a sample of so many.
        seconds: that a sample should take.
        first: how many to try first.
        most: how many there may be.

    Returns:
        How many a sample should have: at least as many as `first` or `most`.
    """
    count = min(first, most)
    if not seconds:
        return count
    while True:
        took = max(takeOne(count)["seconds"], 1e-6)
        wanted = min(most, max(first, int(count * seconds / took)))
        if took >= seconds / 3 or wanted <= count:
            return wanted
        count = min(wanted, count * 10)


def spread(values: list[float]) -> dict[str, float]:
    """The median of some values, the least and the greatest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def rates(samples: list[Sample]) -> list[float]:
    """How many there were in a second."""
    return [sample["count"] / sample["seconds"] for sample in samples]


def costs(samples: list[Sample], of: str) -> list[float]:
    """Seconds of CPU for one; `of` is ``"serverCpu"`` or ``"clientCpu"``."""
    return [sample[of] / sample["count"] for sample in samples]


def ratios(values: list[float], others: list[float]) -> list[float]:
    """Round by round, so that what slows the machine for a while slows both."""
    return [value / other for value, other in zip(values, others, strict=False) if other]


def summary(samples: list[Sample], stock: list[Sample] | None) -> dict[str, Any]:
    """
    What some samples come to.

    Args:
        samples: one for each round.
        stock: those of stock PB, of the same rounds; `None`: there are none.

    Returns:
        The spread of the rate, of the CPU for one at both ends, and of the ratios to stock PB's.
    """
    made: dict[str, Any] = {
        "samples": samples,
        "rate": spread(rates(samples)),
        "serverCpu": spread(costs(samples, "serverCpu")),
        "clientCpu": spread(costs(samples, "clientCpu")),
    }
    if stock is not None:
        for name, compared in (
            ("timesStock", ratios(rates(samples), rates(stock))),
            ("serverCpuOfStock", ratios(costs(samples, "serverCpu"), costs(stock, "serverCpu"))),
        ):
            if compared:
                made[name] = spread(compared)
    return made
