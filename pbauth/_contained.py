"""What the application's code raises, where our work for others has to go on."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure


class contained:
    """
    Log what the application's code raises, with its traceback, and go on after the block.

    A class, since each login passes several such blocks: `contextlib.contextmanager` takes three
    times as long.

    Args:
        log: what it is logged by.
        text: the format of the message.
        fields: what the format names.
    """

    __slots__ = ("_fields", "_log", "_text")

    def __init__(self, log: Logger, text: str, **fields: Any) -> None:
        self._log = log
        self._text = text
        self._fields = fields

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Log the error, unless a coroutine is closed while it waits in the block."""
        if error is None or isinstance(error, GeneratorExit):
            return False
        # As the reactor does: not even `SystemExit` of a callback stops the work for others.
        self._log.failure(self._text, Failure(error, kind, traceback), **self._fields)
        return True
