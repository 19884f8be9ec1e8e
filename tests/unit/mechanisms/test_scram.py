"""SCRAM, against the RFC's example, against another library, and against anybody's bytes."""

from __future__ import annotations

import base64
from stringprep import in_table_a1
from typing import Any

import scramp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scramp.core import ScramException
from scramp.core import saslprep as scrampPrep
from twisted.trial.unittest import SynchronousTestCase

from pbauth.errors import ExchangeRefused, InvalidPassword, ServerNotTrusted
from pbauth.mechanisms.scram import (
    NAME,
    ScramClient,
    ScramKeys,
    ScramServer,
    ScramVerifier,
    preparePassword,
)

SALT = b"0123456789abcdef"
VERIFIER = ScramVerifier.fromPassword("secret", SALT, 4096)
KEYS = ScramKeys.derive(b"secret", SALT, 4096)


def _acceptable(character: str) -> bool:
    # What scramp refuses by itself it can't be compared by; and old versions of it prepare by
    # today's Unicode, not by Unicode 3.2 as the RFC has it.
    try:
        return bool(scrampPrep(character)) and not in_table_a1(character)
    except ScramException:
        return False


def _alphabet(*ranges: tuple[int, int]) -> st.SearchStrategy[str]:
    characters = [chr(point) for first, last in ranges for point in range(first, last)]
    return st.sampled_from([each for each in characters if _acceptable(each)])


#: Names and passwords: Latin, Greek, Cyrillic, number forms, kana and Chinese mixed at will;
#: Hebrew and Arabic, which do not mix with those.
LEFT_TO_RIGHT = _alphabet(
    (0x20, 0x250), (0x370, 0x500), (0x2150, 0x2190), (0x3040, 0x3100), (0x4E00, 0x5000)
)
RIGHT_TO_LEFT = _alphabet((0x5D0, 0x5EB), (0x621, 0x64B))
TEXT = st.one_of(
    st.text(LEFT_TO_RIGHT, min_size=1, max_size=20), st.text(RIGHT_TO_LEFT, min_size=1, max_size=20)
)
SOME = settings(max_examples=40)


class ExampleTests(SynchronousTestCase):
    """The example of RFC 7677, section 3, byte for byte."""

    FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    CHALLENGE = (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    RESPONSE = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    OUTCOME = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

    def test_client(self) -> None:
        """The client's half."""
        client = ScramClient("user", "rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(client.initial, self.FIRST)
        salt, iterations = client.readChallenge(self.CHALLENGE)
        keys = ScramKeys.derive(preparePassword("pencil"), salt, iterations)
        self.assertEqual(client.respond(keys), self.RESPONSE)
        client.checkOutcome(self.OUTCOME)

    def test_server(self) -> None:
        """The server's half."""
        salt = base64.b64decode(b"W22ZaJ0SNY7soEsUEjb6gQ==")
        verifier = ScramVerifier.fromPassword("pencil", salt, 4096)
        server = ScramServer("user", verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
        self.assertEqual(server.challenge(self.FIRST), self.CHALLENGE)
        self.assertEqual(server.outcome(self.RESPONSE), self.OUTCOME)


class AnotherLibraryTests(SynchronousTestCase):
    """The library scramp is the other end."""

    @SOME
    @given(TEXT, TEXT)
    @example("Zoë", "pa\u00adss\u2168")
    def test_itsServer(self, name: str, password: str) -> None:
        """Our client logs in to its server, and believes it."""
        mechanism = scramp.ScramMechanism(NAME)
        stored = mechanism.make_auth_info(password, iteration_count=4096, salt=SALT)
        server = mechanism.make_server(lambda claimed: stored)
        client = ScramClient(name, "client-nonce")
        server.set_client_first(client.initial.decode())
        salt, iterations = client.readChallenge(server.get_server_first().encode())
        keys = ScramKeys.derive(preparePassword(password), salt, iterations)
        server.set_client_final(client.respond(keys).decode())
        client.checkOutcome(server.get_server_final().encode())

    @SOME
    @given(TEXT, TEXT)
    @example("Zoë", "pa\u00adss\u2168")
    def test_itsClient(self, name: str, password: str) -> None:
        """Its client logs in to our server, and believes it."""
        verifier = ScramVerifier.fromPassword(password, SALT, 4096)
        client = scramp.ScramClient([NAME], name, password)
        server = ScramServer(name, verifier, "server-nonce")
        client.set_server_first(server.challenge(client.get_client_first().encode()).decode())
        client.set_server_final(server.outcome(client.get_client_final().encode()).decode())

    def test_escapedNames(self) -> None:
        """Names with the two characters that SCRAM escapes."""
        for name in ("a=b,c", "=2C,", "=3D=2C"):
            client = scramp.ScramClient([NAME], name, "secret")
            server = ScramServer(name, VERIFIER, "server-nonce")
            challenge = server.challenge(client.get_client_first().encode())
            client.set_server_first(challenge.decode())
            client.set_server_final(server.outcome(client.get_client_final().encode()).decode())

    def test_itsClientWithAWrongPassword(self) -> None:
        """Its client with a wrong password is refused."""
        client = scramp.ScramClient([NAME], "alice", "wrong")
        server = ScramServer("alice", VERIFIER, "server-nonce")
        client.set_server_first(server.challenge(client.get_client_first().encode()).decode())
        with self.assertRaises(ExchangeRefused) as raised:
            server.outcome(client.get_client_final().encode())
        self.assertEqual(raised.exception.reason, "wrong password")


class Login:
    """Both our halves, in the middle of a login of alice."""

    def __init__(self, name: str = "alice", **options: Any) -> None:
        self.client = ScramClient(
            name, "client", options.get("binding"), options.get("couldBind", False)
        )
        self.server = ScramServer(
            "alice",
            VERIFIER,
            "server",
            options.get("serverBinding"),
            options.get("overTLS", False),
        )

    def challenge(self) -> bytes:
        """Go as far as the challenge."""
        return self.server.challenge(self.client.initial)

    def response(self) -> bytes:
        """Go as far as the response."""
        self.client.readChallenge(self.challenge())
        return self.client.respond(KEYS)

    def outcome(self) -> bytes:
        """Go to the end."""
        return self.server.outcome(self.response())


class BindingTests(SynchronousTestCase):
    """The form with channel binding."""

    def test_sameChannel(self) -> None:
        """Both ends of one channel agree."""
        login = Login(binding=b"channel", serverBinding=b"channel", overTLS=True)
        self.assertTrue(login.client.initial.startswith(b"p=tls-exporter,,"))
        login.client.checkOutcome(login.outcome())

    def test_refusals(self) -> None:
        """A relay shows: another channel, a stripped offer, a binding that was not offered."""
        for options in [
            {"binding": b"channel", "serverBinding": b"other", "overTLS": True},
            {"binding": None, "serverBinding": b"channel", "overTLS": True},
            {"couldBind": True, "overTLS": True},
            {"binding": b"channel"},
        ]:
            with self.assertRaises(ExchangeRefused):
                Login(**options).outcome()

    def test_couldBindButNotOffered(self) -> None:
        """A client that could have bound logs in to a server that can't."""
        login = Login(couldBind=True)
        self.assertTrue(login.client.initial.startswith(b"y,,"))
        login.client.checkOutcome(login.outcome())

    def test_otherTypeOfBinding(self) -> None:
        """A binding of another type is refused."""
        server = ScramServer("alice", VERIFIER, "server", b"channel", True)
        with self.assertRaises(ExchangeRefused):
            server.challenge(b"p=tls-unique,,n=alice,r=client")


class ServerTests(SynchronousTestCase):
    """What the server refuses."""

    def test_names(self) -> None:
        """The exchange is for the name of the login, in its one spelling, and nobody else."""
        for first in [
            b"n,,n=bob,r=client",
            b"n,,n=alice=,r=client",
            b"n,,n=alice=2c,r=client",
            b"n,a=bob,n=alice,r=client",
            b"n,,n=,r=client",
            "n,,n=ａlice,r=client".encode(),
        ]:
            with self.assertRaises(ExchangeRefused):
                ScramServer("alice", VERIFIER, "server").challenge(first)
        ScramServer("alice", VERIFIER, "server").challenge(b"n,a=alice,n=alice,r=client")
        ScramServer("ａlice", VERIFIER, "server").challenge(b"n,,n=alice,r=client")

    def test_order(self) -> None:
        """A response comes after the challenge, and once."""
        with self.assertRaises(ExchangeRefused):
            ScramServer("alice", VERIFIER, "server").outcome(b"c=biws,r=x,p=eA==")
        login = Login()
        response = login.response()
        login.server.outcome(response)
        with self.assertRaises(ExchangeRefused):
            login.server.outcome(response)

    def test_malformed(self) -> None:
        """What RFC 5802's grammar does not allow is refused whole."""
        for first in [
            b"",
            b"n,,",
            b"x,,n=alice,r=client",
            b"n,n=alice,r=client",
            b"n,,r=client,n=alice",
            b"n,,m=x,n=alice,r=client",
            b"n,,n=alice,r=cli\xc3\xa4nt",
            b"n,,n=alice,r=client\n",
            b"n,,n=alice\xff,r=client",
            b"n,,n=alice,r=" + b"x" * 5000,
            "n,,n=alice,r=client",
            None,
        ]:
            with self.assertRaises(ExchangeRefused):
                ScramServer("alice", VERIFIER, "server").challenge(first)
        for final in [
            b"",
            b"c=biws,r=clientserver",
            b"c=biws,r=clientserver,p=",
            b"c=biws,r=clientserver,p=eA==",
            b"c=biws,r=clientserver,p=*",
            b"c=biws,r=clientserve,p=" + base64.b64encode(bytes(32)),
            b"c=eSws,r=clientserver,p=" + base64.b64encode(bytes(32)),
            b"c=b,r=clientserver,p=" + base64.b64encode(bytes(32)),
        ]:
            login = Login()
            login.challenge()
            with self.assertRaises(ExchangeRefused):
                login.server.outcome(final)

    @settings(max_examples=150)
    @given(st.data())
    def test_mutatedMessages(self, data: st.DataObject) -> None:
        """
        Whatever is changed in a message of the client: refused, or the same login; nothing else.
        """
        login = Login()
        which = data.draw(st.sampled_from(["initial", "response"]))
        message = login.client.initial if which == "initial" else login.response()
        place = data.draw(st.integers(0, len(message)))
        change = data.draw(st.binary(max_size=3))
        removed = data.draw(st.integers(0, 3))
        changed = message[:place] + change + message[place + removed :]
        try:
            if which == "initial":
                login.server.challenge(changed)
            else:
                login.server.outcome(changed)
        except ExchangeRefused:
            return
        if which == "response":
            # Base64 allows for no second spelling of the same proof.
            self.assertEqual(changed, message)

    @settings(max_examples=100)
    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_anyBytes(self, first: bytes, final: bytes) -> None:
        """No bytes lead to anything but a refusal."""
        server = ScramServer("alice", VERIFIER, "server")
        step: Any
        for step, message in ((server.challenge, first), (server.outcome, final)):
            try:
                step(message)
            except ExchangeRefused:
                continue
            self.assertIs(step.__func__, ScramServer.challenge)


class MandatoryExtensionTests(SynchronousTestCase):
    """`m=`, by which either end demands what the other does not know (RFC 5802, section 5.1)."""

    def test_client(self) -> None:
        """The server refuses it wherever a client puts it."""
        for first in (
            b"n,,m=x,n=alice,r=client",
            b"n,,n=alice,m=x,r=client",
            b"n,,n=alice,r=client,m=x",
            b"n,,n=alice,r=client,a=b,m=x",
        ):
            with self.assertRaises(ExchangeRefused):
                ScramServer("alice", VERIFIER, "server").challenge(first)
        login = Login()
        response = login.response().replace(b",p=", b",m=x,p=")
        with self.assertRaises(ExchangeRefused) as raised:
            login.server.outcome(response)
        self.assertEqual(raised.exception.reason, "malformed client-final message")

    def test_server(self) -> None:
        """The client trusts no server that sends it."""
        for challenge in (
            b"m=x,r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096",
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096,m=x",
        ):
            with self.assertRaises(ServerNotTrusted):
                ScramClient("alice", "client").readChallenge(challenge)
        login = Login()
        outcome = login.outcome() + b",m=x"
        with self.assertRaises(ServerNotTrusted):
            login.client.checkOutcome(outcome)

    def test_others(self) -> None:
        """Extensions that nobody has to know are passed over."""
        ScramServer("alice", VERIFIER, "server").challenge(b"n,,n=alice,r=client,x=y")
        ScramClient("alice", "client").readChallenge(
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096,x=y"
        )


class ClientTests(SynchronousTestCase):
    """What the client refuses, in every mode."""

    def test_challenges(self) -> None:
        """Unsafe iteration counts, nonces that do not extend its own, malformed challenges."""
        for challenge in [
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4095",
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=10000001",
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=99999999999999",
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=-4096",
            b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=04096",
            b"r=client,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096",
            b"r=other,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096",
            b"r=clientserver,s=M,i=4096",
            b"r=clientserver,s=" + base64.b64encode(b"1234567") + b",i=4096",
            b"r=clientserver,s=" + base64.b64encode(bytes(129)) + b",i=4096",
            b"e=other-error",
            b"",
            None,
        ]:
            with self.assertRaises(ServerNotTrusted):
                ScramClient("alice", "client").readChallenge(challenge)
        for bounds in (b"4096", b"10000000"):
            ScramClient("alice", "client").readChallenge(
                b"r=clientserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=" + bounds
            )

    def test_outcomes(self) -> None:
        """A proof that is wrong, malformed, an error, or out of order is no proof."""
        right = Login().outcome()
        for outcome in [b"", b"v=", b"v=" + base64.b64encode(bytes(32)), b"e=other", right[:-1]]:
            login = Login()
            login.outcome()
            with self.assertRaises(ServerNotTrusted):
                login.client.checkOutcome(outcome)
        with self.assertRaises(ServerNotTrusted):
            ScramClient("alice", "client").checkOutcome(right)
        with self.assertRaises(ServerNotTrusted):
            ScramClient("alice", "client").respond(KEYS)

    @settings(max_examples=100)
    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_anyBytes(self, challenge: bytes, outcome: bytes) -> None:
        """No bytes lead to anything but distrust."""
        client = ScramClient("alice", "client")
        with self.assertRaises(ServerNotTrusted):
            client.readChallenge(challenge)
        with self.assertRaises(ServerNotTrusted):
            client.checkOutcome(outcome)


class VerifierTests(SynchronousTestCase):
    """What a server keeps."""

    def test_text(self) -> None:
        """As text it has PostgreSQL's form, and comes back the same."""
        text = VERIFIER.encode()
        self.assertRegex(text, r"^SCRAM-SHA-256\$4096:[^:$]+\$[^:$]+:[^:$]+$")
        self.assertEqual(ScramVerifier.decode(text), VERIFIER)

    def test_notVerifiers(self) -> None:
        """What is no such text, or no verifier that clients accept, is refused."""
        text = VERIFIER.encode()
        for bad in [
            "",
            "secret",
            text[:-5],
            text.replace("SHA-256", "SHA-512"),
            text.replace("4096", "4095"),
            text.replace("4096", "10000001"),
            text.replace("4096", "４０９６"),
            text.replace("$4096:", "$4096:!"),
            text + "$",
        ]:
            with self.assertRaises(ValueError):
                ScramVerifier.decode(bad)

    def test_matches(self) -> None:
        """It knows its password, and no other."""
        self.assertTrue(VERIFIER.matches("secret"))
        for wrong in ("Secret", "", "\0"):
            self.assertFalse(VERIFIER.matches(wrong))

    def test_secrets(self) -> None:
        """What helps a thief is not shown."""
        for shown in (repr(VERIFIER), repr(KEYS)):
            for secret in (VERIFIER.storedKey, VERIFIER.serverKey, KEYS.clientKey):
                self.assertNotIn(repr(secret), shown)

    def test_passwords(self) -> None:
        """What can't be a password is refused, without showing any of it."""
        for bad in ("", "\u00ad", "bell\x07", "\ue000", "\ud800", "\xe9" * 2049, "\u0300" * 2049):
            with self.assertRaises(InvalidPassword) as raised:
                preparePassword(bad)
            self.assertIsNone(raised.exception.__context__)
        with self.assertRaises(TypeError):
            preparePassword(b"secret")
        self.assertEqual(preparePassword("\U0001f511"), "\U0001f511".encode())
