"""``notice_client.py NAME MESSAGE``: write on the board of notice_server.py."""

import sys

from twisted.internet.task import react
from twisted.spread import pb


async def main(reactor, name, message):
    factory = pb.PBClientFactory()
    reactor.connectTCP("127.0.0.1", 8800, factory)
    board = await factory.getRootObject()
    await board.callRemote("write", name, message)


react(main, sys.argv[1:])
