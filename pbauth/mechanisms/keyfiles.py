"""Files of public keys as people have them: OpenSSH's ``authorized_keys``, and ``.pub`` files."""

from __future__ import annotations

import re

from pbauth.mechanisms.ed25519 import PublicKey

#: Options of OpenSSH that limit what a shell over SSH may do: here there is none. Any other option
#: limits who may log in, or when, and is not ignored.
_OF_SHELLS = frozenset(
    {
        *("agent-forwarding", "environment", "no-agent-forwarding", "no-port-forwarding", "no-pty"),
        *("no-user-rc", "no-x11-forwarding", "permitlisten", "permitopen", "port-forwarding"),
        *("pty", "restrict", "tunnel", "user-rc", "x11-forwarding"),
    }
)

_EXPIRY = "expiry-time"

# One option in front of a key, with its value in quotes; and what stands behind it.
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:=("(?:[^"\\]|\\.)*"))?(,|\s+)')

_TYPE = re.compile(r"(ssh-|ecdsa-|sk-)")


class BadKeyFile(ValueError):
    """A line of a file of keys can't be used; the text says which one, and why."""


def readKeyFile(text: str) -> list[PublicKey]:
    """
    Read the keys in a file.

    Args:
        text: lines of keys; empty lines, and comments behind ``#``, are skipped.

    Returns:
        The keys. Options that concern a shell over SSH are left out.

    Raises:
        BadKeyFile: a line is no key of the type Ed25519, or has options that can't be kept.
    """
    keys = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            try:
                keys.append(PublicKey.fromLine(_withoutOptions(_checked(stripped))))
                reason = None
            except ValueError as mistake:
                reason = str(mistake)
            if reason is not None:
                # Outside, so that no chain shows what is in the line.
                raise BadKeyFile(f"line {number}: {reason}")
    return keys


def _checked(line: str) -> str:
    if "PRIVATE KEY" in line:
        raise ValueError(
            "this is a private key, which nobody else may have. Use the public half, from the file "
            "whose name ends in .pub, or from: ssh-keygen -y -f FILE"
        )
    if line.startswith("---- BEGIN SSH2 PUBLIC KEY"):
        raise ValueError("this is a key in another format. Convert it: ssh-keygen -i -f FILE")
    return line


def _withoutOptions(line: str) -> str:
    """Return the line of a key with no option but ``expiry-time``."""
    place, kept = 0, ""
    while not _TYPE.match(line, place):
        found = _OPTION.match(line, place)
        if found is None:
            # It is no line of a key at all, and will be refused as that.
            return line
        name = found[1].lower()
        if name == _EXPIRY:
            kept = f"{found[1]}={found[2]} "
        elif name not in _OF_SHELLS:
            raise ValueError(
                f"the option {name!r} can't be kept here. Remove it, if the key may be used "
                "without it."
            )
        place = found.end()
    kind = line[place:].split(None, 1)[0]
    if kind != "ssh-ed25519":
        raise ValueError(
            f"this is a key of the type {kind}. Make one of the type Ed25519: ssh-keygen -t ed25519"
        )
    return kept + line[place:]
