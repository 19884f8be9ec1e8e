"""The service that comes with pbauth, to try out a server: it returns its arguments."""

from __future__ import annotations

from attrs import frozen
from zope.interface import implementer

from pbauth.interfaces import ClientReference, IAuthorizer, IIdentity, IPerspectiveServiceFactory
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service


class EchoPerspective(Perspective):
    """One client of the `EchoService`."""

    def attached(self, clientref: ClientReference, identity: IIdentity) -> EchoPerspective:
        """Give each client a perspective of its own, since several identities may hold the key."""
        super().attached(clientref, identity)
        own = EchoPerspective(self.perspectiveName, identity.name)
        own.setService(self.getService())
        return own

    def perspective_say(self, text: str) -> str:
        """Return the text."""
        return text

    def perspective_whoami(self) -> tuple[str, str]:
        """Return the names of its identity and of its perspective."""
        return self.identityName, self.perspectiveName


class EchoService(Service):
    """Return what clients send. There is a perspective of every name."""

    def loadPerspective(self, name: str) -> EchoPerspective:
        """Make the perspective."""
        return EchoPerspective(name)


@implementer(IPerspectiveServiceFactory)
@frozen
class EchoServiceFactory:
    """The plugin for ``twistd pbauth --service echo``."""

    name: str = "echo"
    description: str = "returns what clients send, to try out a server"

    def makeService(self, serviceName: str, authorizer: IAuthorizer) -> EchoService:
        """Make the service."""
        return EchoService(serviceName, authorizer=authorizer)
