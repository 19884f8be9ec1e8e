"""
The chain of keys that a voucher is, without I/O: blocks, how they are written, and what they allow.

A block holds a public key, a label, and limits.  The first one is the issuer's, and is known to
the server as the bytes that it is.  Each further one is signed by the key of the block before it,
over everything that stands before and itself: so a block can't be taken out, moved, or put behind
another chain.  What a chain allows is what all of its blocks allow.

Written, a chain is a list of strings, each behind its length in four bytes: the first block; then,
for each further block, the block and its signature.  A block is a JSON object; what is signed are
its bytes, which nobody writes again.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import reduce

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pbauth._limits import Limits, readJSON, writeJSON
from pbauth.mechanisms.ed25519 import behindLengths, verifies
from pbauth.names import checkName

#: The most blocks of a chain, and the most bytes of a written one.
MOST_BLOCKS = 8
MOST_BYTES = 4096

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_BLOCK_LABEL = b"pbauth voucher block, version 1"


def fromLengths(data: bytes) -> list[bytes]:
    """
    Read what `behindLengths` wrote.

    Raises:
        ValueError: it is not of that form, to the byte.
    """
    parts = []
    place = 0
    while place < len(data):
        start = place + 4
        if start > len(data):
            raise ValueError("A length is cut off.")
        place = start + int.from_bytes(data[place:start], "big")
        if place > len(data):
            raise ValueError("A string is cut off.")
        parts.append(data[start:place])
    return parts


def toBase64(data: bytes) -> str:
    """Write bytes in base64url without padding (RFC 4648, section 5)."""
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")


def fromBase64(text: str) -> bytes:
    """
    Read what `toBase64` wrote.

    Raises:
        ValueError: it is not of that form, to the character.
    """
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if toBase64(data) != text:
        raise ValueError("This is not base64.")
    return data


@frozen
class Block:
    """
    One block.

    Attributes:
        written: its bytes.
        key: the public key, 32 bytes.
        label: what it is called, in the audit log for instance; may be empty.
        limits: what it allows.
    """

    written: bytes
    key: bytes = field(eq=False)
    label: str = field(eq=False)
    limits: Limits = field(eq=False)

    @classmethod
    def make(cls, key: bytes, label: str, limits: Limits) -> Block:
        """
        Write a block.

        Raises:
            ValueError: it would be too long.
        """
        plain = {**limits.toPlain(), "key": toBase64(key)}
        if label:
            plain["label"] = label
        written = writeJSON(plain)
        if len(written) > MOST_BYTES - 4:
            raise ValueError("These limits take too much room.")
        return cls.read(written)

    @classmethod
    def read(cls, written: bytes) -> Block:
        """
        Read a block.

        Raises:
            ValueError: it is none, or has a limit that this version does not know.
        """
        plain = readJSON(written)
        key, label = plain.pop("key", None), plain.pop("label", "")
        if type(key) is not str or type(label) is not str:
            raise ValueError("A block has a key.")
        if label:
            checkName(label, "label of a voucher")
        raw = fromBase64(key)
        if len(raw) != KEY_BYTES:
            raise ValueError(f"A key has {KEY_BYTES} bytes.")
        return cls(written, raw, label, Limits.fromPlain(plain))

    @property
    def id(self) -> str:
        """Return the id, which is made from the key."""
        return hashlib.sha256(self.key).hexdigest()[:16]


@frozen
class Chain:
    """
    A chain. Whether its signatures are right is asked by `isSigned`.

    Attributes:
        blocks: one at least; the first one is the issuer's.
        signatures: of all blocks but the first.
    """

    blocks: tuple[Block, ...]
    signatures: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, written: bytes) -> Chain:
        """
        Read what `written` gives; signatures are not checked.

        Raises:
            ValueError: it is not a chain, it is too long, or a block stands behind a final one.
        """
        if not isinstance(written, bytes) or len(written) > MOST_BYTES:
            raise ValueError(f"A chain has at most {MOST_BYTES} bytes.")
        parts = fromLengths(written)
        if len(parts) % 2 == 0 or len(parts) > 2 * MOST_BLOCKS - 1:
            raise ValueError(
                f"A chain has 1 to {MOST_BLOCKS} blocks, all but one with a signature."
            )
        signatures = tuple(parts[2::2])
        if any(len(each) != SIGNATURE_BYTES for each in signatures):
            raise ValueError(f"A signature has {SIGNATURE_BYTES} bytes.")
        blocks = tuple(Block.read(each) for each in (parts[0], *parts[1::2]))
        chain = cls(blocks, signatures)
        if blocks[0].limits.until is None:
            raise ValueError("The first block of a chain says until when it is good.")
        if any(each.limits.final for each in blocks[:-1]):
            raise ValueError("Nothing stands behind a block that is final.")
        if len({each.key for each in blocks}) < len(blocks):
            raise ValueError("Each block has a key of its own.")
        return chain

    def written(self) -> bytes:
        """Return the chain as bytes."""
        rest: list[bytes] = []
        for block, signature in zip(self.blocks[1:], self.signatures, strict=True):
            rest += [block.written, signature]
        return behindLengths(self.blocks[0].written, *rest)

    def digest(self) -> bytes:
        """Return the SHA-256 hash of the written chain."""
        return hashlib.sha256(self.written()).digest()

    @property
    def limits(self) -> Limits:
        """Return what all blocks allow."""
        return reduce(Limits.narrowed, (each.limits for each in self.blocks))

    def extended(self, key: Ed25519PrivateKey, block: Block) -> Chain:
        """
        Return the chain with one more block.

        Args:
            key: the private key of the last block so far.
            block: the new one.

        Raises:
            ValueError: there may be no further block.
        """
        if self.blocks[-1].limits.final:
            raise ValueError("This voucher is final: it can't be narrowed further.")
        if len(self.blocks) >= MOST_BLOCKS:
            raise ValueError(f"This voucher has {MOST_BLOCKS} blocks, and can't have more.")
        signature = key.sign(_toBeSigned(self, block))
        chain = Chain((*self.blocks, block), (*self.signatures, signature))
        if len(chain.written()) > MOST_BYTES:
            raise ValueError(f"The voucher would take more than {MOST_BYTES} bytes.")
        return chain

    def isSigned(self) -> bool:
        """Return whether each block is signed by the key of the one before it."""
        before = Chain(self.blocks[:1])
        for block, signature in zip(self.blocks[1:], self.signatures, strict=True):
            if not verifies(before.blocks[-1].key, signature, _toBeSigned(before, block)):
                return False
            before = Chain((*before.blocks, block), (*before.signatures, signature))
        return True


def _toBeSigned(before: Chain, block: Block) -> bytes:
    return behindLengths(_BLOCK_LABEL, before.digest(), block.written)
