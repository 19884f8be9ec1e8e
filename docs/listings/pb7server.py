"""
Three services, two authorizers, two ports.

On the first port the people log in, to the services "chat" and "game"; on the second one the
operators, to the service "control".  The accounts of one port mean nothing on the other.
Nobody makes the perspectives beforehand: the services make them when they are asked for.
"""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, DefaultAuthorizer, Perspective, Service


class Member(Perspective):
    def perspective_where(self):
        return f"{self.perspectiveName} in {self.getService().getServiceName()}"


class OnTheFly(Service):
    def loadPerspective(self, name):
        return Member(name)


class Control(Service):
    def getPerspectiveForIdentity(self, name, identity):
        # The service chooses by who asks, whatever name was asked for.
        perspective = Member(f"operator {identity.name}")
        perspective.setService(self)
        return perspective


def listen(authorizer, port):
    listening = reactor.listenTCP(port, AuthServerFactory(authorizer), interface="127.0.0.1")
    print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)


def addUser(authorizer, name, password, *keys):
    identity = authorizer.createIdentity(name)
    identity.setPassword(password)
    for key in keys:
        identity.addKeyByString(*key)
    identity.save()


people, operators = MultiService(), MultiService()
peopleAuthorizer, operatorAuthorizer = DefaultAuthorizer(people), DefaultAuthorizer(operators)
OnTheFly("chat", people, peopleAuthorizer)
OnTheFly("game", people, peopleAuthorizer)
Control("control", operators, operatorAuthorizer)

addUser(peopleAuthorizer, "alice", "sesame", ("chat", "alice"), ("game", "white"))
addUser(operatorAuthorizer, "root", "unguessable", ("control", "any"))

first = int(sys.argv[1]) if len(sys.argv) > 1 else 8800
listen(peopleAuthorizer, first)
listen(operatorAuthorizer, first and first + 1)
reactor.run()
