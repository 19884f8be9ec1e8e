"""Which proofs stand for each other: what happens, step by step."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Unauthorized
from pbauth.accounts.verifiers import MOST_VERIFIERS, EquivalentProofs
from pbauth.mechanisms.scram import ScramVerifier

FORMER, TODAY, LATER = (
    ScramVerifier.fromPassword("secret", salt.encode(), 4096)
    for salt in ("0123456789abcdef", "123456789abcdef0", "23456789abcdef01")
)


@define(eq=False)
class FakeSession:
    """A session, or a login."""

    proof: Any
    serviceName: str = "game"
    perspectiveName: str = "alice"


@define
class FakeIdentity:
    """Accepts one proof, and holds the keys to one service."""

    accepted: Any
    name: str = "alice"
    service: str = "game"

    def isProvedBy(self, proof: Any) -> bool:
        return bool(proof == self.accepted)

    def holdsKey(self, service: str, perspective: str) -> bool:
        return service == self.service


class EquivalentProofsTests(SynchronousTestCase):
    """One account, a few sessions."""

    def setUp(self) -> None:
        self.sessions: list[FakeSession] = []
        self.proofs = EquivalentProofs(lambda name: self.sessions if name == "alice" else [])

    def attach(self, proof: Any) -> FakeSession:
        """Make a session that stands on a proof."""
        session = FakeSession(proof)
        self.sessions.append(session)
        return session

    def standing(self, accepted: Any, holder: Any) -> Any:
        """Ask what a holder stands on, where the identity accepts this."""
        identity: Any = FakeIdentity(accepted)
        return self.proofs.standing(identity, holder)

    def allows(self, holder: Any, **identity: Any) -> bool:
        """Ask whether a session may go on."""
        fake: Any = FakeIdentity(**identity)
        return self.proofs.allows(fake, holder)

    def test_itself(self) -> None:
        """Each proof stands for itself, also none at all."""
        for proof in (None, 1, FORMER):
            self.assertEqual(self.proofs.of("alice", proof), (proof,))

    def test_whileRenewing(self) -> None:
        """Both count while it is not known which one the store keeps."""
        session = self.attach(1)
        with self.proofs.renewing("alice", 1, 2):
            self.assertEqual(self.proofs.of("alice", 1), (1, 2))
            self.assertEqual(self.proofs.of("alice", 2), (2, 1))
            self.assertEqual(self.proofs.of("bob", 1), (1,))
            self.assertEqual(self.standing(2, session), 2)
            self.assertEqual(session.proof, 1)
        self.assertEqual(session.proof, 2)
        self.assertEqual(self.proofs.of("alice", 1), (1, 2))

    def test_renewingFails(self) -> None:
        """Only the old one counts then."""
        session = self.attach(1)
        with self.assertRaises(ZeroDivisionError), self.proofs.renewing("alice", 1, 2):
            raise ZeroDivisionError
        self.assertEqual((session.proof, self.proofs.of("alice", 1)), (1, (1,)))
        self.assertEqual(len(self.proofs), 0)

    def test_renewingTwiceAtOnce(self) -> None:
        """A client that asks twice for the same, and is refused once, stays logged in."""
        session = self.attach(1)
        with self.assertRaises(ZeroDivisionError), self.proofs.renewing("alice", 1, 2):
            with self.proofs.renewing("alice", 1, 2):
                pass
            raise ZeroDivisionError
        self.assertEqual(self.proofs.of("alice", 1), (1, 2))
        self.assertEqual(self.standing(2, session), 2)

    def test_removedWhileRenewing(self) -> None:
        """A renewal that ends after the account was removed leaves nothing."""
        with self.proofs.renewing("alice", 1, 2):
            self.proofs.forget("alice")
            self.assertEqual(self.proofs.of("alice", 1), (1,))
        self.assertEqual(self.proofs.of("alice", 1), (1,))

    def test_otherPassword(self) -> None:
        """What was renewed of a former password says nothing of the present one."""
        for old, new in ((1, 2), (3, 4)):
            with self.proofs.renewing("alice", old, new):
                pass
        self.assertEqual(self.proofs.of("alice", 3), (3, 4))
        self.assertEqual(self.proofs.of("alice", 1), (1,))

    def test_elsewhere(self) -> None:
        """What another server renewed is known by its digest."""
        session, other = self.attach(FORMER), self.attach(LATER)
        self.proofs.renewedElsewhere("alice", frozenset([FORMER.digest()]), TODAY)
        self.assertEqual((session.proof, other.proof), (TODAY, LATER))
        self.assertEqual(self.proofs.of("alice", FORMER), (FORMER, TODAY))
        with self.proofs.renewing("alice", TODAY, LATER):
            pass
        self.assertEqual(self.proofs.of("alice", FORMER), (FORMER, TODAY, LATER))

    def test_changing(self) -> None:
        """Those that are to go on stand by either password meanwhile; the others end."""
        own, other = self.attach(1), self.attach(1)
        with self.proofs.changing("alice", [1], 5, [own]):
            for accepted in (1, 5):
                self.assertEqual(self.standing(accepted, own), accepted)
            self.assertRaises(Unauthorized, self.standing, 5, other)
            self.assertRaises(Unauthorized, self.standing, 6, own)
        self.assertEqual((own.proof, other.proof), (5, 1))
        self.assertRaises(Unauthorized, self.standing, 1, own)

    def test_changingAfterRenewal(self) -> None:
        """A login that was proved by a former verifier is one by the old password, too."""
        with self.proofs.renewing("alice", 1, 2):
            pass
        login, byKey = FakeSession(1), FakeSession("public key")
        with self.proofs.changing("alice", [2], 5, [login, byKey]):
            self.assertRaises(Unauthorized, self.standing, 5, byKey)
        self.assertEqual((login.proof, byKey.proof), (5, "public key"))

    def test_changingFails(self) -> None:
        """Then it all stays as it was."""
        own = self.attach(1)
        with self.assertRaises(ZeroDivisionError), self.proofs.changing("alice", [1], 5, [own]):
            raise ZeroDivisionError
        self.assertEqual(own.proof, 1)
        self.assertRaises(Unauthorized, self.standing, 5, own)

    def test_allows(self) -> None:
        """A session needs its proof, or an equivalent one, and its key."""
        session = self.attach(1)
        self.assertTrue(self.allows(session, accepted=1))
        self.assertFalse(self.allows(session, accepted=2))
        self.assertFalse(self.allows(session, accepted=1, service="chess"))
        with self.proofs.renewing("alice", 1, 2):
            self.assertTrue(self.allows(session, accepted=2))
            self.assertFalse(self.allows(session, accepted=2, service="chess"))

    def test_bounded(self) -> None:
        """Of an account the newest verifiers are remembered; of all, the last accounts."""
        for new in range(1, 3 * MOST_VERIFIERS):
            with self.proofs.renewing("alice", new - 1, new):
                pass
        self.assertEqual(len(self.proofs.of("alice", new)), MOST_VERIFIERS)
        proofs = EquivalentProofs(lambda name: [], 2)
        for name in ("one", "two", "one", "three"):
            with proofs.renewing(name, 1, 2):
                pass
        self.assertEqual([len(proofs.of(name, 1)) for name in ("one", "two", "three")], [2, 1, 2])
