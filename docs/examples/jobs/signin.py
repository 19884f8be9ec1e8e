"""What the programs on a terminal share: which servers they know, and errors in one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth.errors import WireError

#: The same file as that of the command `pbauth`.
KNOWN_SERVERS = os.path.join(click.get_app_dir("pbauth"), "known_servers")


def run(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """
    Run the reactor until a coroutine is done.

    Args:
        main: takes the reactor.

    Raises:
        click.ClickException: what the user can do something about.
    """
    failures: list[Failure] = []

    def start(reactor: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(main(reactor)).addErrback(failures.append)

    try:
        react(start)
    except SystemExit:
        pass
    for failure in failures:
        if failure.check(WireError, TimeoutError, ConnectError, ConnectionClosed, pb.Error):
            raise click.ClickException(failure.getErrorMessage())
        failure.raiseException()


def askPassword() -> str:
    """Ask for a password; Ctrl-C ends the question although a reactor runs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        password: str = click.prompt("Password", hide_input=True, err=True)
        return password
    finally:
        signal.signal(signal.SIGINT, before)
