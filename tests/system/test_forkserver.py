"""Programs that the fork server runs are like those that are started from scratch."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from pbauth import SQLAuthorizer, getObjectAt
from tests.support.processes import PATIENCE, PBAUTH, Program, childrenOf

ROOT = str(Path(__file__).parent.parent.parent)

#: Says what a program can find out about itself.
SAY = """
import fcntl, gc, json, os, random, signal, sys, threading

def nameOf(descriptor):
    try:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return "of the listing"
    return name.rstrip("[]0123456789")

random.seed()
print(json.dumps({
    "argv": sys.argv,
    "original": sys.orig_argv,
    "path": sys.path,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "descriptors": {
        n: nameOf(n) for n in os.listdir("/proc/self/fd") if nameOf(n) != "of the listing"
    },
    "streams": [
        [each.fileno(), each.name, each.mode, each.encoding, each.errors, each.line_buffering,
         each.write_through, each.isatty(), type(each.buffer).__name__]
        for each in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "session": [os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0)],
    "parent": os.getppid(),
    "foreground": os.isatty(0) and os.tcgetpgrp(0) == os.getpid(),
    "signals": {n: str(signal.getsignal(n)).split(" at ")[0] for n in range(1, signal.NSIG)},
    "masked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "name": __name__,
    "main": vars(sys.modules["__main__"]) is globals(),
    "file": globals().get("__file__"),
    "threads": threading.active_count(),
    "reactor": "twisted.internet.reactor" in sys.modules,
    "filters": sys.warnoptions,
    "read": sys.stdin.read() if not os.isatty(0) else None,
    "umask": os.umask(0o22),
}))
"""

#: What ends in all the ways in which programs end.
END = """
import atexit, os, signal, sys, threading, time
how = sys.argv[1]
os.dup2(1, 2)  # What is written to two pipes is read in any order.
atexit.register(lambda: print("at exit"))
print("started", end="", flush=True)
threading.Thread(target=lambda: (threading.main_thread().join(), print("thread"))).start()
if how == "code":
    sys.exit(3)
elif how == "text":
    sys.exit("no more")
elif how == "error":
    raise ValueError("a bug")
elif how == "now":
    os._exit(4)
elif how == "signal":
    os.kill(os.getpid(), signal.SIGTERM)
elif how == "interrupt":
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""

#: A process of tests, with a server that ignores what is polite.
TESTS = """
from twisted.internet import reactor
from tests.support import processes
program = processes.Program("-c", SLEEP, forked=True, stdin=None)
program.waitFor("up").addCallback(
    lambda _: print("pids", program.process.pid, *(s.pid for s in processes._servers.values()))
)
reactor.run()
""".replace(
    "SLEEP",
    repr(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); "
        "time.sleep(60)"
    ),
)


class ForkTests(TestCase):
    """Each program is run twice."""

    if not sys.platform.startswith("linux"):
        skip = "Elsewhere than on Linux all programs are started from scratch."

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    async def both(self, *arguments: str, **options: Any) -> list[Program]:
        """Run a program by the fork server and from scratch."""
        programs = [Program(*arguments, forked=each, **options) for each in (True, False)]
        for program in programs:
            self.addCleanup(program.stop)
        self.assertEqual([program.isForked for program in programs], [True, False])
        await gatherResults([program.whenEnded() for program in programs])
        return programs

    async def assertSame(self, *arguments: str, **options: Any) -> dict[str, Any]:
        """A program finds the same in both cases; return that."""
        programs = await self.both(*arguments, **options)
        for program in programs:
            self.assertEqual(program.exitCode, 0, program.output)
        forked, scratch = (json.loads(program.output) for program in programs)
        for fact, value in scratch.items():
            self.assertEqual(forked[fact], value, fact)
        self.assertEqual(forked["parent"], os.getpid())
        return forked

    async def test_command(self) -> None:
        """A program on the command line."""
        found = await self.assertSame("-c", SAY, "--one", "two", stdin="read me")
        self.assertEqual(found["argv"], ["-c", "--one", "two"])
        self.assertEqual(found["read"], "read me")
        self.assertFalse(found["reactor"])
        self.assertEqual(sorted(found["descriptors"]), ["0", "1", "2"])

    async def test_script(self) -> None:
        """A program in a file, by a name that is relative or is a link."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "say.py").write_text(SAY)
        (self.folder / "link.py").symlink_to(elsewhere / "say.py")
        for name in (str(elsewhere / "say.py"), "elsewhere/say.py", "link.py"):
            found = await self.assertSame(name, "argument", directory=str(self.folder))
            self.assertEqual(found["path"][0], str(elsewhere))
            self.assertEqual(found["name"], "__main__")

    async def test_module(self) -> None:
        """A module, from the folder of the program or from elsewhere."""
        (self.folder / "saying.py").write_text(SAY)
        path = os.pathsep.join([str(self.folder), "relative", ".", "/nowhere", str(self.folder)])
        await self.assertSame("-m", "saying", "x", directory=str(self.folder))
        found = await self.assertSame("-m", "saying", PYTHONPATH=path)
        self.assertEqual(found["argv"], [str(self.folder / "saying.py")])
        await self.assertSame("-c", SAY, PYTHONPATH=path, directory=str(self.folder))

    async def test_terminal(self) -> None:
        """A program on a terminal: the leader of a session, in the foreground."""
        found = await self.assertSame("-c", SAY, terminal=True, stdin=None)
        self.assertTrue(found["foreground"])
        self.assertEqual(found["session"], [True, True])

    async def test_descriptors(self) -> None:
        """A program is given descriptors, and no others."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        found = await self.assertSame("-c", SAY, descriptors={3: writing, reading: reading, 9: 1})
        self.assertEqual(set(found["descriptors"]), {"0", "1", "2", "3", "9", str(reading)})

    async def test_ends(self) -> None:
        """A program ends as the interpreter ends."""
        for how, code, ended in (
            ("well", 0, None),
            ("code", 3, None),
            ("text", 1, None),
            ("error", 1, None),
            ("now", 4, None),
            ("signal", None, signal.SIGTERM),
            ("interrupt", None, signal.SIGINT),
        ):
            forked, scratch = await self.both("-c", END, how)
            self.assertEqual((scratch.exitCode, scratch.signal), (code, ended), scratch.output)
            self.assertEqual((forked.exitCode, forked.signal), (code, ended), forked.output)
            lines = [
                [line for line in each.output.splitlines() if not line.startswith("  ")]
                for each in (forked, scratch)
            ]
            self.assertEqual(*lines)

    async def test_signals(self) -> None:
        """A signal gets to a program, and nothing is left of it."""
        program = Program("-c", "import time; print('up'); time.sleep(60)", forked=True)
        self.addCleanup(program.stop)
        await program.waitFor("up")
        pid = program.process.pid
        self.assertIn(pid, childrenOf(os.getpid()))
        program.kill("TERM")
        await program.whenEnded()
        self.assertEqual(program.signal, signal.SIGTERM)
        self.assertFalse(Path(f"/proc/{pid}").exists())

    async def test_random(self) -> None:
        """No two programs draw the same numbers."""
        draw = (
            "import random, secrets, uuid; "
            "print(random.random(), secrets.token_hex(), uuid.uuid4())"
        )
        programs = [Program("-c", draw, forked=True) for _ in range(3)]
        await gatherResults([program.whenEnded() for program in programs])
        drawn = " ".join(program.output for program in programs).split()
        self.assertEqual(len(set(drawn)), 9, drawn)

    async def test_endsWithTheTests(self) -> None:
        """Programs and server end with the process of the tests, whichever way it ends."""
        tests = Program("-c", TESTS, forked=False, directory=str(self.folder), PYTHONPATH=ROOT)
        self.addCleanup(tests.stop)
        pids = [int(each) for each in (await tests.waitFor(r"pids (\d+) (\d+)\n")).groups()]
        ends = [os.pidfd_open(pid) for pid in pids]
        for each in ends:
            self.addCleanup(os.close, each)
        tests.kill()
        await tests.whenEnded()
        for each in ends:
            ready, _, _ = select.select([each], [], [], PATIENCE)
            self.assertEqual(ready, [each])

    async def test_fromScratch(self) -> None:
        """What counts at the start of the interpreter, or hides a module, isn't forked."""
        for name in ("sitecustomize.py", "twisted.py", "click/__init__.py"):
            folder = Path(self.mktemp()).absolute()
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("raise SystemExit('the other one')\n")
            for arguments, options in (
                (("-m", "json"), {"PYTHONPATH": str(folder)}),
                (("-m", "json"), {"directory": str(folder)}),
                (("-c", ""), {"directory": str(folder)}),
            ):
                program = Program(*arguments, forked=True, **options)
                self.addCleanup(program.stop)
                self.assertFalse(program.isForked)
        for more in ({"PYTHONHASHSEED": "1"}, {"LC_ALL": "C"}, {"PYTHONWARNINGS": "error"}):
            program = Program(*PBAUTH, "--version", **more)
            self.addCleanup(program.stop)
            self.assertFalse(program.isForked)
        (self.folder / "twisted" / "plugins").mkdir(parents=True)
        program = Program(*PBAUTH, "--version", PYTHONPATH=str(self.folder))
        await program.whenEnded()
        self.assertTrue(program.isForked)
        self.assertEqual(program.exitCode, 0)


class FrontDoorTests(TestCase):
    """Every way to start us, once from scratch, as people do."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def start(self, executable: str, *arguments: str, **options: Any) -> Program:
        """Start an installed script."""
        program = Program(
            *arguments,
            executable=os.path.join(sys.prefix, "bin", executable),
            directory=self.folder,
            forked=False,
            **options,
        )
        self.addCleanup(program.stop)
        return program

    async def test_pbauth(self) -> None:
        """`pbauth` and `python -m pbauth` are the command; passwords are hashed as they should."""
        for command, stdin, said in (
            (("pbauth", "user", "add", "alice", "--password-stdin"), "secret\n", "Added alice."),
            (("python", "-m", "pbauth", "user", "list"), "", "alice\t0 keys"),
        ):
            program = await self.start(*command, stdin=stdin).whenEnded()
            self.assertIn(said, program.output)
            self.assertEqual(program.exitCode, 0)
        accounts = SQLAuthorizer(os.path.join(self.folder, "pbauth-state", "accounts.sqlite"))
        self.addCleanup(accounts.close)
        (alice,) = await accounts.readRecords()
        ((_, verifier),) = alice.verifiers
        self.assertRegex(verifier, r"^SCRAM-SHA-256\$600000:")

    async def test_servers(self) -> None:
        """`twistd pbauth` and `twist pbauth` are the server; a polite signal ends it."""
        where = ("--port", "tcp:0:interface=127.0.0.1")
        for program in (
            self.start("twistd", "-n", "--pidfile=", "pbauth", *where, terminal=True, stdin=None),
            self.start("twist", "--log-format=text", "pbauth", *where, terminal=True, stdin=None),
        ):
            port = int((await program.waitFor(r"Listening on 127\.0\.0\.1:(\d+)"))[1])
            # It runs, once it takes a connection.
            root = await getObjectAt("127.0.0.1", port)
            root.broker.transport.loseConnection()
            await root.broker.whenClosed()
            program.kill("INT")
            await program.whenEnded()
            self.assertNotIn("Traceback", program.output)
