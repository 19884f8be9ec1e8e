"""What one who sits at a table of Go knows of it: from its state, and from what happens then."""

from __future__ import annotations

import unicodedata
from collections import deque
from typing import Any

from attrs import Factory, define
from gogame import BLACK, COLOURS, SIZES, other

#: So many lines of chat are kept, and so many marks may be on one letter.
MOST_CHAT = 200
MOST_MARKS = 2


def clean(text: object) -> str:
    """
    Make text of others fit to be shown: no control characters, and not many marks on a letter.

    Args:
        text: from the wire.

    Returns:
        One line of it.
    """
    shown: list[str] = []
    marks = 0
    for letter in text if isinstance(text, str) else "?":
        marks = marks + 1 if cells(letter) == 0 else 0
        if marks <= MOST_MARKS:
            shown.append(letter if letter.isprintable() else "?")
    return "".join(shown)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        2
        if unicodedata.east_asian_width(letter) in "WF"
        else unicodedata.category(letter) not in ("Mn", "Me")
        for letter in text
    )


@define
class View:
    """
    What one who sits at a table knows of it.

    Attributes:
        me: the colour that they play; `None`: they watch.
        seen: the number of the last event that counts; `None`: the state is not known now.
        stones: by point, the colour.
        chat: what was said, and who came and went.
        notice: what the user is told about the last thing that they wanted.
        trouble: whether that is bad news.
        help: whether the help is shown.
        online: whether there is a connection.
    """

    me: str | None = None
    game: str = ""
    size: int = 19
    komi: float = 0.0
    turn: str = BLACK
    players: dict[str, Any] = Factory(dict)
    present: dict[str, Any] = Factory(dict)
    captured: dict[str, int] = Factory(lambda: dict.fromkeys(COLOURS, 0))
    result: str | None = None
    seen: int | None = None
    stones: dict[str, str] = Factory(dict)
    moves: int = 0
    last: tuple[str, str | None, int] | None = None
    chat: deque[str] = Factory(lambda: deque(maxlen=MOST_CHAT))
    notice: str = ""
    trouble: bool = False
    help: bool = False
    online: bool = True

    def say(self, notice: str, *, trouble: bool = False) -> None:
        """Tell the user something."""
        self.notice, self.trouble = clean(notice), trouble

    def restore(self, state: Any) -> None:
        """
        Take over the state of a table.

        Raises:
            Exception: `KeyError`, `TypeError` and the like: it is no such state.
        """
        size = state["size"]
        if not isinstance(size, int) or size not in SIZES:
            raise ValueError("no such board")
        self.game, self.size, self.komi = clean(state["game"]), size, float(state["komi"])
        self.players, self.present = dict(state["players"]), dict(state["present"])
        self.result = state["result"]
        self.stones, self.moves, self.last = {}, 0, None
        for colour, point, captured in state["moves"]:
            self._moved(_colour(colour), point, captured)
        self.captured = {colour: int(state["captured"][colour]) for colour in COLOURS}
        self.turn = _colour(state["turn"])
        self.seen = int(state["event"])
        self.online = True

    def happened(self, event: Any) -> None:
        """
        Take note of an event. One that the state has in it already is not counted twice; what
        is said is never in it.

        Raises:
            Exception: `KeyError`, `TypeError` and the like: it is not an event.
        """
        if event["kind"] == "said":
            self.chat.append(f"{clean(event['by'])}: {clean(event['text'])}")
            return
        if self.seen is None or event["event"] <= self.seen:
            return
        self.seen = int(event["event"])
        kind = event["kind"]
        if kind == "moved":
            colour = _colour(event["colour"])
            self._moved(colour, event["point"], event["captured"])
            self.captured[colour] += len(event["captured"])
        elif kind in ("came", "went"):
            colour = _colour(event["colour"])
            self.players[colour] = event["by"]
            self.present[colour] = kind == "came"
            self.chat.append(f"* {clean(event['by'])} {'is here' if kind == 'came' else 'is away'}")
        elif kind == "over":
            self.result = str(event["result"])

    def _moved(self, colour: str, point: str | None, captured: list[str]) -> None:
        for taken in captured:
            self.stones.pop(taken, None)
        if point is not None:
            self.stones[point] = colour
        self.moves += 1
        self.last = colour, point, len(captured)
        self.turn = other(colour)

    def status(self) -> str:
        """Whose turn it is, or how it has ended."""
        if not self.online:
            return "No connection."
        if self.result is not None:
            return outcome(self.result)
        if self.me is None:
            return f"{self.turn.capitalize()}'s turn. You watch."
        if self.me == self.turn:
            return f"Your turn ({self.me})."
        return f"{self.turn.capitalize()}'s turn."


def _colour(value: Any) -> str:
    if value not in COLOURS:
        raise ValueError("no colour")
    return str(value)


def outcome(result: str) -> str:
    """The result of a game, in words."""
    won, _, by = clean(result).partition("+")
    winner = {"B": "Black", "W": "White"}.get(won)
    if winner is None:
        return "Over: a draw." if won == "0" else f"Over: {won}."
    if by == "R":
        return f"{winner} wins: {other(winner.lower())} resigned."
    return f"{winner} wins by {by} points."
