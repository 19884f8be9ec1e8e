"""Stores keep the vouchers that identities have issued: their first blocks, and no private key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred

from pbauth._async import settled
from pbauth._limits import Limits
from pbauth.accounts.records import Record
from pbauth.errors import LimitExceeded, ProtocolViolation, Unauthorized, UnknownVoucher
from pbauth.mechanisms import voucher
from pbauth.mechanisms.voucher import MOST_LIFE, IssuedVoucher, IssuedVouchers, Voucher, makeVoucher

#: The most vouchers of an identity that have not expired.
MOST_VOUCHERS = 256


def checkIssued(issued: IssuedVoucher, now: datetime, mostLife: timedelta = MOST_LIFE) -> None:
    """
    Check that a voucher may be issued.

    Args:
        issued: what is to be kept of it.
        now: the time.
        mostLife: the longest time for which it may be good.

    Raises:
        ValueError: it has expired already.
        LimitExceeded: it would be good for too long.
    """
    if issued.until <= now:
        raise ValueError("The voucher would have expired already. Choose a later end.")
    if issued.until - now > mostLife:
        raise LimitExceeded("maxVoucherLife", mostLife / timedelta(days=1))


class VoucherKeeping:
    """
    Keep vouchers among the verifiers of an identity: for stores, which have `changeIdentity`,
    `getIdentityRequest` and `now`.
    """

    changeIdentity: Callable[..., Any]
    getIdentityRequest: Callable[[str], Any]
    now: Callable[[], datetime]

    def issueVoucher(
        self,
        identityName: str,
        label: str,
        until: datetime,
        *,
        survivesPasswordChange: bool = False,
        **limits: Any,
    ) -> Deferred[Voucher]:
        """
        Issue a voucher of an identity.

        Args:
            identityName: of the identity.
            label: what to call it.
            until: from when on it is void, an aware `datetime`.
            survivesPasswordChange: it stays when the password changes.
            limits: further ones, as for `pbauth.Voucher.only`.

        Returns:
            Fires with the voucher, which is kept nowhere else; fails with `KeyError` if there is no
            such identity, with `ValueError` if a limit makes no sense, and with `LimitExceeded` if
            it would be good for more than 90 days, or there are too many.
        """

        async def issue() -> Voucher:
            made = makeVoucher(identityName, label, Limits(until=until, **limits))
            issued = IssuedVoucher(made.chain.blocks[0], survivesPasswordChange)
            checkIssued(issued, self.now())
            await self.keepVoucher(identityName, issued)
            return made

        return Deferred.fromCoroutine(issue())

    def keepVoucher(self, identityName: str, issued: IssuedVoucher) -> Deferred[None]:
        """
        Keep a voucher whose key was made elsewhere (see `IAccountStore`).

        Returns:
            Fires when it is stored; fails with `KeyError` if there is no such identity, and with
            `LimitExceeded` if it has too many vouchers.
        """
        now = self.now()

        def keep(record: Record) -> Record:
            kept = [each for each in record.vouchers() if each.until > now]
            if len(kept) >= MOST_VOUCHERS:
                raise LimitExceeded("vouchers", MOST_VOUCHERS)
            if any(each.block.key == issued.block.key for each in kept):
                raise ProtocolViolation("This voucher is there already.")
            return record.withVouchers([*kept, issued])

        async def run() -> None:
            await settled(self.changeIdentity(identityName, keep))

        return Deferred.fromCoroutine(run())

    def listVouchers(self, identityName: str) -> Deferred[list[IssuedVoucher]]:
        """
        List the vouchers of an identity.

        Returns:
            Fires with them, in the order in which they were issued; expired ones are there until
            the next one is issued. Fails with `KeyError` if there is no such identity.
        """

        async def find() -> list[IssuedVoucher]:
            try:
                identity = await settled(self.getIdentityRequest(identityName))
            except Unauthorized:
                raise KeyError(identityName) from None
            found = (await settled(identity.getVerifiers())).get(voucher.NAME)
            return list(found.vouchers) if isinstance(found, IssuedVouchers) else []

        return Deferred.fromCoroutine(find())

    def revokeVoucher(self, identityName: str, idOrLabel: str) -> Deferred[int]:
        """
        Revoke a voucher, or all of a label, and with them all that was made of them. Their sessions
        end.

        Args:
            identityName: of the identity.
            idOrLabel: the id of the voucher, or the label.

        Returns:
            Fires with how many were revoked; fails with `UnknownVoucher`, and with `KeyError` if
            there is no such identity.
        """
        revoked: list[int] = []

        def revoke(record: Record) -> Record:
            found = record.vouchers()
            left = [each for each in found if idOrLabel not in (each.id, each.label)]
            if len(left) == len(found):
                raise UnknownVoucher(identityName, idOrLabel)
            revoked[:] = [len(found) - len(left)]
            return record.withVouchers(left)

        async def run() -> int:
            await settled(self.changeIdentity(identityName, revoke))
            return revoked[0]

        return Deferred.fromCoroutine(run())
