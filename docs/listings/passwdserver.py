"""
A server whose accounts are in a passwd file, as an editor leaves it.

``passwdserver.py FILE [PORT]`` serves. Change the file meanwhile: who is taken out of it, or loses
a key, is logged out.
"""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, PasswdFileAuthorizer, Perspective, Service, StoreError


class Greeter(Perspective):
    def perspective_greet(self):
        return f"hello, {self.perspectiveName}"


class Greetings(Service):
    def loadPerspective(self, name):
        return Greeter(name)


services = MultiService()
try:
    accounts = PasswdFileAuthorizer(sys.argv[1], services)
except StoreError as refusal:
    sys.exit(str(refusal))
Greetings("greetings", services, accounts)

# Without it a change of the file counts at the next login only.
accounts.changesService().setServiceParent(services)
services.startService()

number = int(sys.argv[2]) if len(sys.argv) > 2 else 8800
port = reactor.listenTCP(number, AuthServerFactory(accounts), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{port.getHost().port}", flush=True)
reactor.run()
