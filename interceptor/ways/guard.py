"""Who may come in: the Host, Origin and token of a request.

A loopback port is open to every web page on the machine. What keeps strangers out: browsers tell the origin
of the page, and pages cannot forge it; programs tell none, and need the token.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from urllib.parse import unquote

from ..config import Security
from ..events import TOKEN_PREFIX
from ..exceptions import HandshakeFailure
from ..handshake import Request
from ..heads import read_cookies
from ..patterns import URL

__all__ = ["TOKEN_COOKIE", "TOKEN_PARAMETER", "Guard"]

TOKEN_PARAMETER = "token"
TOKEN_COOKIE = "interceptor_token"
ORIGIN_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}

FOREIGN = ("cross-site", "same-site")
"""What a browser says (Sec-Fetch-Site) where a page of another origin asks, such as one of another port."""


class Guard:
    """Judges requests by the rules of `Security`.

    Args:
        security: what the program allows.
        root: the name by which the host's own address is known.

    Attributes:
        address: the first one that the host listens on, without brackets and port.
        token: the secret of this host.
    """

    def __init__(self, security: Security, root: str) -> None:
        self._security = security
        self._root = root
        self._own: frozenset[str] = frozenset()
        self._own_origins: frozenset[str] = frozenset()
        self._suffix = ""
        self._port = 0
        self._everywhere = False
        self.address = ""
        self.token = security.token or secrets.token_urlsafe(24)

    def bind(self, hosts: Sequence[str], port: int) -> None:
        """Learn the host's own address; IPv6 addresses without brackets."""
        self.address = hosts[0]
        bound = {f"[{host}]" if ":" in host else host for host in hosts}
        names = {"127.0.0.1", "localhost", "[::1]", self._root, *bound}
        self._suffix = "" if port == 80 else f":{port}"
        self._own = frozenset(f"{name}{self._suffix}" for name in names)
        self._port = port
        self._everywhere = any(ipaddress.ip_address(host).is_unspecified for host in hosts)
        # A page at an address that the host is not bound to is another program's, with the same port.
        pages = names if self._everywhere else {"localhost", self._root, *bound}
        self._own_origins = frozenset(f"{name}{self._suffix}" for name in pages)

    def is_own(self, authority: str) -> bool:
        """Whether `host[:port]` is the host's own address."""
        if authority in self._own:
            return True
        # Listening on all addresses, each is its own; a literal one cannot have been resolved to lead here.
        return self._everywhere and authority.endswith(self._suffix) and _is_literal(authority, self._suffix)

    def is_own_name(self, name: str) -> bool:
        """Whether a host without a port is the host's own name or address."""
        return name == self._root.partition(":")[0] or self.is_own(f"{name}{self._suffix}")

    def is_port(self, port: int) -> bool:
        """Whether this is the port that the host listens on."""
        return port == self._port

    def take_token(self, target: str) -> tuple[str, bool]:
        """Take the token out of a request target; return the target and whether the token was there.

        A parameter of the same name with another value is the page's own and stays.
        """
        path, mark, query = target.partition("?")
        parameters = query.split("&")
        kept = [parameter for parameter in parameters if not self._is_token_parameter(parameter)]
        if len(kept) == len(parameters):
            return target, False
        return path + (mark + "&".join(kept) if kept else ""), True

    def holds_token(self, request: Request) -> bool:
        """Whether a cookie or a subprotocol of the request carries the token."""
        offered = ",".join(request.values("sec-websocket-protocol")).split(",")
        names = [name.strip() for name in offered]
        candidates = [name.removeprefix(TOKEN_PREFIX) for name in names if name.startswith(TOKEN_PREFIX)]
        cookies = read_cookies(";".join(request.values("cookie")))
        candidates += (cookies.get(name, "") for name in (TOKEN_COOKIE, self.cookie_name))
        return any(self._is_token(value) for value in candidates)

    def is_trusted(self, request: Request) -> bool:
        """Whether the token is in a request's URL, or in the cookie of one of the host's own pages."""
        if self.take_token(request.target)[1]:
            return True
        # Pages of other ports are the same site, so that browsers send them the cookie too.
        return request.value("sec-fetch-site") not in FOREIGN and self.holds_token(request)

    @property
    def cookie(self) -> str:
        """What gives a page of the host the token; only for what is below `/.interceptor/`."""
        return f"{self.cookie_name}={self.token}; Path=/.interceptor/; HttpOnly; SameSite=Strict"

    @property
    def cookie_name(self) -> str:
        """The cookie by which a page of the host has the token; cookies know no ports, so its name does."""
        return f"{TOKEN_COOKIE}_{self._port}"

    def check(self, request: Request, url: URL, *, named: bool, token: bool) -> None:
        """Check Origin, or the token where there is none.

        Args:
            request: what asks.
            url: what it asks for.
            named: whether the host of the URL is one that only the program's own pages can have.
            token: whether the request has the token.

        Raises:
            HandshakeFailure: 403, with the way to allow it.
        """
        origin = request.value("origin")
        if origin is None:
            if not (token or self._security.allow_no_origin):
                raise HandshakeFailure(
                    403,
                    "a program (no Origin) needs the token: connect to host.ws_url(...), or set "
                    "Security(allow_no_origin=True)",
                )
            return
        if not self._allows(origin.lower(), url, named or token):
            raise HandshakeFailure(
                403,
                f"pages of origin {origin[:200]!r} may not connect; if they should, set "
                f"Security(origins=[{origin[:200]!r}])",
            )

    def check_page(self, request: Request, url: URL, *, named: bool, token: bool) -> None:
        """Check who asks for a page: Origin, or where there is none what the browser says of the asking page.

        A page of another site can have any URL fetched, and forms sent to it. What it cannot do is read the
        answer, forge Origin (which browsers send with every POST), or forge Sec-Fetch-Site.

        Args:
            request: what asks.
            url: what it asks for.
            named: whether the host of the URL is one that only the program's own pages can have.
            token: whether the URL has the token in it.

        Raises:
            HandshakeFailure: 403, with the way to allow it.
        """
        origin, site = request.value("origin"), request.value("sec-fetch-site")
        if token or "*" in self._security.origins:
            return
        if origin is not None:
            self.check(request, url, named=named, token=False)
        elif site in FOREIGN:
            raise HandshakeFailure(
                403, "a page of another origin may not ask for this; open host.http_url(path, token=True)"
            )
        elif not (self._security.allow_no_origin or (named and self._is_harmless(request, site))):
            raise HandshakeFailure(
                403,
                "a program (no Origin) needs the token for this: use host.http_url(path, token=True), or set "
                "Security(allow_no_origin=True)",
            )

    def _is_harmless(self, request: Request, site: str | None) -> bool:
        return site == "same-origin" or request.method in ("GET", "HEAD")

    def _allows(self, origin: str, url: URL, trusted: bool) -> bool:
        listed = self._security.origins
        if origin in listed or "*" in listed:
            return True
        scheme, _, authority = origin.partition("://")
        if scheme == "http" and (authority == self._root or authority in self._own_origins):
            return True
        return trusted and origin == _origin_of(url)

    def _is_token_parameter(self, parameter: str) -> bool:
        name, _, value = parameter.partition("=")
        # Nobody has to, but some clients encode more than they must.
        return unquote(name) == TOKEN_PARAMETER and self._is_token(unquote(value))

    def _is_token(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(), self.token.encode())


def _is_literal(authority: str, suffix: str) -> bool:
    try:
        ipaddress.ip_address(authority.removesuffix(suffix).strip("[]"))
    except ValueError:
        return False
    return True


def _origin_of(url: URL) -> str:
    scheme, _, rest = url.partition("://")
    return f"{ORIGIN_SCHEMES[scheme]}://{rest.partition('/')[0]}"
