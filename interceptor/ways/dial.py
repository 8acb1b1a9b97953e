"""Reaching the real server: straight or by another proxy, in TLS where that is due."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast

import h11

from .. import log
from ..config import Timeouts, Tls
from ..exceptions import HandshakeFailure, InvalidArgument
from ..upstream import Upstream
from .gate import HTTP_1, start_tls
from .guard import Guard

__all__ = ["INTERIM", "Dialer", "Target"]

LOOPBACK = ("127.0.0.1", "::1")

INTERIM = 100
"""Most interim answers (1xx) before the final one."""


class Target(NamedTuple):
    """A server.

    Attributes:
        host: name or address, IPv6 in brackets.
        port: 1 to 65535.
        tls: whether it is spoken to in TLS.
        via: the proxies by which the request came here (RFC 9110 section 7.6.3).
    """

    host: str
    port: int
    tls: bool = False
    via: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The host without brackets."""
        return self.host.strip("[]")

    @property
    def server_name(self) -> str:
        """The name that its certificate is to have."""
        return self.name.removesuffix(".")

    def __str__(self) -> str:
        return f"{self.host[:100]}:{self.port}"


class Dialer:
    """Opens connections to real servers.

    Args:
        guard: knows the host's own address.
        timeouts: `answer` for all of it, `head` and `close` for TLS.
        tls: whose certificates are believed.
        upstream: the proxy by which all connections go, None where they go straight.
        complaints: warnings of what strangers do.

    Raises:
        InvalidArgument: the file of `tls.trust` cannot be used.
    """

    def __init__(
        self, guard: Guard, timeouts: Timeouts, tls: Tls, upstream: Upstream | None, complaints: log.Seldom
    ) -> None:
        self._guard = guard
        self._timeouts = timeouts
        self._tls = tls
        self._upstream = upstream
        self._complaints = complaints
        self._via = f"1.1 {secrets.token_hex(8)}"
        self._context: ssl.SSLContext | None = None if tls.trust is None else _trust(tls)

    async def open(self, target: Target, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Connect a protocol to a server.

        Raises:
            HandshakeFailure: 502 it cannot be reached, 504 not in time, 508 it is the host itself.
        """
        self.check(target)
        try:
            async with asyncio.timeout(self._timeouts.answer):
                return await self._open(target, protocol)
        except TimeoutError:
            raise HandshakeFailure(504, f"{target} did not answer in time") from None
        except ssl.SSLCertVerificationError as exc:
            self._complaints.warning("a server's certificate is bad", to=str(target), why=exc.verify_message)
            raise HandshakeFailure(
                502,
                f"the certificate of {target} is not valid: {exc.verify_message}; if it should be believed, "
                "set Tls(trust=PATH) to the certificate of its authority",
            ) from exc
        except (OSError, UnicodeError) as exc:  # UnicodeError: a label that is empty or over 63 characters.
            raise HandshakeFailure(502, f"{target} cannot be reached: {_why(exc)}") from exc

    def check(self, target: Target) -> None:
        """Check that a server is not the host itself, as far as its name tells, and that this is no ring.

        Raises:
            HandshakeFailure: 508.
        """
        if any(self._via in value for value in target.via):
            raise loop_found()
        own = self._guard.is_own(f"{target.host}:{target.port}")
        if own or (self._guard.is_own(target.host) and target.port == 80):
            raise loop_found()
        for address in _spelled_out(target.name):
            if self._guard.is_port(target.port) and (address.is_loopback or address.is_unspecified):
                raise loop_found()

    async def _open(self, target: Target, protocol: asyncio.Protocol) -> asyncio.Transport:
        if self._upstream is not None:
            return await self._through(self._upstream, target, protocol)
        return await self._connect(target, lambda: protocol)

    async def _connect(self, target: Target, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect to the first address of a server that can be reached."""
        *others, last = await self._addresses(target)
        for address in others:
            try:
                return await self._connect_to(address, target, factory)
            except ssl.SSLError:
                raise
            except OSError:
                continue
        return await self._connect_to(last, target, factory)

    async def _addresses(self, target: Target) -> list[str]:
        """Look a name up; names below `localhost` are loopback, in no DNS (RFC 6761 section 6.3)."""
        if target.server_name.endswith(".localhost"):
            return list(LOOPBACK)
        # By itself, not as a part of the connecting: uvloop, when that is broken off, has errors left over.
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.name, target.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if self._guard.is_port(target.port) and any(map(_is_loopback, addresses)):
            raise loop_found()
        return addresses

    async def _connect_to(
        self, address: str, target: Target, factory: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        tls = target.tls
        transport, _ = await asyncio.get_running_loop().create_connection(
            factory,
            address,
            target.port,
            ssl=self._server_trust() if tls else None,
            server_hostname=target.server_name if tls else None,
            ssl_handshake_timeout=self._timeouts.answer if tls else None,
            ssl_shutdown_timeout=self._timeouts.close if tls else None,
        )
        here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if self._guard.is_port(target.port) and (here[0] == there[0] or _is_loopback(there[0])):
            transport.abort()
            raise loop_found()
        return transport

    async def _through(
        self, upstream: Upstream, target: Target, protocol: asyncio.Protocol
    ) -> asyncio.Transport:
        reply = Reply(target, upstream, self._via)
        transport = await self._connect(Target(upstream.host, upstream.port), lambda: reply)
        try:
            early = await reply.received
        except BaseException:
            transport.abort()
            raise
        if not target.tls:
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            if early:
                protocol.data_received(early)
            return transport
        inside, gate = await start_tls(
            transport, self._server_trust(), self._timeouts, server_name=target.server_name
        )
        protocol.connection_made(inside)
        gate.hand_over(inside, protocol)
        return inside

    def _server_trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = _trust(self._tls)
        return self._context


class Reply(asyncio.Protocol):
    """Asks another proxy for a tunnel.

    Args:
        target: where to.
        upstream: the proxy.
        via: the name of the host, so that a ring of proxies is found.

    Attributes:
        received: done when the tunnel is there, with the first bytes that came through it.
    """

    def __init__(self, target: Target, upstream: Upstream, via: str) -> None:
        self._upstream = upstream
        fields = [("Host", f"{target.host}:{target.port}"), ("Via", ", ".join((*target.via, via)))]
        if upstream.credentials is not None:
            fields.append(("Proxy-Authorization", upstream.credentials))
        self._request = h11.Request(method="CONNECT", target=f"{target.host}:{target.port}", headers=fields)
        self._http = h11.Connection(h11.CLIENT)
        self._interim = 0
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting any more when it fails.
        self.received.add_done_callback(lambda received: received.cancelled() or received.exception())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        asked = (self._http.send(self._request), self._http.send(h11.EndOfMessage()))
        cast(asyncio.Transport, transport).write(b"".join(part or b"" for part in asked))

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        try:
            self._http.receive_data(data)
            event = self._next_event()
        except h11.RemoteProtocolError:  # What it says of it may quote a secret.
            self._fail("answered nonsense")
            return
        if isinstance(event, h11.Response) and not self.received.done():
            if 200 <= event.status_code < 300:
                self.received.set_result(self._http.trailing_data[0])
            else:
                self._fail(f"answered {event.status_code} {event.reason.decode('latin-1')}")

    def _next_event(self) -> object:
        while isinstance(event := self._http.next_event(), h11.InformationalResponse):
            self._interim += 1
            if self._interim > INTERIM:
                raise h11.RemoteProtocolError(f"more than {INTERIM} interim answers")
        return event

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy has gone."""
        self._fail("closed the connection without an answer")

    def _fail(self, why: str) -> None:
        if not self.received.done():
            failure = HandshakeFailure(502, f"the upstream proxy {self._upstream} {why}")
            self.received.set_exception(failure)


def loop_found() -> HandshakeFailure:
    """Return the refusal of a request that leads back to the host."""
    return HandshakeFailure(508, "the request leads back to this host's own port")


def _trust(tls: Tls) -> ssl.SSLContext:
    """Return what checks the certificates of servers: the system's trust store, and `tls.trust`."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(HTTP_1)
    if tls.trust is not None:
        try:
            context.load_verify_locations(tls.trust)
        except (OSError, ssl.SSLError) as exc:
            raise InvalidArgument(f"Tls.trust: {tls.trust} has no certificates in PEM: {exc}") from exc
    return context


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _spelled_out(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the address that a host spells out, in whatever way, if it does."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except OSError:
            return []
    mapped = getattr(address, "ipv4_mapped", None)
    return [mapped or address]


def _why(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, socket.gaierror | UnicodeError):
        return "the name does not resolve"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed: {exc.reason}"
    return exc.strerror or type(exc).__name__
