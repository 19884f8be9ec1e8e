"""The first run: who is made an administrator, and who sees the password."""

from __future__ import annotations

import math
import os
import re
import select
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import DefaultAuthorizer, Hashing
from pbauth.errors import DuplicateIdentity, StoreError
from pbauth.server.firstrun import (
    FirstRun,
    Reach,
    Terminal,
    findTerminal,
    howToBegin,
    randomPassword,
    reachOf,
)
from tests.support.processes import PATIENCE, PBAUTH, TWISTD, TWISTD_THERE, Program, run

PORT = "ssl:0:interface=127.0.0.1"
PASSWORD = r"password:  (\S+)"


class FirstRunTests(SynchronousTestCase):
    """What becomes of accounts in memory."""

    def setUp(self) -> None:
        self.accounts = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.logged: list[str] = []

        def observe(event: Any) -> None:
            self.logged.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def start(self, terminal: bool = True, accounts: Any = None) -> str:
        """Start it, and give what the terminal shows."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        first = FirstRun(
            self.accounts if accounts is None else accounts,
            lambda: Reach("tls:127.0.0.1:8787", "SHA256:xyz"),
            "Do this.",
            Terminal(writing) if terminal else None,
        )
        first.startService()
        if not terminal:
            os.close(writing)
        # The terminal was let go of, whatever happened.
        shown = os.read(reading, 10_000).decode()
        self.assertEqual(os.read(reading, 1), b"")
        return shown

    def test_terminal(self) -> None:
        """An administrator is made; the password is shown there, and told to nobody else."""
        shown = self.start()
        found = re.search(PASSWORD, shown)
        assert found is not None
        admin = self.accounts.identities["admin"]
        self.successResultOf(admin.verifyPlainPassword(found[1]))
        self.assertEqual(admin.getAllKeys(), [("admin", "admin")])
        self.assertIn("pbauth --server tls:127.0.0.1:8787 --login admin user list\n", shown)
        self.assertIn("SHA256:xyz", shown)
        log = "\n".join(self.logged)
        self.assertIn("'twistd pbauth' added the user 'admin'", log)
        self.assertNotIn(found[1], log)
        self.assertEqual(self.start(), "")

    def test_noTerminal(self) -> None:
        """Nothing is made; the log says what to do."""
        self.assertEqual(self.start(terminal=False), "")
        self.assertEqual(self.accounts.identities, {})
        self.assertIn("There are no accounts yet. Do this.", self.logged)

    def test_notEmpty(self) -> None:
        """With any account, nothing happens."""
        self.accounts.createIdentity("alice").save()
        for terminal in (True, False):
            self.assertEqual(self.start(terminal), "")
        self.assertEqual(list(self.accounts.identities), ["alice"])
        self.assertEqual(self.logged, [])

    def test_another(self) -> None:
        """Another server was faster: nothing is shown, since it has shown its own."""
        self.patch(
            self.accounts, "addIdentity", lambda identity: fail(DuplicateIdentity(identity.name))
        )
        self.assertEqual(self.start(), "")
        self.assertIn("Another server has created the administrator admin", self.logged[-1])

    def test_store(self) -> None:
        """Accounts that can't be read."""
        self.patch(self.accounts, "listIdentities", lambda *_: fail(StoreError("the disk")))
        self.assertEqual(self.start(), "")
        self.assertIn("no administrator was created", self.logged[-1])

    def test_closedTerminal(self) -> None:
        """A password that can't be shown is replaced by hand."""

        def write(terminal: Any, text: str) -> None:
            raise OSError(5, "Input/output error")

        self.patch(Terminal, "write", write)
        self.assertEqual(self.start(), "")
        self.assertIn("pbauth user passwd admin", self.logged[-1])


class PiecesTests(SynchronousTestCase):
    """What the message is made of."""

    def test_password(self) -> None:
        """More than 100 bits, of letters that look like no other."""
        passwords = {randomPassword() for _ in range(100)}
        self.assertEqual(len(passwords), 100)
        for password in passwords:
            self.assertRegex(password, "^[a-z2-9]{6}(-[a-z2-9]{6}){3}$")
        self.assertEqual(set("".join(passwords)) & set("lo01"), set())
        self.assertGreater(24 * math.log2(len(set("".join(passwords)) - {"-"})), 100)

    def test_reach(self) -> None:
        """How a client gets there, as one types it."""
        for address, fingerprint, endpoint in [
            (IPv4Address("TCP", "127.0.0.1", 8787), "SHA256:x", "tls:127.0.0.1:8787"),
            (IPv4Address("TCP", "0.0.0.0", 8787), "SHA256:x", "tls:127.0.0.1:8787"),  # noqa: S104
            (IPv4Address("TCP", "192.0.2.1", 1), None, "tcp:192.0.2.1:1"),
            (IPv6Address("TCP", "::", 1), None, "'tcp:\\:\\:1:1'"),
            (UNIXAddress("/run/a b:c"), None, "'unix:/run/a b\\:c'"),
            (None, "SHA256:x", "tls:HOST:PORT"),
        ]:
            self.assertEqual(reachOf(address, fingerprint), Reach(endpoint, fingerprint))

    def test_howToBegin(self) -> None:
        """The commands, for the same accounts."""
        for arguments, said in [
            (
                ("pbauth-state", None, False),
                "pbauth user add admin; pbauth key grant admin admin",
            ),
            (
                ("a b", None, False),
                "pbauth --state 'a b' user add admin; pbauth --state 'a b' key grant admin admin",
            ),
            (
                ("x", "sqlite:y", True),
                "pbauth --accounts sqlite:y user add NAME --no-password; "
                "pbauth --accounts sqlite:y key grant NAME admin",
            ),
        ]:
            self.assertEqual(howToBegin(*arguments), f"Create an administrator: {said}")

    def test_terminals(self) -> None:
        """The terminal of the program, else its standard error, else its standard output."""
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        real = os.open

        def open_(path: Any, *more: Any) -> int:
            if path == "/dev/tty":
                raise OSError(6, "No such device or address")
            return real(path, *more)

        self.patch(os, "open", open_)
        for terminals, found in [({2}, 2), ({1}, 1), ({1, 2}, 2), (set(), None)]:
            duplicated: list[int] = []
            self.patch(os, "isatty", terminals.__contains__)
            self.patch(os, "dup", lambda number, to=duplicated: (to.append(number), slave)[1])
            terminal = findTerminal()
            self.assertEqual(duplicated, [] if found is None else [found])
            self.assertEqual(terminal is None, found is None)
        assert terminal is None
        Terminal(slave).write("shown\n")
        self.assertEqual(os.read(master, 100), b"shown\r\n")


class ServerTests(TestCase):
    """Servers in processes of their own."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.state = os.path.join(self.folder, "state")
        self.log = os.path.join(self.folder, "twistd.log")

    def start(self, *arguments: str, terminal: bool = True, output: str = "") -> Program:
        """Start a server, on a terminal of its own unless it is said otherwise."""
        _, code, *more = TWISTD_THERE if terminal else TWISTD
        if output:
            # As a shell does.
            there = f"os.open({output!r}, os.O_WRONLY | os.O_CREAT, 0o600)"
            code = f"import os; os.dup2({there}, 1); {code}"
        program = Program(
            *("-c", code, *more, "--state", self.state, "--port", PORT, *arguments),
            terminal=terminal,
            stdin=None if terminal else "",
            forked=True,
        )
        self.addCleanup(program.stop)
        return program

    async def pbauth(self, *arguments: str, stdin: str = "") -> Program:
        """Run the command, in an empty folder."""
        known = os.path.join(self.folder, "known_servers")
        return await run(
            *(*PBAUTH, "--known-servers", known, "--accept-new", "--login-password-stdin"),
            *arguments,
            stdin=stdin,
            directory=self.folder,
        )

    async def test_life(self) -> None:
        """
        The password is shown on the terminal and nowhere else; the line to type next works with it;
        and so does the whole administration, over TLS.
        """
        output = os.path.join(self.folder, "stdout")
        server = self.start(output=output)
        password = (await server.waitFor(PASSWORD + r"\r"))[1]
        line = (await server.waitFor(r"pbauth (--server \S+ --login admin user list)\r"))[1]
        pin = (await server.waitFor(r"(SHA256:\S+)"))[1]
        self.assertNotIn("Listening", server.output)
        first, wrong = await gatherResults(
            [
                Deferred.fromCoroutine(self.pbauth(*line.split(), stdin=f"{each}\n"))
                for each in (password, "wrong")
            ]
        )
        self.assertEqual(first.output.splitlines()[-1], "admin\t1 key")
        self.assertIn("Login refused", wrong.output)
        server_ = line.split()[:2]
        for arguments, more in [
            (["user", "add", "bob", "--password-stdin"], "swordfish\n"),
            (["key", "grant", "bob", "echo"], ""),
        ]:
            ran = await self.pbauth(*server_, *arguments, stdin=f"{password}\n{more}")
            self.assertEqual(ran.exitCode, 0, ran.output)
        refused = await self.pbauth(*server_, "--login", "bob", "user", "list", stdin="swordfish\n")
        self.assertIn("No key to any perspective of service 'admin'", refused.output)
        server.kill("TERM")
        await server.whenEnded()
        log = Path(output).read_text()
        self.assertIn("was shown on the terminal", log)
        self.assertIn(pin, log)
        self.assertIn("'admin' added the user 'bob'", log)
        self.assertIn("'admin' granted 'bob' the key to 'bob' of 'echo'", log)
        self.assertNotIn(password, log)
        self.assertNotIn("swordfish", log)
        gone = await self.pbauth(*line.split(), stdin=f"{password}\n")
        self.assertIn("No connection", gone.output)
        again = self.start()
        await again.waitFor("Listening on")
        again.kill("TERM")
        await again.whenEnded()
        self.assertNotIn("password", again.output)

    async def test_background(self) -> None:
        """A server that runs in the background by itself has shown it, too, and not logged it."""
        pid = os.path.join(self.folder, "pid")
        front = ("-c", TWISTD_THERE[1], f"--pidfile={pid}", f"--logfile={self.log}", "pbauth")
        # The shell stays, as the one that somebody sits at does.
        words = shlex.join([sys.executable, *front, "--state", self.state, "--port", PORT])
        program = Program(
            "-c", f"{words}; read line", executable="/bin/sh", terminal=True, stdin=None
        )
        self.addCleanup(program.stop)
        password = (await program.waitFor(PASSWORD + r"\r"))[1]
        with open(os.pidfd_open(int(Path(pid).read_text()))) as server:
            signal.pidfd_send_signal(server.fileno(), signal.SIGTERM)
            # It is no child of ours, and nothing else tells that it has ended.
            ended, _, _ = select.select([server], [], [], PATIENCE)
        self.assertTrue(ended)
        self.assertNotIn(password, Path(self.log).read_text())
        program.write("\n")
        await program.whenEnded()

    async def test_nobodyThere(self) -> None:
        """Without a terminal nothing is made, and the log says how to make an administrator."""
        server = self.start(terminal=False)
        said = await server.waitFor(r"Create an administrator: (pbauth .*); (pbauth .*)\n")
        await server.waitFor("Listening on")
        listed = await run(*PBAUTH, "--state", self.state, "user", "list")
        self.assertIn("There are no users yet", listed.output)
        for line in said.groups():
            words = shlex.split(line)[1:]
            ran = await run(
                *PBAUTH, *words, *(["--password-stdin"] if "add" in words else []), stdin="secret\n"
            )
            self.assertEqual(ran.exitCode, 0, ran.output)
        where = (await server.waitFor(r"Listening on (\S+) over TLS"))[1]
        listed = await self.pbauth("--server", f"tls:{where}", "who-can", "admin", stdin="secret\n")
        self.assertEqual(listed.output.splitlines()[-1], "admin\tadmin")

    async def test_notHere(self) -> None:
        """Not where there is no administration, where it is another one, or with --auth."""
        passwords = os.path.join(self.folder, "passwords")
        Path(passwords).write_text("alice:swordfish\n")
        servers = [
            self.start("--state", os.path.join(self.folder, str(place)), *arguments)
            for place, arguments in enumerate(
                [
                    ("--no-admin",),
                    ("--service", "admin=pbauth.echo.EchoService"),
                    ("--auth", f"file:{passwords}"),
                ]
            )
        ]
        await gatherResults([server.waitFor("Listening on") for server in servers])
        await servers[2].waitFor("user add NAME --no-password")
        for place, server in enumerate(servers):
            server.kill("TERM")
            await server.whenEnded()
            self.assertNotIn("password:", server.output)
            state = os.path.join(self.folder, str(place))
            listed = await run(*PBAUTH, "--state", state, "user", "list")
            self.assertIn("There are no users yet", listed.output)

    async def test_twoAtOnce(self) -> None:
        """Two servers that start on the same accounts at once: one administrator, one password."""
        servers = [self.start() for _ in "12"]
        await gatherResults([server.waitFor("Listening on") for server in servers])
        # The slower one has nothing to say of it, or that it was the slower one.
        shows = [server.waitFor(PASSWORD) for server in servers]
        await DeferredList(shows, fireOnOneCallback=True, consumeErrors=True)
        shown = []
        for server in servers:
            server.kill("TERM")
            await server.whenEnded()
            shown += re.findall(PASSWORD, server.output)
            self.assertNotIn("Traceback", server.output)
        self.assertEqual(len(shown), 1, [server.output for server in servers])
