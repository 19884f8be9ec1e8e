"""
A process that has imported what our programs import, and forks for each that a test starts.

Most of what a program takes to start is to import pbauth and Twisted.  What comes out of the fork
is a process like any other: a child of the process of the tests, with a process id, descriptors, a
terminal, an environment, a folder, arguments and ``sys.path`` of its own; it ends as the
interpreter ends.  What is not as in a program started from scratch:

- programs of one server share the seed of ``hash``;
- what is imported already is there, whether the program would import it or not;
- passwords are hashed with `Hashing.CHEAPEST` where the default is asked for;
- a traceback begins with lines of this module;
- modules are not torn down after a program that has ended well, which takes longer than the fork.

So who looks at these starts a program from scratch, and one program for each front door is started
like that, too.

With ``PYTHONUNBUFFERED`` the standard streams are made without regard to the descriptors under
them, so those of the server do for a program.

The server runs this file as a script, and imports nothing else of the tests.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import importlib
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

if sys.platform != "win32":
    import fcntl
    import termios

#: What most programs import.  None of these may choose a reactor, or look for plugins.
IMPORTED = (
    "pbauth.cli",
    "pbauth.tap",
    "twisted.internet.epollreactor",
    "twisted.internet.ssl",
    "twisted.scripts.twistd",
    "twisted.web.server",
)

#: What must not be there before the fork: it depends on the program's environment.
_TOO_EARLY = ("twisted.internet.reactor", "twisted.plugins")

#: Names that the interpreter imports by itself, if there are such modules.
_AT_START = ("sitecustomize", "usercustomize")

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1

# From <sched.h> and <sys/syscall.h>.
_CLONE_PARENT = 0x8000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}

_LARGEST_REQUEST = 2**18


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _environmentOfInterpreter(environment: dict[str, str]) -> dict[str, str]:
    """Return what of an environment counts when the interpreter starts, and not later."""
    return {
        name: value
        for name, value in environment.items()
        if name == "LANG"
        or (
            name != "PYTHONPATH"
            and name.startswith(("PYTHON", "LC_", "LD_", "MALLOC_", "COVERAGE_"))
        )
    }


class ForkServer:
    """
    The server, from the side of the tests.  It ends with the process that has started it.

    Attributes:
        pid: its process id.

    Args:
        environment: of the server; only programs whose interpreter would find the same in theirs
            can be forked.
        imported: the modules that it imports.
    """

    def __init__(self, environment: dict[str, str], imported: tuple[str, ...] = IMPORTED) -> None:
        self._fixed = _environmentOfInterpreter(environment)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *imported],
                env={name: value for name, value in environment.items() if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid
        atexit.register(self.stop)
        known = json.loads(self._connection.recv(_LARGEST_REQUEST))
        #: Where each module at the top was imported from.
        self._modules: dict[str, str] = known

    def stop(self) -> None:
        """End the server; the programs that it has forked are not its own."""
        atexit.unregister(self.stop)
        self._connection.close()
        self._process.wait()

    def canFork(self, folders: list[str], environment: dict[str, str]) -> bool:
        """
        Return whether a forked program would be like one that is started from scratch.

        Args:
            folders: where it looks for modules first.
            environment: its environment.
        """
        return _environmentOfInterpreter(environment) == self._fixed and not any(
            self._hides(Path(folder)) for folder in folders
        )

    def _hides(self, folder: Path) -> bool:
        """Return whether a folder has another module in place of one that is imported already."""
        try:
            names = os.listdir(folder)
        except OSError:
            return False
        for name in names:
            path = folder / name
            module = name.removesuffix(".py")
            if module in _AT_START:
                return True
            if path.is_dir():
                path /= "__init__.py"
                if not path.exists():
                    continue
            elif module == name:
                continue
            known = self._modules.get(module)
            if known is not None and not (known and os.path.samefile(known, path)):
                return True
        return False

    def fork(
        self,
        arguments: list[str],
        environment: dict[str, str],
        directory: str | None,
        descriptors: dict[int, int],
        terminal: bool,
    ) -> int:
        """
        Fork, and run a program.  It becomes a child of this process.

        Args:
            arguments: its command line, from the name of the interpreter on.
            environment: its environment.
            directory: where it runs.
            descriptors: its descriptors, and which of ours they are.
            terminal: whether its standard input is to be the terminal of a session of its own.

        Returns:
            Its process id.
        """
        request = {
            "arguments": arguments,
            "environment": environment,
            "directory": os.path.abspath(directory or os.curdir),
            "descriptors": list(descriptors),
            "terminal": terminal,
            "parent": os.getpid(),
        }
        rights = array.array("i", descriptors.values())
        self._connection.sendmsg(
            [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        )
        pid = self._connection.recv(100)
        assert pid, "The fork server has ended."
        return int(pid)


def _import(names: list[str]) -> None:
    """Import what programs import."""
    for name in names:
        importlib.import_module(name)
    for name in _TOO_EARLY:
        assert name not in sys.modules, name
    assert threading.active_count() == 1
    _hashCheaply()
    # What is there stays there: to look at it would copy its pages.
    gc.collect()
    gc.freeze()


def _hashCheaply() -> None:
    """Have passwords hashed with the fewest iterations where no others are asked for."""
    if "pbauth" not in sys.modules:
        return
    kind: Any = sys.modules["pbauth"].Hashing
    fewest = kind.CHEAPEST.iterations
    # The default of an attribute, and the defaults of parameters.
    kind.__init__.__defaults__ = (fewest, *kind.__init__.__defaults__[1:])
    for each in gc.get_objects():
        if type(each) is kind:
            object.__setattr__(each, "iterations", fewest)
    assert kind() == kind.CHEAPEST


def _serve(connection: socket.socket) -> None:
    """Fork for each request; return in the child, which is to run its program."""
    while True:
        received, ancillary, _, _ = connection.recvmsg(_LARGEST_REQUEST, socket.CMSG_SPACE(4 * 100))
        if not received:
            os._exit(0)
        rights = array.array("i")
        for _, _, data in ancillary:
            rights.frombytes(data)
        child = _forkForParent()
        if not child:
            _become(json.loads(received), list(rights))
            return
        connection.send(str(child).encode())
        for descriptor in rights:
            os.close(descriptor)


def _forkForParent() -> int:
    """Fork as `os.fork` does, but the new process is a child of this one's parent."""
    python, libc = ctypes.pythonapi, ctypes.CDLL(None)
    python.PyOS_BeforeFork()
    flags = _CLONE_PARENT | signal.SIGCHLD
    child: int = libc.syscall(_SYS_CLONE[platform.machine()], flags, 0, 0, 0, 0)
    if child:
        python.PyOS_AfterFork_Parent()
    else:
        python.PyOS_AfterFork_Child()
    return child


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process what the request says."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != request["parent"]:
        os._exit(1)
    _setDescriptors(dict(zip(request["descriptors"], descriptors, strict=True)))
    if request["terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.orig_argv[:] = request["arguments"]
    sys.argv[:] = programOf(request["arguments"])
    folders = foldersOf(request["arguments"], request["environment"], request["directory"])
    sys.path[:] = [*folders, *(each for each in sys.path if each not in folders[1:])]


def _setDescriptors(wanted: dict[int, int]) -> None:
    """Have these descriptors, and no others."""
    # Out of the way first, so that none is overwritten that is needed yet.
    above = max(wanted) + 1
    safe = {to: fcntl.fcntl(from_, fcntl.F_DUPFD, above) for to, from_ in wanted.items()}
    for to, from_ in safe.items():
        os.dup2(from_, to)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in wanted:
            try:
                os.close(int(name))
            except OSError:
                # That of the listing.
                pass


def programOf(arguments: list[str]) -> list[str]:
    """
    Return what becomes of ``sys.argv``.

    Args:
        arguments: the command line, from the name of the interpreter on.
    """
    _, first, *rest = arguments
    return [first, *rest[1:]] if first in ("-c", "-m") else [first, *rest]


def foldersOf(arguments: list[str], environment: dict[str, str], directory: str) -> list[str]:
    """
    Return where a program looks for modules before it looks where all programs look.

    Args:
        arguments: the command line, from the name of the interpreter on.
        environment: its environment.
        directory: where it runs.
    """
    first = {"-c": "", "-m": directory}.get(arguments[1])
    if first is None:
        first = os.path.dirname(os.path.realpath(os.path.join(directory, arguments[1])))
    more = environment.get("PYTHONPATH", "")
    folders = [os.path.join(directory, each) for each in more.split(os.pathsep)] if more else []
    return [first, *dict.fromkeys(map(os.path.normpath, folders))]


def _run() -> None:
    """Run the program that is asked for, and end as the interpreter does."""
    try:
        _runMain()
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        code = end.code or 0
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        # The interpreter has a word and a code for that.
        sys.exit(code)
    os._exit(code & 0xFF)


def _runMain() -> None:
    """Run the program that is asked for."""
    first, second = sys.orig_argv[1], [*sys.orig_argv, ""][2]
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    if first == "-m":
        runpy._run_module_as_main(second)  # type: ignore[attr-defined]
    elif first == "-c":
        exec(compile(second, "<string>", "exec"), main.__dict__)  # noqa: S102
    else:
        main.__file__ = os.path.abspath(first)
        exec(compile(Path(first).read_bytes(), main.__file__, "exec"), main.__dict__)  # noqa: S102


if __name__ == "__main__":
    # This file's folder, which no program looks into.
    del sys.path[0]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import(sys.argv[2:])
    with socket.socket(fileno=int(sys.argv[1])) as _connection:
        _connection.send(
            json.dumps(
                {
                    name: getattr(module, "__file__", None) or ""
                    for name, module in sys.modules.items()
                    if "." not in name and name != "__main__"
                }
            ).encode()
        )
        _serve(_connection)
        # The descriptor is closed already in the process that comes here.
        _connection.detach()
    _run()
