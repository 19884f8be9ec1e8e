"""Vouchers: the chain, the exchange, and whoever attacks them. Without I/O, but for one relay."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth import (
    ICredentials,
    MechanismNotSupported,
    Unauthorized,
    Voucher,
    getObjectAt,
)
from pbauth._limits import Limits, readJSON, writeJSON
from pbauth.errors import ExchangeRefused, ServerNotTrusted
from pbauth.mechanisms import decodeVerifier, voucherchain, withoutPassword
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.voucher import (
    NAME,
    IssuedVoucher,
    IssuedVouchers,
    VoucherProof,
    VoucherServer,
    makeVoucher,
    toBeSigned,
)
from pbauth.mechanisms.voucherchain import (
    MOST_BLOCKS,
    MOST_BYTES,
    Block,
    Chain,
    behindLengths,
    fromLengths,
    verifies,
)
from pbauth.net.certificates import makeCertificate
from pbauth.net.fingerprints import fingerprintOf
from tests.support import voucherverifier
from tests.support.tls import Relay, TLSTestCase
from tests.support.values import MORE
from tests.support.voucherverifier import Refused

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
UNTIL = NOW + timedelta(days=30)
CHALLENGE = bytes(range(100, 132))
HERE = Channel(host="10.1.2.3")

#: RFC 8032, section 7.1: private key, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]

NAMES = st.sampled_from(["game", "chess", "alice", "bob", "move", "resign"])
SETS = st.none() | st.frozensets(NAMES, max_size=3)
NETWORKS = st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/16", "::/0"])
LIMITS = st.builds(
    Limits,
    until=st.none() | st.integers(-5, 5).map(lambda days: NOW + timedelta(days=days)),
    services=SETS,
    perspectives=SETS,
    methods=SETS,
    networks=st.none() | st.frozensets(NETWORKS, max_size=3),
    sessions=st.none() | st.integers(1, 5),
    final=st.booleans(),
)


def issue(**limits: Any) -> Voucher:
    """Make a voucher of alice."""
    limits.setdefault("until", UNTIL)
    return makeVoucher("alice", "friend", Limits(**limits))


def keptOf(*vouchers: Voucher) -> IssuedVouchers:
    """What the server keeps of them."""
    return IssuedVouchers(tuple(IssuedVoucher(each.chain.blocks[0]) for each in vouchers))


def logIn(
    voucher: Voucher,
    kept: IssuedVouchers | None = None,
    name: str = "alice",
    signedName: str = "alice",
    channel: Channel = HERE,
    signedBinding: bytes | None = None,
) -> VoucherProof:
    """Run an exchange."""
    client = voucher.begin(
        NAME, signedName, Channel(secure=signedBinding is not None, channelBinding=signedBinding)
    )
    server = VoucherServer(name, kept or keptOf(voucher), channel, CHALLENGE)
    response = client.respond(server.challenge(client.initial))
    client.checkOutcome(server.outcome(response))
    assert server.proof is not None
    return server.proof


class LimitsTests(SynchronousTestCase):
    """Limits, and what is left of several."""

    @given(LIMITS, LIMITS, NAMES, NAMES, st.sampled_from(["10.1.2.3", "10.9.9.9", "::1", None]))
    def test_intersection(
        self, one: Limits, other: Limits, service: str, perspective: str, host: str | None
    ) -> None:
        """Both allow what is left, and nothing else is lost."""
        both = one.narrowed(other)
        self.assertEqual(
            both.allowsKey(service, perspective),
            one.allowsKey(service, perspective) and other.allowsKey(service, perspective),
        )
        self.assertEqual(both.allowsHost(host), one.allowsHost(host) and other.allowsHost(host))
        for moment in (one.until, other.until):
            self.assertTrue(moment is None or (both.until is not None and both.until <= moment))
        for method in ("move", "resign"):
            allowed = [each.methods is None or method in each.methods for each in (one, other)]
            self.assertEqual(both.methods is None or method in both.methods, all(allowed))
        for most in (one.sessions, other.sessions):
            self.assertTrue(most is None or (both.sessions is not None and both.sessions <= most))
        self.assertEqual(both.final, one.final or other.final)

    @given(LIMITS)
    def test_written(self, limits: Limits) -> None:
        """Written and read again, they are the same."""
        self.assertEqual(Limits.fromPlain(readJSON(writeJSON(limits.toPlain()))), limits)

    def test_malformed(self) -> None:
        """What is not known, or of another type, is refused."""
        for plain in [
            {"colour": ["red"]},
            {"methods": "move"},
            {"methods": [1]},
            {"methods": [""]},
            {"networks": ["10.0.0.1/8"]},
            {"sessions": 0},
            {"sessions": True},
            {"sessions": 2.0},
            {"final": 1},
            {"until": "2026"},
            {"until": -1},
            {"until": 10**12},
            {"until": None},
        ]:
            with self.subTest(plain), self.assertRaises(ValueError):
                Limits.fromPlain(plain)
        for text in (b"[]", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 4000, b"\xff", b"", b"1" * 4096):
            with self.assertRaises(ValueError):
                readJSON(text)


class TextTests(SynchronousTestCase):
    """A voucher as text, and in a file."""

    def test_text(self) -> None:
        """It begins with a prefix that scanners know, and holds all of it."""
        voucher = issue(methods=["move"]).only(sessions=2)
        read = Voucher.fromText(f"  {voucher.text()}\n")
        self.assertEqual(read.text(), voucher.text())
        self.assertRegex(voucher.text(), r"\Apbv1:[A-Za-z0-9_-]+\Z")
        self.assertEqual((read.identityName, read.limits), ("alice", voucher.limits))
        self.assertEqual(logIn(read).limits.methods, {"move"})
        verifyObject(ICredentials, voucher)

    def test_secret(self) -> None:
        """Neither `repr` nor an error shows the key, or what might be one."""
        voucher = issue(methods=["move"])
        shown = repr(voucher)
        for part in (voucher.id, "'alice'", "move", "2026-07-01T00:00:00Z"):
            self.assertIn(part, shown)
        text = voucher.text()
        for damaged in (text[:-3], text.replace("pbv1:", "pbv2:"), text[5:], "", text[:30] + text):
            with self.assertRaises(ValueError) as raised:
                Voucher.fromText(damaged)
            self.assertIn("not a whole voucher", str(raised.exception))
            self.assertIsNone(raised.exception.__context__)
            self.assertNotIn(text[5:60], str(raised.exception))
        with self.assertRaises(TypeError):
            Voucher.fromText(text.encode())  # type: ignore[arg-type]

    def test_anotherKey(self) -> None:
        """The key has to be that of the last block."""
        one, other = issue(), issue()
        mixed = Voucher("alice", one.chain, other._key)
        with self.assertRaises(ValueError):
            Voucher.fromText(mixed.text())

    @given(st.binary(max_size=300) | st.just(issue().text().encode()).map(bytes))
    def test_nonsense(self, data: bytes) -> None:
        """Anything else is a `ValueError`."""
        text = "pbv1:" + voucherchain.toBase64(data)
        with self.assertRaises(ValueError):
            Voucher.fromText(text)

    def test_file(self) -> None:
        """A file is for its owner only."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(issue().text() + "\n")
        os.chmod(path, 0o644)
        with self.assertRaises(ValueError) as raised:
            Voucher.fromFile(path)
        self.assertIn("chmod 600", str(raised.exception))
        os.chmod(path, 0o600)
        self.assertEqual(Voucher.fromFile(path).identityName, "alice")
        with open(path, "wb") as file:
            file.write(b"\xff")
        for wrong in (path, path + "-not-there"):
            with self.assertRaises(ValueError) as raised:
                Voucher.fromFile(wrong)
            self.assertIn(path, str(raised.exception))


class ChainTests(SynchronousTestCase):
    """Chains of blocks."""

    def test_vectors(self) -> None:
        """The reference vectors of Ed25519."""
        for private, public, message, signature in VECTORS:
            key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private))
            raw = bytes.fromhex(public)
            self.assertEqual(key.public_key().public_bytes_raw(), raw)
            self.assertEqual(key.sign(bytes.fromhex(message)).hex(), signature)
            good = bytes.fromhex(signature)
            self.assertTrue(verifies(raw, good, bytes.fromhex(message)))
            self.assertFalse(verifies(raw, good, bytes.fromhex(message) + b"!"))
            self.assertFalse(verifies(raw, good[:-1], bytes.fromhex(message)))
            self.assertFalse(verifies(raw, None, bytes.fromhex(message)))

    def test_most(self) -> None:
        """There are at most 8 blocks, and 4 KiB."""
        voucher = issue()
        for _ in range(MOST_BLOCKS - 1):
            voucher = voucher.only()
        self.assertEqual(len(logIn(voucher).blocks), MOST_BLOCKS)
        with self.assertRaises(ValueError):
            voucher.only()
        many = [f"{'m' * 40}{number}" for number in range(60)]
        self.assertLess(len(issue(methods=many).chain.written()), MOST_BYTES)
        with self.assertRaises(ValueError):
            issue(methods=many).only(methods=many)
        with self.assertRaises(ValueError):
            issue(methods=[*many, *(f"{'n' * 40}{number}" for number in range(60))])

    def test_final(self) -> None:
        """A final one can't be made weaker, whoever signs it."""
        voucher = issue(final=True)
        with self.assertRaises(ValueError):
            voucher.only()
        signed = evolve(voucher, chain=Chain((evolve(voucher.chain.blocks[0], limits=Limits()),)))
        extended = signed.only()
        chain = Chain(
            (voucher.chain.blocks[0], extended.chain.blocks[1]), extended.chain.signatures
        )
        with self.assertRaises(ExchangeRefused):
            logIn(evolve(extended, chain=chain), keptOf(voucher))

    def test_malformed(self) -> None:
        """What is malformed costs no check of a signature."""
        good = issue().only().chain
        first, second, signature = fromLengths(good.written())
        key = voucherchain.toBase64(bytes(range(32)))
        with mock.patch.object(voucherchain, "verifies", side_effect=AssertionError):
            for parts in [
                (),
                (first, second),
                (first, second, signature[:-1]),
                (first, second, signature + b"!"),
                (first, second, signature) * 6,
                (first, first, signature),
                (second, second, signature),
                (b"{}",),
                (b"[]",),
                (first[:-1],),
                (first + b" " * MOST_BYTES,),
                (f'{{"key":"{key}","until":1,"colour":1}}'.encode(),),
                (f'{{"key":"{key}="}}'.encode(),),
                (f'{{"key":"{key}","until":1,"label":"\\u0000"}}'.encode(),),
            ]:
                server = VoucherServer("alice", IssuedVouchers(), HERE, CHALLENGE)
                with self.subTest(parts), self.assertRaises(ExchangeRefused):
                    server.challenge(behindLengths(*parts))
            for initial in (good.written()[:-1], good.written() + b"\0", None, 1, "x"):
                server = VoucherServer("alice", IssuedVouchers(), HERE, CHALLENGE)
                with self.assertRaises(ExchangeRefused):
                    server.challenge(initial)  # type: ignore[arg-type]

    def test_unknownCostsNothing(self) -> None:
        """Nor does a chain that begins with a block which nobody has issued."""
        with mock.patch.object(voucherchain, "verifies", side_effect=AssertionError):
            with self.assertRaises(ExchangeRefused) as raised:
                logIn(issue(), keptOf(issue()))
        self.assertIn("revoked", raised.exception.reason)


class ExchangeTests(SynchronousTestCase):
    """The exchange, in which nobody shows a key."""

    def test_orders(self) -> None:
        """Each message once, and in its turn."""
        voucher = issue()
        client = voucher.begin(NAME, "alice", HERE)
        server = VoucherServer("alice", keptOf(voucher), HERE, CHALLENGE)
        with self.assertRaises(ExchangeRefused):
            server.outcome(bytes(64))
        server = VoucherServer("alice", keptOf(voucher), HERE, CHALLENGE)
        response = client.respond(server.challenge(client.initial))
        with self.assertRaises(ExchangeRefused):
            server.challenge(client.initial)
        self.assertEqual(server.outcome(response), b"")
        with self.assertRaises(ExchangeRefused):
            server.outcome(response)

    def test_boundToItsLogin(self) -> None:
        """A signature is for one name, challenge and connection."""
        voucher = issue()
        tls = Channel(host="10.1.2.3", secure=True, channelBinding=b"this one")
        logIn(voucher, channel=tls, signedBinding=b"this one")
        for more in [
            {"signedName": "bob"},
            {"name": "bob"},
            {"signedBinding": b"another"},
            {"channel": tls, "signedBinding": b"another"},
            {"channel": tls},
        ]:
            with self.subTest(more), self.assertRaises(ExchangeRefused):
                logIn(voucher, **more)  # type: ignore[arg-type]
        client = voucher.begin(NAME, "alice", HERE)
        server = VoucherServer("alice", keptOf(voucher), HERE, CHALLENGE)
        server.challenge(client.initial)
        with self.assertRaises(ExchangeRefused):
            server.outcome(client.respond(bytes(32)))

    def test_signedText(self) -> None:
        """What is signed can't be read in two ways."""
        chain = issue().chain
        texts = {
            toBeSigned(name, chain, challenge, binding)
            for name, challenge, binding in [
                ("alice", b"c" * 32, b"ab"),
                ("alic", b"e" + b"c" * 31, b"ab"),
                ("alice", b"c" * 32, b"a"),
                ("alice", b"c" * 32, None),
            ]
        }
        self.assertEqual(len(texts), 4)

    def test_networks(self) -> None:
        """It is of no use from elsewhere; a client without an address is elsewhere."""
        voucher = issue(networks=["10.0.0.0/8"])
        logIn(voucher)
        for host in ("192.168.0.1", "::1", None, "nonsense"):
            with self.assertRaises(ExchangeRefused):
                logIn(voucher, channel=Channel(host=host))

    def test_client(self) -> None:
        """The client notices what is not of this mechanism."""
        voucher = issue()
        with self.assertRaises(MechanismNotSupported):
            voucher.begin("ED25519", "alice", HERE)
        client = voucher.begin(NAME, "alice", HERE)
        with self.assertRaises(ServerNotTrusted):
            client.respond(bytes(31))
        with self.assertRaises(ServerNotTrusted):
            client.checkOutcome(b"!")

    def test_nothingIsKept(self) -> None:
        """The server keeps public keys, and can't log in with them."""
        voucher, survivor = issue(), issue(sessions=3)
        kept = IssuedVouchers(
            (
                IssuedVoucher(voucher.chain.blocks[0]),
                IssuedVoucher(survivor.chain.blocks[0], survivesPasswordChange=True),
            )
        )
        text = kept.encode()
        self.assertEqual(decodeVerifier(text), kept)
        self.assertNotIn(voucherchain.toBase64(voucher._key.private_bytes_raw()), text)
        self.assertEqual(withoutPassword({NAME: kept}), {NAME: kept.afterPasswordChange()})
        self.assertEqual(withoutPassword({NAME: keptOf(voucher)}), {})
        for damaged in (text + "\nx", text.replace("survives", "lives"), "VOUCHER$\n"):
            with self.assertRaises(ValueError):
                decodeVerifier(damaged)


class _Attack:
    """
    Mallory holds a voucher that others have narrowed before, with its key; and has seen the public
    parts of all others, and logins with them.
    """

    def __init__(self) -> None:
        self.root = issue(methods=["move", "resign"])
        self.held = self.root.only(methods=["move"], sessions=3, label="mallory")
        self.sibling = self.root.only(services=["game"])
        self.bob = makeVoucher("bob", "other", Limits(until=UNTIL))
        self.final = issue(final=True)
        self.kept = {
            "alice": keptOf(self.root, self.final),
            "bob": keptOf(self.bob),
        }
        self.keys = [self.held._key, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()]
        seen = [self.root, self.held, self.sibling, self.bob, self.final, self.sibling.only()]
        self.written = [part for each in seen for part in fromLengths(each.chain.written())]
        # Logins elsewhere: to another server, over another connection.
        self.responses = [
            each.begin(NAME, each.identityName, HERE).respond(other)
            for each in seen
            for other in (bytes(32), CHALLENGE[::-1])
        ]
        for number, limits in enumerate(
            [Limits(), Limits(until=UNTIL), Limits(methods=["resign"])]
        ):
            key = self.keys[number % len(self.keys)].public_key().public_bytes_raw()
            self.written.append(Block.make(key, "forged", limits).written)
        for key in self.keys:
            for block in self.written[-3:]:
                for each in (self.root, self.held, self.sibling, self.final):
                    signed = behindLengths(
                        b"pbauth voucher block, version 1", each.chain.digest(), block
                    )
                    self.written.append(key.sign(signed))


ATTACK = _Attack()


class AttackTests(SynchronousTestCase):
    """Whoever drops, moves, repeats, widens, cuts, splices, mixes, replays and extends blocks."""

    @settings(max_examples=300 * MORE)
    @given(st.data())
    def test_neverMore(self, data: st.DataObject) -> None:
        """No login gives Mallory more than the voucher allows, or another name."""
        draw: Callable[[Any], Any] = data.draw
        start = fromLengths(
            draw(st.sampled_from([ATTACK.root, ATTACK.held, ATTACK.bob])).chain.written()
        )
        parts = [*start[: draw(st.integers(0, 3))]]
        parts += draw(st.lists(st.sampled_from(ATTACK.written), max_size=4))
        if draw(st.booleans()) and parts:
            place = draw(st.integers(0, len(parts) - 1))
            mutated = bytearray(parts[place])
            if mutated:
                mutated[draw(st.integers(0, len(mutated) - 1))] ^= draw(st.integers(1, 255))
            parts[place] = bytes(mutated)
        initial = behindLengths(*parts)
        name = draw(st.sampled_from(["alice", "bob"]))
        server = VoucherServer(name, ATTACK.kept[name], HERE, CHALLENGE)
        try:
            server.challenge(initial)
            assert server.proof is not None
            chain = server.proof.chain
            key = draw(st.sampled_from(ATTACK.keys))
            response = draw(
                st.just(key.sign(toBeSigned(name, chain, CHALLENGE, None)))
                | st.sampled_from(ATTACK.responses)
            )
            server.outcome(response)
        except ExchangeRefused:
            return
        self.assertEqual(name, "alice")
        held = ATTACK.held.chain.blocks
        self.assertEqual(server.proof.blocks[: len(held)], held)

    def test_rigWorks(self) -> None:
        """Mallory can use, and narrow, what is Mallory's; so the attacks above are not idle."""
        self.assertEqual(logIn(ATTACK.held, ATTACK.kept["alice"]).limits.methods, {"move"})
        weaker = ATTACK.held.only(methods=["move", "resign"])
        self.assertEqual(logIn(weaker, ATTACK.kept["alice"]).limits.methods, {"move"})
        with self.assertRaises(ExchangeRefused):
            logIn(evolve(ATTACK.held, chain=ATTACK.root.chain), ATTACK.kept["alice"])

    def test_sameChainTwoWays(self) -> None:
        """Another writing of the first block is not the one that was issued."""
        block = ATTACK.root.chain.blocks[0]
        other = Block.read(block.written.replace(b":", b": ", 1))
        self.assertEqual(other.limits, block.limits)
        with self.assertRaises(ExchangeRefused):
            logIn(evolve(ATTACK.root, chain=Chain((other,))), ATTACK.kept["alice"])


class SecondVerifierTests(SynchronousTestCase):
    """Another verifier, written from the page on the protocol."""

    def test_agrees(self) -> None:
        """
        It agrees on random chains, good and bad: 500, or as many times that as
        ``PBAUTH_EXAMPLES`` says.
        """
        choose = random.Random(20)
        accepted = 0
        for number in range(500 * MORE):
            with self.subTest(number):
                accepted += self.compare(choose)
        self.assertGreater(accepted, 50)
        self.assertLess(accepted, 450 * MORE)

    def compare(self, choose: random.Random) -> bool:
        """Make a chain, damage it or not, and let both look at it."""

        def some(*names: str) -> list[str] | None:
            return (
                choose.sample(names, choose.randint(0, len(names)))
                if choose.random() < 0.3
                else None
            )

        def limits() -> dict[str, Any]:
            return {
                "until": choose.choice([None, NOW, NOW + timedelta(seconds=1), UNTIL]),
                "services": some("game", "chess"),
                "perspectives": some("alice", "bob"),
                "methods": some("move", "resign"),
                "networks": choose.choice(
                    [None, None, ["10.0.0.0/8", "::/0"], ["10.1.2.0/30"], []]
                ),
                "sessions": choose.choice([None, 1, 7]),
            }

        voucher = issue(**{**limits(), "until": choose.choice([UNTIL, UNTIL, NOW])})
        kept = keptOf(voucher)
        for _ in range(choose.choice([0, 0, 1, 2, 3, 7])):
            voucher = voucher.only(**limits(), label=choose.choice(["", "a", "é"]))
        if choose.random() < 0.2:
            voucher = voucher.only(final=True) if len(voucher.chain.blocks) < 8 else voucher
        parts = fromLengths(voucher.chain.written())
        kind = choose.random()
        if kind < 0.1 and len(parts) > 2:
            del parts[-2:]
        elif kind < 0.2:
            parts = [*parts, *parts[-2:]]
        elif kind < 0.3:
            place = choose.randrange(len(parts))
            damaged = bytearray(parts[place])
            damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
            parts[place] = bytes(damaged)
        initial = behindLengths(*parts)
        if choose.random() < 0.05:
            initial = initial[: choose.randrange(len(initial))]
        binding = choose.choice([None, b"binding"])
        server = VoucherServer(
            "alice", kept, Channel(host="10.1.2.3", channelBinding=binding), CHALLENGE
        )
        digest = voucherverifier.hashlib.sha256(initial).digest()
        response = voucher._key.sign(
            voucherverifier.joined(
                b"pbauth login with VOUCHER, version 1",
                b"alice",
                digest,
                CHALLENGE,
                choose.choice([binding, binding, binding, b"other"]) or b"",
            )
        )
        try:
            server.challenge(initial)
            server.outcome(response)
            assert server.proof is not None
            until = server.proof.limits.until
            ours = until is not None and NOW < until
        except ExchangeRefused:
            ours = False
        issued = [each.block.written for each in kept.vouchers]
        try:
            blocks = voucherverifier.verify(
                issued,
                "alice",
                initial,
                CHALLENGE,
                binding,
                response,
                "10.1.2.3",
                int(NOW.timestamp()),
            )
        except Refused:
            self.assertFalse(ours)
            return False
        self.assertTrue(ours)
        assert server.proof is not None
        left = server.proof.limits
        for service in ("game", "chess"):
            for perspective in ("alice", "bob"):
                for method in ("move", "resign"):
                    self.assertEqual(
                        left.allowsKey(service, perspective)
                        and (left.methods is None or method in left.methods),
                        voucherverifier.allows(blocks, service, perspective, method),
                    )
        return True


class RelayTests(TLSTestCase):
    """Over TLS."""

    async def test_voucherIsRelayed(self) -> None:
        """Passed on by a man in the middle it is refused: that is another connection."""
        port = self.serve()
        now = datetime.now(timezone.utc)
        voucher = await self.authorizer.issueVoucher("alice", "friend", now + timedelta(hours=1))
        await self.works(await self.attempt(port, voucher, trust=self.pin))
        root = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        self.addCleanup(self.hangUp, root)
        relay = Relay(root)
        pem = makeCertificate()
        pin = fingerprintOf(x509.load_pem_x509_certificate(pem))
        relayPort = self.listen(pb.PBServerFactory(relay), pem)
        with self.assertRaises(Unauthorized):
            await self.attempt(relayPort, voucher, trust=pin)
        self.assertFalse(relay.won)
