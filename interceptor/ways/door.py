"""The door: what comes to the host's port is told apart by its first bytes and its first request head."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias, get_args

from ..config import Security
from ..exceptions import HandshakeFailure, InvalidArgument
from ..handshake import Request
from .direct import Direct, SecureDirect
from .listener import Holder, Look, Tunnel
from .proxy import TLS, Proxy
from .socks import VERSION, Socks
from .tls import Ends, TlsInside

__all__ = ["Door", "ProxyWay", "Way", "ways_in"]

ProxyWay: TypeAlias = Literal["connect", "absolute", "socks5"]
Way: TypeAlias = ProxyWay | Literal["direct"]

PROXY_WAYS: frozenset[ProxyWay] = frozenset(get_args(ProxyWay))


def ways_in(proxy: bool | Collection[ProxyWay], direct: bool, security: Security) -> frozenset[Way]:
    """Return which ways in are open: those of a proxy, and `direct`.

    Raises:
        InvalidArgument: there is no such way, or none is left.
    """
    if isinstance(proxy, str):
        raise InvalidArgument(f"proxy is {proxy!r}; write [{proxy!r}], or True for all ways")
    chosen = PROXY_WAYS if proxy is True else frozenset(proxy or ())
    if unknown := sorted(map(repr, chosen - PROXY_WAYS)):
        raise InvalidArgument(f"proxy names {', '.join(unknown)}; there are {', '.join(sorted(PROXY_WAYS))}")
    if security.allow_remote:
        chosen = frozenset()  # Behind a forwarder every client seems to be local.
    ways: frozenset[Way] = chosen | frozenset[Way](("direct",)) if direct else chosen
    if not ways:
        raise InvalidArgument("no way in is left open; leave out direct=False, or be a proxy")
    return ways


class Door:
    """Sends each connection to its way in.

    Args:
        direct: takes the requests that are made to the host itself.
        proxy: takes tunnels, and requests for whole URLs.
        ends: ends TLS.
        ways: as `ways_in` has them.
    """

    def __init__(self, direct: Direct, proxy: Proxy, ends: Ends, ways: Collection[Way]) -> None:
        self._direct = direct
        self._proxy = proxy
        self._ends = ends
        self._ways = frozenset(ways)

    def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
        """Tell by the first byte; what is neither SOCKS nor TLS has a request head."""
        if data[0] == VERSION:
            self._check("socks5", "SOCKS5")
            wire.look_inside(b"", Socks(self._proxy))
            return Look.MORE
        if data[0] == TLS:
            self._check("direct", "TLS")
            wire.look_inside(b"", self._tls())
            return Look.MORE
        return Look.HEAD

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a request.

        Raises:
            HandshakeFailure: it is refused, and no rule had matched.
        """
        if request.method == "CONNECT":
            self._check("connect", "CONNECT")
            return self._proxy.connect(request, wire)
        if not request.target.startswith("/") and not self._direct.is_own_url(request.target):
            self._check("absolute", "a request for a whole URL")
            return self._proxy.receive(request, wire, self)
        self._check("direct", "a request to this address")
        return self._direct.receive(request, wire, self)

    def _tls(self) -> TlsInside:
        direct = self._direct
        return TlsInside(
            self._ends,
            self._proxy.spawn,
            accepts=direct.serves,
            inside=lambda name: (name or direct.own_name, SecureDirect(direct, name)),
        )

    def _check(self, way: str, what: str) -> None:
        if way not in self._ways:
            raise HandshakeFailure(
                501, f"{what} is not taken here: this way in is off (proxy=, direct=, or allow_remote)"
            )
