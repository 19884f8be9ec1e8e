"""``demo.py [PORT]``: a dispatcher with a worker, a user and an operator, on this machine."""

from __future__ import annotations

import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dispatcher import JobsService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from worker import Slot, work

import pbauth

PASSWORD = "open sesame"  # noqa: S105 - of a demonstration


async def main(reactor: Any, port: str = "8787") -> None:
    services = MultiService()
    authorizer = pbauth.DefaultAuthorizer(services)
    JobsService("jobs", services, authorizer)
    for name, perspectives in (("alice", ["user"]), ("olga", ["user", "operator"])):
        identity = authorizer.createIdentity(name)
        await identity.setPassword(PASSWORD)
        for perspective in perspectives:
            identity.addKeyByString("jobs", perspective)
        await identity.save()
    key = pbauth.PrivateKey(Ed25519PrivateKey.generate())
    identity = authorizer.createIdentity("worker1")
    identity.addPublicKey(key.publicKey)
    identity.addKeyByString("jobs", "worker")
    await identity.save()
    endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    listening = await endpoint.listen(pbauth.AuthServerFactory(authorizer))
    server = f"tcp:127.0.0.1:{listening.getHost().port}"
    await work(pbauth.Login(server, "worker1", key, "jobs", "worker", Slot()), 2, reactor)
    print(f"listening on {server[4:]}; the password of alice and olga is {PASSWORD!r}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
