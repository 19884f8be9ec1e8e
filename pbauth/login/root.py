"""
The server's half of a login, in the order in which a client meets it.

::

    AuthRoot  --rootObject-->  AuthServ  --username-->  AuthChallenger  --respond-->
    IdentityWrapper  --attach-->  the perspective

Each of these objects is made for one connection and gives the client the next one; nothing else
is within its reach.  What each remote method takes and answers stands in
``docs/reference/protocol.rst``.

What a client may try, and what failures cost it, is not decided here but by
`pbauth.login.attempts`; which mechanism, and what it asks the identity for, by
`pbauth.login.negotiation`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.spread import pb
from zope.interface import implementer

from pbauth._arguments import checkProvides, checkType
from pbauth._async import chooseReactor, settled
from pbauth._time import wallTime
from pbauth.accounts.vouchers import checkIssued
from pbauth.audit import Audit
from pbauth.audit.events import DropReason
from pbauth.errors import (
    Detached,
    ExchangeRefused,
    KeyNotFound,
    LimitExceeded,
    MechanismNotSupported,
    MethodNotAllowed,
    NotProtected,
    PasswordChangeRequired,
    ProtocolViolation,
    Unauthorized,
)
from pbauth.interfaces import IAccountStore, IAuthorizer, IIdentity, Reactor
from pbauth.login.attempts import Attempt, Attempts
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.negotiation import Claim, Negotiation
from pbauth.login.policy import Policy
from pbauth.login.stock import LegacyChallenger, StockChallenger, attachStockClient, readableErrors
from pbauth.login.throttle import networkOf
from pbauth.login.vouchers import checkSession, keyFor, narrowedKeys
from pbauth.mechanisms import Verifier, anonymous, md5, scram
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.mechanisms.voucher import IssuedVoucher, VoucherProof
from pbauth.names import isTooLong
from pbauth.net.origin import Origin, originOf
from pbauth.net.transports import dropConnection
from pbauth.perspectives.sessions import EndReason, Session, SessionReference
from pbauth.wire import peerobject
from pbauth.wire.broker import Broker
from pbauth.wire.calls import WireObject, asFlag, asName
from pbauth.wire.channel import channelOf, isProtected, peerOf
from pbauth.wire.keepalive import KeepAlive


@implementer(pb.IPBRoot)
class AuthRoot:
    """
    The root object of a port: ``PBServerFactory(AuthRoot(authorizer))`` is a complete server.

    Args:
        authorizer: finds the identities.
        policy: limits and switches; the defaults are safe.
        reactor: provides `IReactorTime`; the global one by default.
        limits: what all ports of a server share: the throttle, and the connections without a login.
            By default this one has its own.
        audit: where logins are recorded; by default where the authorizer's sessions are.
    """

    def __init__(
        self,
        authorizer: IAuthorizer,
        policy: Policy | None = None,
        reactor: Reactor = None,
        limits: ConnectionLimits | None = None,
        audit: Audit | None = None,
    ) -> None:
        checkProvides(IAuthorizer, authorizer, "authorizer")
        if policy is not None:
            checkType(Policy, policy, "policy")
        if limits is not None:
            checkType(ConnectionLimits, limits, "limits")
        if audit is not None:
            checkType(Audit, audit, "audit")
        self.authorizer = authorizer
        self.policy = Policy() if policy is None else policy
        self.audit: Audit = authorizer.sessions.audit if audit is None else audit
        self._reactor = reactor
        self._limits = limits
        self._negotiation = Negotiation(authorizer, self.policy)
        self._keepAlive = KeepAlive(
            self.policy.pingInterval,
            reactor,
            lambda broker: self.audit.dropped(originOf(broker), DropReason.IDLE),
        )

    @property
    def limits(self) -> ConnectionLimits:
        """Return the throttle, and the connections without a login."""
        if self._limits is None:
            self._limits = ConnectionLimits(self.policy, chooseReactor(self._reactor))
        return self._limits

    def rootObject(self, broker: pb.Broker) -> AuthServ:
        """Return the `AuthServ` of a new connection. The factory calls it."""
        # Now, since whoever makes an `AuthRoot` may not have installed the reactor yet.
        reactor = self._reactor = self._reactor or chooseReactor()
        broker.clock = reactor  # type: ignore[attr-defined]
        attempts = Attempts(
            broker,
            self.policy,
            reactor,
            self.limits,
            self._keepAlive,
            self.audit,
            self.authorizer.sessions.logins,
        )
        return AuthServ(
            broker, self.authorizer, self.policy, self._negotiation, attempts, self.audit, reactor
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
    A complete server with pbauth's own `Broker`, which takes little from a client that has not
    logged in.

    Args:
        authorizer: finds the identities.
        policy: limits and switches; the defaults are safe.
        reactor: as for `AuthRoot`.
        limits: as for `AuthRoot`.
        audit: as for `AuthRoot`.
    """

    protocol = Broker
    noisy = False

    def __init__(
        self,
        authorizer: IAuthorizer,
        policy: Policy | None = None,
        reactor: Reactor = None,
        limits: ConnectionLimits | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._authRoot = AuthRoot(authorizer, policy, reactor, limits, audit)
        # The broker asks for it.
        self.maxReferences = self._authRoot.policy.maxReferences
        super().__init__(self._authRoot)

    @property
    def limits(self) -> ConnectionLimits:
        """Return the throttle and the limits, which the ports of a server share."""
        return self._authRoot.limits

    def buildProtocol(self, addr: Any) -> Any:
        """Take a connection; or refuse it, where there are too many without a login."""
        if not self._authRoot.limits.admits(networkOf(addr)):
            self._authRoot.audit.dropped(Origin(addr), DropReason.CONNECTIONS)
            return _Refusal()
        broker = super().buildProtocol(addr)
        broker.audit = self._authRoot.audit
        broker.callLimits = self._authRoot.limits.calls
        broker.restrict(self._authRoot.policy.maxUnauthenticatedBytes)
        return broker


class AuthServ(WireObject):
    """
    The root object of one connection: takes the name that a client claims.

    Args:
        broker: of the connection.
        authorizer: finds the identities.
        policy: limits and switches.
        negotiation: offers mechanisms and begins exchanges.
        attempts: of the connection.
        audit: where events are recorded.
        reactor: provides `IReactorTime`.
    """

    def __init__(
        self,
        broker: Any,
        authorizer: IAuthorizer,
        policy: Policy,
        negotiation: Negotiation,
        attempts: Attempts,
        audit: Audit,
        reactor: Reactor,
    ) -> None:
        self.broker = broker
        self.authorizer = authorizer
        self._policy = policy
        self._negotiation = negotiation
        self._attempts = attempts
        self._audit = audit
        self._reactor = reactor
        self._facts: Channel | None = None

    def remote_mechanisms(self) -> list[str]:
        """Return the names of the mechanisms that this connection is offered, strongest first."""
        self.broker.readsOurErrors = True
        return self._negotiation.offered(self._channel)

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
            with readableErrors():
                challenge, challenger = await self._begin(name, md5.NAME, b"")
            return challenge, LegacyChallenger(challenger)
        # Others do not know of mechanisms.
        self.broker.readsOurErrors = True
        if len(start) != 2:
            raise ProtocolViolation("username takes a name, a mechanism and a first message.")
        return await self._begin(name, *start)

    async def remote_login(self, name: Any) -> Any:
        """
        Take a claimed name from a client of stock Twisted (`PBClientFactory.login`).

        Returns:
            The challenge and a `StockChallenger`.
        """
        with readableErrors():
            serviceName = self._serviceForStockClients(name, md5.NAME)
            challenge, challenger = await self._begin(name, md5.NAME, b"")
            return challenge, StockChallenger(challenger, serviceName)

    async def remote_loginAnonymous(self, client: Any = None) -> Any:
        """
        Log in a client of stock Twisted that says no name (`PBClientFactory.login` with
        `twisted.cred.credentials.Anonymous`).

        Args:
            client: a reference to its client object, or `None`.

        Returns:
            The guest's perspective of the policy's default service.
        """
        with readableErrors():
            serviceName = self._serviceForStockClients("", anonymous.NAME)
            if self._policy.guest is None:
                attempt = self._attempts.book("", anonymous.NAME)
                raise attempt.refuse("there are no guests")
            _, challenger = await self._begin("", anonymous.NAME, b"")
            _, wrapper = await challenger.prove(b"")
            return await attachStockClient(wrapper, serviceName, client)

    async def _begin(
        self, claimed: Any, mechanism: Any, initial: Any
    ) -> tuple[bytes, AuthChallenger]:
        name = asName(claimed)
        attempt = self._attempts.book(name, asName(mechanism))
        if isTooLong(name):
            # Nobody's, before anything looks at it.
            raise attempt.refuse("the name is too long")
        self._attempts.beginning += 1
        try:
            claim = await self._negotiation.begin(name, mechanism, self._channel)
            challenge = await settled(claim.exchange.challenge(initial))
        except MechanismNotSupported:
            attempt.abandon()
            self._attempts.refuseMechanism(name, mechanism)
            raise
        except ExchangeRefused as refusal:
            raise attempt.refuse(refusal.reason) from None
        except BaseException:
            # Nobody is to blame who asks while the store can't be read.
            attempt.abandon()
            raise
        finally:
            self._attempts.beginning -= 1
        return challenge, AuthChallenger(self, attempt, claim)

    def _serviceForStockClients(self, name: Any, mechanism: str) -> str:
        if not self._policy.legacyLogin or self._policy.defaultService is None:
            self._attempts.refuseMechanism(asName(name), mechanism)
            raise MechanismNotSupported(self._negotiation.offered(self._channel))
        return self._policy.defaultService

    @property
    def _channel(self) -> Channel:
        # By the time of the first call the handshakes of TLS and of a proxy are over.
        if self._facts is None:
            self._facts = channelOf(self.broker)
        return self._facts

    def refuseSecondResponse(self) -> Unauthorized:
        """Return what to raise where a challenge is answered once more. The challenger calls it."""
        return self._attempts.refuse("", "", "a second response")

    def checkVoucher(self, claim: Claim) -> None:
        """
        Check that a voucher, if it is one that was proved, is one that the policy allows.

        Args:
            claim: what was proved.

        Raises:
            ExchangeRefused: it is good for too long: somebody issued it under another policy.
        """
        proof = claim.exchange.proof
        if isinstance(proof, VoucherProof):
            until = proof.blocks[0].limits.until
            if until is None or until - self.authorizer.now() > self._policy.maxVoucherLife:
                raise ExchangeRefused("the voucher is good for longer than the policy allows")

    def open(self, identity: IIdentity, mechanism: str, claim: Claim) -> IdentityWrapper:
        """
        Return what a client gets that has proved who it is. The challenger calls it.

        Args:
            identity: who the client is.
            mechanism: the name of the mechanism.
            claim: what was proved.
        """
        proof = claim.exchange.proof
        if isinstance(proof, VoucherProof):
            self._audit.voucherUsed(originOf(self.broker), identity.name, proof)
        # Of use for another login only.
        self._facts = None
        self._attempts.logins.add(identity, proof)
        self.authorizer.sessions.loggedIn(identity, proof)
        return IdentityWrapper(
            self.broker,
            self.authorizer,
            self._reactor,
            identity,
            mechanism,
            proof,
            claim.exchange.bound,
            self._audit,
            self._attempts,
            self._policy.maxVoucherLife if self._policy.vouchers else None,
        )


class AuthChallenger(WireObject):
    """
    Takes the response to one challenge, once.

    Args:
        serv: the connection's `AuthServ`.
        attempt: that this is part of.
        claim: what has to be proved.
    """

    def __init__(self, serv: AuthServ, attempt: Attempt, claim: Claim) -> None:
        self._serv = serv
        self._attempt: Attempt | None = attempt
        self._claim: Claim | None = claim

    async def remote_respond(self, response: Any, *attach: Any) -> Any:
        """
        Check the response; if it proves the identity, attach in the same round trip.

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
        if attach[2] is not None:
            # The client holds our calls back until it has the proof, and `attached` may wait for
            # the answer to one. Others than pbauth's brokers take no notice.
            named = self._serv.broker.remoteForName(peerobject.NAME)
            named.callRemote(peerobject.PROVED.decode(), outcome, pbanswer=False)
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
        # The client keeps this object for as long as the connection lasts: it keeps nothing else.
        attempt, claim = self._attempt, self._claim
        self._attempt = self._claim = None
        if attempt is None or claim is None:
            raise self._serv.refuseSecondResponse()
        attempt.answer()
        identity = claim.identity
        try:
            outcome = claim.exchange.outcome(response)
            if not isinstance(outcome, bytes):
                outcome = await attempt.whileBooked(outcome)
            if identity is None:
                raise ExchangeRefused(claim.missing)
            if identity.locked:
                raise ExchangeRefused("the account is locked")
            if not self._serv.authorizer.proofs.proves(identity, claim.exchange):
                raise ExchangeRefused("the account or the key has expired")
            self._serv.checkVoucher(claim)
            if self._serv.broker.disconnected:
                raise Detached()
            attempt.accept(identity.name, claim.guest)
        except ExchangeRefused as refusal:
            reason = claim.missing or refusal.reason
            raise attempt.refuse(reason) from None
        finally:
            attempt.release()
        return outcome, self._serv.open(identity, attempt.mechanism, claim)


# How often a change of the password is tried while others change the account.
_MOST_TRIES = 5


class _ChangedMeanwhile(Exception):
    """Somebody else has changed the account, and wins."""


class IdentityWrapper(WireObject):
    """
    What a client holds that has proved who it is: its only use is to get at perspectives.

    Attributes:
        proof: what the login was proved by, a verifier or a public key; `None` for a mechanism that
            has neither.

    Args:
        broker: of the connection.
        authorizer: finds the identity, again for each request.
        reactor: provides `IReactorTime`.
        identity: who the client is.
        mechanism: the name of the mechanism of the login.
        proof: what it was proved by, or `None`.
        bound: the proof is good on this connection alone (see `IExchange`).
        audit: where events are recorded.
        attempts: of the connection; told when the client attaches.
        mostVoucherLife: the longest time for which a voucher is issued; `None`: there are none.
    """

    def __init__(
        self,
        broker: pb.Broker,
        authorizer: IAuthorizer,
        reactor: Reactor,
        identity: IIdentity,
        mechanism: str,
        proof: object,
        bound: bool,
        audit: Audit,
        attempts: Attempts,
        mostVoucherLife: timedelta | None = None,
    ) -> None:
        self._broker = broker
        self._authorizer = authorizer
        self._reactor = reactor
        self._name = identity.name
        self._mechanism = mechanism
        self.proof = proof
        self._bound = bound
        self._audit = audit
        self._attempts = attempts
        self._mostVoucherLife = mostVoucherLife

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
        """Attach the client to a perspective, as `remote_attach` does; for the challengers."""
        serviceName = asName(serviceName)
        if client is not None and not isinstance(client, pb.RemoteReference):
            raise ProtocolViolation("client must be a Referenceable, or None.")
        reason = "the login is no longer valid"
        identity = None
        try:
            identity = await self._currentIdentity()
            reason = "the service refused"
            return await self._attach(identity, serviceName, perspectiveName, client)
        except (Unauthorized, LimitExceeded) as refusal:
            if isinstance(refusal, KeyNotFound):
                reason = self._whatIsMissing(identity, refusal)
            elif isinstance(refusal, LimitExceeded):
                reason = "too many sessions"
            elif isinstance(refusal, PasswordChangeRequired):
                reason = "the password has to be changed"
            wanted = None if perspectiveName is None else asName(perspectiveName)
            self._audit.attachRefused(
                originOf(self._broker), self._name, self._mechanism, (serviceName, wanted), reason
            )
            raise

    def _whatIsMissing(self, identity: IIdentity | None, refusal: KeyNotFound) -> str:
        """Return what the client is not told: whether the key is missing, or what it is for."""
        if identity is None or not identity.holdsKey(refusal.serviceName, refusal.perspectiveName):
            return "no such key"
        try:
            self._authorizer.getServiceNamed(refusal.serviceName)
        except KeyError:
            return "no such service"
        return "no such perspective"

    async def _attach(
        self, identity: IIdentity, serviceName: str, perspectiveName: Any, client: Any
    ) -> SessionReference:
        if perspectiveName is None:
            key = keyFor(identity, serviceName, self._voucher)
        else:
            key = asName(perspectiveName)
        if self._voucher is not None:
            checkSession(self._voucher, self._authorizer.sessions, self._name, serviceName, key)
        if self._broker.disconnected:
            raise Detached()
        self._attempts.checkSessions(self._authorizer.sessions, self._name)
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
            wallTime(self._reactor),
            self._bound,
        )
        try:
            if perspectiveName is None and self._voucher is None:
                requested = identity.requestPerspectiveForService(serviceName)
            else:
                requested = identity.requestPerspectiveForKey(serviceName, key)
            await session.attach(await settled(requested))
        except BaseException:
            session.end(EndReason.DETACHED)
            raise
        self._attempts.attached()
        if session.reference is None:
            # Whoever heard of it has ended it.
            raise session.detachedError()
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
        """Return the keys on the keyring."""
        identity = await self._currentIdentity()
        keys = [tuple(key) for key in identity.getAllKeys()]
        return keys if self._voucher is None else narrowedKeys(self._voucher, keys)  # type: ignore[arg-type, return-value]

    def remote_hashing(self) -> tuple[int, int]:
        """Return how new passwords are to be hashed: iterations, and bytes of salt."""
        hashing = self._authorizer.hashing
        return hashing.iterations, hashing.saltBytes

    async def remote_changePassword(self, verifier: Any) -> None:
        """
        Replace the password by a verifier that the client made; the server never sees it.
        The other sessions of the identity that the old password opened end.

        Args:
            verifier: text, as `ScramVerifier.encode` writes it.
        """
        made = self._newVerifier(verifier, "changePassword")
        self._checkStrength(made)
        for _ in range(_MOST_TRIES):
            if await self._replacePassword(made):
                break
        else:
            raise ProtocolViolation("This account keeps changing. Try again later.")
        self._audit.passwordChanged(originOf(self._broker), self._name, self._mechanism)

    async def _replacePassword(self, made: ScramVerifier) -> bool:
        # Fails if the login is no longer valid, for instance after an administrator's reset.
        identity = await self._currentIdentity()
        before = await settled(identity.getVerifiers())
        # What this login opened stays open: it is the same person.
        own = [
            holder
            for holder in self._authorizer.sessions.holders(self._name)
            if holder.broker is self._broker and holder.proof == self.proof
        ]
        proofs = self._authorizer.proofs
        replacing: dict[str, Verifier] = {scram.NAME: made}
        try:
            with proofs.changing(self._name, before.values(), made, [self, *own]):
                if not await settled(self._authorizer.replacePassword(identity, before, replacing)):
                    raise _ChangedMeanwhile
        except _ChangedMeanwhile:
            return False
        return True

    async def remote_renewVerifier(self, verifier: Any) -> None:
        """
        Replace the verifier that this login was proved by, which has fewer iterations than it
        should, by one of the same password that has enough. All sessions stay, and so do MD5
        verifier and public keys.

        Args:
            verifier: text, as `ScramVerifier.encode` writes it.
        """
        made = self._newVerifier(verifier, "renewVerifier")
        identity = await self._currentIdentity()
        old = self.proof
        wanted = self._authorizer.hashing.iterations
        self._checkStrength(made)
        if not isinstance(old, ScramVerifier) or not old.iterations < wanted:
            raise ProtocolViolation("This verifier is not better than the one of this login.")
        with self._authorizer.proofs.renewing(self._name, old, made):
            if not await settled(self._authorizer.renewVerifier(identity, old, made)):
                raise ProtocolViolation("The password was changed, or verifiers can't be stored.")
        self.proof = made
        self._audit.verifierRenewed(originOf(self._broker), self._name, self._mechanism)

    async def remote_issueVoucher(self, block: Any, survivesPasswordChange: Any) -> str:
        """
        Keep a voucher that the client has made: this login lends a part of what it may do.

        Args:
            block: the first block of the voucher, bytes.
            survivesPasswordChange: it stays when the password changes.

        Returns:
            The name of the identity.
        """
        store, identity, mostLife = await self._mayChangeVouchers("issueVoucher")
        if identity.mustChangePassword:
            raise PasswordChangeRequired()
        try:
            issued = IssuedVoucher.read(block, asFlag(survivesPasswordChange))
            checkIssued(issued, self._authorizer.now(), mostLife)
        except (ValueError, TypeError) as mistake:
            raise ProtocolViolation(str(mistake)) from None
        await settled(store.keepVoucher(self._name, issued))
        self._audit.voucherIssued(self._name, self._name, issued)
        return self._name

    async def remote_listVouchers(self) -> list[tuple[bytes, bool]]:
        """Return the vouchers of the identity: of each its first block, and whether it survives."""
        store, *_ = await self._mayChangeVouchers("listVouchers")
        found = await settled(store.listVouchers(self._name))
        return [(each.block.written, each.survivesPasswordChange) for each in found]

    async def remote_revokeVoucher(self, idOrLabel: Any) -> int:
        """
        Revoke a voucher, or all of a label, and end their sessions.

        Args:
            idOrLabel: the one or the other.

        Returns:
            How many there were.
        """
        store, *_ = await self._mayChangeVouchers("revokeVoucher")
        count: int = await settled(store.revokeVoucher(self._name, asName(idOrLabel)))
        self._audit.voucherRevoked(self._name, self._name, asName(idOrLabel), count)
        return count

    async def _mayChangeVouchers(self, method: str) -> tuple[Any, IIdentity, timedelta]:
        self._mayChangeAccount(method, "A guest has no vouchers.")
        if self._mostVoucherLife is None or not IAccountStore.providedBy(self._authorizer):
            raise ProtocolViolation("This server has no vouchers.")
        return self._authorizer, await self._currentIdentity(), self._mostVoucherLife

    @property
    def _voucher(self) -> VoucherProof | None:
        return self.proof if isinstance(self.proof, VoucherProof) else None

    def _mayChangeAccount(self, method: str, guests: str) -> None:
        if self.proof is None:
            raise ProtocolViolation(guests)
        if self._voucher is not None:
            raise MethodNotAllowed(method)
        if not isProtected(self._broker, self._bound):
            raise NotProtected()

    def _newVerifier(self, verifier: Any, method: str) -> ScramVerifier:
        if self._authorizer.externalPasswords:
            raise ProtocolViolation("The passwords of this server are kept elsewhere.")
        self._mayChangeAccount(method, "A guest has no password to change.")
        try:
            return ScramVerifier.decode(asName(verifier))
        except ValueError as mistake:
            raise ProtocolViolation(str(mistake)) from None

    def _checkStrength(self, made: ScramVerifier) -> None:
        hashing = self._authorizer.hashing
        if not (
            hashing.iterations <= made.iterations <= hashing.mostIterations
            and hashing.saltBytes <= len(made.salt) <= hashing.mostSaltBytes
        ):
            raise ProtocolViolation(
                f"A new verifier has {hashing.iterations} to {hashing.mostIterations} iterations, "
                f"and {hashing.saltBytes} to {hashing.mostSaltBytes} bytes of salt."
            )

    async def _currentIdentity(self) -> IIdentity:
        # Asked for each time, since the account may have been changed, or closed, since the login.
        identity: IIdentity = await settled(self._authorizer.getIdentityRequest(self._name))
        self.proof = self._authorizer.proofs.standing(identity, self)
        return identity
