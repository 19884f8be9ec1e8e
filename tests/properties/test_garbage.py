"""Whatever is sent in the messages of a login, by whatever mechanism."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from pbauth import MechanismNotSupported, Policy, ProtocolViolation, PublicKey, Unauthorized
from pbauth.login import root
from pbauth.login.policy import LISTABLE
from pbauth.mechanisms.channel import Channel
from tests.support.tls import PIN
from tests.support.wire import WireTestCase

#: Shapes of real messages, and everything else that PB can carry.
MESSAGES = st.one_of(
    st.sampled_from(
        [
            *(b"", bytes(16), bytes(32), bytes(64), b"x" * 5000, "x" * 5000),
            *(b"n,,n=alice,r=nonce", b"y,,n=alice,r=nonce", b"n,a=bob,n=alice,r=nonce"),
            *(b"p=tls-exporter,,n=alice,r=nonce", b"p=tls-unique,,n=alice,r=nonce"),
            *(b"c=biws,r=nonce,p=AAAA", b"c=,r=,p=", b"\0alice\0guess", b"\0\0", b"n,,n=\xff,r=n"),
        ]
    ),
    st.binary(max_size=60),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(),
    st.none(),
    st.lists(st.binary(max_size=5), max_size=3),
    st.dictionaries(st.text("abc", max_size=3), st.integers(), max_size=2),
)
NAMES = st.sampled_from(["alice", "mallory", b"alice", b"\xff", "", None, 7, "a" * 300, "a\nb"])


class GarbageTests(WireTestCase):
    """
    A connection on which every mechanism is offered, and which is sent anything.
    """

    def setUp(self) -> None:
        facts = Channel(secure=True, channelBinding=b"x" * 32, peerPin=PIN)
        self.patch(root, "channelOf", lambda broker: facts)
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        """Keep the lines of the log that tell of refusals."""
        if "Refused" in (event.get("log_format") or ""):
            self.lines.append(event["log_format"])

    def offer(self, externalPasswords: bool) -> Any:
        """Start a server that offers all that can be offered at once, and connect."""
        self.serve(
            Policy(
                mechanisms=sorted(LISTABLE - {"ANONYMOUS"}),
                legacyLogin=True,
                guest="guest",
                maxAttempts=10**6,
                maxUnauthenticatedBytes=10**9,
                throttle=False,
            )
        )
        self.memory.authorizer.externalPasswords = externalPasswords
        self.memory.addUser("guest", "secret")
        self.alice.addPublicKey(PublicKey(bytes(32)))
        connected = self.root()
        self.offered = self.answer(connected, "mechanisms")
        return connected

    def send(self, reference: Any, *call: Any) -> Any:
        """Call, and give the answer, or the error."""
        answer: Deferred[Any] = self.ask(reference, *call)
        result: list[Any] = []
        answer.addBoth(result.append)
        (found,) = result
        return found.value if isinstance(found, Failure) else found

    def check(self, connected: Any, mechanism: str, name: Any, messages: tuple[Any, Any]) -> None:
        """Send messages, and see that they prove nothing, and leave one line in the log."""
        self.lines.clear()
        answer = self.send(connected, "username", name, mechanism, messages[0])
        refused = isinstance(answer, Exception)
        if not refused:
            answer = self.send(answer[1], "respond", messages[1])
        if isinstance(answer, tuple):
            # What is no name is nobody's, and nobody is the guest.
            self.assertEqual(mechanism, "ANONYMOUS")
            self.assertIn(name, ("", None, 7))
            return
        self.assertIn(type(answer), (Unauthorized, ProtocolViolation))
        if type(answer) is Unauthorized:
            self.assertEqual(len(self.lines), 1, (mechanism, name, messages))

    def garbage(self, connected: Any, mechanism: str) -> None:
        """Send a mechanism all kinds of it."""

        @settings(max_examples=60)
        @given(NAMES, st.tuples(MESSAGES, MESSAGES))
        def send(name: Any, messages: tuple[Any, Any]) -> None:
            self.check(connected, mechanism, name, messages)

        send()

    def test_everyMechanism(self) -> None:
        """Of each mechanism that there is, garbage gets a refusal, and no traceback."""
        seen = set()
        for externalPasswords in (False, True):
            connected = self.offer(externalPasswords)
            for mechanism in self.offered:
                seen.add(mechanism)
                self.garbage(connected, mechanism)
        self.assertEqual(seen, LISTABLE | {"PB-MD5"})
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(max_examples=60)
    @given(MESSAGES, MESSAGES)
    def test_noSuchMechanism(self, mechanism: Any, initial: Any) -> None:
        """What is no mechanism is not supported, whatever it is."""
        answer = self.send(self.offer(False), "username", "alice", mechanism, initial)
        self.assertIsInstance(answer, MechanismNotSupported)
