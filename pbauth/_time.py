"""
Time: intervals go by the monotonic clock, and only what people read by the wall clock.

Twisted's reactors go by the wall clock.  If it is set back an hour, whatever was to happen in a
second happens an hour later: a locked user stays logged in, and who has to wait waits on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import ReactorBase


def monotonic(reactor: Any) -> Callable[[], float]:
    """
    Return what gives the time for intervals.

    Args:
        reactor: provides `IReactorTime`.

    Returns:
        Gives seconds: of the system's monotonic clock, or of the reactor if that has a time of its
        own, as a `twisted.internet.task.Clock` has.
    """
    return time.monotonic if isinstance(reactor, ReactorBase) else reactor.seconds


def wallTime(reactor: Any) -> float:
    """
    Return the time of day, in seconds since the epoch.

    Args:
        reactor: provides `IReactorTime`; one that has a time of its own has that.
    """
    return time.time() if isinstance(reactor, ReactorBase) else float(reactor.seconds())


def useMonotonicClock(reactor: Any) -> None:
    """
    Let the timers of a reactor go by the monotonic clock, those included that are set already.

    Args:
        reactor: one of Twisted's; others are left alone.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is time.monotonic:
        return
    shift = time.monotonic() - reactor.seconds()
    pending: Any = reactor.getDelayedCalls()
    for call in pending:
        # All by the same, so that their order stays.
        call.time += shift
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
