"""
An independent referee for the Go example, on ``sgfmill`` alone: makes a game by random legal play.

``python -m tests.support.referee > tests/data/game.sgf`` makes the record that the tests replay.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from sgfmill import boards, common, sgf

SIZE, KOMI = 13, 6.5


def isEye(board: boards.Board, row: int, column: int, colour: str) -> bool:
    """Whether nobody who plays that colour would fill that point."""
    beside = ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1))
    return all(
        board.get(*place) == colour
        for place in beside
        if all(0 <= each < board.side for each in place)
    )


def candidates(board: boards.Board, colour: str, seen: set[Any]) -> list[tuple[int, int]]:
    """All moves that the rules allow, but those that fill an eye."""
    found = []
    for row, column in board.board_points:
        if board.get(row, column) is not None or isEye(board, row, column, colour):
            continue
        after = board.copy()
        after.play(row, column, colour)
        if after.get(row, column) is not None and positionOf(after) not in seen:
            found.append((row, column))
    return found


def positionOf(board: boards.Board) -> Any:
    """What must not come back."""
    return tuple(sorted((point, colour) for colour, point in board.list_occupied_points()))


def makeGame(seed: int) -> tuple[sgf.Sgf_game, boards.Board]:
    """
    Play a game to its end, both passing.

    Returns:
        The record, and the board at the end.
    """
    chance = random.Random(seed)
    board = boards.Board(SIZE)
    record = sgf.Sgf_game(SIZE)
    record.get_root().set("KM", KOMI)
    seen = {positionOf(board)}
    passes, colour = 0, "b"
    while passes < 2:
        moves = candidates(board, colour, seen)
        move = chance.choice(moves) if moves else None
        record.extend_main_sequence().set_move(colour, move)
        if move is None:
            passes += 1
        else:
            passes = 0
            board.play(*move, colour)
            seen.add(positionOf(board))
        colour = common.opponent_of(colour)
    return record, board


def replay(record: sgf.Sgf_game) -> tuple[boards.Board, int]:
    """
    Play a record on a bare board.

    Returns:
        The board at the end, and how many stones were captured.
    """
    board = boards.Board(record.get_size())
    stones = 0
    for node in record.get_main_sequence()[1:]:
        colour, move = node.get_move()
        if move is not None:
            board.play(*move, colour)
            stones += 1
    return board, stones - len(board.list_occupied_points())


if __name__ == "__main__":
    sys.stdout.buffer.write(makeGame(int(sys.argv[1]) if sys.argv[1:] else 7)[0].serialise())
