"""
The file of known servers: which key each of them showed when it was trusted.

A line holds the address and the fingerprint of one server, ``example.com:8787 SHA256:...``; a
server may have more than one line. Empty lines, and those that begin with ``#``, are for people.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import click
from attrs import frozen

from pbauth._files import lock, writePrivate
from pbauth.net.fingerprints import checkPin


def addressOf(host: str, port: int) -> str:
    """
    Args:
        host: a name, or an IP address.
        port: the port.

    Returns:
        How the file names this server.

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
    The file. Each question reads it anew; whatever is wrong with it is a
    `click.ClickException` of one line.

    Attributes:
        path: of the file.

    Args:
        path: of the file; it need not be there.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def find(self, address: str) -> list[KnownServer]:
        """
        Args:
            address: as `addressOf` gives it.

        Returns:
            The lines of this server.
        """
        return [known for known in self._parse(self._read()) if known.address == address]

    def add(self, address: str, pin: str) -> list[KnownServer]:
        """
        Add a server; whatever other programs add at the same time stays.

        Args:
            address: as `addressOf` gives it.
            pin: the fingerprint of its key.

        Returns:
            Nothing, if it is known by this key now. Otherwise nothing was added, since somebody
            else has added it with other keys in the meantime: the lines of those.
        """
        with self._mistakes("write"), self._locked() as path:
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
                        raise click.ClickException(
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
                raise click.ClickException(
                    f"Line {number} of {self.path} is not 'HOST:PORT SHA256:...'. "
                    "Correct it, or remove it."
                ) from None
            yield known

    @contextmanager
    def _mistakes(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise click.ClickException(
                f"Can't {what} the known servers in {self.path}: {error.strerror}."
            ) from None

    @contextmanager
    def _locked(self) -> Iterator[str]:
        """Keep other programs out; give the path of the file itself, if this is a link to it."""
        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        # A file of its own, since the file itself is replaced.
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(descriptor, wait=True)
            yield path
        finally:
            os.close(descriptor)


def _parseLine(number: int, line: bytes) -> KnownServer:
    address, pin = line.decode("utf-8").split()
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise ValueError(address)
    return KnownServer(number, address, checkPin(pin))
