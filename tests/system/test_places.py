"""Where the command runs and writes: other users' folders, no home, full disks, closed output."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from pbauth import changePassword, connect
from tests.support.processes import PBAUTH, TWISTD, Program, run

NOBODY = 65534

#: Runs the command with each of these arguments, and with the output that it has been started with;
#: after what each says on standard error comes its exit code.
_EACH = """
import os, sys
from pbauth.cli import main
state, *commands = sys.argv[1:]
for command in commands:
    child = os.fork()
    if not child:
        sys.argv[1:] = ["--state", state, *command.split()]
        main(prog_name="pbauth")
    _, status = os.waitpid(child, 0)
    os.write(2, b"%d\\n" % os.waitstatus_to_exitcode(status))
"""


class PlacesTestCase(TestCase):
    """A folder of the test."""

    timeout = 120

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())

    async def pbauth(self, *arguments: str, **options: str) -> Program:
        """Run the command."""
        return await run(*PBAUTH, "--state", self.state, *arguments, **options)


class OwnerTests(PlacesTestCase):
    """What root makes in a folder of a service's user belongs to that user."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.state, 0o700)
        os.chown(self.state, NOBODY, NOBODY)

    def assertOwned(self, *names: str) -> None:
        """These files belong to the user of the service."""
        for name in names:
            found = os.stat(os.path.join(self.state, name))
            self.assertEqual((found.st_uid, found.st_gid), (NOBODY, NOBODY), name)

    async def test_made(self) -> None:
        """Accounts of each kind, the audit log, a restored key."""
        passwd = ("--accounts", f"passwd:{self.state}/passwd")
        audit = ("--audit", f"{self.state}/audit.jsonl")
        for accounts in ((), passwd):
            program = await self.pbauth(*accounts, *audit, "user", "add", "alice", "--no-password")
            self.assertEqual(program.exitCode, 0, program.output)
        self.assertOwned("accounts.sqlite", "decoys", "audit.jsonl", "passwd", "passwd.decoy")
        self.assertOwned("passwd.lock")
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.state}/passwd").st_mode), 0o600)

    async def test_sharedFolder(self) -> None:
        """In a folder where anybody may write, a file is its maker's."""
        os.chmod(self.state, 0o1777)
        await self.pbauth(
            "--accounts", f"passwd:{self.state}/p", "user", "add", "a", "--no-password"
        )
        self.assertEqual(os.stat(f"{self.state}/p").st_uid, 0)

    async def test_uid(self) -> None:
        """A server that root starts for another user can use what it has made."""
        # Not below a folder of root's, through which that user can't pass.
        folder = tempfile.mkdtemp(prefix="pbauth-uid-")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        self.state = os.path.join(folder, "state")
        front = [*TWISTD[:-1], "--uid", str(NOBODY), TWISTD[-1]]
        server = Program(
            *(*front, "--state", self.state, "--port", "ssl:0:interface=127.0.0.1"), forked=True
        )
        self.addCleanup(server.stop)
        said = await server.waitFor(r"Listening on 127.0.0.1:(\d+) over TLS, with the key (\S+)")
        self.assertOwned(".", "accounts.sqlite", "decoys", "server.pem")
        await server.waitFor("There is no administrator|no terminal|administrator")
        await self.pbauth("user", "add", "alice", "--password-stdin", stdin="number one\n")
        await self.pbauth("key", "grant", "alice", "echo")
        where, key = f"tls:127.0.0.1:{said[1]}", said[2]
        alice = await connect(where, None, "alice", "number one", "echo", trust=key)
        self.addCleanup(alice.broker.transport.loseConnection)
        self.assertEqual(await alice.callRemote("say", "hello"), "hello")
        # The server also writes.
        await changePassword(alice.identity, "number two")
        again = await connect(where, None, "alice", "number two", "echo", trust=key)
        self.addCleanup(again.broker.transport.loseConnection)
        await self.pbauth("user", "lock", "alice")
        await again.broker.whenClosed()
        self.assertOwned("accounts.sqlite", "accounts.sqlite-wal", "accounts.sqlite-shm")


class OutputTests(PlacesTestCase):
    """Each trouble is one line, and the exit code is not 0."""

    async def run_(self, redirection: str, *commands: str, **environment: str) -> str:
        """
        Run commands with their output somewhere.

        Returns:
            What they say on standard error, and after each its exit code.
        """
        ran = subprocess.run(
            [
                *("sh", "-c", f'exec "$@" {redirection}', "sh"),
                *(sys.executable, "-c", _EACH, self.state, *commands),
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **environment},
            text=True,
            timeout=60,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return ran.stderr

    async def test_output(self) -> None:
        """Standard output on a full disk, or closed."""
        await self.pbauth("user", "add", "alice", "--no-password")
        for redirection, reason in (
            (">/dev/full", "No space left"),
            (">&-", "Bad file descriptor"),
        ):
            said = await self.run_(redirection, "user list", "export", "--help")
            line = rf"Error: Can't write to standard output: {reason}[^\n]*\n1\n"
            self.assertRegex(said, rf"^({line}){{3}}$")

    async def test_encoding(self) -> None:
        """A name that the locale can't show."""
        await self.pbauth("user", "add", "zo\N{SNOWMAN}", "--no-password")
        said = await self.run_("", "user list", PYTHONIOENCODING="latin-1")
        self.assertRegex(said, r"^Error: [^\n]*U\+2603[^\n]*LC_ALL=C.UTF-8\n1\n$")

    async def test_dangling(self) -> None:
        """The state folder, or the file in it, is a link to nothing."""
        target = os.path.abspath(self.mktemp())
        os.symlink(target, self.state)
        for command in (("user", "list"), ("user", "add", "alice", "--no-password")):
            program = await self.pbauth(*command)
            self.assertRegex(program.output, rf"^Error: [^\n]*{target}[^\n]*\n$")
            self.assertEqual(program.exitCode, 1)
        os.mkdir(target, 0o700)
        Path(target, "accounts.sqlite").symlink_to("/nonexistent/file")
        for command in (("user", "list"), ("user", "add", "alice", "--no-password")):
            program = await self.pbauth(*command)
            self.assertRegex(program.output, r"^Error: Can't [^\n]*accounts.sqlite[^\n]*\n$")
            self.assertEqual(program.exitCode, 1)

    async def test_noHome(self) -> None:
        """No HOME, and no home folder of the user's: the file has to be named."""
        code = (
            "import os, pwd; del os.environ['HOME']; pwd.getpwuid = {}.__getitem__; "
            "from pbauth.cli import main; main(prog_name='pbauth')"
        )
        program = await run(
            "-c",
            code,
            "call",
            "tls:127.0.0.1:1",
            "a",
            "b",
            "c",
            directory=os.path.dirname(self.state),
        )
        self.assertIn("Error: You have no home folder. Use --known-servers FILE.", program.output)
        self.assertNotEqual(program.exitCode, 0)
