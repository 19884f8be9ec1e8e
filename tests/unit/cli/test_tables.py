"""Listings: tables for people, lines for scripts, JSON."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbauth._quoting import visible
from pbauth.cli.tables import Listing, width


class Output(io.StringIO):
    """A standard output that may be a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it is."""
        return self._terminal


class ListingTests(SynchronousTestCase):
    """What is printed."""

    def printed(
        self, rows: list[tuple[Any, ...]], terminal: bool = False, asJSON: bool = False
    ) -> tuple[str, str]:
        """Print rows of a name, a number and a truth value; give output and errors."""
        output, errors = Output(terminal), Output(True)
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        listing = Listing(
            ("name", "number", "locked"),
            lambda name, number, locked: (name, str(number), "locked" if locked else ""),
            asJSON,
        )
        for row in rows:
            listing.add([row])
        listing.end("There are none.")
        return output.getvalue(), errors.getvalue()

    ROWS: list[tuple[Any, ...]] = [("a\u202eb", 1, False), ("名前", 10, True)]  # noqa: RUF012

    def test_table(self) -> None:
        """Aligned, with a heading; what a terminal would obey is shown."""
        said, _ = self.printed(self.ROWS, terminal=True)
        self.assertEqual(
            said,
            "NAME      NUMBER  LOCKED\na\\u202eb  1\n名前      10      locked\n",
        )

    def test_lines(self) -> None:
        """Columns between tabs; nothing behind the last one. A terminal obeys nothing of it."""
        said, _ = self.printed(self.ROWS)
        self.assertEqual(said, "a\\u202eb\t1\n名前\t10\tlocked\n")

    def test_json(self) -> None:
        """An object a line, in ASCII, on a terminal as well."""
        for terminal in (True, False):
            said, _ = self.printed(self.ROWS, terminal, asJSON=True)
            self.assertTrue(said.isascii())
            self.assertEqual(
                [json.loads(line) for line in said.splitlines()],
                [
                    {"name": name, "number": number, "locked": locked}
                    for name, number, locked in self.ROWS
                ],
            )

    def test_empty(self) -> None:
        """People are told; scripts see nothing."""
        self.assertEqual(self.printed([]), ("", "There are none.\n"))
        self.assertEqual(self.printed([], terminal=True), ("", "There are none.\n"))
        self.assertEqual(self.printed([], asJSON=True), ("", ""))

    def test_pieces(self) -> None:
        """How wide a text is, and what of it is escaped."""
        self.assertEqual([width(text) for text in ("", "abc", "名", "e\u0301")], [0, 3, 2, 1])
        self.assertEqual(visible("é 名\t\x1b\u200b"), "é 名\\t\\x1b\\u200b")
