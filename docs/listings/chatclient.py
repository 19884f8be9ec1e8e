"""
A user of chatserver.py: ``chatclient.py PORT NAME``, then lines like these on standard input::

    join vegetarians
    group vegetarians i like tofu
    user bob hello
    quit
"""

import sys

from twisted.internet import defer, stdio
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.spread import pb

from pbauth import Login, connected


class Screen(pb.Referenceable):
    def remote_show(self, line):
        print(line, flush=True)


class Keyboard(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, user):
        self.user = user
        self.done = defer.Deferred()

    def lineReceived(self, line):
        defer.ensureDeferred(self.obey(line.decode()))

    def connectionLost(self, reason):
        self.quit()

    def quit(self):
        if not self.done.called:
            self.done.callback(None)

    async def obey(self, line):
        command, *words = line.split(" ", 2)
        try:
            if command == "join":
                await self.user.callRemote("join", words[0])
            elif command == "group":
                await self.user.callRemote("sendToGroup", *words)
            elif command == "user":
                await self.user.callRemote("sendToUser", *words)
            elif command == "quit":
                return self.quit()
        except pb.RemoteError as error:
            print("error:", error, flush=True)
        else:
            print("done:", line, flush=True)


async def main(reactor, port, name):
    where = f"tcp:127.0.0.1:{port}"
    login = Login(where, name, f"{name}'s secret", "chat", client=Screen())
    async with connected(login) as user:
        keyboard = Keyboard(user)
        stdio.StandardIO(keyboard)
        print("attached", flush=True)
        await keyboard.done


react(lambda *args: main(*args), sys.argv[1:])
