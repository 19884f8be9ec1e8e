"""``sqlaccounts.py DATABASE [PORT]``: a server of one's own, on accounts that ``pbauth`` keeps."""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, Perspective, Service, SQLAuthorizer


class Greeter(Perspective):
    def perspective_greet(self):
        return f"hello, {self.perspectiveName}"


class Greetings(Service):
    def loadPerspective(self, name):
        return Greeter(name)


services = MultiService()
# The path of an SQLite file, or postgresql://user@host/database.
accounts = SQLAuthorizer(sys.argv[1], services)
Greetings("greetings", services, accounts)

# What others take away from an account ends its sessions here.
accounts.changesService().setServiceParent(services)
services.startService()
reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
reactor.addSystemEventTrigger("after", "shutdown", accounts.close)

port = int(sys.argv[2]) if len(sys.argv) > 2 else 8800
listening = reactor.listenTCP(port, AuthServerFactory(accounts), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
reactor.run()
