"""What tests of the wire share: a server in memory, spoken to by hand."""

from __future__ import annotations

from typing import Any

from scramp import ScramClient
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Password, Policy, getObjectAt
from pbauth.testing import MemoryServer, RecordingService
from tests.support.memory import freezeHeap

SCRAM = "SCRAM-SHA-256"


class WireTestCase(SynchronousTestCase):
    """
    A server with the service `game`, and alice with the keys to `alice` and `shared` of it.
    """

    def setUp(self) -> None:
        freezeHeap()
        self.serve()

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        """Start anew, by another policy."""
        self.memory = MemoryServer(policy=policy, **options)
        self.game = RecordingService("game", self.memory.services, self.memory.authorizer)
        self.alice = self.memory.addUser("alice", "secret", ("game", "alice"), ("game", "shared"))

    def root(self) -> Any:
        """Open a connection, and give its root object."""
        opening = getObjectAt(self.memory, None, reactor=self.memory.clock)
        self.memory.flush()
        return self.successResultOf(opening)

    def ask(self, reference: Any, *call: Any, **keywords: Any) -> Any:
        """Call a remote method, and give the Deferred after all bytes were carried."""
        answer = reference.callRemote(*call, **keywords)
        self.memory.flush()
        return answer

    def answer(self, reference: Any, *call: Any, **keywords: Any) -> Any:
        """Call a remote method, and give its answer."""
        return self.successResultOf(self.ask(reference, *call, **keywords))

    def refusal(self, reference: Any, *call: Any, **keywords: Any) -> Exception:
        """Call a remote method, and give the error that it answers."""
        return self.failureResultOf(self.ask(reference, *call, **keywords)).value

    def scram(self, root: Any, name: str = "alice", password: str = "secret") -> tuple[Any, Any]:
        """Begin a login with another library's SCRAM; give it and the `AuthChallenger`."""
        client = ScramClient([SCRAM], name, password)
        challenge, challenger = self.answer(
            root, "username", name, SCRAM, client.get_client_first().encode()
        )
        client.set_server_first(challenge.decode())
        return client, challenger

    def identity(self, name: str = "alice", password: str = "secret") -> Any:
        """Log in with another library's SCRAM, and give the `IdentityWrapper`."""
        client, challenger = self.scram(self.root(), name, password)
        outcome, identity = self.answer(challenger, "respond", client.get_client_final().encode())
        client.set_server_final(outcome.decode())
        return identity

    def login(self, *login: Any, **options: Any) -> Any:
        """Log in with pbauth's client, and give the Deferred."""
        return self.memory.logIn(*(login or ("alice", Password("secret"), "game")), **options)
