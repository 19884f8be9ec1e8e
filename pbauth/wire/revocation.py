"""
Exports of a session: references that can be taken back.

What a perspective's methods export to the client - objects, and what the methods of those export,
and so on - belongs to the session that the perspective was called by.  When the session ends, its
exports end: an object takes their place that only says so.  What two sessions of one connection
have exported ends with the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.spread import pb
from twisted.spread.jelly import Jellyable

from pbauth._async import AT_ONCE
from pbauth._contained import contained
from pbauth.audit.events import LeanLogger
from pbauth.errors import Detached, WireError
from pbauth.perspectives.sessions import callFor
from pbauth.wire.twistedprivate import released

_log = LeanLogger()

_Result = TypeVar("_Result")


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
        """Unjelly an expression, as the broker does; its references belong to the sessions."""
        if (type(sexp) is tuple or type(sexp) is dict) and not self._broker.holdsReferences:
            return sexp
        exports = self._exports
        before, exports.importers = exports.importers, self._sessions
        try:
            return self._broker.unserialize(sexp, perspective)
        finally:
            exports.importers = before

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        """Jelly an object for the sessions; also what a Deferred comes to later."""
        if type(object) not in AT_ONCE and isinstance(object, (Deferred, Coroutine)):
            later: Deferred[Any] = self._broker.cancellable(ensureDeferred(object))
            return later.addCallback(self._serializeLater, self._broker._given, *args, **kw)
        # As `Exports.givenBy`, without what that takes: each call's result goes this way.
        exports = self._exports
        before, exports.exporters = exports.exporters, self._sessions
        try:
            exports.checkLive()
            if self._broker._writesOwnWay:
                return self._broker.serialize(object, *args, **kw)
            # The application's own broker may end them once it is serialised.
            return self._broker.serializeIf(exports.checkLive, object, *args, **kw)
        finally:
            exports.exporters = before

    def _serializeLater(self, object: Any, given: Any, *args: Any, **kw: Any) -> Any:
        broker = self._broker
        outer = broker._given
        if outer is not given:
            # What the broker is serialising now is another message.
            broker._given = None
        try:
            return self.serialize(object, *args, **kw)
        finally:
            broker._given = outer

    def fails(self, failure: Failure) -> Failure:
        """Let what the state of an error gives to the peer belong to the sessions."""
        error = failure.value
        if isinstance(error, Jellyable) and not isinstance(error, WireError):
            failure.value = _ErrorOfSessions(error, self._exports, self._sessions)
        return failure


class _ErrorOfSessions(Jellyable):
    """
    An error of the application's that is sent with its state.

    Attributes:
        original: the error.
    """

    def __init__(self, error: Any, exports: Exports, sessions: frozenset[Any]) -> None:
        self.original = error
        self._exports = exports
        self._sessions = sessions

    def __str__(self) -> str:
        return str(self.original)

    def jellyFor(self, jellier: Any) -> Any:
        """Make an expression of the error."""
        return self._exports.givenBy(self._sessions, jellier.jelly, self.original)


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
        return callFor(
            self._sessions, self._object.remoteMessageReceived, self._broker, message, args, kw
        )


class RevokedObject(pb.Referenceable):
    """
    What takes the place of an object that was taken back.

    Args:
        session: whose end took it back.
    """

    def __init__(self, session: Any) -> None:
        self._reason = session.detachedError().reason

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Refuse every call."""
        raise Detached(self._reason)


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
        importers: the sessions that references belong to which are read now; `None`: to none.
        asked: the sessions of calls of the peer's objects that are under way, by the number of the
            request: references in the answers belong to them.
    """

    __slots__ = ("_caches", "_imports", "_objects", "asked", "exporters", "importers")

    def __init__(self) -> None:
        self.exporters: frozenset[Any] | None = None
        self.importers: frozenset[Any] | None = None
        self.asked: dict[Any, frozenset[Any]] = {}
        # Of objects of the peer's, by their numbers: how many references there are, and whose.
        self._imports: dict[Any, tuple[int, frozenset[Any] | None]] = {}
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

    def addCache(self, luid: Any, new: bool) -> frozenset[Any] | None:
        """
        Note that the peer gets a copy of a `Cacheable`, or gets it once more.

        Args:
            luid: its number.
            new: the peer had none before.

        Returns:
            As for `addObject`.
        """
        return self._add(self._caches, luid, new)

    def checkLive(self) -> None:
        """
        Check that the peer may get a reference now.

        Raises:
            Detached: what is serialised belongs to sessions that have all ended.
        """
        if self.exporters is not None:
            for session in self.exporters:
                if not session.ended:
                    return
            raise Detached()

    def givenBy(
        self, sessions: frozenset[Any] | None, act: Callable[..., _Result], *args: Any, **kw: Any
    ) -> _Result:
        """
        Serialise something that belongs to sessions.

        Args:
            sessions: the sessions; `None`: it belongs to none.
            act: what serialises.
            args: for it.
            kw: for it.

        Returns:
            What that gives.

        Raises:
            Detached: the sessions have all ended: they give nothing, not even what is plain.
        """
        before, self.exporters = self.exporters, sessions
        try:
            self.checkLive()
            given = act(*args, **kw)
            self.checkLive()
            return given
        finally:
            self.exporters = before

    def countImport(self, luid: Any) -> None:
        """
        Note that there is one more reference to an object of the peer's.

        Args:
            luid: its number.
        """
        count, sessions = self._imports.get(luid, (0, None))
        self._imports[luid] = (count + 1, sessions)

    def ownImport(self, luid: Any, sessions: frozenset[Any] | None = None) -> None:
        """
        Note whose a reference is that was counted before: what goes out by it is theirs.

        Args:
            luid: the number of the object of the peer's.
            sessions: the sessions; `None`: the `importers`.
        """
        owners = self.importers if sessions is None else sessions
        if owners is not None and luid in self._imports:
            count, before = self._imports[luid]
            # Of a client that attaches again and again, those that have ended are forgotten.
            self._imports[luid] = (count, owners | _live(before or owners))

    def dropImport(self, luid: Any) -> None:
        """
        Note that there is one reference less to an object of the peer's.

        Args:
            luid: its number.
        """
        count, sessions = self._imports.get(luid, (0, None))
        if count > 1:
            self._imports[luid] = (count - 1, sessions)
        else:
            self._imports.pop(luid, None)

    def answered(self, requestID: Any, read: Callable[..., _Result], *args: Any) -> _Result:
        """
        Read the answer to a call of the peer's object.

        Args:
            requestID: the number of the request.
            read: what reads it.
            args: for it.

        Returns:
            What that gives.
        """
        before, self.importers = self.importers, self.asked.pop(requestID, None)
        try:
            return read(*args)
        finally:
            self.importers = before

    def sessionsOfCall(self, prefix: bytes, luid: Any) -> frozenset[Any] | None:
        """
        Return the sessions that a call of the peer's object belongs to.

        Args:
            prefix: of the message: ``b"cache"`` for an update of a copy of a `Cacheable`.
            luid: the number of the object, or of the `Cacheable`.

        Returns:
            The sessions; `None` if it belongs to none.
        """
        if prefix == b"cache":
            return self._caches.get(luid)
        return self._imports.get(luid, (0, None))[1]

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

    def forget(self, isCache: bool, luid: Any) -> None:
        """
        Note that the peer has dropped something: its number belongs to nobody.

        Args:
            isCache: it is a `Cacheable`.
            luid: its number.
        """
        self.putBack(isCache, luid, None)

    def __len__(self) -> int:
        """Return how much is noted."""
        return len(self._objects) + len(self._caches) + len(self._imports) + len(self.asked)

    def _add(
        self, exported: dict[Any, frozenset[Any]], luid: Any, new: bool
    ) -> frozenset[Any] | None:
        before = None if new else exported.get(luid)
        exporters = self.exporters
        if exporters is not None:
            # Of several sessions that gave it, some may have ended: nothing would end it for them.
            exporters = _live(exporters)
        if new:
            if exporters is not None:
                exported[luid] = exporters
        elif luid in exported:
            if exporters is None:
                del exported[luid]
            else:
                exported[luid] |= exporters
        return before

    def objectToCall(self, broker: Any, luid: Any, found: Any) -> Any:
        """
        Return what the broker calls when the peer calls an object.

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
                found = local.object
                puid = found.processUniqueID()
                broker.luids.pop(puid, None)
                local.object = revoked = RevokedObject(session)
                broker.luids[revoked.processUniqueID()] = luid
                with contained(
                    _log, "What waits for a {kind} to go failed", kind=qual(type(found))
                ):
                    released(broker, puid)
        for luid in _takeFrom(self._caches, session):
            local = broker.remotelyCachedObjects.get(luid)
            if local is not None:
                cacheable, perspective = local.object, local.perspective
                broker.remotelyCachedLUIDs.pop(cacheable.processUniqueID(), None)
                local.object = revokedCache = RevokedCache()
                broker.remotelyCachedLUIDs[revokedCache.processUniqueID()] = luid
                observer = pb.RemoteCacheObserver(broker, cacheable, perspective)
                with contained(
                    _log, "stoppedObserving failed for {kind}", kind=qual(type(cacheable))
                ):
                    cacheable.stoppedObserving(perspective, observer)


def remotesIn(expression: Any) -> Iterator[Any]:
    """
    Find the references to objects of the peer's in an expression.

    Args:
        expression: one of jelly's.

    Returns:
        The numbers of the objects.
    """
    waiting = [expression]
    while waiting:
        item = waiting.pop()
        if type(item) is list:
            if len(item) == 2 and item[0] == b"remote" and type(item[1]) in (int, bytes):
                yield item[1]
            waiting.extend(item)


def _live(sessions: frozenset[Any]) -> frozenset[Any]:
    """Return those of the sessions that have not ended."""
    for session in sessions:
        if session.ended:
            return frozenset(each for each in sessions if not each.ended)
    return sessions


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
