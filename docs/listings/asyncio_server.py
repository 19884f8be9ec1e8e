"""``asyncio_server.py [PORT]``: perspectives that use a library of asyncio's."""

import asyncio
import sys

from twisted.application.service import MultiService
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred

from pbauth import AuthServerFactory, DefaultAuthorizer, Perspective, Service


async def askLibrary(question):
    await asyncio.sleep(0.01)
    return f"{question}? Yes."


class Asker(Perspective):
    async def perspective_ask(self, question):
        asking = asyncio.ensure_future(askLibrary(question))
        return await Deferred.fromFuture(asking)


def main(port=8800):
    asyncioreactor.install()
    from twisted.internet import reactor

    services = MultiService()
    accounts = DefaultAuthorizer(services)
    questions = Service("questions", services, accounts)
    questions.perspectiveClass = Asker
    questions.createPerspective("alice").makeIdentity("open sesame")
    server = AuthServerFactory(accounts)
    listening = reactor.listenTCP(int(port), server, interface="127.0.0.1")
    print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
