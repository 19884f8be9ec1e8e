"""
A server whose users' passwords are in somebody else's file, of lines ``name:password``.

``credserver.py FILE [PORT]`` makes a certificate, says its fingerprint, and serves.
"""

import sys

from twisted.application.service import MultiService
from twisted.cred.checkers import FilePasswordDB
from twisted.internet import reactor
from twisted.internet.ssl import PrivateCertificate

from pbauth import (
    AuthServerFactory,
    CredAuthorizer,
    Perspective,
    Policy,
    Service,
    fingerprintOf,
    makeCertificate,
    serverOptions,
)


class Notes(Perspective):
    def perspective_greet(self):
        return f"hello, {self.perspectiveName}"


class NotesService(Service):
    def loadPerspective(self, name):
        return Notes(name)


services = MultiService()
accounts = CredAuthorizer([FilePasswordDB(sys.argv[1])], services)
NotesService("notes", services, accounts)

# The checker knows passwords; what somebody holds the keys to is kept here.
alice = accounts.createIdentity("alice")
alice.addKeyByString("notes", "alice")
alice.save()

certificate = PrivateCertificate.loadPEM(makeCertificate())
factory = AuthServerFactory(accounts, Policy(mechanisms=["PLAIN"]))
number = int(sys.argv[2]) if len(sys.argv) > 2 else 8787
port = reactor.listenSSL(number, factory, serverOptions(certificate), interface="127.0.0.1")
print("the key is", fingerprintOf(certificate.original.to_cryptography()))
print(f"listening on 127.0.0.1:{port.getHost().port}", flush=True)
reactor.run()
