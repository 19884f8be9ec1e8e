"""The identity: who somebody is, how that is proved, and what they hold the keys to."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from pbauth._arguments import checkProvides, checkType, listed
from pbauth._async import OneShot
from pbauth._moments import checkMoment
from pbauth.accounts.groups import Groups, Key, filled, keysTo
from pbauth.errors import (
    ExchangeRefused,
    InvalidName,
    KeyNotFound,
    PasswordChangeRequired,
    Unauthorized,
)
from pbauth.interfaces import IAuthorizer, IIdentity, ILimitedIdentity, IPerspective
from pbauth.mechanisms import KEY_MECHANISMS, Verifier, md5, scram, withoutPassword
from pbauth.mechanisms.authorizedkeys import AuthorizedKey, AuthorizedKeys
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.saslprep import saslprep
from pbauth.mechanisms.scram import ScramVerifier, preparePassword
from pbauth.mechanisms.terms import NO_VERIFIER
from pbauth.mechanisms.voucher import IssuedVouchers
from pbauth.names import ANY, checkName, checkPerspectiveName


def checkIdentityName(name: object) -> str:
    """
    Check the name of an identity: the rule of `pbauth.names`, and SASLprep.

    Args:
        name: what was given as a name.

    Returns:
        The name itself.

    Raises:
        TypeError: it is not a `str`.
        InvalidName: it breaks the rule.
    """
    checked = checkName(name, "name of an identity")
    try:
        prepared = saslprep(checked)
    except ValueError as refusal:
        raise InvalidName(f"This can't be the name of an identity: {refusal}") from None
    if not prepared:
        raise InvalidName("A name of an identity must not be empty.")
    return checked


# What is not seen, of characters that are no control characters: fillers, vowels and variations
# (`Default_Ignorable_Code_Point` of Unicode), as far as SASLprep leaves them, and an empty Braille
# cell.
_BLANK = frozenset(
    "\u115f\u1160\u17b4\u17b5\u180f\u2800" + "".join(map(chr, range(0xE0100, 0xE01F0)))
)


def checkNewName(name: object) -> str:
    """
    Check the name of a new identity: it is also the one spelling of that name, so that no other
    account looks the same, and holds nothing that can't be seen.

    Args:
        name: what was given as a name.

    Returns:
        The name itself.

    Raises:
        TypeError: it is not a `str`.
        InvalidName: it breaks the rule.
    """
    checked = checkIdentityName(name)
    for character in checked:
        if unicodedata.category(character) in ("Cf", "Cn") or character in _BLANK:
            raise InvalidName(
                "The name of a new identity must not hold invisible characters, or unknown ones; "
                f"this one holds U+{ord(character):04X}."
            )
    if " ".join(checked.split()) != checked:
        raise InvalidName(
            "The name of a new identity has single spaces, and only between other characters."
        )
    prepared = saslprep(checked)
    if prepared != checked:
        raise InvalidName(
            f"{checked!r} has another spelling, which is its form in SASLprep (RFC 4013): "
            f"{prepared!r}. Use that."
        )
    return checked


def checkVerifiers(verifiers: dict[str, Verifier], name: str) -> None:
    """
    Check an argument that consists of verifiers.

    Args:
        verifiers: the argument.
        name: of the argument.

    Raises:
        TypeError: it is not a dict, or one of its values is no verifier.
    """
    checkType(dict, verifiers, name)
    for mechanism, verifier in verifiers.items():
        if not isinstance(verifier, Verifier):
            raise TypeError(
                f"{name}[{mechanism!r}] must be a verifier, not {type(verifier).__name__}."
            )


def checkRenewal(identity: IIdentity, old: ScramVerifier, new: ScramVerifier) -> None:
    """
    Check the arguments of `IAuthorizer.renewVerifier`.

    Raises:
        TypeError: one is of the wrong type.
    """
    checkProvides(IIdentity, identity, "identity")
    checkType(ScramVerifier, old, "old")
    checkType(ScramVerifier, new, "new")


def checkReplacement(
    identity: IIdentity, before: dict[str, Verifier], verifiers: dict[str, Verifier]
) -> None:
    """
    Check the arguments of `IAuthorizer.replacePassword`.

    Raises:
        TypeError: one is of the wrong type.
    """
    checkProvides(IIdentity, identity, "identity")
    checkVerifiers(before, "before")
    checkVerifiers(verifiers, "verifiers")


def checkMethods(methods: Iterable[str]) -> frozenset[str]:
    """
    Check the names of the methods that a key is good for, and return them.

    Raises:
        TypeError: they are not a list of texts.
        ValueError: there is none.
        InvalidName: a name breaks the rule of `pbauth.names`.
    """
    found = frozenset(
        checkName(each, "name of a method") for each in listed(methods, "names", "methods")
    )
    if not found:
        raise ValueError("A key is good for one method at least; without a list, for all.")
    return found


@implementer(ILimitedIdentity)
class Identity:
    """
    Represent one person or program.

    Make one by `IAuthorizer.createIdentity`, equip it, and save it::

        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        identity.addKeyByString("game", "alice")
        identity.save()

    Args:
        name: see `pbauth.names`.
        authorizer: the authorizer that it belongs to.

    Raises:
        TypeError: the name is not a `str`, or the authorizer does not provide `IAuthorizer`.
        InvalidName: the name breaks the rule.
    """

    def __init__(self, name: str, authorizer: IAuthorizer) -> None:
        self.name = checkIdentityName(name)
        checkProvides(IAuthorizer, authorizer, "authorizer")
        self.authorizer = authorizer
        self.keyring: dict[tuple[str, str], bool | frozenset[str]] = {}
        self.stored = False
        self.mustChangePassword = False
        self.created: datetime | None = None
        self.lastLogin: datetime | None = None
        self._expires: datetime | None = None
        self._locked = False
        self._groups: Groups = {}
        self._verifiers: dict[str, Verifier] = {}
        # Fires when the derivation that is under way is done, or replaced by another.
        self._derivation: OneShot | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    # How it is proved.

    @property
    def locked(self) -> bool:
        """Return whether logins are refused, whatever their proof. Locking ends the sessions."""
        return self._locked

    @locked.setter
    def locked(self, value: bool) -> None:
        self._locked = bool(value)
        self.authorizer.identityChanged(self)

    @property
    def expires(self) -> datetime | None:
        """
        Return the moment from which logins are refused, whatever their proof, and at which the
        sessions end; or `None`, if there is no such moment.
        """
        return self._expires

    @expires.setter
    def expires(self, value: datetime | None) -> None:
        self._expires = checkMoment(value, "expires")
        self.authorizer.identityChanged(self)

    def setPassword(self, password: str | None) -> Deferred[None]:
        """
        Replace the password. Only verifiers of it are kept, made as the authorizer's `hashing`
        says: in a thread while a reactor runs, at once otherwise. Whoever needs the verifiers
        meanwhile (a login, `save`) waits for them; the old password is void at once.

        Args:
            password: the new password; `None`: no password fits any more.

        Returns:
            Fires when the verifiers are there. Need not be waited for.

        Raises:
            TypeError: neither a `str` nor `None`.
            InvalidPassword: it is empty, or holds what SASLprep prohibits.
        """
        if password is None:
            self.setVerifiers({})
            return succeed(None)
        preparePassword(password)
        hashing = self.authorizer.hashing
        replaced, derivation = self._derivation, OneShot()
        self._derivation = derivation
        if replaced is not None:
            replaced.fire()
        self._verifiers = withoutPassword(self._verifiers)
        self.authorizer.identityChanged(self)
        done = self.authorizer.derivations.run(
            hashing.iterations,
            hashing.makeVerifiers,
            password,
            secrets.token_bytes(hashing.saltBytes),
        )

        def derived(made: dict[str, Verifier]) -> None:
            # Nothing, if the password was replaced once more in the meantime.
            if self._derivation is derivation:
                self.setVerifiers(made)

        def failed(failure: Failure) -> Failure:
            if self._derivation is derivation:
                self.setVerifiers({})
            return failure

        return done.addCallbacks(derived, failed)

    def setVerifiers(self, verifiers: dict[str, Verifier]) -> None:
        """
        Replace the password by verifiers that were made elsewhere. Public keys stay, and vouchers
        that survive a change of the password, unless there are others among the verifiers.

        Args:
            verifiers: by the name of the mechanism; empty: no password fits any more.

        Raises:
            TypeError: it is not a dict, or one of its values is no verifier.
        """
        checkVerifiers(verifiers, "verifiers")
        derivation, self._derivation = self._derivation, None
        made = {**withoutPassword(self._verifiers), **verifiers}
        self._verifiers = {
            name: each
            for name, each in made.items()
            if not isinstance(each, IssuedVouchers) or each.vouchers
        }
        if derivation is not None:
            derivation.fire()
        self.authorizer.identityChanged(self)

    async def _derived(self) -> dict[str, Verifier]:
        while self._derivation is not None:
            await self._derivation.wait()
        return self._verifiers

    def getVerifiers(self) -> Deferred[dict[str, Verifier]]:
        """
        Return the verifiers.

        Returns:
            Fires with the verifiers by the name of the mechanism, once they are all made.
        """

        if self._derivation is None:
            return succeed(dict(self._verifiers))

        async def get() -> dict[str, Verifier]:
            return dict(await self._derived())

        return Deferred.fromCoroutine(get())

    def verifyPlainPassword(self, password: str) -> Deferred[None]:
        """
        Check a password that came in some other way than PB.

        Args:
            password: what was typed.

        Returns:
            Fires with `None` if it is right; fails with `Unauthorized` if it is wrong, if there
            is no password, or if the identity is locked.
        """

        async def verify() -> None:
            verifier = (await self._derived()).get(scram.NAME)
            if not isinstance(verifier, ScramVerifier) or not isinstance(password, str):
                raise Unauthorized() from ExchangeRefused("this identity has no password")
            right = await self.authorizer.derivations.run(
                verifier.iterations, verifier.matches, password
            )
            if not right or not self.isProvedBy(verifier):
                raise Unauthorized() from ExchangeRefused(_reason(right, self.locked))

        return Deferred.fromCoroutine(verify())

    def addPublicKey(self, key: AuthorizedKey) -> None:
        """
        Authorize a key: a `PublicKey` for the mechanism `ED25519`, or a `CertificateKey` for
        `EXTERNAL`. A key that is authorized already gets this label.

        Args:
            key: the key, with its label.

        Raises:
            TypeError: it is neither.
        """
        checkType(AuthorizedKey, key, "key")
        others = [other for other in self.getPublicKeys() if other != key]
        self._setPublicKeys([*others, key])

    def removePublicKey(self, key: AuthorizedKey) -> None:
        """
        Remove an authorized key. For an identity in memory, the sessions that it opened end.

        Raises:
            KeyError: it is not one of this identity's.
            TypeError: it is not a public key.
        """
        checkType(AuthorizedKey, key, "key")
        keys = self.getPublicKeys()
        if key not in keys:
            raise KeyError(key.fingerprint())
        self._setPublicKeys([other for other in keys if other != key])

    def getPublicKeys(self) -> list[AuthorizedKey]:
        """
        Return the authorized keys.

        Returns:
            The keys of both kinds, each kind in the order in which they were added.
        """
        found = [self._verifiers.get(mechanism) for mechanism in KEY_MECHANISMS]
        return [key for each in found if isinstance(each, AuthorizedKeys) for key in each.keys]

    def _setPublicKeys(self, keys: list[AuthorizedKey]) -> None:
        for mechanism in KEY_MECHANISMS:
            self._verifiers.pop(mechanism, None)
            some = tuple(key for key in keys if key.mechanism == mechanism)
            if some:
                self._verifiers[mechanism] = AuthorizedKeys(mechanism, some)
        self.authorizer.identityChanged(self)

    def challenge(self) -> bytes:
        """Return a new challenge for the scheme of Twisted 1.x."""
        return secrets.token_bytes(md5.CHALLENGE_BYTES)

    def verifyPassword(self, challenge: bytes, response: bytes) -> Deferred[None]:
        """
        Check a response by the scheme of Twisted 1.x.

        Args:
            challenge: what `challenge` gave.
            response: what the client made of it.

        Returns:
            Fires with `None` if it fits; fails with `Unauthorized` if not, or if this identity
            has no MD5 verifier (see `Hashing`), or is locked.
        """

        async def verify() -> None:
            verifier = (await self._derived()).get(md5.NAME)
            known = isinstance(verifier, MD5Verifier)
            # Without a verifier the same work is done, so that the time tells nothing.
            checker = verifier if isinstance(verifier, MD5Verifier) else MD5Verifier(bytes(16))
            fits = isinstance(response, bytes) and checker.accepts(challenge, response)
            if not known:
                raise Unauthorized() from ExchangeRefused(NO_VERIFIER)
            if not fits or not self.isProvedBy(verifier):
                raise Unauthorized() from ExchangeRefused(_reason(fits, self.locked))

        return Deferred.fromCoroutine(verify())

    # What it holds the keys to.

    def addKeyByString(
        self, serviceName: str, perspectiveName: str, methods: Iterable[str] | None = None
    ) -> None:
        """
        Add a key to the keyring.

        Args:
            serviceName: of the service.
            perspectiveName: of the perspective; ``*``: any of that service; ``{name}``: the one
                that is named like the identity.
            methods: the names of the perspective's methods that the key is good for, one at least;
                `None`: all of them.

        Raises:
            TypeError: a name is not a `str`.
            ValueError: there is no method.
            InvalidName: a name breaks the rule of `pbauth.names`.
        """
        checkName(serviceName, "name of a service")
        checkName(perspectiveName, "name of a perspective")
        limited = None if methods is None else checkMethods(methods)
        before = self.keyring.get((serviceName, perspectiveName))
        self.keyring[serviceName, perspectiveName] = True if limited is None else limited
        if before and before != self.keyring[serviceName, perspectiveName]:
            self.authorizer.identityChanged(self)

    def addKeyForPerspective(self, perspective: IPerspective) -> None:
        """
        Add the key to this perspective, of its service, to the keyring.

        Raises:
            TypeError: it is not a perspective.
            ValueError: it belongs to no service, or its name stands for others in a key.
        """
        checkProvides(IPerspective, perspective, "perspective")
        service = perspective.getService()
        if service is None:
            raise ValueError(f"{perspective!r} belongs to no service: add it to one first.")
        name = checkPerspectiveName(perspective.getPerspectiveName())
        self.addKeyByString(service.getServiceName(), name)

    def removeKey(self, serviceName: str, perspectiveName: str) -> None:
        """
        Remove a key from the keyring. For an identity in memory, the sessions that used it end now.

        Raises:
            KeyError: the key is not on the keyring.
        """
        del self.keyring[serviceName, perspectiveName]
        self.authorizer.identityChanged(self)

    def getAllKeys(self) -> list[tuple[str, str]]:
        """
        Return the keys that the identity may use: its own, and those of its groups.

        Returns:
            The pairs `(serviceName, perspectiveName)`, sorted. Where a key is to the perspective
            that is named like the identity, it has that name; ``*`` stands for any perspective.
        """
        own = {key for key, held in self.keyring.items() if held}
        return sorted(filled(key, self.name) for key in own.union(*self._groups.values()))

    @property
    def groups(self) -> frozenset[str]:
        """Return the names of the groups that the identity is a member of."""
        return frozenset(self._groups)

    def setGroups(self, groups: Mapping[str, Iterable[Key]]) -> None:
        """
        Set the groups that the identity is a member of. Its authorizer calls it; to change who is
        a member, see `IGroupStore`.

        Args:
            groups: the keys of each group, by its name.

        Raises:
            TypeError: it is not a mapping.
        """
        checkType(Mapping, groups, "groups")
        self._groups = {name: frozenset(keys) for name, keys in groups.items()}

    def getKeyForService(self, serviceName: str) -> str:
        """
        Choose a key to a service.

        Returns:
            The identity's own name if that key is held, else the first in sorted order.
            A key to any perspective is a key to that of the identity's own name.

        Raises:
            KeyNotFound: there is no key to this service.
        """
        if self.holdsKey(serviceName, self.name):
            return self.name
        for service, name in self.getAllKeys():
            if service == serviceName and name != ANY:
                return name
        raise KeyNotFound(serviceName)

    def holdsKey(self, serviceName: str, perspectiveName: str) -> bool:
        """
        Return whether the identity may use a perspective.

        Returns:
            Whether a key on its keyring, or one of its groups, is the key to this perspective.
        """
        return any(
            self.keyring.get(key) or any(key in keys for keys in self._groups.values())
            for key in keysTo(serviceName, perspectiveName, self.name)
        )

    def methodsFor(self, serviceName: str, perspectiveName: str) -> frozenset[str] | None:
        """
        Return which methods of a perspective the identity may call.

        Returns:
            The names that its keys to this perspective list, all together; `None`: any method,
            since one of the keys, or that of a group, lists none.
        """
        found: frozenset[str] = frozenset()
        for key in keysTo(serviceName, perspectiveName, self.name):
            held = self.keyring.get(key)
            if held is True or any(key in keys for keys in self._groups.values()):
                return None
            if held:
                found |= frozenset(held)
        return found

    def isProvedBy(self, proof: object) -> bool:
        """
        Return whether a login that was proved some time ago is still valid.

        Args:
            proof: what it was proved by, a verifier or a public key; `None` where that was neither.

        Returns:
            Whether the identity is not locked and has not expired, and still has this verifier or
            key.
        """
        if self._locked or not (proof is None or self._covers(proof)):
            return False
        end = self.standsUntil(proof)
        return end is None or self.authorizer.now() < end

    def _covers(self, proof: object) -> bool:
        # Not `any`: each login asks this twice.
        for each in self._verifiers.values():
            if each.covers(proof):
                return True
        return False

    def standsUntil(self, proof: object) -> datetime | None:
        """
        Return when a login ends by itself.

        Args:
            proof: what it was proved by, a verifier or a public key; `None` where that was neither.

        Returns:
            When the identity expires, or the public key or the voucher, whichever comes first;
            `None`: never.
        """
        first = self._expires
        for each in self._verifiers.values():
            if isinstance(each, (AuthorizedKeys, IssuedVouchers)):
                end = each.expiryOf(proof)
                if end is not None and (first is None or end < first):
                    first = end
        return first

    def requestPerspectiveForKey(
        self, serviceName: str, perspectiveName: str
    ) -> Deferred[IPerspective]:
        """
        Ask for a perspective.

        Returns:
            Fires with what the service's `getPerspectiveForIdentity` gives; fails with
            `KeyNotFound` if no key to it is held, or service or perspective do not exist.
        """

        if self.mustChangePassword:
            return fail(PasswordChangeRequired())
        if not self.holdsKey(serviceName, perspectiveName):
            return fail(KeyNotFound(serviceName, perspectiveName))
        try:
            service = self.authorizer.getServiceNamed(serviceName)
        except KeyError:
            return fail(KeyNotFound(serviceName, perspectiveName))
        ask: Any = service.getPerspectiveForIdentity
        return maybeDeferred(ask, perspectiveName, self)

    def requestPerspectiveForService(self, serviceName: str) -> Deferred[IPerspective]:
        """
        Ask for the perspective that `getKeyForService` names.

        Returns:
            As `requestPerspectiveForKey`.
        """

        async def request() -> IPerspective:
            name = self.getKeyForService(serviceName)
            return await maybeDeferred(self.requestPerspectiveForKey, serviceName, name)

        return Deferred.fromCoroutine(request())

    def save(self) -> Deferred[object]:
        """
        Store the identity: by its authorizer's `addIdentity` if it is new, else by
        `updateIdentity`.

        Returns:
            Fires when it is stored, with whatever store; fails as that store does.

        Raises:
            DuplicateIdentity: the name is taken, and the store is one in memory.
        """
        store = self.authorizer.updateIdentity if self.stored else self.authorizer.addIdentity
        stored: Any = store(self)
        return ensureDeferred(stored) if hasattr(stored, "__await__") else succeed(stored)


def _reason(right: bool, locked: bool) -> str:
    """Return why a password is refused, for the audit log."""
    if not right:
        return "wrong password"
    return "the account is locked" if locked else "the account has expired"
