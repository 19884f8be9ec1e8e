"""Standard output and error of the command: what becomes of it where they can't be written to."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_OF_OUTPUT = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG)


@contextmanager
def outputFailing() -> Iterator[None]:
    """
    End the program with one line and an exit code that is not 0 if what it says can't be written:
    on a full disk, if standard output is closed, or in an encoding without these characters.
    """
    _openClosed()
    try:
        try:
            yield
        finally:
            # Otherwise Python finds that out when nobody can be told any more.
            sys.stdout.flush()
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        _end(
            f"the encoding {error.encoding} has no U+{ord(character):04X}. Use a locale with "
            "UTF-8, for instance: LC_ALL=C.UTF-8"
        )
    except OSError as error:
        # An error of a file has its name.
        if error.filename is not None or error.errno not in _OF_OUTPUT:
            raise
        _end(f"{error.strerror}.")


def _end(reason: str) -> NoReturn:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"Error: Can't write to standard output: {reason}\n")
        sys.stderr.flush()
    # What is left in a buffer goes nowhere.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, sys.stdout.fileno())
    raise SystemExit(1)


def _openClosed() -> None:
    """Open closed standard output so that writing to it fails, and no file gets its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False)))
