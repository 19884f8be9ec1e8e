"""Two users, who come and go. Run it, then pb6client1.py and pb6client2.py."""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, DefaultAuthorizer, Perspective, Service


class MyPerspective(Perspective):
    def attached(self, clientref, identity):
        print(f"client of {identity.name} attached to {self.perspectiveName}", flush=True)
        return self  # what the client gets

    def detached(self, clientref, identity):
        print(f"client of {identity.name} detached from {self.perspectiveName}", flush=True)

    def perspective_foo(self, arg):
        print(f"{self.perspectiveName} was called with {arg!r}", flush=True)


services = MultiService()
authorizer = DefaultAuthorizer(services)
service = Service("myservice", services, authorizer)
service.perspectiveClass = MyPerspective

for name, password, perspectiveName in [
    ("user1", "pass1", "perspective1"),
    ("user2", "pass2", "perspective2"),
]:
    identity = authorizer.createIdentity(name)
    identity.setPassword(password)
    identity.addKeyForPerspective(service.createPerspective(perspectiveName))
    identity.save()

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8800
listening = reactor.listenTCP(port, AuthServerFactory(authorizer), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
reactor.run()
