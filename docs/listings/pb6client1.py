"""User 1 of pb6server.py; also asks for the other's perspective, and is refused."""

import sys

from twisted.internet.task import react

from pbauth import KeyNotFound, Password, connect


async def main(reactor, port="8800"):
    password = Password("pass1")
    perspective = await connect(
        "127.0.0.1", int(port), "user1", password, "myservice", "perspective1"
    )
    await perspective.callRemote("foo", "bar from client 1")
    try:
        await connect("127.0.0.1", int(port), "user1", password, "myservice", "perspective2")
    except KeyNotFound as refusal:
        print("refused:", refusal)
    perspective.broker.transport.loseConnection()


react(lambda *args: main(*args), sys.argv[1:])
