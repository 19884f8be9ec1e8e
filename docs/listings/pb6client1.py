"""User 1 of pb6server.py; also asks for the other's perspective, and is refused."""

import sys

from twisted.internet.task import react

from pbauth import KeyNotFound, Login, Password, connected


async def main(reactor, port="8800"):
    where = f"tcp:127.0.0.1:{port}"
    password = Password("pass1")
    login = Login(where, "user1", password, "myservice", "perspective1")
    async with connected(login) as perspective:
        await perspective.callRemote("foo", "bar from client 1")
    try:
        async with connected(Login(where, "user1", password, "myservice", "perspective2")):
            pass
    except KeyNotFound as refusal:
        print("refused:", refusal)


react(lambda *args: main(*args), sys.argv[1:])
