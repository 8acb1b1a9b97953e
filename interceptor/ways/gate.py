"""Beginning TLS on a connection of which bytes were read already."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from ..config import Timeouts

__all__ = ["HTTP_1", "Gate", "start_tls", "tell_successor"]

HTTP_1 = ["http/1.1"]
"""What is agreed on inside TLS (ALPN): WebSockets of RFC 6455 need HTTP/1.1."""


def tell_successor(
    transport: asyncio.Transport, protocol: asyncio.BaseProtocol, exc: Exception | None
) -> bool:
    """Pass the loss of a connection on to who has it now; return whether there is such a one.

    TLS tells of a loss whoever had the connection when it was noticed, and that one may have passed it on
    since. Plain connections tell who has it when they tell.

    Args:
        transport: was lost.
        protocol: was told so.
        exc: as it was told.
    """
    successor = transport.get_protocol()
    if successor is None or successor is protocol:
        return False
    successor.connection_lost(exc)
    return True


class Gate(asyncio.Protocol):
    """Keeps what comes on a connection before there is somebody to take it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._ended = False
        self._lost: tuple[Exception | None] | None = None

    def data_received(self, data: bytes) -> None:
        """Keep bytes."""
        self._data += data

    def eof_received(self) -> None:
        """Note the end of the stream."""
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the loss."""
        if self._transport is None or not tell_successor(self._transport, self, exc):
            self._lost = (exc,)

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """Put a protocol in this one's place, and give it what it missed; it knows its transport already."""
        self._transport = transport
        transport.set_protocol(protocol)
        if self._data:
            protocol.data_received(bytes(self._data))
        if self._ended:
            protocol.eof_received()
        if self._lost is not None:
            protocol.connection_lost(*self._lost)


async def start_tls(
    transport: asyncio.Transport,
    context: ssl.SSLContext,
    timeouts: Timeouts,
    *,
    data: bytes = b"",
    server_name: str | None = None,
) -> tuple[asyncio.Transport, Gate]:
    """Begin TLS on a connection, as its server unless `server_name` is given.

    Args:
        transport: the connection.
        context: has the certificate, or the trust.
        timeouts: `head` for the handshake, `close` for the end of TLS.
        data: bytes of the peer's that were read already.
        server_name: whose certificate to expect.

    Returns:
        The transport inside, and what keeps the bytes that came on it so far.

    Raises:
        OSError: TLS did not come about; the connection is closed.
    """
    loop, gate = asyncio.get_running_loop(), Gate()
    starting = loop.create_task(
        loop.start_tls(
            transport,
            gate,
            context,
            server_side=server_name is None,
            server_hostname=server_name,
            ssl_handshake_timeout=timeouts.head,
            ssl_shutdown_timeout=timeouts.close,
        )
    )
    # loop.start_tls knows nothing of bytes that were read before. After its first step the connection has
    # another protocol, and after the calls that this step asks for it is ready to be given them.
    try:
        await asyncio.sleep(0)
        if data and not starting.done():
            loop.call_soon(_feed, cast(asyncio.BufferedProtocol, transport.get_protocol()), data)
        inside = await starting
    except BaseException:
        starting.cancel()
        raise
    if inside is None or inside.is_closing():
        raise ConnectionResetError("the connection was lost while TLS began")
    return inside, gate


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Give bytes to a protocol as a transport does."""
    while data:
        buffer = protocol.get_buffer(len(data))
        size = min(len(buffer), len(data))  # type: ignore[arg-type]
        buffer[:size] = data[:size]  # type: ignore[index]
        protocol.buffer_updated(size)
        data = data[size:]
