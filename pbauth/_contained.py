"""What the application's code raises, where our work for others has to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import Logger


@contextmanager
def contained(log: Logger, text: str, **fields: Any) -> Iterator[None]:
    """
    Log what the application's code raises, with its traceback, and go on after the block.

    Args:
        log: what it is logged by.
        text: the format of the message.
        fields: what the format names.
    """
    try:
        yield
    except GeneratorExit:
        # A coroutine is closed while it waits in the block.
        raise
    except BaseException:
        # As the reactor does: not even `SystemExit` of a callback stops the work for others.
        log.failure(text, **fields)
