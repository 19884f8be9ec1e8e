"""Issue, list and revoke vouchers, as the one who is logged in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.spread import pb

from pbauth._arguments import checkType
from pbauth._limits import Limits
from pbauth.errors import ProtocolViolation
from pbauth.mechanisms.voucher import IssuedVoucher, Voucher, makeVoucher
from pbauth.names import checkName

# Whose a voucher is, until the server says it.
_SOMEBODY = "?"


def issueVoucher(
    identityRef: pb.RemoteReference,
    label: str,
    until: datetime,
    *,
    survivesPasswordChange: bool = False,
    **limits: Any,
) -> Deferred[Voucher]:
    """
    Issue a voucher: lend a part of what this login may do, for a while. Its private key is made
    here, and the server does not see it.

    Args:
        identityRef: a reference to the `IdentityWrapper`, as `authIdentity` gives it; also the
            `identity` of a remote perspective.
        label: what to call it; `revokeVoucher` revokes all of a label.
        until: from when on it is void, an aware `datetime`; within what the server allows, which
            is 90 days by default.
        survivesPasswordChange: it stays when the password of the account changes.
        limits: further ones, as for `Voucher.only`.

    Returns:
        Fires with the voucher, which is kept nowhere else. Fails with

        - `TypeError`, `ValueError` or `InvalidName`: a limit makes no sense (nothing was sent);
        - `LimitExceeded`: it would be good for too long, or there are too many;
        - `MethodNotAllowed`: this login was by a voucher;
        - `ProtocolViolation`: vouchers are switched off, `until` is in the past, or this login is
          not bound to its connection to another machine;
        - `Unauthorized`: the login is no longer valid.
    """

    async def run() -> Voucher:
        checkType(pb.RemoteReference, identityRef, "identityRef")
        checkType(bool, survivesPasswordChange, "survivesPasswordChange")
        made = makeVoucher(_SOMEBODY, label, Limits(until=until, **limits))
        name = await identityRef.callRemote(
            "issueVoucher", made.chain.blocks[0].written, survivesPasswordChange
        )
        try:
            return evolve(made, identityName=checkName(name, "name of an identity"))
        except (TypeError, ValueError):
            raise _notAnAnswer() from None

    return Deferred.fromCoroutine(run())


def listVouchers(identityRef: pb.RemoteReference) -> Deferred[list[IssuedVoucher]]:
    """
    List the vouchers of one's own account.

    Args:
        identityRef: as for `issueVoucher`.

    Returns:
        Fires with a list of what the server keeps: of each `id`, `label`, `limits` and
        `survivesPasswordChange`. Fails as `issueVoucher`.
    """

    async def run() -> list[IssuedVoucher]:
        checkType(pb.RemoteReference, identityRef, "identityRef")
        answer = await identityRef.callRemote("listVouchers")
        try:
            return [IssuedVoucher.read(block, survives is True) for block, survives in answer]
        except (TypeError, ValueError, AttributeError):
            raise _notAnAnswer() from None

    return Deferred.fromCoroutine(run())


def revokeVoucher(identityRef: pb.RemoteReference, idOrLabel: str) -> Deferred[int]:
    """
    Revoke a voucher of one's own account, or all of a label. What was made of them is void,
    and the sessions end.

    Args:
        identityRef: as for `issueVoucher`.
        idOrLabel: the id of the voucher, or the label.

    Returns:
        Fires with how many there were; fails with `UnknownVoucher` if there are none, and as
        `issueVoucher`.
    """

    async def run() -> int:
        checkType(pb.RemoteReference, identityRef, "identityRef")
        answer = await identityRef.callRemote(
            "revokeVoucher", checkName(idOrLabel, "label of a voucher")
        )
        if type(answer) is not int:
            raise _notAnAnswer()
        return answer

    return Deferred.fromCoroutine(run())


def _notAnAnswer() -> ProtocolViolation:
    return ProtocolViolation("The server's answer is not one about vouchers.")
