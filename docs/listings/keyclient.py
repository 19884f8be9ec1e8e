"""``keyclient.py PORT SERVER-KEY FILE NAME``: log in with a private key, and ask who one is."""

import sys

from twisted.internet.task import react

from pbauth import Login, PrivateKey, connected


async def main(reactor, port, serverKey, path, name):
    key = PrivateKey.fromFile(path)
    where = f"tls:127.0.0.1:{port}"
    async with connected(Login(where, name, key, "echo", trust=serverKey)) as echo:
        print(await echo.callRemote("whoami"))


react(main, sys.argv[1:])
