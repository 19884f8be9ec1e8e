"""
How a server wants passwords hashed; and the renewal of verifiers that are weaker than that.

A server keeps the verifier of an account as it was made. If it asks for more iterations today, old
accounts are easier to guess for whoever steals them, and can be told apart from names that do not
exist. So a client that had to derive the key of its password anyway asks, after the login, how
passwords are hashed now, and replaces the verifier by a better one of the same password. The
server sees no password, and the login waits for none of this.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionClosed
from twisted.logger import Logger
from twisted.spread import pb
from twisted.spread.jelly import InsecureJelly

from pbauth.accounts.hashing import Hashing
from pbauth.errors import NotProtected, ProtocolViolation, ServerNotTrusted
from pbauth.interfaces import IRenewingExchange
from pbauth.wire.channel import channelOf

_log = Logger()

# Reasons to leave the verifier as it is, this time: the server refuses, or the connection is gone.
_NOT_THIS_TIME = (
    pb.Error,
    pb.RemoteError,
    pb.ProtocolError,
    pb.PBConnectionLost,
    ConnectionClosed,
    CancelledError,
    InsecureJelly,
)


async def askHashing(identity: Any) -> Hashing | None:
    """
    Ask a server how new passwords are to be hashed, before it is sent the verifier of one.

    Args:
        identity: a reference to an `IdentityWrapper`.

    Returns:
        The answer; `None` from a server that knows no such question.

    Raises:
        NotProtected: no verifier may be sent on this connection.
        ServerNotTrusted: it asks for what is not safe, or for more work than is reasonable.
    """
    checkProtected(identity)
    try:
        answer = await identity.callRemote("hashing")
    except (ProtocolViolation, pb.RemoteError):
        return None
    if (
        not isinstance(answer, (tuple, list))
        or len(answer) != 2
        or not all(type(number) is int for number in answer)
    ):
        raise ServerNotTrusted("The server does not say how it wants passwords hashed.")
    iterations, saltBytes = answer
    try:
        return Hashing(iterations, saltBytes)
    except ValueError:
        raise ServerNotTrusted(
            f"The server wants passwords hashed with {iterations} iterations and {saltBytes} bytes "
            "of salt, which is not safe."
        ) from None


def checkProtected(reference: Any) -> None:
    """
    Check that nobody can stand in between who would get the verifiers that are sent.

    Args:
        reference: to what they are sent to. A connection that `pbauth.client.login.prove` has not
            logged in on is for the server to judge.

    Raises:
        NotProtected: somebody can.
    """
    broker = getattr(reference, "broker", None)
    bound = getattr(broker, "loginIsBound", None)
    if bound is not None and not channelOf(broker).protects(bound):
        raise NotProtected()


def renewInBackground(exchange: IRenewingExchange, identity: Any) -> None:
    """
    Let an exchange renew its verifier. Where that can't be done, nothing happens.

    Args:
        exchange: the client's half of a login that is over.
        identity: a reference to the `IdentityWrapper`.
    """

    async def renew() -> None:
        try:
            await maybeDeferred(exchange.renew, identity)
        except _NOT_THIS_TIME as reason:
            _log.debug("A verifier was not renewed: {reason}", reason=type(reason).__name__)

    Deferred.fromCoroutine(renew()).addErrback(
        lambda failure: _log.failure("Renewing a verifier failed", failure)
    )
