"""Who may come in: the Host, Origin and token of a request.

A loopback port is open to every web page on the machine. What keeps strangers out: browsers tell the origin
of the page, and pages cannot forge it; programs tell none, and need the token. A page of the host's own has
a cookie besides, which is another secret: everybody who may ask for a page is given it, and other servers of
this machine are sent it, so that it counts for nothing without an Origin that may connect.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from urllib.parse import unquote

from ..config import Security
from ..events import TOKEN_PREFIX
from ..exceptions import HandshakeFailure
from ..handshake import Request
from ..heads import cookie_pairs
from ..patterns import URL

__all__ = ["PAGE_COOKIE", "TOKEN_COOKIE", "TOKEN_PARAMETER", "Guard"]

TOKEN_PARAMETER = "token"
HIDDEN = "***"
TOKEN_COOKIE = "interceptor_token"
PAGE_COOKIE = "interceptor_page"
ORIGIN_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
"""The loopback address among those that a host listens on; asyncio keeps the families apart."""

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
        self._page_secret = secrets.token_urlsafe(24)
        self._written = re.compile("".join(f"(?:{re.escape(c)}|(?i:%{ord(c):02x}))" for c in self.token))

    def bind(self, hosts: Sequence[str], port: int, *, localhost: bool = True) -> None:
        """Learn the host's own address.

        Args:
            hosts: that it listens on; IPv6 addresses without brackets.
            port: the same for all.
            localhost: whether no other program can be at `localhost` with this port.
        """
        self.address = hosts[0]
        bound = {f"[{host}]" if ":" in host else host for host in hosts}
        names = {"127.0.0.1", "localhost", "[::1]", self._root, *bound}
        self._suffix = "" if port == 80 else f":{port}"
        self._own = frozenset(f"{name}{self._suffix}" for name in names)
        self._port = port
        self._everywhere = any(ipaddress.ip_address(host).is_unspecified for host in hosts)
        # A page at an address that the host is not bound to is another program's, with the same port.
        loopbacks = {EVERYWHERE[host] for host in hosts if host in EVERYWHERE}
        pages = {self._root, *bound, *loopbacks, *({"localhost"} if localhost else ())}
        self._own_origins = frozenset(f"{name}{self._suffix}" for name in pages)

    @property
    def lets_in_all(self) -> bool:
        """Whether pages of every origin may connect."""
        return "*" in self._security.origins

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

    def read_target(self, target: str) -> tuple[str, bool]:
        """Take the token out of a request target, as `take_token`, and hide it where it does not count.

        Somebody has put a path after `host.ws_url("/")`, and what stands in URLs comes to logs and events.
        """
        kept, found = self.take_token(target)
        return self._written.sub(HIDDEN, kept), found

    def with_token(self, url: str) -> str:
        """Put the token into the query of a URL."""
        return f"{url}{'&' if '?' in url else '?'}{TOKEN_PARAMETER}={self.token}"

    def holds_token(self, request: Request) -> bool:
        """Whether a cookie or a subprotocol of the request carries the token."""
        offered = ",".join(request.values("sec-websocket-protocol")).split(",")
        names = [name.strip() for name in offered]
        candidates = [name.removeprefix(TOKEN_PREFIX) for name in names if name.startswith(TOKEN_PREFIX)]
        return any(self._is_token(value) for value in (*candidates, *_cookies(request, TOKEN_COOKIE)))

    def holds_cookie(self, request: Request) -> bool:
        """Whether a request has the cookie of the host's own pages; other local servers can, too."""
        found = _cookies(request, self._cookie_name)
        return any(secrets.compare_digest(value.encode(), self._page_secret.encode()) for value in found)

    def is_trusted(self, request: Request) -> bool:
        """Whether a request that no page of others made has the token."""
        held = self.take_token(request.target)[1] or self.holds_token(request)
        return held and not self._is_foreign(request)

    def is_own_page(self, request: Request) -> bool:
        """Whether a page of the host's own asks for a part of it; a program can ask as such a page does."""
        # Pages of other ports are the same site, so that browsers send them the cookie too.
        return self.holds_cookie(request) and not self._is_foreign(request)

    @property
    def cookie(self) -> str:
        """What a page of the host is given to be known by, for what is below `/.interceptor/` only."""
        return f"{self._cookie_name}={self._page_secret}; Path=/.interceptor/; HttpOnly; SameSite=Strict"

    @property
    def _cookie_name(self) -> str:
        """Cookies know no ports, so its name does."""
        return f"{PAGE_COOKIE}_{self._port}"

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
            shown = self._written.sub(HIDDEN, origin)[:200]
            remedy = f"if they should, set Security(origins=[{shown!r}])"
            raise HandshakeFailure(403, f"pages of origin {shown!r} may not connect; {remedy}")

    def check_page(self, request: Request, url: URL, *, named: bool, token: bool) -> None:
        """Check who asks for a page: Origin, or where there is none what the browser says of the asking page.

        A page of another site can have any URL fetched, and forms sent to it. What it cannot do is read the
        answer, forge Origin (which browsers send with every POST), or forge Sec-Fetch-Site. Where it has the
        token it may lead to a page by a link, so that the user sees whose page it is, and do nothing else.

        Args:
            request: what asks.
            url: what it asks for.
            named: whether the host of the URL is one that only the program's own pages can have.
            token: whether the URL has the token in it.

        Raises:
            HandshakeFailure: 403, with the way to allow it.
        """
        if self.lets_in_all:
            return
        if request.value("origin") is not None:
            self.check(request, url, named=named, token=token)
        elif self._is_foreign(request) and not (token and _is_link(request)):
            raise HandshakeFailure(
                403,
                "a page of another origin may not ask for this; a link of it may lead to "
                "host.http_url(path, token=True)",
            )
        elif not (token or self._security.allow_no_origin or (named and _is_harmless(request))):
            raise HandshakeFailure(
                403,
                "a program (no Origin) needs the token for this: use host.http_url(path, token=True), or set "
                "Security(allow_no_origin=True)",
            )

    def _is_foreign(self, request: Request) -> bool:
        """Whether a page that may not connect asks, as its browser says."""
        origin = request.value("origin")
        if origin is not None:
            return not self._knows(origin.lower())
        return request.value("sec-fetch-site") in FOREIGN and not self.lets_in_all

    def _allows(self, origin: str, url: URL, trusted: bool) -> bool:
        return self._knows(origin) or (trusted and origin == _origin_of(url))

    def _knows(self, origin: str) -> bool:
        """Whether an origin is listed, or the host's own."""
        listed = self._security.origins
        if origin in listed or "*" in listed:
            return True
        scheme, _, authority = origin.partition("://")
        return scheme == "http" and (authority == self._root or authority in self._own_origins)

    def _is_token_parameter(self, parameter: str) -> bool:
        name, _, value = parameter.partition("=")
        # Nobody has to, but some clients encode more than they must.
        return unquote(name) == TOKEN_PARAMETER and self._is_token(unquote(value))

    def _is_token(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(), self.token.encode())


def _cookies(request: Request, name: str) -> list[str]:
    """Return the values of a cookie; a server of another port may have set one of the same name."""
    return [value for found, value in cookie_pairs(";".join(request.values("cookie"))) if found == name]


def _is_link(request: Request) -> bool:
    """Whether the answer is to be a page in a window of its own, neither a part nor a frame of another."""
    navigates = (
        request.value("sec-fetch-mode") == "navigate" and request.value("sec-fetch-dest") == "document"
    )
    return navigates and request.method == "GET"


def _is_harmless(request: Request) -> bool:
    if request.value("sec-fetch-site") == "same-origin":
        return True
    has_body = request.value("content-length") not in (None, "0") or request.values("transfer-encoding")
    return request.method in ("GET", "HEAD") and not has_body


def _is_literal(authority: str, suffix: str) -> bool:
    try:
        ipaddress.ip_address(authority.removesuffix(suffix).strip("[]"))
    except ValueError:
        return False
    return True


def _origin_of(url: URL) -> str:
    scheme, _, rest = url.partition("://")
    return f"{ORIGIN_SCHEMES[scheme]}://{rest.partition('/')[0]}"
