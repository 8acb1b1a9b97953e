"""The direct way in: a page or program connects to the host's own port.

The URL that was meant follows from the request: the host's own address stands for the root, any other name in
Host is the page's own (a browser that resolves names to this port), and a path below `/.interceptor/` spells
out a URL of another name: `/.interceptor/ws/gate/in` is `ws://gate/in`. Such a path needs the token.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from .. import log, session
from ..exceptions import HandshakeFailure, InvalidArgument
from ..handshake import Offer, Request, check_request, read_offer
from ..patterns import URL, InterceptedURLs, Mode, Rule, normalize
from ..session import Session, Wire
from .guard import Guard

__all__ = ["SPELLED_OUT", "Direct", "Home"]

SPELLED_OUT = "/.interceptor/"
WEBSOCKET_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class Home(session.Home, Protocol):
    """What the way in needs of its host."""

    @property
    def table(self) -> InterceptedURLs:
        """The rules that count now."""

    def admit(self, mode: Mode) -> None:
        """Check that there is room for one more session.

        Raises:
            HandshakeFailure: 503.
        """

    def session_begun(self, session: Session) -> None:
        """Learn of a session whose program is asked for an answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        request: its head without the token in its first line.
        url: in normal form.
        token: whether the token came with it.
        spelled_out: whether the URL was spelled out in the path.
    """

    request: Request
    url: URL
    token: bool
    spelled_out: bool = False


class Direct:
    """Turns requests into sessions.

    Args:
        home: the host.
        guard: judges who may come in.
    """

    def __init__(self, home: Home, guard: Guard) -> None:
        self._home = home
        self._guard = guard

    def receive(self, request: Request, wire: Wire) -> Session | None:
        """Take a request: make a session of it if a rule matches.

        Returns:
            The session, which may be over already; None where no rule matches and the wire is finished.

        Raises:
            HandshakeFailure: the request is refused, and no rule had matched.
        """
        asked = self._read(request)
        rule = self._match(asked)
        begun = Session(self._home, rule, asked.url, asked.request, wire)
        try:
            offer = self._check(asked)
            self._home.admit(rule.mode)
        except HandshakeFailure as failure:
            begun.fail(failure)
        else:
            self._home.session_begun(begun)
            begun.start(offer)
        return begun

    def _read(self, request: Request) -> Asked:
        """Find the URL that is meant.

        Raises:
            HandshakeFailure: 400 no URL can be made of it, 501 it wants a proxy.
        """
        hosts = request.values("host")
        if len(hosts) != 1:
            raise HandshakeFailure(400, f"the request has {len(hosts)} Host fields; it needs one")
        if request.method == "CONNECT":
            raise HandshakeFailure(501, "this port is no proxy")
        target, token = self._guard.take_token(request.target)
        if token:
            request = _with_target(request, target)
        if target.startswith(SPELLED_OUT):
            url = _spelled_out(target.removeprefix(SPELLED_OUT))
            self._check_host(_url("ws", hosts[0], "/"))
            return Asked(request, url, token, True)
        url = _url("ws", hosts[0], target) if target.startswith("/") else _absolute(target)
        return Asked(request, self._check_host(url), token or self._guard.holds_token(request))

    def _check_host(self, url: URL) -> URL:
        """Let the root stand for the host's own address; refuse a name that leads here by mistake.

        A page of another name may have had its name resolved to this machine (DNS rebinding).
        """
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        root = self._home.table.root
        if self._guard.is_own(authority):
            return URL(f"{scheme}://{root}{slash}{path}")
        if authority == root or self._home.table.could_match(authority):
            return url
        raise HandshakeFailure(
            421, "this host does not answer for the name in the Host field; no rule has it"
        )

    def _match(self, asked: Asked) -> Rule:
        try:
            rule = self._home.table.lookup(asked.url)
        except Exception as exc:  # A pattern may be a function of the program.
            log.get_logger(url=asked.url).error("a pattern raised", exc_info=exc)
            raise HandshakeFailure(500, "the program failed") from exc
        if rule is None or rule.mode is Mode.PASS:
            raise HandshakeFailure(404, "no rule of this host intercepts this URL")
        return rule

    def _check(self, asked: Asked) -> Offer:
        request = asked.request
        check_request(request)
        offer = read_offer(request)
        if asked.spelled_out and not asked.token:
            raise HandshakeFailure(403, "a URL spelled out in the path needs the token: use host.ws_url(url)")
        authority = asked.url.split("/")[2]
        named = authority == self._home.table.root or self._home.table.names(authority)
        self._guard.check(request, asked.url, named=named, token=asked.token)
        return offer


def _with_target(request: Request, target: str) -> Request:
    first, _, rest = request.head.partition(b"\r\n")
    line = b" ".join((first.split(b" ")[0], target.encode("ascii"), first.split(b" ")[2]))
    return dataclasses.replace(request, head=line + b"\r\n" + rest, target=target)


def _spelled_out(text: str) -> URL:
    scheme, _, rest = text.partition("/")
    authority, _, path = rest.partition("/")
    if scheme not in WEBSOCKET_SCHEMES or not authority:
        raise HandshakeFailure(400, f"after {SPELLED_OUT} comes scheme/host/path; use host.ws_url(url)")
    return _url(WEBSOCKET_SCHEMES[scheme], authority, f"/{path}")


def _absolute(target: str) -> URL:
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in WEBSOCKET_SCHEMES:
        raise HandshakeFailure(400, "the request target is neither a path nor a ws, wss, http or https URL")
    authority, slash, path = rest.partition("/")
    return _url(WEBSOCKET_SCHEMES[scheme.lower()], authority, slash + path)


def _url(scheme: str, authority: str, path: str) -> URL:
    if not authority or any(character in authority for character in "/?#@\\"):
        raise HandshakeFailure(400, "the Host field is not: host, or host:port")
    try:
        return normalize(f"{scheme}://{authority}{path}")
    except InvalidArgument as exc:
        raise HandshakeFailure(400, "the request names no valid host") from exc
