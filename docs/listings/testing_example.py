"""How an application tests its perspectives: no port, no thread, no sleep."""

from twisted.trial.unittest import SynchronousTestCase

from pbauth import KeyNotFound, Perspective, Service
from pbauth.testing import MemoryServer


class Counter(Perspective):
    count = 0

    def perspective_count(self):
        self.count += 1
        return self.count


class CounterTests(SynchronousTestCase):
    def setUp(self):
        self.memory = MemoryServer()
        self.counters = Service("counters", self.memory.services, self.memory.authorizer)
        self.counters.addPerspective(Counter("alice"))
        self.memory.addUser("alice", "secret", ("counters", "alice"))

    def test_counts(self):
        alice = self.successResultOf(self.memory.logIn("alice", "secret", "counters"))
        answer = alice.callRemote("count")
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), 1)

    def test_othersAreRefused(self):
        attempt = self.memory.logIn("alice", "secret", "counters", "bob")
        self.failureResultOf(attempt, KeyNotFound)
