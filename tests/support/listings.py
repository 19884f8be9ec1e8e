"""Tests of programs of the documentation, which run as processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.processes import Program

DOCS = Path(__file__).parent.parent.parent / "docs"
LISTINGS = DOCS / "listings"


class ListingTestCase(TestCase):
    """Starts servers and runs clients."""

    async def serve(self, *arguments: str) -> tuple[Program, str]:
        """Start a server; give it, and the port that it listens on."""
        server = self.start(*arguments)
        listening = await server.waitFor(r"listening on 127\.0\.0\.1:(\d+)")
        return server, listening[1]

    def start(self, listing: str, *arguments: str, **options: Any) -> Program:
        """Start a program."""
        program = Program(str(LISTINGS / listing), *arguments, **options)
        self.addCleanup(program.stop)
        return program

    async def client(self, *arguments: str) -> str:
        """Run a client to its end, and give what it printed."""
        program = self.start(*arguments)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        return program.output
