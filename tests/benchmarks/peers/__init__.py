"""
Who is measured. Each has a module here with the same three names: `FAMILY` (how its processes
answer the harness, see `tests.benchmarks.child`), `Server` and `Client`, whose methods ``do_NAME``
the harness calls:

- ``Server.do_listen()`` gives what a client needs in order to find it, a dict;
- ``Client.do_connect(**that)``;
- ``Client.do_calls(work, count)`` makes calls of one of `tests.benchmarks.work.WORKS`, and gives
  a sample of `tests.benchmarks.child.Watch`. The first time it also looks at the answer.

Those that people log in to have ``Client.do_logins`` and more: see `stock` and `ours`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from attrs import Factory, frozen

_HERE = __name__


@frozen
class Peer:
    """
    Attributes:
        label: for people.
        module: in this package.
        needs: what has to be installed, by the name of its module.
        distribution: the same, by the name of its distribution.
        options: for its `Client`.
        onTwisted: its processes run Twisted's reactor.
        beside: it is of another checkout, where one is given.
    """

    label: str
    module: str
    needs: str = "twisted"
    distribution: str = "twisted"
    options: dict[str, Any] = Factory(dict)
    onTwisted: bool = True
    beside: bool = False

    @property
    def path(self) -> str:
        """The full name of its module."""
        return f"{_HERE}.{self.module}"

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return find_spec(self.needs) is not None


#: What everything is compared with.
STOCK = "stock"

#: What nothing on Twisted can reach.
LIMIT = "echo"

#: Another checkout of pbauth, of an earlier commit for instance.
BESIDE = "beside"

PEERS = {
    STOCK: Peer("stock PB", "stock"),
    "pbauth": Peer("pbauth", "ours"),
    "pbauth-tls": Peer("pbauth, TLS", "ours", options={"tls": True}),
    BESIDE: Peer("pbauth, the other checkout", "ours", beside=True),
    "referenceable": Peer("stock PB, no login", "referenceable"),
    LIMIT: Peer("bytes by Twisted (the limit)", "echo"),
    "foolscap": Peer("Foolscap (TLS)", "foolscappeer", "foolscap", "foolscap"),
    "pyro": Peer("Pyro5", "pyropeer", "Pyro5", "Pyro5", onTwisted=False),
    "rpyc": Peer("RPyC", "rpycpeer", "rpyc", "rpyc", onTwisted=False),
    "grpc": Peer("gRPC aio", "grpcpeer", "grpc", "grpcio", onTwisted=False),
}
