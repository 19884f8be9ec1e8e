"""``pbauth voucher``, and logins with what it prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import TestCase

from pbauth import AuthServerFactory, Voucher
from pbauth.server.state import openAuthorizer
from pbauth.testing import RecordingService
from tests.support.listings import DOCS
from tests.support.processes import PBAUTH, Program, run


class VoucherCommandTests(TestCase):
    """The command in processes of its own, on a state folder of its own."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.state = os.path.abspath(self.mktemp())
        await self.says("Added alice.", "user", "add", "alice", "--no-password")
        await self.says("alice holds", "key", "grant", "alice", "game")

    async def pbauth(self, *arguments: str) -> Program:
        """Run the command."""
        return await run(*PBAUTH, "--state", self.state, *arguments)

    async def says(self, said: str, *arguments: str) -> str:
        """Run the command, which succeeds and says something; give all that it says."""
        program = await self.pbauth(*arguments)
        self.assertIn(said, program.output)
        self.assertEqual(program.exitCode, 0, program.output)
        return program.output

    async def fails(self, said: str, *arguments: str) -> None:
        """Run the command, which fails with one line."""
        program = await self.pbauth(*arguments)
        self.assertIn(said, program.output)
        self.assertNotEqual(program.exitCode, 0)
        self.assertNotIn("Traceback", program.output)

    async def issue(self, *more: str) -> str:
        """Issue one of alice."""
        options = ("--label", "jenkins", "--until", "90d", *more)
        return (await self.says("pbv1:", "voucher", "issue", "alice", *options)).strip()

    async def test_life(self) -> None:
        """Issued, weakened, shown, listed, revoked."""
        limits = ("--service", "game", "--method", "get", "--method", "list", "--sessions", "2")
        text = await self.issue(*limits, "--network", "10.0.0.0/8", "--survives-password-change")
        voucher = Voucher.fromText(text)
        self.assertEqual(voucher.limits.methods, {"get", "list"})
        self.assertEqual(voucher.identityName, "alice")
        path = os.path.abspath(self.mktemp())
        Path(path).write_text(text)
        await self.fails("chmod 600", "voucher", "show", path)
        os.chmod(path, 0o600)
        shown = json.loads(await self.says("", "voucher", "show", path, "--json"))
        self.assertEqual(
            (shown["identity"], shown["label"], shown["networks"], shown["sessions"]),
            ("alice", "jenkins", ["10.0.0.0/8"], 2),
        )
        self.assertNotIn(text, await self.says("get,list", "voucher", "show", path))
        weaker = path + "-weaker"
        arguments = (
            "--method",
            "get",
            "--until",
            "1h",
            "--label",
            "job",
            "--out",
            weaker,
            "--final",
        )
        output = await self.says("Wrote", "voucher", "only", path, *arguments)
        self.assertNotIn("pbv1:", output)
        self.assertEqual(stat.S_IMODE(os.stat(weaker).st_mode), 0o600)
        self.assertEqual(Voucher.fromFile(weaker).limits.methods, {"get"})
        await self.fails("is there already", "voucher", "only", path, "--out", weaker)
        await self.fails("final", "voucher", "only", weaker)
        line = await self.says(voucher.id, "voucher", "list", "alice")
        self.assertIn("jenkins", line)
        self.assertIn("survives password changes", line)
        self.assertNotIn("pbv1:", line)
        await self.says("Revoked 1 voucher of alice.", "voucher", "revoke", "alice", "jenkins")
        await self.fails("no voucher 'jenkins'", "voucher", "revoke", "alice", "jenkins")
        await self.says("has no vouchers", "voucher", "list", "alice")

    async def test_page(self) -> None:
        """The commands of the page work, as they are printed."""
        page = (DOCS / "howto" / "vouchers.rst").read_text()
        commands = [shlex.split(line) for line in re.findall(r"^    pbauth (.*)$", page, re.M)]
        self.assertEqual(len(commands), 6)
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        output = ""
        for command in commands:
            if command[0] == "call":
                continue
            program = await run(*PBAUTH, "--state", self.state, *command, directory=folder)
            self.assertEqual(program.exitCode, 0, program.output)
            output += program.output
        for said in ("Wrote the voucher", "get", "jenkins", "Revoked 1 voucher of alice."):
            self.assertIn(said, output)
        (call,) = (command for command in commands if command[0] == "call")
        address = call.index("tls:127.0.0.1:8787")
        call[address] = "tcp:127.0.0.1:1"
        program = await run(*PBAUTH, *call, directory=folder)
        self.assertIn("No connection", program.output)

    async def test_mistakes(self) -> None:
        """Each gets a line that says what to do."""
        issue = ("voucher", "issue", "alice", "--label", "x", "--until")
        await self.fails("90 days", *issue, "91d")
        await self.fails("Write a time", *issue, "soon")
        await self.fails("expired already", *issue, "2020-01-01")
        await self.fails("host bits", *issue, "1d", "--network", "10.0.0.1/8")
        await self.fails("no user 'mallory'", "voucher", "list", "mallory")
        await self.fails("no user", "voucher", "issue", "mallory", "--label", "x", "--until", "1d")
        await self.fails("Can't read", "voucher", "show", "nothing-there")

    async def test_call(self) -> None:
        """``pbauth call --voucher`` logs in with one; and not any more, once it is revoked."""
        services = MultiService()
        authorizer: Any = openAuthorizer(self.state, None)
        self.addCleanup(authorizer.close)
        authorizer.setServiceCollection(services)
        RecordingService("game", services, authorizer)
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        port: Any = await endpoint.listen(AuthServerFactory(authorizer))
        self.addCleanup(port.stopListening)
        path = os.path.abspath(self.mktemp())
        Path(path).write_text(await self.issue("--method", "whoami", "--network", "127.0.0.0/8"))
        os.chmod(path, 0o600)
        call = ("call", "--voucher", path, f"tcp:127.0.0.1:{port.getHost().port}", "alice", "game")
        self.assertEqual(await self.says("alice", *call, "whoami"), '"alice"\n')
        await self.fails("'resign' is not among those", *call, "resign")
        await self.fails("one of 'alice', not of 'game'", *call[:4], "game", "whoami", "x")
        await self.says("Revoked 1", "voucher", "revoke", "alice", "jenkins")
        await self.fails("Login refused", *call, "whoami")
