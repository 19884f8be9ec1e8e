"""Vouchers, with a server that answers whatever it likes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import InvalidName, ProtocolViolation, issueVoucher, listVouchers, revokeVoucher
from pbauth._limits import Limits
from pbauth.mechanisms.voucher import makeVoucher

UNTIL = datetime(2030, 1, 1, tzinfo=timezone.utc)


class Identity(pb.RemoteReference):
    """
    An identity at a server that gives one answer.

    Attributes:
        asked: the messages that were sent.
    """

    def __init__(self, answer: Any) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answer = answer

    def __del__(self) -> None:
        """Nothing counts references."""

    def callRemote(self, _name: str, *arguments: Any, **more: Any) -> Deferred[Any]:
        self.asked.append((_name, *arguments))
        return succeed(self._answer)


class AnswerTests(SynchronousTestCase):
    """What is no answer is the server's fault, and an error that says so."""

    def assertNoAnswer(self, deferred: Deferred[Any]) -> None:
        """It fails, and says why."""
        failure = self.failureResultOf(deferred, ProtocolViolation)
        self.assertEqual(str(failure.value), "The server's answer is not one about vouchers.")

    def test_issued(self) -> None:
        """The name of whose the voucher is."""
        for answer in (None, b"alice", 7, "", "a\nb", "x" * 100_000, ["alice"], object()):
            self.assertNoAnswer(issueVoucher(Identity(answer), "friend", UNTIL))

    def test_listed(self) -> None:
        """Pairs of a block, which is one that can have been issued, and a boolean."""
        made = makeVoucher("alice", "friend", Limits(until=UNTIL))
        block = made.chain.blocks[0].written
        # What somebody makes of a voucher is none that was issued.
        further = made.only(methods=["move"]).chain.blocks[1].written
        for answer in (
            *(None, 7, "text", b"bytes", object(), [None], [7], [()], [(block,)]),
            *([(block, True, 1)], [("text", True)], [(None, True)], [(7, False)]),
            *([(block[1:], True)], [(b"", True)], [(block + b"x", True)], [(further, True)]),
            [(block, True), (b"nonsense", True)],
        ):
            self.assertNoAnswer(listVouchers(Identity(answer)))
        found = self.successResultOf(listVouchers(Identity([(block, True), (block, "true")])))
        self.assertEqual([each.label for each in found], ["friend", "friend"])
        self.assertEqual([each.survivesPasswordChange for each in found], [True, False])

    def test_revoked(self) -> None:
        """A number."""
        for answer in (None, "1", 1.0, True, [1], object()):
            self.assertNoAnswer(revokeVoucher(Identity(answer), "friend"))
        self.assertEqual(self.successResultOf(revokeVoucher(Identity(2), "friend")), 2)


class ArgumentTests(SynchronousTestCase):
    """What makes no sense is not sent."""

    def test_notSent(self) -> None:
        """Of the three."""
        identity = Identity(None)
        for ask, error in (
            (lambda: issueVoucher(identity, "friend", UNTIL.replace(tzinfo=None)), ValueError),
            (lambda: issueVoucher(identity, "friend", "tomorrow"), TypeError),
            (lambda: issueVoucher(identity, "a\nb", UNTIL), InvalidName),
            (lambda: issueVoucher(identity, "friend", UNTIL, services=7), TypeError),
            (lambda: issueVoucher(identity, "friend", UNTIL, survivesPasswordChange=1), TypeError),
            (lambda: revokeVoucher(identity, ""), InvalidName),
            (lambda: revokeVoucher(identity, 7), TypeError),
            (lambda: issueVoucher("alice", "friend", UNTIL), TypeError),
            (lambda: listVouchers("alice"), TypeError),
            (lambda: revokeVoucher(None, "friend"), TypeError),
        ):
            self.failureResultOf(ask(), error)
        self.assertEqual(identity.asked, [])

    def test_sent(self) -> None:
        """The block and no private key; and whether it survives a change of the password."""
        identity = Identity("alice")
        for survives in (False, True):
            voucher = self.successResultOf(
                issueVoucher(
                    identity, "friend", UNTIL - timedelta(1), survivesPasswordChange=survives
                )
            )
            self.assertEqual(voucher.identityName, "alice")
            self.assertEqual(
                identity.asked.pop(), ("issueVoucher", voucher.chain.blocks[0].written, survives)
            )
