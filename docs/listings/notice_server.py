"""A notice board for everybody, by stock Perspective Broker. It believes whatever it is told."""

from twisted.internet import reactor
from twisted.spread import pb


class Board(pb.Root):
    def remote_write(self, fromUser, message):
        print(f"{fromUser}: {message}", flush=True)


reactor.listenTCP(8800, pb.PBServerFactory(Board()), interface="127.0.0.1")
print("the board hangs at 127.0.0.1:8800", flush=True)
reactor.run()
