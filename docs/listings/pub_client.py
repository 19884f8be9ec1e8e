"""``pub_client.py NAME MESSAGE``: log in, write on the board, read it."""

import sys
from getpass import getpass

from twisted.internet.task import react

from pbauth import Unauthorized, connect


async def main(reactor, name, message):
    try:
        guest = await connect("127.0.0.1", 8800, name, getpass("Password: "), "pub")
    except Unauthorized as refusal:
        sys.exit(str(refusal))
    board = await guest.callRemote("board")
    await board.callRemote("write", message)
    for line in await board.callRemote("read"):
        print(line)
    guest.broker.transport.loseConnection()


react(main, sys.argv[1:])
