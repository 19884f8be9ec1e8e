"""A server that takes no passwords, and has tighter limits for clients that have not logged in."""

from twisted.trial.unittest import SynchronousTestCase

from pbauth import MechanismNotSupported, Policy
from pbauth.testing import MemoryServer

STRICT = Policy(
    mechanisms=["ED25519"],
    graceTime=10,
    maxAttempts=3,
    maxUnauthenticated=200,
    maxUnauthenticatedBytes=16_384,
)


class PolicyTests(SynchronousTestCase):
    def test_noPasswords(self):
        memory = MemoryServer(policy=STRICT)
        memory.addUser("alice", "secret")
        refusal = self.failureResultOf(memory.logIn("alice", "secret", "any"))
        refusal.trap(MechanismNotSupported)
        self.assertEqual(refusal.value.offered, ["ED25519", "VOUCHER"])
