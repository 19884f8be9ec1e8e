"""
How the package waits: coroutines, events that happen once, operations that callers share, and the
reactor.

A coroutine that does not have to wait costs no Deferred, and one that takes too long is cut off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate, iscoroutine
from types import coroutine
from typing import Any, Generic, TypeVar, overload

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from pbauth.errors import LoginTimeout

_Result = TypeVar("_Result")

#: Values of these types are nothing to wait for. Whether something is a coroutine of whatever kind
#: takes longer to find out.
AT_ONCE: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes, tuple, list, dict})


@overload
async def settled(value: Awaitable[_Result]) -> _Result: ...


@overload
async def settled(value: _Result | Awaitable[_Result]) -> _Result: ...


async def settled(value: Any) -> Any:
    """
    Wait for a value, if it has to be waited for.

    Args:
        value: a plain value, a Deferred, or a coroutine.

    Returns:
        The value, or the result of the Deferred or coroutine.
    """
    return await value if hasattr(value, "__await__") else value


def run(running: Coroutine[Any, Any, _Result]) -> _Result | Deferred[_Result]:
    """
    Run a coroutine, without a Deferred if it does not have to wait.

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
        if getcoroutinestate(running) is CORO_CLOSED:
            # The garbage collector has closed it, and then fired what it waited for: nobody waits
            # for what it comes to.
            waiting = Deferred()
            continue
        try:
            waiting = proceed()
        except StopIteration as end:
            result: _Result = end.value
            return result


def within(
    seconds: float, reactor: Any, coroutine: Coroutine[Any, Any, _Result]
) -> Deferred[_Result]:
    """
    Run a coroutine, and cancel it if it takes too long.

    Args:
        seconds: the most that it may take.
        reactor: provides `IReactorTime`.
        coroutine: to be run; when it is cancelled, it may clean up.

    Returns:
        Fires with what it returns; fails with `LoginTimeout` if it took too long.
    """

    def late(result: Any, seconds: float) -> Any:
        # Not each that is cancelled says so: a look-up of a name says that there is none.
        if isinstance(result, Failure):
            raise LoginTimeout(seconds) from None
        return result

    return Deferred.fromCoroutine(coroutine).addTimeout(seconds, reactor, late)


def _begun(operation: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Return what `maybeDeferred` does, without a coroutine's cost where it need not wait."""
    try:
        result = operation(*arguments)
        if iscoroutine(result):
            result = run(result)
    except BaseException:
        return fail()
    return result if isinstance(result, Deferred) else succeed(result)


def shielded(running: Deferred[_Result]) -> Deferred[_Result]:
    """
    Wait for an operation that must not be cut off half-way.

    Args:
        running: the operation.

    Returns:
        Fires with its result; may be cancelled, which leaves the operation alone.
    """
    if running.called and not running.paused:
        return running
    # Without a canceller, so that the result is dropped.
    waiter: Deferred[_Result] = Deferred()
    # It may be a failure.
    running.addBoth(waiter.callback)
    return waiter


class OneShot:
    """
    An event that happens once, or never will.

    Whoever waits for it learns of it, before and after. The first call of `fire` or `fail` counts;
    others do nothing.
    """

    __slots__ = ("_outcome", "_waiting")

    def __init__(self) -> None:
        # `True`, or why it never will happen.
        self._outcome: bool | Failure = False
        self._waiting: list[Deferred[None]] | None = None

    @property
    def fired(self) -> bool:
        """Return whether it has happened."""
        return self._outcome is True

    def fire(self) -> None:
        """Tell those who wait that it has happened."""
        if not self._outcome:
            self._outcome = True
            waiting, self._waiting = self._waiting, None
            # Whoever is told may cancel others.
            while waiting:
                waiting.pop(0).callback(None)

    def fail(self, reason: Failure) -> None:
        """
        Tell those who wait that it will never happen.

        Args:
            reason: why.
        """
        if not self._outcome:
            self._outcome = reason
            waiting, self._waiting = self._waiting, None
            while waiting:
                waiting.pop(0).errback(reason)

    def wait(self) -> Deferred[None]:
        """
        Wait for it.

        Returns:
            Fires once it has happened; fails with the reason if it never will. May be cancelled,
            which concerns nobody else.
        """
        if self._outcome is True:
            return succeed(None)
        if self._outcome:
            return fail(self._outcome)
        if self._waiting is None:
            self._waiting = []
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter


class _Flight:
    """What is under way, and who waits for it."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running: Deferred[Any] | None = None
        self.waiting: list[Deferred[Any]] = []


class SingleFlight(Generic[_Result]):
    """
    An operation that is under way once at a time, however many callers ask for it.

    All who ask while it is under way get its result.

    Args:
        operation: called with the arguments of `run`; gives a Deferred, a coroutine or a value.
    """

    __slots__ = ("_flights", "_operation")

    def __init__(self, operation: Callable[..., Any]) -> None:
        self._operation = operation
        self._flights: dict[tuple[Any, ...], _Flight] = {}

    def run(self, *arguments: Any) -> Deferred[_Result]:
        """
        Run the operation; or wait for it, if it is under way with the same arguments.

        Args:
            arguments: for the operation; they can be hashed.

        Returns:
            Fires with the result, or fails as the operation does. Cancelling it concerns nobody
            else; the operation is cancelled once all who waited for it have cancelled.
        """
        flight = self._flights.get(arguments)
        if flight is not None:
            return self._join(flight, arguments)
        flight = self._flights[arguments] = _Flight()
        running = _begun(self._operation, *arguments)
        if running.called and not running.paused and not flight.waiting:
            # There was nothing to wait for, so nobody can have joined.
            del self._flights[arguments]
            return running
        waiter = self._join(flight, arguments)
        flight.running = running
        running.addBoth(self._land, arguments, flight)
        return waiter

    def cancel(self) -> None:
        """Cancel what is under way, whatever the arguments; who waits for it is told."""
        for flight in list(self._flights.values()):
            if flight.running is not None:
                flight.running.cancel()

    def _join(self, flight: _Flight, arguments: tuple[Any, ...]) -> Deferred[_Result]:
        waiter: Deferred[_Result] = Deferred(partial(self._leave, flight, arguments))
        flight.waiting.append(waiter)
        return waiter

    def _leave(
        self, flight: _Flight, arguments: tuple[Any, ...], waiter: Deferred[_Result]
    ) -> None:
        flight.waiting.remove(waiter)
        if not flight.waiting and self._flights.get(arguments) is flight and flight.running:
            del self._flights[arguments]
            flight.running.cancel()

    def _land(self, result: Any, arguments: tuple[Any, ...], flight: _Flight) -> None:
        if self._flights.get(arguments) is flight:
            del self._flights[arguments]
        # Whoever is told may cancel others.
        while flight.waiting:
            # The result may be a failure.
            flight.waiting.pop(0).callback(result)


def chooseReactor(reactor: Any = None) -> Any:
    """
    Return the reactor that was given, or else the global one.

    Args:
        reactor: what the caller was given, a `twisted.internet.task.Clock` in tests; or `None`.

    Returns:
        That, or the global reactor where it is `None`.
    """
    if reactor is None:
        from twisted.internet import reactor as theReactor

        return theReactor
    return reactor
