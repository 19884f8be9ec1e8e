"""What a client proves itself with."""

from __future__ import annotations

import secrets

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from pbauth.errors import MechanismNotSupported
from pbauth.hashing import runDerivation
from pbauth.interfaces import IClientExchange, ICredentials
from pbauth.mechanisms import scram
from pbauth.mechanisms.connection import Connection
from pbauth.mechanisms.scram import ScramClient, ScramKeys, preparePassword


@implementer(ICredentials)
class Password:
    """
    A password, for `connect` and its like.

    It remembers the keys that were derived last, so that a client that keeps the object logs in
    again without the slow derivation. Neither its `repr` nor an error shows anything of it.

    Args:
        password: as it was typed.

    Raises:
        TypeError: it is not a `str`.
        InvalidPassword: it is empty, or holds what SASLprep (RFC 4013) prohibits.
    """

    mechanisms = (scram.NAME_PLUS, scram.NAME)

    def __init__(self, password: str) -> None:
        self._prepared = preparePassword(password)
        self._remembered: tuple[bytes, int, ScramKeys] | None = None

    def __repr__(self) -> str:
        return "<Password, not shown>"

    def begin(self, mechanism: str, name: str, connection: Connection) -> ScramPasswordExchange:
        """
        Begin the client's half of one login.

        Args:
            mechanism: one of `mechanisms`.
            name: the identity's.
            connection: what it will run on.

        Returns:
            An `IClientExchange`.

        Raises:
            MechanismNotSupported: a password can't do that.
            ValueError: this can't be the name of an identity.
        """
        if mechanism not in self.mechanisms:
            raise MechanismNotSupported([mechanism])
        binding = connection.channelBinding
        client = ScramClient(
            name,
            scram.makeNonce(secrets.token_bytes),
            binding=binding if mechanism == scram.NAME_PLUS else None,
            couldBind=binding is not None,
        )
        return ScramPasswordExchange(self, client)

    def keysFor(self, salt: bytes, iterations: int) -> Deferred[ScramKeys]:
        """
        Derive the keys, or remember them.

        Args:
            salt: from the server.
            iterations: from the server.

        Returns:
            Fires with the keys.
        """
        if self._remembered is not None and self._remembered[:2] == (salt, iterations):
            return succeed(self._remembered[2])

        def remember(keys: ScramKeys) -> ScramKeys:
            self._remembered = (salt, iterations, keys)
            return keys

        return runDerivation(
            iterations, ScramKeys.derive, self._prepared, salt, iterations
        ).addCallback(remember)


@implementer(IClientExchange)
class ScramPasswordExchange:
    """
    One login by a password and SCRAM.

    Args:
        password: derives the keys.
        client: the client's half of SCRAM.
    """

    def __init__(self, password: Password, client: ScramClient) -> None:
        self._password = password
        self._client = client

    @property
    def initial(self) -> bytes:
        """The client-first message."""
        return self._client.initial

    async def respond(self, challenge: bytes) -> bytes:
        """
        Answer the server-first message.

        Raises:
            ServerNotTrusted: see `ScramClient.readChallenge`.
        """
        return self._client.respond(
            await self._password.keysFor(*self._client.readChallenge(challenge))
        )

    def checkOutcome(self, outcome: bytes) -> None:
        """
        Check the server-final message.

        Raises:
            ServerNotTrusted: it does not prove that the server knows the verifier.
        """
        self._client.checkOutcome(outcome)
