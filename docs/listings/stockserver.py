"""A small master for Buildbot's workers; any other client of stock Twisted may log in."""

import sys

from twisted.application.service import MultiService
from twisted.internet import reactor

from pbauth import AuthServerFactory, Perspective, Policy, Service, SQLAuthorizer


class Master(Perspective):
    """What a worker gets when it logs in."""

    async def attached(self, worker, identity):
        self.worker = worker
        version = await worker.callRemote("getVersion")
        await worker.callRemote("print", f"welcome, {identity.name}")
        print(f"{identity.name} attached, version {version}", flush=True)
        return self

    def detached(self, worker, identity):
        print(f"{identity.name} detached", flush=True)

    def perspective_keepalive(self):
        """Workers call this every few minutes."""

    async def perspective_shutdown(self):
        """A worker that is to stop asks whether it may."""
        await self.worker.callRemote("shutdown")


class Builds(Service):
    def loadPerspective(self, name):
        return Master(name)


services = MultiService()
accounts = SQLAuthorizer("pbauth-state/accounts.sqlite", services)
Builds("builds", services, accounts)
policy = Policy(legacyLogin=True, defaultService="builds")

port = int(sys.argv[1]) if len(sys.argv) > 1 else 9989
listening = reactor.listenTCP(port, AuthServerFactory(accounts, policy), interface="127.0.0.1")
print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
reactor.run()
