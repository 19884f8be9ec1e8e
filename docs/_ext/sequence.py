"""
``.. sequence::`` draws who says what to whom, as SVG, from lines of text.

First come those who take part, from left to right, then what they say, from top to bottom::

    .. sequence:: A login

       client: The client
       server: AuthServ

       client -> server: username(name)
       client <- server: challenge
       note client: checks it

The picture takes its colours from the page, and scrolls where the screen is much narrower than it.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

CHARACTER = 7.3  # the width of a letter of 12 px, monospaced
PADDING = 28
ROW = 44
HEAD = 34

_PARTY = re.compile(r"(\w+):\s*(.+)")
_NOTE = re.compile(r"note (\w+):\s*(.+)")
_MESSAGE = re.compile(r"(\w+) (->|<-) (\w+):\s*(.+)")


class NotASequence(ValueError):
    """The text can't be read; says which line."""


def readSequence(lines: list[str]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """
    Args:
        lines: the text.

    Returns:
        The titles of those who take part, by name; and for each row who speaks, to whom, and
        what. In a note nobody (an empty name) is spoken to.

    Raises:
        NotASequence: a line is none of those that there are.
    """
    parties: dict[str, str] = {}
    rows: list[tuple[str, str, str]] = []
    for line in filter(None, map(str.strip, lines)):
        if found := _NOTE.fullmatch(line):
            rows.append((found[1], "", found[2]))
        elif found := _MESSAGE.fullmatch(line):
            left, arrow, right, words = found.groups()
            rows.append((left, right, words) if arrow == "->" else (right, left, words))
        elif (found := _PARTY.fullmatch(line)) and not rows:
            parties[found[1]] = found[2]
            continue
        else:
            raise NotASequence(f"not a line of a sequence: {line}")
        unknown = {name for name in rows[-1][:2] if name} - parties.keys()
        if unknown:
            raise NotASequence(f"nobody said who {unknown.pop()} is: {line}")
    return parties, rows


def _width(words: str) -> float:
    return len(words) * CHARACTER + PADDING


def _places(parties: dict[str, str], rows: list[tuple[str, str, str]]) -> tuple[list[float], float]:
    """Where the lines of those who take part stand, so that all words find room; and the width."""
    names = list(parties)
    places = [_width(parties[names[0]]) / 2]
    for number in range(1, len(names)):
        left = (_width(parties[names[number - 1]]) + _width(parties[names[number]])) / 2 + 12
        least = places[-1] + left
        for speaker, listener, words in rows:
            if not listener:
                if names.index(speaker) == number - 1:
                    least = max(least, places[-1] + _width(words))
                continue
            ends = sorted((names.index(speaker), names.index(listener)))
            if ends[1] == number:
                least = max(least, places[ends[0]] + _width(words))
        places.append(least)
    right = _width(parties[names[-1]]) / 2
    for speaker, listener, words in rows:
        if not listener and speaker == names[-1]:
            right = max(right, _width(words))
    return places, places[-1] + right


def drawSequence(title: str, lines: list[str]) -> str:
    """
    Args:
        title: what the picture shows, for those who can't see it.
        lines: the text.

    Returns:
        The picture: an element of SVG.
    """
    parties, rows = readSequence(lines)
    places, width = _places(parties, rows)
    height = HEAD + 16 + len(rows) * ROW + 8
    drawn = []
    for (name, label), x in zip(parties.items(), places, strict=True):
        half = _width(label) / 2 - 2
        drawn.append(
            f'<line x1="{x:.1f}" y1="{HEAD}" x2="{x:.1f}" y2="{height}" class="life"/>'
            f'<rect x="{x - half:.1f}" y="2" width="{2 * half:.1f}" height="{HEAD - 4}" rx="5"/>'
            f'<text x="{x:.1f}" y="{HEAD / 2 + 4:.1f}" class="party" data-name="{escape(name)}">'
            f"{escape(label)}</text>"
        )
    at = dict(zip(parties, places, strict=True))
    for number, (speaker, listener, words) in enumerate(rows):
        y = HEAD + 16 + number * ROW + 26
        if not listener:
            drawn.append(
                f'<circle cx="{at[speaker]:.1f}" cy="{y - 10}" r="3.5"/>'
                f'<text x="{at[speaker] + 10:.1f}" y="{y - 6}" class="note">{escape(words)}</text>'
            )
            continue
        start, end = at[speaker], at[listener]
        way = 1 if end > start else -1
        back = "" if way > 0 else " back"
        drawn.append(
            f'<line x1="{start:.1f}" y1="{y}" x2="{end - 7 * way:.1f}" y2="{y}"'
            f' class="said{back}"/>'
            f'<path d="M{end:.1f} {y} l{-9 * way} -4.5 v9 z"/>'
            f'<text x="{min(start, end) + 14:.1f}" y="{y - 7}">{escape(words)}</text>'
        )
    return (
        f'<svg class="sequence" role="img" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" style="min-width: min({width:.0f}px, 42rem)" '
        f'xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


class sequence(nodes.General, nodes.Element):
    """The picture, in the document."""


class Sequence(Directive):
    """The directive; its argument says what the picture shows."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = list(self.content)
        try:
            readSequence(lines)
        except NotASequence as mistake:
            raise self.error(str(mistake)) from None
        return [sequence("", title=self.arguments[0], lines=lines)]


def _visitHTML(writer: Any, node: Any) -> None:
    picture = drawSequence(node["title"], node["lines"])
    writer.body.append(f'<div class="sequence" tabindex="0">{picture}</div>\n')
    raise nodes.SkipNode


def _visitOther(writer: Any, node: Any) -> None:
    """A writer that can't show pictures shows the text."""
    writer.visit_literal_block(nodes.literal_block("", "\n".join(node["lines"])))
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_node(sequence, html=(_visitHTML, None), text=(_visitOther, None))
    app.add_directive("sequence", Sequence)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
