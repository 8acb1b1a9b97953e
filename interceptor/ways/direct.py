"""The direct way in: a page or program connects to the host's own port.

The URL that was meant follows from the request: the host's own address stands for the root, any other name in
Host is the page's own (a browser that resolves names to this port), and a path below `/.interceptor/` spells
out a URL of another name: `/.interceptor/ws/gate/in` is `ws://gate/in`. Such a path needs the token.
"""

from __future__ import annotations

import dataclasses

from .. import log
from ..exceptions import HandshakeFailure
from ..handshake import Request
from ..patterns import URL
from ..session import Session, Wire
from .guard import Guard
from .reception import Asked, Home, Reception, make_url, one_host

__all__ = ["SPELLED_OUT", "Direct"]

SPELLED_OUT = "/.interceptor/"
WEBSOCKET_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class Direct:
    """Takes the requests that are made to the host itself.

    Args:
        home: the host.
        guard: judges who may come in.
        reception: makes sessions.
    """

    def __init__(self, home: Home, guard: Guard, reception: Reception) -> None:
        self._home = home
        self._guard = guard
        self._reception = reception

    def receive(self, request: Request, wire: Wire) -> Session:
        """Take a request: make a session of it if a rule matches.

        Returns:
            The session, which may be over already.

        Raises:
            HandshakeFailure: the request is refused, and no rule had matched.
        """
        asked = self._read(request)
        rule = self._reception.rule_for(asked.url)
        if rule is None:
            log.get_logger(url=asked.url).warning("refused: no rule intercepts this URL", status=404)
            raise HandshakeFailure(404, "no rule of this host intercepts this URL")
        return self._reception.begin(asked, rule, wire)

    def _read(self, request: Request) -> Asked:
        """Find the URL that is meant."""
        host = one_host(request)
        target, token = self._guard.take_token(request.target)
        if token:
            request = with_target(request, target)
        if target.startswith(SPELLED_OUT):
            url = _spelled_out(target.removeprefix(SPELLED_OUT))
            self._check_host(make_url("ws", host, "/"))
            return Asked(request, self._rooted(url), token, needs_token=True)
        url = make_url("ws", host, target) if target.startswith("/") else _absolute(target)
        return Asked(request, self._check_host(url), token or self._guard.holds_token(request))

    def _check_host(self, url: URL) -> URL:
        """Return the URL as rules know it; refuse a name that leads here by mistake.

        A page of another name may have had its name resolved to this machine (DNS rebinding).
        """
        url = self._rooted(url)
        authority = url.split("/")[2]
        if authority == self._home.table.root or self._home.table.could_match(authority):
            return url
        log.get_logger(url=url).warning(
            "refused: no rule has this host, and it is not the host's own", status=421
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


def with_target(request: Request, target: str) -> Request:
    """Return the request with another target in its first line."""
    first, _, rest = request.head.partition(b"\r\n")
    line = b" ".join((first.split(b" ")[0], target.encode("ascii"), first.split(b" ")[2]))
    return dataclasses.replace(request, head=line + b"\r\n" + rest, target=target)


def _spelled_out(text: str) -> URL:
    scheme, _, rest = text.partition("/")
    authority, _, path = rest.partition("/")
    if scheme not in WEBSOCKET_SCHEMES or not authority:
        raise HandshakeFailure(400, f"after {SPELLED_OUT} comes scheme/host/path; use host.ws_url(url)")
    return make_url(WEBSOCKET_SCHEMES[scheme], authority, f"/{path}")


def _absolute(target: str) -> URL:
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in WEBSOCKET_SCHEMES:
        raise HandshakeFailure(400, "the request target is neither a path nor a ws, wss, http or https URL")
    authority, slash, path = rest.partition("/")
    return make_url(WEBSOCKET_SCHEMES[scheme.lower()], authority, slash + path)
