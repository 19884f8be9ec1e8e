"""Further perspectives of a client that stays logged in."""

from __future__ import annotations

from typing import Any

from twisted.spread import pb

from pbauth import EndReason, InvalidName, KeyNotFound, NotAttached, Unauthorized
from pbauth.testing import RecordingService
from tests.support.stayingclient import ClientTestCase


class FurtherTests(ClientTestCase):
    """Alice plays, and is an operator."""

    def setUp(self) -> None:
        super().setUp()
        self.ops = RecordingService("ops", self.memory.services, self.memory.authorizer)
        self.alice.addKeyByString("ops", "alice")

    def attach(self, client: Any, /, *args: Any, **options: Any) -> Any:
        """Attach to a further perspective, and give the Deferred."""
        attaching = client.attach(*args, **options)
        self.memory.flush()
        return attaching

    def attached(self) -> tuple[Any, Any]:
        """A client, and its further perspective."""
        client = self.started()
        return client, self.successResultOf(self.attach(client, "ops", "alice"))

    def test_call(self) -> None:
        """It is called on the same connection."""
        client, ops = self.attached()
        self.assertEqual(self.successResultOf(self.call(ops, "whoami")), "alice")
        reference = self.successResultOf(ops.whenAttached())
        self.assertIs(reference.broker, self.reference(client).broker)
        self.assertEqual(len(self.memory.pumps), 1)
        self.assertIn("ops/alice", repr(ops))
        self.stop(client)
        self.assertEqual(self.ops.kinds(), ["attached", "detached"])

    def test_comesBack(self) -> None:
        """It comes back after a reconnect, with its client object; calls wait meanwhile."""
        client = self.started()
        own = pb.Referenceable()
        ops = self.successResultOf(self.attach(client, "ops", client=own))
        self.crash()
        self.memory.refusal = None
        waiting = self.call(ops, "whoami")
        self.assertNoResult(waiting)
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(waiting), "alice")
        self.assertEqual(self.ops.kinds(), ["attached", "detached", "attached"])
        self.assertIsNotNone(self.ops.events[-1].clientref)
        self.stop(client)

    def test_beforeStart(self) -> None:
        """It waits for a client that is not started yet."""
        client = self.client()
        attaching = self.attach(client, "ops")
        self.assertNoResult(attaching)
        client.startService()
        self.memory.flush()
        self.successResultOf(attaching)
        self.stop(client)

    def test_refused(self) -> None:
        """Without a key it fails, and is forgotten."""
        client = self.started()
        self.failureResultOf(self.attach(client, "ops", "bob"), KeyNotFound)
        self.assertEqual(client._further, {})
        for bad in ("", "a\nb"):
            with self.assertRaises(InvalidName):
                client.attach(bad)
        with self.assertRaises(TypeError):
            client.attach("ops", "alice", object())  # type: ignore[arg-type]
        self.stop(client)
        self.failureResultOf(client.attach("ops"), NotAttached)

    def test_ended(self) -> None:
        """A session that the server has ended comes back, unless the key is gone."""
        client, ops = self.attached()
        sessions = self.memory.authorizer.sessions

        def end(reason: EndReason) -> None:
            (session,) = [each for each in sessions if each.serviceName == "ops"]
            sessions.end(session, reason)
            self.memory.flush()

        end(EndReason.ADMINISTRATOR)
        waiting = self.call(ops, "whoami")
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(waiting), "alice")
        end(EndReason.KEY_REVOKED)
        self.failureResultOf(self.call(ops, "whoami"), KeyNotFound)
        self.assertEqual(self.successResultOf(self.call(client, "whoami")), "alice")
        self.stop(client)

    def test_close(self) -> None:
        """It is closed alone, and does not come back."""
        client, ops = self.attached()
        closed = ops.close()
        self.memory.flush()
        self.successResultOf(closed)
        self.assertEqual(self.ops.kinds(), ["attached", "detached"])
        self.failureResultOf(self.call(ops, "whoami"), NotAttached)
        self.successResultOf(ops.close())
        self.crash()
        self.memory.refusal = None
        self.memory.advance(1)
        self.assertEqual(self.successResultOf(self.call(client, "whoami")), "alice")
        self.assertEqual(self.ops.kinds(), ["attached", "detached"])
        self.stop(client)

    def test_stopped(self) -> None:
        """What waits fails when the client is stopped; it comes back when that starts again."""
        client, ops = self.attached()
        self.crash()
        waiting = ops.callRemote("whoami")
        client.stopService()
        self.failureResultOf(waiting, NotAttached)
        self.memory.refusal = None
        client.startService()
        self.memory.flush()
        self.assertEqual(self.successResultOf(self.call(ops, "whoami")), "alice")
        self.stop(client)

    def test_gaveUp(self) -> None:
        """It ends when the client gives up."""
        client = self.client("wrong")
        attaching = client.attach("ops")
        client.startService()
        self.memory.flush()
        self.failureResultOf(attaching, Unauthorized)
        self.stop(client)

    def test_tooMany(self) -> None:
        """So many calls wait, and no more."""
        client, ops = self.attached()
        self.crash()
        waiting = [ops.callRemote("whoami") for _ in range(101)]
        self.failureResultOf(waiting.pop(), NotAttached)
        self.memory.refusal = None
        self.memory.advance(1)
        for each in waiting:
            self.assertEqual(self.successResultOf(each), "alice")
        self.stop(client)
