"""
What is stored of an identity, whatever it is stored in: text and truth values, and nothing else.

Stores read and write records; so do dumps of accounts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from datetime import datetime

from attrs import evolve, field, frozen

from pbauth._arguments import checkProvides, checkType, listed
from pbauth._async import settled
from pbauth.accounts.groups import Groups, Key, checkGroupName, checkKey, filled
from pbauth.accounts.identity import checkIdentityName
from pbauth.interfaces import IAuthorizer, IIdentity
from pbauth.mechanisms import (
    KEY_MECHANISMS,
    PASSWORD_MECHANISMS,
    Verifier,
    decodeVerifier,
    scram,
    voucher,
)
from pbauth.mechanisms.authorizedkeys import AuthorizedKey, AuthorizedKeys
from pbauth.mechanisms.voucher import IssuedVoucher, IssuedVouchers
from pbauth.names import checkName


@frozen
class Record:
    """
    Hold what is stored of one identity.

    Attributes:
        name: its name.
        locked: whether logging in is refused.
        verifiers: pairs of the name of the mechanism and the encoded verifier, public keys
            included.
        keys: the pairs `(serviceName, perspectiveName)` of its own keyring.
        groups: the names of the groups that it is a member of.
        expires: from when on logins are refused; `None`: never.
        mustChangePassword: whether a login is good for nothing but a change of the password.
        created: when it was added; `None`: nobody knows.
        lastLogin: when it logged in last, accurate to an hour; `None`: nobody knows, or never.
        methods: triples of a key of `keys` and the name of a method that it is good for; a key
            without any is good for all.
    """

    name: str
    locked: bool = False
    verifiers: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)
    keys: frozenset[Key] = frozenset()
    groups: frozenset[str] = frozenset()
    expires: datetime | None = None
    mustChangePassword: bool = False
    created: datetime | None = None
    lastLogin: datetime | None = None
    methods: frozenset[tuple[str, str, str]] = frozenset()

    def check(self) -> None:
        """
        Check that this can be an identity.

        Raises:
            TypeError: a name is not a `str`.
            InvalidName: a name breaks the rule of `pbauth.names`.
            ValueError: a verifier is of no known form, or stands under the name of another
                mechanism.
        """
        checkIdentityName(self.name)
        for key in self.keys:
            checkKey(*key)
        for *owner, method in self.methods:
            checkName(method, "name of a method")
            if tuple(owner) not in self.keys:
                raise ValueError("There is a method of a key that is not there.")
        for group in self.groups:
            checkGroupName(group)
        for mechanism, encoded in self.verifiers:
            decodeVerifier(encoded)
            if encoded.partition("$")[0] != mechanism:
                raise ValueError(f"A verifier of {mechanism} is one of another mechanism.")

    def asIdentity(self, authorizer: IAuthorizer, groups: Groups) -> IIdentity:
        """
        Make an identity of it.

        Args:
            authorizer: that the identity will belong to.
            groups: the keys of its groups; those of other groups do not matter.

        Returns:
            An identity that is as recorded; not marked as stored.
        """
        # It may be older than the rule for new names.
        identity = authorizer.identityClass(self.name, authorizer)
        identity.setVerifiers(
            {mechanism: decodeVerifier(encoded) for mechanism, encoded in self.verifiers}
        )
        for key in self.keys:
            self._addKey(identity, key)
        if self.groups:
            identity.setGroups({name: groups[name] for name in self.groups if name in groups})
        self._setLife(identity)
        return identity

    def methodsOf(self, key: Key) -> frozenset[str] | None:
        """Return the methods that one of its own keys is good for; `None`: all."""
        if not self.methods:
            return None
        return frozenset(each[2] for each in self.methods if each[:2] == key) or None

    def _addKey(self, identity: IIdentity, key: Key) -> None:
        methods = self.methodsOf(key)
        # An identity of another class need not know of methods.
        more = () if methods is None else (methods,)
        identity.addKeyByString(*key, *more)

    def withKey(self, key: Key, methods: frozenset[str] | None) -> Record:
        """
        Return this record with a key.

        Args:
            key: on its own keyring.
            methods: that it is good for; `None`: all.
        """
        others = {each for each in self.methods if each[:2] != key}
        made = {(*key, method) for method in methods or ()}
        return evolve(self, keys=self.keys | {key}, methods=frozenset(others | made))

    def withoutKey(self, key: Key) -> Record:
        """Return this record without a key."""
        left = frozenset(each for each in self.methods if each[:2] != key)
        return evolve(self, keys=self.keys - {key}, methods=left)

    def _setLife(self, identity: IIdentity) -> None:
        identity.mustChangePassword = self.mustChangePassword
        identity.created = self.created
        identity.lastLogin = self.lastLogin
        if identity.expires != self.expires:
            identity.expires = self.expires
        if identity.locked != self.locked:
            identity.locked = self.locked

    def withGroupKeys(self, groups: Groups) -> Record:
        """
        Return this record with the keys of its groups among its own.

        Args:
            groups: the keys of its groups; those of other groups do not matter.
        """
        found = [groups[name] for name in self.groups if name in groups]
        of = frozenset().union(*found)
        left = frozenset(each for each in self.methods if each[:2] not in of)
        return evolve(self, keys=self.keys | of, methods=left)

    def applyTo(self, identity: IIdentity, before: Record) -> None:
        """
        Change an identity to what is recorded here.

        Args:
            identity: to be changed.
            before: its record as it is.
        """
        if self.verifiers != before.verifiers:
            was, becomes = before._decoded(), self._decoded()
            if was.passwords != becomes.passwords:
                # Nor do those vouchers stay that would survive a new password.
                identity.setVerifiers({voucher.NAME: IssuedVouchers(), **becomes.passwords})
            for key in was.keys:
                if key not in becomes.keys:
                    identity.removePublicKey(key)
            for key in becomes.keys:
                identity.addPublicKey(key)
        for service, perspective in before.keys - self.keys:
            identity.removeKey(service, perspective)
        for held in self.keys:
            if held not in before.keys or self.methodsOf(held) != before.methodsOf(held):
                self._addKey(identity, held)
        self._setLife(identity)

    def hasExpired(self, now: datetime) -> bool:
        """Return whether the account has expired by now."""
        return self.expires is not None and self.expires <= now

    def wasActive(self, since: datetime) -> bool:
        """Return whether it was added or logged in since a moment, as far as is known."""
        return any(each is not None and each >= since for each in (self.created, self.lastLogin))

    def opensForGood(self, usable: Container[str] | None = None) -> bool:
        """
        Return whether there is a password, or a public key that does not expire.

        Args:
            usable: the names of the verifiers and public keys that count, see
                `pbauth.mechanisms.verifiersFor`; `None`: all.
        """

        def counts(mechanism: str) -> bool:
            return usable is None or mechanism in usable

        return any(
            mechanism in PASSWORD_MECHANISMS and counts(mechanism)
            for mechanism, _ in self.verifiers
        ) or any(key.expires is None and counts(key.mechanism) for key in self.publicKeys())

    def publicKeys(self) -> list[AuthorizedKey]:
        """Return the public keys of both kinds."""
        return self._decoded().keys

    def withPublicKeys(self, keys: Iterable[AuthorizedKey]) -> Record:
        """
        Return this record with other public keys.

        Args:
            keys: of both kinds, all that there are to be.
        """
        lists: dict[str, list[AuthorizedKey]] = {}
        for key in keys:
            lists.setdefault(key.mechanism, []).append(key)
        encoded = {
            (mechanism, AuthorizedKeys(mechanism, tuple(some)).encode())
            for mechanism, some in lists.items()
        }
        passwords = {each for each in self.verifiers if each[0] not in KEY_MECHANISMS}
        return evolve(self, verifiers=frozenset(encoded | passwords))

    def vouchers(self) -> tuple[IssuedVoucher, ...]:
        """Return the vouchers that it has issued."""
        for mechanism, encoded in self.verifiers:
            if mechanism == voucher.NAME:
                return IssuedVouchers.decode(encoded).vouchers
        return ()

    def withVouchers(self, vouchers: Iterable[IssuedVoucher]) -> Record:
        """
        Return this record with other vouchers.

        Args:
            vouchers: all that there are to be.
        """
        issued = IssuedVouchers(tuple(vouchers))
        kept = {each for each in self.verifiers if each[0] != voucher.NAME}
        if issued.vouchers:
            kept.add((voucher.NAME, issued.encode()))
        return evolve(self, verifiers=frozenset(kept))

    def _decoded(self) -> _Decoded:
        verifiers = {mechanism: decodeVerifier(encoded) for mechanism, encoded in self.verifiers}
        lists = [verifiers[each] for each in KEY_MECHANISMS if each in verifiers]
        return _Decoded(
            {name: each for name, each in verifiers.items() if name not in KEY_MECHANISMS},
            [key for some in lists if isinstance(some, AuthorizedKeys) for key in some.keys],
        )


@frozen
class _Decoded:
    """
    The verifiers of a record.

    Attributes:
        passwords: those of its password, and its vouchers, by the name of the mechanism.
        keys: its public keys.
    """

    passwords: dict[str, Verifier]
    keys: list[AuthorizedKey]


async def recordOf(identity: IIdentity) -> Record:
    """
    Return the record of an identity, once the verifiers of its password are made.

    Args:
        identity: any.

    Returns:
        The record.

    Raises:
        TypeError: it is not an identity.
    """
    checkProvides(IIdentity, identity, "identity")
    verifiers = await settled(identity.getVerifiers())
    return Record(
        identity.name,
        bool(identity.locked),
        frozenset((mechanism, verifier.encode()) for mechanism, verifier in verifiers.items()),
        frozenset(key for key, held in identity.keyring.items() if held),
        frozenset(identity.groups),
        identity.expires,
        bool(identity.mustChangePassword),
        identity.created,
        identity.lastLogin,
        frozenset(
            (*key, method)
            for key, held in identity.keyring.items()
            if held and held is not True
            for method in held
        ),
    )


def listedRecords(records: Iterable[Record]) -> list[Record]:
    """
    List the records that an argument consists of.

    Raises:
        TypeError: it consists of something else.
    """
    some = listed(records, "records", "records")
    for each in some:
        checkType(Record, each, "records")
    return some


def holdersAmong(
    records: Iterable[Record], groups: Groups, service: str
) -> list[tuple[str, str, bool, str]]:
    """
    Find who holds keys to a service.

    Args:
        records: of identities.
        groups: the keys of their groups.
        service: the name of a service.

    Returns:
        As `IAccountStore.listHolders` tells it.
    """
    return sorted(
        (record.name, filled(key, record.name)[1], record.locked, group)
        for record in records
        for group, keys in (
            ("", record.keys),
            *((name, groups[name]) for name in record.groups if name in groups),
        )
        for key in keys
        if key[0] == service
    )


def frequentCosts(records: Iterable[Record]) -> list[tuple[int, int]]:
    """
    Find what verifiers of SCRAM cost.

    Args:
        records: of identities.

    Returns:
        Iterations and bytes of salt, the most frequent ones first.
    """
    found: Counter[tuple[int, int]] = Counter()
    for record in records:
        for mechanism, encoded in record.verifiers:
            if mechanism == scram.NAME:
                iterations, _, salt = encoded.split("$")[1].partition(":")
                found[int(iterations), len(salt.rstrip("=")) * 3 // 4] += 1
    return [cost for cost, _ in found.most_common()]
