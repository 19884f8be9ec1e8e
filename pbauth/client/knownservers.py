"""
Known servers: which key each of them showed when it was trusted, in a file.

A line holds the address and the fingerprint of one server, ``example.com:8787 SHA256:...``; a
server may have more than one line. Empty lines, and those that begin with ``#``, are for people.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from pbauth._arguments import checkCallable
from pbauth._async import chooseReactor, settled, within
from pbauth._files import lock, writePrivate
from pbauth.client.terminal import askOnTerminal
from pbauth.errors import LoginTimeout, ServerNotTrusted
from pbauth.interfaces import Reactor
from pbauth.net.fingerprints import checkPin
from pbauth.net.strports import tlsAddress
from pbauth.net.trust import fetchFingerprint, isVouchedFor

#: Seconds after which a file that another program has locked is tried again.
_POLL = 0.05


def addressOf(host: str, port: int) -> str:
    """
    Return how the file names a server.

    Args:
        host: a name, or an IP address.
        port: the port.

    Returns:
        ``example.com:8787``, or ``[::1]:8787``.

    Raises:
        ValueError: that can't be the name of a host.
    """
    try:
        name = str(ipaddress.ip_address(host))
    except ValueError:
        name = host.lower().rstrip(".")
    if not name or not name.isprintable() or " " in name or name.startswith("#"):
        raise ValueError(f"{host!r} is not the name of a host.")
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


@frozen
class KnownServer:
    """
    One line of the file.

    Attributes:
        line: its number, from 1.
        address: of the server.
        pin: the fingerprint of its key.
    """

    line: int
    address: str
    pin: str


class KnownServers:
    """
    Whom a user trusts, as ``ssh`` and the ``pbauth`` command have it: a server that is not known
    is asked about, one that was trusted is remembered by its key, and one that shows another key
    than before is refused.

    A server that the system's certificate authorities vouch for needs no asking, and is not
    remembered.  The file may be shared by many programs; it is read again for each question.

    Attributes:
        path: of the file.

    Args:
        path: of the file; it need not be there.
        ask: takes the address of a server that is not known, ``"example.com:8787"``, and the
            fingerprint of its key; returns whether to trust it from now on, or a Deferred or
            coroutine of that. By default the user is asked on the terminal, which blocks the
            reactor until the answer; where there is no terminal, the server is refused.

    Raises:
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ask: Callable[[str, str], bool | Awaitable[bool]] = askOnTerminal,
    ) -> None:
        checkCallable(ask, "ask")
        given = os.fspath(path)
        if not isinstance(given, str):
            raise TypeError(f"path must be a str or a path, not {type(path).__name__}.")
        self.path = given
        self._ask = ask

    def trustFor(
        self, endpoint: str, *, timeout: float = 30, reactor: Reactor = None
    ) -> Deferred[str | None]:
        """
        Make sure that a server may be trusted: before anybody is asked for a password, and before
        anything is sent to it.

        Args:
            endpoint: where the server is: ``"tls:example.com:8787"``, or another endpoint string.
            timeout: seconds for each connection that looks at the server's key.
            reactor: makes these connections; the global one by default.

        Returns:
            Fires with what to give to `connect`, `Login` and `PerspectiveClient` as ``trust``: the
            fingerprint of the server's key; `None` for one that certificate authorities vouch for,
            and for an endpoint that does not use TLS, or that itself says what to trust. Fails with
            `ServerNotTrusted` where the server is not to be trusted, or the file can't say so, and
            otherwise as `connect` and ``ask`` do.
        """
        return Deferred.fromCoroutine(self._trustFor(endpoint, timeout, chooseReactor(reactor)))

    async def _trustFor(self, endpoint: str, timeout: float, reactor: Reactor) -> str | None:
        if not isinstance(endpoint, str):
            raise TypeError(f"endpoint must be a str, not {type(endpoint).__name__}.")
        where = tlsAddress(endpoint)
        if where is None:
            return None
        address = addressOf(*where)
        known = self.find(address)
        if not known and await isVouchedFor(reactor, *where, timeout):
            return None
        pin: str = await fetchFingerprint(reactor, *where, timeout)
        if not known:
            if await settled(self._ask(address, pin)) is not True:
                raise ServerNotTrusted("The server is not trusted, and nothing was sent to it.")
            known = await self._remember(address, pin, timeout, reactor)
        if known and pin not in {each.pin for each in known}:
            raise ServerNotTrusted(_alarm(self.path, address, pin, known))
        return pin

    def find(self, address: str) -> list[KnownServer]:
        """
        Find what is known of a server.

        Args:
            address: ``"example.com:8787"``, as `addressOf` gives it.

        Returns:
            The lines of this server.

        Raises:
            ServerNotTrusted: the file can't be read, or is not to be relied on.
        """
        return [known for known in self._parse(self._read()) if known.address == address]

    def all(self) -> list[KnownServer]:
        """
        Return all lines about servers.

        Raises:
            ServerNotTrusted: the file can't be read, or is not to be relied on.
        """
        return list(self._parse(self._read()))

    def forget(self, server: str) -> int:
        """
        Remove the lines about a server; all others stay as they are.

        Args:
            server: ``"example.com:8787"``, or an endpoint string.

        Returns:
            How many lines were removed.

        Raises:
            TypeError: the server is not a `str`.
            ServerNotTrusted: the file can't be read or written, or is not to be relied on.
        """
        if not isinstance(server, str):
            raise TypeError(f"server must be a str, not {type(server).__name__}.")
        address = _addressIn(server)
        with self._mistakes("write"), self._locked(True) as path:
            text = self._read()
            removed = {each.line for each in self._parse(text) if each.address == address}
            if removed and path is not None:
                lines = text.split(b"\n")
                kept = [line for place, line in enumerate(lines, 1) if place not in removed]
                writePrivate(path, b"\n".join(kept), former=os.stat(path))
        return len(removed)

    def add(self, address: str, pin: str) -> list[KnownServer]:
        """
        Add a server; whatever other programs add at the same time stays.

        Args:
            address: as `addressOf` gives it.
            pin: the fingerprint of its key.

        Returns:
            Nothing, if it is known by this key now. Otherwise nothing was added, since somebody
            else has added it with other keys in the meantime: the lines of those.

        Raises:
            ServerNotTrusted: the file can't be read or written, or is not to be relied on.
        """
        return self._add(address, pin, wait=True) or []

    async def _remember(
        self, address: str, pin: str, timeout: float, reactor: Reactor
    ) -> list[KnownServer]:
        """Do what `add` does, but let the reactor run while another program has the file locked."""

        async def remember() -> list[KnownServer]:
            while (known := self._add(address, pin, wait=False)) is None:
                await deferLater(reactor, _POLL)
            return known

        try:
            return await within(timeout, reactor, remember())
        except LoginTimeout:
            raise ServerNotTrusted(
                f"Another program has kept {self.path}.lock locked for {timeout:g} seconds, so the "
                "server can't be remembered. End that program, and try again."
            ) from None

    def _add(self, address: str, pin: str, *, wait: bool) -> list[KnownServer] | None:
        """Do what `add` does; return `None` if the file is locked and `wait` is false."""
        with self._mistakes("write"), self._locked(wait) as path:
            if path is None:
                return None
            text = self._read()
            known = [each for each in self._parse(text) if each.address == address]
            if known:
                return [] if pin in {each.pin for each in known} else known
            if text and not text.endswith(b"\n"):
                text += b"\n"
            former = os.stat(path) if os.path.exists(path) else None
            writePrivate(path, text + f"{address} {pin}\n".encode(), former=former)
        return []

    def _read(self) -> bytes:
        with self._mistakes("read"):
            try:
                with open(self.path, "rb") as file:
                    if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                        raise ServerNotTrusted(
                            f"Everybody can write to {self.path}, so it can't say whom to trust. "
                            f"Check it, then run: chmod 600 {self.path}"
                        )
                    return file.read()
            except FileNotFoundError:
                return b""

    def _parse(self, text: bytes) -> Iterator[KnownServer]:
        for number, line in enumerate(text.split(b"\n"), 1):
            if not line.strip() or line.lstrip().startswith(b"#"):
                continue
            try:
                known = _parseLine(number, line)
            except ValueError:
                raise ServerNotTrusted(
                    f"Line {number} of {self.path} is not 'HOST:PORT SHA256:...'. "
                    "Correct it, or remove it."
                ) from None
            yield known

    @contextmanager
    def _mistakes(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServerNotTrusted(
                f"Can't {what} the known servers in {self.path}: {error.strerror}."
            ) from None

    @contextmanager
    def _locked(self, wait: bool) -> Iterator[str | None]:
        """
        Keep other programs out; give the path of the file itself, if this is a link to it; or
        `None`, if another program keeps this one out.
        """
        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        # A file of its own, since the file itself is replaced.
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield path if lock(descriptor, wait=wait) else None
        finally:
            os.close(descriptor)


def _addressIn(server: str) -> str:
    """Return how the file names a server that a person names."""
    with suppress(ValueError):
        where = tlsAddress(server)
        if where is not None:
            return addressOf(*where)
    host, _, port = server.rpartition(":")
    with suppress(ValueError):
        return addressOf(host.removeprefix("[").removesuffix("]"), int(port))
    return server


def _alarm(path: str, address: str, pin: str, known: list[KnownServer]) -> str:
    numbers = " and ".join(str(each.line) for each in known)
    lines = "line" if len(known) == 1 else "lines"
    return "\n".join(
        [
            f"THE SERVER {address} SHOWS ANOTHER KEY THAN BEFORE.",
            "Either it was given a new one, or somebody stands between you and the server.",
            "It is not trusted: you were not asked for a password, and none was sent.",
            *(f"  known: {each.pin} (line {each.line} of {path})" for each in known),
            f"  shown: {pin}",
            "Ask its administrator which one is right. If the key was to be expected, remove",
            f"{lines} {numbers} of {path} (pbauth known forget {address}) and try again.",
        ]
    )


def _parseLine(number: int, line: bytes) -> KnownServer:
    address, pin = line.decode("utf-8").split()
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise ValueError(address)
    return KnownServer(number, address, checkPin(pin))
