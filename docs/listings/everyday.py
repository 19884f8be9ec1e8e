"""What applications need every day: errors of their own."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

import pbauth
from pbauth.testing import MemoryServer


@pbauth.wireError
class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"There are only {left} of {item}.")
        self.item = item
        self.left = left


class Customer(pbauth.Perspective):
    def perspective_order(self, item, count):
        if count > 3:
            raise OutOfStock(item, 3)
        return f"{count} of {item} for {self.perspectiveName}"


async def order(shop, item, count):
    try:
        return await shop.callRemote("order", item, count)
    except OutOfStock as error:
        return await shop.callRemote("order", item, error.left)


class ShopTests(SynchronousTestCase):
    def setUp(self):
        self.memory = MemoryServer()
        self.shop = pbauth.Service("shop", self.memory.services, self.memory.authorizer)
        self.shop.perspectiveClass = Customer
        self.shop.createPerspective("alice")
        self.memory.addUser("alice", "secret", ("shop", "alice"))
        self.alice = self.successResultOf(self.memory.logIn("alice", "secret", "shop"))

    def test_ownError(self):
        answer = Deferred.fromCoroutine(order(self.alice, "pens", 5))
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "3 of pens for alice")
