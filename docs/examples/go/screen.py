"""A terminal: a page that is drawn again whenever something changes, and a line to type in."""

from __future__ import annotations

import codecs
import os
import re
import signal
import termios
from collections.abc import Callable
from typing import Any

from board_text import fit
from tableview import cells

#: The longest line that may be typed, in characters.
LONGEST = 600
MOST_HISTORY = 100

_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b[^\[O]|[^\x1b]", re.DOTALL)
_NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[C": "right",
    "\x1bOC": "right",
    "\x1b[D": "left",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x01": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x05": "end",
    "\x1b[3~": "delete",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x15": "clear",
    "\x17": "word",
    "\x0b": "rest",
}


class Typing:
    """
    The line that is being typed. Pure: takes keys, gives lines.

    Attributes:
        text: so far.
        cursor: before which letter of it.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._history: list[str] = []
        self._at = 0
        self._begun = ""

    def feed(self, data: str) -> list[str | None]:
        """
        Type.

        Args:
            data: what the keys of a terminal send.

        Returns:
            The lines that are finished; `None` for the end (Ctrl-D on an empty line).
        """
        done: list[str | None] = []
        data = self._begun + data
        read = 0
        for key in _KEY.finditer(data):
            if key.start() != read:
                break
            read = key.end()
            if key[0] in "\r\n":
                done.append(self._finish())
            elif key[0] == "\x04" and not self.text:
                done.append(None)
            else:
                self._press(_NAMES.get(key[0], "delete" if key[0] == "\x04" else key[0]))
        # The beginning of a key that sends several characters; nothing that is very long is one.
        self._begun = data[read:] if len(data) - read < 32 else ""
        return done

    def _finish(self) -> str:
        line = self.text
        if line.strip() and line not in self._history[-1:]:
            self._history = [*self._history, line][-MOST_HISTORY:]
        self._at = len(self._history)
        self._set("")
        return line

    def _set(self, text: str) -> None:
        self.text, self.cursor = text, len(text)

    def _press(self, key: str) -> None:
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        if key in ("up", "down"):
            at = self._at + (1 if key == "down" else -1)
            if 0 <= at <= len(self._history):
                self._at = at
                self._set(self._history[at] if at < len(self._history) else "")
            return
        if key == "left":
            self.cursor = max(0, self.cursor - 1)
        elif key == "right":
            self.cursor = min(len(self.text), self.cursor + 1)
        elif key == "home":
            self.cursor = 0
        elif key == "end":
            self.cursor = len(self.text)
        elif key == "backspace":
            before = before[:-1]
        elif key == "delete":
            after = after[1:]
        elif key == "clear":
            before = ""
        elif key == "rest":
            after = ""
        elif key == "word":
            before = re.sub(r"\S*\s*$", "", before)
        elif len(key) == 1 and key.isprintable() and len(self.text) < LONGEST:
            before += key
        if before + after != self.text:
            self.text, self.cursor = before + after, len(before)

    def shown(self, prompt: str, width: int) -> tuple[str, int]:
        """
        Args:
            prompt: stands before it.
            width: in columns.

        Returns:
            As much of the line as there is room for, and the column of the cursor.
        """
        prompt = fit(prompt, max(0, width - 10))
        room = max(0, width - cells(prompt) - 1)
        start = 0
        while cells(self.text[start : self.cursor]) > room:
            start += 1
        column = cells(prompt) + cells(self.text[start : self.cursor])
        return prompt + fit(self.text[start:], room), column


class NoTerminal(Exception):
    """There is none to draw on."""


class Screen:
    """
    The terminal of this process. What it was before, it is again after `leave`.

    Args:
        encoding: of the terminal.

    Raises:
        NoTerminal: there is none.
    """

    def __init__(self, encoding: str) -> None:
        if os.environ.get("TERM", "dumb") == "dumb":
            raise NoTerminal("This terminal can't be drawn on (TERM is dumb, or not set).")
        try:
            # Not the standard input: the password may come from there.
            self._descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        except OSError:
            raise NoTerminal("There is no terminal to draw on. Run this in one.") from None
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._reactor: Any = None
        self._typed: Callable[[str | None], None] = lambda text: None
        self._changed: Callable[[], None] = lambda: None

    def size(self) -> tuple[int, int]:
        """Its columns and lines."""
        columns, lines = os.get_terminal_size(self._descriptor)
        return columns or 80, lines or 24

    def enter(
        self, reactor: Any, typed: Callable[[str | None], None], changed: Callable[[], None]
    ) -> None:
        """
        Begin to draw, and to read keys.

        Args:
            reactor: reads.
            typed: is called with what the keys send; with `None` when the terminal is gone.
            changed: is called when everything has to be drawn again.
        """
        self._reactor, self._typed, self._changed = reactor, typed, changed
        self._begin()
        for number, handler in (
            (signal.SIGWINCH, self._resized),
            (signal.SIGTSTP, self._suspended),
        ):
            self._handlers[number] = signal.signal(number, handler)
        reactor.addReader(self)
        # Ctrl-C: before connections close, and somebody says that on a screen that is left.
        reactor.addSystemEventTrigger("before", "shutdown", self.leave)

    def leave(self) -> None:
        """End it, as often as one likes."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        reactor, self._reactor = self._reactor, None
        if reactor is not None:
            reactor.removeReader(self)
        self._end()

    def show(self, lines: list[str], column: int) -> None:
        """
        Draw.

        Args:
            lines: all of them; each has room.
            column: of the cursor, in the last one.
        """
        if self._before is None:
            return
        # Erased before it is written: after the last column, a terminal would erase that.
        text = "\r\n\x1b[K".join(lines)
        self._write(f"\x1b[?25l\x1b[H\x1b[K{text}\x1b[J\x1b[{len(lines)};{column + 1}H\x1b[?25h")

    # What the reactor calls.

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "Screen"

    def doRead(self) -> None:
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:
            data = b""
        if data:
            self._typed(self._decoder.decode(data))
        else:
            self._reactor.removeReader(self)
            self._typed(None)

    def connectionLost(self, reason: Any) -> None:
        """The reactor stops. It has told all others to leave."""

    # How a terminal is made one page, and again what it was.

    def _begin(self) -> None:
        self._before = termios.tcgetattr(self._descriptor)
        mode = termios.tcgetattr(self._descriptor)
        # Ctrl-C and Ctrl-Z stay signals. Ctrl-S would stop the drawing, and with it the program.
        mode[0] &= ~(termios.IXON | termios.IXOFF)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)
        self._write("\x1b[?1049h\x1b[2J")

    def _end(self) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        self._write("\x1b[m\x1b[?25h\x1b[?1049l")
        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)
        except (OSError, termios.error):
            pass  # It is gone.

    def _resized(self, number: int, frame: Any) -> None:
        # A signal comes in the middle of anything, of drawing for instance.
        if self._reactor is not None:
            self._reactor.callFromThread(self._changed)

    def _suspended(self, number: int, frame: Any) -> None:
        self._end()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here it goes on when it is continued.
        signal.signal(signal.SIGTSTP, self._suspended)
        self._begin()
        self._resized(number, frame)

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass  # It is gone; reading also says so.
