"""`pbauth passwd`, in a process of its own, beside a server that runs."""

from __future__ import annotations

import os
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import gatherResults

from pbauth import IdentityWrapper, PrivateKey, Unauthorized
from pbauth.errors import ProtocolViolation
from tests.support.keys import KEY
from tests.support.processes import PBAUTH, Program
from tests.support.tls import TLSTestCase


class PasswdTests(TLSTestCase):
    """A server with alice."""

    def setUp(self) -> None:
        self.port = self.serve()
        self.alice = self.authorizer.identities["alice"]

    def start(self, *options: str, stdin: str | None = "", terminal: bool = False) -> Program:
        """Start the command."""
        where = (f"tls:localhost:{self.port}", "alice", "--trust", self.pin)
        program = Program(*PBAUTH, "passwd", *where, *options, stdin=stdin, terminal=terminal)
        self.addCleanup(program.stop)
        return program

    def keyFile(self, encryption: Any) -> str:
        """Let alice in by a key, and write it to a file."""
        self.alice.addPublicKey(PrivateKey(KEY).publicKey)
        path = os.path.abspath(self.mktemp())
        form = serialization.PrivateFormat.PKCS8
        with open(path, "wb") as file:
            file.write(KEY.private_bytes(serialization.Encoding.PEM, form, encryption))
        os.chmod(path, 0o600)
        return path

    async def test_changed(self) -> None:
        """By two lines: the old password and the new one."""
        program = await self.start("--password-stdin", stdin="secret\nchanged\n").whenEnded()
        self.assertEqual(program.output, "Changed the password of alice.\n")
        self.assertEqual(program.exitCode, 0)
        await self.alice.verifyPlainPassword("changed")
        with self.assertRaises(Unauthorized):
            await self.alice.verifyPlainPassword("secret")

    async def test_byKey(self) -> None:
        """By a key, and one line; two lines if the key has a passphrase."""
        plain = self.keyFile(serialization.NoEncryption())
        secret = self.keyFile(serialization.BestAvailableEncryption(b"sesame"))
        for path, stdin, password in [
            (plain, "changed\n", "changed"),
            (secret, "sesame\nonce more\n", "once more"),
        ]:
            program = await self.start("--key", path, "--password-stdin", stdin=stdin).whenEnded()
            self.assertEqual(program.exitCode, 0, program.output)
            await self.alice.verifyPlainPassword(password)

    async def test_terminal(self) -> None:
        """On a terminal: the old one, and the new one twice; nothing is echoed."""
        program = self.start(stdin=None, terminal=True)
        await program.waitFor(r"(?m)^Password: ")
        program.write("secret\n")
        await program.waitFor("New password: ")
        program.write("changed\n")
        await program.waitFor("Repeat for confirmation: ")
        program.write("changed\n")
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        self.assertNotIn("secret", program.output)
        self.assertNotIn("changed", program.output)
        await self.alice.verifyPlainPassword("changed")

    async def test_mistakes(self) -> None:
        """Each is one line, and the password stays."""
        programs = [
            (self.start("--password-stdin", stdin="wrong\nchanged\n"), "Login refused"),
            (self.start("--password-stdin", stdin="secret\n"), "no new password on standard"),
            (self.start("--password-stdin", stdin="secret\n\n"), "must not be empty"),
            (self.start("--password-stdin", stdin="secret\nshort\n"), "at least 6 characters"),
            (self.start(stdin="secret\nchanged\n"), "--password-stdin"),
        ]
        await gatherResults([program.whenEnded() for program, _ in programs])
        for program, said in programs:
            self.assertIn(said, program.output)
            self.assertEqual(len(program.output.splitlines()), 1, program.output)
            self.assertEqual(program.exitCode, 1)
        await self.alice.verifyPlainPassword("secret")

    async def test_notAllowed(self) -> None:
        """Where the server does not allow it, that is said."""

        def refuse(wrapper: Any, verifier: Any) -> None:
            raise ProtocolViolation

        self.patch(IdentityWrapper, "remote_changePassword", refuse)
        program = await self.start("--password-stdin", stdin="secret\nchanged\n").whenEnded()
        self.assertIn("does not let the password be changed", program.output)
        self.assertEqual(len(program.output.splitlines()), 1, program.output)
        self.assertEqual(program.exitCode, 1)
