"""The proxy way in: a browser asks for a tunnel or for a whole URL, and the host decides what comes to it.

A tunnel to a host that no rule could match is blind from the start: nothing of it is read. One to a host
that a rule could match is opened at once, and its first bytes decide: a request whose URL matches becomes a
session, TLS is ended if a rule for wss could match, and everything else goes on to the real server with the
very bytes that came.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine

from .. import log
from ..config import Timeouts
from ..exceptions import HandshakeFailure
from ..handshake import Request, refusal
from ..relay import Relay
from ..session import Wire
from .dial import Dialer, Target
from .direct import with_target
from .forward import Exchange, Server
from .guard import Guard
from .listener import Holder, Look, Receiver, Tunnel
from .reception import Asked, Home, Reception, is_upgrade, make_url, one_host, split_url
from .tls import Ends, TlsInside
from .web import Web

__all__ = ["ESTABLISHED", "TLS", "Proxy"]

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\\]+):([0-9]{1,5})")
NUMBERED = re.compile(r":[0-9]+$")
FIREFOX = re.compile(r"\bFirefox/")
PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
TLS = 0x16
"""First byte of a TLS handshake (RFC 8446 section 5.1)."""


class Proxy:
    """Takes requests for tunnels and for whole URLs, of clients on this machine.

    Args:
        home: the host.
        guard: knows the token.
        reception: makes sessions.
        web: answers requests for pages.
        dialer: reaches real servers.
        ends: ends TLS.
        track: counts a transport in, so that the host ends it when it stops; returns what counts it out.
    """

    def __init__(
        self,
        home: Home,
        guard: Guard,
        reception: Reception,
        web: Web,
        dialer: Dialer,
        ends: Ends,
        track: Callable[[asyncio.Transport], Callable[[], None]],
    ) -> None:
        self._home = home
        self._guard = guard
        self._reception = reception
        self._web = web
        self._dialer = dialer
        self._ends = ends
        self._track = track
        self._relays: set[Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # Tunnels.

    def connect(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a CONNECT request (RFC 9110 section 9.3.6).

        Returns:
            What now holds the wire, if it is not settled yet.

        Raises:
            HandshakeFailure: 400 malformed, 403 from another machine, 508 it leads back to the host itself.
        """
        target = _read_authority(request)
        told_apart = not FIREFOX.search(request.value("user-agent") or "")
        return self.tunnel(target, wire, ESTABLISHED, told_apart=told_apart)

    def tunnel(
        self,
        target: Target,
        wire: Tunnel,
        answer: bytes,
        refuse: Callable[[HandshakeFailure], bytes] | None = None,
        *,
        told_apart: bool = True,
    ) -> Holder | None:
        """Open a tunnel: look into it if a rule could match its host, else join it to the server.

        Args:
            target: where to.
            wire: the browser's side.
            answer: sent to the browser when the tunnel is there.
            refuse: writes the answer if it comes to nothing.
            told_apart: whether the client offers HTTP/2 for pages only, and never for WebSockets.

        Raises:
            HandshakeFailure: 403 the client is not on this machine, 508 it leads back to the host itself.
        """
        self.check_local(wire)
        self._dialer.check(target)
        if not self._home.table.could_match(f"{target.host}:{target.port}"):
            return self.dial(target, wire, answer=answer, refuse=refuse)
        wire.look_inside(answer, Inside(self, target, told_apart=told_apart))
        return None

    def check_local(self, wire: Tunnel) -> None:
        """Check that a client is on this machine.

        Raises:
            HandshakeFailure: 403.
        """
        if not wire.is_local:
            raise HandshakeFailure(403, "the proxy serves clients on this machine only")

    def could_be_socket(self, target: Target) -> bool:
        """Whether a rule could match a WebSocket in TLS to a server."""
        return self._home.table.could_match(f"{target.host}:{target.port}", "wss")

    def could_be_page(self, target: Target) -> bool:
        """Whether a rule that is a string could match a page in TLS; others would open all of them."""
        return self._home.table.could_match(f"{target.host}:{target.port}", "https", by_text=True)

    def end_tls(self, target: Target, *, told_apart: bool) -> TlsInside:
        """Return what ends the TLS of a tunnel."""
        own, pages = target.server_name, self.could_be_page(target)
        return TlsInside(
            self._ends,
            self.spawn,
            accepts=lambda name: name in (None, own),  # No name is given for an address (RFC 6066 section 3).
            inside=lambda name: (own, Inside(self, target._replace(tls=True))),
            otherwise=(lambda wire: self.dial(target, wire)) if told_apart and not pages else None,
        )

    # Requests.

    def receive(self, request: Request, wire: Tunnel, then: Receiver) -> Holder | None:
        """Take a request for a whole URL (RFC 9112 section 3.2.2).

        Args:
            request: its target is absolute.
            wire: the browser's side.
            then: receives what comes on the same connection after it.

        Raises:
            HandshakeFailure: 400 malformed, 403 from another machine, 421 Host and URL differ, 508 a loop.
        """
        self.check_local(wire)
        target, path = _read_whole_url(request)
        if not path and request.method == "OPTIONS":
            path = "*"  # RFC 9112 section 3.2.4.
        elif not path.startswith("/"):
            path = f"/{path}"
        return self.decide(request, path, target, wire, then)

    def decide(
        self, request: Request, path: str, target: Target, wire: Tunnel, then: Receiver | None
    ) -> Holder | None:
        """Take a request for a server: it is ours, or goes on.

        Args:
            request: as it came.
            path: what it asks for there, with the query.
            target: the server.
            wire: the browser's side.
            then: receives what comes on the same connection after it; None where the first request for a
                WebSocket takes the connection for good.
        """
        path, _ = self._guard.read_target(path)
        if is_upgrade(request):
            asked = self._ask(request, path, target)
            rule = self._reception.rule_for(asked.url)
            if rule is not None:
                return self._reception.begin(asked, rule, wire)
            if then is None:
                return self.dial(target, wire, first=with_target(request, path).head)
        elif path != "*":
            asked = self._ask(request, path, target, "http")
            if self._web.take(asked, wire, then or Inside(self, target)):
                return None
        if then is not None and (request.version == (1, 1) or request.values("host")):
            # Ours are known by the URL alone (RFC 9112 section 3.2.2); what goes on has to be of one mind.
            _check_host(request, target, "the URL that is asked for")
        self._dialer.check(target)
        Exchange(self, wire, target, with_target(request, path), then or Inside(self, target))
        return None

    def _ask(self, request: Request, path: str, target: Target, scheme: str = "ws") -> Asked:
        """Read what a request asks for."""
        whole, token = self._guard.read_target(request.target)
        url = make_url(f"{scheme}s" if target.tls else scheme, f"{target.host}:{target.port}", path)
        return Asked(with_target(request, whole), url, token, proxied=True)

    # Real servers.

    def dial(
        self,
        target: Target,
        wire: Wire,
        *,
        answer: bytes = b"",
        first: bytes = b"",
        refuse: Callable[[HandshakeFailure], bytes] | None = None,
    ) -> Dial:
        """Join a wire to the real server.

        Args:
            target: the server.
            wire: the browser's side.
            answer: sent to the browser once the server is reached.
            first: sent to the server then.
            refuse: writes the answer if it is not.
        """
        return Dial(self, target, wire, answer, first, refuse or _refusal)

    def new_relay(self) -> Relay:
        """Return a relay that the host ends when it stops."""
        relay = Relay(self._relays.discard, self._home.settings.timeouts.close)
        self._relays.add(relay)
        return relay

    async def reach(self, relay: Relay, target: Target) -> None:
        """Open the far end of a relay.

        Raises:
            HandshakeFailure: the server cannot be reached.
        """
        transport = await self._dialer.open(target, relay.far)
        relay.far.lost = self._track(transport)

    async def server(self, target: Target) -> Server:
        """Open a connection to a server for requests.

        Raises:
            HandshakeFailure: the server cannot be reached.
        """
        server = Server(target)
        transport = await self._dialer.open(target, server)
        server.lost = self._track(transport)
        return server

    def forget(self, relay: Relay) -> None:
        """Drop a relay that came to nothing."""
        self._relays.discard(relay)
        relay.close()

    def note_failure(self, target: Target, failure: HandshakeFailure) -> None:
        """Write into the log that something could not go on; aloud where a rule has the host: a typo?"""
        context = {"to": str(target), "why": failure.reason}
        if self._home.table.names(f"{target.host}:{target.port}"):
            self._home.complaints.warning("no rule matches, and passing on failed", **context)
        else:
            log.get_logger(**context).info("passing on failed")

    @property
    def timeouts(self) -> Timeouts:
        """How long is waited."""
        return self._home.settings.timeouts

    def spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine that is cancelled when the host stops."""
        task = self._home.dispatcher.spawn(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Drop all tunnels, and what is being made or passed on."""
        for task in self._tasks:
            task.cancel()
        for relay in list(self._relays):
            relay.close()


class Inside:
    """Receives what comes through a tunnel to a host that a rule could match.

    Args:
        proxy: made the tunnel.
        target: where to; `tls` once TLS has been ended.
        told_apart: whether the client offers HTTP/2 for pages only, and never for WebSockets.
    """

    def __init__(self, proxy: Proxy, target: Target, *, told_apart: bool = True) -> None:
        self.target = target
        self._proxy = proxy
        self._told_apart = told_apart
        self._tls: TlsInside | None = None

    def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
        """Look at the first bytes; what is neither HTTP nor TLS for a rule goes on blindly."""
        if self._tls is not None:
            return self._tls.look(data, wire)
        if data[0] == TLS and not self.target.tls and self._ends_tls():
            self._tls = self._proxy.end_tls(self.target, told_apart=self._told_apart)
            return self._tls.look(data, wire)
        if data[:1].isalpha():
            return Look.HEAD
        return self._proxy.dial(self.target, wire)

    def _ends_tls(self) -> bool:
        return self._proxy.could_be_socket(self.target) or self._proxy.could_be_page(self.target)

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a request of the tunnel: ours, or the real server's.

        Raises:
            HandshakeFailure: 400 malformed, 421 its Host is not that of the tunnel.
        """
        if not request.target.startswith("/") and request.target != "*":
            raise HandshakeFailure(400, "inside a tunnel the request target is a path")
        _check_host(request, self.target, "the tunnel")
        return self._proxy.decide(request, request.target, self.target, wire, None)


class Dial:
    """A wire that waits for the real server to be reached.

    Args:
        proxy: reaches it.
        target: the server.
        wire: the browser's side.
        answer: for the browser, once the server is reached.
        first: for the server, before what the wire still holds.
        refuse: writes the answer if the server is not reached.
    """

    def __init__(
        self,
        proxy: Proxy,
        target: Target,
        wire: Wire,
        answer: bytes,
        first: bytes,
        refuse: Callable[[HandshakeFailure], bytes],
    ) -> None:
        self._proxy = proxy
        self._relay = proxy.new_relay()
        self._target = target
        self._wire = wire
        self._answer = answer
        self._first = first
        self._refuse = refuse
        self._gone = False
        self._task = proxy.spawn(self._run())

    def client_gone(self) -> None:
        """The browser left before the server was reached."""
        self._gone = True
        self._wire.finish(b"")
        self._proxy.forget(self._relay)
        self._task.cancel()

    async def _run(self) -> None:
        """Reach the server, then step aside."""
        try:
            await self._proxy.reach(self._relay, self._target)
        except HandshakeFailure as failure:
            self._fail(failure)
        except asyncio.CancelledError:
            if not self._gone:
                self._fail(HandshakeFailure(503, "this host is stopping"))
            raise
        else:
            if self._gone:
                self._proxy.forget(self._relay)
            else:
                self._join()

    def _join(self) -> None:
        # Nothing is given to the far end before the near one is there, to be held back.
        rest = self._wire.switch(self._answer, self._relay.attach)
        self._relay.far.give(self._first + rest)

    def _fail(self, failure: HandshakeFailure) -> None:
        self._proxy.forget(self._relay)
        self._proxy.note_failure(self._target, failure)
        if not self._gone:
            self._gone = True
            self._wire.finish(self._refuse(failure))


def _refusal(failure: HandshakeFailure) -> bytes:
    return refusal(failure.status, failure.reason)


def _read_authority(request: Request) -> Target:
    match = AUTHORITY.fullmatch(request.target)
    if match is None or not 0 < int(match[2]) < 65536:
        raise HandshakeFailure(400, "the target of CONNECT is not: host, colon, port from 1 to 65535")
    if request.values("transfer-encoding") or any(size != "0" for size in request.values("content-length")):
        raise HandshakeFailure(400, "CONNECT has no body (RFC 9110 section 9.3.6)")
    return Target(match[1].lower(), int(match[2]), via=tuple(request.values("via")))


def _read_whole_url(request: Request) -> tuple[Target, str]:
    """Return the server and the path, possibly empty, of a whole URL."""
    scheme, authority, path = split_url(request.target)
    if not NUMBERED.search(authority):
        authority = f"{authority.removesuffix(':')}:{PORTS[scheme]}"
    found = AUTHORITY.fullmatch(authority)
    if found is None or not 0 < int(found[2]) < 65536:
        raise HandshakeFailure(400, "the URL that is asked for names no valid host and port")
    via = tuple(request.values("via"))
    return Target(found[1].lower(), int(found[2]), scheme in ("https", "wss"), via), path


def _check_host(request: Request, target: Target, what: str) -> None:
    scheme = "https" if target.tls else "http"
    if make_url(scheme, one_host(request), "/") != make_url(scheme, f"{target.host}:{target.port}", "/"):
        raise HandshakeFailure(421, f"the Host field names another host than {what}")
