"""Lend a right, weaken it, and revoke it."""

from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    Detached,
    MethodNotAllowed,
    Voucher,
    authIdentity,
    getObjectAt,
    issueVoucher,
    revokeVoucher,
)
from pbauth.testing import MemoryServer, RecordingService


class LendingTests(SynchronousTestCase):
    def test_lending(self):
        memory = MemoryServer()
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        root = self.result(memory, getObjectAt(memory, None, reactor=memory.clock))
        identity = self.result(memory, authIdentity(root, "alice", "secret"))
        until = memory.authorizer.now() + timedelta(hours=1)

        voucher = self.result(memory, issueVoucher(identity, "bob", until, services=["game"]))
        weaker = Voucher.fromText(voucher.text()).only(methods=["whoami"], final=True)

        perspective = self.result(memory, memory.logIn(None, weaker, "game"))
        self.assertEqual(self.result(memory, perspective.callRemote("whoami")), "alice")
        self.fails(memory, perspective.callRemote("resign"), MethodNotAllowed)

        self.result(memory, revokeVoucher(identity, "bob"))
        self.fails(memory, perspective.callRemote("whoami"), Detached)

    def result(self, memory, deferred):
        memory.flush()
        return self.successResultOf(deferred)

    def fails(self, memory, deferred, error):
        memory.flush()
        self.failureResultOf(deferred, error)
