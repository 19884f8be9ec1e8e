"""SASLprep: one spelling for names and passwords."""

from __future__ import annotations

import stringprep
from stringprep import in_table_a1

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp.core import ScramException
from scramp.core import saslprep as scrampPrep
from twisted.trial.unittest import SynchronousTestCase

from pbauth.mechanisms.saslprep import (
    _ANY_PROHIBITED,
    _FROM_RIGHT,
    _TO_NOTHING,
    _TO_SPACE,
    saslprep,
)

#: What RFC 4013, section 2.3 prohibits, as Python has it.
PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)

#: All of the first plane that Unicode 3.2 knew; where scramp has no opinion of its own.
CHARACTERS = st.characters(max_codepoint=0xFFFF).filter(lambda each: not in_table_a1(each))


class SASLprepTests(SynchronousTestCase):
    """RFC 4013."""

    def test_examples(self) -> None:
        """The examples of section 3."""
        for given_, expected in [
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
        ]:
            self.assertEqual(saslprep(given_), expected)
        for prohibited in ("\u0007", "\u06271"):
            with self.assertRaises(ValueError):
                saslprep(prohibited)

    def test_prohibited(self) -> None:
        """One of each table of RFC 3454 that section 2.3 names."""
        for character in (
            *("\x00", "\x7f", "\x80", "\u200e", "\ue000", "\ufdd0", "\ud800", "\ufffd"),
            *("\u2ff0", "\U000e0001"),
        ):
            with self.assertRaises(ValueError):
                saslprep(f"a{character}b")

    def test_directions(self) -> None:
        """Text from the right stays among its own, and begins and ends so."""
        self.assertEqual(saslprep("\u0627\u0628"), "\u0627\u0628")
        self.assertEqual(saslprep("\u06271\u0628"), "\u06271\u0628")
        for mixed in ("\u0627a\u0628", "1\u0627", "\u06271"):
            with self.assertRaises(ValueError):
                saslprep(mixed)

    def test_unassigned(self) -> None:
        """Characters younger than Unicode 3.2 are let through."""
        self.assertEqual(saslprep("\U0001f511"), "\U0001f511")

    def test_tables(self) -> None:
        """The tables are those of RFC 3454, character by character."""
        assigned = [*range(0x30000), *range(0xE0000, 0xE1000)]
        planes = [
            plane << 16 | low for plane in range(3, 17) for low in (0, 1, 0xFFFD, 0xFFFE, 0xFFFF)
        ]
        characters = list(map(chr, [*assigned, *planes]))
        for compiled, table in [
            (_TO_NOTHING, stringprep.in_table_b1),
            (_TO_SPACE, stringprep.in_table_c12),
            (_FROM_RIGHT, stringprep.in_table_d1),
            (
                _ANY_PROHIBITED,
                lambda each: any(prohibited(each) for prohibited in PROHIBITED),
            ),
        ]:
            wrong = [each for each in characters if bool(compiled.match(each)) != table(each)]
            self.assertEqual(wrong, [])

    def test_noTables(self) -> None:
        """
        Python's own tables, which take a while for each character, are asked only where directions
        may be mixed, and then once for each character.
        """
        asked: list[str] = []
        for name in dir(stringprep):
            if name.startswith("in_table"):
                self.patch(stringprep, name, asked.append)
        for text in ("\u0130" * 4000, "e\u0301" * 1000, "\xad" * 4000, "\u00aa" * 4000):
            saslprep(text)
        self.assertEqual(asked, [])
        saslprep("\u05d0" * 1000)
        self.assertLessEqual(len(asked), 1000)

    @settings(max_examples=300)
    @given(st.text(CHARACTERS, max_size=12))
    def test_agreesWithAnotherLibrary(self, text: str) -> None:
        """What the library scramp accepts comes out the same; what it refuses is refused."""
        try:
            expected = scrampPrep(text)
        except ScramException:
            with self.assertRaises(ValueError):
                saslprep(text)
        else:
            self.assertEqual(saslprep(text), expected)
