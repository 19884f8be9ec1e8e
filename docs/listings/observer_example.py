"""How an application watches what happens to its accounts and logins."""

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Unauthorized
from pbauth.testing import MemoryServer

refused = []


def observe(event):
    if event["log_namespace"] == "pbauth.audit" and event["event"] == "login.refused":
        refused.append((event["identity"], event["reason"]))


class ObserverTests(SynchronousTestCase):
    def test_refused(self):
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        memory = MemoryServer()
        memory.addUser("alice", "secret")
        self.failureResultOf(memory.logIn("alice", "wrong", "any"), Unauthorized)
        self.assertEqual(refused, [("alice", "wrong password")])
