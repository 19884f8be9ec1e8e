"""The perspective: the one object that an authenticated client may call."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from functools import cached_property
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.logger import Logger
from twisted.spread import pb
from zope.interface import implementer

from pbauth._arguments import checkProvides
from pbauth._async import AT_ONCE
from pbauth.errors import Unauthorized
from pbauth.interfaces import (
    ClientReference,
    IClients,
    IIdentity,
    IPerspective,
    IService,
    WireValue,
)
from pbauth.names import checkName, checkPerspectiveName
from pbauth.perspectives.clients import Clients
from pbauth.perspectives.current import CURRENT

_log = Logger()

#: Whom a perspective is for that was made without a name.
NOBODY = "Nobody"


@implementer(IPerspective)
class Perspective:
    """
    Serve one authenticated user, who holds a reference to it.

    Subclass it, and give it methods named `perspective_<method>`: those are the only ones that
    the client reaches, by ``callRemote("<method>", ...)``.  They may return Deferreds or be
    coroutines.  Make one by `Service.createPerspective`.

    Args:
        perspectiveName: see `pbauth.names`.
        identityName: the name of the identity that it is usually for; by default the one that is
            attached first.

    Raises:
        TypeError: a name is not a `str`.
        InvalidName: a name breaks the rule.
    """

    service: Any = None

    #: How many messages wait for the next client, while none is attached (see `Clients`).
    #: With 0, sending one is a `NobodyAttached`.
    queueSize: int = 0

    def __init__(self, perspectiveName: str, identityName: str = NOBODY) -> None:
        self.perspectiveName = checkPerspectiveName(perspectiveName)
        self._identityName = checkName(identityName, "name of an identity")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.perspectiveName!r}>"

    def getPerspectiveName(self) -> str:
        """Return the name."""
        return self.perspectiveName

    def getService(self) -> Any:
        """Return the service that owns this, or `None`."""
        return self.service

    def setService(self, service: IService) -> None:
        """
        Set the service that owns this. `Service.addPerspective` calls it.

        Raises:
            TypeError: it is not a service.
        """
        checkProvides(IService, service, "service")
        self.service = service

    def setIdentity(self, identity: IIdentity) -> None:
        """
        Set the identity that this is for.

        Raises:
            TypeError: it is not an identity.
        """
        checkProvides(IIdentity, identity, "identity")
        self.setIdentityName(identity.name)

    def setIdentityName(self, name: str) -> None:
        """
        Set the identity that this is for, by name.

        Raises:
            TypeError: the name is not a `str`.
            InvalidName: the name breaks the rule of `pbauth.names`.
        """
        self._identityName = checkName(name, "name of an identity")

    @property
    def identityName(self) -> str:
        """
        Return the name of the identity that this is for. In a call of a client, and in `attached`
        and `detached`, it is the identity that this client has proved to be; otherwise the one
        that was set, or the first one that was attached.
        """
        session = CURRENT.get()
        if session is not None and session.isOn(self):
            name: str = session.identity.name
            return name
        return self._identityName

    @identityName.setter
    def identityName(self, name: str) -> None:
        self.setIdentityName(name)

    def getIdentityRequest(self) -> Deferred[IIdentity]:
        """
        Find the identity that this is for.

        Returns:
            Fires with the identity; fails with `Unauthorized` if there is none of that name.
        """
        authorizer = getattr(self.getService(), "authorizer", None)
        if authorizer is None:
            return ensureDeferred(_refuse())
        return maybeDeferred(authorizer.getIdentityRequest, self.identityName)

    def makeIdentity(self, password: str) -> IIdentity:
        """
        Make and save an identity of this perspective's name, with a key to this perspective:
        all that a server with one service needs.

        Args:
            password: of the new identity.

        Returns:
            The identity.

        Raises:
            DuplicateIdentity: there is one of that name.
            InvalidPassword: it can't be a password.
        """
        authorizer = self.getService().authorizer
        identity = authorizer.createIdentity(self.perspectiveName)
        identity.setPassword(password)
        identity.addKeyForPerspective(self)
        saved = identity.save()
        if isinstance(saved, Deferred):
            saved.addErrback(lambda failure: _log.failure("makeIdentity could not save", failure))
        self.setIdentity(identity)
        return identity

    # A client comes and goes.

    @cached_property
    def clients(self) -> Clients:
        """
        Return the client objects that are attached now, to be called. They are known here whatever
        `attached` and `detached` do. Whoever has a use of their own for the name may set it.
        """
        return Clients(self.perspectiveName, self.queueSize)

    def __conform__(self, interface: Any) -> Any:
        """Adapt to `IClients`; the wire asks for that (see `zope.interface`)."""
        if interface is not IClients:
            return None
        clients = self.clients
        return clients if IClients.providedBy(clients) else None

    def attached(
        self, clientref: ClientReference, identity: IIdentity
    ) -> IPerspective | Awaitable[IPerspective]:
        """
        Welcome a client that has logged in. Override it to keep `clientref`, or to give the client
        another perspective than this one. The session logs that the client was attached.

        Args:
            clientref: a reference to the client's own object, or `None`.
            identity: who it proved to be.

        Returns:
            The perspective that the client gets, or a Deferred of it; usually `self`.
        """
        return self

    def detached(self, clientref: ClientReference, identity: IIdentity) -> object:
        """
        Say goodbye to a client whose session has ended. The session logs why it ended.

        Args:
            clientref: as for the `attached` of the same client.
            identity: as for the `attached` of the same client.
        """

    def brokerAttached(
        self, clientref: ClientReference, identity: IIdentity, broker: pb.Broker
    ) -> IPerspective | Awaitable[IPerspective]:
        """Call `attached`. The session calls this; override it only if you need the broker."""
        return self.attached(clientref, identity)

    def brokerDetached(
        self, clientref: ClientReference, identity: IIdentity, broker: pb.Broker
    ) -> object:
        """Call `detached`. The session calls this; override it only if you need the broker."""
        return self.detached(clientref, identity)

    # The client calls.

    def perspectiveMessageReceived(
        self, broker: pb.Broker, message: str | bytes, args: WireValue, kw: WireValue
    ) -> WireValue:
        """
        Call a method for the client (see `twisted.spread.pb.IPerspective`).

        What the method gives is serialised for this perspective: `Viewable`, `Copyable` and
        `Cacheable` objects learn that it is this one who asks.
        """
        name = message.decode("utf-8") if isinstance(message, bytes) else message
        # First, so that references in the arguments are dropped if there is no such method.
        arguments = broker.unserialize(args, self)
        # Nearly always there are none by name, and nothing is to be read.
        keywords = kw if type(kw) is dict and not kw else _read(broker, kw, self)
        method = getattr(self, f"perspective_{name}", None)
        if method is None:
            raise pb.NoSuchMethod(f"No such method: perspective_{name}")
        result = method(*arguments, **keywords)
        if type(result) not in AT_ONCE and isinstance(result, Coroutine):
            result = ensureDeferred(result)
        return broker.serialize(result, self, method, arguments, keywords)


def _read(broker: pb.Broker, kw: Any, perspective: Any) -> dict[str, Any]:
    return {
        key.decode("utf-8") if isinstance(key, bytes) else key: value
        for key, value in broker.unserialize(kw, perspective).items()
    }


async def _refuse() -> IIdentity:
    raise Unauthorized()
