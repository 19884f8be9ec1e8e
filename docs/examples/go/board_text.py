"""
A game of Go as text: what a player's window shows, and what is typed into it. All of it is
functions of what is known of the game: no network, no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, product

from gogame import BLACK, COLOURS, WHITE
from tableview import View, cells, clean

#: A line of the window: pieces of text, each with the name of its style (see `STYLES`).
Line = list[tuple[str, str]]

#: The escape sequences of styles on a terminal (ECMA-48, "SGR"). The board is of wood; on it, all
#: stones are full: on a dark terminal an outlined one would look like the black one.
STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "mistake": "31",
    "board": "30;43",
    "last": "31;43",
    BLACK: "30;43",
    WHITE: "97;43",
}

LETTERS = "ABCDEFGHJKLMNOPQRST"
_POINT = re.compile(r"([A-Z])([0-9]{1,3})")

#: The least width of what stands beside the board, and its height without the chat.
PANEL_WIDTH = 24
PANEL_HEIGHT = 10
#: Lines under the board: what went wrong, and what is being typed.
FOOT = 2

HELP = """\
D4        a stone there
pass      no stone
resign    give up
say TEXT  or /TEXT
save FILE    as SGF
save! FILE   overwrites
help      this
quit      or Ctrl-D"""


class Mistake(ValueError):
    """What was typed can't be done; the text says why, in a line."""


# Text in columns.


def fit(text: str, width: int) -> str:
    """As much of the beginning of a text as has room in `width` columns."""
    while cells(text) > max(0, width):
        text = text[: min(len(text) - 1, max(0, width))]
    return text


def wrap(text: str, width: int) -> Iterator[str]:
    """Break a text into lines of at most `width` columns, between words where that is possible."""
    line = ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while cells(line) > width:
            part = fit(line, width) or line[0]
            yield part
            line = line[len(part) :]
    if line:
        yield line


# What is shown.


def starPoints(size: int) -> set[tuple[int, int]]:
    """The points that a board has dots at, as pairs counted from 0."""
    middle = {size // 2} if size % 2 else set()
    if size < 7:
        return set(product(middle, middle))
    edge = 3 if size >= 13 else 2
    lines = {edge, size - 1 - edge}
    if size >= 19:
        return set(product(lines | middle, lines | middle))
    return set(product(lines, lines)) | set(product(middle, middle))


def _crossing(column: int, row: int, size: int, ascii: bool) -> str:
    star = (column, row) in starPoints(size)
    if ascii:
        return "+" if star else "."
    if star:
        return "╋"
    rows = ("└┴┘", "├┼┤", "┌┬┐")
    end = size - 1
    return rows[(row > 0) + (row == end)][(column > 0) + (column == end)]


def _stone(colour: str, ascii: bool) -> tuple[str, str]:
    if ascii:
        return (colour, "X" if colour == BLACK else "O")
    return (colour, "●" if colour == BLACK else "○")


def drawBoard(view: View, ascii: bool = False) -> list[Line]:
    """
    Draw the board.

    Args:
        view: what is known.
        ascii: with letters and dots.

    Returns:
        Its lines, each `boardWidth` columns wide.
    """
    size = view.size
    letters: Line = [("board", f"  {''.join(f' {letter}' for letter in LETTERS[:size])}   ")]
    lines = [letters]
    last = view.last[1] if view.last is not None else None
    for row in reversed(range(size)):
        line: Line = [("board", f"{row + 1:2}")]
        for column in range(size + 1):
            point = f"{LETTERS[column]}{row + 1}" if column < size else None
            if point is not None and point == last:
                line.append(("last", "("))
            elif column and f"{LETTERS[column - 1]}{row + 1}" == last:
                line.append(("last", ")"))
            else:
                line.append(("board", "─" if 0 < column < size and not ascii else " "))
            if point is None:
                break
            if point in view.stones:
                line.append(_stone(view.stones[point], ascii))
            else:
                line.append(("board", _crossing(column, row, size, ascii)))
        line.append(("board", f"{row + 1:<2}"))
        lines.append(line)
    return [*lines, letters]


def boardWidth(size: int) -> int:
    """How many columns a board takes."""
    return 2 * size + 5


def leastWindow(size: int) -> tuple[int, int]:
    """The columns and lines that a window needs at least."""
    return boardWidth(size) + 2 + PANEL_WIDTH, max(size + 2, PANEL_HEIGHT) + FOOT


def drawPanel(view: View, width: int, height: int, ascii: bool = False) -> list[Line]:
    """
    Draw what stands beside the board.

    Returns:
        At most `height` lines of at most `width` columns.
    """
    if view.help:
        return [[("", fit(line, width))] for line in HELP.splitlines()[:height]]
    title = f"{clean(view.game)}, komi {view.komi:g}, {view.moves} moves"
    lines: list[Line] = [[("bold", fit(title, width))], []]
    for colour in COLOURS:
        lines += _drawPlayer(view, colour, width, ascii)
    lines += [[("bold", fit(view.status(), width))], [("", fit(_lastMove(view), width))], []]
    room = height - len(lines)
    said: list[Line] = [[("", part)] for text in view.chat for part in wrap(text, width)]
    return lines[:height] + (said[-room:] if room > 0 else [])


def _drawPlayer(view: View, colour: str, width: int, ascii: bool) -> list[Line]:
    turn = view.result is None and view.turn == colour
    name = view.players.get(colour)
    here = "you" if colour == view.me else "here" if view.present.get(colour) else "away"
    who = "nobody yet" if name is None else f"{clean(name)}"
    where = "" if name is None else f" ({here})"
    room = width - 5 - len(where)
    return [
        [
            ("bold", "> " if turn else "  "),
            _stone(colour, ascii),
            ("bold" if turn else "", f"  {fit(who, room)}{where}"),
        ],
        [("dim", fit(f"     {colour}, took {view.captured[colour]}", width))],
    ]


def _lastMove(view: View) -> str:
    if view.last is None:
        return "No move yet."
    colour, point, captured = view.last
    if point is None:
        return f"{colour.capitalize()} passed."
    took = f", took {captured}" if captured else ""
    return f"{colour.capitalize()} played {clean(point)}{took}."


def draw(view: View, width: int, height: int, ascii: bool = False) -> list[Line]:
    """
    Draw the window, but for the line that is typed in.

    Args:
        view: what is known.
        width: of the window, in columns.
        height: of the window, in lines.
        ascii: with letters and dots.

    Returns:
        At most ``height - 1`` lines of at most `width` columns, with what the user is to be told
        in the last one.
    """
    columns, rows = leastWindow(view.size)
    if width < columns or height < rows:
        lines = _drawTooSmall(view, width, height)
    else:
        board = drawBoard(view, ascii)
        beside = boardWidth(view.size) + 2
        panel = drawPanel(view, width - beside, height - FOOT, ascii)
        lines = []
        for number in range(max(len(board), len(panel))):
            left = board[number] if number < len(board) else [("", " " * (beside - 2))]
            right = panel[number] if number < len(panel) else []
            lines.append([*left, ("", "  "), *right])
    notice = [("mistake" if view.trouble else "", fit(view.notice, width))]
    return [*lines[: max(0, height - FOOT)], notice][: max(0, height - 1)]


def _drawTooSmall(view: View, width: int, height: int) -> list[Line]:
    columns, rows = leastWindow(view.size)
    texts = [
        f"This board needs a window of {columns} columns and {rows} lines, and this one has "
        f"{width} and {height}. Make it larger, or its letters smaller.",
        view.status(),
        _lastMove(view),
    ]
    return [[("", fit(part, width))] for text in texts for part in wrap(text, max(2, width))]


def plain(line: Line) -> str:
    """A line as text."""
    return "".join(text for _, text in line).rstrip()


def painted(line: Line) -> str:
    """A line for a terminal that has colours."""
    parts = []
    for style, pieces in groupby(line, key=lambda piece: piece[0]):
        code, text = STYLES[style], "".join(text for _, text in pieces)
        text = text.replace("○", "●") if style == WHITE else text
        parts.append(f"\x1b[{code}m{text}\x1b[m" if code else text)
    return "".join(parts)


# What is typed.


def parse(text: str, size: int) -> tuple[str, str] | None:
    """
    Understand what was typed.

    Args:
        text: a line.
        size: of the board.

    Returns:
        What is wanted (``play``, ``pass``, ``resign``, ``say``, ``save``, ``save!``, ``help`` or
        ``quit``), and of what; `None`: nothing.

    Raises:
        Mistake: it can't be understood.
    """
    text = text.strip()
    if not text:
        return None
    if text.startswith("/"):
        text = f"say {text[1:]}"
    first, _, rest = text.partition(" ")
    word, rest = first.lower(), rest.strip()
    if word in ("say", "save", "save!"):
        if not rest:
            what = "what: say hello" if word == "say" else f"where: {word} game.sgf"
            raise Mistake(f"Say {what}")
        return word, rest
    if word in ("pass", "resign", "help", "quit"):
        if rest:
            raise Mistake(f"{word} stands alone. To say something: /{clean(text)}")
        return word, ""
    point = _POINT.fullmatch(text.upper())
    if point is None:
        raise Mistake(f"Not understood: {clean(text)[:40]}. Type a point, D4, or help.")
    letter, number = point[1], int(point[2])
    if letter not in LETTERS[:size] or not 1 <= number <= size:
        missing = " There is no column I." if letter == "I" else ""
        raise Mistake(f"This board has the points A1 to {LETTERS[size - 1]}{size}.{missing}")
    return "play", f"{letter}{number}"
