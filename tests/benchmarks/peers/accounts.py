"""The accounts that clients log in to, and what they prove themselves with."""

from __future__ import annotations

#: The one service there is.
SERVICE = "benchmark"

#: Of everybody. All accounts of one server have one salt as well, so that a client derives its key
#: once for all of them.
PASSWORD = "correct horse battery staple"

#: How many iterations a slow derivation takes: pbauth's default.
SLOW = 600_000


def nameOf(number: int) -> str:
    """The name of an account."""
    return f"user{number:07d}"


def spread(number: int, accounts: int) -> str:
    """The name of an account, so that logins with rising numbers go all over the store."""
    return nameOf(number * 7919 % accounts)
