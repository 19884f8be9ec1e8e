"""
References that can be taken back.

What a perspective's methods give to the client - objects, and what the methods of those give, and
so on - belongs to the session that the perspective was called by.  When the session ends, it ends
with it: a broker puts an object in its place that only says so.  What two sessions of one
connection were given ends with the last of them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.spread import pb

from pbauth.errors import Detached


class GivingBroker:
    """
    A broker as the methods of a session see it: what is serialised by it belongs to the session.

    Args:
        broker: of the connection.
        sessions: that gives; several, where they share an object that was called.
    """

    def __init__(self, broker: Any, sessions: frozenset[Any]) -> None:
        self._broker = broker
        self._sessions = sessions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def unserialize(self, sexp: Any, perspective: Any = None) -> Any:
        """As the broker does."""
        return self._broker.unserialize(sexp, perspective)

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        """As the broker does, for the session; also what a Deferred comes to later."""
        if isinstance(object, (Deferred, Coroutine)):
            later: Deferred[Any] = ensureDeferred(object)
            return later.addCallback(self.serialize, *args, **kw)
        broker = self._broker
        before, broker.givers = broker.givers, self._sessions
        try:
            return broker.serialize(object, *args, **kw)
        finally:
            broker.givers = before


class GivenObject:
    """
    An object that a session gave, as the broker calls it.

    Args:
        object: the object itself.
        broker: gives what it gives for the same sessions.
        sessions: that gave it.
    """

    def __init__(self, object: Any, broker: GivingBroker, sessions: frozenset[Any]) -> None:
        self._object = object
        self._broker = broker
        self._sessions = sessions

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Pass a call on; while it is under way its session may end."""
        result = self._object.remoteMessageReceived(self._broker, message, args, kw)
        if isinstance(result, Deferred) and len(self._sessions) == 1:
            (session,) = self._sessions
            return session.watch(result)
        return result


class RevokedObject(pb.Referenceable):
    """What stands in the place of an object that was taken back."""

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Refuse every call."""
        raise Detached()


class RevokedCache(pb.Cacheable):
    """What stands in the place of a `Cacheable` that was taken back."""

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        """Nobody observes it."""


class Given:
    """
    What belongs to whom on one connection.

    Attributes:
        objects: the sessions by the number of the object.
        caches: the sessions by the number of the `Cacheable`.
    """

    __slots__ = ("caches", "objects")

    def __init__(self) -> None:
        self.objects: dict[Any, frozenset[Any]] = {}
        self.caches: dict[Any, frozenset[Any]] = {}

    def note(
        self,
        kind: dict[Any, frozenset[Any]],
        luid: Any,
        new: bool,
        givers: frozenset[Any] | None,
    ) -> None:
        """
        Note that something was given.

        Args:
            kind: `objects` or `caches`.
            luid: its number.
            new: it was not given before.
            givers: the sessions that gave it; `None`: it was given outside of sessions, and stays.
        """
        if new:
            if givers is not None:
                kind[luid] = givers
        elif luid in kind:
            if givers is None:
                del kind[luid]
            else:
                kind[luid] |= givers

    def takeFrom(self, kind: dict[Any, frozenset[Any]], session: Any) -> Iterable[Any]:
        """
        A session ends.

        Returns:
            The numbers of what belonged to it alone, and now to nobody.
        """
        ended = []
        for luid, sessions in list(kind.items()):
            if session in sessions:
                left = sessions - {session}
                if left:
                    kind[luid] = left
                else:
                    del kind[luid]
                    ended.append(luid)
        return ended
