"""
A game of Go: the rules, and nothing else. It knows no network and no players, only colours.

Area scoring, suicide forbidden, positional superko: no position of the whole board may come back.
Board, coordinates and SGF are those of the library ``sgfmill``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from sgfmill import boards, common, sgf

from pbauth.errors import WireError

BLACK, WHITE = "black", "white"
COLOURS = (BLACK, WHITE)
SIZES = range(5, 20)


def other(colour: str) -> str:
    """The other colour."""
    return WHITE if colour == BLACK else BLACK


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


class GoGameError(WireError):
    """
    That is not possible in this game. It crosses the wire as itself, with its text.

    Attributes:
        message: why.
    """

    fields: ClassVar[dict[str, Any]] = {"message": _text}

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message or "That is not possible in this game.")


@frozen
class Move:
    """
    A move.

    Attributes:
        colour: who made it.
        point: where, ``"D4"``; `None`: a pass.
        captured: the points of the stones that it took.
    """

    colour: str
    point: str | None
    captured: tuple[str, ...] = ()


class GoGame:
    """
    Args:
        size: of the board.
        komi: what white gets for moving second.

    Attributes:
        moves: so far.
        turn: the colour that moves next.
        captured: how many stones each colour has taken.
        result: as in SGF, ``"B+3.5"`` or ``"W+R"``; `None` while the game goes on.
    """

    def __init__(self, size: int = 19, komi: float = 7.5) -> None:
        if size not in SIZES:
            raise GoGameError(f"A board has {SIZES[0]} to {SIZES[-1]} lines.")
        if not -150 <= komi <= 150 or (komi * 2) % 1:
            raise GoGameError("A komi is a number of points, or half points: 6.5")
        self.size = size
        self.komi = komi
        self.moves: list[Move] = []
        self.turn = BLACK
        self.captured = {BLACK: 0, WHITE: 0}
        self.result: str | None = None
        self._board = boards.Board(size)
        self._positions = {self._position(self._board)}

    def _position(self, board: boards.Board) -> frozenset[Any]:
        return frozenset(board.list_occupied_points())

    def stones(self) -> list[tuple[str, str]]:
        """The stones on the board: pairs of colour and point."""
        return [
            (BLACK if colour == "b" else WHITE, common.format_vertex(point))
            for colour, point in self._board.list_occupied_points()
        ]

    def play(self, colour: str, point: object) -> Move:
        """
        Put a stone on the board.

        Args:
            colour: whose.
            point: where: ``"D4"``.

        Returns:
            The move.

        Raises:
            GoGameError: that is against the rules. Nothing has changed.
        """
        self._checkTurn(colour)
        place = self._read(point)
        name = common.format_vertex(place)
        board = self._board.copy()
        try:
            board.play(*place, colour[0])
        except ValueError:
            raise GoGameError(f"There is a stone at {name}.") from None
        if board.get(*place) is None:
            raise GoGameError(f"A stone at {name} would have no liberty: that is suicide.")
        position = self._position(board)
        if position in self._positions:
            raise GoGameError(f"Ko: with a stone at {name} the board would be as it was before.")
        captured = tuple(
            common.format_vertex(taken) for _, taken in self._position(self._board) - position
        )
        self._board = board
        self._positions.add(position)
        self.captured[colour] += len(captured)
        return self._made(Move(colour, name, tuple(sorted(captured))))

    def pass_(self, colour: str) -> Move:
        """
        Put no stone on the board. Two of that in a row end the game.

        Raises:
            GoGameError: it is not that colour's turn.
        """
        self._checkTurn(colour)
        made = self._made(Move(colour, None))
        if len(self.moves) > 1 and self.moves[-2].point is None:
            self.result = self._scored()
        return made

    def resign(self, colour: str) -> None:
        """
        Give up, at any time.

        Raises:
            GoGameError: the game is over.
        """
        self._checkGoingOn()
        self.result = f"{other(colour)[0].upper()}+R"

    def score(self) -> float:
        """How many points black is ahead, by area, with all stones alive."""
        return float(self._board.area_score()) - self.komi

    def _scored(self) -> str:
        ahead = self.score()
        if not ahead:
            return "0"
        return f"{'B' if ahead > 0 else 'W'}+{abs(ahead):g}"

    def _made(self, move: Move) -> Move:
        self.moves.append(move)
        self.turn = other(move.colour)
        return move

    def _checkGoingOn(self) -> None:
        if self.result is not None:
            raise GoGameError(f"The game is over: {self.result}.")

    def _checkTurn(self, colour: str) -> None:
        self._checkGoingOn()
        if colour != self.turn:
            raise GoGameError(f"It is {self.turn}'s turn.")

    def _read(self, point: object) -> tuple[int, int]:
        try:
            if not isinstance(point, str):
                raise ValueError("no text")
            place = common.move_from_vertex(point.strip(), self.size)
        except ValueError:
            place = None
        if place is None:
            last = common.format_vertex((self.size - 1, self.size - 1))
            raise GoGameError(f"There is no such point on this board. Points are A1 to {last}.")
        return place  # type: ignore[no-any-return]

    # SGF.

    def toSGF(self, players: dict[str, str | None] | None = None) -> bytes:
        """
        The record of the game (SGF, file format 4).

        Args:
            players: by colour, who plays.
        """
        record = sgf.Sgf_game(self.size)
        root = record.get_root()
        root.set("KM", self.komi)
        root.set("RU", "AGA")
        for colour, name in (players or {}).items():
            if name is not None:
                root.set(f"P{colour[0].upper()}", name)
        if self.result is not None:
            root.set("RE", self.result)
        for move in self.moves:
            place = None if move.point is None else common.move_from_vertex(move.point, self.size)
            record.extend_main_sequence().set_move(move.colour[0], place)
        return bytes(record.serialise())

    @classmethod
    def fromSGF(cls, data: bytes) -> tuple[GoGame, dict[str, str | None]]:
        """
        Read a record, and play it.

        Args:
            data: the record.

        Returns:
            The game; and by colour, who plays.

        Raises:
            GoGameError: it is not a record, or one of a game that is against the rules.
        """
        try:
            record = sgf.Sgf_game.from_bytes(data)
            game = cls(record.get_size(), record.get_komi())
            root = record.get_root()
            if root.has_setup_stones():
                raise GoGameError("The record begins with stones on the board.")
            for node in record.get_main_sequence()[1:]:
                colour, place = node.get_move()
                if colour is None:
                    continue
                name = BLACK if colour == "b" else WHITE
                if place is None:
                    game.pass_(name)
                else:
                    game.play(name, common.format_vertex(place))
            result = root.get("RE") if root.has_property("RE") else None
            players = {
                BLACK: record.get_player_name("b"),
                WHITE: record.get_player_name("w"),
            }
        except (ValueError, KeyError, IndexError, RecursionError) as mistake:
            raise GoGameError(f"This is no record of a game: {mistake}") from None
        if result in ("B+R", "W+R") and game.result is None:
            game.result = result
        return game, players
