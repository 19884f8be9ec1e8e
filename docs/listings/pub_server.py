"""Two accounts, one service, one port."""

from pub import Pub
from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, DefaultAuthorizer

services = MultiService()
accounts = DefaultAuthorizer(services)
Pub("pub", services, accounts)

for name in ("alice", "bob"):
    identity = accounts.createIdentity(name)
    identity.setPassword(f"{name} likes tofu")
    identity.addKeyByString("pub", name)
    identity.save()

reactor.listenTCP(8800, AuthServerFactory(accounts), interface="127.0.0.1")
print("the pub is open at 127.0.0.1:8800", flush=True)
reactor.run()
