"""What the objects of the wire have in common."""

from __future__ import annotations

import inspect
import sys
from functools import lru_cache
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb
from twisted.spread.jelly import InsecureJelly

from pbauth._async import run, shielded
from pbauth.errors import ProtocolViolation


class WireObject(pb.Referenceable):
    """
    A `Referenceable` whose methods may be coroutines.  A call that does not fit is answered by
    `ProtocolViolation`: stock PB would write the arguments, which may be secrets, to the log.
    """

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Call the method, and serialise its result (see `twisted.spread.pb.Referenceable`)."""
        method, arguments, keywords = readCall(self, "remote", broker, message, args, kw)
        result = method(*arguments, **keywords)
        if type(result) is CoroutineType:
            result = run(result)
        if isinstance(result, Deferred):
            # A caller that gives up does not leave an account half changed.
            result = shielded(result)
        return broker.serialize(result)


def readCall(
    called: Any, prefix: str, broker: Any, message: Any, args: Any, kw: Any, perspective: Any = None
) -> tuple[Any, Any, dict[str, Any]]:
    """
    Read a call as it came, and check whether it fits.

    Args:
        called: the object that is called.
        prefix: of its methods for that, without the underscore.
        broker: of the connection.
        message: the name of the method.
        args: arguments by place, serialised.
        kw: arguments by name, serialised.
        perspective: for whom it is unserialised, or `None`.

    Returns:
        The method, its arguments by place, and those by name.

    Raises:
        ProtocolViolation: it does not fit.
    """
    name = message.decode("utf-8") if isinstance(message, bytes) else message
    method = getattr(called, f"{prefix}_{name}", None)
    if method is None:
        raise ProtocolViolation(f"There is no method {name[:40]!r} here.")
    try:
        arguments = broker.unserialize(args, perspective)
        keywords = broker.unserialize(kw, perspective)
        if not isinstance(arguments, (tuple, list)) or not isinstance(keywords, dict):
            raise TypeError("These are not arguments.")
        if keywords:
            keywords = {
                key.decode("utf-8") if isinstance(key, bytes) else key: value
                for key, value in keywords.items()
            }
            inspect.signature(method).bind(*arguments, **keywords)
        else:
            _checkCount(method.__func__, len(arguments))
    except (InsecureJelly, TypeError, ValueError, LookupError, AttributeError, AssertionError):
        raise ProtocolViolation(f"These are not the arguments of {name[:40]!r}.") from None
    return method, arguments, keywords


@lru_cache(maxsize=256)
def _arity(function: Any) -> tuple[int, int]:
    """Return the least and the most arguments by place, without ``self``."""
    _, *parameters = inspect.signature(function).parameters.values()
    open_ = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    needed = [
        each
        for each in parameters
        if each.kind is not each.VAR_POSITIONAL and each.default is each.empty
    ]
    return len(needed), sys.maxsize if open_ else len(parameters)


def _checkCount(function: Any, count: int) -> None:
    least, most = _arity(function)
    if not least <= count <= most:
        raise TypeError("There are too many arguments, or too few.")


def asName(name: Any) -> str:
    """
    Return a name as text.

    Args:
        name: what the peer sent as a name; clients of Twisted 1.x and stock Twisted send bytes.

    Returns:
        The text; empty, which is nobody's name, where it is not a name.
    """
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace")
    return name if isinstance(name, str) else ""


def asFlag(value: Any) -> bool:
    """
    Return a truth value that a peer has sent.

    Raises:
        ProtocolViolation: it is none.
    """
    if type(value) is not bool:
        raise ProtocolViolation("This is not a truth value.")
    return value
