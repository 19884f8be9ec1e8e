"""Logs in to pb5server.py, and calls its perspective."""

import sys

from twisted.internet.task import react

from pbauth import Login, connected


async def main(reactor, port="8800"):
    login = Login(f"tcp:127.0.0.1:{port}", "user1", "pass1", "myservice", "perspective1")
    async with connected(login) as perspective:
        print("got a perspective")
        print("the answer is", await perspective.callRemote("foo", 21))


react(lambda *args: main(*args), sys.argv[1:])
