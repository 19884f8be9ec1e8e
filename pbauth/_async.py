"""
Coroutines, one-time events, and the reactor: how the package waits.

A coroutine that does not have to wait costs no Deferred, and one that takes too long is cut off.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
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


class Milestone:
    """
    One of them. The first word counts: what was reached can't be missed any more, and the other
    way round.
    """

    __slots__ = ("_missed", "_waiting", "reached")

    def __init__(self) -> None:
        self.reached = False
        self._missed: Failure | None = None
        self._waiting: list[Deferred[None]] | None = None

    def reach(self) -> None:
        """It happened."""
        if not self.reached and self._missed is None:
            self.reached = True
            for waiter in self._takeWaiting():
                waiter.callback(None)

    def miss(self, reason: Failure) -> None:
        """It will never happen."""
        if not self.reached and self._missed is None:
            self._missed = reason
            for waiter in self._takeWaiting():
                waiter.errback(reason)

    def wait(self) -> Deferred[None]:
        """
        Returns:
            Fires once it has happened; fails with the reason if it never will. May be cancelled.
        """
        if self.reached:
            return succeed(None)
        if self._missed is not None:
            return fail(self._missed)
        if self._waiting is None:
            self._waiting = []
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def _takeWaiting(self) -> list[Deferred[None]]:
        waiting, self._waiting = self._waiting, None
        return waiting or []


def chooseReactor(reactor: Any = None) -> Any:
    """
    Args:
        reactor: what the caller was given, a `twisted.internet.task.Clock` in tests; or `None`.

    Returns:
        That, or the global reactor where it is `None`.
    """
    if reactor is None:
        from twisted.internet import reactor as theReactor

        return theReactor
    return reactor
