"""One connection and one login for any number of services."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.spread import pb

from pbauth._async import SingleFlight, chooseReactor
from pbauth.client.login import Login, asCredentials, checkClient
from pbauth.interfaces import ICredentials, Reactor
from pbauth.names import checkName
from pbauth.net.trust import Trust


class IdentityConnector:
    """
    One connection and one login for any number of services.

    Args:
        host: as for `connect`.
        port: as for `connect`.
        identityName: the name of the identity.
        password: as for `connect`.
        timeout: seconds for the whole login.
        insecure: as for `connect`.
        trust: as for `connect`.
        reactor: as for `connect`.
    """

    def __init__(
        self,
        host: str | IStreamClientEndpoint,
        port: int | None,
        identityName: str | None,
        password: str | ICredentials,
        timeout: float = 30,
        insecure: bool = False,
        *,
        trust: Trust = None,
        reactor: Reactor = None,
    ) -> None:
        self._login = Login(
            host,
            identityName,
            asCredentials(password, reactor),
            trust=trust,
            insecure=insecure,
            timeout=timeout,
            port=port,
        )
        self._reactor = chooseReactor(reactor)
        self._identity: pb.RemoteReference | None = None
        self._running: SingleFlight[pb.RemoteReference] = SingleFlight(self._logIn)

    def requestLogin(self) -> Deferred[pb.RemoteReference]:
        """
        Log in, unless that is done or under way.

        Returns:
            Fires with a reference to the `IdentityWrapper`; fails as `connect` does. May be
            cancelled; the login is given up once nobody waits for it.
        """
        return self._running.run() if self._identity is None else succeed(self._identity)

    def requestService(
        self,
        serviceName: str,
        perspectiveName: str | None = None,
        client: pb.Referenceable | None = None,
    ) -> Deferred[pb.RemoteReference]:
        """
        Attach to a perspective, after logging in if need be.

        Args:
            serviceName: the service.
            perspectiveName: the perspective; the identity's own name by default.
            client: an object of yours that the server may call back.

        Returns:
            Fires with the remote perspective; fails as `connect` does.

        Raises:
            TypeError: `client` is of the wrong type.
        """
        checkClient(client)

        async def request() -> pb.RemoteReference:
            identity = await self.requestLogin()
            return await identity.callRemote(
                "attach",
                checkName(serviceName, "name of a service"),
                perspectiveName or self._login.identity,
                client,
            )

        return Deferred.fromCoroutine(request())

    def disconnect(self) -> Deferred[None]:
        """
        Close the connection, or give up the login that is under way.

        Returns:
            Fires when it is closed.
        """
        self._running.cancel()
        identity, self._identity = self._identity, None
        if identity is None:
            return succeed(None)
        closed: Deferred[None] = identity.broker.whenClosed()
        identity.broker.transport.loseConnection()
        return closed

    def _logIn(self) -> Deferred[pb.RemoteReference]:
        return self._login.run(self._reactor).addCallback(self._loggedIn)

    def _loggedIn(self, identity: pb.RemoteReference) -> pb.RemoteReference:
        self._identity = identity
        identity.broker.notifyOnDisconnect(self._connectionLost)
        return identity

    def _connectionLost(self) -> None:
        self._identity = None
