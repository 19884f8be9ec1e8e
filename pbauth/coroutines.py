"""Coroutines: who has not to wait costs no Deferred, and who takes too long is cut off."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pbauth.errors import LoginTimeout

_Result = TypeVar("_Result")


async def settled(value: Any) -> Any:
    """
    Args:
        value: a plain value, a Deferred, or a coroutine.

    Returns:
        The value, or what it comes to.
    """
    return await value if hasattr(value, "__await__") else value


def run(running: Coroutine[Any, Any, _Result]) -> _Result | Deferred[_Result]:
    """
    Run a coroutine.

    Args:
        running: the coroutine, not begun yet.

    Returns:
        What it returns; or, if it has to wait, a Deferred of that.

    Raises:
        Exception: whatever it raises without having waited.
    """
    try:
        waiting = running.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    return Deferred.fromCoroutine(_goOn(running, waiting))


@coroutine
def _goOn(running: Coroutine[Any, Any, _Result], waiting: Any) -> Generator[Any, Any, _Result]:
    # What `yield from` would do, for a coroutine that has been begun.
    while True:
        try:
            yield waiting
        except GeneratorExit:
            running.close()
            raise
        except BaseException as error:
            proceed = partial(running.throw, error)
        else:
            proceed = partial(running.send, None)
        try:
            waiting = proceed()
        except StopIteration as end:
            result: _Result = end.value
            return result


def within(
    seconds: float, reactor: Any, coroutine: Coroutine[Any, Any, _Result]
) -> Deferred[_Result]:
    """
    Run a coroutine within a time.

    Args:
        seconds: that it may take.
        reactor: provides `IReactorTime`.
        coroutine: to be run; it is cancelled when the time is over, and may clean up.

    Returns:
        Fires with what it returns; fails with `LoginTimeout` if the time was over.
    """

    def late(result: Any, seconds: float) -> Any:
        # Not each that is cancelled says so: a look-up of a name says that there is none.
        if isinstance(result, Failure):
            raise LoginTimeout(seconds) from None
        return result

    return Deferred.fromCoroutine(coroutine).addTimeout(seconds, reactor, late)
