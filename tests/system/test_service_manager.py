"""The server under a service manager: systemd's protocols and unit, logrotate, and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import connect, getObjectAt
from pbauth.cli.units import FILES, readFile
from tests.support.processes import AS_SYSTEMD, PBAUTH, TWISTD, Program, run

PORT = "tcp:0:interface=127.0.0.1"


def programAt(name: str) -> str | None:
    """The path of a program of the administrator's."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


class ServerTests(TestCase):
    """A server as a process of its own."""

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())

    async def serve(self, *arguments: str, **options: Any) -> Program:
        """Start it, and wait until it listens."""
        server = Program(*TWISTD, "--state", self.state, *arguments, **options)
        self.addCleanup(server.stop)
        await server.waitFor("Listening on")
        return server

    async def test_notified(self) -> None:
        """The service manager learns that it listens, lives and stops."""
        path = f"/tmp/pbauth-{os.getpid()}.notify"  # noqa: S108
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            manager.bind(path)
            self.addCleanup(os.unlink, path)
            manager.settimeout(30)
            server = await self.serve("--port", PORT, NOTIFY_SOCKET=path, WATCHDOG_USEC="200000")
            heard = [await deferToThread(manager.recv, 100) for _ in range(3)]
            self.assertEqual(heard, [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"])
            server.kill("TERM")
            while heard[-1] != b"STOPPING=1":
                heard.append(await deferToThread(manager.recv, 100))
            await server.whenEnded()

    async def test_passedSocket(self) -> None:
        """It speaks TLS on a socket that systemd has opened."""
        with closing(socket.socket()) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            server = Program(
                *("-c", AS_SYSTEMD, str(listening.fileno())),
                *(*TWISTD, "--state", self.state, "--port", "ssl:systemd=0"),
                descriptors={listening.fileno(): listening.fileno()},
            )
            self.addCleanup(server.stop)
            said = await server.waitFor(
                r"Listening on 127.0.0.1:(\d+) over TLS, with the key (\S+)"
            )
        self.assertEqual(int(said.group(1)), port)
        place = ("--state", self.state)
        await run(*PBAUTH, *place, "user", "add", "alice", "--password-stdin", stdin="secret\n")
        await run(*PBAUTH, *place, "key", "grant", "alice", "echo")
        where = f"tls:127.0.0.1:{port}"
        perspective = await connect(where, None, "alice", "secret", "echo", trust=said.group(2))
        self.assertEqual(await perspective.callRemote("say", "hello"), "hello")
        closed = perspective.broker.whenClosed()
        perspective.broker.transport.loseConnection()
        await closed

    async def test_noSocket(self) -> None:
        """Without one it says so."""
        server = await run(*TWISTD, "--state", self.state, "--port", "ssl:systemd=0")
        self.assertIn("systemd has not passed such a socket.", server.output)
        self.assertEqual(server.exitCode, 1)

    async def test_hungUp(self) -> None:
        """SIGHUP does not end it, also where there is nothing to reload."""
        server = await self.serve("--port", PORT)
        port = (await server.waitFor(r"Listening on 127.0.0.1:(\d+)")).group(1)
        for _ in "12":
            # It runs, once it takes a connection.
            root = await getObjectAt("127.0.0.1", int(port))
            closed = root.broker.whenClosed()
            root.broker.transport.loseConnection()
            await closed
            server.kill("HUP")
        server.kill("INT")
        await server.whenEnded()
        self.assertIn((server.exitCode, server.signal), [(0, None), (None, signal.SIGINT)])

    async def test_auditToClosedOutput(self) -> None:
        """Where the output is closed, its number is that of another file by the time of a login."""
        line = 'exec "$@" >&-'
        command = ("sh", "-c", line, "sh", sys.executable, *TWISTD, "--state", self.state)
        server = await run(
            *command[1:], "--port", PORT, "--audit", "-", executable="/bin/sh", forked=False
        )
        self.assertIn("The standard output, where the audit log goes, is closed.", server.output)
        self.assertEqual(server.exitCode, 1)

    async def test_auditToOutput(self) -> None:
        """The audit log goes to the standard output, a line of JSON each."""
        server = await self.serve("--port", PORT, "--audit", "-")
        port = (await server.waitFor(r"Listening on 127.0.0.1:(\d+)")).group(1)
        attempt = await run(
            *(*PBAUTH, "call", f"tcp:127.0.0.1:{port}", "nobody", "echo", "whoami"),
            *("--password-stdin",),
            stdin="wrong\n",
        )
        self.assertEqual(attempt.exitCode, 1)
        line = (await server.waitFor(r'(?m)^(\{.*"login.refused".*\})$')).group(1)
        self.assertEqual(json.loads(line)["identity"], "nobody")

    async def test_noPort(self) -> None:
        """A number that is none of a port is one line, whatever the endpoint."""
        for port in ("tcp:70000:interface=127.0.0.1", r"tcp6:-1:interface=\:\:1"):
            server = await run(*TWISTD, "--state", self.state, "--port", port)
            self.assertIn(f"pbauth: Can't listen on {port}: ", server.output)
            self.assertNotIn("Traceback", server.output)
            self.assertEqual(server.exitCode, 1)

    async def test_background(self) -> None:
        """One that goes to the background, where its port is taken, ends with the reason."""
        folder = self.mktemp()
        os.mkdir(folder)
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            command = [each for each in TWISTD if each != "-n"]
            server = await run(
                *command, "--state", self.state, "--port", port, directory=folder, forked=False
            )
        self.assertIn(f"Can't listen on {port}: Address already in use.", server.output)
        self.assertEqual(server.exitCode, 1)


class FileTests(SynchronousTestCase):
    """What ``pbauth print-unit`` prints."""

    if programAt("systemd-analyze") is None or programAt("logrotate") is None:
        skip = "systemd or logrotate is missing. On Debian: apt install systemd logrotate"

    def test_unit(self) -> None:
        """systemd takes the unit as it is."""
        folder = Path(self.mktemp())
        folder.mkdir()
        unit = folder / "pbauth.service"
        unit.write_text(readFile("systemd"))
        program = str(programAt("systemd-analyze"))
        done = subprocess.run(
            [program, "verify", "--man=no", str(unit.absolute())],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual((done.stdout + done.stderr, done.returncode), ("", 0))

    def test_logrotate(self) -> None:
        """logrotate rotates the audit log by the file, and has the server open it again."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(mode=0o700)
        log = folder / "audit.jsonl"
        log.write_text('{"event":"x"}\n')
        reloaded = folder / "reloaded"
        text = readFile("logrotate")
        for before, after in (
            ("/var/log/pbauth/audit.jsonl", str(log)),
            ("systemctl reload pbauth.service", f"touch {reloaded}"),
            ("create 0600 pbauth pbauth", "create 0600 root root"),
            ("su pbauth pbauth", "su root root"),
        ):
            self.assertIn(before, text)
            text = text.replace(before, after)
        configuration = folder / "pbauth.logrotate"
        configuration.write_text(text)
        configuration.chmod(0o600)
        subprocess.run(
            [str(programAt("logrotate")), "-f", "-s", str(folder / "state"), str(configuration)],
            check=True,
            timeout=60,
        )
        self.assertTrue(reloaded.exists())
        self.assertEqual(log.read_text(), "")
        self.assertEqual(log.stat().st_mode & 0o777, 0o600)
        (old,) = folder.glob("audit.jsonl.*")
        self.assertEqual(old.read_text(), '{"event":"x"}\n')

    def test_options(self) -> None:
        """The server has the options that the files name."""
        for kind in ("systemd", "container"):
            for option in ("--port",):
                self.assertIn(option, readFile(kind))
        self.assertIn("EXPOSE 8787", readFile("container"))
        self.assertEqual([*FILES], ["systemd", "logrotate", "container", "prometheus", "fail2ban"])


class CommandTests(TestCase):
    """The command."""

    async def test_prints(self) -> None:
        """Each file, with the folder of the programs."""
        printed = await run(*PBAUTH, "print-unit")
        self.assertIn("Type=notify", printed.output)
        self.assertNotIn("/opt/pbauth", printed.output)
        printed = await run(*PBAUTH, "print-unit", "logrotate")
        self.assertEqual(printed.output, readFile("logrotate"))
