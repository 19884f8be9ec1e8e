"""``pub_client.py NAME MESSAGE``: log in, write on the board, read it."""

import sys
from getpass import getpass

from twisted.internet.task import react

from pbauth import Login, Unauthorized, connected


async def main(reactor, name, message):
    login = Login("tcp:127.0.0.1:8800", name, getpass("Password: "), "pub")
    try:
        async with connected(login) as guest:
            board = await guest.callRemote("board")
            await board.callRemote("write", message)
            for line in await board.callRemote("read"):
                print(line)
    except Unauthorized as refusal:
        sys.exit(str(refusal))


react(main, sys.argv[1:])
