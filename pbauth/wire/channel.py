"""The facts of a connection: who the peer is, and what decides which mechanisms may run on it."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ISSLTransport

from pbauth.mechanisms.channel import Channel
from pbauth.net.addresses import hostOf, isLocal
from pbauth.net.fingerprints import fingerprintOf
from pbauth.net.origin import originOf


def peerOf(broker: Any) -> Any:
    """
    Return the address of the peer of a connection.

    Args:
        broker: of the connection.

    Returns:
        An `IAddress`; `None` where there is no connection yet.
    """
    if broker.isClient:
        return None if broker.transport is None else broker.transport.getPeer()
    # A server's audit keeps it; to make it again takes some time.
    return originOf(broker).address


def channelOf(broker: Any) -> Channel:
    """
    Return the facts of a connection that decide which mechanisms may run on it.

    Args:
        broker: of the connection.

    Returns:
        The facts. They are final once the handshakes of TLS and of a proxy are over.
    """
    if broker.transport is None:
        return Channel()
    peer = peerOf(broker)
    secure = ISSLTransport.providedBy(broker.transport)
    return Channel(
        local=isLocal(peer),
        unix=isinstance(peer, UNIXAddress),
        host=hostOf(peer),
        secure=secure,
        channelBinding=_channelBindingOf(broker.transport) if secure else None,
        peerPin=_pinOf(broker.transport) if secure and not broker.isClient else None,
    )


def isProtected(broker: Any, bound: bool) -> bool:
    """
    Return whether nobody can stand in between a client and this server.

    Args:
        broker: of the connection.
        bound: a login is bound to the connection.
    """
    return bound or isLocal(peerOf(broker))


def _pinOf(transport: Any) -> str | None:
    """Return the fingerprint of the key whose certificate the client showed, if it did."""
    certificate: Any = transport.getPeerCertificate()
    return None if certificate is None else fingerprintOf(certificate.to_cryptography())


def _channelBindingOf(transport: Any) -> bytes | None:
    """Return the ``tls-exporter`` data of a connection over TLS 1.3 (RFC 9266, section 2)."""
    connection: Any = transport.getHandle()
    if connection.get_peer_finished() is None:
        # The handshake is not over.
        return None
    # In TLS 1.2 the exporter is unique only with an extension that can't be asked for here.
    if connection.get_protocol_version_name() != "TLSv1.3":
        return None
    exported: bytes = connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    return exported
