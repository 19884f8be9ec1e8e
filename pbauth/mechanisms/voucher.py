"""
VOUCHER: a login with a part of what somebody may do, without I/O.

A voucher is a chain of keys with limits (`pbauth.mechanisms.voucherchain`) and the private key of
its last block.  The client sends the chain, the server challenges it, and the client signs with the
last key; what is signed (`toBeSigned`) names the account, the chain, the challenge and the TLS
connection.  So a voucher is never shown, and a login with it can be neither replayed nor passed on.
The server keeps the first block of each voucher (`IssuedVoucher`), and no private key.

The server is not proved by this exchange; that is for TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cached_property, lru_cache

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from zope.interface import implementer

from pbauth._files import AnyPath, readPrivate
from pbauth._limits import Limits
from pbauth.errors import (
    ExchangeRefused,
    InvalidName,
    MechanismNotSupported,
)
from pbauth.interfaces import ICredentials, IExchange, IMechanism
from pbauth.mechanisms import ed25519
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.ed25519 import CHALLENGE_BYTES, SigningClient, behindLengths, verifies
from pbauth.mechanisms.terms import Claimant, Terms
from pbauth.mechanisms.voucherchain import (
    Block,
    Chain,
    fromBase64,
    fromLengths,
    toBase64,
)
from pbauth.names import checkName

NAME = "VOUCHER"

#: What the text of each voucher begins with, so that scanners for secrets can find it.
PREFIX = "pbv1:"

#: The longest time for which a voucher is issued, unless a server says something else.
MOST_LIFE = timedelta(days=90)

_LABEL = b"pbauth login with VOUCHER, version 1"

# The chain, the key and the name, in base64.
_MOST_TEXT = 8192


def toBeSigned(name: str, chain: Chain, challenge: bytes, channelBinding: bytes | None) -> bytes:
    """
    Return the text that a login signs.

    Args:
        name: the claimed identity's.
        chain: that the client has sent.
        challenge: the server's, 32 bytes.
        channelBinding: of the TLS connection; `None` without TLS.

    Returns:
        Label, name, hash of the chain, challenge and binding, each behind its length in four bytes.
    """
    return behindLengths(
        _LABEL, name.encode("utf-8"), chain.digest(), challenge, channelBinding or b""
    )


# The client's half.


@implementer(ICredentials)
@frozen
class Voucher:
    """
    A voucher, for `connect` and its like in place of a password.

    Its `repr` shows id and limits, and never the key.  Whoever has the text can use it.

    Attributes:
        identityName: the name of the identity whose rights it lends.
        chain: the blocks of it.
    """

    mechanisms = (NAME,)
    clientCertificate = None

    identityName: str
    chain: Chain
    _key: Ed25519PrivateKey = field(repr=False, eq=False)

    def __repr__(self) -> str:
        limits = ", ".join(f"{name}={value!r}" for name, value in self.limits.describe().items())
        return f"<Voucher {self.id} of {self.identityName!r}: {limits}>"

    @classmethod
    def fromText(cls, text: str) -> Voucher:
        """
        Read a voucher.

        Args:
            text: ``pbv1:...``; space around it does not count.

        Raises:
            TypeError: it is not a `str`.
            ValueError: it is not a voucher, or a damaged one; the message shows nothing of it.
        """
        if not isinstance(text, str):
            raise TypeError(f"A voucher is a str, not {type(text).__name__}.")
        try:
            return cls._read(text.strip())
        except (ValueError, TypeError):
            pass
        # Outside, so that no chain shows the text.
        raise ValueError(f"This is not a whole voucher. One begins with {PREFIX}")

    @classmethod
    def _read(cls, text: str) -> Voucher:
        if not text.startswith(PREFIX) or len(text) > _MOST_TEXT:
            raise ValueError("no voucher")
        private, name, written = fromLengths(fromBase64(text.removeprefix(PREFIX)))
        key = Ed25519PrivateKey.from_private_bytes(private)
        chain = Chain.read(written)
        if chain.blocks[-1].key != key.public_key().public_bytes_raw():
            raise ValueError("another key")
        return cls(checkName(name.decode("utf-8"), "name of an identity"), chain, key)

    @classmethod
    def fromFile(cls, path: AnyPath) -> Voucher:
        """
        Read a voucher from a file that is for its owner only.

        Args:
            path: of the file.

        Raises:
            ValueError: it can't be read, others can read it, or it holds no voucher.
        """
        data = readPrivate(path, "voucher", 2 * _MOST_TEXT)
        try:
            return cls.fromText(data.decode("ascii"))
        except ValueError:
            pass
        raise ValueError(f"{path}: this is not a whole voucher. One begins with {PREFIX}")

    def text(self) -> str:
        """Return the voucher as text, ``pbv1:...``: a secret."""
        parts = (
            self._key.private_bytes_raw(),
            self.identityName.encode("utf-8"),
            self.chain.written(),
        )
        return PREFIX + toBase64(behindLengths(*parts))

    @property
    def id(self) -> str:
        """Return the id under which the issuer finds it, and can revoke it."""
        return self.chain.blocks[0].id

    @property
    def label(self) -> str:
        """Return what the issuer calls it."""
        return self.chain.blocks[0].label

    @property
    def limits(self) -> Limits:
        """Return what is left of the issuer's rights."""
        return self.chain.limits

    def only(
        self,
        until: datetime | None = None,
        services: Iterable[str] | None = None,
        perspectives: Iterable[str] | None = None,
        methods: Iterable[str] | None = None,
        networks: Iterable[str] | None = None,
        sessions: int | None = None,
        final: bool = False,
        *,
        label: str = "",
    ) -> Voucher:
        """
        Return a weaker voucher, with a key of its own. No server is asked.

        Args:
            until: from when on it is void, an aware `datetime`; each of these adds to the limits
                that there are already, and `None` adds none.
            services: the names of the services that it is good for.
            perspectives: the names of their perspectives.
            methods: the names of the methods that may be called.
            networks: where the client may be: ``"10.0.0.0/8"``.
            sessions: how many sessions there may be at once.
            final: nobody may make a weaker one of it.
            label: what the audit log calls it.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: a limit makes no sense, or this voucher can't be narrowed further: it is
                final, has 8 blocks, or would take more than 4 KiB.
            InvalidName: a name breaks the rule of `pbauth.names`.
        """
        limits = Limits(
            until=until,
            services=services,
            perspectives=perspectives,
            methods=methods,
            networks=networks,
            sessions=sessions,
            final=final,
        )
        if label:
            checkName(label, "label of a voucher")
        key = Ed25519PrivateKey.generate()
        block = Block.make(key.public_key().public_bytes_raw(), label, limits)
        return Voucher(self.identityName, self.chain.extended(self._key, block), key)

    def begin(self, mechanism: str, name: str, connection: Channel) -> VoucherClient:
        """
        Begin the client's half of one login.

        Raises:
            MechanismNotSupported: `mechanism` is not `VOUCHER`.
        """
        if mechanism != NAME:
            raise MechanismNotSupported([mechanism])
        return VoucherClient(name, self.chain, self._key, connection.channelBinding)


def makeVoucher(identityName: str, label: str, limits: Limits) -> Voucher:
    """
    Make a voucher, which is good once a server knows its first block.

    Args:
        identityName: whose rights it lends.
        label: what its issuer calls it.
        limits: with `until`.

    Raises:
        ValueError: there is no `until`, or the limits take too much room.
        InvalidName: a name breaks the rule of `pbauth.names`.
    """
    checkName(identityName, "name of an identity")
    checkName(label, "label of a voucher")
    if limits.until is None:
        raise ValueError("A voucher needs until: the moment from which on it is void.")
    key = Ed25519PrivateKey.generate()
    block = Block.make(key.public_key().public_bytes_raw(), label, limits)
    return Voucher(identityName, Chain.read(Chain((block,)).written()), key)


class VoucherClient(SigningClient):
    """
    The client's half of one login.

    Args:
        name: the identity's.
        chain: of the voucher.
        key: the private key of its last block.
        channelBinding: of the TLS connection; `None` without TLS.
    """

    def __init__(
        self, name: str, chain: Chain, key: Ed25519PrivateKey, channelBinding: bytes | None
    ) -> None:
        super().__init__(
            key,
            chain.written(),
            lambda challenge: toBeSigned(name, chain, challenge, channelBinding),
            channelBinding is not None,
        )


# The server's half.


@frozen
class IssuedVoucher:
    """
    What a server keeps of a voucher: its first block, and so no private key.

    Attributes:
        block: the block.
        survivesPasswordChange: it stays when the password of its issuer changes.
    """

    block: Block
    survivesPasswordChange: bool = False

    @property
    def id(self) -> str:
        """Return the id."""
        return self.block.id

    @property
    def label(self) -> str:
        """Return what the issuer calls it."""
        return self.block.label

    @property
    def limits(self) -> Limits:
        """Return what it allows."""
        return self.block.limits

    @property
    def until(self) -> datetime:
        """Return from when on it is void."""
        until = self.block.limits.until
        assert until is not None  # noqa: S101 - `read` has seen to it
        return until

    @classmethod
    def read(cls, written: bytes, survivesPasswordChange: bool = False) -> IssuedVoucher:
        """
        Read the first block of a voucher, as its issuer sends it.

        Args:
            written: the block.
            survivesPasswordChange: as the attribute.

        Raises:
            ValueError: it is none, has no label, or does not say until when it is good.
        """
        block = Block.read(written)
        if not block.label:
            raise ValueError("A voucher that is issued has a label.")
        Chain.read(Chain((block,)).written())
        return cls(block, survivesPasswordChange)

    def line(self) -> str:
        """Return it as a line of text."""
        kept = "survives " if self.survivesPasswordChange else ""
        return kept + toBase64(self.block.written)

    @classmethod
    def fromLine(cls, line: str) -> IssuedVoucher:
        """
        Read what `line` wrote.

        Raises:
            ValueError: it is not of that form.
        """
        kept, _, encoded = line.rpartition(" ")
        if kept not in ("", "survives"):
            raise ValueError("This is not a voucher.")
        return cls.read(fromBase64(encoded), bool(kept))


@frozen
class IssuedVouchers:
    """
    The vouchers that an identity has issued: the verifier of this mechanism.

    Attributes:
        vouchers: in the order in which they were issued.
    """

    vouchers: tuple[IssuedVoucher, ...] = ()
    _known: dict[bytes, IssuedVoucher] = field(init=False, eq=False, repr=False)

    @_known.default
    def _index(self) -> dict[bytes, IssuedVoucher]:
        return {each.block.written: each for each in self.vouchers}

    def find(self, chain: Chain) -> IssuedVoucher | None:
        """Return the voucher that a chain begins with, to the byte; `None`: it is none of these."""
        return self._known.get(chain.blocks[0].written)

    def covers(self, proof: object) -> bool:
        """Return whether a login that was proved by a voucher is still valid."""
        return isinstance(proof, VoucherProof) and self.find(proof.chain) is not None

    def expiryOf(self, proof: object) -> datetime | None:
        """Return when a login that was proved by one of these ends; `None`: it was by none."""
        if not isinstance(proof, VoucherProof) or not self.covers(proof):
            return None
        return proof.limits.until

    def encode(self) -> str:
        """Return the value as text: a line for each voucher."""
        return "\n".join([f"{NAME}$", *(each.line() for each in self.vouchers)])

    # As for public keys: a store reads an account each time that somebody claims its name.
    @classmethod
    @lru_cache(maxsize=64)
    def decode(cls, text: str) -> IssuedVouchers:
        """
        Read what `encode` wrote.

        Raises:
            ValueError: it is not of that form.
        """
        head, *lines = text.split("\n")
        if head != f"{NAME}$":
            raise ValueError("These are not vouchers.")
        return cls(tuple(map(IssuedVoucher.fromLine, lines)))

    def afterPasswordChange(self) -> IssuedVouchers:
        """Return those that stay when the password changes."""
        return IssuedVouchers(tuple(each for each in self.vouchers if each.survivesPasswordChange))


@frozen(slots=False)
class VoucherProof:
    """
    What a login with a voucher rests on; `pbauth.Session.voucher`.

    Attributes:
        chain: the whole chain.
    """

    chain: Chain

    @property
    def id(self) -> str:
        """Return the id of the voucher that was issued."""
        return self.chain.blocks[0].id

    @property
    def label(self) -> str:
        """Return what the issuer calls it."""
        return self.chain.blocks[0].label

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks, each with a `label`, an `id` and `limits`."""
        return self.chain.blocks

    @property
    def path(self) -> str:
        """Return the labels of the blocks, or their ids, for the audit log."""
        return "/".join(each.label or each.id for each in self.blocks)

    @cached_property
    def limits(self) -> Limits:
        """Return what all blocks allow."""
        return self.chain.limits


@implementer(IExchange)
class VoucherServer:
    """
    The server's half of one login.

    Args:
        name: the claimed identity's.
        issued: its vouchers; none, for one that does not exist.
        channel: that the login runs on.
        challenge: 32 random bytes, fresh for each login.
    """

    def __init__(
        self, name: str, issued: IssuedVouchers, channel: Channel, challenge: bytes
    ) -> None:
        self._name = name
        self._issued = issued
        self._channel = channel
        self._challenge: bytes | None = challenge
        self.proof: VoucherProof | None = None

    @property
    def bound(self) -> bool:
        """Return whether what is signed names the TLS connection."""
        return self._channel.channelBinding is not None

    def challenge(self, initial: bytes) -> bytes:
        """
        Take the chain, and challenge it. No signature is looked at yet.

        Raises:
            ExchangeRefused: it is not a chain.
        """
        if not self._challenge or self.proof is not None:
            raise ExchangeRefused("a chain out of order")
        try:
            self.proof = VoucherProof(Chain.read(initial))
        except (ValueError, TypeError, InvalidName) as mistake:
            raise ExchangeRefused(f"this is not a voucher: {mistake}") from None
        return self._challenge

    def outcome(self, response: bytes) -> bytes:
        """
        Check the signatures, and what they allow, but for the time.

        Raises:
            ExchangeRefused: out of order, the voucher is not one of the identity's, it is not good
                for where the client is, or a signature is wrong.
        """
        challenge, self._challenge = self._challenge, None
        if self.proof is None or challenge is None:
            raise ExchangeRefused("a signature out of order")
        chain = self.proof.chain
        if self._issued.find(chain) is None:
            raise ExchangeRefused("the voucher is not one of this identity, or was revoked")
        if not self.proof.limits.allowsHost(self._channel.host):
            raise ExchangeRefused("the voucher is not good for this network")
        signed = toBeSigned(self._name, chain, challenge, self._channel.channelBinding)
        if not verifies(chain.blocks[-1].key, response, signed):
            raise ExchangeRefused("the signature is not one of this voucher for this login")
        if not chain.isSigned():
            raise ExchangeRefused("a block of the voucher is not signed by the one before")
        return b""


@implementer(IMechanism)
@frozen
class VoucherMechanism:
    """The mechanism `VOUCHER`, as a server offers it."""

    name = verifierName = NAME
    # A voucher is a key: whoever wants no keys wants none of these.
    listedAs = frozenset({NAME, ed25519.NAME})
    hasSwitch = False
    usesKeys = True
    provesNothing = False
    asksIdentity = False

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """Return whether the server takes vouchers: no secret is sent, on any connection."""
        return terms.vouchers

    def identityFor(self, name: str, terms: Terms) -> str:
        """Return the claimed name."""
        return name

    def decodeVerifier(self, text: str) -> IssuedVouchers:
        """Read the vouchers of an identity."""
        return IssuedVouchers.decode(text)

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> VoucherServer:
        """Begin the server's half of one login."""
        return VoucherServer(
            claimant.name, claimant.verifier, channel, randomBytes(CHALLENGE_BYTES)
        )
