"""Ask the user, while a reactor runs that waits for the answer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pbauth.errors import ServerNotTrusted


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Let Ctrl-C and a polite kill end the body of the ``with``, in which the program waits for its
    user and the reactor for the program: they raise `KeyboardInterrupt`, as where no reactor runs,
    so that what a prompt did to the terminal is undone.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def askOnTerminal(address: str, pin: str) -> bool:
    """
    Ask the user whether to trust a server that is not known.

    Args:
        address: of the server.
        pin: the fingerprint of the key that it shows.

    Returns:
        The answer.

    Raises:
        ServerNotTrusted: there is no terminal to ask on.
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    if not sys.stdin.isatty():
        raise ServerNotTrusted(
            f"{shown(address, pin)} It is not one that you trust, and there is no terminal to ask "
            "on. If it is the right one, start the program on a terminal once."
        )
    with interruptible():
        return click.confirm(
            f"{shown(address, pin)} It is not known. Trust it from now on?",
            default=False,
            err=True,
        )


def shown(address: str, pin: str) -> str:
    """Return a sentence on the key that a server shows."""
    return f"The server {address} shows the key {pin}."
