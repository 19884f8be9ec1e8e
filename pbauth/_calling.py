"""
Calls of remote methods that can be cut off: by whoever waits for them, and by a deadline.

A broker of pbauth's tells the peer, which cancels what its method has begun.
"""

from __future__ import annotations

from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail, succeed

from pbauth._async import chooseReactor
from pbauth.errors import CallTimeout

#: Thirty years, in seconds.
_LONGEST = 1e9


def call(
    reference: Any, method: str, /, *args: Any, timeout: float | None = None, **kw: Any
) -> Deferred[Any]:
    """
    Call a remote method; cancelling the call, or the deadline, also cancels it at the other end.

    The method of the other end may have returned a Deferred, which is cancelled, or be a coroutine,
    in which `twisted.internet.defer.CancelledError` is raised where it waits. A peer that does not
    have pbauth goes on, and its answer is dropped.

    Args:
        reference: to what is called: a perspective, another `twisted.spread.pb.RemoteReference`, or
            a `PerspectiveClient`.
        method: its name, without prefix.
        args: as for `twisted.spread.pb.RemoteReference.callRemote`, and so are `kw`.
        timeout: seconds until the call is cancelled; `None`: it is not.

    Returns:
        Fires with the answer, or fails as the method does; with `CallTimeout` if there is no answer
        in time.

    Raises:
        TypeError: `reference` or `method` is of the wrong type.
        ValueError: `timeout` is not a number of seconds.
    """
    if not callable(getattr(reference, "callRemote", None)):
        raise TypeError(
            "reference must be a reference to a remote object, "
            f"or a PerspectiveClient, not {type(reference).__name__}."
        )
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {type(method).__name__}.")
    return send(reference, method, args, kw, checkTimeout(timeout))


def checkTimeout(timeout: Any) -> float | None:
    """
    Check a number of seconds.

    Args:
        timeout: as a caller gave it.

    Returns:
        The same, of a size that a reactor takes.

    Raises:
        ValueError: it is not a number, or less than 0.
    """
    if timeout is None:
        return None
    if type(timeout) in (int, float) and 0 <= timeout:
        # What is longer than anybody waits overflows, or never comes.
        return float(min(timeout, _LONGEST))
    raise ValueError(f"timeout must be a number of seconds, or None, not {timeout!r}.")


def send(
    reference: Any, method: str, args: Any, kw: dict[str, Any], timeout: float | None = None
) -> Deferred[Any]:
    """
    Do what `call` does, with the arguments of the method apart.

    Args:
        reference: to what is called.
        method: its name.
        args: its arguments by place.
        kw: its arguments by name.
        timeout: as for `call`.

    Returns:
        As `call`.
    """
    try:
        sent: Deferred[Any] | None = reference.callRemote(method, *args, **kw)
    except Exception:
        return fail()
    if sent is None:
        # No answer was asked for: `pbanswer=False`.
        return succeed(None)
    if sent.called and not sent.paused:
        return sent
    broker = getattr(reference, "broker", None)
    # Of others than pbauth's brokers there is none.
    withdraw = getattr(broker, "withdrawCall", None)
    requestID = getattr(broker, "currentRequestID", None)

    def cancel(_: Deferred[Any]) -> None:
        if withdraw is not None:
            withdraw(requestID)
        sent.cancel()

    answer: Deferred[Any] = Deferred(cancel)
    sent.chainDeferred(answer)
    if timeout is not None:
        clock = getattr(reference, "clock", None) or getattr(broker, "clock", None)

        def late(_: Any, seconds: float) -> NoReturn:
            raise CallTimeout(method, seconds) from None

        answer.addTimeout(timeout, chooseReactor(clock), late)
    return answer
