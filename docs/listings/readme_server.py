from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, DefaultAuthorizer, Perspective, Service


class Greeter(Perspective):
    def perspective_greet(self, greeting):
        # Who calls is not an argument: nobody can pretend to be somebody else.
        return f"{greeting}, {self.perspectiveName}!"


class Greetings(Service):
    perspectiveClass = Greeter


services = MultiService()
accounts = DefaultAuthorizer(services)
greetings = Greetings("greetings", services, accounts)
greetings.createPerspective("alice").makeIdentity("open sesame")

reactor.listenTCP(8800, AuthServerFactory(accounts), interface="127.0.0.1")
reactor.run()
