"""What a client that has logged in may see and change of its own account."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.spread import pb

from pbauth._async import settled
from pbauth.accounts.vouchers import checkIssued
from pbauth.audit import Audit
from pbauth.errors import (
    MethodNotAllowed,
    NotProtected,
    PasswordChangeRequired,
    ProtocolViolation,
)
from pbauth.interfaces import IAccountStore, IAuthorizer, IIdentity
from pbauth.login.vouchers import narrowedKeys
from pbauth.mechanisms import Verifier, scram
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.mechanisms.voucher import IssuedVoucher, VoucherProof
from pbauth.net.origin import originOf
from pbauth.wire.calls import WireObject, asFlag, asName
from pbauth.wire.channel import isProtected

# How often a change of the password is tried while others change the account.
_MOST_TRIES = 5


class _ChangedMeanwhile(Exception):
    """Somebody else has changed the account, and wins."""


class OwnAccount(WireObject):
    """
    The account of a login: its keys, its password, its vouchers.

    Attributes:
        proof: what the login was proved by, a verifier or a public key; `None` for a mechanism that
            has neither.

    Args:
        broker: of the connection.
        authorizer: finds the identity, again for each request.
        name: of the identity.
        mechanism: the name of the mechanism of the login.
        proof: what it was proved by, or `None`.
        bound: the proof is good on this connection alone (see `IExchange`).
        audit: where events are recorded.
        mostVoucherLife: the longest time for which a voucher is issued; `None`: there are none.
    """

    def __init__(
        self,
        broker: pb.Broker,
        authorizer: IAuthorizer,
        name: str,
        mechanism: str,
        proof: object,
        bound: bool,
        audit: Audit,
        mostVoucherLife: timedelta | None,
    ) -> None:
        self._broker = broker
        self._authorizer = authorizer
        self._name = name
        self._mechanism = mechanism
        self.proof = proof
        self._bound = bound
        self._audit = audit
        self._mostVoucherLife = mostVoucherLife

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
