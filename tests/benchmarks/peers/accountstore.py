"""A process that looks identities up in an SQLite file, as a server does for each login."""

from __future__ import annotations

import random
import time
from statistics import median

from pbauth import SQLAuthorizer
from tests.benchmarks.peers.accounts import nameOf

FAMILY = "twisted"


class Server:
    """
    Args:
        store: the path of the file.
        accounts: how many there are in it.
    """

    def __init__(self, store: str, accounts: int) -> None:
        self._authorizer = SQLAuthorizer(store)
        self._accounts = accounts

    async def do_lookUp(self, count: int, seed: int) -> float:
        """
        Look up identities with their keyrings and groups, one after the other, all over the store.

        Args:
            count: how many.
            seed: says which.

        Returns:
            The median of the seconds that one took, with the hop to a thread and back.
        """
        chance = random.Random(seed)
        names = [nameOf(chance.randrange(self._accounts)) for _ in range(count)]
        taken = []
        for name in names:
            began = time.perf_counter()
            identity = await self._authorizer.getIdentityRequest(name)
            taken.append(time.perf_counter() - began)
            if len(identity.getAllKeys()) != 6:
                raise AssertionError(f"{name} does not hold three keys, and three by groups.")
        return median(taken)
