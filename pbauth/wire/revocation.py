"""
Exports of a session: references that can be taken back.

What a perspective's methods export to the client - objects, and what the methods of those export,
and so on - belongs to the session that the perspective was called by.  When the session ends, its
exports end: an object takes their place that only says so.  What two sessions of one connection
have exported ends with the last of them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.spread import pb

from pbauth.errors import Detached
from pbauth.wire.twistedprivate import released


class ExportingBroker:
    """
    A broker as the methods of a session see it: what is serialised by it belongs to the session.

    Args:
        broker: of the connection.
        exports: of the connection.
        sessions: that export; several, where they share an object that was called.
    """

    def __init__(self, broker: Any, exports: Exports, sessions: frozenset[Any]) -> None:
        self._broker = broker
        self._exports = exports
        self._sessions = sessions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def unserialize(self, sexp: Any, perspective: Any = None) -> Any:
        """Unjelly an expression, as the broker does."""
        return self._broker.unserialize(sexp, perspective)

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        """Jelly an object for the sessions; also what a Deferred comes to later."""
        if isinstance(object, (Deferred, Coroutine)):
            later: Deferred[Any] = ensureDeferred(object)
            return later.addCallback(self.serialize, *args, **kw)
        exports = self._exports
        before, exports.exporters = exports.exporters, self._sessions
        try:
            return self._broker.serialize(object, *args, **kw)
        finally:
            exports.exporters = before


class ExportedObject:
    """
    An object that a session exported, as the broker calls it.

    Args:
        object: the object itself.
        broker: exports what the object's methods give for the same sessions.
        sessions: that exported it.
    """

    def __init__(self, object: Any, broker: ExportingBroker, sessions: frozenset[Any]) -> None:
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
    """What takes the place of an object that was taken back."""

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Refuse every call."""
        raise Detached()


class RevokedCache(pb.Cacheable):
    """What takes the place of a `Cacheable` that was taken back."""

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        """Do nothing: there is no observer."""


class Exports:
    """
    What the sessions of one connection have exported.

    Attributes:
        exporters: the sessions that what is serialised now belongs to; `None`: to none, so that
            it stays.
    """

    __slots__ = ("_caches", "_objects", "exporters")

    def __init__(self) -> None:
        self.exporters: frozenset[Any] | None = None
        # The sessions by the number of the object, and by that of the `Cacheable`.
        self._objects: dict[Any, frozenset[Any]] = {}
        self._caches: dict[Any, frozenset[Any]] = {}

    def addObject(self, luid: Any, new: bool) -> frozenset[Any] | None:
        """
        Note that the peer gets a reference to an object.

        Args:
            luid: its number.
            new: the peer had none before.

        Returns:
            The sessions that it belonged to before, for `putBack`.
        """
        return self._add(self._objects, luid, new)

    def addCache(self, luid: Any) -> frozenset[Any] | None:
        """
        Note that the peer gets a copy of a `Cacheable`, which it had not before.

        Args:
            luid: its number.

        Returns:
            As for `addObject`.
        """
        return self._add(self._caches, luid, True)

    def putBack(self, isCache: bool, luid: Any, sessions: frozenset[Any] | None) -> None:
        """
        Note that the peer does not get something after all.

        Args:
            isCache: it is a `Cacheable`.
            luid: its number.
            sessions: that it belonged to before.
        """
        exported = self._caches if isCache else self._objects
        if sessions is None:
            exported.pop(luid, None)
        else:
            exported[luid] = sessions

    def _add(
        self, exported: dict[Any, frozenset[Any]], luid: Any, new: bool
    ) -> frozenset[Any] | None:
        before = None if new else exported.get(luid)
        exporters = self.exporters
        if new:
            if exporters is not None:
                exported[luid] = exporters
        elif luid in exported:
            if exporters is None:
                del exported[luid]
            else:
                exported[luid] |= exporters
        return before

    def sessionsOf(self, luid: Any) -> frozenset[Any] | None:
        """
        Return the sessions that a `Cacheable` belongs to.

        Args:
            luid: its number.

        Returns:
            The sessions; `None` if it belongs to none.
        """
        return self._caches.get(luid)

    def objectToCall(self, broker: Any, luid: Any, found: Any) -> Any:
        """
        Give what the broker calls when the peer calls an object.

        Args:
            broker: of the connection.
            luid: the number of the object, or its name.
            found: the object.

        Returns:
            The object; or, if sessions exported it, what calls it for them.
        """
        sessions = self._objects.get(luid)
        if sessions is None:
            return found
        return ExportedObject(found, ExportingBroker(broker, self, sessions), sessions)

    def revoke(self, broker: Any, session: Any) -> None:
        """
        End what only one session has exported: from now on calls give `Detached`.

        Args:
            broker: of the connection.
            session: the session.
        """
        for luid in _takeFrom(self._objects, session):
            local = broker.localObjects.get(luid)
            if local is not None:
                puid = local.object.processUniqueID()
                broker.luids.pop(puid, None)
                local.object = revoked = RevokedObject()
                broker.luids[revoked.processUniqueID()] = luid
                released(broker, puid)
        for luid in _takeFrom(self._caches, session):
            local = broker.remotelyCachedObjects.get(luid)
            if local is not None:
                cacheable, perspective = local.object, local.perspective
                broker.remotelyCachedLUIDs.pop(cacheable.processUniqueID(), None)
                local.object = revokedCache = RevokedCache()
                broker.remotelyCachedLUIDs[revokedCache.processUniqueID()] = luid
                observer = pb.RemoteCacheObserver(broker, cacheable, perspective)
                cacheable.stoppedObserving(perspective, observer)


def _takeFrom(exported: dict[Any, frozenset[Any]], session: Any) -> list[Any]:
    """Return the numbers of what belonged to this session alone, and now to none."""
    ended = []
    for luid, sessions in list(exported.items()):
        if session in sessions:
            left = sessions - {session}
            if left:
                exported[luid] = left
            else:
                del exported[luid]
                ended.append(luid)
    return ended
