"""
A chat in which nobody can speak in another's name.

No method takes the name of the one who calls it: that is the name of the perspective, and only
its owner holds the key to it.
"""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.spread import pb

from pbauth import AuthServerFactory, DefaultAuthorizer, Perspective, Service


class User(Perspective):
    def detached(self, clientref, identity):
        if not self.clients:
            for members in self.getService().groups.values():
                members.discard(self)

    def perspective_join(self, groupName):
        self.getService().groups.setdefault(groupName, set()).add(self)

    def perspective_sendToGroup(self, groupName, text):
        members = self.getService().groups.get(groupName, ())
        if self not in members:
            raise pb.Error(f"Join {groupName} before you speak there.")
        for member in members:
            member.show(f"[{groupName}] {self.perspectiveName}: {text}")

    def perspective_sendToUser(self, userName, text):
        user = self.getService().perspectives.get(userName)
        if user is None:
            raise pb.Error(f"{userName} is not here.")
        user.show(f"{self.perspectiveName} to you: {text}")

    def show(self, line):
        # All of them: the user may have logged in more than once.
        if self.clients:
            self.clients.callRemote("show", line)


class Chat(Service):
    def __init__(self, *args):
        super().__init__(*args)
        self.groups = {}

    def loadPerspective(self, name):
        return User(name)


services = MultiService()
authorizer = DefaultAuthorizer(services)
Chat("chat", services, authorizer)
for name in ("alice", "bob", "eve"):
    identity = authorizer.createIdentity(name)
    identity.setPassword(f"{name}'s secret")
    identity.addKeyByString("chat", name)
    identity.save()

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8800
listening = reactor.listenTCP(port, AuthServerFactory(authorizer), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
reactor.run()
