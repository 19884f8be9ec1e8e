"""
Which proofs stand for each other, in any order of what may happen at once.

The model knows what `EquivalentProofs` is never told: which verifiers are of which password.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from attrs import define, field, frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Unauthorized
from pbauth.accounts.verifiers import MOST_VERIFIERS, EquivalentProofs
from pbauth.mechanisms.scram import ScramVerifier

#: More than this, and accounts are forgotten.
MOST = 1
NAMES = ["alice", "bob"]


@frozen
class Password:
    """A password of one account; the model's own knowledge."""

    name: str
    number: int


@define(eq=False)
class Session:
    """A session, or a login, and the password that opened it."""

    name: str
    proof: Any
    password: Password
    serviceName: str = "game"
    perspectiveName: str = "alice"


@define(eq=False)
class Account:
    """What is stored of an account."""

    name: str
    password: Password
    verifier: ScramVerifier
    #: All verifiers of this password that were stored, this one included.
    stored: list[ScramVerifier] = field(factory=list)

    def isProvedBy(self, proof: Any) -> bool:
        return bool(proof == self.verifier)

    def holdsKey(self, service: str, perspective: str) -> bool:
        return True


class Refused(Exception):
    """The store refused."""


class EquivalentProofsMachine(RuleBasedStateMachine):
    """A server with a few accounts, and clients that do everything at once."""

    renewals = Bundle("renewals")
    changes = Bundle("changes")

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []
        self.proofs = EquivalentProofs(
            lambda name: [each for each in self.sessions if each.name == name], MOST
        )
        self.passwordOf: dict[ScramVerifier, Password] = {}
        self.count = 0
        self.accounts: dict[str, Account] = {}
        #: Verifiers that must stand for nothing else: refused ones, and those of removed accounts.
        self.void: set[ScramVerifier] = set()
        self.underWay = 0
        for name in NAMES:
            self.add(name)

    def verifier(self, password: Password) -> ScramVerifier:
        """Make another verifier of a password. Nothing is derived: nobody looks into it."""
        self.count += 1
        made = ScramVerifier(self.count.to_bytes(16, "big"), 4096, bytes(32), bytes(32))
        self.passwordOf[made] = password
        return made

    def newPassword(self, name: str) -> Password:
        """Make up a password."""
        self.count += 1
        return Password(name, self.count)

    def add(self, name: str) -> None:
        """Add an account."""
        password = self.newPassword(name)
        verifier = self.verifier(password)
        self.accounts[name] = Account(name, password, verifier, [verifier])

    def endUnauthorized(self, account: Any) -> None:
        """The account was changed: end what it no longer allows."""
        ended = [
            each
            for each in self.sessions
            if each.name == account.name and not self.proofs.allows(account, each)
        ]
        self.sessions = [each for each in self.sessions if each not in ended]
        assert all(each.password != account.password for each in ended), "it ended too many"

    def store(self, account: Account, verifier: ScramVerifier) -> None:
        """Store another verifier of the same password, as a renewal does."""
        account.verifier = verifier
        account.stored.append(verifier)

    # What clients do.

    @rule(name=st.sampled_from(NAMES))
    def logIn(self, name: str) -> None:
        """Somebody logs in."""
        account = self.accounts[name]
        self.sessions.append(Session(name, account.verifier, account.password))

    @rule(target=renewals, name=st.sampled_from(NAMES))
    def beginRenewal(self, name: str) -> Any:
        """The store is asked to renew a verifier; it answers later."""
        account = self.accounts[name]
        new = self.verifier(account.password)
        renewing = self.proofs.renewing(name, account.verifier, new)
        renewing.__enter__()
        self.underWay += 1
        return account, account.verifier, new, renewing

    @rule(renewal=consumes(renewals), works=st.booleans(), looks=st.booleans())
    def endRenewal(self, renewal: Any, works: bool, looks: bool) -> None:
        """The store compares, as `renewVerifier` has to, and answers."""
        account, old, new, renewing = renewal
        if works and account.verifier == old:
            # It may have answered just before the account was removed.
            self.store(account, new)
            if looks and self.accounts[account.name] is account:
                self.endUnauthorized(account)
            self.succeed(renewing)
        else:
            self.fail(renewing)
            self.void.add(new)

    @rule(name=st.sampled_from(NAMES))
    def renewElsewhere(self, name: str) -> None:
        """Another server renews a verifier; this one reads the account then."""
        account = self.accounts[name]
        self.store(account, self.verifier(account.password))
        former = frozenset(each.digest() for each in account.stored[:-1])
        self.proofs.renewedElsewhere(name, former, account.verifier)
        self.endUnauthorized(account)

    @rule(target=changes, name=st.sampled_from(NAMES), data=st.data())
    def beginChange(self, name: str, data: Any) -> Any:
        """A client changes the password; some sessions are those of its connection."""
        account = self.accounts[name]
        mine = [each for each in self.sessions if each.name == name and data.draw(st.booleans())]
        password = self.newPassword(name)
        new = self.verifier(password)
        changing = self.proofs.changing(name, [account.verifier], new, mine)
        changing.__enter__()
        self.underWay += 1
        return account, password, new, mine, changing

    @rule(change=consumes(changes), works=st.booleans(), looks=st.booleans())
    def endChange(self, change: Any, works: bool, looks: bool) -> None:
        """The store answers; the account may have been changed or removed meanwhile."""
        account, password, new, mine, changing = change
        if not works or self.accounts[account.name] is not account:
            self.fail(changing)
            self.void.add(new)
            return
        if looks:
            # Somebody else changed something just before.
            self.endUnauthorized(account)
        following = [
            each for each in mine if each in self.sessions and each.password == account.password
        ]
        account.password, account.verifier, account.stored = password, new, [new]
        self.endUnauthorized(account)
        assert all(each in self.sessions for each in following), "it ended a session of its own"
        for each in following:
            each.password = password
        self.succeed(changing)

    @rule(name=st.sampled_from(NAMES))
    def setPassword(self, name: str) -> None:
        """An administrator gives an account a new password: nobody stays."""
        account = self.accounts[name]
        account.password = self.newPassword(name)
        account.verifier = self.verifier(account.password)
        account.stored = [account.verifier]
        self.endUnauthorized(account)

    @rule(name=st.sampled_from(NAMES))
    def look(self, name: str) -> None:
        """The account was changed in some other way, or may have been."""
        self.endUnauthorized(self.accounts[name])

    @rule(name=st.sampled_from(NAMES))
    def removeAccount(self, name: str) -> None:
        """An account is removed, and another one of its name added."""
        self.proofs.forget(name)
        self.void |= {each for each, password in self.passwordOf.items() if password.name == name}
        self.sessions = [each for each in self.sessions if each.name != name]
        self.add(name)

    def succeed(self, under: AbstractContextManager[None]) -> None:
        """The body of the ``with`` ends."""
        self.underWay -= 1
        under.__exit__(None, None, None)

    def fail(self, under: AbstractContextManager[None]) -> None:
        """The body of the ``with`` raises."""
        self.underWay -= 1
        assert not under.__exit__(Refused, Refused(), None), "it was swallowed"

    # What always holds.

    @invariant()
    def samePassword(self) -> None:
        """What stands for a proof is of the same account and password, and is there once."""
        for proof, password in self.passwordOf.items():
            for name in NAMES:
                found = self.proofs.of(name, proof)
                assert found[0] == proof
                assert len(set(found)) == len(found)
                assert {self.passwordOf[each] for each in found} == {password}  # type: ignore[index]
                assert len(found) == 1 or (name == password.name and proof not in self.void)

    @invariant()
    def nobodyElse(self) -> None:
        """Who is still logged in was let in by the present password, and stays so."""
        for session in self.sessions:
            account: Any = self.accounts[session.name]
            try:
                self.proofs.standing(account, session)
            except Unauthorized:
                raise AssertionError("a session stands on nothing") from None
            assert session.password == account.password

    @invariant()
    def bounded(self) -> None:
        """Memory is bounded."""
        assert len(self.proofs) <= MOST
        underWay = self.proofs._underWay.values()
        assert sum(len(each.renewals) + len(each.changes) for each in underWay) <= self.underWay
        most = MOST_VERIFIERS + 2 * self.underWay + 1
        for name in NAMES:
            assert all(len(self.proofs.of(name, each)) <= most for each in self.passwordOf)


class EquivalentProofsTests(SynchronousTestCase):
    """Run the machine."""

    def test_anyOrder(self) -> None:
        """Renewals, changes, removals and logins in any order."""
        run_state_machine_as_test(
            EquivalentProofsMachine,
            settings=settings(max_examples=100, stateful_step_count=40),
        )
