"""The service: provides perspectives, by name."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from twisted.application import service
from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from pbauth._arguments import adapted, checkProvides
from pbauth._async import SingleFlight, settled
from pbauth.errors import KeyNotFound
from pbauth.interfaces import (
    IAuthorizer,
    IIdentity,
    IPerspective,
    IPresence,
    IService,
    ISessionObserver,
)
from pbauth.names import checkName
from pbauth.perspectives.clients import Clients
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.presence import Presence
from pbauth.perspectives.sessions import Session


@implementer(IService, ISessionObserver)
class Service(service.Service):
    """
    Provide perspectives; a `twisted.application.service.Service`.

    By default the perspectives are made beforehand by `createPerspective`.  Override
    `getPerspectiveForIdentity` to choose by who asks, or `loadPerspective` to fetch or make them
    when they are asked for.

    Args:
        serviceName: the name that clients ask for; see `pbauth.names`.
        serviceParent: the `MultiService` or `Application` to run under; the authorizer finds the
            service by name in the collection that it was given.
        authorizer: the authorizer of the identities that use this service.

    Raises:
        TypeError: an argument is of the wrong type.
        InvalidName: the name breaks the rule.
    """

    #: What `createPerspective` makes.
    perspectiveClass: Any = Perspective

    def __init__(
        self,
        serviceName: str,
        serviceParent: IServiceCollection | Componentized | None = None,
        authorizer: IAuthorizer | None = None,
    ) -> None:
        self.setName(checkName(serviceName, "name of a service"))
        if authorizer is not None:
            checkProvides(IAuthorizer, authorizer, "authorizer")
        if serviceParent is not None:
            serviceParent = adapted(IServiceCollection, serviceParent, "serviceParent")
        self.authorizer = authorizer
        self.perspectives: dict[str, IPerspective] = {}
        # Of the listed ones those that were loaded, and how many clients keep each listed.
        self._cached: dict[str, int] = {}
        # Loaded, but not yet attached: found again while anybody has them.
        self._loaded: WeakValueDictionary[str, IPerspective] = WeakValueDictionary()
        self._loading: SingleFlight[IPerspective] = SingleFlight(self._loadNew)
        self._presence = Presence(serviceName, self)
        if serviceParent is not None:
            self.setServiceParent(serviceParent)

    def getServiceName(self) -> str:
        """Return the name."""
        return str(self.name)

    def getServiceType(self) -> str:
        """Return the kind of service, for people: the full name of the class."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def createPerspective(self, name: str) -> Any:
        """
        Make a perspective from `perspectiveClass`, owned by and listed in this service.

        Args:
            name: of the perspective.

        Returns:
            The perspective.
        """
        perspective = self.perspectiveClass(name)
        self.addPerspective(perspective)
        return perspective

    def addPerspective(self, perspective: IPerspective) -> None:
        """
        Add an existing perspective to those of this service.

        Raises:
            TypeError: it is not a perspective.
        """
        checkProvides(IPerspective, perspective, "perspective")
        perspective.setService(self)
        name = perspective.getPerspectiveName()
        self.perspectives[name] = perspective
        self._cached.pop(name, None)

    def getPerspectiveNamed(self, name: str) -> IPerspective:
        """
        Return a listed perspective. Override it to create perspectives on the fly.

        Raises:
            KeyError: there is none of that name.
        """
        return self.perspectives[name]

    def loadPerspective(self, name: str) -> IPerspective | Awaitable[IPerspective]:
        """
        Load a perspective from elsewhere. Override it; nothing is loaded by default.

        Args:
            name: of a perspective that is not listed.

        Returns:
            The perspective, or a Deferred of it. It is listed while clients are attached to it.
        """
        return fail(KeyNotFound(self.getServiceName(), name))

    def getPerspectiveRequest(self, name: str) -> Deferred[IPerspective]:
        """
        Find a perspective: by `getPerspectiveNamed`, else by `loadPerspective`. Whoever asks while
        it is being loaded gets the same object.

        Returns:
            Fires with the perspective; fails with `KeyNotFound` if there is none.
        """
        try:
            named: Any = self.getPerspectiveNamed(name)
        except KeyError:
            return self._loadOnce(name)
        except Exception:
            return fail()
        if not hasattr(named, "__await__"):
            return succeed(named)
        return ensureDeferred(named).addErrback(self._load, name)

    def _load(self, failure: Failure, name: str) -> Deferred[IPerspective]:
        failure.trap(KeyError)
        return self._loadOnce(name)

    def _loadOnce(self, name: str) -> Deferred[IPerspective]:
        loaded = self._loaded.get(name)
        return self._loading.run(name) if loaded is None else succeed(loaded)

    async def _loadNew(self, name: str) -> IPerspective:
        perspective = await settled(self.loadPerspective(name))
        if not IPerspective.providedBy(perspective):
            raise TypeError(
                f"loadPerspective of service {self.getServiceName()!r} must return a "
                f"perspective, not {type(perspective).__name__}."
            )
        if perspective.getService() is None:
            perspective.setService(self)
        self._loaded[name] = perspective
        return perspective

    def getPerspectiveForIdentity(
        self, name: str, identity: IIdentity
    ) -> IPerspective | Awaitable[IPerspective]:
        """
        Return the perspective that an identity asks for; the key was found on its keyring.
        Override it to choose by the identity; it is ignored by default.

        Args:
            name: of the perspective.
            identity: who asks.

        Returns:
            The perspective, or a Deferred of it.
        """
        return self.getPerspectiveRequest(name)

    def cachePerspective(self, perspective: IPerspective) -> None:
        """List a loaded perspective while a client is attached. The session calls it."""
        checkProvides(IPerspective, perspective, "perspective")
        name = perspective.getPerspectiveName()
        if name not in self.perspectives:
            self.perspectives[name] = perspective
            self._cached[name] = 1
            # It is found among the listed ones now.
            self._loaded.pop(name, None)
        elif name in self._cached and self.perspectives[name] is perspective:
            self._cached[name] += 1

    def uncachePerspective(self, perspective: IPerspective) -> None:
        """Forget a loaded perspective after its last client. The session calls it."""
        checkProvides(IPerspective, perspective, "perspective")
        name = perspective.getPerspectiveName()
        if name not in self._cached or self.perspectives.get(name) is not perspective:
            return
        self._cached[name] -= 1
        if not self._cached[name]:
            del self._cached[name]
            del self.perspectives[name]

    # Who is there.

    def __conform__(self, interface: Any) -> Any:
        """Adapt to `IPresence`; the wire asks for that (see `zope.interface`)."""
        return self._presence if interface is IPresence else None

    def online(self) -> list[Session]:
        """
        Return the sessions of this service in this server that are live, oldest first. Each tells
        its `identity`, its `perspectiveName`, its `peer` and `since` when it has been attached.
        """
        return self._presence.sessions()

    @cached_property
    def clients(self) -> Clients:
        """
        Return the client objects that are attached to any perspective of this service in this
        server, to be called: at most 1,000 at once, the others as these have answered, or are
        slower than the `timeout` of the call. Whoever has a use of their own for the name may set
        it.
        """
        return self._presence.clients

    def observeSessions(self, observer: ISessionObserver) -> None:
        """
        Let an observer learn who comes and goes, after the service itself.

        Args:
            observer: provides `ISessionObserver`.

        Raises:
            TypeError: it does not.
        """
        self._presence.add(observer)

    def unobserveSessions(self, observer: ISessionObserver) -> None:
        """
        Take back `observeSessions`.

        Args:
            observer: the observer.

        Raises:
            TypeError: it is none.
            ValueError: it does not observe this service.
        """
        checkProvides(ISessionObserver, observer, "observer")
        self._presence.remove(observer)

    def sessionAttached(self, session: Session) -> None:
        """
        Take note that a client was attached. Override it; does nothing by default.

        Args:
            session: its session, which is live.
        """

    def sessionDetached(self, session: Session) -> None:
        """
        Take note that a session has ended. Override it; does nothing by default.

        Args:
            session: the session; its `endReason` says why.
        """
