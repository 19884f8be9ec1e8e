"""``pens_client.py NAME MESSAGE``: ask pens_server.py for a pen, and write with it."""

import sys

from twisted.internet.task import react
from twisted.spread import pb


async def main(reactor, name, message):
    factory = pb.PBClientFactory()
    reactor.connectTCP("127.0.0.1", 8800, factory)
    desk = await factory.getRootObject()
    pen = await desk.callRemote("givePen", name)
    await pen.callRemote("write", message)


react(main, sys.argv[1:])
