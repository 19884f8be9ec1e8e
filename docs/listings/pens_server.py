"""The board gives everybody a pen of their own. A pen writes in one name only."""

from twisted.internet import reactor
from twisted.spread import pb


class Pen(pb.Referenceable):
    def __init__(self, name):
        self.name = name

    def remote_write(self, message):
        print(f"{self.name}: {message}", flush=True)


class Desk(pb.Root):
    def remote_givePen(self, name):
        return Pen(name)


reactor.listenTCP(8800, pb.PBServerFactory(Desk()), interface="127.0.0.1")
print("the pens are at 127.0.0.1:8800", flush=True)
reactor.run()
