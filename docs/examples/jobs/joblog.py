"""Lines that are written once, and that any number of readers follow."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred

#: The most lines that are kept.
MOST_LINES = 10_000


class Log:
    """
    Keep the last lines, and give them to readers, each at its own pace.

    Args:
        most: so many lines are kept; a reader that is slower learns how many it has missed.

    Attributes:
        written: how many lines there have been.
    """

    def __init__(self, most: int = MOST_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=most)
        self._waiting: list[Deferred[None]] = []
        self._ended = False
        self.written = 0

    def write(self, line: str) -> None:
        """Write a line."""
        self._lines.append(line)
        self.written += 1
        self._wake()

    def end(self) -> None:
        """Let readers know that there will be no more lines."""
        self._ended = True
        self._wake()

    async def follow(self, seen: int = 0) -> AsyncIterator[str]:
        """
        Read the lines, and wait for further ones until the log ends.

        Args:
            seen: how many lines the reader has seen.
        """
        while True:
            while seen < self.written:
                first = self.written - len(self._lines)
                if seen < first:
                    yield f"({first - seen} lines were dropped)"
                    seen = first
                line = self._lines[seen - first]
                seen += 1
                yield line
            if self._ended:
                return
            # A reader that is cancelled waits no longer.
            turn: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(turn)
            await turn

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.callback(None)
