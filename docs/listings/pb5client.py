"""Logs in to pb5server.py, and calls its perspective."""

import sys

from twisted.internet.task import react

from pbauth import connect


async def main(reactor, port="8800"):
    perspective = await connect(
        "127.0.0.1", int(port), "user1", "pass1", "myservice", "perspective1"
    )
    print("got a perspective")
    print("the answer is", await perspective.callRemote("foo", 21))
    perspective.broker.transport.loseConnection()


react(lambda *args: main(*args), sys.argv[1:])
