"""The server's half of a login: each row of the tables of the wire protocol."""

from __future__ import annotations

import gc
import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from twisted.cred.credentials import Anonymous as StockAnonymous
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.spread import jelly, pb
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    Anonymous,
    AuthRoot,
    AuthServerFactory,
    DefaultAuthorizer,
    Detached,
    Hashing,
    KeyNotFound,
    MechanismNotSupported,
    Policy,
    ProtocolViolation,
    SQLAuthorizer,
    StoreError,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.login.attempts import MOST_UNANSWERED, Attempts
from pbauth.login.connectionlimits import UnauthenticatedConnection
from pbauth.mechanisms import md5
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.perspectives.sessions import Session, SessionReference
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService
from tests.support.memory import freezeHeap
from tests.support.wire import SCRAM, WireTestCase

#: A policy for clients of Twisted 1.x and of stock Twisted.
LEGACY = Policy(legacyLogin=True, defaultService="game", guest="guest")


class AuthServTests(WireTestCase):
    """The root object takes the name that a client claims."""

    def test_mechanismsAreTold(self) -> None:
        """`mechanisms` lists, strongest first, what this connection may use."""
        self.assertEqual(self.answer(self.root(), "mechanisms"), [SCRAM, "ED25519", "VOUCHER"])

    def test_legacyMechanismIsToldWhenAllowed(self) -> None:
        """PB-MD5 is offered last, and only where the policy lets old clients in."""
        self.serve(LEGACY)
        self.assertEqual(
            self.answer(self.root(), "mechanisms"),
            [SCRAM, "ED25519", "VOUCHER", "ANONYMOUS", "PB-MD5"],
        )

    def test_usernameChallenges(self) -> None:
        """`username` answers the mechanism's challenge and an `AuthChallenger`."""
        challenge, challenger = self.answer(
            self.root(), "username", "alice", SCRAM, b"n,,n=alice,r=nonce"
        )
        self.assertTrue(challenge.startswith(b"r=nonce"))
        self.assertIsInstance(challenger, pb.RemoteReference)

    def test_mechanismNotOffered(self) -> None:
        """A mechanism that is not offered is refused, and the error tells those that are."""
        error = self.refusal(self.root(), "username", "alice", "PLAIN", b"\0alice\0secret")
        self.assertIsInstance(error, MechanismNotSupported)
        self.assertEqual(error.offered, [SCRAM, "ED25519", "VOUCHER"])

    def test_policyChoosesMechanisms(self) -> None:
        """A server that was told to offer nothing of what it has, offers nothing."""
        self.serve(Policy(mechanisms=["EXTERNAL"]))
        error = self.refusal(self.root(), "username", "alice", SCRAM, b"n,,n=alice,r=nonce")
        self.assertIsInstance(error, MechanismNotSupported)
        self.assertEqual(error.offered, [])

    def test_legacyLoginsAreOffByDefault(self) -> None:
        """Logins with PB-MD5 of all three kinds are refused unless the policy allows them."""
        error = self.refusal(self.root(), "username", "alice", "PB-MD5", b"")
        self.assertIsInstance(error, MechanismNotSupported)
        for call in (["username", "alice"], ["login", "alice"], ["loginAnonymous", None]):
            failure = self.failureResultOf(self.ask(self.root(), *call))
            self.assertTrue(failure.check(MechanismNotSupported))

    def test_bytesNames(self) -> None:
        """Names may come as bytes, as old clients send them."""
        challenge, _ = self.answer(self.root(), "username", b"alice", SCRAM, b"n,,n=alice,r=nonce")
        self.assertTrue(challenge.startswith(b"r=nonce"))

    def test_malformedFirstMessages(self) -> None:
        """What is no client-first message is refused as any failed login is."""
        for initial in (b"", b"\xff", "n,,n=alice,r=nonce", 5, None, b"n,,n=bob,r=nonce"):
            error = self.refusal(self.root(), "username", "alice", SCRAM, initial)
            self.assertIsInstance(error, Unauthorized)

    def test_namesThatAreNone(self) -> None:
        """A name that is no name is refused as an unknown one is."""
        for name in (5, None, ["alice"], "", "a" * 300, "al\0ice"):
            error = self.refusal(self.root(), "username", name, SCRAM, b"n,,n=alice,r=nonce")
            self.assertIsInstance(error, Unauthorized)

    def test_argumentsThatDoNotFit(self) -> None:
        """A call that the protocol does not have is answered, and leaves no traceback."""
        root = self.root()
        for known in (False, True):
            for call in (["username"], ["username", "a", SCRAM], ["nonsense"], ["mechanisms", 1]):
                failure = self.failureResultOf(self.ask(root, *call))
                self.assertTrue(failure.check(ProtocolViolation))
                # As itself to those who have the class.
                isOurs = known or call[2:] == [SCRAM]
                self.assertEqual(isinstance(failure.value, ProtocolViolation), isOurs, call)
                known = known or isOurs
            self.answer(root, "mechanisms")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unknownNameLooksLikeAKnownOne(self) -> None:
        """The challenge for an unknown name is plausible, and the same each time."""

        def challenge(name: str) -> list[bytes]:
            first = b"n,,n=" + name.encode() + b",r=nonce"
            answer, _ = self.answer(self.root(), "username", name, SCRAM, first)
            return answer.split(b",")[1:]

        known, unknown = challenge("alice"), challenge("mallory")
        self.assertEqual(unknown, challenge("mallory"))
        self.assertNotEqual(unknown, challenge("malcolm"))
        self.assertEqual([len(part) for part in known], [len(part) for part in unknown])
        self.assertEqual(known[1], unknown[1])

    def test_unknownNameCostsTheSameWork(self) -> None:
        """
        The store is asked as often, and as many hashes are made, for a name that does not exist,
        for one that has no password, for a locked account, and for one with a wrong password.
        """
        self.memory.addUser("nopass", "secret").setPassword(None)
        self.memory.addUser("locked", "secret").locked = True
        work: list[str] = []

        def count(holder: Any, name: str) -> None:
            original = getattr(holder, name)

            def counted(*arguments: Any, **keywords: Any) -> Any:
                work.append(name)
                return original(*arguments, **keywords)

            self.patch(holder, name, counted)

        # As long as nobody has failed, nobody's penalty is looked up.
        _, challenger = self.scram(self.root(), "alice", "wrong")
        self.refusal(challenger, "respond", b"no proof")
        costs = []
        for name in ("alice", "mallory", "nopass", "locked"):
            client, challenger = self.scram(self.root(), name, "wrong")
            # What the client of this test hashes does not count.
            response = client.get_client_final().encode()
            costs.append((name, response, challenger, client))
        count(self.memory.authorizer, "getIdentityRequest")
        count(hmac, "digest")
        for name in ("sha256", "blake2b", "pbkdf2_hmac"):
            count(hashlib, name)
        works = []
        for name, response, challenger, _ in costs:
            self.ask(self.root(), "username", name, SCRAM, f"n,,n={name},r=nonce".encode())
            self.refusal(challenger, "respond", response)
            works.append(sorted(work))
            work.clear()
        self.assertEqual(works[0].count("getIdentityRequest"), 1)
        for name in ("digest", "blake2b"):
            self.assertIn(name, works[0])
        self.assertNotIn("pbkdf2_hmac", works[0])
        self.assertEqual(works[1:], [works[0]] * 3)


class AuthChallengerTests(WireTestCase):
    """The challenger takes one response."""

    def test_loginOfAnotherLibrary(self) -> None:
        """A login with the library scramp works, and it trusts the server."""
        self.assertEqual(
            self.answer(self.identity(), "keys"), [("game", "alice"), ("game", "shared")]
        )

    def test_loginAndAttachInOneGo(self) -> None:
        """With service, perspective and client, `respond` answers the perspective, too."""
        client, challenger = self.scram(self.root())
        outcome, identity, perspective = self.answer(
            challenger, "respond", client.get_client_final().encode(), "game", "shared", None
        )
        client.set_server_final(outcome.decode())
        self.assertEqual(self.answer(perspective, "whoami"), "shared")
        self.assertIsInstance(identity, pb.RemoteReference)

    def test_respondTakesOneAnswer(self) -> None:
        """A second response fails, right or wrong."""
        client, challenger = self.scram(self.root())
        final = client.get_client_final().encode()
        self.answer(challenger, "respond", final)
        self.assertIsInstance(self.refusal(challenger, "respond", final), Unauthorized)

    def test_noSecondGuess(self) -> None:
        """After a wrong response the right one comes too late."""
        client, challenger = self.scram(self.root())
        self.refusal(challenger, "respond", b"nonsense")
        error = self.refusal(challenger, "respond", client.get_client_final().encode())
        self.assertIsInstance(error, Unauthorized)

    def test_replayOnAnotherConnection(self) -> None:
        """A recorded response proves nothing on another connection."""
        client, challenger = self.scram(self.root())
        final = client.get_client_final().encode()
        self.answer(challenger, "respond", final)
        _, other = self.scram(self.root())
        self.assertIsInstance(self.refusal(other, "respond", final), Unauthorized)

    def test_allFailuresLookAlike(self) -> None:
        """Wrong password, unknown name, locked account and absent verifier: one text."""
        locked = self.memory.addUser("locked", "secret")
        locked.locked = True
        self.memory.addUser("passwordless", "secret").setPassword(None)
        errors = set()
        for name, password in [
            ("alice", "wrong"),
            ("mallory", "secret"),
            ("locked", "secret"),
            ("passwordless", "secret"),
        ]:
            client, challenger = self.scram(self.root(), name, password)
            error = self.refusal(challenger, "respond", client.get_client_final().encode())
            errors.add((type(error), str(error)))
        self.assertEqual(errors, {(Unauthorized, str(Unauthorized()))})
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_responsesThatAreNone(self) -> None:
        """What is no response is refused as a wrong one is."""
        for response in (None, 5, "text", b"", b"\xff" * 5000, ["list"]):
            _, challenger = self.scram(self.root())
            self.assertIsInstance(self.refusal(challenger, "respond", response), Unauthorized)

    def test_respondToAbsentKey(self) -> None:
        """Logging in to a perspective without its key fails with `KeyNotFound`."""
        client, challenger = self.scram(self.root())
        error = self.refusal(
            challenger, "respond", client.get_client_final().encode(), "game", "bob", None
        )
        self.assertIsInstance(error, KeyNotFound)
        self.assertEqual((error.serviceName, error.perspectiveName), ("game", "bob"))

    def test_clientMustBeAReference(self) -> None:
        """The client object is a `Referenceable` or `None`; anything else is refused."""
        client, challenger = self.scram(self.root())
        final = client.get_client_final().encode()
        error = self.refusal(challenger, "respond", final, "game", "alice", "a string")
        self.assertIsInstance(error, ProtocolViolation)
        self.assertEqual(self.game.events, [])


class IdentityWrapperTests(WireTestCase):
    """What a client that is logged in may do."""

    def test_attach(self) -> None:
        """`attach` answers the perspective, and the perspective learns of it."""
        perspective = self.answer(self.identity(), "attach", "game", "alice", None)
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.assertEqual(self.game.kinds(), ["attached"])

    def test_attachToServiceOnly(self) -> None:
        """Without a perspective's name: the identity's own, else the first in sorted order."""
        identity = self.identity()
        own = self.answer(identity, "attach", "game", None, None)
        self.assertEqual(self.answer(own, "whoami"), "alice")
        self.alice.removeKey("game", "alice")
        first = self.answer(identity, "attach", "game", None, None)
        self.assertEqual(self.answer(first, "whoami"), "shared")

    def test_attachWithoutKey(self) -> None:
        """No key, no such service, no such perspective: `KeyNotFound` for all."""
        self.alice.addKeyByString("nowhere", "alice")
        identity = self.identity()
        for pair in (("game", "bob"), ("nowhere", "alice"), ("other", None)):
            self.assertIsInstance(self.refusal(identity, "attach", *pair, None), KeyNotFound)
        self.assertEqual(len(self.memory.authorizer.sessions), 0)

    def test_clientIsCalledBack(self) -> None:
        """The perspective gets a reference to the client's object."""

        class Client(pb.Referenceable):
            def remote_add(self, one: int, other: int) -> int:
                return one + other

        self.answer(self.identity(), "attach", "game", "alice", Client())
        (event,) = self.game.events
        self.assertEqual(self.answer(event.clientref, "add", 2, 3), 5)

    def test_detach(self) -> None:
        """When `detach` answers, `detached` has run; the reference is dead, others live."""
        identity = self.identity()
        perspective = self.answer(identity, "attach", "game", "alice", None)
        other = self.answer(identity, "attach", "game", "shared", None)
        self.answer(identity, "detach", perspective)
        self.assertEqual(self.game.kinds(), ["attached", "attached", "detached"])
        self.assertIsInstance(self.refusal(perspective, "whoami"), Detached)
        self.assertEqual(self.answer(other, "whoami"), "shared")

    def test_detachTwice(self) -> None:
        """Detaching once more changes nothing."""
        identity = self.identity()
        perspective = self.answer(identity, "attach", "game", "alice", None)
        self.answer(identity, "detach", perspective)
        self.answer(identity, "detach", perspective)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_detachWaitsForDetached(self) -> None:
        """`detach` answers after the Deferred that `detached` returned."""
        done: Deferred[None] = Deferred()

        class Slow(RecordingPerspective):
            def detached(self, clientref: Any, identity: Any) -> Any:
                return done

        self.game.perspectiveClass = Slow
        identity = self.identity()
        perspective = self.answer(identity, "attach", "game", "alice", None)
        answer = self.ask(identity, "detach", perspective)
        self.assertNoResult(answer)
        done.callback(None)
        self.memory.flush()
        self.assertIsNone(self.successResultOf(answer))

    def test_detachTakesPerspectivesOnly(self) -> None:
        """Detaching anything else is an error."""
        identity = self.identity()
        for thing in (None, "alice", 7, identity):
            self.assertIsInstance(self.refusal(identity, "detach", thing), ProtocolViolation)

    def test_keys(self) -> None:
        """`keys` lists the keyring as it is now."""
        identity = self.identity()
        self.alice.removeKey("game", "shared")
        self.assertEqual(self.answer(identity, "keys"), [("game", "alice")])

    def test_changePassword(self) -> None:
        """The new password counts, the old one does not, and this client's sessions live on."""
        identity = self.identity()
        perspective = self.answer(identity, "attach", "game", "alice", None)
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 4096)
        self.answer(identity, "changePassword", verifier.encode())
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.answer(identity, "attach", "game", "shared", None)
        self.failureResultOf(self.login("alice", "secret", "game"), Unauthorized)
        self.successResultOf(self.login("alice", "changed", "game"))

    def test_changePasswordEndsOtherSessions(self) -> None:
        """Whoever else is logged in with the old password is put out."""
        elsewhere = self.successResultOf(self.login())
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 4096)
        self.answer(self.identity(), "changePassword", verifier.encode())
        self.assertIsInstance(self.refusal(elsewhere, "whoami"), Detached)

    def test_changePasswordRefusesNonsense(self) -> None:
        """What is no verifier, or a weaker one than clients accept, is refused."""
        identity = self.identity()
        weak = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 1).encode()
        for verifier in ("changed", b"\xff", None, 5, weak):
            error = self.refusal(identity, "changePassword", verifier)
            self.assertIsInstance(error, ProtocolViolation)
        self.successResultOf(self.login())

    def test_changePasswordFromAfar(self) -> None:
        """Over a connection that is neither local nor bound, a password is not changed."""
        self.serve(peer=IPv4Address("TCP", "192.0.2.7", 4000))
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 4096)
        error = self.refusal(self.identity(), "changePassword", verifier.encode())
        self.assertIsInstance(error, ProtocolViolation)

    def test_accountClosedAfterLogin(self) -> None:
        """A login lasts no longer than what it was proved by."""
        for close in (
            lambda: setattr(self.alice, "locked", True),
            lambda: self.alice.setPassword("other"),
            lambda: self.memory.authorizer.removeIdentity("alice"),
        ):
            self.serve()
            identity = self.identity()
            close()
            for call in (["attach", "game", "alice", None], ["keys"]):
                self.assertIsInstance(self.refusal(identity, *call), Unauthorized)

    def test_storeIsAway(self) -> None:
        """A store that can't be reached is told as such, without its details."""

        def away(name: str) -> Any:
            raise StoreError("/var/lib/accounts is on fire")

        self.memory.authorizer.getIdentityRequest = away
        error = self.refusal(self.root(), "username", "alice", SCRAM, b"n,,n=alice,r=nonce")
        self.assertIsInstance(error, StoreError)
        self.assertNotIn("fire", str(error))


class LimitTests(WireTestCase):
    """What a connection may do before it is logged in."""

    def test_graceTime(self) -> None:
        """A connection without a login is dropped after the grace time."""
        self.serve(Policy(graceTime=10))
        root = self.root()
        self.memory.clock.advance(9.9)
        self.memory.flush()
        self.answer(root, "mechanisms")
        self.memory.clock.advance(0.2)
        self.memory.flush()
        self.assertTrue(root.broker.disconnected)

    def test_graceTimeEndsWithLogin(self) -> None:
        """A connection that is logged in stays."""
        self.serve(Policy(graceTime=10))
        perspective = self.successResultOf(self.login())
        self.memory.clock.advance(100)
        self.memory.flush()
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_maxAttempts(self) -> None:
        """After so many failures the connection is dropped, once the last was answered."""
        self.serve(Policy(maxAttempts=3))
        root = self.root()
        for attempt in range(3):
            self.assertFalse(root.broker.disconnected, attempt)
            client, challenger = self.scram(root, password="wrong")
            error = self.refusal(challenger, "respond", client.get_client_final().encode())
            self.assertIsInstance(error, Unauthorized)
        self.memory.flush()
        self.assertTrue(root.broker.disconnected)

    def test_challengersAreBounded(self) -> None:
        """A connection that asks for challenges and answers none of them is dropped."""
        root = self.root()
        challenges = [self.scram(root) for _ in range(MOST_UNANSWERED)]
        self.ask(root, "username", "alice", SCRAM, b"n,,n=alice,r=nonce").addErrback(lambda _: 0)
        self.memory.flush()
        self.assertTrue(root.broker.disconnected)
        self.assertEqual(len(challenges), MOST_UNANSWERED)

    def test_answeredChallengersDoNotCount(self) -> None:
        """A client may log in on one connection as often as it likes."""
        root = self.root()
        for _ in range(MOST_UNANSWERED + 2):
            client, challenger = self.scram(root)
            self.answer(challenger, "respond", client.get_client_final().encode())


class GuestTests(WireTestCase):
    """Anonymous clients, where the policy names a guest."""

    def setUp(self) -> None:
        self.serve(Policy(guest="guest"))
        self.guest = self.memory.addUser("guest", "unguessable", ("game", "guest"))

    def test_guest(self) -> None:
        """Whoever says nothing is the guest, and gets what the guest holds keys to."""
        perspective = self.successResultOf(self.login("guest", Anonymous("a visitor"), "game"))
        self.assertEqual(self.answer(perspective, "whoami"), "guest")
        self.failureResultOf(self.login("guest", Anonymous(), "game", "alice"), KeyNotFound)

    def test_nobodyElse(self) -> None:
        """Nobody becomes somebody else by saying nothing."""
        self.failureResultOf(self.login("alice", Anonymous(), "game"), Unauthorized)
        self.guest.locked = True
        self.failureResultOf(self.login("guest", Anonymous(), "game"), Unauthorized)

    def test_noGuests(self) -> None:
        """Without a guest the mechanism is not offered."""
        self.serve()
        self.failureResultOf(self.login("guest", Anonymous(), "game"), MechanismNotSupported)

    def test_messages(self) -> None:
        """What the mechanism does not have is refused."""
        for initial in (b"\xff", b"x" * 256, None, 5):
            error = self.refusal(self.root(), "username", "guest", "ANONYMOUS", initial)
            self.assertIsInstance(error, Unauthorized)
        _, challenger = self.answer(self.root(), "username", "", "ANONYMOUS", b"")
        self.assertIsInstance(self.refusal(challenger, "respond", b"more"), Unauthorized)


def unknowing() -> jelly.SecurityOptions:
    """What an unmodified program takes: nothing of pbauth's."""
    options = jelly.SecurityOptions()
    options.allowedTypes = {
        name: allowed
        for name, allowed in jelly.globalSecurity.allowedTypes.items()
        if not name.startswith(b"pbauth.")
    }
    return options


class AnyClientTests(WireTestCase):
    """
    Errors for clients that do not have pbauth: those of stock Twisted drop the connection when one
    is of a class that they do not know, and the call never ends.
    """

    def stockRoot(self) -> Any:
        """The root object, by an unmodified client; it knows none of pbauth's classes."""
        factory = pb.PBClientFactory(security=unknowing())
        self.memory.connect(factory)
        opening = factory.getRootObject()
        self.memory.flush()
        return self.successResultOf(opening)

    def assertTold(self, reference: Any, error: type[Exception], *call: Any) -> None:
        """The error has the right name, and the connection stays."""
        failure = self.failureResultOf(self.ask(reference, *call))
        self.assertIsInstance(failure, pb.CopiedFailure)
        self.assertTrue(failure.check(error), failure)
        self.assertFalse(reference.broker.disconnected)

    def serveBoth(self, policy: Policy) -> Iterator[bool]:
        """Serve with this policy, by pbauth's broker and by Twisted's; say whether it is that."""
        for stock in (False, True):
            authorizer = DefaultAuthorizer(hashing=Hashing(iterations=4096, md5=True))
            options: dict[str, Any] = {}
            if stock:
                clock = self.memory.clock
                options["factory"] = pb.PBServerFactory(AuthRoot(authorizer, policy, clock))
            self.serve(policy, authorizer=authorizer, **options)
            authorizer.setServiceCollection(self.memory.services)
            yield stock

    def test_notLegacy(self) -> None:
        """Where the policy lets no such client in."""
        for _ in self.serveBoth(Policy()):
            for call in (["username", b"alice"], ["login", b"alice"], ["loginAnonymous", None]):
                self.assertTold(self.stockRoot(), MechanismNotSupported, *call)

    def test_throttled(self) -> None:
        """After too many failed logins."""
        for _ in self.serveBoth(LEGACY):
            for _ in range(6):
                _, challenger = self.answer(self.stockRoot(), "login", b"alice")
                self.assertTold(challenger, Unauthorized, "respond", b"wrong")
            for name in ("login", "username"):
                self.assertTold(self.stockRoot(), TooManyAttempts, name, b"alice")

    def test_ended(self) -> None:
        """Where the session has ended, and what it gave with it."""

        class Player(RecordingPerspective):
            def perspective_thing(self) -> Any:
                return pb.Referenceable()

        for stock in self.serveBoth(LEGACY):
            self.game.perspectiveClass = Player
            root = self.stockRoot()
            challenge, challenger = self.answer(root, "login", b"alice")
            perspective = self.answer(challenger, "respond", pb.respond(challenge, b"secret"))
            thing = self.answer(perspective, "thing")
            self.alice.locked = True
            self.memory.flush()
            self.assertEqual(len(self.memory.authorizer.sessions), 0)
            self.assertTold(perspective, Detached, "whoami")
            if not stock:
                # Twisted's broker takes nothing back.
                self.assertTold(thing, Detached, "anything")

    def test_nonsense(self) -> None:
        """And calls that there are not."""
        self.assertTold(self.stockRoot(), ProtocolViolation, "nonsense")


class LegacyTests(WireTestCase):
    """Clients of Twisted 1.x and of stock Twisted, where the policy lets them in."""

    def setUp(self) -> None:
        authorizer = DefaultAuthorizer(hashing=Hashing(iterations=4096, md5=True))
        self.serve(LEGACY, authorizer=authorizer)
        authorizer.setServiceCollection(self.memory.services)
        self.memory.addUser("guest", "unguessable", ("game", "guest"))

    def test_loginOfTwisted1(self) -> None:
        """The dance of the seed: username, respond, attach."""
        challenge, challenger = self.answer(self.root(), "username", b"alice")
        identity = self.answer(challenger, "respond", pb.respond(challenge, b"secret"))
        perspective = self.answer(identity, "attach", b"game", b"alice", None)
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_wrongPasswordOfTwisted1(self) -> None:
        """The answer to a wrong password is `None`, also for an unknown name."""
        for name in ("alice", "mallory"):
            challenge, challenger = self.answer(self.root(), "username", name)
            self.assertEqual(len(challenge), md5.CHALLENGE_BYTES)
            self.assertIsNone(self.answer(challenger, "respond", pb.respond(challenge, b"no")))

    def test_nativeLoginByMD5(self) -> None:
        """The mechanism can be named, too; it is then answered as the others are."""
        challenge, challenger = self.answer(self.root(), "username", "alice", "PB-MD5", b"")
        outcome, identity = self.answer(challenger, "respond", pb.respond(challenge, b"secret"))
        self.assertEqual(outcome, b"")
        self.assertEqual(len(self.answer(identity, "keys")), 2)

    def test_withoutMD5Verifier(self) -> None:
        """An identity that has no MD5 verifier can't log in with PB-MD5."""
        self.alice.setVerifiers(
            {SCRAM: ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)}
        )
        challenge, challenger = self.answer(self.root(), "username", "alice")
        self.assertIsNone(self.answer(challenger, "respond", pb.respond(challenge, b"secret")))

    def stockLogin(self, credentials: Any, mind: Any = None) -> Any:
        """Log in with an unmodified client of stock Twisted."""
        factory = pb.PBClientFactory()
        self.memory.connect(factory)
        login = factory.login(credentials, mind)
        self.memory.flush()
        return login

    def test_stockLogin(self) -> None:
        """`PBClientFactory.login` gets the perspective of the default service."""

        class Mind(pb.Referenceable):
            pass

        perspective = self.successResultOf(
            self.stockLogin(UsernamePassword(b"alice", b"secret"), Mind())
        )
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        (event,) = self.game.events
        self.assertIsInstance(event.clientref, pb.RemoteReference)

    def test_stockLogout(self) -> None:
        """A stock client logs out by dropping its reference, named or not; `detached` runs once."""
        for credentials in (UsernamePassword(b"alice", b"secret"), StockAnonymous()):
            perspective = self.successResultOf(self.stockLogin(credentials))
            self.assertEqual(len(self.memory.authorizer.sessions), 1)
            broker = perspective.broker
            # What the client's end does when nobody holds the reference any more.
            perspective.doRefCount = 0
            broker.sendDecRef(perspective.luid)
            self.memory.flush()
            self.assertEqual(len(self.memory.authorizer.sessions), 0)
            broker.transport.loseConnection()
            self.memory.flush()
        self.assertEqual(self.game.kinds(), ["attached", "detached"] * 2)

    def test_stockRefusal(self) -> None:
        """A refused stock client gets an error that it understands, and nothing is logged."""
        for name in (b"alice", b"mallory"):
            failure = self.failureResultOf(self.stockLogin(UsernamePassword(name, b"wrong")))
            self.assertTrue(failure.check(UnauthorizedLogin))
            self.assertTrue(failure.check(Unauthorized))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stockGuest(self) -> None:
        """`loginAnonymous` gets the guest's perspective."""
        perspective = self.successResultOf(self.stockLogin(StockAnonymous()))
        self.assertEqual(self.answer(perspective, "whoami"), "guest")

    def test_stockGuestWhoIsLocked(self) -> None:
        """There are no guests when the guest's account is closed, or not there."""
        self.memory.authorizer.identities["guest"].locked = True
        self.failureResultOf(self.stockLogin(StockAnonymous()), UnauthorizedLogin)
        self.memory.authorizer.removeIdentity("guest")
        self.failureResultOf(self.stockLogin(StockAnonymous()), UnauthorizedLogin)


class StockServerTests(TestCase):
    """`PBServerFactory(AuthRoot(auth))` of stock Twisted is a complete server."""

    async def test_overTCP(self) -> None:
        """Stock PB on both ends and another library's SCRAM make a login over TCP."""
        from scramp import ScramClient
        from twisted.application.service import MultiService
        from twisted.internet import reactor

        services = MultiService()
        authorizer = DefaultAuthorizer(services, Hashing.CHEAPEST)
        game = RecordingService("game", services, authorizer)
        game.createPerspective("alice").makeIdentity("secret")
        port = reactor.listenTCP(0, pb.PBServerFactory(AuthRoot(authorizer)), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        factory = pb.PBClientFactory()
        connector = reactor.connectTCP(  # type: ignore[type-var]
            "127.0.0.1", port.getHost().port, factory
        )
        root = await factory.getRootObject()
        client = ScramClient([SCRAM], "alice", "secret")
        challenge, challenger = await root.callRemote(
            "username", "alice", SCRAM, client.get_client_first().encode()
        )
        client.set_server_first(challenge.decode())
        outcome, _identity, perspective = await challenger.callRemote(
            "respond", client.get_client_final().encode(), "game", "alice", None
        )
        client.set_server_final(outcome.decode())
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        lost: Deferred[None] = Deferred()
        root.broker.notifyOnDisconnect(lambda: lost.callback(None))
        connector.disconnect()
        await lost


class FactoryTests(SynchronousTestCase):
    """What hangs behind a port."""

    def test_rootsAreOfOneConnection(self) -> None:
        """Each connection has an `AuthServ` of its own."""
        memory = MemoryServer()
        factory = AuthServerFactory(memory.authorizer, reactor=memory.clock)
        one, other = (factory.buildProtocol(None).localObjectForID("root") for _ in "12")
        self.assertIsNot(one, other)

    def test_servicesOnOnePort(self) -> None:
        """Several services hang off one port, and one identity uses them all."""
        memory = MemoryServer()
        for name in ("chat", "game"):
            RecordingService(name, memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("chat", "alice"), ("game", "alice"))
        for name in ("chat", "game"):
            self.successResultOf(memory.logIn("alice", "secret", name))

    def test_portsOnOneAuthorizer(self) -> None:
        """Revoking on one port's authorizer ends the sessions on all its ports."""
        memory = MemoryServer()
        game = RecordingService("game", memory.services, memory.authorizer)
        alice = memory.addUser("alice", "secret", ("game", "alice"))
        other = MemoryServer(memory.authorizer)
        self.successResultOf(memory.logIn("alice", "secret", "game"))
        self.successResultOf(other.logIn("alice", "secret", "game"))
        alice.removeKey("game", "alice")
        self.assertEqual(game.kinds(), ["attached"] * 2 + ["detached"] * 2)

    def test_plainValues(self) -> None:
        """An authorizer may give a plain value, a coroutine or a Deferred."""

        async def coroutine(value: Any) -> Any:
            return value

        for wrap in (lambda value: value, coroutine, succeed):
            memory = MemoryServer()
            RecordingService("game", memory.services, memory.authorizer)
            memory.addUser("alice", "secret", ("game", "alice"))
            identities = memory.authorizer.identities
            memory.authorizer.getIdentityRequest = lambda name, wrap=wrap, all=identities: wrap(
                all[name]
            )
            self.successResultOf(memory.logIn("alice", "secret", "game"))


class SQLServerTests(TestCase):
    """The decoys of a server are the same after a restart."""

    async def test_challengeAfterRestart(self) -> None:
        """An unknown name meets the same challenge when the server comes back."""
        path = self.mktemp()
        salts = set()
        for _ in range(2):
            authorizer = SQLAuthorizer(path)
            salts.add(authorizer.getDecoyVerifier("mallory", SCRAM))
            authorizer.close()
        self.assertEqual(len(salts), 1)


class GarbageTests(SynchronousTestCase):
    """What a connection leaves behind."""

    def test_noCycles(self) -> None:
        """Nothing of a login that is over waits for the garbage collector."""
        memory = MemoryServer()
        memory.authorizer.setServiceCollection(memory.services)
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))

        def left() -> list[object]:
            kinds = (Session, SessionReference, Attempts, UnauthenticatedConnection)
            return [each for each in gc.get_objects() if type(each) in kinds]

        freezeHeap()
        gc.collect()
        self.addCleanup(gc.enable)
        gc.disable()
        before = len(left())
        perspective = self.successResultOf(memory.logIn("alice", "secret", "game"))
        self.assertGreater(len(left()), before)
        memory.disconnect(perspective)
        self.assertEqual(len(left()), before, left())
