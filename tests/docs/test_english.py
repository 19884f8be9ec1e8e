"""The English of pages, docstrings, messages and help texts: phrases that must not come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.pages import ROOT

#: Phrases, and what to write in their place.
PHRASES = {
    r"\bby TLS\b": "over TLS",
    r"\banew\b": "again",
    r"\bthereby\b": "leave it out",
    r"\bfor ever\b": "forever, or without an end",
    r",? too(?=[.;:)])|, too\b(?! (few|large|long|many|much|small))": "also, or leave it out",
    r"\bas well\b(?! as)": "also, or leave it out",
    r"\bwho (has|have) not\b": "a client (user, ...) that has not",
    r"\btold (to|of|by|otherwise)\b|\btold `|can't be told\b": "gets, learns, is recorded in",
    r"\b[Ss]ay (``|`)?(--|\{option)": "use --option",
    r"\b[Ss]ays? otherwise\b": "by default",
    r"\bserver that runs\b": "running server",
    r"\b(for|to|of|from|than|with) who\b(?! in\b)": "for users (clients, ...) that",
    r"\b(log|logs|logged|logging) in by\b|\blogins? by\b": "log in with, login with",
    r"\b[Ww]hat the matter is\b": "the cause",
    r"\bin the same go\b": "at the same time, in one step",
    r"\b[Kk]eys( or certificates)? in\b(?=[,.:;]|$)|\btakes? (one|it|them) back\b": "add, revoke",
    r"\b(be|been|is|are) had\b": "is available",
    r"\b(in|it|look|listen|receive|take|is) no more\b(?= ?[.;,\"])": "stop doing it, no longer",
    r", also (after|if|when|where)\b": "even after, even if",
    r"\bit is no (?!longer|more|error|such)[`a-z]": "it is not a",
    r"\b(no login|the login|which|this proof) (still |no longer )?stands\b": "is (still) valid",
    r"\b[Tt]he seed\b": "name the concept; only history.rst is about its source",
}

#: Where a phrase is what is meant: ``path: the words around it``, a line for each place.
EXCEPTIONS = Path(__file__).parent / "english_exceptions.txt"

#: What is read: what people read.
SUFFIXES = {".py", ".rst", ".html", ".js", ".cfg", ".service", ".css", ".inc", ".svg"}


def texts() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file of the package and the documentation."""
    for top in ("pbauth", "docs", "twisted", "README.rst"):
        root = ROOT / top
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.suffix in SUFFIXES and "_build" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), flowing(path.read_text())


def flowing(text: str) -> str:
    """
    Return a text in one line, so that phrases are found across the ends of lines.

    Args:
        text: of a page or a program. In a program, comments of several lines and strings that
            follow each other become one.
    """
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\s*\n\s*(#:? )?", " ", text)


def found(text: str) -> Iterator[tuple[str, str]]:
    """
    Yield each phrase of the list in a text, with the words around it.

    Args:
        text: in one line.
    """
    for phrase in PHRASES:
        for each in re.finditer(phrase, text):
            start, end = max(0, each.start() - 40), each.end() + 25
            yield phrase, text[start:end]


class EnglishTests(SynchronousTestCase):
    """Whatever people read."""

    def test_phrases(self) -> None:
        """None of the phrases is there, except in the places that are listed as allowed."""
        allowed = [line for line in EXCEPTIONS.read_text().splitlines() if line and line[0] != "#"]
        unused, bad = set(allowed), []
        for path, text in texts():
            for phrase, around in found(text):
                fitting = [
                    line
                    for line in allowed
                    for file, _, words in [line.partition(": ")]
                    if file == path and words in around and re.search(phrase, words)
                ]
                unused -= set(fitting)
                if not fitting:
                    bad.append(f"{path}: ...{around}... write: {PHRASES[phrase]}")
        self.assertEqual("\n".join(bad), "")
        self.assertEqual(unused, set())

    def test_found(self) -> None:
        """Phrases are found across lines, in comments and in strings; what is like them is not."""
        for text in (
            "It is sent by\n    TLS.",
            "# This is told\n    # to others.",
            'help="This goes by "\n    "TLS."',
            "and the keys, too.",
            "and the keys too.",
            "He does it as well.",
            "Say ``--resume``.",
        ):
            self.assertTrue(list(found(flowing(text))), text)
        for text in (
            "over TLS",
            "empty, too long",
            "as well as keys",
            "They are told apart.",
            "for who in names",
            "say hello",
        ):
            self.assertEqual(list(found(flowing(text))), [], text)
