"""The door: what comes to the host's port is told apart by its first bytes and its first request head."""

from __future__ import annotations

from ..exceptions import HandshakeFailure
from ..handshake import Request
from .direct import Direct
from .listener import Holder, Tunnel
from .proxy import TLS, Proxy

__all__ = ["Door"]


class Door:
    """Sends each connection to its way in.

    Args:
        direct: takes the requests that are made to the host itself.
        proxy: takes CONNECT; None where the host is no proxy.
    """

    def __init__(self, direct: Direct, proxy: Proxy | None) -> None:
        self._direct = direct
        self._proxy = proxy

    def look(self, data: bytes, wire: Tunnel) -> Holder | None:
        """Refuse TLS, which nobody speaks here yet; all else is a request head."""
        if data[0] == TLS:
            raise HandshakeFailure(400, "this port speaks HTTP, not TLS; use http:// and ws:// for it")
        return None

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a request.

        Raises:
            HandshakeFailure: it is refused, and no rule had matched.
        """
        if request.method != "CONNECT":
            return self._direct.receive(request, wire)
        if self._proxy is None:
            raise HandshakeFailure(501, "this port is no proxy (proxy=False, or allow_remote)")
        return self._proxy.connect(request, wire)
