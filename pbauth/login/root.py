"""
The server's half of a login, in the order in which a client meets it.

::

    AuthRoot  --rootObject-->  AuthServ  --username-->  AuthChallenger  --respond-->
    IdentityWrapper  --attach-->  the perspective

Each of these objects is made for one connection and gives the client the next one; nothing else
is within its reach.  (The seed, "How that example worked".)  What each remote method takes and
answers stands in ``docs/reference/protocol.rst``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.spread import pb
from zope.interface import implementer

from pbauth._async import chooseReactor, settled
from pbauth.audit import Audit
from pbauth.audit.events import DropReason
from pbauth.errors import (
    Detached,
    ExchangeRefused,
    KeyNotFound,
    MechanismNotSupported,
    ProtocolViolation,
    TooManyAttempts,
    Unauthorized,
    WireError,
    forStockClient,
)
from pbauth.interfaces import IAuthorizer, IIdentity, IRestrictableBroker
from pbauth.login.negotiation import Claim, Exchanges
from pbauth.login.policy import Policy
from pbauth.login.stock import LegacyChallenger, StockChallenger, attachStockClient
from pbauth.login.throttle import Guard, networkOf
from pbauth.mechanisms import anonymous, ed25519, md5, scram
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.net.origin import Origin, originOf
from pbauth.perspectives.sessions import EndReason, Session, SessionReference
from pbauth.wire.broker import Broker, dropConnection
from pbauth.wire.calls import WireObject, asName
from pbauth.wire.channel import channelOf, peerOf
from pbauth.wire.keepalive import Watch

#: The most challenges that may wait for their response at once on one connection.
MOST_CHALLENGERS = 16


@implementer(pb.IPBRoot)
class AuthRoot:
    """
    What to hang behind a port: ``PBServerFactory(AuthRoot(authorizer))`` is a complete server.

    Args:
        authorizer: finds the identities.
        policy: limits and switches; the defaults are safe.
        reactor: provides `IReactorTime`; the global one by default.
        guard: what is known of those who have not logged in; to be shared by the ports of a
            server. By default one of its own.
        audit: where logins are recorded; by default where the authorizer's sessions are.

    Attributes:
        audit: the same.
    """

    def __init__(
        self,
        authorizer: IAuthorizer,
        policy: Policy | None = None,
        reactor: Any = None,
        guard: Guard | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.authorizer = authorizer
        self.audit: Audit = authorizer.sessions.audit if audit is None else audit
        self.policy = Policy() if policy is None else policy
        self._reactor = reactor
        self._guard = guard
        self._exchanges = Exchanges(authorizer, self.policy)
        self._watch = Watch(
            self.policy.pingInterval,
            reactor,
            lambda broker: self.audit.dropped(originOf(broker), DropReason.SILENT),
        )

    @property
    def guard(self) -> Guard:
        """What is known of those who have not logged in."""
        if self._guard is None:
            self._guard = Guard(self.policy, chooseReactor(self._reactor))
        return self._guard

    def rootObject(self, broker: pb.Broker) -> AuthServ:
        """Give a new connection its `AuthServ`. The factory calls it."""
        reactor = chooseReactor(self._reactor)
        return AuthServ(
            *(self.authorizer, broker, self.policy, reactor),
            *(self._exchanges, self.guard, self._watch, self.audit),
        )


class _Refusal(Protocol):
    """
    Ends a connection as soon as it is made. Factories that wrap ours, for TLS for instance, do not
    take `None` for that.
    """

    def connectionMade(self) -> None:
        dropConnection(self)


class AuthServerFactory(pb.PBServerFactory):
    """
    A complete server with pbauth's own `Broker`, which takes little from who has not logged in.

    Args:
        authorizer: finds the identities.
        policy: limits and switches; the defaults are safe.
        reactor: as for `AuthRoot`.
        guard: as for `AuthRoot`.
        audit: as for `AuthRoot`.
    """

    protocol = Broker
    noisy = False

    def __init__(
        self,
        authorizer: IAuthorizer,
        policy: Policy | None = None,
        reactor: Any = None,
        guard: Guard | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._authRoot = AuthRoot(authorizer, policy, reactor, guard, audit)
        super().__init__(self._authRoot)

    def buildProtocol(self, addr: Any) -> Any:
        """Take a connection; or refuse it, where too many wait to log in."""
        if not self._authRoot.guard.mayCome(networkOf(addr)):
            self._authRoot.audit.dropped(Origin(addr), DropReason.CONNECTIONS)
            return _Refusal()
        broker = super().buildProtocol(addr)
        broker.audit = self._authRoot.audit
        broker.restrict(self._authRoot.policy.maxUnauthenticatedBytes)
        return broker


class AuthServ(WireObject):
    """
    The root object of one connection: takes the name that a client claims.

    Args:
        authorizer: finds the identities.
        broker: the broker of the connection.
        policy: limits and switches.
        reactor: provides `IReactorTime`.
        exchanges: begins the exchanges of all connections.
        guard: what is known of those who have not logged in.
        watch: notices which clients are gone.
        audit: where logins are recorded.
    """

    def __init__(
        self,
        authorizer: IAuthorizer,
        broker: Any,
        policy: Policy,
        reactor: Any,
        exchanges: Exchanges,
        guard: Guard,
        watch: Watch,
        audit: Audit,
    ) -> None:
        self._audit = audit
        self.authorizer = authorizer
        self.broker = broker
        self.policy = policy
        self._reactor = reactor
        self._exchanges = exchanges
        self._watch = watch
        self._facts: Channel | None = None
        self._network = ""
        self._failures = 0
        self._challengers = 0
        self._guard = guard
        self._stranger = guard.strangers.came(self._timeIsUp)
        broker.notifyOnDisconnect(self._connectionLost)

    def remote_mechanisms(self) -> list[str]:
        """Tell the mechanisms that this connection is offered, strongest first."""
        return self._offered()

    async def remote_username(self, name: Any, *start: Any) -> Any:
        """
        Take a claimed name, and challenge the client to prove it.

        Args:
            name: of the identity.
            start: mechanism and the mechanism's first message; nothing for the login of
                Twisted 1.x.

        Returns:
            The challenge and an `AuthChallenger`.
        """
        if not start:
            challenge, challenger = await self._challenge(name, md5.NAME, b"")
            return challenge, LegacyChallenger(challenger)
        if len(start) != 2:
            raise ProtocolViolation("username takes a name, a mechanism and a first message.")
        return await self._challenge(name, *start)

    async def remote_login(self, name: Any) -> Any:
        """
        Take a claimed name from a client of stock Twisted (`PBClientFactory.login`).

        Returns:
            The challenge and a `StockChallenger`.
        """
        try:
            serviceName = self._serviceForStockClients(name, md5.NAME)
            challenge, challenger = await self._challenge(name, md5.NAME, b"")
            return challenge, StockChallenger(challenger, serviceName)
        except WireError as error:
            raise forStockClient(error) from None

    async def remote_loginAnonymous(self, client: Any = None) -> Any:
        """
        Let a client of stock Twisted in that says no name (`PBClientFactory.login` with
        `twisted.cred.credentials.Anonymous`).

        Args:
            client: a reference to its client object, or `None`.

        Returns:
            The guest's perspective of the policy's default service.
        """
        begun = self.now()
        try:
            serviceName = self._serviceForStockClients("", anonymous.NAME)
            if self.policy.guest is None:
                raise self.refuse("", anonymous.NAME, "there are no guests")
            identity = await self._exchanges.findIdentity(self.policy.guest)
            if identity is None or identity.locked:
                raise self.refuse(self.policy.guest, anonymous.NAME, "there is no such guest")
            wrapper = self.accept(identity, anonymous.NAME, None, begun)
            return await attachStockClient(wrapper, serviceName, client)
        except WireError as error:
            raise forStockClient(error) from None

    # What the challengers need.

    def now(self) -> float:
        """Tell the time, in seconds."""
        seconds: float = self._reactor.seconds()
        return seconds

    def accept(
        self, identity: IIdentity, mechanism: str, proof: object, begun: float
    ) -> IdentityWrapper:
        """
        The login is proved.

        Args:
            identity: who the client is.
            mechanism: the name of the mechanism.
            proof: what it was proved by, a verifier or a public key, or `None`.
            begun: when the login began, as `now` told.

        Returns:
            What the client gets.
        """
        if not self._stranger.gone:
            # The first login on this connection.
            self.origin.authenticated = True
            self._guard.strangers.left(self._stranger)
            self._watch.add(self.broker)
            if IRestrictableBroker.providedBy(self.broker):
                self.broker.loggedIn()
        self._guard.succeeded(self._network, identity.name)
        self._audit.loggedIn(self.origin, identity.name, mechanism, self.now() - begun)
        return IdentityWrapper(
            self.broker, self.authorizer, self._reactor, self._audit, identity, mechanism, proof
        )

    def refuse(self, name: str, mechanism: str, reason: str) -> Unauthorized:
        """
        The login failed. After too many the connection is dropped.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism.
            reason: the real one, for the audit only.

        Returns:
            What to raise.
        """
        if not self._tooManyFailures:
            self._audit.refused(self.origin, name, mechanism, reason)
            self._guard.failed(self._network, name)
            self._countFailure()
        return Unauthorized()

    def checkWait(self, name: str, mechanism: str) -> None:
        """
        See whether somebody may try now.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism.

        Raises:
            TooManyAttempts: not yet.
            Unauthorized: not on this connection any more.
        """
        if self._tooManyFailures:
            raise Unauthorized()
        wait = self._guard.wait(self._network, name)
        if wait:
            self._audit.throttled(self.origin, name, mechanism, wait)
            self._countFailure()
            raise TooManyAttempts(wait)

    @property
    def _tooManyFailures(self) -> bool:
        # The connection is about to be dropped. What came with the last failure in one piece is
        # neither looked at nor written down.
        return self._failures >= self.policy.maxAttempts

    def _countFailure(self) -> None:
        self._failures += 1
        if self._tooManyFailures:
            # Not at once: the answer has to go out first.
            self._reactor.callLater(0, self._drop, DropReason.ATTEMPTS)

    def _refuseMechanism(self, name: str, mechanism: str) -> MechanismNotSupported:
        if not self._tooManyFailures:
            self._audit.mechanismRefused(self.origin, name, mechanism)
            self._countFailure()
        return MechanismNotSupported(self._offered())

    def challengerDone(self) -> None:
        """A challenge was answered."""
        self._challengers -= 1

    @property
    def origin(self) -> Origin:
        """Where the connection comes from, for the audit."""
        return originOf(self.broker)

    def _offered(self) -> list[str]:
        return self._exchanges.offered(self._connection())

    def _connection(self) -> Channel:
        # By the time of the first call the handshakes of TLS and of a proxy are over, and what
        # they told is final.
        if self._facts is None:
            offered = scram.NAME_PLUS in self.policy.mechanisms
            self._facts = channelOf(self.broker, bindingOffered=offered)
            self._network = networkOf(peerOf(self.broker))
        return self._facts

    def _serviceForStockClients(self, name: Any, mechanism: str) -> str:
        if not self.policy.legacyLogin or self.policy.defaultService is None:
            raise self._refuseMechanism(asName(name), mechanism)
        return self.policy.defaultService

    async def _challenge(
        self, name: Any, mechanism: Any, initial: Any
    ) -> tuple[bytes, AuthChallenger]:
        connection = self._connection()
        name = asName(name)
        self.checkWait(name, asName(mechanism))
        if self._challengers >= MOST_CHALLENGERS:
            self._drop(DropReason.CHALLENGERS)
            raise Unauthorized()
        begun = self.now()
        self._challengers += 1
        challenger = None
        try:
            claim = await self._exchanges.begin(name, mechanism, connection)
            challenge = claim.exchange.challenge(initial)
            challenger = AuthChallenger(self, claim, begun)
        except MechanismNotSupported:
            raise self._refuseMechanism(name, mechanism) from None
        except ExchangeRefused as refusal:
            raise self.refuse(claim.name, claim.mechanism, refusal.reason) from None
        finally:
            if challenger is None:
                self._challengers -= 1
        return challenge, challenger

    def _drop(self, reason: DropReason) -> None:
        if self.broker.disconnected or self.broker.transport is None:
            return
        self._audit.dropped(self.origin, reason)
        dropConnection(self.broker)

    def _timeIsUp(self) -> None:
        self._guard.misbehaved(networkOf(peerOf(self.broker)))
        self._drop(DropReason.GRACE_TIME)

    def _connectionLost(self) -> None:
        if self._stranger.gone:
            return
        self._guard.strangers.left(self._stranger)
        if IRestrictableBroker.providedBy(self.broker) and self.broker.brokeProtocol:
            self._guard.misbehaved(networkOf(peerOf(self.broker)))


class AuthChallenger(WireObject):
    """
    Takes the response to one challenge, once.

    Args:
        serv: the connection's `AuthServ`.
        claim: what has to be proved.
        begun: when the login began.
    """

    def __init__(self, serv: AuthServ, claim: Claim, begun: float) -> None:
        self._serv = serv
        self._claim: Claim | None = claim
        self._begun = begun

    async def remote_respond(self, response: Any, *attach: Any) -> Any:
        """
        Take the response; and, if it proves the identity, attach in the same go.

        Args:
            response: the mechanism's.
            attach: `serviceName, perspectiveName, client`, as for `IdentityWrapper.attach`;
                or nothing.

        Returns:
            The mechanism's last message, the `IdentityWrapper`, and the perspective if one was
            asked for.
        """
        if len(attach) not in (0, 3):
            raise ProtocolViolation("respond takes a response, service, perspective and client.")
        outcome, wrapper = await self.prove(response)
        if not attach:
            return outcome, wrapper
        return outcome, wrapper, await wrapper.attach(*attach)

    async def prove(self, response: Any) -> tuple[bytes, IdentityWrapper]:
        """
        Check the response.

        Args:
            response: the mechanism's.

        Returns:
            The mechanism's last message, and what the client gets.

        Raises:
            Unauthorized: it proves nothing, or is not the first.
        """
        claim, self._claim = self._claim, None
        if claim is None:
            raise self._serv.refuse("", "", "a second response")
        self._serv.challengerDone()
        self._serv.checkWait(claim.name, claim.mechanism)
        identity = claim.identity
        try:
            outcome = await settled(claim.exchange.outcome(response))
            if identity is None:
                raise ExchangeRefused("no such identity")
            if identity.locked:
                raise ExchangeRefused("the account is locked")
        except ExchangeRefused as refusal:
            raise self._serv.refuse(claim.name, claim.mechanism, refusal.reason) from None
        if self._serv.broker.disconnected:
            raise Detached()
        proof = claim.exchange.proof
        return outcome, self._serv.accept(identity, claim.mechanism, proof, self._begun)


class IdentityWrapper(WireObject):
    """
    What a client holds that has proved who it is: its only use is to get at perspectives.

    Args:
        broker: of the connection.
        authorizer: finds the identity, anew for each request.
        reactor: provides `IReactorTime`.
        audit: where what the client does is recorded.
        identity: who the client is.
        mechanism: the name of the mechanism of the login.
        proof: what it was proved by, or `None`.
    """

    def __init__(
        self,
        broker: pb.Broker,
        authorizer: IAuthorizer,
        reactor: Any,
        audit: Audit,
        identity: IIdentity,
        mechanism: str,
        proof: object,
    ) -> None:
        self._audit = audit
        self._broker = broker
        self._authorizer = authorizer
        self._reactor = reactor
        self._name = identity.name
        self._mechanism = mechanism
        self.proof = proof

    async def remote_attach(self, serviceName: Any, perspectiveName: Any, client: Any) -> Any:
        """
        Attach the client to a perspective.

        Args:
            serviceName: of the key.
            perspectiveName: of the key; `None`: `IIdentity.getKeyForService` chooses.
            client: a reference to the client's object, or `None`.

        Returns:
            The perspective.
        """
        return await self.attach(serviceName, perspectiveName, client)

    async def attach(self, serviceName: Any, perspectiveName: Any, client: Any) -> Any:
        """As `remote_attach`, for the challengers."""
        serviceName = asName(serviceName)
        if client is not None and not isinstance(client, pb.RemoteReference):
            raise ProtocolViolation("client must be a Referenceable, or None.")
        reason = "the login stands no more"
        try:
            identity = await self._currentIdentity()
            reason = "the service refused"
            return await self._attach(identity, serviceName, perspectiveName, client)
        except Unauthorized as refusal:
            if isinstance(refusal, KeyNotFound):
                reason = "no such key"
            wanted = None if perspectiveName is None else asName(perspectiveName)
            self._audit.attachRefused(
                originOf(self._broker), self._name, self._mechanism, (serviceName, wanted), reason
            )
            raise

    async def _attach(
        self, identity: IIdentity, serviceName: str, perspectiveName: Any, client: Any
    ) -> SessionReference:
        if perspectiveName is None:
            key = identity.getKeyForService(serviceName)
        else:
            key = asName(perspectiveName)
        if self._broker.disconnected:
            raise Detached()
        session = Session(
            self._authorizer.sessions,
            identity,
            serviceName,
            key,
            self._mechanism,
            self.proof,
            self._broker,
            client,
            peerOf(self._broker),
            self._reactor.seconds(),
        )
        try:
            if perspectiveName is None:
                requested = identity.requestPerspectiveForService(serviceName)
            else:
                requested = identity.requestPerspectiveForKey(serviceName, key)
            await session.attach(await settled(requested))
        except BaseException:
            session.end(EndReason.DETACHED)
            raise
        return session.reference

    async def remote_detach(self, perspective: Any) -> None:
        """
        End one session.

        Args:
            perspective: what `attach` gave.
        """
        if (
            not isinstance(perspective, SessionReference)
            or perspective.session.identity.name != self._name
        ):
            raise ProtocolViolation("detach takes a perspective that attach gave.")
        await perspective.session.end(EndReason.DETACHED)

    async def remote_keys(self) -> list[tuple[str, str]]:
        """Tell the keys on the keyring."""
        identity = await self._currentIdentity()
        return [tuple(key) for key in identity.getAllKeys()]  # type: ignore[misc]

    def remote_hashing(self) -> tuple[int, int]:
        """Tell how new passwords are to be hashed: iterations, and bytes of salt."""
        hashing = self._authorizer.hashing
        return hashing.iterations, hashing.saltBytes

    async def remote_changePassword(self, verifier: Any) -> None:
        """
        Replace the password by a verifier that the client made; the server never sees it.
        The other sessions of the identity that the old password opened end.

        Args:
            verifier: text, as `ScramVerifier.encode` writes it.
        """
        made = self._newVerifier(verifier)
        identity = await self._currentIdentity()
        replaced = (await settled(identity.getVerifiers())).values()
        # What this login opened stays open: it is the same person.
        own = [
            session
            for session in self._authorizer.sessions.ofIdentity(self._name)
            if session.broker is self._broker and session.proof == self.proof
        ]
        with self._authorizer.proofs.changing(self._name, replaced, made, [self, *own]):
            identity.setVerifiers({scram.NAME: made})
            await settled(identity.save())
        self._audit.passwordChanged(originOf(self._broker), self._name, self._mechanism)

    async def remote_renewVerifier(self, verifier: Any) -> None:
        """
        Replace the verifier that this login was proved by, which has fewer iterations than it
        should, by one of the same password that has enough. All sessions stay, and so do MD5
        verifier and public keys.

        Args:
            verifier: text, as `ScramVerifier.encode` writes it.
        """
        made = self._newVerifier(verifier)
        identity = await self._currentIdentity()
        old = self.proof
        wanted = self._authorizer.hashing.iterations
        if not isinstance(old, ScramVerifier) or not old.iterations < wanted <= made.iterations:
            raise ProtocolViolation("This verifier is not a better one than that of this login.")
        with self._authorizer.proofs.renewing(self._name, old, made):
            if not await settled(self._authorizer.renewVerifier(identity, old, made)):
                raise ProtocolViolation("The password was changed, or verifiers can't be stored.")
        self.proof = made
        self._audit.verifierRenewed(originOf(self._broker), self._name, self._mechanism)

    def _newVerifier(self, verifier: Any) -> ScramVerifier:
        if self._mechanism == anonymous.NAME:
            raise ProtocolViolation("A guest has no password to change.")
        if self._authorizer.externalPasswords:
            raise ProtocolViolation("The passwords of this server are kept elsewhere.")
        bound = self._mechanism in (scram.NAME_PLUS, ed25519.NAME)
        if not (channelOf(self._broker).local or bound):
            raise ProtocolViolation(
                "The password can be changed on the server's own machine, or after a login "
                f"by {scram.NAME_PLUS} or {ed25519.NAME}."
            )
        try:
            return ScramVerifier.decode(asName(verifier))
        except ValueError as mistake:
            raise ProtocolViolation(str(mistake)) from None

    async def _currentIdentity(self) -> IIdentity:
        # Asked for anew, since the account may have been changed, or closed, since the login.
        identity: IIdentity = await settled(self._authorizer.getIdentityRequest(self._name))
        self.proof = self._authorizer.proofs.standing(identity, self)
        return identity
