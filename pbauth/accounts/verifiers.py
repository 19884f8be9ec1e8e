"""
Which proofs stand for each other, and which sessions survive when a password's verifier changes.

A login is proved by something that is stored: a verifier of a password, or a public key.  The login
and each session that it opens hold that proof (`Holder`).  Whenever an account changes, the holders
whose proof it no longer accepts must end, and no others.  That would be a comparison, if verifiers
of one and the same password did not replace each other:

==============================  ====================================================================
what happens                    what stands then
==============================  ====================================================================
a verifier is being renewed     The old one and the new one are equivalent while the store is asked:
(`renewing`)                    it is not known yet which of them it keeps. So are, afterwards, all
                                that replaced each other in this way; holders move to the newest.
                                If it fails, the new one stands for nothing.
another server has renewed it   The store tells the digests of the former ones, and the verifier in
(`renewedElsewhere`)            their place. A proof with such a digest stands by that verifier.
a client changes its password   The new password is not equivalent to the old one. But the holders
(`changing`)                    of that client's connection stand by either of them while the store
                                is asked, and by the new one afterwards. All others end.
an account is removed           Nothing is equivalent any more, also not for an account of the same
(`forget`)                      name that is made later.
==============================  ====================================================================

Equivalent means: of the same account, and of the same password.  `renewing` believes that of its
caller, who has to be logged in with the old verifier; whoever could lie about it knows the
password.

What is remembered serves logins that are still under way when a verifier is renewed.  It is
bounded: whoever is forgotten has to log in again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from attrs import define, evolve, field, frozen

from pbauth.errors import Unauthorized
from pbauth.interfaces import IIdentity
from pbauth.mechanisms.scram import ScramVerifier

#: The renewals of this many accounts are remembered, those that were renewed last.
MOST_ACCOUNTS = 10_000

#: Of each account this many verifiers are remembered, the newest ones.
MOST_VERIFIERS = 16


class Holder(Protocol):
    """
    Describe what stands on a proof: a login, or a session.

    Attributes:
        proof: what the login was proved by, a verifier or a public key; `None` for a mechanism
            that has neither.
    """

    proof: object


class KeyHolder(Holder, Protocol):
    """
    Describe a session: it stands on a proof, and on a key.

    Attributes:
        serviceName: the service of the key.
        perspectiveName: the perspective of the key.
    """

    serviceName: str
    perspectiveName: str


@frozen
class _Remembered:
    """
    Hold what is remembered of an account.

    Attributes:
        known: verifiers of one and the same password, oldest first.
        former: digests of verifiers that were renewed elsewhere.
        today: the verifier in their place.
    """

    known: tuple[object, ...] = ()
    former: frozenset[str] = frozenset()
    today: object = None

    def succeeds(self, proof: object) -> bool:
        """Return whether `today` has taken the place of a proof."""
        return (
            bool(self.former) and isinstance(proof, ScramVerifier) and proof.digest() in self.former
        )


@define(eq=False)
class _UnderWay:
    """
    Hold the changes of an account that the store has not answered yet.

    Attributes:
        renewals: pairs of the old and the new verifier.
        changes: pairs of the holders that follow a change of the password, and the new verifier.
    """

    renewals: list[tuple[object, object]] = field(factory=list)
    changes: list[tuple[list[Holder], object]] = field(factory=list)


class EquivalentProofs:
    """
    Know which proofs stand for each other.

    Args:
        holders: returns all sessions and logins of the identity of a name.
        mostAccounts: how many accounts are remembered.
    """

    def __init__(
        self,
        holders: Callable[[str], Iterable[Holder]],
        mostAccounts: int = MOST_ACCOUNTS,
    ) -> None:
        self._holders = holders
        self._mostAccounts = mostAccounts
        self._remembered: dict[str, _Remembered] = {}
        self._underWay: dict[str, _UnderWay] = {}

    def __len__(self) -> int:
        """Return how many accounts are remembered."""
        return len(self._remembered)

    # Asking.

    def of(self, name: str, proof: object) -> tuple[object, ...]:
        """
        Return the proofs that stand for a proof.

        Args:
            name: of the identity.
            proof: what a login was proved by.

        Returns:
            That proof, and the others that are equivalent to it.
        """
        remembered = self._remembered.get(name)
        underWay = self._underWay.get(name)
        if remembered is None and underWay is None:
            # So it is nearly always.
            return (proof,)
        groups: list[tuple[object, ...]] = [] if underWay is None else [*underWay.renewals]
        if remembered is not None:
            groups.append(remembered.known)
        found = [proof]
        before = 0
        while groups and before < len(found):
            before = len(found)
            for group in groups:
                if any(each in found for each in group):
                    found += [each for each in group if each not in found]
            if remembered is not None and any(map(remembered.succeeds, found)):
                found += [each for each in (remembered.today,) if each not in found]
        return tuple(found)

    def standing(self, identity: IIdentity, holder: Holder) -> object:
        """
        Return what a login or a session stands on now.

        Args:
            identity: as it is now.
            holder: the login, or the session.

        Returns:
            The holder's proof, or an equivalent one, whichever the identity accepts.

        Raises:
            Unauthorized: the identity accepts none of them, or is locked.
        """
        for proof in self._candidates(identity.name, holder):
            if identity.isProvedBy(proof):
                return proof
        raise Unauthorized()

    def proves(self, identity: IIdentity, holder: Holder) -> bool:
        """
        Return whether a login or a session rests on something that the identity still accepts.

        Args:
            identity: as it is now.
            holder: the login, or the session.

        Returns:
            Whether it accepts the holder's proof or an equivalent one.
        """
        return any(map(identity.isProvedBy, self._candidates(identity.name, holder)))

    def allows(self, identity: IIdentity, session: KeyHolder) -> bool:
        """
        Return whether a session may go on.

        Args:
            identity: as it is now.
            session: one of its sessions.

        Returns:
            Whether the identity accepts its proof or an equivalent one, and still holds its key.
        """
        return self.proves(identity, session) and identity.holdsKey(
            session.serviceName, session.perspectiveName
        )

    def _candidates(self, name: str, holder: Holder) -> tuple[object, ...]:
        found = self.of(name, holder.proof)
        underWay = self._underWay.get(name)
        if underWay is None:
            return found
        following = (new for holders, new in underWay.changes if any(h is holder for h in holders))
        return (*found, *following)

    # Telling.

    @contextmanager
    def renewing(self, name: str, old: object, new: object) -> Iterator[None]:
        """
        Replace a verifier by another one of the same password, in the body of the ``with``. What
        the old one proved stands, on all connections, also logins that are still under way. If the
        body fails, only the old one counts.

        Args:
            name: of the identity.
            old: the verifier so far.
            new: the other one.
        """
        underWay = self._underWay.setdefault(name, _UnderWay())
        underWay.renewals.append((old, new))
        try:
            yield
        finally:
            underWay.renewals.remove((old, new))
            forgotten = self._underWay.get(name) is not underWay
            self._tidy(name)
        if not forgotten:
            self._renewed(name, old, new)

    def _renewed(self, name: str, old: object, new: object) -> None:
        remembered = self._remembered.get(name, _Remembered())
        same = remembered.known if old in remembered.known else (old,)
        same = (*(each for each in same if each != new), new)
        self._remember(name, evolve(remembered, known=same[-MOST_VERIFIERS:]))
        for holder in self._holders(name):
            if holder.proof in same:
                holder.proof = new

    def renewedElsewhere(self, name: str, former: frozenset[str], today: ScramVerifier) -> None:
        """
        Take note that another server has replaced verifiers by one of the same password: what they
        proved stands by that.

        Args:
            name: of the identity.
            former: the digests of those verifiers (`ScramVerifier.digest`).
            today: the one in their place.
        """
        remembered = self._remembered.get(name, _Remembered())
        remembered = evolve(remembered, former=former, today=today)
        self._remember(name, remembered)
        for holder in self._holders(name):
            if remembered.succeeds(holder.proof):
                holder.proof = today

    @contextmanager
    def changing(
        self, name: str, replaced: Collection[object], new: object, holders: Iterable[Holder]
    ) -> Iterator[None]:
        """
        Replace a password by another one, in the body of the ``with``. Of those given, the holders
        that stand on the old password stand on either of them meanwhile, and on the new one
        afterwards. If the body fails, only the old one counts.

        Args:
            name: of the identity.
            replaced: the verifiers of the old password.
            new: the verifier of the new one.
            holders: the logins and sessions that are to go on.
        """
        following = [
            holder
            for holder in holders
            if any(proof in replaced for proof in self.of(name, holder.proof))
        ]
        change = (following, new)
        underWay = self._underWay.setdefault(name, _UnderWay())
        underWay.changes.append(change)
        try:
            yield
        finally:
            underWay.changes = [each for each in underWay.changes if each is not change]
            self._tidy(name)
        for holder in following:
            holder.proof = new

    def forget(self, name: str) -> None:
        """
        Forget all about an account that was removed.

        Args:
            name: of the identity.
        """
        self._remembered.pop(name, None)
        self._underWay.pop(name, None)

    def _remember(self, name: str, remembered: _Remembered) -> None:
        self._remembered.pop(name, None)
        self._remembered[name] = remembered
        if len(self._remembered) > self._mostAccounts:
            del self._remembered[next(iter(self._remembered))]

    def _tidy(self, name: str) -> None:
        underWay = self._underWay.get(name)
        if underWay is not None and not underWay.renewals and not underWay.changes:
            del self._underWay[name]
