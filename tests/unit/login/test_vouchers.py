"""Vouchers, from the one who issues them to the one who uses them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from twisted.spread import pb

import pbauth
from pbauth import (
    Detached,
    EndReason,
    KeyNotFound,
    LimitExceeded,
    MechanismNotSupported,
    MethodNotAllowed,
    Policy,
    Unauthorized,
    UnknownVoucher,
    Voucher,
    issueVoucher,
    listVouchers,
    revokeVoucher,
)
from pbauth._limits import Limits
from pbauth.mechanisms.voucher import NAME, IssuedVoucher, IssuedVouchers, makeVoucher
from tests.support.wire import WireTestCase


class Table(pbauth.Perspective):
    """A perspective that says what it knows of the voucher, and gives an object."""

    def perspective_move(self, place: str) -> tuple[str, Any]:
        """Say who moves."""
        session = pbauth.currentSession()
        assert session is not None
        voucher = session.voucher
        return place, None if voucher is None else (voucher.id, voucher.label, len(voucher.blocks))

    def perspective_resign(self) -> str:
        """Give up."""
        return "resigned"

    def perspective_board(self) -> Any:
        """Give an object."""
        return Board()


class Board(pb.Referenceable):
    """An object that a method gives."""

    def remote_look(self) -> str:
        """Say what is on it."""
        return "D4"


class VoucherTestCase(WireTestCase):
    """Alice issues vouchers."""

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        super().serve(policy, **options)
        self.game.perspectiveClass = Table

    @property
    def soon(self) -> datetime:
        """In an hour, by the server's clock."""
        now: datetime = self.memory.authorizer.now()
        return now + timedelta(hours=1)

    def done(self, deferred: Any) -> Any:
        """Give what a Deferred fires with, after all bytes were carried."""
        self.memory.flush()
        return self.successResultOf(deferred)

    def failed(self, deferred: Any) -> Exception:
        """Give what a Deferred fails with, after all bytes were carried."""
        self.memory.flush()
        return self.failureResultOf(deferred).value

    def issue(self, label: str = "friend", **limits: Any) -> Voucher:
        """Issue one, as alice."""
        limits.setdefault("until", self.soon)
        until = limits.pop("until")
        made: Voucher = self.done(issueVoucher(self.identity(), label, until, **limits))
        return made

    def use(self, voucher: Voucher, *more: Any) -> Any:
        """Log in with a voucher; give the Deferred."""
        return self.memory.logIn(None, voucher, "game", *more)

    def uses(self, voucher: Voucher, *more: Any) -> Any:
        """Log in with a voucher; give the perspective."""
        return self.done(self.use(voucher, *more))


class UsingTests(VoucherTestCase):
    """What a voucher is good for."""

    def test_lends(self) -> None:
        """Whoever has it is alice, and the perspective's code knows by which voucher."""
        voucher = self.issue()
        self.assertEqual(voucher.identityName, "alice")
        perspective = self.uses(voucher)
        self.assertEqual(self.answer(perspective, "move", "D4"), ("D4", (voucher.id, "friend", 1)))
        (session,) = [each for each in self.memory.authorizer.sessions if each.voucher]
        self.assertEqual(session.identity.name, "alice")
        self.assertEqual(session.voucher.limits, voucher.limits)

    def test_asText(self) -> None:
        """What it is as text is all that is needed."""
        text = self.issue().text()
        self.assertTrue(text.startswith("pbv1:"))
        self.assertEqual(self.answer(self.uses(Voucher.fromText(text)), "resign"), "resigned")

    def test_weaker(self) -> None:
        """A weaker one is made without the server, and is weaker."""
        voucher = self.issue().only(methods=["move"], label="carol")
        perspective = self.uses(voucher)
        self.assertEqual(self.answer(perspective, "move", "D4"), ("D4", (voucher.id, "friend", 2)))
        error = self.refusal(perspective, "resign")
        self.assertIsInstance(error, MethodNotAllowed)
        self.assertIsInstance(error, Unauthorized)
        self.assertEqual(error.method, "resign")  # type: ignore[attr-defined]

    def test_neverStronger(self) -> None:
        """Each block narrows: a method that an earlier one does not allow stays out of reach."""
        voucher = self.issue(methods=["move"]).only(methods=["move", "resign"])
        self.assertIsInstance(self.refusal(self.uses(voucher), "resign"), MethodNotAllowed)

    def test_objectsOfAllowedMethods(self) -> None:
        """What an allowed method gives is the session's, with all its methods, and ends with it."""
        voucher = self.issue(methods=["board"])
        board = self.answer(self.uses(voucher), "board")
        self.assertEqual(self.answer(board, "look"), "D4")
        self.done(revokeVoucher(self.identity(), voucher.id))
        self.assertIsInstance(self.refusal(board, "look"), Detached)

    def test_noSuchMethodIsNotAllowed(self) -> None:
        """Whether a method that is not allowed exists is not told."""
        perspective = self.uses(self.issue(methods=["move"]))
        self.assertIsInstance(self.refusal(perspective, "nothing"), MethodNotAllowed)

    def test_services(self) -> None:
        """Another service, or perspective, is one without a key."""
        for limit in ({"services": ["chess"]}, {"perspectives": ["bob"]}):
            with self.subTest(limit):
                self.assertIsInstance(self.failed(self.use(self.issue(**limit))), KeyNotFound)
        perspective = self.uses(self.issue(services=["game"], perspectives=["shared"]), "shared")
        self.assertEqual(self.answer(perspective, "resign"), "resigned")

    def test_keys(self) -> None:
        """Only the keys are told that the voucher is good for."""
        identity = self.done(
            pbauth.authIdentity(self.root(), None, self.issue(perspectives=["shared"]))
        )
        self.assertEqual(self.answer(identity, "keys"), [("game", "shared")])
        reference = self.answer(identity, "attach", "game", None, None)
        self.assertEqual(self.answer(reference, "resign"), "resigned")

    def test_networks(self) -> None:
        """It is good where its networks are."""
        self.assertIsInstance(
            self.failed(self.use(self.issue(networks=["10.0.0.0/8"]))), Unauthorized
        )
        self.uses(self.issue(networks=["10.0.0.0/8", "127.0.0.0/8"]))

    def test_noAddress(self) -> None:
        """Whoever has no address is in no network."""
        voucher = self.issue(networks=["0.0.0.0/0", "::/0"])
        self.assertFalse(voucher.limits.allowsHost(None))
        self.assertTrue(voucher.limits.allowsHost("::ffff:10.0.0.1"))

    def test_sessions(self) -> None:
        """So many sessions at once, of it and of all that was made of it."""
        voucher = self.issue(sessions=2)
        first = self.uses(voucher)
        self.uses(voucher.only())
        error = self.failed(self.use(voucher.only(methods=["move"])))
        self.assertIsInstance(error, LimitExceeded)
        self.assertEqual(error.most, 2)  # type: ignore[attr-defined]
        self.memory.disconnect(first)
        self.uses(voucher)

    def test_sessionsOfABlock(self) -> None:
        """A weaker one has a limit of its own; another that was made beside it has not."""
        voucher = self.issue()
        one, other = voucher.only(sessions=1), voucher.only(sessions=1)
        self.uses(one)
        self.assertIsInstance(self.failed(self.use(one)), LimitExceeded)
        self.uses(other)

    def test_mayNotChangeTheAccount(self) -> None:
        """Whoever has a voucher can't change the password, nor issue, list and revoke vouchers."""
        voucher = self.issue()
        identity = self.done(pbauth.authIdentity(self.root(), None, voucher))
        for attempt in (
            pbauth.changePassword(identity, "another"),
            issueVoucher(identity, "more", self.soon),
            listVouchers(identity),
            revokeVoucher(identity, "friend"),
        ):
            self.assertIsInstance(self.failed(attempt), MethodNotAllowed)

    def test_anotherName(self) -> None:
        """It is nobody else's."""
        self.memory.addUser("bob", "secret", ("game", "bob"))
        error = self.failed(self.memory.logIn("bob", self.issue(), "game"))
        self.assertIsInstance(error, Unauthorized)


class ClientTests(VoucherTestCase):
    """Whoever logs in need not say whose the voucher is."""

    def test_noName(self) -> None:
        """Without a voucher, somebody has to be named."""
        error = self.failed(self.memory.logIn(None, "secret", "game"))  # type: ignore[arg-type]
        self.assertIsInstance(error, TypeError)
        login = pbauth.Login(self.memory, None, self.issue(), "game")  # type: ignore[arg-type]
        self.assertEqual(login.identity, "alice")

    def test_staying(self) -> None:
        """A client that stays logged in gives up once the voucher is revoked."""
        voucher = self.issue()
        client = pbauth.PerspectiveClient(
            self.memory, voucher, "game", "shared", reactor=self.memory.clock
        )
        client.startService()
        perspective = self.done(client.whenAttached())
        self.assertEqual(self.answer(perspective, "resign"), "resigned")
        self.done(revokeVoucher(self.identity(), voucher.id))
        self.memory.advance(10)
        self.assertIsInstance(self.failed(client.whenAttached()), Unauthorized)
        client.stopService()


class EndingTests(VoucherTestCase):
    """What ends a voucher, and all sessions by it."""

    def assertEnded(self, perspective: Any, voucher: Voucher, reason: EndReason) -> None:
        """The session is over, and there is no other one."""
        self.memory.flush()
        error = self.refusal(perspective, "resign")
        self.assertIsInstance(error, Detached)
        self.assertEqual(error.reason, reason.value)  # type: ignore[attr-defined]
        self.assertIsInstance(self.failed(self.use(voucher)), Unauthorized)

    def test_expires(self) -> None:
        """It expires, and so does a weaker one, at its own time."""
        voucher = self.issue()
        weaker = voucher.only(until=self.soon - timedelta(minutes=30))
        perspective, other = self.uses(voucher), self.uses(weaker)
        self.memory.advance(1799)
        self.answer(other, "resign")
        self.memory.advance(1.5)
        self.assertEnded(other, weaker, EndReason.EXPIRED)
        self.answer(perspective, "resign")
        self.memory.advance(1800)
        self.assertEnded(perspective, voucher, EndReason.EXPIRED)

    def test_revoked(self) -> None:
        """One is revoked by its id, with all that was made of it; others stay."""
        voucher, other = self.issue(), self.issue()
        weaker = voucher.only()
        perspective, staying = self.uses(weaker), self.uses(other)
        self.assertEqual(self.done(revokeVoucher(self.identity(), voucher.id)), 1)
        self.assertEnded(perspective, weaker, EndReason.VOUCHER_REVOKED)
        self.answer(staying, "resign")

    def test_revokedByLabel(self) -> None:
        """All of a label are revoked at once."""
        for label in ("friend", "friend", "jenkins"):
            self.issue(label)
        identity = self.identity()
        self.assertEqual(self.done(revokeVoucher(identity, "friend")), 2)
        (left,) = self.done(listVouchers(identity))
        self.assertEqual((left.label, left.survivesPasswordChange), ("jenkins", False))
        error = self.failed(revokeVoucher(identity, "friend"))
        self.assertIsInstance(error, UnknownVoucher)

    def test_locked(self) -> None:
        """The issuer is locked."""
        voucher = self.issue()
        perspective = self.uses(voucher)
        self.alice.locked = True
        self.assertEnded(perspective, voucher, EndReason.LOCKED)

    def test_expired(self) -> None:
        """The issuer expires."""
        voucher = self.issue()
        perspective = self.uses(voucher)
        self.alice.expires = self.memory.authorizer.now()
        self.assertEnded(perspective, voucher, EndReason.EXPIRED)

    def test_removed(self) -> None:
        """The issuer is removed."""
        voucher = self.issue()
        perspective = self.uses(voucher)
        self.done(self.memory.authorizer.removeIdentity("alice"))
        self.assertEnded(perspective, voucher, EndReason.REMOVED)

    def test_keyLost(self) -> None:
        """The issuer loses the key."""
        voucher = self.issue()
        perspective = self.uses(voucher)
        self.alice.removeKey("game", "alice")
        self.assertEnded(perspective, voucher, EndReason.KEY_REVOKED)

    def test_passwordChanged(self) -> None:
        """A new password ends it, unless it was issued to survive that."""
        voucher, survivor = self.issue(), self.issue(survivesPasswordChange=True)
        perspective, staying = self.uses(voucher), self.uses(survivor)
        self.done(pbauth.changePassword(self.identity(), "another"))
        self.assertEnded(perspective, voucher, EndReason.VOUCHER_REVOKED)
        self.answer(staying, "resign")

    def test_passwordSet(self) -> None:
        """So does one that is set on the server."""
        voucher, survivor = self.issue(), self.issue(survivesPasswordChange=True)
        perspective, staying = self.uses(voucher), self.uses(survivor)
        self.alice.setPassword("another")
        self.assertEnded(perspective, voucher, EndReason.VOUCHER_REVOKED)
        self.answer(staying, "resign")


class IssuingTests(VoucherTestCase):
    """Who may issue what."""

    def refused(self, until: datetime, **limits: Any) -> str:
        """Give why it is refused."""
        return str(self.failed(issueVoucher(self.identity(), "friend", until, **limits)))

    def test_life(self) -> None:
        """It lasts for 90 days at most, or what the policy says, and has not expired."""
        now = self.memory.authorizer.now()
        self.assertIn("90 days", self.refused(now + timedelta(days=91)))
        self.assertIn("protocol", self.refused(now - timedelta(days=1)))
        self.serve(Policy(maxVoucherLife=timedelta(hours=12)))
        self.assertIn("0.5 days", self.refused(now + timedelta(days=1)))
        self.issue()

    def test_issuedUnderAnotherPolicy(self) -> None:
        """One that is good for longer, as an administrator's may be, is refused until it is not."""
        now = self.memory.authorizer.now()
        voucher = makeVoucher("alice", "ci", Limits(until=now + timedelta(hours=13)))
        self.serve(Policy(maxVoucherLife=timedelta(hours=12)))
        issued = IssuedVoucher(voucher.chain.blocks[0])
        self.successResultOf(self.memory.authorizer.keepVoucher("alice", issued))
        self.assertIsInstance(self.failed(self.use(voucher)), Unauthorized)
        self.memory.clock.advance(3700)
        self.assertEqual(self.answer(self.uses(voucher), "resign"), "resigned")

    def test_needsUntil(self) -> None:
        """Without an end there is none."""
        self.assertIn("until", self.refused(None))  # type: ignore[arg-type]

    def test_limitsThatMakeNoSense(self) -> None:
        """Nothing is sent."""
        for limits in ({"networks": ["10.0.0.1/8"]}, {"sessions": 0}, {"methods": [""]}):
            self.assertTrue(self.refused(self.soon, **limits))
        self.assertIsInstance(
            self.failed(issueVoucher(self.identity(), "friend", self.soon, methods="move")),
            TypeError,
        )

    def test_switchedOff(self) -> None:
        """A server without vouchers offers no mechanism, and issues none."""
        voucher = self.issue()
        self.assertIn(NAME, self.answer(self.root(), "mechanisms"))
        self.serve(Policy(vouchers=False))
        self.assertNotIn(NAME, self.answer(self.root(), "mechanisms"))
        self.assertIsInstance(self.failed(self.use(voucher)), MechanismNotSupported)
        self.assertIn("protocol", self.refused(self.soon))

    def test_passwordHasToBeChangedFirst(self) -> None:
        """Whoever has to change the password can't lend what they do not have."""
        self.alice.mustChangePassword = True
        self.assertIn("changed first", self.refused(self.soon))

    def test_tooMany(self) -> None:
        """An account keeps 256 of them; expired ones do not count."""
        issued = [IssuedVoucher(makeVoucher("alice", "x", Limits(until=self.soon)).chain.blocks[0])]
        verifiers = self.done(self.alice.getVerifiers())
        self.alice.setVerifiers({**verifiers, NAME: IssuedVouchers(tuple(issued * 256))})
        self.assertIn("256", self.refused(self.soon))
        self.memory.advance(3601)
        self.issue()
        self.assertEqual(len(self.done(listVouchers(self.identity()))), 1)

    def test_store(self) -> None:
        """An administrator's program issues one on the store."""
        store = self.memory.authorizer
        voucher = self.done(store.issueVoucher("alice", "jenkins", self.soon, methods=["move"]))
        self.assertEqual(
            [each.label for each in self.done(store.listVouchers("alice"))], ["jenkins"]
        )
        perspective = self.uses(voucher)
        self.assertEqual(self.done(store.revokeVoucher("alice", "jenkins")), 1)
        self.assertIsInstance(self.refusal(perspective, "move", "D4"), Detached)
        for attempt in (
            store.issueVoucher("nobody", "jenkins", self.soon),
            store.listVouchers("nobody"),
            store.revokeVoucher("nobody", "jenkins"),
        ):
            self.assertIsInstance(self.failed(attempt), KeyError)
