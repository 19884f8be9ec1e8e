"""
A program for `test_killed`: changes accounts in child processes, and kills them.

Usage: ``killed.py STATE ROUNDS``.  Each round a child does one ``user add`` or ``user passwd``,
and is killed at another moment of it.  Prints a line for each: the operation, the name, and
whether the child was done.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

from pbauth import Hashing
from pbauth.admin.administration import Administration
from pbauth.cli.running import runOnce
from pbauth.server.state import openAuthorizer


def change(state: str, operation: str, name: str, password: str) -> None:
    """What the command does, with cheap hashing: most of the time it should be writing."""

    async def run(reactor: Any) -> None:
        authorizer = openAuthorizer(state, hashing=Hashing.CHEAPEST, reactor=reactor)
        administration = Administration(authorizer)
        await getattr(administration, operation)(name, password)
        authorizer.close()

    runOnce(run)


def main(state: str, rounds: int) -> None:
    """Kill."""
    chance = random.Random(7)
    # About how long it takes undisturbed; the moments of death are spread over that.
    length = 0.0
    for round_ in range(-3, rounds):
        operation, name = ("setPassword", "alice") if round_ % 2 else ("addUser", f"user{round_}")
        begun = time.monotonic()
        child = os.fork()
        if not child:
            change(state, operation, name, f"password {round_}")
            os._exit(0)
        if round_ >= 0:
            time.sleep(chance.uniform(0.2, 1.1) * length)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        wasKilled = os.WIFSIGNALED(status)
        if round_ < 0:
            length = time.monotonic() - begun
        else:
            # The machine may be faster or slower by now.
            length *= 1.1 if wasKilled else 0.9
        print(operation, name, "killed" if wasKilled else "done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
