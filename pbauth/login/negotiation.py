"""
Which mechanisms a connection is offered, and how an exchange by one of them begins.

A name that does not exist also gets an exchange, which nothing proves, and which costs as many
look-ups and hashes as that of a name that does.
"""

from __future__ import annotations

import secrets
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from pbauth._async import settled
from pbauth.errors import MechanismNotSupported, Unauthorized
from pbauth.interfaces import IAuthorizer, IExchange, IIdentity, IMechanism
from pbauth.login.policy import Policy
from pbauth.mechanisms import MECHANISMS, Verifier
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.terms import NO_VERIFIER, Claimant, Terms
from pbauth.names import checkName

_log = Logger()


@frozen
class Claim:
    """
    What has to be proved.

    Attributes:
        identity: whom the client claims to be; `None`: nobody who could log in with this mechanism.
        missing: why `identity` is `None`, for the audit log.
        exchange: the server's half of the mechanism's exchange.
        guest: the exchange proves nothing, whoever the client is.
    """

    identity: IIdentity | None
    missing: str
    exchange: IExchange
    guest: bool


class Negotiation:
    """
    Offers mechanisms, and begins exchanges, on all connections of a server.

    Args:
        authorizer: finds the identities.
        policy: limits and switches.
    """

    def __init__(self, authorizer: IAuthorizer, policy: Policy) -> None:
        self._authorizer = authorizer
        self._policy = policy
        self._offers: dict[tuple[bool, ...], dict[str, IMechanism]] = {}
        self._eitherTerms = [
            Terms(
                externalPasswords=external,
                guest=policy.guest,
                legacy=policy.legacyLogin,
                vouchers=policy.vouchers,
            )
            for external in (False, True)
        ]

    @property
    def _terms(self) -> Terms:
        return self._eitherTerms[bool(self._authorizer.externalPasswords)]

    def offered(self, channel: Channel) -> list[str]:
        """
        Return the names of the mechanisms that may be used on a connection.

        Args:
            channel: the connection.

        Returns:
            The names, strongest first.
        """
        return list(self._offer(channel))

    def _offer(self, channel: Channel) -> dict[str, IMechanism]:
        terms = self._terms
        # All that the answer depends on: it is the same for nearly all connections.
        facts = (
            terms.externalPasswords,
            channel.secure,
            channel.unix,
            channel.channelBinding is None,
            channel.peerPin is None,
        )
        found = self._offers.get(facts)
        if found is None:
            able = [each for each in MECHANISMS if each.offeredOn(channel, terms)]
            if channel.secure and channel.channelBinding is None:
                if self._policy.minimumTLS != "1.2":
                    _log.warn(
                        "Nobody can log in over TLS 1.2, which can't bind a login to its "
                        "connection. Policy(minimumTLS='1.2') allows it anyway."
                    )
                    able = []
            listed = [
                each for name in self._policy.mechanisms for each in able if name in each.listedAs
            ]
            switched = [each for each in able if each.hasSwitch]
            found = self._offers[facts] = {each.name: each for each in [*listed, *switched]}
        return found

    async def begin(self, name: str, mechanismName: Any, channel: Channel) -> Claim:
        """
        Begin a login.

        Args:
            name: the claimed one.
            mechanismName: what the client sent as the name of a mechanism.
            channel: that the login runs on.

        Returns:
            The claim, to be proved.

        Raises:
            MechanismNotSupported: the mechanism is not offered.
        """
        offer = self._offer(channel)
        mechanism = offer.get(mechanismName) if isinstance(mechanismName, str) else None
        if mechanism is None:
            raise MechanismNotSupported(list(offer))
        identity, missing = await self._find(mechanism.identityFor(name, self._terms)), ""
        verifier = None
        if identity is None:
            missing = "no such identity"
        if mechanism.verifierName is not None:
            # The decoy is made even for names that exist, so that all names cost the same work.
            making = self._authorizer.getDecoyVerifier(name, mechanism.verifierName)
            decoy: Verifier = await settled(making)
            if identity is not None:
                verifiers = await settled(identity.getVerifiers())
                verifier = verifiers.get(mechanism.verifierName)
            if identity is None or (verifier is None and not mechanism.asksIdentity):
                missing = missing or NO_VERIFIER
                identity, verifier = None, decoy
        claimant = Claimant(name, identity, verifier)
        exchange = mechanism.begin(claimant, channel, secrets.token_bytes)
        return Claim(identity, missing, exchange, mechanism.provesNothing)

    async def _find(self, name: str | None) -> IIdentity | None:
        if name is None:
            return None
        try:
            checkName(name)
            found: IIdentity = await settled(self._authorizer.getIdentityRequest(name))
        except (Unauthorized, ValueError):
            return None
        return found
