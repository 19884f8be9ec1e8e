"""What a mechanism may know of the connection that a login runs on."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class Channel:
    """
    The facts of a connection that decide which mechanisms may run on it.

    Attributes:
        local: the peer is on this machine: loopback, a UNIX socket, or in this process.
        unix: it is a UNIX socket.
        host: the IP address of the peer, behind a proxy the client's, or the name of a host, such
            as ``unknown``; `None`: it has neither.
        secure: the connection is encrypted (TLS).
        channelBinding: ``tls-exporter`` data of the TLS connection (RFC 9266); `None` without.
        peerPin: the fingerprint of the key of the certificate that the client showed to the
            server, ``SHA256:...``; `None` without.
    """

    local: bool = False
    unix: bool = False
    host: str | None = None
    secure: bool = False
    channelBinding: bytes | None = field(default=None, repr=False)
    peerPin: str | None = None

    def protects(self, bound: bool) -> bool:
        """
        Return whether nobody can stand in between, as the client sees it: a login is bound to the
        connection, or that stays on this machine. One that could have been bound, and was not, may
        have been passed on.

        Args:
            bound: the login is bound to the connection.
        """
        return bound or (self.local and self.channelBinding is None)
