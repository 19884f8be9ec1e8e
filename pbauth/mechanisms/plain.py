"""
PLAIN (RFC 4616), without I/O: the password itself is sent.

For passwords that are checked elsewhere, by PAM or LDAP, which wants to see them.  A server that
keeps verifiers of its own never offers it, and a client uses it only where it was told to.
"""

from __future__ import annotations

from pbauth.errors import ExchangeRefused, InvalidPassword
from pbauth.mechanisms.channel import Channel

NAME = "PLAIN"

_LONGEST_PASSWORD = 1_024
_LONGEST_MESSAGE = 2_048


def offeredOn(connection: Channel) -> bool:
    """
    Args:
        connection: that a login would run on.

    Returns:
        Whether a password may be sent over it: by TLS or a UNIX socket only.
    """
    return connection.secure or connection.unix


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
