"""The messages of the administration: what one half writes the other reads."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbauth import CertificateKey, ProtocolViolation, PublicKey, ScramVerifier
from pbauth.accounts.records import Record
from pbauth.admin import protocol

VERIFIER = ScramVerifier.fromPassword("x", b"0123456789abcdef", 4096).encode()
NAMES = st.text("abcäß日-. ", min_size=1, max_size=12).filter(lambda text: text.strip())
PAIRS = st.frozensets(st.tuples(NAMES, NAMES), max_size=4)
RECORDS = st.builds(
    Record,
    NAMES,
    st.booleans(),
    st.sampled_from([frozenset[Any](), frozenset({("SCRAM-SHA-256", VERIFIER)})]),
    PAIRS,
)
KEYS = st.binary(min_size=32, max_size=32).map(PublicKey) | st.just(
    CertificateKey("SHA256:" + "A" * 43 + "=", "card")
)
#: Whatever may come over the wire in the place of anything.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.text(max_size=8)
    | st.sampled_from([VERIFIER, "ED25519", "EXTERNAL", "PB-MD5$AA==", "SCRAM-SHA-256$"]),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=12,
)
DECODERS: list[Any] = [
    protocol.decodeName,
    protocol.decodeIdentityName,
    protocol.decodeCursor,
    protocol.decodeFlag,
    protocol.decodeCount,
    protocol.decodeList,
    protocol.decodeVerifiers,
    protocol.decodePublicKey,
    protocol.decodeRecord,
    protocol.decodeBatch,
    protocol.decodeRecordPage,
    protocol.decodeAnswer,
    lambda value: protocol.decodeNumber(value, 0),
    lambda value: protocol.decodePerspectiveKey(value, value),
    lambda value: protocol.decodePage(value, protocol.USER),
    lambda value: protocol.decodePage(value, protocol.SESSION),
    lambda value: protocol.encodePageAfter([("a", "b")], value, 10),
]


class ProtocolTests(SynchronousTestCase):
    """Each message, there and back; and whatever else may come."""

    @settings(max_examples=50)
    @given(st.lists(RECORDS, max_size=4))
    def test_records(self, records: list[Record]) -> None:
        """Accounts cross as they are, in a tuple or a list."""
        for record in records:
            plain = protocol.encodeRecord(record)
            self.assertEqual(protocol.decodeRecord(plain), record)
            self.assertEqual(protocol.decodeRecord([*plain]), record)
        batches = list(protocol.encodeBatches(records))
        read = [record for batch in batches for record in protocol.decodeBatch(batch)]
        self.assertEqual(read, records)

    @settings(max_examples=50)
    @given(KEYS)
    def test_publicKeys(self, key: Any) -> None:
        """So do public keys, with their labels."""
        read = protocol.decodePublicKey(protocol.encodePublicKey(key))
        self.assertEqual((read, read.label), (key, key.label))

    def test_verifiers(self) -> None:
        """So do the verifiers of a password, and no others."""
        made = {"SCRAM-SHA-256": ScramVerifier.decode(VERIFIER)}
        self.assertEqual(protocol.decodeVerifiers(protocol.encodeVerifiers(made)), made)
        for wrong in (["ED25519$\nssh-ed25519 AAAA"], ["nonsense"], [5], "x", [VERIFIER[:-4]]):
            self.assertRaises(ProtocolViolation, protocol.decodeVerifiers, wrong)

    @settings(max_examples=50)
    @given(st.lists(st.tuples(NAMES, NAMES), max_size=30, unique=True), st.integers(1, 7))
    def test_pages(self, items: list[tuple[str, str]], most: int) -> None:
        """All pages together are all items, once each, in order."""
        ordered = sorted(items)
        found: list[Any] = []
        last = None
        while page := protocol.decodePage(
            protocol.encodePageAfter(ordered, last, most), protocol.KEY
        ):
            self.assertLessEqual(len(page), most)
            found += page
            last = protocol.later(last, page[-1])
        self.assertEqual(found, ordered)

    def test_pagesGoForward(self) -> None:
        """A server whose pages go back, or stay where they are, is refused."""
        for last in ("a", "b"):
            self.assertRaises(ProtocolViolation, protocol.later, "b", last)

    @settings(max_examples=400)
    @given(ANYTHING)
    def test_anything(self, value: Any) -> None:
        """What comes from anybody is read, or is a `ProtocolViolation`, and nothing else."""
        for decode in DECODERS:
            try:
                decode(value)
            except ProtocolViolation:
                pass

    def test_terminal(self) -> None:
        """Nothing in a page is obeyed by a terminal."""
        for text in ("\x1b[2J", "a\nb", "\x9b", "\u2028"):
            self.assertRaises(ProtocolViolation, protocol.decodePage, [(text, "x")], protocol.KEY)
