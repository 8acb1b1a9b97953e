"""Where the ways in meet: a request whose URL is known becomes a session, if a rule matches."""

from __future__ import annotations

import dataclasses
import re
from typing import Protocol

from .. import log, session
from ..exceptions import HandshakeFailure, InvalidArgument
from ..handshake import Offer, Request, check_request, read_offer
from ..patterns import URL, InterceptedURLs, Mode, Rule, normalize
from ..session import Session, Wire
from .guard import Guard

__all__ = ["Asked", "Home", "Reception", "is_upgrade", "make_url", "one_host", "split_url"]

WHOLE_URL = re.compile(r"(http|https|ws|wss)://([^/?#]*)([^#]*)", re.IGNORECASE)


class Home(session.Home, Protocol):
    """What the ways in need of their host."""

    @property
    def table(self) -> InterceptedURLs:
        """The rules that count now."""

    def admit(self, mode: Mode) -> None:
        """Check that there is room for one more session.

        Raises:
            HandshakeFailure: 503.
        """

    @property
    def tells_refusals(self) -> bool:
        """Whether there is room for one more refusal that the program is not told of yet."""

    def session_begun(self, session: Session) -> None:
        """Learn of a session whose program is asked for an answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        request: its head without the token in its first line.
        url: in normal form.
        token: whether the URL had the token in it.
        needs_token: whether an Origin alone does not do.
        proxied: whether the browser was told to come here for this name, so that nobody else could have
            made it lead here.
    """

    request: Request
    url: URL
    token: bool
    needs_token: bool = False
    proxied: bool = False


class Reception:
    """Makes sessions of requests.

    Args:
        home: the host.
        guard: judges who may come in.
    """

    def __init__(self, home: Home, guard: Guard) -> None:
        self._home = home
        self._guard = guard

    def rule_for(self, url: URL) -> Rule | None:
        """Return the rule that makes a URL ours, or None.

        Raises:
            HandshakeFailure: 500, a pattern of the program raised.
        """
        try:
            rule = self._home.table.lookup(url)
        except Exception as exc:  # A pattern may be a function of the program.
            log.get_logger(url=url).error("a pattern raised", exc_info=exc)
            raise HandshakeFailure(500, "the program failed") from exc
        if rule is None or rule.mode is Mode.PASS:
            return None
        return rule

    def begin(self, asked: Asked, rule: Rule, wire: Wire) -> Session:
        """Begin the session of a request that a rule matches; it may be over on return.

        Raises:
            HandshakeFailure: it is refused, and the program, which is behind with hearing of that, not told.
        """
        begun = Session(self._home, rule, asked.url, asked.request, wire)
        try:
            offer = self._check(asked)
            self._home.admit(rule.mode)
        except HandshakeFailure as failure:
            if not self._home.tells_refusals:
                self._home.complaints.warning(
                    "refused, and the program is not told: it is behind with hearing of refusals",
                    url=asked.url,
                    why=failure.reason,
                    status=failure.status,
                )
                raise
            begun.fail(failure)
        else:
            self._home.session_begun(begun)
            begun.start(offer)
        return begun

    def _check(self, asked: Asked) -> Offer:
        request = asked.request
        check_request(request)
        offer = read_offer(request)
        held = asked.token or self._guard.holds_token(request)
        # The cookie tells that a page asks, and its Origin tells which; it is nothing to a program.
        own = request.value("origin") is not None and self._guard.holds_cookie(request)
        if asked.needs_token and not (held or own):
            raise HandshakeFailure(403, "a URL spelled out in the path needs the token: use host.ws_url(url)")
        # Of a path that spells out any URL one may choose, a cookie does not tell who chose it.
        token = asked.token if asked.needs_token else held
        self._guard.check(request, asked.url, named=self.is_named(asked), token=token)
        return offer

    def is_named(self, asked: Asked) -> bool:
        """Whether the host of a URL is one that only the program's own pages can have."""
        authority = asked.url.split("/")[2]
        return asked.proxied or authority == self._home.table.root or self._home.table.names(authority)


def is_upgrade(request: Request) -> bool:
    """Whether a request asks for a WebSocket, rightly or wrongly."""
    asked = ",".join(request.values("upgrade")).lower().split(",")
    return "websocket" in (name.strip() for name in asked)


def one_host(request: Request) -> str:
    """Return the value of the one Host field.

    Raises:
        HandshakeFailure: 400, there is none, or more than one.
    """
    hosts = request.values("host")
    if len(hosts) != 1:
        raise HandshakeFailure(400, f"the request has {len(hosts)} Host fields; it needs one")
    return hosts[0]


def make_url(scheme: str, authority: str, path: str) -> URL:
    """Put a URL together from parts that came in.

    Raises:
        HandshakeFailure: 400, the authority is none.
    """
    if not authority or any(character in authority for character in "/?#@\\"):
        raise HandshakeFailure(400, "the Host field is not: host, or host:port")
    try:
        return normalize(f"{scheme}://{authority}{path}")
    except InvalidArgument as exc:
        raise HandshakeFailure(400, "the request names no valid host") from exc


def split_url(target: str) -> tuple[str, str, str]:
    """Cut a whole URL into scheme (lower case), authority, and path with query, possibly empty.

    Raises:
        HandshakeFailure: 400, it is no URL of these schemes.
    """
    match = WHOLE_URL.fullmatch(target)
    if match is None:
        raise HandshakeFailure(400, "the request target is neither a path nor a ws, wss, http or https URL")
    return match[1].lower(), match[2], match[3]
