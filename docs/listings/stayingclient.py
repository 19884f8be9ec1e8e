"""Stays logged in to pb5server.py, whatever becomes of that, and calls it every second."""

import itertools
import sys

from twisted.internet.task import deferLater, react
from twisted.spread import pb

from pbauth import Detached, PerspectiveClient, Unauthorized


class Doubler(PerspectiveClient):
    def attached(self, perspective):
        print("attached", flush=True)

    def detached(self):
        print("detached", flush=True)


async def main(reactor, port="8800"):
    client = Doubler(
        f"tcp:127.0.0.1:{port}", "pass1", "myservice", "perspective1", username="user1"
    )
    client.startService()
    for number in itertools.count(1):
        try:
            print("the answer is", await client.callRemote("foo", number), flush=True)
        except (pb.PBConnectionLost, Detached):
            print("nobody knows whether that was done", flush=True)
        except Unauthorized as refusal:
            print("no longer let in:", refusal, flush=True)
            break
        await deferLater(reactor, 1)
    await client.stopService()


react(lambda *args: main(*args), sys.argv[1:])
