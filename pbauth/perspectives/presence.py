"""Who is attached to a service in this server, and observers of that."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from pbauth._arguments import checkProvides
from pbauth._contained import contained
from pbauth.interfaces import IPresence, ISessionObserver
from pbauth.perspectives.clients import Clients

_log = Logger()

#: So many client objects of a service are called at once; others as these have answered.
AT_ONCE = 1000


@implementer(IPresence)
class Presence:
    """
    Know the live sessions of one service.

    Args:
        name: of the service.
        service: is the first observer, if it provides `ISessionObserver`.

    Attributes:
        clients: all client objects that are attached to perspectives of the service.
    """

    __slots__ = ("_observers", "_sessions", "clients")

    def __init__(self, name: str, service: Any) -> None:
        self.clients = Clients(name, atOnce=AT_ONCE)
        self._sessions: dict[Any, None] = {}
        self._observers: list[Any] = [service] if ISessionObserver.providedBy(service) else []

    def sessions(self) -> list[Any]:
        """Return the live sessions, oldest first."""
        return [session for session in self._sessions if session.live]

    def add(self, observer: Any) -> None:
        """
        Add an observer.

        Raises:
            TypeError: it does not provide `ISessionObserver`.
        """
        checkProvides(ISessionObserver, observer, "observer")
        self._observers.append(observer)

    def remove(self, observer: Any) -> None:
        """
        Remove an observer.

        Raises:
            ValueError: it is none.
        """
        self._observers.remove(observer)

    def joined(self, session: Any) -> None:
        """Add a session (see `IPresence`)."""
        self._sessions[session] = None
        if session.clientref is not None:
            self.clients.joined(session)
        for observer in [*self._observers]:
            with contained(_log, "sessionAttached() failed for {session!r}", session=session):
                observer.sessionAttached(session)

    def left(self, session: Any) -> None:
        """Remove a session (see `IPresence`)."""
        if session not in self._sessions:
            return
        del self._sessions[session]
        self.clients.left(session)
        for observer in [*self._observers]:
            with contained(_log, "sessionDetached() failed for {session!r}", session=session):
                observer.sessionDetached(session)
