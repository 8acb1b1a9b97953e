"""The direct way in: a page or program connects to the host's own port.

The URL that was meant follows from the request: the host's own address stands for the root, any other name in
Host is the page's own (a browser that resolves names to this port), and a path below `/.interceptor/` spells
out a URL of another name: `/.interceptor/ws/gate/in` is `ws://gate/in`. Such a path needs the token.
"""

from __future__ import annotations

import dataclasses

from ..exceptions import HandshakeFailure
from ..handshake import Request
from ..patterns import URL
from .guard import Guard
from .listener import Holder, Look, Receiver, Tunnel
from .pages import Pages
from .reception import Asked, Home, Reception, is_upgrade, make_url, one_host, split_url
from .web import Web

__all__ = ["SPELLED_OUT", "Direct", "SecureDirect", "with_target"]

SPELLED_OUT = "/.interceptor/"
REMEDY = "add a rule or a route for it; in rules the host's own address is called by its root, Host(root=...)"
WEBSOCKET_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
PAGE_SCHEMES = {"ws": "http", "wss": "https"}


class Direct:
    """Takes the requests that are made to the host itself.

    Args:
        home: the host.
        guard: judges who may come in.
        reception: makes sessions.
        web: answers requests for pages.
        pages: what the host serves of its own.
    """

    def __init__(self, home: Home, guard: Guard, reception: Reception, web: Web, pages: Pages) -> None:
        self._home = home
        self._guard = guard
        self._reception = reception
        self._web = web
        self._pages = pages

    def receive(self, request: Request, wire: Tunnel, then: Receiver, scheme: str = "ws") -> Holder | None:
        """Take a request: make a session of it if a rule matches, or answer it with a page.

        Args:
            request: its target is a path, or a URL at the host's own address.
            wire: the client's side.
            then: receives what comes on the same connection after it.
            scheme: `wss` if it came in TLS.

        Returns:
            What holds the wire, and may be over already; None where a page of the host's own was the answer.

        Raises:
            HandshakeFailure: the request is refused, and no rule had matched.
        """
        if page := self._pages.find(request.target):
            self._check_host(make_url(scheme, one_host(request), "/"))
            wire.finish(page(request))
            return None
        asked = self._read(request, scheme)
        if _is_page(asked) and self._web.take(_with_page_url(asked), wire, then):
            return None
        rule = self._reception.rule_for(asked.url)
        if rule is None:
            self._home.complaints.warning(
                "refused: no rule intercepts this URL",
                url=asked.url,
                status=404,
                root=self._home.table.root,
                remedy=REMEDY,
            )
            raise HandshakeFailure(404, "no rule of this host intercepts this URL")
        return self._reception.begin(asked, rule, wire)

    def is_own_url(self, target: str) -> bool:
        """Whether a whole URL is one of the host itself.

        Raises:
            HandshakeFailure: 400, it is no URL.
        """
        authority = _absolute(target).split("/")[2]
        return authority == self._home.table.root or self._guard.is_own(authority)

    @property
    def own_name(self) -> str:
        """The address that a client means that gives no name in TLS."""
        return self._guard.address

    def serves(self, name: str | None) -> bool:
        """Whether a name that a client begins TLS with is the host's, or one that a rule could have."""
        if name is None or self._guard.is_own_name(name):
            return True
        return self._home.table.could_match(name, "wss", any_port=True)

    def _read(self, request: Request, scheme: str) -> Asked:
        """Find the URL that is meant."""
        host = one_host(request)
        target, token = self._guard.read_target(request.target)
        request = with_target(request, target)
        if target.startswith(SPELLED_OUT):
            url = _spelled_out(target.removeprefix(SPELLED_OUT))
            self._check_host(make_url(scheme, host, "/"))
            return Asked(request, self._rooted(url), token, needs_token=True)
        url = make_url(scheme, host, target) if target.startswith("/") else _absolute(target)
        return Asked(request, self._check_host(url), token)

    def _check_host(self, url: URL) -> URL:
        """Return the URL as rules know it; refuse a name that leads here by mistake.

        A page of another name may have had its name resolved to this machine (DNS rebinding).
        """
        url = self._rooted(url)
        authority = url.split("/")[2]
        if authority == self._home.table.root or self._home.table.could_match(authority):
            return url
        self._home.complaints.warning(
            "refused: no rule has this host, and it is not the host's own", url=url, status=421
        )
        raise HandshakeFailure(
            421, "this host does not answer for the name in the Host field; no rule has it"
        )

    def _rooted(self, url: URL) -> URL:
        """Let the root stand for the host's own address."""
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        if self._guard.is_own(authority):
            return URL(f"{scheme}://{self._home.table.root}{slash}{path}")
        return url


class SecureDirect:
    """Receives what is inside TLS that a client began with the host itself.

    Args:
        direct: takes the requests.
        name: the server's name that the client gave, None if it gave none.
    """

    def __init__(self, direct: Direct, name: str | None) -> None:
        self._direct = direct
        self._name = name

    def look(self, data: bytes, wire: Tunnel) -> Look:
        """Have a request head read."""
        return Look.HEAD

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a request.

        Raises:
            HandshakeFailure: 421 its Host is not the name that TLS was for; or as `Direct.receive` has it.
        """
        host = make_url("wss", one_host(request), "/").split("/")[2]
        if self._name is not None and host.partition(":")[0] != self._name:
            raise HandshakeFailure(421, "the Host field names another host than TLS did (SNI)")
        if request.method == "CONNECT":
            raise HandshakeFailure(501, "tunnels are asked for without TLS, at http:// of this address")
        return self._direct.receive(request, wire, self, "wss")


def with_target(request: Request, target: str) -> Request:
    """Return the request with another target in its first line."""
    if target == request.target:
        return request
    first, _, rest = request.head.partition(b"\r\n")
    line = b" ".join((first.split(b" ")[0], target.encode("ascii"), first.split(b" ")[2]))
    return dataclasses.replace(request, head=line + b"\r\n" + rest, target=target)


def _is_page(asked: Asked) -> bool:
    """Whether a page is asked for, and not a WebSocket, rightly or wrongly."""
    request = asked.request
    return not (asked.needs_token or is_upgrade(request) or request.values("sec-websocket-key"))


def _with_page_url(asked: Asked) -> Asked:
    scheme, _, rest = asked.url.partition("://")
    return dataclasses.replace(asked, url=URL(f"{PAGE_SCHEMES[scheme]}://{rest}"))


def _spelled_out(text: str) -> URL:
    scheme, _, rest = text.partition("/")
    authority, _, path = rest.partition("/")
    if scheme not in WEBSOCKET_SCHEMES or not authority:
        raise HandshakeFailure(400, f"after {SPELLED_OUT} comes scheme/host/path; use host.ws_url(url)")
    return make_url(WEBSOCKET_SCHEMES[scheme], authority, f"/{path}")


def _absolute(target: str) -> URL:
    scheme, authority, path = split_url(target)
    return make_url(WEBSOCKET_SCHEMES[scheme], authority, path)
