"""
The client's half of a login.

::

    connect -> getObjectAt -> logIn -> AuthServ.username -> AuthChallenger.respond -> perspective

Whatever fails, and wherever: what was opened here is closed before the Deferred fails.
"""

from __future__ import annotations

import secrets
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.spread import pb

from pbauth._arguments import checkType
from pbauth._async import chooseReactor, settled, within
from pbauth.accounts.hashing import Derivations, Hashing
from pbauth.client.connection import MOST_UNPROVED, Target, openRoot, using
from pbauth.client.credentials import Password
from pbauth.client.renewal import askHashing, renewInBackground
from pbauth.errors import MechanismNotSupported, ProtocolViolation
from pbauth.interfaces import IClientExchange, ICredentials, IRenewingExchange, Reactor
from pbauth.mechanisms import scram
from pbauth.mechanisms.scram import preparePassword
from pbauth.mechanisms.voucher import Voucher
from pbauth.names import checkName
from pbauth.net.trust import Trust, checkTrust
from pbauth.wire.broker import Broker
from pbauth.wire.channel import channelOf


def checkClient(client: pb.Referenceable | None) -> None:
    """
    Check the object that the server may call back.

    Raises:
        TypeError: it is neither a `pb.Referenceable` nor `None`.
    """
    if client is not None:
        checkType(pb.Referenceable, client, "client")


def _checkClient(instance: object, attribute: object, client: pb.Referenceable | None) -> None:
    checkClient(client)


def _checkEndpoint(
    instance: object, attribute: object, endpoint: str | IStreamClientEndpoint
) -> None:
    if not isinstance(endpoint, str):
        if not IStreamClientEndpoint.providedBy(endpoint):
            raise TypeError(
                "endpoint must be a str, or provide IStreamClientEndpoint, which "
                f"{type(endpoint).__name__} does not."
            )


def _checkTrust(instance: object, attribute: object, trust: Trust) -> None:
    checkTrust(trust)


def _identityName(name: str | None) -> str:
    # Of a voucher, `Login` asks for the name when it has both.
    return "" if name is None else checkName(name, "name of an identity")


def _serviceName(name: str | None) -> str | None:
    return None if name is None else checkName(name, "name of a service")


def _perspectiveName(name: str | None) -> str | None:
    return None if name is None else checkName(name, "name of a perspective")


def _credentials(given: str | ICredentials) -> ICredentials:
    return asCredentials(given)


@frozen
class Login:
    """
    Who logs in where, by what, and to which perspective.

    The one value that `connect`, `PerspectiveClient`, `IdentityConnector`, the ``pbauth`` command
    and the test kit have in common.

    Attributes:
        endpoint: of the server: ``"tls:example.com:8787"``, ``"unix:/run/pbauth"``, or what
            provides `IStreamClientEndpoint`; a host, where there is a `port`.
        identity: the name of the identity; `None`: a voucher is among the arguments, and says so.
        credentials: what proves it: a `str` becomes a `Password`.
        service: to attach to; `None`: only log in.
        perspective: of that service; `None`: the one with the identity's own name.
        client: an object of yours that the server may call back, or `None`.
        trust: as for `connect`.
        insecure: as for `connect`.
        timeout: seconds for the whole login.
        port: of plain TCP, or `None`.

    Raises:
        TypeError: an argument is of the wrong type.
        InvalidName: a name breaks the rule.
        InvalidPassword: that can't be a password.
    """

    endpoint: str | IStreamClientEndpoint = field(validator=_checkEndpoint)
    identity: str = field(converter=_identityName)
    credentials: ICredentials = field(converter=_credentials)
    service: str | None = field(default=None, converter=_serviceName)
    perspective: str | None = field(default=None, converter=_perspectiveName)
    client: pb.Referenceable | None = field(default=None, validator=_checkClient)
    trust: Trust = field(default=None, validator=_checkTrust)
    insecure: bool = field(default=False, kw_only=True)
    timeout: float = field(default=30, kw_only=True)
    port: int | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.identity:
            if not isinstance(self.credentials, Voucher):
                raise TypeError("Name the identity: only a voucher says whose it is.")
            # It is frozen from now on.
            object.__setattr__(self, "identity", self.credentials.identityName)

    @property
    def target(self) -> Target:
        """Return where the server is, and why it may be trusted with the login."""
        certificate = self.credentials.clientCertificate
        return Target(self.endpoint, self.port, self.insecure, self.trust, certificate)

    def run(self, reactor: Reactor = None) -> Deferred[pb.RemoteReference]:
        """
        Connect, log in, and attach.

        Args:
            reactor: provides `IReactorTime` and what the endpoint needs; the global one by default.

        Returns:
            Fires with the remote perspective, or, without a service, with a reference to the
            `IdentityWrapper`; fails as `connect` does.
        """
        theReactor = chooseReactor(reactor)

        async def run() -> pb.RemoteReference:
            root = await openRoot(theReactor, self.target)
            return await using(root, self.on(root))

        return within(self.timeout, theReactor, run())

    def attach(
        self, reactor: Reactor = None
    ) -> Deferred[tuple[pb.RemoteReference, pb.RemoteReference]]:
        """
        Connect, log in, and attach, as `run`; for further perspectives of the same login.

        Args:
            reactor: as for `run`.

        Returns:
            Fires with a reference to the `IdentityWrapper`, and the remote perspective; fails as
            `connect` does.
        """
        theReactor = chooseReactor(reactor)

        async def run() -> tuple[pb.RemoteReference, pb.RemoteReference]:
            root = await openRoot(theReactor, self.target)
            wanted = (str(self.service), self.perspective or self.identity, self.client)
            return await using(root, prove(root, self.identity, self.credentials, wanted))

        return within(self.timeout, theReactor, run())

    async def on(self, root: pb.RemoteReference) -> pb.RemoteReference:
        """
        Log in, and attach, over a connection that there is already.

        Args:
            root: a reference to an `AuthServ`.

        Returns:
            As `run`.
        """
        checkType(pb.RemoteReference, root, "root")
        if self.service is None:
            identity, _ = await prove(root, self.identity, self.credentials, ())
            return identity
        wanted = (self.service, self.perspective or self.identity, self.client)
        _, perspective = await prove(root, self.identity, self.credentials, wanted)
        return perspective


# What a server that is not pbauth says to our `username`: it has no such method, or one that
# takes other arguments.
_NOT_OURS = frozenset(
    {"twisted.spread.flavors.NoSuchMethod", "builtins.AttributeError", "builtins.TypeError"}
)


def connect(
    host: str | IStreamClientEndpoint,
    port: int | None,
    username: str | None,
    password: str | ICredentials,
    serviceName: str,
    perspectiveName: str | None = None,
    client: pb.Referenceable | None = None,
    timeout: float = 30,
    insecure: bool = False,
    *,
    trust: Trust = None,
    reactor: Reactor = None,
) -> Deferred[pb.RemoteReference]:
    """
    Connect, log in, and get a perspective.

    To let go of it, close the connection: ``perspective.broker.transport.loseConnection()``; or use
    `connected`, which does so at the end of a block.

    Args:
        host: a host, to connect to it by plain TCP; or, where `port` is `None`, an endpoint
            (``"tls:example.com:8787"``, ``"unix:/run/pbauth"``, or an `IStreamClientEndpoint`).
        port: the TCP port, or `None`.
        username: the name of the identity; `None`: that of the voucher.
        password: a `str`, or what implements `ICredentials`, such as `Password` or `Voucher`.
        serviceName: the service to attach to.
        perspectiveName: the perspective of that service; the user's own name by default.
        client: an object of yours that the server may call back.
        timeout: seconds for the whole login.
        insecure: allow a connection without TLS to another machine.
        trust: for an endpoint ``"tls:HOST:PORT"``, what to trust instead of the system's
            certificate authorities: the path of a PEM file of certificates, a
            `twisted.internet.ssl.Certificate`, or the fingerprint of the server's key,
            ``"SHA256:..."``.
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

    def begin() -> Deferred[pb.RemoteReference]:
        login = Login(
            host,
            username,
            asCredentials(password, theReactor),
            checkName(serviceName, "name of a service"),
            perspectiveName,
            client,
            trust,
            insecure=insecure,
            timeout=timeout,
            port=port,
        )
        return login.run(theReactor)

    return maybeDeferred(begin)


def getObjectAt(
    host: str | IStreamClientEndpoint,
    port: int | None,
    timeout: float = 30,
    insecure: bool = False,
    *,
    trust: Trust = None,
    reactor: Reactor = None,
) -> Deferred[pb.RemoteReference]:
    """
    Connect, and get the root object of the server: of a pbauth server, its `AuthServ`.

    Args:
        host: as for `connect`.
        port: as for `connect`.
        timeout: seconds until both ends agreed to speak Perspective Broker.
        insecure: as for `connect`.
        trust: as for `connect`.
        reactor: as for `connect`.

    Returns:
        Fires with a reference to the root object; fails as `connect` does.
    """
    theReactor = chooseReactor(reactor)

    async def run() -> pb.RemoteReference:
        checkTrust(trust)
        root = await openRoot(theReactor, Target(host, port, insecure, trust))
        await using(root, root.broker.whenGreeted())
        # Whoever logs in by hand knows what is to come.
        root.broker.unrestrict()
        return root

    return within(timeout, theReactor, run())


def logIn(
    authServRef: pb.RemoteReference,
    client: pb.Referenceable | None,
    service: str,
    username: str | None,
    password: str | ICredentials,
    perspectiveName: str | None = None,
) -> Deferred[pb.RemoteReference]:
    """
    Log in on a root object that the caller already has, and attach.

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

    async def run() -> pb.RemoteReference:
        checkType(pb.RemoteReference, authServRef, "authServRef")
        checkName(service, "name of a service")
        login = Login("", username, asCredentials(password), service, perspectiveName, client)
        return await login.on(authServRef)

    return Deferred.fromCoroutine(run())


def authIdentity(
    authServRef: pb.RemoteReference, username: str | None, password: str | ICredentials
) -> Deferred[pb.RemoteReference]:
    """
    Log in on a root object that the caller already has, without attaching.

    Args:
        authServRef: a reference to an `AuthServ`.
        username: the name of the identity.
        password: as for `connect`.

    Returns:
        Fires with a reference to the `IdentityWrapper`; fails as `connect` does.
    """

    async def run() -> pb.RemoteReference:
        checkType(pb.RemoteReference, authServRef, "authServRef")
        return await Login("", username, asCredentials(password)).on(authServRef)

    return Deferred.fromCoroutine(run())


def changePassword(
    identityRef: pb.RemoteReference, newPassword: str, *, reactor: Reactor = None
) -> Deferred[None]:
    """
    Change one's own password. The server gets a verifier of it, which is made here.

    The other sessions of the account end; those of this connection stay.

    Args:
        identityRef: a reference to the `IdentityWrapper`, as `authIdentity` gives it.
        newPassword: the new password.
        reactor: provides threads for the slow part of it, while it runs; the global one by default.

    Returns:
        Fires when it counts. Fails with

        - `TypeError` or `InvalidPassword`: that can't be a password (nothing was sent);
        - `NotProtected`: it is not allowed on this connection: it must lead to this machine,
          or TLS 1.3 must bind the login to it;
        - `ServerNotTrusted`: the server wants the password hashed in a way that is not safe;
        - `Unauthorized`: the login is no longer valid.
    """

    async def run() -> None:
        checkType(pb.RemoteReference, identityRef, "identityRef")
        preparePassword(newPassword)
        hashing = await askHashing(identityRef) or Hashing()
        salt = secrets.token_bytes(hashing.saltBytes)
        made = await Derivations(reactor).run(
            hashing.iterations, hashing.makeVerifiers, newPassword, salt
        )
        await identityRef.callRemote("changePassword", made[scram.NAME].encode())

    return Deferred.fromCoroutine(run())


async def prove(
    root: Any, username: str, credentials: ICredentials, attach: tuple[Any, ...]
) -> tuple[pb.RemoteReference, Any]:
    """
    Prove an identity, and attach in the same round trip.

    Args:
        root: a reference to an `AuthServ`.
        username: the name of the identity.
        credentials: what proves it.
        attach: service, perspective and client; empty: do not attach.

    Returns:
        A reference to the `IdentityWrapper`, and the perspective or `None`.
    """
    broker = root.broker
    wary = isinstance(broker, Broker)
    if wary:
        broker.restrict(MOST_UNPROVED)
    exchange, challenge, challenger = await _claim(root, username, credentials)
    response = await settled(exchange.respond(challenge))
    if wary:
        broker.expectProof(exchange.checkOutcome)
    answer = await challenger.callRemote("respond", response, *attach)
    outcome, *references = _checked(answer, 3 if attach else 2)
    exchange.checkOutcome(outcome)
    if wary:
        broker.loggedIn()
    # One login that nobody has passed on shows that nobody is in between.
    broker.loginIsBound = exchange.bound or getattr(broker, "loginIsBound", False)
    identity = references[0]
    # Kept as long as what they led to: to give them back would take a message of its own.
    identity.challenger = challenger
    if attach:
        references[1].identity = identity
    if IRenewingExchange.providedBy(exchange):
        renewInBackground(exchange, identity)
    return identity, references[1] if attach else None


async def _claim(
    root: Any, username: str, credentials: ICredentials
) -> tuple[IClientExchange, bytes, Any]:
    """Claim to be `username`, by the strongest mechanism that both sides accept."""
    connection = channelOf(root.broker)
    wanted = [
        name
        for name in credentials.mechanisms
        if name != scram.NAME_PLUS or connection.channelBinding is not None
    ]
    mechanism = wanted[0]
    while True:
        wanted.remove(mechanism)
        exchange = credentials.begin(mechanism, username, connection)
        try:
            answer = await root.callRemote("username", username, mechanism, exchange.initial)
        except MechanismNotSupported as refusal:
            # What the server offers instead is taken only where the caller allows it.
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


def asCredentials(password: str | ICredentials, reactor: Reactor = None) -> ICredentials:
    """
    Return credentials for whatever a caller gave as the password.

    Args:
        password: a text, or credentials, which are returned as they are.
        reactor: as for `Password`.

    Raises:
        TypeError: the password is neither.
    """
    if ICredentials.providedBy(password):
        return password  # type: ignore[return-value]
    if not isinstance(password, str):
        raise TypeError(
            f"password must be a str, or provide ICredentials, which {type(password).__name__} "
            "does not."
        )
    return Password(password, reactor=reactor)  # type: ignore[arg-type]
