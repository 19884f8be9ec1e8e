"""One login for two services on the first port of pb7server.py; another one on the second."""

import sys

from twisted.internet.task import react

from pbauth import IdentityConnector, Login, Unauthorized, connected


async def main(reactor, people="8800", operators="8801"):
    connector = IdentityConnector("127.0.0.1", int(people), "alice", "sesame")
    chat = await connector.requestService("chat")
    game = await connector.requestService("game", "white")
    print(await chat.callRemote("where"))
    print(await game.callRemote("where"))
    await connector.disconnect()

    where = f"tcp:127.0.0.1:{operators}"
    async with connected(Login(where, "root", "unguessable", "control", "any")) as control:
        print(await control.callRemote("where"))
    try:
        async with connected(Login(where, "alice", "sesame", "control", "any")):
            pass
    except Unauthorized as refusal:
        print("refused:", refusal)


react(lambda *args: main(*args), sys.argv[1:])
