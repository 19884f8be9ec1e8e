"""How an application tests its perspectives with pytest and pytest-twisted."""

import pytest
import pytest_twisted

from pbauth import KeyNotFound, Perspective, Service
from pbauth.testing import MemoryServer


class Counter(Perspective):
    count = 0

    def perspective_count(self):
        self.count += 1
        return self.count


@pytest.fixture
def memory():
    memory = MemoryServer()
    counters = Service("counters", memory.services, memory.authorizer)
    counters.addPerspective(Counter("alice"))
    memory.addUser("alice", "secret", ("counters", "alice"))
    return memory


@pytest_twisted.ensureDeferred
async def test_counts(memory):
    alice = await memory.logIn("alice", "secret", "counters")
    assert await alice.callRemote("count") == 1
    assert await alice.callRemote("count") == 2


@pytest_twisted.ensureDeferred
async def test_othersAreRefused(memory):
    with pytest.raises(KeyNotFound):
        await memory.logIn("alice", "secret", "counters", "bob")
