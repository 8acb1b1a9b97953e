"""The proxy way in: a browser asks for a tunnel (CONNECT), and the host looks at what comes through it.

A tunnel to a host that no rule could match is blind from the start: nothing of it is read. One to a host
that a rule could match is opened at once, and its first bytes decide: a request whose URL matches becomes a
session; everything else, TLS too, goes on to the real server with the very bytes that came.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable

from .. import log
from ..exceptions import HandshakeFailure
from ..handshake import Request, refusal
from ..relay import Relay
from ..session import Session, Wire
from .direct import with_target
from .guard import Guard
from .listener import Tunnel
from .reception import Asked, Home, Reception, make_url, one_host

__all__ = ["Proxy"]

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
TARGET = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\\]+):([0-9]{1,5})")
TLS = 0x16
"""First byte of a TLS handshake (RFC 8446 section 5.1)."""


class Proxy:
    """Takes CONNECT requests.

    Args:
        home: the host.
        guard: knows the host's own address.
        reception: makes sessions.
        track: counts a transport in, so that the host ends it when it stops; returns what counts it out.
    """

    def __init__(
        self,
        home: Home,
        guard: Guard,
        reception: Reception,
        track: Callable[[asyncio.Transport], Callable[[], None]],
    ) -> None:
        self._home = home
        self._guard = guard
        self._reception = reception
        self._track = track
        self._relays: set[Relay] = set()
        self._dials: set[asyncio.Task[None]] = set()

    def connect(self, request: Request, wire: Tunnel) -> Dial | None:
        """Take a CONNECT request (RFC 9110 section 9.3.6).

        Returns:
            What now holds the wire, if it is not settled yet.

        Raises:
            HandshakeFailure: 400 malformed, 508 it leads back to the host itself.
        """
        if not wire.is_local:
            raise HandshakeFailure(403, "the proxy serves clients on this machine only")
        host, port = _read_target(request)
        if self._guard.is_own(f"{host}:{port}") or (self._guard.is_own(host) and port == 80):
            raise loop_found()
        if self._home.table.could_match(f"{host}:{port}"):
            wire.look_inside(ESTABLISHED, Inside(self, host, port))
            return None
        return self.dial(host, port, wire, answer=ESTABLISHED)

    def dial(self, host: str, port: int, wire: Wire, *, answer: bytes = b"", first: bytes = b"") -> Dial:
        """Join a wire to the real server.

        Args:
            host: name or address, IPv6 in brackets.
            port: of the server.
            wire: the browser's side.
            answer: sent to the browser once the server is reached.
            first: sent to the server then.
        """
        relay = Relay(self._relays.discard, self._home.settings.timeouts.close)
        self._relays.add(relay)
        return Dial(self, relay, (host, port), wire, answer, first)

    def open_url(self, asked: Asked, wire: Wire) -> Session | None:
        """Begin a session if a rule matches; None where none does."""
        rule = self._reception.rule_for(asked.url)
        return None if rule is None else self._reception.begin(asked, rule, wire)

    def ask(self, request: Request, scheme: str, authority: str) -> Asked:
        """Read what a request inside a tunnel asks for."""
        target, token = self._guard.take_token(request.target)
        if not target.startswith("/"):
            raise HandshakeFailure(400, "inside a tunnel the request target is a path")
        asked = with_target(request, target) if token else request
        url = make_url(scheme, authority, target)
        return Asked(asked, url, token or self._guard.holds_token(request), proxied=True)

    async def reach(self, relay: Relay, host: str, port: int) -> None:
        """Open the far end of a relay.

        Raises:
            OSError: the server cannot be reached.
            HandshakeFailure: 508, it is the host itself.
        """
        loop = asyncio.get_running_loop()
        for address in _local_addresses(host):
            if self._guard.is_port(port) and (address.is_loopback or address.is_unspecified):
                raise loop_found()
        name = "127.0.0.1" if host.lower().rstrip(".").endswith(".localhost") else host.strip("[]")
        async with asyncio.timeout(self._home.settings.timeouts.answer):
            transport, _ = await loop.create_connection(lambda: relay.far, name, port)
        relay.far.lost = self._track(transport)
        here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if self._guard.is_port(port) and (
            here[0] == there[0] or ipaddress.ip_address(there[0].partition("%")[0]).is_loopback
        ):
            transport.abort()
            raise loop_found()

    def forget(self, relay: Relay) -> None:
        """Drop a relay that came to nothing."""
        self._relays.discard(relay)
        relay.close()

    def spawn(self, dial: Dial) -> asyncio.Task[None]:
        """Run a dial."""
        task = self._home.dispatcher.spawn(dial.run())
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)
        return task

    def close(self) -> None:
        """Drop all tunnels, and those that are being made."""
        for task in self._dials:
            task.cancel()
        for relay in list(self._relays):
            relay.close()


class Inside:
    """Takes what comes through a tunnel to a host that a rule could match.

    Args:
        proxy: made the tunnel.
        host: from the CONNECT request.
        port: from the CONNECT request.
    """

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        self._proxy = proxy
        self._host = host
        self._port = port

    def look(self, data: bytes, wire: Wire) -> Dial | None:
        """Look at the first bytes; what is no HTTP goes on blindly."""
        if data[:1].isalpha():
            return None
        return self._proxy.dial(self._host, self._port, wire)

    def receive(self, request: Request, wire: Wire) -> Session | Dial:
        """Take the first request of the tunnel: ours, or the real server's.

        Raises:
            HandshakeFailure: 400 malformed, 421 its Host is not that of the tunnel.
        """
        authority = f"{self._host}:{self._port}"
        asked = self._proxy.ask(request, "ws", authority)
        if make_url("ws", one_host(request), "/") != make_url("ws", authority, "/"):
            raise HandshakeFailure(421, "the Host field names another host than the CONNECT request")
        session = self._proxy.open_url(asked, wire)
        if session is not None:
            return session
        return self._proxy.dial(self._host, self._port, wire, first=asked.request.head)


class Dial:
    """A wire that waits for the real server to be reached.

    Args:
        proxy: reaches it.
        relay: what joins the two.
        target: host and port of the server.
        wire: the browser's side.
        answer: for the browser, once the server is reached.
        first: for the server, before what the wire still holds.
    """

    def __init__(
        self, proxy: Proxy, relay: Relay, target: tuple[str, int], wire: Wire, answer: bytes, first: bytes
    ) -> None:
        self._proxy = proxy
        self._relay = relay
        self._target = target
        self._wire = wire
        self._answer = answer
        self._first = first
        self._gone = False
        self._task = proxy.spawn(self)

    async def run(self) -> None:
        """Reach the server, then step aside."""
        try:
            await self._proxy.reach(self._relay, *self._target)
        except TimeoutError:
            self._fail(HandshakeFailure(504, f"{_show(self._target)} did not answer in time"))
        except (OSError, UnicodeError) as exc:  # UnicodeError: a label that is empty or over 63 characters.
            self._fail(HandshakeFailure(502, f"{_show(self._target)} cannot be reached: {_why(exc)}"))
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

    def client_gone(self) -> None:
        """The browser left before the server was reached."""
        self._gone = True
        self._wire.finish(b"")
        self._proxy.forget(self._relay)
        self._task.cancel()

    def _join(self) -> None:
        self._relay.send(self._first)
        self._relay.send(self._wire.switch(self._answer, self._relay.attach))

    def _fail(self, failure: HandshakeFailure) -> None:
        self._proxy.forget(self._relay)
        log.get_logger().warning("passing on failed", to=_show(self._target), why=failure.reason)
        if not self._gone:
            self._gone = True
            self._wire.finish(refusal(failure.status, failure.reason))


def loop_found() -> HandshakeFailure:
    """Return the refusal of a request that leads back to the host."""
    return HandshakeFailure(508, "the request leads back to this host's own port")


def _read_target(request: Request) -> tuple[str, int]:
    match = TARGET.fullmatch(request.target)
    if match is None or not 0 < int(match[2]) < 65536:
        raise HandshakeFailure(400, "the target of CONNECT is not: host, colon, port from 1 to 65535")
    if request.values("transfer-encoding") or request.value("content-length") not in (None, "0"):
        raise HandshakeFailure(400, "CONNECT has no body (RFC 9110 section 9.3.6)")
    return match[1].lower(), int(match[2])


def _local_addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the address that a host spells out, in whatever way, if it does."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return []
    mapped = getattr(address, "ipv4_mapped", None)
    return [mapped or address]


def _show(target: tuple[str, int]) -> str:
    return f"{target[0][:100]}:{target[1]}"


def _why(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, socket.gaierror | UnicodeError):
        return "the name does not resolve"
    return exc.strerror or type(exc).__name__
