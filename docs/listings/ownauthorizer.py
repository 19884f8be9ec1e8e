"""
An authorizer of one's own: accounts from a file like /etc/passwd.

Each line holds a name, a SCRAM verifier, and keys, with tabs in between::

    alice   SCRAM-SHA-256$600000:...   game/alice chat/alice

``ownauthorizer.py add FILE NAME KEY...`` appends a line, for a password on standard input;
``ownauthorizer.py serve FILE [PORT]`` serves.
"""

import os
import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import (
    Authorizer,
    AuthServerFactory,
    Hashing,
    Perspective,
    ScramVerifier,
    Service,
    Unauthorized,
)


class PasswdAuthorizer(Authorizer):
    def __init__(self, path, services):
        super().__init__(services)
        self.path = path

    def getIdentityRequest(self, name):
        # A plain value works; so would a Deferred, or a coroutine.
        with open(self.path) as file:
            for line in file:
                userName, verifier, keys = line.rstrip("\n").split("\t")
                if userName == name:
                    return self.makeIdentity(name, verifier, keys)
        raise Unauthorized()

    def makeIdentity(self, name, verifier, keys):
        identity = self.createIdentity(name)
        identity.setVerifiers({"SCRAM-SHA-256": ScramVerifier.decode(verifier)})
        for key in keys.split():
            identity.addKeyByString(*key.split("/"))
        return identity


class Greeter(Perspective):
    def perspective_greet(self):
        return f"hello, {self.perspectiveName}"


class Greetings(Service):
    def loadPerspective(self, name):
        return Greeter(name)


def add(path, name, *keys):
    password = sys.stdin.readline().rstrip("\n")
    verifier = ScramVerifier.fromPassword(password, os.urandom(16), Hashing().iterations)
    with open(path, "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write("\t".join([name, verifier.encode(), " ".join(keys)]) + "\n")


def serve(path, port="8800"):
    services = MultiService()
    authorizer = PasswdAuthorizer(path, services)
    Greetings("greetings", services, authorizer)
    factory = AuthServerFactory(authorizer)
    listening = reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    reactor.run()


{"add": add, "serve": serve}[sys.argv[1]](*sys.argv[2:])
