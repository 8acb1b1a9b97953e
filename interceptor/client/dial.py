"""Reach a server: TCP, perhaps through a proxy, perhaps TLS; then ask, and read the head of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar, cast

from ..exceptions import ConnectFailure
from ..handshake.client import Response, ResponseReader, write_connect
from ..upstream import Upstream
from .address import BAD_PORTS, Address

__all__ = ["Exchange", "dial"]

T = TypeVar("T")


class Exchange(asyncio.Protocol, Generic[T]):
    """Sends a request head and gives the head of its answer to a function, on the spot.

    Args:
        request: bytes to send.
        answered: takes the transport, the answer and the bytes after it; may take the transport over. What it
            returns is the result of `done`, what it raises its exception.

    Attributes:
        done: the result.
        received: bytes that came so far.
        reached: whether the connection was made, TLS included.
    """

    def __init__(self, request: bytes, answered: Callable[[asyncio.Transport, Response, bytes], T]) -> None:
        self._request = request
        self._answered = answered
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self.reached = False
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    @property
    def received(self) -> bytes:
        """Bytes that came so far, from the beginning."""
        return bytes(self._reader.received)

    @property
    def interim(self) -> list[int]:
        """Statuses of the interim answers (1xx) that came first."""
        return self._reader.interim

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast(asyncio.Transport, transport)
        self.reached = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read on; hand over once the head is complete."""
        assert self._transport is not None
        if self.done.done():
            return
        try:
            if answer := self._reader.feed(data):
                self.done.set_result(self._answered(self._transport, *answer))
        except ConnectFailure as exc:
            self._fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server went away."""
        after = "in the middle of its answer" if self._reader.received else "without an answer"
        self._fail(ConnectFailure("network", f"the server closed the connection {after}{_because(exc)}"))

    def leave(self) -> None:
        """Drop the connection, unless the answer was right."""
        if not self.done.done() or self.done.cancelled() or self.done.exception() is not None:
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, exc: ConnectFailure) -> None:
        if not self.done.done():
            self.done.set_exception(exc)
        self._close()


async def dial(
    exchange: Exchange[T], address: Address, *, context: ssl.SSLContext | None, proxy: Upstream | None
) -> T:
    """Connect, make the exchange, and return its result (RFC 6455 section 4.1, steps 2 to 5).

    Args:
        exchange: request and what to do with the answer.
        address: where to.
        context: for wss; None checks certificates against the system's authorities.
        proxy: to go through; None goes directly.

    Raises:
        ConnectFailure: it came to nothing; whatever the reason.
    """
    if address.port in BAD_PORTS:  # Fetch Standard, main fetch step 7.
        raise ConnectFailure("port", f"browsers do not connect to port {address.port} (bad port)")
    try:
        await _connect(exchange, address, context, proxy)
        return await exchange.done
    except ssl.SSLError as exc:
        raise ConnectFailure("tls", f"TLS failed: {_tls_reason(exc)}") from exc
    except (OSError, UnicodeError) as exc:  # The latter for a name that no resolver takes.
        raise ConnectFailure("network", f"cannot connect to {address.authority}: {exc}") from exc
    finally:
        exchange.leave()


async def _connect(
    exchange: Exchange[T], address: Address, context: ssl.SSLContext | None, proxy: Upstream | None
) -> None:
    loop = asyncio.get_running_loop()
    tls = (context or _default_context()) if address.secure else None
    name = address.hostname if tls else None
    if proxy is None:
        host = _resolvable(address.hostname)
        await loop.create_connection(lambda: exchange, host, address.port, ssl=tls, server_hostname=name)
        return
    sock = await _tunnel(proxy, address)
    try:
        await loop.create_connection(lambda: exchange, sock=sock, ssl=tls, server_hostname=name)
    except BaseException:
        sock.close()
        raise


@cache
def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])  # What browsers offer for wss, and nothing else.
    return context


def _resolvable(host: str) -> str:
    # RFC 6761 section 6.3: names below localhost are loopback; not every resolver knows that.
    return "localhost" if host.rstrip(".").endswith(".localhost") else host


async def _tunnel(proxy: Upstream, address: Address) -> socket.socket:
    """Have a proxy make a tunnel; return its socket.

    Not with a transport: what is read of one before TLS begins would be lost to TLS.
    """
    try:
        sock = await _connect_socket(proxy.host.strip("[]"), proxy.port)
    except (OSError, UnicodeError) as exc:
        raise ConnectFailure("proxy", f"cannot reach the proxy {proxy}: {exc}") from exc
    try:
        await _ask_proxy(sock, proxy, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask_proxy(sock: socket.socket, proxy: Upstream, address: Address) -> None:
    loop = asyncio.get_running_loop()
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    await loop.sock_sendall(sock, write_connect(f"{host}:{address.port}", proxy.credentials))
    reader = ResponseReader()
    while not (answer := reader.feed(data := await loop.sock_recv(sock, 4096))):
        if not data:
            raise ConnectFailure("proxy", "the proxy closed the connection without an answer")
    response, rest = answer
    if not 200 <= response.status <= 299:
        raise ConnectFailure("proxy", f"the proxy refused the tunnel with status {response.status}")
    if rest:
        raise ConnectFailure("proxy", "the proxy sent bytes of its own into the tunnel")


async def _connect_socket(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("no address")
    for family, kind, number, _, place in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, number)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, place)
        except OSError as exc:
            failure = exc
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    raise failure


def _tls_reason(exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({exc.verify_message})"
    return str(exc.reason or exc).replace("_", " ").lower()


def _because(exc: Exception | None) -> str:
    return f" ({exc})" if exc is not None else ""
