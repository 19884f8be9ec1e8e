"""The harness's end of the processes under measurement: start, ask, end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

#: The folder that `tests` is in.
ROOT = Path(__file__).parent.parent.parent

#: Seconds that a process gets to end by itself.
_PATIENCE = 2.0

_SERVER, _CLIENT = "Server", "Client"


class BenchmarkFailed(Exception):
    """A process did not do what it was asked."""


class Program:
    """
    A process under measurement.

    Args:
        module: the peer's.
        role: the class in that module.
        core: that it runs on; `None`: on any.
        deadline: of all, by `time.monotonic`.
        options: for the class.
        folder: the checkout that it runs.
    """

    def __init__(
        self,
        module: str,
        role: str,
        core: int | None,
        deadline: float,
        options: dict[str, Any],
        folder: Path = ROOT,
    ) -> None:
        self.name = f"{role.lower()} of {module.rpartition('.')[2]}"
        self._deadline = deadline
        self._received = b""
        self._errors = tempfile.TemporaryFile()  # closed by `end`
        settings = {**options, "core": core, "lifetime": max(1, int(deadline - time.monotonic()))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.child", module, role, json.dumps(settings)],
            bufsize=0,
            cwd=folder,
            env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.pid = self._process.pid

    def ask(self, do: str, **arguments: Any) -> Any:
        """
        Have it do something, and wait for the answer.

        Raises:
            BenchmarkFailed: it could not, or the time of all was over before.
        """
        self.tell(do, **arguments)
        return self.hear()

    def tell(self, do: str, **arguments: Any) -> None:
        """Have it do something; `hear` waits for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            raise self._failed("ended too early") from None

    def hear(self) -> Any:
        """Wait for an answer."""
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise self._failed("took too long")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise self._failed("ended too early")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise self._failed(f"failed:\n{answer['error']}")
        return answer["answer"]

    def dismiss(self) -> None:
        """Let the process end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        assert self._process.stdout is not None
        self.dismiss()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _failed(self, what: str) -> BenchmarkFailed:
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()
        return BenchmarkFailed(f"The {self.name} {what}" + (f"\n{said}" if said else ""))


class Adopted(Protocol):
    """A process that a stage ends: first it lets all of them end, and then sees to it."""

    pid: int

    def dismiss(self) -> None: ...

    def end(self) -> None: ...


class Stage:
    """
    Starts processes, servers on one core and clients on another, and ends them all at the end of
    its ``with`` block.

    Attributes:
        pids: of all that were started so far.
        cores: of servers and of clients; `None` where there is only one.

    Args:
        deadline: of all, by `time.monotonic`.
        parent: a stage that is told the pids, too.
        other: the other checkout, if there is one.
    """

    def __init__(
        self, deadline: float, parent: Stage | None = None, other: Path | None = None
    ) -> None:
        self.deadline = deadline
        self.other: Path | None = other if parent is None else parent.other
        self.pids: list[int] = [] if parent is None else parent.pids
        self._programs: list[Adopted] = []
        allowed = sorted(os.sched_getaffinity(0))
        self.cores: tuple[int | None, int | None] = (
            (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)
        )

    def server(self, module: str, *, beside: bool = False, **options: Any) -> Program:
        """Start the server of a peer."""
        return self.start(module, _SERVER, self.cores[0], options, beside)

    def client(self, module: str, *, beside: bool = False, **options: Any) -> Program:
        """Start the client of a peer."""
        return self.start(module, _CLIENT, self.cores[1], options, beside)

    def start(
        self,
        module: str,
        role: str,
        core: int | None,
        options: dict[str, Any],
        beside: bool = False,
    ) -> Program:
        """Start a process of any class of a module (see `Program`), here or beside."""
        folder = self.other if beside and self.other is not None else ROOT
        program = Program(module, role, core, self.deadline, options, folder)
        self.adopt(program)
        return program

    def adopt(self, program: Adopted) -> None:
        """End a process that somebody else has started, as those that are started here."""
        self._programs.append(program)
        self.pids.append(program.pid)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in self._programs:
            program.dismiss()
        for program in self._programs:
            program.end()
