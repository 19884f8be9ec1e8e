"""
Who attacks: plain sockets, in a process of their own (see `tests.benchmarks.child`).

Each method gives what it did: how many connections there were, how many of them the server has
ended, how many bytes were sent. An attack ends by itself, after some seconds or some connections.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.spread import banana

from pbauth.wire.decoding import Limits
from tests.stress.resources import addressOf
from tests.stress.server import HOST
from tests.stress.strangers import GREETING, call, claim

FAMILY = "threads"

#: Seconds after which a connection that was not ended has not been ended.
_PATIENCE = 10.0

#: The most bytes to send on one connection.
_MOST = 256 * 2**20


def connected(port: int, source: str, window: int | None = None) -> socket.socket:
    """A connection from an address of one's own; with a window of so many bytes."""
    made = socket.socket()
    try:
        if window is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        made.settimeout(_PATIENCE)
        made.bind((source, 0))
        made.connect((HOST, port))
    except BaseException:
        made.close()
        raise
    return made


def head(length: int, token: bytes) -> bytes:
    """A token with a length."""
    digits = bytearray()
    while length or not digits:
        digits.append(length & 0x7F)
        length >>= 7
    return bytes(digits) + token


def _list(length: int) -> bytes:
    return head(length, b"\x80")


def _string(text: bytes) -> bytes:
    return head(len(text), b"\x82") + text


_MALFORMED_HEADERS = "headers of the PROXY protocol that can't be read"

#: What is sent first on each connection, and what again and again after that.
POURED: dict[str, tuple[bytes, bytes]] = {
    # What stock PB keeps until its memory is full.
    "endless list": (GREETING + _list(640 * 1024), _string(b"x" * 600_000)),
    "endless list, before the greeting": (_list(640 * 1024), _string(b"x" * 600_000)),
    "endless list of small strings": (GREETING + _list(16), _string(b"x" * 64)),
    "endless prefix": (GREETING, b"\x01" * 4096),
    "endless string": (GREETING + head(640 * 1024 - 1, b"\x82"), b"x" * 65_536),
    "deep nesting": (GREETING, b"\x01\x80" * 32_768),
    "deep nesting of arguments": (
        GREETING + _list(7) + b"".join(map(banana.encode, [b"message", 1, b"root", b"x", 1])),
        (_list(2) + _string(b"list")) * 4096,
    ),
    "huge integers": (GREETING, (b"\x7f" * 64 + b"\x85") * 1024),
    "huge integers in a call": (
        GREETING,
        call(1, b"root", b"username", "alice", 2**447, [2**447] * 14) * 20,
    ),
    "decref of unknown ids": (GREETING, b"".join(banana.encode([b"decref", n]) for n in range(99))),
    "decref of the root": (GREETING, banana.encode([b"decref", b"root"])),
    "answers that nobody asked for": (
        GREETING,
        b"".join(banana.encode([b"answer", n, b"x" * 500]) for n in range(99)),
    ),
    "objects of all kinds": (
        GREETING,
        b"".join(
            banana.encode(
                [b"message", 1, b"root", b"username", 1, [b"tuple", what], [b"dictionary"]]
            )
            for what in (
                [b"module", b"os"],
                [b"instance", b"os"],
                [b"persistent", 1],
                [b"local", 9],
            )
        ),
    ),
    "calls of what is not there": (GREETING, call(1, b"root", b"nothing", 1) * 50),
    "calls of objects that were not given": (GREETING, call(1, 99, b"respond", b"x") * 50),
    "random bytes": (b"", bytes(range(256)) * 256),
    # SASLprep takes its time for letters like this one.
    "names that are too long": (GREETING, claim("\u0130" * 4000)),
    _MALFORMED_HEADERS: (b"PROXY TCP4 203.0.113.7 192.0.2.1 port 8787\r\n", GREETING),
}

#: Of these, what is for a port behind a load balancer.
PROXIED = {_MALFORMED_HEADERS}


class Attacker:
    """Attacks, of all kinds."""

    def __init__(self) -> None:
        self._sources = 0

    def _source(self) -> str:
        """An address for one attack, so that it does not suffer from those before."""
        self._sources += 1
        return addressOf(self._sources, 20)

    def do_pour(self, what: str, port: int, seconds: float, connections: int) -> dict[str, Any]:
        """Send one of `POURED`, on one connection after the other, each until it is ended."""
        first, then = POURED[what]
        source = self._source()
        made = ended = sent = longest = 0
        until = time.monotonic() + seconds
        while made < connections and time.monotonic() < until:
            with connected(port, source) as peer:
                made += 1
                bytesSent, wasEnded = _pour(peer, first, then)
            sent += bytesSent
            longest = max(longest, bytesSent)
            ended += wasEnded
        return {"connections": made, "ended": ended, "sent": sent, "longest": longest}

    def do_fill(self, port: int, connections: int) -> dict[str, Any]:
        """
        Send as much as a stranger may, on as many connections at once as there may be: a call that
        is never over, full of sets, which take the most memory for their bytes.
        """
        longest, lists = Limits().longestList, Limits().lists
        aSet = _list(longest) + _string(b"set")
        aSet += b"".join(bytes((n, 9)) + b"\x81" for n in range(longest - 1))
        begun = _list(7) + b"".join(map(banana.encode, [b"message", 1, b"root", b"x", 1]))
        begun += _list(longest) + _string(b"tuple") + aSet * min(longest - 10, lists - 4)
        padding = _string(b"x" * Limits().longestString) * 8
        text = (GREETING + begun + padding)[:65_000]
        return self._hold(port, connections, lambda: iter([text]))

    def do_guesses(self, path: str, account: str, guesses: int) -> dict[str, Any]:
        """
        Send passwords on one connection, all at once, to where somebody else checks them.

        Args:
            path: of the UNIX socket.
            account: whose passwords they might be.
            guesses: how many.
        """
        text = GREETING
        for number in range(1, guesses + 1):
            initial = f"\0{account}\0guess {number}".encode()
            text += call(2 * number, b"root", b"username", account, "PLAIN", initial)
            text += call(2 * number + 1, number, b"respond", b"")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(_PATIENCE)
            peer.connect(path)
            with contextlib.suppress(OSError):
                peer.sendall(text)
            _, over = _challengesOn(peer)
        return {"connections": 1, "ended": int(over), "sent": len(text), "calls": guesses}

    def do_deaf(self, port: int, connections: int) -> dict[str, Any]:
        """Make as many calls as a stranger may, and do not read the answers."""
        calls = call(1, b"root", b"mechanisms")
        text = GREETING + calls * (65_000 // len(calls))
        return self._hold(port, connections, lambda: iter([text]), window=2048)

    def do_ordinary(self, port: int, connections: int, tls: bool) -> dict[str, Any]:
        """Connect, have the handshakes of TLS done, and go: what anybody may do."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        source = self._source()
        with contextlib.ExitStack() as stack:
            for _ in range(connections):
                peer = stack.enter_context(connected(port, source))
                if tls:
                    peer = stack.enter_context(context.wrap_socket(peer))
                peer.sendall(GREETING)
                peer.recv(1)
        return {"connections": connections}

    def do_drip(self, port: int, connections: int, pause: float) -> dict[str, Any]:
        """A byte, a pause, another byte: never so long a silence that it could be noticed."""

        def bytes_() -> Iterator[bytes]:
            yield GREETING + _list(Limits().longestList) + head(8000, b"\x82")
            while True:
                yield b"x"

        return self._hold(port, connections, bytes_, pause)

    def do_silence(self, port: int, connections: int) -> dict[str, Any]:
        """Connect, and say nothing."""
        return self._hold(port, connections, lambda: iter([]))

    def do_handshakes(self, port: int, connections: int, pause: float) -> dict[str, Any]:
        """
        Begin handshakes of TLS, and never end them: a third says nothing, a third announces as
        long a hello as there can be, a third sends that byte by byte.
        """
        # A record with the beginning of a ClientHello of 131,000 bytes.
        hello = b"\x16\x03\x01\x40\x00\x01\x01\xff\xb8\x03\x03" + bytes(32) + b"\x00"
        # As much of it as fits into what OpenSSL takes at once.
        whole = hello + bytes(16_384 - len(hello) + 5)
        kinds = 0

        def bytes_() -> Iterator[bytes]:
            nonlocal kinds
            kinds += 1
            if kinds % 3 == 1:
                yield whole
            elif kinds % 3 == 2:
                for byte in whole:
                    yield bytes((byte,))

        return self._hold(port, connections, bytes_, pause)

    def do_challengers(
        self, port: int, calls: int, each: int, most: int, seconds: float
    ) -> dict[str, Any]:
        """
        Begin logins and never answer the challenge, on many connections, some of them at once.

        Args:
            port: where.
            calls: how many logins.
            each: how many on one connection.
            most: how many connections there are at once.
            seconds: for so long at most.
        """
        source = self._source()
        batch = GREETING + b"".join(claim(f"user{n:07d}", n + 1) for n in range(each))
        begun = made = ended = challenges = 0
        until = time.monotonic() + seconds
        with contextlib.ExitStack() as stack:
            # The oldest goes when there are too many; if it is still there.
            held: list[socket.socket] = []
            while begun < calls and time.monotonic() < until:
                peer = stack.enter_context(connected(port, source))
                peer.sendall(batch)
                held.append(peer)
                made += 1
                begun += each
                if len(held) >= most:
                    oldest = held.pop(0)
                    count, over = _challengesOn(oldest)
                    challenges += count
                    ended += over
                    oldest.close()
            for peer in held:
                count, over = _challengesOn(peer)
                challenges += count
                ended += over
        return {"connections": made, "ended": ended, "calls": begun, "challenges": challenges}

    def _hold(
        self,
        port: int,
        connections: int,
        script: Callable[[], Iterator[bytes]],
        pause: float = 0.0,
        window: int | None = None,
    ) -> dict[str, Any]:
        """Hold connections until the server has ended all; each sends what its script says."""
        source = self._source()
        ended = refused = sent = 0
        begun = time.monotonic()
        with contextlib.ExitStack() as stack:
            held: dict[socket.socket, Iterator[bytes]] = {}
            for _ in range(connections):
                peer = stack.enter_context(connected(port, source, window))
                peer.setblocking(False)
                held[peer] = script()
            speaking = set(held)
            until = time.monotonic() + self.mostSeconds
            while held and time.monotonic() < until:
                for peer in list(speaking):
                    piece = next(held[peer], None)
                    try:
                        if piece is None:
                            speaking.discard(peer)
                        else:
                            sent += peer.send(piece)
                    except BlockingIOError:
                        # It does not read on: that is an end, too.
                        speaking.discard(peer)
                    except OSError:
                        pass
                for peer in _over(held, pause if speaking else 0.2, window is None):
                    early = time.monotonic() - begun < self.graceTime / 2
                    ended += 1
                    refused += early
                    speaking.discard(peer)
                    del held[peer]
                    peer.close()
        return {
            "connections": connections,
            "ended": ended,
            "refusedEarly": refused,
            "sent": sent,
            "seconds": time.monotonic() - begun,
        }

    #: The policy's, and how long to wait for the end of all.
    graceTime = 30.0
    mostSeconds = 45.0

    def do_expect(self, graceTime: float) -> None:
        """Know when the server should have ended a connection."""
        self.graceTime = graceTime
        self.mostSeconds = graceTime + 15


def _pour(peer: socket.socket, first: bytes, then: bytes) -> tuple[int, bool]:
    """Send until it is ended; gives the bytes, and whether it was."""
    sent = 0
    until = time.monotonic() + _PATIENCE
    try:
        peer.sendall(first)
        sent += len(first)
        while sent < _MOST and time.monotonic() < until:
            peer.sendall(then)
            sent += len(then)
            if _isOver(peer):
                return sent, True
    except TimeoutError:
        return sent, False
    except OSError:
        return sent, True
    return sent, False


def _isOver(peer: socket.socket) -> bool:
    """Whether the server has ended it. What it has said meanwhile is read."""
    while select.select([peer], [], [], 0)[0]:
        if not peer.recv(65_536):
            return True
    return False


def _over(held: Any, pause: float, reads: bool) -> list[socket.socket]:
    """Those that were ended, after a while; what was said is read, by who reads."""
    poll = select.poll()
    byNumber = {}
    for peer in held:
        byNumber[peer.fileno()] = peer
        poll.register(peer, select.POLLIN if reads else 0)
    found = []
    begun = time.monotonic()
    for number, _ in poll.poll(1000 * pause):
        peer = byNumber[number]
        try:
            if not reads or not peer.recv(65_536):
                found.append(peer)
        except BlockingIOError:
            pass
        except OSError:
            found.append(peer)
    # The pause is kept, whatever they say.
    time.sleep(max(0.0, pause - (time.monotonic() - begun)))
    return found


def _challengesOn(peer: socket.socket) -> tuple[int, bool]:
    """How many challenges came, and whether the connection was ended after that."""
    received = b""
    try:
        while True:
            piece = peer.recv(65_536)
            if not piece:
                break
            received += piece
    except TimeoutError:
        return received.count(b",s="), False
    except OSError:
        pass
    return received.count(b",s="), True
