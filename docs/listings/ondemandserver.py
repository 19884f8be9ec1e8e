"""
A server that makes an identity for anyone that asks: with the
password 1234, which the user will probably never change.

``ondemandserver.py [PORT]`` serves.
"""

import os
import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, Hashing, OnDemandAuthorizer, Perspective, Service


class Guestbook(Perspective):
    def perspective_sign(self, text):
        print(f"{self.perspectiveName} wrote: {text}", flush=True)


class Guestbooks(Service):
    def loadPerspective(self, name):
        return Guestbook(name)


# Made once: to derive it again for each client that asks would let them keep the server busy.
verifiers = Hashing().makeVerifiers("1234", os.urandom(16))


def create(name):
    if name == "root":
        # Nobody of that name. (This may be a coroutine, or give a Deferred.)
        return None
    identity = accounts.createIdentity(name)
    identity.setVerifiers(verifiers)
    identity.addKeyByString("guestbook", name)
    return identity


services = MultiService()
accounts = OnDemandAuthorizer(create, services)
Guestbooks("guestbook", services, accounts)

number = int(sys.argv[1]) if len(sys.argv) > 1 else 8800
port = reactor.listenTCP(number, AuthServerFactory(accounts), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{port.getHost().port}", flush=True)
reactor.run()
