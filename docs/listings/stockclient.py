"""A client of stockserver.py, by Twisted alone: pbauth need not be installed where it runs."""

import sys
from getpass import getpass

from twisted.cred.credentials import UsernamePassword
from twisted.internet.task import react
from twisted.spread import pb


class Worker(pb.Referenceable):
    """What the server may call."""

    def remote_getVersion(self):
        return "1.0"

    def remote_print(self, message):
        print(message)


async def main(reactor, port="9989", name="worker1"):
    password = getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    factory = pb.PBClientFactory()
    reactor.connectTCP("127.0.0.1", int(port), factory)
    credentials = UsernamePassword(name.encode(), password.encode())
    try:
        master = await factory.login(credentials, Worker())
    except pb.RemoteError as refusal:
        sys.exit(f"refused: {refusal}")
    await master.callRemote("keepalive")
    # To drop the reference is to log out.
    del master


react(lambda *args: main(*args), sys.argv[1:])
