"""
The client's half of a login, as the seed walks through it.

::

    connect -> getObjectAt -> logIn -> AuthServ.username -> AuthChallenger.respond -> perspective

Whatever fails, and wherever: what was opened here is closed before the Deferred fails.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import ISSLTransport, IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import globalSecurity

from pbauth.broker import Broker, dropConnection
from pbauth.credentials import Password
from pbauth.errors import (
    LoginTimeout,
    MechanismNotSupported,
    ProtocolViolation,
    ServerNotTrusted,
)
from pbauth.interfaces import IClientExchange, ICredentials
from pbauth.mechanisms.connection import Connection
from pbauth.names import checkName
from pbauth.peers import isLocal, isLoopback
from pbauth.reactors import chooseReactor

_log = Logger()
_Result = TypeVar("_Result")

# What a server that is not pbauth says to our `username`: it has no such method, or one that
# takes other arguments.
_NOT_OURS = frozenset(
    {"twisted.spread.flavors.NoSuchMethod", "builtins.AttributeError", "builtins.TypeError"}
)


class _ClientFactory(ClientFactory):  # type: ignore[type-arg]
    noisy = False
    unsafeTracebacks = False

    def buildProtocol(self, addr: Any) -> Any:
        broker = Broker(True, globalSecurity)
        broker.factory = self  # type: ignore[assignment]
        return broker

    def clientConnectionMade(self, broker: Broker) -> None:
        """The broker calls it."""


def connect(
    host: str | IStreamClientEndpoint,
    port: int | None,
    username: str,
    password: str | ICredentials,
    serviceName: str,
    perspectiveName: str | None = None,
    client: pb.Referenceable | None = None,
    timeout: float = 30,
    insecure: bool = False,
    *,
    reactor: Any = None,
) -> Deferred[Any]:
    """
    Connect, log in, and get one's perspective (the seed, "Code Walkthrough: pb.connect()").

    To let go of it, close the connection: ``perspective.broker.transport.loseConnection()``.

    Args:
        host: a host, to connect to it by plain TCP; or, where `port` is `None`, an endpoint
            (``"tls:example.com:8787"``, ``"unix:/run/pbauth"``, or an `IStreamClientEndpoint`).
        port: the TCP port, or `None`.
        username: the name of the identity.
        password: a `str`, or what implements `ICredentials`, such as `Password`.
        serviceName: the service to attach to.
        perspectiveName: the perspective of that service; the user's own name by default.
        client: an object of yours that the server may call back.
        timeout: seconds for the whole login.
        insecure: allow a connection without TLS to another machine.
        reactor: provides `IReactorTime` and what the endpoint needs; the global one by default.

    Returns:
        Fires with the remote perspective. Fails, once the connection is closed again, with

        - `TypeError`, `InvalidName` or `InvalidPassword`: the arguments are wrong;
        - `ServerNotTrusted`: the connection would not be protected (nothing was sent), or the
          server did not prove that it knows the account;
        - `Unauthorized`: wrong name, wrong password, or closed account;
        - `KeyNotFound`: there is no key to this perspective, or no such perspective;
        - `TooManyAttempts`: wait, then try again;
        - `MechanismNotSupported`: the server is not pbauth, or allows no mechanism in common;
        - `ProtocolViolation`: what answers is not Perspective Broker;
        - `LoginTimeout`: it took longer than `timeout`;
        - `twisted.internet.error.ConnectError` and its kind: nobody listens there.
    """
    theReactor = chooseReactor(reactor)

    async def run() -> Any:
        request = _Request(username, password, serviceName, perspectiveName, client)
        root = await _open(theReactor, host, port, insecure)
        try:
            return await request.attach(root)
        except BaseException:
            await _close(root.broker)
            raise

    return _within(timeout, theReactor, run())


def getObjectAt(
    host: str | IStreamClientEndpoint,
    port: int | None,
    timeout: float = 30,
    insecure: bool = False,
    *,
    reactor: Any = None,
) -> Deferred[Any]:
    """
    Connect, and get the root object of the server: of a pbauth server, its `AuthServ`.

    Args:
        host: as for `connect`.
        port: as for `connect`.
        timeout: seconds until both ends agreed to speak Perspective Broker.
        insecure: as for `connect`.
        reactor: as for `connect`.

    Returns:
        Fires with a reference to the root object; fails as `connect` does.
    """
    theReactor = chooseReactor(reactor)
    return _within(timeout, theReactor, _open(theReactor, host, port, insecure))


def logIn(
    authServRef: Any,
    client: pb.Referenceable | None,
    service: str,
    username: str,
    password: str | ICredentials,
    perspectiveName: str | None = None,
) -> Deferred[Any]:
    """
    Log in on a root object that one has already, and attach.

    Args:
        authServRef: a reference to an `AuthServ`; whoever made the connection closes it.
        client: an object of yours that the server may call back, or `None`.
        service: the service to attach to.
        username: the name of the identity.
        password: as for `connect`.
        perspectiveName: the perspective of the service; the user's own name by default.

    Returns:
        Fires with the remote perspective; fails as `connect` does.
    """

    async def run() -> Any:
        request = _Request(username, password, service, perspectiveName, client)
        return await request.attach(authServRef)

    return Deferred.fromCoroutine(run())


def authIdentity(authServRef: Any, username: str, password: str | ICredentials) -> Deferred[Any]:
    """
    Log in on a root object that one has already, without attaching.

    Args:
        authServRef: a reference to an `AuthServ`.
        username: the name of the identity.
        password: as for `connect`.

    Returns:
        Fires with a reference to the `IdentityWrapper`; fails as `connect` does.
    """

    async def run() -> Any:
        checkName(username, "name of an identity")
        identity, _ = await _prove(authServRef, username, _asCredentials(password), ())
        return identity

    return Deferred.fromCoroutine(run())


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
        reactor: as for `connect`.
    """

    def __init__(
        self,
        host: str | IStreamClientEndpoint,
        port: int | None,
        identityName: str,
        password: str | ICredentials,
        timeout: float = 30,
        insecure: bool = False,
        *,
        reactor: Any = None,
    ) -> None:
        self._host = host
        self._port = port
        self._identityName = identityName
        self._credentials = _asCredentials(password)
        self._timeout = timeout
        self._insecure = insecure
        self._reactor = chooseReactor(reactor)
        self._identity: Any = None
        self._attempt: Deferred[Any] | None = None
        self._waiting: list[Deferred[Any]] = []

    def requestLogin(self) -> Deferred[Any]:
        """
        Log in, unless that is done or under way.

        Returns:
            Fires with a reference to the `IdentityWrapper`; fails as `connect` does.
        """
        if self._identity is not None:
            return succeed(self._identity)
        waiter: Deferred[Any] = Deferred()
        self._waiting.append(waiter)
        if self._attempt is None:
            self._attempt = _within(self._timeout, self._reactor, self._logIn())
            self._attempt.addCallbacks(self._loggedIn, self._failed)
        return waiter

    def requestService(
        self,
        serviceName: str,
        perspectiveName: str | None = None,
        client: pb.Referenceable | None = None,
    ) -> Deferred[Any]:
        """
        Attach to a perspective, after logging in if need be.

        Args:
            serviceName: the service.
            perspectiveName: the perspective; the identity's own name by default.
            client: an object of yours that the server may call back.

        Returns:
            Fires with the remote perspective; fails as `connect` does.
        """

        async def request() -> Any:
            identity = await self.requestLogin()
            return await identity.callRemote(
                "attach",
                checkName(serviceName, "name of a service"),
                perspectiveName or self._identityName,
                client,
            )

        return Deferred.fromCoroutine(request())

    def disconnect(self) -> Deferred[None]:
        """
        Close the connection, or give up the login that is under way.

        Returns:
            Fires when it is closed.
        """
        if self._attempt is not None:
            self._attempt.cancel()
        identity, self._identity = self._identity, None
        if identity is None:
            return succeed(None)
        closed: Deferred[None] = identity.broker.whenClosed()
        identity.broker.transport.loseConnection()
        return closed

    async def _logIn(self) -> Any:
        checkName(self._identityName, "name of an identity")
        root = await _open(self._reactor, self._host, self._port, self._insecure)
        try:
            identity, _ = await _prove(root, self._identityName, self._credentials, ())
        except BaseException:
            await _close(root.broker)
            raise
        root.broker.notifyOnDisconnect(self._connectionLost)
        return identity

    def _loggedIn(self, identity: Any) -> None:
        self._attempt, self._identity = None, identity
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(identity)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(failure)

    def _connectionLost(self) -> None:
        self._identity = None


class _Request:
    """Who wants to be attached to what; checked before anything is opened."""

    def __init__(
        self,
        username: str,
        password: str | ICredentials,
        serviceName: str,
        perspectiveName: str | None,
        client: pb.Referenceable | None,
    ) -> None:
        self._username = checkName(username, "name of an identity")
        self._credentials = _asCredentials(password)
        self._serviceName = checkName(serviceName, "name of a service")
        self._perspectiveName = checkName(
            username if perspectiveName is None else perspectiveName, "name of a perspective"
        )
        if client is not None and not isinstance(client, pb.Referenceable):
            raise TypeError(f"client must be a pb.Referenceable, not {type(client).__name__}.")
        self._client = client

    async def attach(self, root: Any) -> Any:
        _, perspective = await _prove(
            root,
            self._username,
            self._credentials,
            (self._serviceName, self._perspectiveName, self._client),
        )
        return perspective


async def _prove(
    root: Any, username: str, credentials: ICredentials, attach: tuple[Any, ...]
) -> tuple[Any, Any]:
    """
    Prove to be `username`; where `attach` says to what, attach in the same go.

    Returns a reference to the `IdentityWrapper`, and the perspective or `None`.
    """
    exchange, challenge, challenger = await _claim(root, username, credentials)
    response = await maybeDeferred(exchange.respond, challenge)
    answer = await challenger.callRemote("respond", response, *attach)
    outcome, *references = _checked(answer, 3 if attach else 2)
    exchange.checkOutcome(outcome)
    identity = references[0]
    return identity, references[1] if attach else None


async def _claim(
    root: Any, username: str, credentials: ICredentials
) -> tuple[IClientExchange, bytes, Any]:
    """Claim to be `username`, by the strongest mechanism that both sides accept."""
    connection = _connectionOf(root.broker)
    wanted = list(credentials.mechanisms)
    mechanism = wanted[0]
    while True:
        wanted.remove(mechanism)
        exchange = credentials.begin(mechanism, username, connection)
        try:
            answer = await root.callRemote("username", username, mechanism, exchange.initial)
        except MechanismNotSupported as refusal:
            # What the server offers instead is taken only where the caller allows it, too.
            acceptable = [name for name in wanted if name in refusal.offered]
            if not acceptable:
                raise
            mechanism = acceptable[0]
            continue
        except pb.RemoteError as error:
            kind = error.remoteType
            if (kind.decode("utf-8") if isinstance(kind, bytes) else kind) in _NOT_OURS:
                raise MechanismNotSupported([]) from None
            raise
        challenge, challenger = _checked(answer, 2)
        return exchange, challenge, challenger


def _checked(answer: Any, length: int) -> tuple[Any, ...]:
    # Each answer of the login is some bytes, and then references.
    if (
        not isinstance(answer, tuple)
        or len(answer) != length
        or not isinstance(answer[0], bytes)
        or not all(isinstance(item, pb.RemoteReference) for item in answer[1:])
    ):
        raise ProtocolViolation("The server's answer is not one that a login has.")
    return answer


def _asCredentials(password: str | ICredentials) -> ICredentials:
    if ICredentials.providedBy(password):
        return password  # type: ignore[return-value]
    return Password(password)  # type: ignore[arg-type]


def _connectionOf(broker: Any) -> Connection:
    transport = broker.transport
    return Connection(
        local=isLocal(transport.getPeer()), secure=ISSLTransport.providedBy(transport)
    )


# Opening and closing.


async def _open(
    reactor: Any, host: str | IStreamClientEndpoint, port: int | None, insecure: bool
) -> Any:
    endpoint = _chooseEndpoint(reactor, host, port, insecure)
    broker: Any = await endpoint.connect(_ClientFactory())
    try:
        connection = _connectionOf(broker)
        if not (connection.local or connection.secure or insecure):
            raise _notProtected(broker.transport.getPeer().host)
        await broker.whenGreeted()
    except BaseException:
        await _close(broker)
        raise
    return broker.remoteForName("root")


def _chooseEndpoint(
    reactor: Any, host: str | IStreamClientEndpoint, port: int | None, insecure: bool
) -> Any:
    if port is not None:
        if not isinstance(host, str):
            raise TypeError("host must be a str where a port is given.")
        if not (insecure or isLoopback(host)):
            raise _notProtected(host)
        return HostnameEndpoint(reactor, host, port)
    if isinstance(host, str):
        plainHost = _hostOfTCP(host)
        if plainHost is not None and not (insecure or isLoopback(plainHost)):
            raise _notProtected(plainHost)
        return clientFromString(reactor, host)
    if not IStreamClientEndpoint.providedBy(host):
        raise TypeError("host must be a str, or provide IStreamClientEndpoint.")
    return host


def _hostOfTCP(description: str) -> str | None:
    """The host in an endpoint string ``tcp:...``; `None` for other kinds of endpoints."""
    kind, *fields = description.replace(r"\:", "\0").split(":")
    if kind != "tcp":
        return None
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    positional = [field for field in fields if "=" not in field]
    host = named.get("host") or (positional[0] if positional else "")
    return host.replace("\0", ":")


def _notProtected(host: str) -> ServerNotTrusted:
    return ServerNotTrusted(
        f"The connection to {host} would not be protected by TLS. "
        "Use an endpoint 'tls:HOST:PORT', or say insecure=True if you must."
    )


async def _close(broker: Any) -> None:
    closed = broker.whenClosed()
    dropConnection(broker)
    await closed


def _within(
    seconds: float, reactor: Any, coroutine: Coroutine[Any, Any, _Result]
) -> Deferred[_Result]:
    def late(result: Any, seconds: float) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise LoginTimeout(seconds)
        return result

    return Deferred.fromCoroutine(coroutine).addTimeout(seconds, reactor, late)
