"""
SCRAM-SHA-256 (RFC 5802, RFC 7677), without I/O: bytes in, bytes out.

The conversation has four messages, and this module reads in their order:

====================  ==========================================  ====================
message               text                                        made by
====================  ==========================================  ====================
client-first          ``n,,n=alice,r=<c>``                        `ScramClient.initial`
server-first          ``r=<c><s>,s=<salt>,i=<iterations>``        `ScramServer.challenge`
client-final          ``c=<gs2 header>,r=<c><s>,p=<proof>``       `ScramClient.respond`
server-final          ``v=<signature>``                           `ScramServer.outcome`
====================  ==========================================  ====================

Rules of the module.  Neither half knows a clock, a thread or a random generator: nonces are handed
in, and the slow derivation (`ScramKeys.derive`) is a function that the caller runs where it likes.
Each half goes forward only; a call out of order is a refusal.  A message that the grammar of RFC
5802, section 7 does not allow is refused whole.  Secrets are compared in constant time only.  The
``-PLUS`` form is the same conversation with channel binding data of type ``tls-exporter``
(RFC 9266) in ``c=``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable

from attrs import field, frozen
from zope.interface import implementer

from pbauth.errors import ExchangeRefused, InvalidPassword, ServerNotTrusted
from pbauth.interfaces import IExchange, IMechanism
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.saslprep import saslprep
from pbauth.mechanisms.terms import Claimant, Terms

NAME = "SCRAM-SHA-256"
NAME_PLUS = "SCRAM-SHA-256-PLUS"

#: The fewest iterations that a client accepts (RFC 7677, section 4).
FEWEST_ITERATIONS = 4_096
#: The most iterations that a client accepts: about three seconds of work; a server that asks for
#: more wants to keep the client busy.
MOST_ITERATIONS = 10_000_000

#: The shortest and the longest salt that a client accepts, in bytes: a shorter one lets tables be
#: made of many passwords at once.
FEWEST_SALT_BYTES = 8
MOST_SALT_BYTES = 128

#: The longest password that is not ASCII, in bytes of UTF-8. To normalise a text takes a time that
#: grows with the square of its length: 20 seconds for 256 KiB of accents, and nothing else runs
#: meanwhile.
LONGEST_PASSWORD = 4_096

#: The one type of channel binding spoken here (RFC 9266).
BINDING_TYPE = "tls-exporter"

_LONGEST_MESSAGE = 4_096
_NONCE = r"[\x21-\x2b\x2d-\x7e]+"
_VALUE = r"[^,\x00]+"
# Any but `m`, which demands what nobody knows (RFC 5802, section 5.1).
_EXTENSIONS = rf"(?:,[A-Za-ln-z]={_VALUE})*"
_CLIENT_FIRST = re.compile(
    rf"(?P<gs2>(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.\-]+)),(?:a=(?P<authzid>{_VALUE}))?,)"
    rf"(?P<bare>n=(?P<name>{_VALUE}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
_SERVER_FIRST = re.compile(
    rf"r=(?P<nonce>{_NONCE}),s=(?P<salt>[A-Za-z0-9+/=]+),i=(?P<iterations>[1-9][0-9]{{0,8}})"
    rf"{_EXTENSIONS}"
)
_CLIENT_FINAL = re.compile(
    rf"(?P<unproved>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
    r",p=(?P<proof>[A-Za-z0-9+/=]+)"
)
_SERVER_FINAL = re.compile(rf"v=(?P<signature>[A-Za-z0-9+/=]+){_EXTENSIONS}")


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    mixed = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return mixed.to_bytes(len(one), "big")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def _parse(grammar: re.Pattern[str], message: object, what: str) -> re.Match[str]:
    if not isinstance(message, bytes) or len(message) > _LONGEST_MESSAGE:
        raise ExchangeRefused(f"the {what} message is not bytes, or too long")
    try:
        found = grammar.fullmatch(message.decode("utf-8"))
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise ExchangeRefused(f"malformed {what} message")
    return found


def preparePassword(password: str) -> bytes:
    """
    Return the bytes of a password that are hashed: SASLprep, then UTF-8 (RFC 5802, section 2.2).

    Args:
        password: as it was typed.

    Returns:
        The prepared password.

    Raises:
        TypeError: it is not a `str`.
        InvalidPassword: it is empty or too long, or holds what SASLprep prohibits.
    """
    if not isinstance(password, str):
        raise TypeError(f"A password is a str, not {type(password).__name__}.")
    # Before it is normalised.
    if not password.isascii() and len(password.encode("utf-8", "surrogatepass")) > LONGEST_PASSWORD:
        raise InvalidPassword(
            f"A password takes at most {LONGEST_PASSWORD} bytes, unless it is ASCII."
        )
    try:
        prepared = saslprep(password)
    except ValueError as refusal:
        # Without the chain: the text of the cause names a character of the password.
        del refusal
        prepared = None
    if prepared is None:
        raise InvalidPassword("The password contains a character that is not allowed.")
    if not prepared:
        raise InvalidPassword("The password must not be empty.")
    return prepared.encode("utf-8")


@frozen
class ScramKeys:
    """
    What a password comes to with one salt and one iteration count: all that a client needs to
    remember, and as good as the password for logging in.

    Attributes:
        clientKey: proves the client.
        serverKey: lets the client check the server.
    """

    clientKey: bytes = field(repr=False)
    serverKey: bytes = field(repr=False)

    @classmethod
    def derive(cls, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
        """
        Derive the keys (RFC 5802, section 3). Slow, by design: about 0.3 µs per iteration.

        Args:
            password: as `preparePassword` gives it.
            salt: random bytes, of this password only.
            iterations: how often PBKDF2 hashes.

        Returns:
            The keys.
        """
        salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
        return cls(_hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))

    @property
    def storedKey(self) -> bytes:
        """Return the hash of the client key, which a server stores instead of it."""
        return hashlib.sha256(self.clientKey).digest()

    def verifier(self, salt: bytes, iterations: int) -> ScramVerifier:
        """
        Make what a server keeps.

        Args:
            salt: that these keys were derived with.
            iterations: that these keys were derived with.
        """
        return ScramVerifier(salt, iterations, self.storedKey, self.serverKey)


@frozen
class ScramVerifier:
    """
    What a server keeps of a password: enough to check a login, not enough to log in.

    Attributes:
        salt: random bytes.
        iterations: how often PBKDF2 hashed.
        storedKey: checks the client's proof.
        serverKey: signs the server's answer.
    """

    salt: bytes
    iterations: int
    storedKey: bytes = field(repr=False)
    serverKey: bytes = field(repr=False)

    @classmethod
    def fromPassword(cls, password: str, salt: bytes, iterations: int) -> ScramVerifier:
        """
        Make the verifier of a password. Slow, by design.

        Args:
            password: the password.
            salt: fresh random bytes.
            iterations: how often PBKDF2 hashes.

        Returns:
            The verifier.

        Raises:
            TypeError: the password is not a `str`.
            InvalidPassword: it can't be a password.
        """
        return ScramKeys.derive(preparePassword(password), salt, iterations).verifier(
            salt, iterations
        )

    @property
    def cost(self) -> tuple[int, int]:
        """Return the iterations and the bytes of salt, which anybody sees who claims the name."""
        return self.iterations, len(self.salt)

    def covers(self, proof: object) -> bool:
        """Return whether a login that was proved by this verifier is still valid."""
        return proof is self or proof == self

    def matches(self, password: str) -> bool:
        """Return whether this is the password. Slow, by design; a text that can't be one is not."""
        try:
            prepared = preparePassword(password)
        except InvalidPassword:
            return False
        keys = ScramKeys.derive(prepared, self.salt, self.iterations)
        return hmac.compare_digest(keys.storedKey, self.storedKey)

    def encode(self) -> str:
        """Return the text that PostgreSQL stores: ``SCRAM-SHA-256$i:salt$stored:server``."""
        return (
            f"{NAME}${self.iterations}:{_base64(self.salt)}"
            f"${_base64(self.storedKey)}:{_base64(self.serverKey)}"
        )

    def digest(self) -> str:
        """Return a text that identifies the verifier, and does not help to guess the password."""
        return hashlib.sha256(self.encode().encode("ascii")).hexdigest()

    @classmethod
    def decode(cls, text: str) -> ScramVerifier:
        """
        Read what `encode` wrote.

        Args:
            text: the encoded verifier.

        Returns:
            The verifier.

        Raises:
            ValueError: it is not of that form, or its iteration count is one that clients refuse.
        """
        try:
            name, cost, keys = text.split("$")
            iterations, salt = cost.split(":")
            storedKey, serverKey = keys.split(":")
            made = cls(_unbase64(salt), int(iterations), _unbase64(storedKey), _unbase64(serverKey))
        except ValueError:
            raise ValueError("This is not a SCRAM-SHA-256 verifier.") from None
        if (
            name != NAME
            or not iterations.isascii()
            or len(made.storedKey) != 32
            or len(made.serverKey) != 32
            or not FEWEST_SALT_BYTES <= len(made.salt) <= MOST_SALT_BYTES
            or not FEWEST_ITERATIONS <= made.iterations <= MOST_ITERATIONS
        ):
            raise ValueError("This is not a SCRAM-SHA-256 verifier that clients accept.")
        return made


def makeNonce(randomBytes: Callable[[int], bytes]) -> str:
    """Return a nonce of 18 random bytes, as text that SCRAM allows."""
    return _base64(randomBytes(18))


def _gs2Header(binding: bytes | None, couldBind: bool) -> str:
    if binding is not None:
        return f"p={BINDING_TYPE},,"
    return "y,," if couldBind else "n,,"


class ScramClient:
    """
    The client's half of one login.

    Args:
        name: the identity's name.
        nonce: random text of printable ASCII without commas; fresh for each login.
        binding: channel binding data for the ``-PLUS`` form, or `None`.
        couldBind: the client could have bound, but was not offered it: a server that did offer
            it then knows that somebody changed its offer.

    Raises:
        ValueError: the name can't be sent (SASLprep prohibits it).
    """

    def __init__(
        self, name: str, nonce: str, binding: bytes | None = None, couldBind: bool = False
    ) -> None:
        prepared = saslprep(name).replace("=", "=3D").replace(",", "=2C")
        self._nonce = nonce
        self._gs2 = _gs2Header(binding, couldBind)
        self._bindingInput = self._gs2.encode("ascii") + (binding or b"")
        self._bare = f"n={prepared},r={nonce}"
        self._serverFirst: re.Match[str] | None = None
        self._serverSignature: bytes | None = None

    @property
    def initial(self) -> bytes:
        """Return the client-first message."""
        return (self._gs2 + self._bare).encode("utf-8")

    def readChallenge(self, challenge: bytes) -> tuple[bytes, int]:
        """
        Read the server-first message.

        Args:
            challenge: the message.

        Returns:
            The salt and the iteration count to derive the keys with.

        Raises:
            ServerNotTrusted: it is malformed, its nonce does not extend the client's, its salt
                is shorter than 8 bytes or longer than 128, or its iteration count is under 4,096
                or over 10,000,000.
        """
        try:
            found = _parse(_SERVER_FIRST, challenge, "server-first")
            salt = _unbase64(found["salt"])
        except (ExchangeRefused, ValueError):
            raise ServerNotTrusted("The server sent a malformed challenge.") from None
        if not FEWEST_SALT_BYTES <= len(salt) <= MOST_SALT_BYTES:
            raise ServerNotTrusted(
                f"The server's salt has {len(salt)} bytes; "
                f"{FEWEST_SALT_BYTES} to {MOST_SALT_BYTES} are safe."
            )
        nonce = found["nonce"]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ServerNotTrusted("The server's challenge does not answer this login.")
        iterations = int(found["iterations"])
        if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ServerNotTrusted(
                f"The server asks for {iterations} iterations; "
                f"{FEWEST_ITERATIONS} to {MOST_ITERATIONS} are safe."
            )
        self._serverFirst = found
        return salt, iterations

    def respond(self, keys: ScramKeys) -> bytes:
        """
        Make the client-final message.

        Args:
            keys: derived from the password with what `readChallenge` gave.

        Returns:
            The message.
        """
        if self._serverFirst is None:
            raise ServerNotTrusted("There is no challenge to respond to.")
        unproved = f"c={_base64(self._bindingInput)},r={self._serverFirst['nonce']}"
        signed = ",".join((self._bare, self._serverFirst.string, unproved)).encode("utf-8")
        proof = _xor(keys.clientKey, _hmac(keys.storedKey, signed))
        self._serverSignature = _hmac(keys.serverKey, signed)
        return f"{unproved},p={_base64(proof)}".encode()

    def checkOutcome(self, outcome: bytes) -> None:
        """
        Read the server-final message, the server's own proof.

        Args:
            outcome: the message.

        Raises:
            ServerNotTrusted: the server does not know the verifier of this password.
        """
        try:
            signature = _unbase64(_parse(_SERVER_FINAL, outcome, "server-final")["signature"])
        except (ExchangeRefused, ValueError):
            raise ServerNotTrusted("The server sent a malformed proof of itself.") from None
        if self._serverSignature is None or not hmac.compare_digest(
            signature, self._serverSignature
        ):
            raise ServerNotTrusted()


@implementer(IExchange)
class ScramServer:
    """
    The server's half of one login.

    Args:
        name: the claimed identity's name, as the client told it outside the mechanism.
        verifier: of that identity's password; one that no password fits, where there is none.
        nonce: random text of printable ASCII without commas; fresh for each login.
        binding: channel binding data; `None` for the form without ``-PLUS``.
        overTLS: the connection runs over TLS. A client that could bind, and says that it was not
            offered that, was lied to.
    """

    def __init__(
        self,
        name: str,
        verifier: ScramVerifier,
        nonce: str,
        binding: bytes | None = None,
        overTLS: bool = False,
    ) -> None:
        self._name = name
        self._verifier = self.proof = verifier
        self._nonce = nonce
        self._binding = binding
        self._overTLS = overTLS
        self._bindingInput = b""
        self._signedSoFar: str | None = None

    @property
    def bound(self) -> bool:
        """Return whether it is bound to the channel."""
        return self._binding is not None

    def challenge(self, initial: bytes) -> bytes:
        """
        Read the client-first message and make the server-first message.

        Args:
            initial: the client-first message.

        Returns:
            The server-first message.

        Raises:
            ExchangeRefused: malformed, for another name, or bound in another way than offered.
        """
        first = _parse(_CLIENT_FIRST, initial, "client-first")
        self._checkBindingFlag(first)
        self._checkName(first)
        self._nonce = first["nonce"] + self._nonce
        serverFirst = (
            f"r={self._nonce},s={_base64(self._verifier.salt)},i={self._verifier.iterations}"
        )
        self._bindingInput = first["gs2"].encode("utf-8") + (self._binding or b"")
        self._signedSoFar = f"{first['bare']},{serverFirst}"
        return serverFirst.encode("utf-8")

    def outcome(self, response: bytes) -> bytes:
        """
        Read the client-final message and make the server-final message.

        Args:
            response: the client-final message.

        Returns:
            The server-final message: the login is proved.

        Raises:
            ExchangeRefused: malformed, out of order, bound to another channel, or not proved.
        """
        signedSoFar, self._signedSoFar = self._signedSoFar, None
        if signedSoFar is None:
            raise ExchangeRefused("client-final message out of order")
        final = _parse(_CLIENT_FINAL, response, "client-final")
        try:
            bindingInput = _unbase64(final["binding"])
            proof = _unbase64(final["proof"])
        except ValueError:
            raise ExchangeRefused("malformed client-final message") from None
        if not hmac.compare_digest(final["nonce"].encode("ascii"), self._nonce.encode("ascii")):
            raise ExchangeRefused("the nonce is not the one of this login")
        if not hmac.compare_digest(bindingInput, self._bindingInput):
            raise ExchangeRefused("the channel bindings differ: there is a man in the middle")
        signed = f"{signedSoFar},{final['unproved']}".encode()
        signature = _hmac(self._verifier.storedKey, signed)
        if len(proof) != len(signature):
            raise ExchangeRefused("malformed client-final message")
        clientKey = _xor(proof, signature)
        if not hmac.compare_digest(hashlib.sha256(clientKey).digest(), self._verifier.storedKey):
            raise ExchangeRefused("wrong password")
        return f"v={_base64(_hmac(self._verifier.serverKey, signed))}".encode()

    def _checkBindingFlag(self, first: re.Match[str]) -> None:
        flag = first["flag"]
        if self._binding is not None:
            if first["binding"] != BINDING_TYPE:
                raise ExchangeRefused(f"the client binds by {flag!r}, not {BINDING_TYPE}")
        elif flag == "y" and self._overTLS:
            raise ExchangeRefused("the client was not shown that binding is offered")
        elif flag not in ("n", "y"):
            raise ExchangeRefused("the client binds where no binding is offered")

    def _checkName(self, first: re.Match[str]) -> None:
        if re.search(r"=(?!2C|3D)", first["name"]):
            raise ExchangeRefused("malformed client-first message")
        name = first["name"].replace("=2C", ",").replace("=3D", "=")
        try:
            expected = saslprep(self._name)
        except ValueError:
            raise ExchangeRefused("the name can't be prepared") from None
        if name != expected:
            raise ExchangeRefused("the exchange is for another name than the login")
        if first["authzid"] not in (None, first["name"]):
            raise ExchangeRefused("acting as somebody else is not supported")


@implementer(IMechanism)
@frozen
class ScramMechanism:
    """
    SCRAM as a server offers it.

    Attributes:
        bound: with channel binding, `SCRAM-SHA-256-PLUS`; or without, `SCRAM-SHA-256`.
    """

    bound: bool = False

    verifierName = NAME
    hasSwitch = False
    usesKeys = False
    provesNothing = False
    asksIdentity = False

    @property
    def name(self) -> str:
        """Return the name on the wire."""
        return NAME_PLUS if self.bound else NAME

    @property
    def listedAs(self) -> frozenset[str]:
        """Return the names in a policy; with either, binding is offered where it can be."""
        return frozenset({NAME_PLUS, NAME} if self.bound else {NAME})

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """
        Without binding on every connection, since nothing like the password is ever sent; with
        binding where there is a channel to bind to.
        """
        return not terms.externalPasswords and (
            not self.bound or channel.channelBinding is not None
        )

    def identityFor(self, name: str, terms: Terms) -> str:
        """Return the claimed name."""
        return name

    def decodeVerifier(self, text: str) -> ScramVerifier:
        """Read a verifier."""
        return ScramVerifier.decode(text)

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> ScramServer:
        """Begin the server's half of one login."""
        return ScramServer(
            claimant.name,
            claimant.verifier,
            makeNonce(randomBytes),
            binding=channel.channelBinding if self.bound else None,
            overTLS=channel.secure,
        )
