"""
PLAIN (RFC 4616), without I/O: the password itself is sent.

For passwords that are checked elsewhere, by PAM or LDAP, which wants to see them.  A server that
keeps verifiers of its own never offers it, and a client uses it only where the user asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from attrs import frozen
from zope.interface import implementer

from pbauth.errors import ExchangeRefused, InvalidPassword
from pbauth.interfaces import ICheckedIdentity, IExchange, IMechanism
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.terms import Claimant, Terms, confirmed

NAME = "PLAIN"

_LONGEST_PASSWORD = 1_024
_LONGEST_MESSAGE = 2_048


def makeMessage(name: str, password: str) -> bytes:
    """
    Make the client's one message.

    Args:
        name: of the identity.
        password: as it was typed.

    Returns:
        The message.

    Raises:
        TypeError: the password is not a `str`.
        InvalidPassword: it is empty or too long, or holds a character that can't be sent.
    """
    if not isinstance(password, str):
        raise TypeError(f"A password is a str, not {type(password).__name__}.")
    try:
        encoded = password.encode("utf-8")
    except UnicodeEncodeError:
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise InvalidPassword("The password is empty, or holds a character that can't be sent.")
    if len(encoded) > _LONGEST_PASSWORD:
        raise InvalidPassword(f"A password takes at most {_LONGEST_PASSWORD} bytes.")
    return b"\0" + name.encode("utf-8") + b"\0" + encoded


def readMessage(initial: bytes, name: str) -> str:
    """
    Read the client's one message.

    Args:
        initial: the message.
        name: the claimed identity's, as the client told it outside the mechanism.

    Returns:
        The password.

    Raises:
        ExchangeRefused: it is malformed, or for another name.
    """
    if not isinstance(initial, bytes) or len(initial) > _LONGEST_MESSAGE:
        raise ExchangeRefused("the message is not bytes, or too long")
    try:
        parts = initial.decode("utf-8").split("\0")
    except UnicodeDecodeError:
        # Without the chain: the text of the cause holds the message.
        parts = []
    if len(parts) != 3 or not parts[2]:
        raise ExchangeRefused("malformed message")
    authzid, authcid, password = parts
    if authcid != name:
        raise ExchangeRefused("the message is for another name than the login")
    if authzid not in ("", name):
        raise ExchangeRefused("acting as somebody else is not supported")
    return password


@implementer(IExchange)
class PlainServer:
    """
    The server's half of one login: the identity itself checks the password.

    Args:
        name: the claimed identity's.
        verify: takes a password; of the identity of that name, or `None`.
    """

    proof = None
    bound = False

    def __init__(self, name: str, verify: Callable[[str], Any] | None) -> None:
        self._name = name
        self._verify = verify
        self._password: str | None = None

    def challenge(self, initial: bytes) -> bytes:
        """
        Take the password.

        Raises:
            ExchangeRefused: the message is malformed.
        """
        self._password = readMessage(initial, self._name)
        return b""

    async def outcome(self, response: bytes) -> bytes:
        """
        Take the response, which is empty, and let the password be checked.

        Raises:
            ExchangeRefused: it is wrong.
        """
        password, self._password = self._password, None
        if response != b"" or password is None:
            raise ExchangeRefused("a response that nothing asked for")
        if self._verify is None:
            raise ExchangeRefused("no such identity")
        return await confirmed(self._verify, password, reason="wrong password")


@implementer(IMechanism)
@frozen
class PlainMechanism:
    """The mechanism `PLAIN`, as a server offers it."""

    name = NAME
    listedAs = frozenset({NAME})
    verifierName = None
    hasSwitch = False
    usesKeys = False
    provesNothing = False
    asksIdentity = True

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """Return whether passwords are checked elsewhere, and over TLS or a UNIX socket only."""
        return terms.externalPasswords and maySend(channel)

    def identityFor(self, name: str, terms: Terms) -> str:
        """Return the claimed name."""
        return name

    def decodeVerifier(self, text: str) -> NoReturn:
        """Raise `ValueError`: there are no verifiers."""
        raise ValueError(f"{NAME} has no verifiers.")

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> PlainServer:
        """Begin the server's half of one login."""
        identity: Any = claimant.identity
        if identity is None:
            return PlainServer(claimant.name, None)
        if ICheckedIdentity.providedBy(identity):
            verify = partial(identity.verifyPlainPasswordFrom, host=channel.host)
            return PlainServer(claimant.name, verify)
        return PlainServer(claimant.name, identity.verifyPlainPassword)


def maySend(channel: Channel) -> bool:
    """
    Return whether a password may be sent as it is.

    Args:
        channel: that it would be sent over.

    Returns:
        Whether that is TLS or a UNIX socket.
    """
    return channel.secure or channel.unix
