"""Run a coroutine from a command line: a reactor for once, and errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

_Result = TypeVar("_Result")


def runOnce(main: Callable[[Any], Coroutine[Any, Any, _Result]]) -> _Result:
    """
    Run the reactor until a coroutine is done.

    Args:
        main: takes the reactor.

    Returns:
        What the coroutine returns.

    Raises:
        KeyboardInterrupt: it was interrupted (Ctrl-C, or a polite kill).
        Exception: whatever the coroutine raised.
    """
    outcome: list[_Result | Failure] = []

    def start(reactor: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(main(reactor)).addBoth(outcome.append)

    try:
        react(start, ())
    except SystemExit:
        pass
    if not outcome:
        raise KeyboardInterrupt
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[return-value]
