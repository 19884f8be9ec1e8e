"""The page on operations as it is printed; `tests.docs.operations` types it."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support.operations import DOWNLOADS, blocks, commands
from tests.support.pages import ROOT


class PageTests(SynchronousTestCase):
    """What there is to type."""

    def test_blocks(self) -> None:
        """Each block is a file, with its path, or commands."""
        for language, caption, text in blocks():
            if language == "console":
                self.assertTrue(text.startswith("# "), text)
            else:
                self.assertRegex(caption, r"^/etc/\S+$")

    def test_extras(self) -> None:
        """What is downloaded has the extras that it names."""
        known = re.findall(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text())
        found = [
            match
            for language, _, text in blocks()
            if language == "console"
            for command, _ in commands(text)
            if (match := DOWNLOADS.fullmatch(command))
        ]
        self.assertEqual(len(found), 3)
        for match in found:
            self.assertEqual(set((match[1] or known[0]).split(",")) - set(known), set())
