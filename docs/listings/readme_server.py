from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, Perspective, Service, SQLAuthorizer


class Greeter(Perspective):
    def perspective_greet(self, greeting):
        # Who calls is not an argument: nobody can pretend to be somebody else.
        return f"{greeting}, {self.perspectiveName}!"


class Greetings(Service):
    def loadPerspective(self, name):
        return Greeter(name)


services = MultiService()
accounts = SQLAuthorizer("accounts.sqlite", services)
Greetings("greetings", services, accounts)

alice = accounts.createIdentity("alice")
alice.setPassword("open sesame")
alice.addKeyByString("greetings", "alice")
reactor.callWhenRunning(lambda: alice.save().addErrback(print))
reactor.listenTCP(8800, AuthServerFactory(accounts), interface="127.0.0.1")
reactor.run()
