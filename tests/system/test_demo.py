"""`pbauth demo`, run as people run it."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from tests.support.processes import PBAUTH, Program, run

BROKEN = """
import os
import sys
if "twisted" in sys.orig_argv:
    print("no twist here", flush=True)
    os._exit(3)
"""


class DemoTests(TestCase):
    """The demonstration shows what it should, and cleans up after itself."""

    async def test_demo(self) -> None:
        """All that a newcomer should see is there, in order, and the exit code is 0."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        program = Program(*PBAUTH, "demo", TMPDIR=folder)
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        position = 0
        for line in [
            "Added alice, with a random password",
            "Added bob, with a random password",
            "A server process listens on 127.0.0.1",
            "attached() is called for alice",
            "attached() is called for bob",
            "alice's client is called back: 'hello, alice'",
            "it answers: you are alice",
            "bob's client is called back: 'hello, bob'",
            "it answers: you are bob",
            "wrong password: refused",
            "not on her keyring",
            "detached() is called for alice",
            "detached() is called for bob",
        ]:
            position = program.output.find(line, position)
            self.assertNotEqual(position, -1, f"{line!r} in\n{program.output}")
        self.assertEqual(os.listdir(folder), [])

    async def test_reason(self) -> None:
        """Where the server can't start, the exit code is 1 and the reason is told."""
        broken = os.path.abspath(self.mktemp())
        os.mkdir(broken)
        with open(os.path.join(broken, "sitecustomize.py"), "w") as file:
            file.write(BROKEN)
        program = Program(*PBAUTH, "demo", PYTHONPATH=broken)
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 1, program.output)
        self.assertIn("The server ended by itself", program.output)
        self.assertIn("no twist here", program.output)
        self.assertNotIn("Traceback", program.output)

    async def test_asModule(self) -> None:
        """`python -m pbauth` is the command."""
        program = await run(*PBAUTH, "--version")
        self.assertRegex(program.output, r"^pbauth, version \d")
