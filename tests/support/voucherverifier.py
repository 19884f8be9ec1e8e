"""A second verifier of vouchers, written from ``docs/reference/protocol.rst`` and nothing else."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LISTS = ("services", "perspectives", "methods", "networks")


class Refused(Exception):
    """The login is refused."""


def strings(data: bytes) -> list[bytes]:
    """Take apart strings behind their lengths."""
    found = []
    while data:
        if len(data) < 4:
            raise Refused("length")
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise Refused("string")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def joined(*parts: bytes) -> bytes:
    """Put lengths in front of strings."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def isName(value: Any, *, empty: bool = False) -> bool:
    """Whether it is a name, as the page on names has it."""
    if not isinstance(value, str) or (not value and not empty):
        return False
    try:
        return len(value.encode("utf-8")) <= 255 and not any(
            ord(each) < 32 or 127 <= ord(each) < 160 or each in "\u2028\u2029" for each in value
        )
    except UnicodeEncodeError:
        return False


def block(data: bytes) -> dict[str, Any]:
    """Read one block."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise Refused("twice")
        return dict(pairs)

    def no(constant: str) -> Any:
        raise Refused(constant)

    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=no)
    except (ValueError, RecursionError):
        raise Refused("no JSON") from None
    if not isinstance(found, dict):
        raise Refused("no object")
    allowed = {"key", "label", "until", "services", "perspectives", "methods", "networks"}
    if set(found) - allowed - {"sessions", "final"}:
        raise Refused("unknown limit")
    key = found.get("key")
    if not isinstance(key, str):
        raise Refused("no key")
    try:
        raw = base64.b64decode(key + "=" * (-len(key) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Refused("base64") from None
    if len(raw) != 32 or base64.urlsafe_b64encode(raw).decode().rstrip("=") != key:
        raise Refused("key")
    if not isName(found.get("label", ""), empty=True):
        raise Refused("label")
    for each in LISTS:
        value = found.get(each, [])
        if not isinstance(value, list) or not all(isName(one) for one in value):
            raise Refused(each)
    try:
        for network in found.get("networks", []):
            ipaddress.ip_network(network)
    except ValueError:
        raise Refused("network") from None
    until, sessions, final = (
        found.get("until", 0),
        found.get("sessions", 1),
        found.get("final", False),
    )
    if type(until) is not int or not 0 <= until <= 253402300799:
        raise Refused("until")
    if type(sessions) is not int or not 1 <= sessions < 2**31 or type(final) is not bool:
        raise Refused("sessions or final")
    return {**found, "raw": raw}


def verify(
    issued: list[bytes],
    name: str,
    initial: bytes,
    challenge: bytes,
    binding: bytes | None,
    response: bytes,
    host: str,
    now: int,
) -> list[dict[str, Any]]:
    """
    Verify a login; the answer is the blocks of the chain.

    Args:
        issued: the first blocks that the identity `name` has issued.
        name: the claimed one.
        initial: the first message.
        challenge: the server's.
        binding: of the TLS connection.
        response: the client's.
        host: where the client is.
        now: seconds since 1970.
    """
    if len(initial) > 4096:
        raise Refused("too long")
    parts = strings(initial)
    if len(parts) % 2 != 1 or len(parts) > 15:
        raise Refused("number of strings")
    written = [parts[0], *parts[1::2]]
    signatures = parts[2::2]
    if any(len(each) != 64 for each in signatures):
        raise Refused("signature")
    blocks = [block(each) for each in written]
    if "until" not in blocks[0]:
        raise Refused("no end")
    if any(each.get("final") for each in blocks[:-1]):
        raise Refused("final")
    if len({each["raw"] for each in blocks}) != len(blocks):
        raise Refused("one key twice")
    if written[0] not in issued:
        raise Refused("not issued")
    for place, signature in enumerate(signatures):
        before = joined(*parts[: 2 * place + 1])
        signed = joined(
            b"pbauth voucher block, version 1",
            hashlib.sha256(before).digest(),
            parts[2 * place + 1],
        )
        check(blocks[place]["raw"], signature, signed)
    label = b"pbauth login with VOUCHER, version 1"
    digest = hashlib.sha256(initial).digest()
    check(
        blocks[-1]["raw"],
        response,
        joined(label, name.encode("utf-8"), digest, challenge, binding or b""),
    )
    address = ipaddress.ip_address(host)
    for each in blocks:
        if "until" in each and now >= each["until"]:
            raise Refused("expired")
        networks = each.get("networks")
        if networks is not None and not any(
            address in ipaddress.ip_network(network) for network in networks
        ):
            raise Refused("network")
    return blocks


def check(key: bytes, signature: bytes, signed: bytes) -> None:
    """Check one signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        raise Refused("signature") from None


def allows(blocks: list[dict[str, Any]], service: str, perspective: str, method: str) -> bool:
    """Whether all blocks allow a method."""
    asked = {"services": service, "perspectives": perspective, "methods": method}
    return all(what in each.get(name, [what]) for each in blocks for name, what in asked.items())
