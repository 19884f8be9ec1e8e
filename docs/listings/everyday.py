"""What applications need every day: errors of their own, deadlines, streams."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import pbauth
from pbauth.testing import MemoryServer


@pbauth.wireError
class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"There are only {left} of {item}.")
        self.item = item
        self.left = left


class Shop(pbauth.Service):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.log = []

    async def find(self, item):
        return item

    def askManufacturer(self, item):
        return Deferred()


@implementer(pbauth.ISessionObserver)
class Door:
    def __init__(self):
        self.log = []

    def sessionAttached(self, session):
        self.log.append(f"{session.identity.name} came from {session.peer.host}")

    def sessionDetached(self, session):
        self.log.append(f"{session.identity.name} went: {session.endReason.value}")


class Screen(pb.Referenceable):
    def __init__(self):
        self.shown = []

    def remote_show(self, text):
        self.shown.append(text)


class Customer(pbauth.Perspective):
    async def perspective_price(self, item):
        try:
            return await self.getService().askManufacturer(item)
        except CancelledError:
            self.getService().log.append("the customer is gone")
            raise

    async def perspective_reserve(self, item):
        await self.getService().find(item)
        session = pbauth.currentSession()
        return f"{item} for {session.identity.name} at {session.peer.host}"

    async def perspective_log(self, first):
        for number in range(first, 100):
            yield f"line {number}"

    async def perspective_picture(self, name, chunks):
        size = 0
        async for chunk in chunks:
            size += len(chunk)
        return f"{name}: {size} bytes"

    def perspective_order(self, item, count):
        if count > 3:
            raise OutOfStock(item, 3)
        return f"{count} of {item} for {self.perspectiveName}"


class Operator(pbauth.Perspective):
    def perspective_online(self):
        sessions = self.getService().online()
        return [(each.identity.name, each.peer.host, each.since) for each in sessions]

    async def perspective_broadcast(self, text):
        answers = await self.getService().clients.callEach("show", text, timeout=5)
        return sum(heard for client, heard, answer in answers)

    async def perspective_kick(self, name):
        shop = self.getService()
        for session in shop.online():
            if session.identity.name == name:
                await shop.authorizer.sessions.end(session)


async def order(shop, item, count):
    try:
        return await shop.callRemote("order", item, count)
    except OutOfStock as error:
        return await shop.callRemote("order", item, error.left)


async def price(shop, item):
    try:
        return await pbauth.call(shop, "price", item, timeout=5)
    except TimeoutError:
        return "ask again"


async def operate(staying):
    clerk = await staying.attach("shop", "clerk")
    return await clerk.callRemote("order", "pens", 1)


async def follow(shop, lines):
    async for line in pbauth.stream(shop, "log", 1):
        lines.append(line)
        if len(lines) == 3:
            break


async def readAll(shop):
    return [line async for line in pbauth.stream(shop, "log", 0)]


async def upload(shop, data):
    return await shop.callRemote("picture", "pens.png", pbauth.sendBytes(data))


class ShopTests(SynchronousTestCase):
    def setUp(self):
        self.memory = MemoryServer()
        self.shop = Shop("shop", self.memory.services, self.memory.authorizer)
        self.shop.perspectiveClass = Customer
        self.shop.createPerspective("alice")
        self.memory.addUser("alice", "secret", ("shop", "alice"))
        self.alice = self.successResultOf(self.memory.logIn("alice", "secret", "shop"))

    def test_whoCalls(self):
        answer = self.alice.callRemote("reserve", "pens")
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "pens for alice at 127.0.0.1")

    def test_whoIsThere(self):
        door = Door()
        self.shop.observeSessions(door)
        self.memory.addUser("bob", "secret", ("shop", "alice"))
        bob = self.successResultOf(self.memory.logIn("bob", "secret", "shop", "alice"))
        names = [session.identity.name for session in self.shop.online()]
        self.assertEqual(names, ["alice", "bob"])
        self.memory.disconnect(bob)
        self.assertEqual(door.log, ["bob came from 127.0.0.1", "bob went: connection lost"])

    def test_operator(self):
        self.shop.addPerspective(Operator("olga"))
        self.memory.addUser("olga", "secret", ("shop", "olga"))
        screen = Screen()
        bob = self.memory.logIn("alice", "secret", "shop", client=screen)
        olga = self.successResultOf(self.memory.logIn("olga", "secret", "shop"))
        for method, arguments, expected in [
            ("broadcast", ["We close at six."], 1),
            ("kick", ["alice"], None),
        ]:
            answer = olga.callRemote(method, *arguments)
            self.memory.flush()
            self.assertEqual(self.successResultOf(answer), expected)
        self.assertEqual(screen.shown, ["We close at six."])
        answer = olga.callRemote("online")
        self.memory.flush()
        self.assertEqual([name for name, host, since in self.successResultOf(answer)], ["olga"])
        kicked = self.successResultOf(bob).callRemote("order", "pens", 1)
        self.memory.flush()
        self.failureResultOf(kicked, pbauth.Detached)

    def test_streams(self):
        lines = []
        reading = Deferred.fromCoroutine(follow(self.alice, lines))
        sending = Deferred.fromCoroutine(upload(self.alice, bytes(1_000_000)))
        self.memory.flush()
        self.successResultOf(reading)
        self.assertEqual(lines, ["line 1", "line 2", "line 3"])
        reading = Deferred.fromCoroutine(readAll(self.alice))
        self.memory.flush()
        self.assertEqual(len(self.successResultOf(reading)), 100)
        self.assertEqual(self.successResultOf(sending), "pens.png: 1000000 bytes")

    def test_furtherPerspective(self):
        self.shop.createPerspective("clerk")
        self.memory.addUser("bob", "secret", ("shop", "alice"), ("shop", "clerk"))
        login = pbauth.Login(self.memory, "bob", "secret", "shop", "alice")
        staying = pbauth.PerspectiveClient(login, reactor=self.memory.clock)
        staying.startService()
        answer = Deferred.fromCoroutine(operate(staying))
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "1 of pens for clerk")
        staying.close()
        self.memory.flush()

    def test_deadline(self):
        answer = Deferred.fromCoroutine(price(self.alice, "pens"))
        self.memory.advance(5)
        self.assertEqual(self.successResultOf(answer), "ask again")
        self.assertEqual(self.shop.log, ["the customer is gone"])

    def test_ownError(self):
        answer = Deferred.fromCoroutine(order(self.alice, "pens", 5))
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "3 of pens for alice")
