"""Real processes under test: start, wait for what they say, end."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.process import Process, PTYProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from tests.support.forkserver import IMPORTED, ForkServer, foldersOf

#: Seconds after which what does not happen has failed.
PATIENCE = 60.0

# A server that finds a terminal makes an administrator: not on that of whoever runs the tests.
_ALONE = "import os; os.setsid(); "
# As the installed script has it: modules are not looked for where it is started.
_ELSEWHERE = "import sys; sys.path.remove(''); "

PBAUTH = ("-m", "pbauth")
_TWISTD = f"{_ELSEWHERE}from twisted.scripts.twistd import run; run()"
TWISTD = ("-c", f"{_ALONE}{_TWISTD}", "-n", "--pidfile=", "pbauth")
#: The same for a program that has a terminal of its own.
TWISTD_THERE = ("-c", _TWISTD, "-n", "--pidfile=", "pbauth")
#: Starts a program with a socket, as systemd does.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="port")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
TWIST = (
    *("-c", f"{_ALONE}import runpy; runpy.run_module('twisted', run_name='__main__')"),
    *("--log-format=text", "pbauth"),
)

_DOCUMENTATION = str(Path(__file__).parent.parent.parent / "docs") + os.sep


def _isImported(command: list[str]) -> bool:
    """Return whether the fork server has imported most of what a program imports."""
    executable, first, *rest = command
    if executable != sys.executable:
        return False
    if first == "-m":
        return rest[0] == "pbauth"
    if first == "-c":
        return rest[0] in (_TWISTD, TWISTD[1], TWIST[1])
    return os.path.realpath(first).startswith(_DOCUMENTATION)


def _canFork(
    imported: tuple[str, ...],
    command: list[str],
    environment: dict[str, str],
    directory: str | None,
) -> bool:
    """Return whether a program that a fork server runs is like one started from scratch."""
    if sys.platform != "linux":
        return False
    directory = os.path.abspath(directory or os.curdir)
    folders = [os.path.join(directory, each) for each in foldersOf(command, environment, directory)]
    return _forkServer(imported).canFork(folders, environment)


def _environment() -> dict[str, str]:
    """Return the environment of a program for which a test says nothing else."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def _forkServer(imported: tuple[str, ...]) -> ForkServer:
    """Return the server of this process that has imported this; the first program starts it."""
    if imported not in _servers:
        _servers[imported] = ForkServer(_environment(), imported)
    return _servers[imported]


_servers: dict[tuple[str, ...], ForkServer] = {}


class _Forked(Process):
    """A process that the fork server has forked."""

    proto: Any

    def _fork(
        self,
        path: Any,
        uid: Any,
        gid: Any,
        executable: Any,
        args: Any,
        environment: Any,
        **how: Any,
    ) -> None:
        server = _forkServer(self.proto.imported)
        self.pid = server.fork(args, environment, path, how["fdmap"], False)
        self.status = -1


class _ForkedOnTerminal(PTYProcess):
    """A process that the fork server has forked, on a terminal of its own."""

    proto: Any

    def _fork(
        self,
        path: Any,
        uid: Any,
        gid: Any,
        executable: Any,
        args: Any,
        environment: Any,
        **how: Any,
    ) -> None:
        descriptors = dict.fromkeys((0, 1, 2), how["slavefd"])
        server = _forkServer(self.proto.imported)
        self.pid = server.fork(args, environment, path, descriptors, True)
        self.status = -1


class Program(ProcessProtocol):
    """
    A program: in Python, with this Python, unless it is said otherwise.

    Attributes:
        output: what it has written so far, to both its outputs.
        exitCode: `None` while it runs.
        isForked: whether the fork server runs it.

    Args:
        arguments: of the interpreter, or of the executable.
        stdin: what the program reads; then its standard input ends. `None`: it stays open,
            for `write`.
        directory: where it runs.
        descriptors: more file descriptors for the program: its number, and ours.
        executable: its name or path.
        terminal: it runs on a terminal of its own, where `write` types.
        forked: whether a server forks it that has imported what it imports; otherwise it is started
            from scratch. `None`: what imports pbauth is forked. Whatever this says, what depends
            on the start of the interpreter is started from scratch.
        imported: what the server that forks it has imported.
    """

    def __init__(
        self,
        *arguments: str,
        stdin: str | None = "",
        directory: str | None = None,
        descriptors: dict[int, int] | None = None,
        executable: str = sys.executable,
        terminal: bool = False,
        forked: bool | None = None,
        imported: tuple[str, ...] = IMPORTED,
        **environment: str,
    ) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self.transport: Any
        self._stdin = stdin
        self._waiting: list[tuple[re.Pattern[str], int, Deferred[Any]]] = []
        self._ended: list[Deferred[Any]] = []
        self._received = b""
        self.imported = imported
        self.exitCode: int | None = None
        self.signal: int | None = None
        self._start(
            [executable, *arguments],
            {**_environment(), **environment},
            directory,
            None if terminal else {0: "w", 1: "r", 2: "r", **(descriptors or {})},
            _isImported([executable, *arguments]) if forked is None else forked,
        )

    def _start(
        self,
        command: list[str],
        environment: dict[str, str],
        directory: str | None,
        descriptors: dict[int, Any] | None,
        forked: bool,
    ) -> None:
        details = (self._reactor, command[0], command, environment, directory, self, None, None)
        self.process: Any
        self.isForked = forked and _canFork(self.imported, command, environment, directory)
        if not self.isForked:
            self.process = self._reactor.spawnProcess(
                *(self, command[0], command, environment, directory),
                childFDs=descriptors,
                usePTY=descriptors is None,
            )
        elif descriptors is None:
            self.process = _ForkedOnTerminal(*details, True)
        else:
            self.process = _Forked(*details, descriptors)

    @property
    def output(self) -> str:
        return self._received.decode("utf-8", "replace")

    def connectionMade(self) -> None:
        if self._stdin is not None:
            self.write(self._stdin)
            self.transport.closeStdin()

    def write(self, text: str) -> None:
        """Write to the program's standard input."""
        self.transport.write(text.encode())

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._received += data
        output = self.output
        for item in list(self._waiting):
            pattern, start, waiter = item
            found = pattern.search(output, start)
            if found:
                self._waiting.remove(item)
                waiter.callback(found)

    def processEnded(self, reason: Any) -> None:
        self.exitCode = reason.value.exitCode
        self.signal = reason.value.signal
        for pattern, _, waiter in self._waiting:
            waiter.errback(
                AssertionError(f"ended without saying {pattern.pattern!r}:\n{self.output}")
            )
        self._waiting = []
        for ended in self._ended:
            ended.callback(self)

    def waitFor(self, pattern: str, start: int = 0) -> Deferred[re.Match[str]]:
        """
        Wait until the output matches; fails if the program ends, or after `PATIENCE`.

        Args:
            pattern: to search for.
            start: how much of the output to leave out.
        """
        waiter: Deferred[Any] = Deferred()
        if self.exitCode is None and self.signal is None:
            self._waiting.append((re.compile(pattern), start, waiter))
            self.childDataReceived(1, b"")
        else:
            found = re.compile(pattern).search(self.output, start)
            if found is None:
                raise AssertionError(f"never said {pattern!r}:\n{self.output}")
            waiter.callback(found)

        def late(result: Any, seconds: float) -> Any:
            raise AssertionError(f"did not say {pattern!r}:\n{self.output}")

        return waiter.addTimeout(PATIENCE, self._reactor, late)

    def whenEnded(self, patience: float = PATIENCE) -> Deferred[Any]:
        """Wait until the program has ended by itself; fails after so many seconds."""
        ended: Deferred[Any] = Deferred()
        if self.exitCode is None and self.signal is None:
            self._ended.append(ended)
        else:
            ended.callback(self)

        def late(result: Any, seconds: float) -> Any:
            raise AssertionError(f"did not end:\n{self.output}")

        return ended.addTimeout(patience, self._reactor, late)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal, unless the program has ended."""
        try:
            self.process.signalProcess(signal)
        except ProcessExitedAlready:
            pass

    def stop(self) -> Deferred[Any]:
        """End the program, if it has not ended; for `addCleanup`."""
        self.kill()
        return DeferredList([self.whenEnded()], consumeErrors=True)


async def run(*arguments: str, **options: Any) -> Program:
    """Run a program, with the options of `Program`, to its end."""
    program = Program(*arguments, **options)
    try:
        await program.whenEnded()
    finally:
        await program.stop()
    return program


def isThere(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def childrenOf(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, which may hold anything, is in parentheses.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(path.parent.name))
    return found


async def checkInterrupted(test: TestCase, program: Program, said: str) -> None:
    """Ctrl-C ends a program that has started others, and these, at once and without a traceback.

    Args:
        test: the test.
        program: just started.
        said: a pattern; what the program says once the others run.
    """
    test.addCleanup(program.stop)
    await program.waitFor(said)
    started = childrenOf(program.process.pid)
    test.assertGreater(len(started), 2)
    program.kill("INT")
    await program.whenEnded()
    test.assertEqual(program.exitCode, 130, program.output)
    test.assertNotIn("Traceback", program.output)
    test.assertEqual([pid for pid in started if isThere(pid)], [])
