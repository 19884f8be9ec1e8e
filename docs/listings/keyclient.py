"""``keyclient.py PORT SERVER-KEY FILE NAME``: log in with a private key, and ask who one is."""

import sys

from twisted.internet.task import react

from pbauth import PrivateKey, connect


async def main(reactor, port, serverKey, path, name):
    key = PrivateKey.fromFile(path)
    where = f"tls:127.0.0.1:{port}"
    echo = await connect(where, None, name, key, "echo", trust=serverKey)
    print(await echo.callRemote("whoami"))
    echo.broker.transport.loseConnection()


react(main, sys.argv[1:])
