"""Sessions: `detached` exactly once for each `attached`, whatever ends them."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.spread import pb

from pbauth import Detached, EndReason, KeyNotFound, Password
from pbauth.perspectives.sessions import STILL_LIVE
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase

#: Remembers its key, so that thousands of logins take one derivation.
SECRET = Password("secret")


class Waiting(RecordingPerspective):
    """A perspective whose `attached` waits until the test says so."""

    def attached(self, clientref: Any, identity: Any) -> Any:
        super().attached(clientref, identity)
        self.service.waiting = Deferred()
        return self.service.waiting


class SessionTests(WireTestCase):
    """What begins and what ends a session."""

    def test_sessionsAreListed(self) -> None:
        """The authorizer knows who is attached to what, and by which mechanism."""
        perspective = self.successResultOf(self.login())
        (session,) = self.memory.authorizer.sessions
        self.assertEqual(
            (session.identity, session.serviceName, session.perspectiveName, session.mechanism),
            (self.alice, "game", "alice", "SCRAM-SHA-256"),
        )
        self.memory.disconnect(perspective)
        self.assertEqual(list(self.memory.authorizer.sessions), [])

    def test_sameArguments(self) -> None:
        """`detached` gets what `attached` got, on the object that `attached` returned."""
        other = self.game.createPerspective("other")

        class Chooser(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                return other.attached(clientref, identity)

        self.game.perspectiveClass = Chooser
        client = pb.Referenceable()
        perspective = self.successResultOf(self.login("alice", SECRET, "game", client=client))
        self.assertEqual(self.answer(perspective, "whoami"), "other")
        self.memory.disconnect(perspective)
        attached, detached = self.game.events
        self.assertEqual((attached.kind, detached.kind), ("attached", "detached"))
        self.assertIs(attached.clientref, detached.clientref)
        self.assertEqual(detached.perspectiveName, "other")

    def test_connectionLostWhileAttaching(self) -> None:
        """When `attached` is still waiting as the connection drops, `detached` follows it."""
        self.game.perspectiveClass = Waiting
        root = self.root()
        client, challenger = self.scram(root)
        login = self.ask(
            challenger, "respond", client.get_client_final().encode(), "game", "alice", None
        )
        self.memory.disconnect(root)
        self.failureResultOf(login, pb.PBConnectionLost)
        self.assertEqual(self.game.kinds(), ["attached"])
        self.game.waiting.callback(self.game.perspectives["alice"])
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(len(self.memory.authorizer.sessions), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_attachedFails(self) -> None:
        """When `attached` fails there is nothing to detach; the client and the log are told."""

        class Failing(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                return fail(ZeroDivisionError("in attached"))

        self.game.perspectiveClass = Failing
        login = self.login()
        self.assertIn("in attached", str(self.failureResultOf(login).value))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.game.events, [])
        self.assertEqual(self.game.perspectives, {})
        self.assertEqual(len(self.memory.authorizer.sessions), 0)

    def test_attachedForgetsToReturn(self) -> None:
        """An `attached` without `return self` is told what to do, and is balanced."""

        class Forgetful(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> None:  # type: ignore[override]
                super().attached(clientref, identity)

        self.game.perspectiveClass = Forgetful
        self.failureResultOf(self.login())
        (logged,) = self.flushLoggedErrors(TypeError)
        self.assertIn("must return a perspective (usually self)", str(logged.value))
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_detachedFails(self) -> None:
        """When `detached` raises, that is logged, once, and the session is over."""

        class Failing(RecordingPerspective):
            def detached(self, clientref: Any, identity: Any) -> None:
                super().detached(clientref, identity)
                raise ZeroDivisionError("in detached")

        self.game.perspectiveClass = Failing
        identity = self.identity()
        perspective = self.answer(identity, "attach", "game", "alice", None)
        self.answer(identity, "detach", perspective)
        self.memory.disconnect(identity)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.memory.authorizer.sessions), 0)

    def test_coroutines(self) -> None:
        """`attached` and `detached` may be coroutines."""

        class Coroutines(RecordingPerspective):
            async def attached(self, clientref: Any, identity: Any) -> Any:
                return super().attached(clientref, identity)

            async def detached(self, clientref: Any, identity: Any) -> None:  # type: ignore[override]
                super().detached(clientref, identity)

        self.game.perspectiveClass = Coroutines
        self.memory.disconnect(self.successResultOf(self.login()))
        self.assertEqual(self.game.kinds(), ["attached", "detached"])


class RevocationTests(WireTestCase):
    """Taking away what was given."""

    def test_removedKey(self) -> None:
        """Removing a key detaches at once who uses it, and nobody else."""
        own = self.successResultOf(self.login())
        shared = self.successResultOf(self.login("alice", SECRET, "game", "shared"))
        self.alice.removeKey("game", "alice")
        self.assertEqual(self.game.kinds(), ["attached", "attached", "detached"])
        self.assertIsInstance(self.refusal(own, "whoami"), Detached)
        self.assertEqual(self.answer(shared, "whoami"), "shared")

    def test_removedKeyWhileAttaching(self) -> None:
        """A key that is removed during the attach does not let the client in."""
        self.game.perspectiveClass = Waiting
        login = self.login()
        self.alice.removeKey("game", "alice")
        self.game.waiting.callback(self.game.perspectives["alice"])
        self.memory.flush()
        self.failureResultOf(login, Detached)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_removedKeyWhileLoading(self) -> None:
        """A key that is removed while the perspective is loaded lets nobody attach."""
        loading: Deferred[Any] = Deferred()
        self.game.loadPerspective = lambda name: loading
        login = self.login()
        self.alice.removeKey("game", "alice")
        loading.callback(RecordingPerspective("alice"))
        self.memory.flush()
        self.failureResultOf(login, Detached)
        self.assertEqual(self.game.events, [])

    def test_stillLive(self) -> None:
        """A client may ask whether its session is live; the perspective sees nothing of that."""

        class Nosy(RecordingPerspective):
            def perspectiveMessageReceived(self, broker: Any, message: Any, *more: Any) -> Any:
                self.service.seen = message
                return super().perspectiveMessageReceived(broker, message, *more)

        self.game.perspectiveClass = Nosy
        own = self.successResultOf(self.login())
        self.assertIsNone(self.answer(own, STILL_LIVE))
        self.assertFalse(hasattr(self.game, "seen"))
        self.alice.removeKey("game", "alice")
        self.assertIsInstance(self.refusal(own, STILL_LIVE), Detached)

    def test_callsUnderWay(self) -> None:
        """A call that has not answered yet when the session ends fails with `Detached`."""
        answer: Deferred[str] = Deferred()

        class Slow(RecordingPerspective):
            def perspective_wait(self) -> Any:
                return answer

        self.game.perspectiveClass = Slow
        perspective = self.successResultOf(self.login())
        waiting = self.ask(perspective, "wait")
        self.alice.locked = True
        self.memory.flush()
        self.failureResultOf(waiting, Detached)
        answer.callback("too late")
        self.memory.flush()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_lateFailureIsLogged(self) -> None:
        """A bug that shows only after the session's end still reaches the log."""
        answer: Deferred[str] = Deferred()

        class Slow(RecordingPerspective):
            def perspective_wait(self) -> Any:
                return answer

        self.game.perspectiveClass = Slow
        waiting = self.ask(self.successResultOf(self.login()), "wait")
        self.alice.locked = True
        self.memory.flush()
        self.failureResultOf(waiting, Detached)
        answer.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_administratorEndsSession(self) -> None:
        """`Sessions.end` ends one session; the connection and the other session live on."""
        identity = self.identity()
        own = self.answer(identity, "attach", "game", "alice", None)
        shared = self.answer(identity, "attach", "game", "shared", None)
        sessions = self.memory.authorizer.sessions
        (session,) = (one for one in sessions if one.perspectiveName == "alice")
        self.successResultOf(sessions.end(session))
        self.assertIs(session.endReason, EndReason.ADMINISTRATOR)
        self.assertIsInstance(self.refusal(own, "whoami"), Detached)
        self.assertEqual(self.answer(shared, "whoami"), "shared")

    def test_removedIdentity(self) -> None:
        """Removing an identity ends all its sessions."""
        self.successResultOf(self.login())
        self.successResultOf(self.login("alice", SECRET, "game", "shared"))
        self.memory.authorizer.removeIdentity("alice")
        self.assertEqual(self.game.kinds(), ["attached"] * 2 + ["detached"] * 2)

    def test_savingEndsNothing(self) -> None:
        """Saving the same identity again, changed or not, leaves what is allowed alone."""
        perspective = self.successResultOf(self.login())
        self.alice.addKeyByString("chat", "alice")
        self.alice.save()
        self.alice.save()
        self.assertEqual(self.answer(perspective, "whoami"), "alice")


class AnyOrderTests(WireTestCase):
    """Attach, detach, revoke, disconnect and log in again, in any order."""

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def test_balance(self, chance: random.Random) -> None:
        """
        Attached and detached balance, and no call reaches a perspective without its key.
        """
        self.serve()
        held: list[tuple[str, Any]] = []
        for _ in range(25):
            step = chance.choice(["login", "login", "call", "drop", "revoke", "grant", "relogin"])
            name = chance.choice(["alice", "shared"])
            if step in ("login", "relogin"):
                login = self.login("alice", SECRET, "game", name)
                if self.alice.holdsKey("game", name):
                    held.append((name, self.successResultOf(login)))
                else:
                    self.failureResultOf(login, KeyNotFound)
            elif step == "revoke" and self.alice.holdsKey("game", name):
                self.alice.removeKey("game", name)
                held = [(other, ref) for other, ref in held if other != name] + [
                    ("", ref) for other, ref in held if other == name
                ]
            elif step == "grant":
                self.alice.addKeyByString("game", name)
            elif held and step == "drop":
                self.memory.disconnect(held.pop(chance.randrange(len(held)))[1])
            elif held and step == "call":
                expected, reference = chance.choice(held)
                if expected:
                    self.assertEqual(self.answer(reference, "whoami"), expected)
                else:
                    self.assertIsInstance(self.refusal(reference, "whoami"), Detached)
            kinds = self.game.kinds()
            live = sum(1 for expected, _ in held if expected)
            self.assertEqual(kinds.count("attached") - kinds.count("detached"), live)
            self.assertEqual(len(self.memory.authorizer.sessions), live)
        for _, reference in held:
            self.memory.disconnect(reference)
        kinds = self.game.kinds()
        self.assertEqual(kinds.count("attached"), kinds.count("detached"))
        self.assertEqual(self.game.perspectives, {})
