"""Records of identities, and what may stand in them."""

from __future__ import annotations

from pbauth.accounts.records import Record
from pbauth.mechanisms.scram import ScramVerifier

#: An administrator in a hurry types it as a name.
SQL = "Robert'); DROP TABLE identities;--"
#: The verifier of the password, `secret`.
SCRAM = ScramVerifier.fromPassword("secret", b"sixteen bytes...", 4096).encode()


def records(*numbers: int) -> list[Record]:
    """Return some, with a verifier and a key each."""
    return [
        Record(
            f"user{number:04}",
            verifiers=frozenset({("SCRAM-SHA-256", SCRAM)}),
            keys=frozenset({("echo", f"user{number:04}")}),
        )
        for number in numbers
    ]
