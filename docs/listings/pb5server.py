"""One user, one perspective. Run it, then run pb5client.py."""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, DefaultAuthorizer, Perspective, Service


class MyPerspective(Perspective):
    def perspective_foo(self, arg):
        print(f"I am {self.perspectiveName}. perspective_foo({arg}) called on", self, flush=True)
        return arg * 2


services = MultiService()
authorizer = DefaultAuthorizer(services)

service = Service("myservice", services, authorizer)
service.perspectiveClass = MyPerspective
perspective = service.createPerspective("perspective1")

identity = authorizer.createIdentity("user1")
identity.setPassword("pass1")
identity.addKeyForPerspective(perspective)
identity.save()

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8800
listening = reactor.listenTCP(port, AuthServerFactory(authorizer), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
reactor.run()
