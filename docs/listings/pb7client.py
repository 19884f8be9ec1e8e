"""One login for two services on the first port of pb7server.py; another one on the second."""

import sys

from twisted.internet.task import react

from pbauth import IdentityConnector, Unauthorized, connect


async def main(reactor, people="8800", operators="8801"):
    connector = IdentityConnector("127.0.0.1", int(people), "alice", "sesame")
    chat = await connector.requestService("chat")
    game = await connector.requestService("game", "white")
    print(await chat.callRemote("where"))
    print(await game.callRemote("where"))
    await connector.disconnect()

    control = await connect("127.0.0.1", int(operators), "root", "unguessable", "control", "any")
    print(await control.callRemote("where"))
    control.broker.transport.loseConnection()
    try:
        await connect("127.0.0.1", int(operators), "alice", "sesame", "control", "any")
    except Unauthorized as refusal:
        print("refused:", refusal)


react(lambda *args: main(*args), sys.argv[1:])
