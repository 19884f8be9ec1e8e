"""
Which mechanisms a connection is offered, and how an exchange by one of them begins.

An unknown name gets an exchange, too, which nothing proves, and which costs as many look-ups and
hashes as that of a known one.
"""

from __future__ import annotations

import secrets
from typing import Any

from attrs import frozen
from zope.interface import implementer

from pbauth._async import settled
from pbauth.errors import ExchangeRefused, MechanismNotSupported, Unauthorized
from pbauth.interfaces import IAuthorizer, IExchange, IIdentity, IMechanism
from pbauth.login.policy import Policy
from pbauth.mechanisms import SERVER_MECHANISMS, anonymous, md5, plain, scram
from pbauth.mechanisms.anonymous import AnonymousServer
from pbauth.mechanisms.channel import Channel
from pbauth.names import checkName

_MECHANISMS: dict[str, IMechanism] = {each.name: each for each in SERVER_MECHANISMS}


@implementer(IExchange)
class MD5Exchange:
    """PB-MD5 by way of the identity's own `challenge` and `verifyPassword`."""

    def __init__(self, identity: IIdentity | None, verifier: Any, challenge: bytes) -> None:
        self._identity = identity
        self._verifier = self.proof = verifier
        self._challenge = challenge

    def challenge(self, initial: bytes) -> bytes:
        return self._challenge

    async def outcome(self, response: bytes) -> bytes:
        if not isinstance(response, bytes):
            raise ExchangeRefused("the response is not bytes")
        if self._identity is None:
            self._verifier.accepts(self._challenge, response)
            raise ExchangeRefused("no such identity")
        try:
            await settled(self._identity.verifyPassword(self._challenge, response))
        except Unauthorized:
            raise ExchangeRefused("wrong password, or none for this mechanism") from None
        return b""


@implementer(IExchange)
class PlainExchange:
    """
    PLAIN by way of the identity's own `verifyPlainPassword`.

    Args:
        name: the claimed one.
        identity: of that name, or `None`.
    """

    proof = None

    def __init__(self, name: str, identity: IIdentity | None) -> None:
        self._name = name
        self._identity = identity
        self._password: str | None = None

    def challenge(self, initial: bytes) -> bytes:
        """
        Take the password.

        Raises:
            ExchangeRefused: the message is malformed.
        """
        self._password = plain.readMessage(initial, self._name)
        return b""

    async def outcome(self, response: bytes) -> bytes:
        """
        Take the response, which is empty, and let the password be checked.

        Raises:
            ExchangeRefused: it is wrong.
        """
        password, self._password = self._password, None
        if response != b"" or password is None:
            raise ExchangeRefused("a response where there is nothing to say")
        if self._identity is None:
            raise ExchangeRefused("no such identity")
        try:
            await settled(self._identity.verifyPlainPassword(password))
        except Unauthorized:
            raise ExchangeRefused("wrong password") from None
        return b""


@frozen
class Claim:
    """
    Somebody claims to be somebody, and has to prove it.

    Attributes:
        name: the claimed one.
        mechanism: the name of the mechanism.
        identity: of that name; `None` where there is none that could log in by this mechanism.
        exchange: the server's half of the mechanism's exchange.
    """

    name: str
    mechanism: str
    identity: IIdentity | None
    exchange: IExchange


class Exchanges:
    """
    What a server offers, and begins.

    Args:
        authorizer: finds the identities.
        policy: limits and switches.
    """

    def __init__(self, authorizer: IAuthorizer, policy: Policy) -> None:
        self._authorizer = authorizer
        self._policy = policy
        self._known: dict[tuple[bool, ...], list[str]] = {}

    def offered(self, connection: Channel) -> list[str]:
        """
        Args:
            connection: that a login would run on.

        Returns:
            The names of the mechanisms that may be used on it, strongest first.
        """
        elsewhere = self._authorizer.externalPasswords
        # All that the answer depends on: it is the same for nearly all connections.
        facts = (
            elsewhere,
            connection.secure,
            connection.unix,
            connection.channelBinding is None,
            connection.peerPin is None,
        )
        found = self._known.get(facts)
        if found is None:
            found = self._known[facts] = self._choose(connection, elsewhere)
        return found

    def _choose(self, connection: Channel, externalPasswords: bool) -> list[str]:
        able = {m.name for m in SERVER_MECHANISMS if m.offeredOn(connection)}
        if externalPasswords:
            able -= {scram.NAME_PLUS, scram.NAME}
            if plain.offeredOn(connection):
                able.add(plain.NAME)
        names = [name for name in self._policy.mechanisms if name in able]
        if self._policy.guest is not None:
            names.append(anonymous.NAME)
        if self._policy.legacyLogin:
            names.append(md5.NAME)
        return names

    async def begin(self, name: str, mechanismName: Any, connection: Channel) -> Claim:
        """
        Begin a login.

        Args:
            name: the claimed one.
            mechanismName: what the client sent as the name of a mechanism.
            connection: that the login runs on.

        Returns:
            The claim, to be proved.

        Raises:
            MechanismNotSupported: the mechanism is not offered.
        """
        offered = self.offered(connection)
        if mechanismName not in offered:
            raise MechanismNotSupported(offered)
        if mechanismName == md5.NAME:
            return await self._byMD5(name)
        if mechanismName == plain.NAME:
            identity = await self.findIdentity(name)
            return Claim(name, plain.NAME, identity, PlainExchange(name, identity))
        if mechanismName == anonymous.NAME:
            # Whoever claims to be somebody else than the guest is nobody.
            guest = self._policy.guest or ""
            found = await self.findIdentity(guest) if name in ("", guest) else None
            return Claim(name, anonymous.NAME, found, AnonymousServer())
        return await self._byVerifier(name, _MECHANISMS[mechanismName], connection)

    async def findIdentity(self, name: str) -> IIdentity | None:
        """
        Returns:
            The identity of that name, or `None`.
        """
        try:
            checkName(name)
            found: IIdentity = await settled(self._authorizer.getIdentityRequest(name))
        except (Unauthorized, ValueError):
            return None
        return found

    async def _byVerifier(self, name: str, mechanism: IMechanism, connection: Channel) -> Claim:
        identity = await self.findIdentity(name)
        verifier, decoy = await self._getVerifiers(identity, name, mechanism.verifierName)
        if verifier is None:
            identity, verifier = None, decoy
        exchange = mechanism.begin(name, verifier, connection, secrets.token_bytes)
        return Claim(name, mechanism.name, identity, exchange)

    async def _byMD5(self, name: str) -> Claim:
        identity = await self.findIdentity(name)
        verifier, decoy = await self._getVerifiers(identity, name, md5.NAME)
        if identity is None:
            verifier, challenge = decoy, secrets.token_bytes(md5.CHALLENGE_BYTES)
        else:
            challenge = await settled(identity.challenge())
        return Claim(name, md5.NAME, identity, MD5Exchange(identity, verifier, challenge))

    async def _getVerifiers(
        self, identity: IIdentity | None, name: str, mechanism: str
    ) -> tuple[Any, Any]:
        # The decoy is made for known names as well, so that they cost the same work.
        decoy = await settled(self._authorizer.getDecoyVerifier(name, mechanism))
        if identity is None:
            return None, decoy
        return (await settled(identity.getVerifiers())).get(mechanism), decoy
