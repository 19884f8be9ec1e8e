"""``asyncio_client.py [PORT]``: a client in a program that is asyncio's."""

import asyncio
import sys
from contextlib import asynccontextmanager

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred

from pbauth import Login, PerspectiveClient, connected


@asynccontextmanager
async def runningReactor():
    """Have Twisted run in asyncio's loop, which goes on being asyncio's."""
    asyncioreactor.install(asyncio.get_running_loop())
    from twisted.internet import reactor

    reactor.startRunning(installSignalHandlers=False)
    try:
        yield
    finally:
        # Its threads, for names of hosts and keys of passwords, would keep the program from ending.
        reactor.getThreadPool().stop()


async def ask(login, question):
    async with connected(login) as alice:
        return await alice.callRemote("ask", question)


async def askAgain(login, questions):
    loop = asyncio.get_running_loop()
    staying = PerspectiveClient(login)
    staying.startService()
    try:
        asking = [staying.callRemote("ask", each).asFuture(loop) for each in questions]
        return await asyncio.gather(*asking)
    finally:
        await staying.stopService().asFuture(loop)


async def main(port="8800"):
    login = Login(f"tcp:127.0.0.1:{port}", "alice", "open sesame", "questions")
    async with runningReactor():
        asking = Deferred.fromCoroutine(ask(login, "Is it alive"))
        print(await asking.asFuture(asyncio.get_running_loop()))
        print(await askAgain(login, ["Does it last", "Does it end"]))


asyncio.run(main(*sys.argv[1:]))
