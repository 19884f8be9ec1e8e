"""
What a client holds that has proved who it is, and what it may do with the account.
"""

from __future__ import annotations

from typing import Any

from twisted.spread import pb

from pbauth.audit import Audit, originOf
from pbauth.coroutines import settled
from pbauth.errors import Detached, KeyNotFound, ProtocolViolation, Unauthorized
from pbauth.interfaces import IAuthorizer, IIdentity
from pbauth.mechanisms import anonymous, ed25519, scram
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.sessions import EndReason, Session, SessionReference
from pbauth.wireobject import WireObject, asName, connectionOf, peerOf

_audit = Audit()


class IdentityWrapper(WireObject):
    """
    What a client holds that has proved who it is: its only use is to get at perspectives.

    Args:
        broker: of the connection.
        authorizer: finds the identity, anew for each request.
        reactor: provides `IReactorTime`.
        identity: who the client is.
        mechanism: the name of the mechanism of the login.
        proof: what it was proved by, or `None`.
    """

    def __init__(
        self,
        broker: pb.Broker,
        authorizer: IAuthorizer,
        reactor: Any,
        identity: IIdentity,
        mechanism: str,
        proof: object,
    ) -> None:
        self._broker = broker
        self._authorizer = authorizer
        self._reactor = reactor
        self._name = identity.name
        self._mechanism = mechanism
        self._proof = proof

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
            _audit.attachRefused(
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
            self._proof,
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
        # What this login opened stays open: it is the same person.
        old = self._proof
        if old in (await settled(identity.getVerifiers())).values():
            self._replaceProof(old, made)
        try:
            identity.setVerifiers({scram.NAME: made})
            await settled(identity.save())
        except BaseException:
            self._replaceProof(made, old)
            raise
        _audit.passwordChanged(originOf(self._broker), self._name, self._mechanism)

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
        old = self._proof
        wanted = self._authorizer.hashing.iterations
        if not isinstance(old, ScramVerifier) or not old.iterations < wanted <= made.iterations:
            raise ProtocolViolation("This verifier is not a better one than that of this login.")
        with self._authorizer.sessions.renewing(self._name, old, made):
            if not await settled(self._authorizer.renewVerifier(identity, old, made)):
                raise ProtocolViolation("The password was changed, or verifiers can't be stored.")
        self._proof = made
        _audit.verifierRenewed(originOf(self._broker), self._name, self._mechanism)

    def _newVerifier(self, verifier: Any) -> ScramVerifier:
        if self._mechanism == anonymous.NAME:
            raise ProtocolViolation("A guest has no password to change.")
        if self._authorizer.passwordsElsewhere:
            raise ProtocolViolation("The passwords of this server are kept elsewhere.")
        bound = self._mechanism in (scram.NAME_PLUS, ed25519.NAME)
        if not (connectionOf(self._broker).local or bound):
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
        for proof in self._authorizer.sessions.asGoodAs(self._name, self._proof):
            if identity.isProvedBy(proof):
                self._proof = proof
                return identity
        raise Unauthorized()

    def _replaceProof(self, old: object, new: object) -> None:
        for session in self._authorizer.sessions.ofIdentity(self._name):
            if session.broker is self._broker and session.proof == old:
                session.proof = new
        if self._proof == old:
            self._proof = new
