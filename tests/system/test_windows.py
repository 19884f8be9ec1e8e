"""
Where there is no POSIX: clients on Windows are many of those that Perspective Broker has.

A process that can't import what only POSIX has imports the package, and logs in.
"""

from __future__ import annotations

from pbauth import AuthServerFactory
from pbauth.testing import MemoryServer, RecordingService
from tests.support.processes import Program
from tests.support.serving import ServingTestCase

_BLOCKED = """
import sys
from twisted.internet import reactor, task
# What Twisted itself may use here is imported by now; from here on nothing gets at these.
for name in ("fcntl", "pwd", "grp", "termios", "tty", "pty", "resource", "spwd", "crypt"):
    sys.modules[name] = None
"""

_EVERYTHING = (
    _BLOCKED
    + """
import pbauth, pbauth.testing, pbauth.errors, pbauth.interfaces, pbauth.echo
for name in pbauth.__all__:
    getattr(pbauth, name)
memory = pbauth.testing.MemoryServer()
pbauth.testing.RecordingService("game", memory.services, memory.authorizer)
memory.addUser("alice", "secret", ("game", "alice"))
login = memory.logIn("alice", "secret", "game")
memory.flush()
found = []
login.addBoth(found.append)
print("in memory:", type(found[0]).__name__)
import pbauth.cli
"""
)

_CLIENT = (
    _BLOCKED
    + """
import pbauth
async def main(reactor):
    login = pbauth.Login("127.0.0.1", "alice", "secret", "game", port=int(sys.argv[1]))
    perspective = await login.run(reactor)
    print("I am", await perspective.callRemote("whoami"))
    perspective.broker.transport.loseConnection()
    await perspective.broker.whenClosed()
task.react(main)
"""
)


class ImportTests(ServingTestCase):
    """In a process of its own."""

    async def run_(self, source: str, *arguments: str) -> str:
        """Run a program from scratch, and give what it says."""
        program = Program("-c", source, *arguments, forked=False)
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        return program.output

    async def test_everything(self) -> None:
        """All that is public can be imported, and the test kit works."""
        self.assertIn("in memory: RemoteReference", await self.run_(_EVERYTHING))

    async def test_client(self) -> None:
        """A client logs in over TCP, and calls."""
        memory = MemoryServer()
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        port = self.listen(AuthServerFactory(memory.authorizer))
        self.assertIn("I am alice", await self.run_(_CLIENT, str(port)))
