"""User 2 of pb6server.py; also asks for the other's perspective, and is refused."""

import sys

from twisted.internet.task import react

from pbauth import KeyNotFound, Password, connect


async def main(reactor, port="8800"):
    password = Password("pass2")
    perspective = await connect(
        "127.0.0.1", int(port), "user2", password, "myservice", "perspective2"
    )
    await perspective.callRemote("foo", "bar from client 2")
    try:
        await connect("127.0.0.1", int(port), "user2", password, "myservice", "perspective1")
    except KeyNotFound as refusal:
        print("refused:", refusal)
    perspective.broker.transport.loseConnection()


react(lambda *args: main(*args), sys.argv[1:])
