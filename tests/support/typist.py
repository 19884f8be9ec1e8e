"""
Types commands, one after the other, each on a terminal of its own, in a machine of
`tests.support.machine`: a program that needs nothing but Python.

It reads steps from a file, and writes what came of them to another one. A step is a pair: a path
and the text of a file to make; or a command of the shell and its answers, each a pair of what is
asked and what is typed. Exported variables and the folder are kept from one command to the next.
"""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import sys
from pathlib import Path

#: Seconds after which a command that has not ended has failed.
PATIENCE = 60

#: Keeps what a shell hands to the next one.
_KEEP = 'export -p > {state}; echo cd $(printf %q "$PWD") >> {state}'


def type_(command: str, answers: list[tuple[str, str]], state: str) -> tuple[int, str]:
    """Run a command; return its exit code and what the terminal shows."""
    script = f"trap {shlex.quote(_KEEP.format(state=state))} EXIT; . {state}; {command}"
    pid, terminal = pty.fork()
    if not pid:
        os.execv("/bin/bash", ["bash", "-c", script])  # noqa: S606
    signal.alarm(PATIENCE)
    seen, output, waiting = 0, "", list(answers)
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            data = b""
        if not data:
            break
        output += data.decode("utf-8", "replace").replace("\r\n", "\n")
        while waiting and waiting[0][0] in output[seen:]:
            asked, typed = waiting.pop(0)
            seen = output.index(asked, seen) + len(asked)
            os.write(terminal, typed.encode() + b"\n")
    signal.alarm(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output


def main(steps: str, results: str) -> None:
    """Do all steps, up to the first that fails; what came of them is written after each."""
    state = f"{results}.state"
    Path(state).touch()
    done: list[tuple[int, str]] = []
    for what, rest in json.loads(Path(steps).read_text()):
        if isinstance(rest, str):
            Path(what).parent.mkdir(parents=True, exist_ok=True)
            Path(what).write_text(rest)
            done.append((0, ""))
        else:
            done.append(type_(what, rest, state))
        Path(results).write_text(json.dumps(done))
        if done[-1][0]:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
