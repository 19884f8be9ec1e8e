"""Private keys for tests: always the same, and no secrets."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pbauth import (
    PublicKey,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = PublicKey(KEY.public_key().public_bytes_raw(), "laptop")
