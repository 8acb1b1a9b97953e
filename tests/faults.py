"""Wires that fail as they are told: a TCP proxy before a real host, and a transport in memory."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol, cast

from interceptor import Host

from .memory import MemoryTransport, in_memory
from .peer import Peer


class Way(Protocol):
    """A wire between a peer and a host, and what can happen to it.

    Attributes:
        peer: its far end.
    """

    peer: Peer

    def inject(self, data: bytes) -> None:
        """Have bytes arrive at the host that nobody sent."""

    def reset(self) -> None:
        """Reset the connection, both ways."""

    def finish(self) -> None:
        """End the stream towards the host."""

    def stall(self) -> None:
        """Hand nothing on, either way."""

    def go_on(self, singly: int = 0) -> None:
        """Hand on what comes; the next bytes one at a time."""


def reset(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection with a reset."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Hop:
    """A TCP proxy for one connection to a host."""

    def __init__(self, peer: Peer, client: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self.peer = peer
        self._client = client
        self._there = there
        self._open = asyncio.Event()
        self._open.set()
        self._singly = 0

    def inject(self, data: bytes) -> None:
        with suppress(RuntimeError):  # It was ended.
            self._there.write(data)

    def reset(self) -> None:
        reset(self._there)
        reset(self._client)

    def finish(self) -> None:
        with suppress(OSError, RuntimeError):  # The host was faster.
            self._there.write_eof()

    def stall(self) -> None:
        self._open.clear()

    def go_on(self, singly: int = 0) -> None:
        self._singly = singly
        self._open.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand on one direction."""
        try:
            while data := await self._next(reader):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write_eof()
        except (OSError, RuntimeError):  # The other direction ended it all.
            self.reset()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        await self._open.wait()
        single, self._singly = self._singly > 0, self._singly - 1
        data = await reader.read(1 if single else 4096)
        await self._open.wait()
        return data


@asynccontextmanager
async def through_a_proxy(host: Host) -> AsyncIterator[Way]:
    """A way to a running host over TCP, with a proxy in between."""
    tasks: list[asyncio.Task[None]] = []
    made: asyncio.Future[Hop] = asyncio.get_running_loop().create_future()
    peers: list[Peer] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(*host.address, limit=4096)
        for one in (writer, there):
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hop = Hop(peers[0], writer, there)
        tasks.append(asyncio.create_task(hop.pump(reader, there)))
        tasks.append(asyncio.create_task(hop.pump(back, writer)))
        made.set_result(hop)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=4096)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=2**26)
    peers.append(Peer(reader, writer))
    hop = await made
    try:
        yield hop
    finally:
        hop.reset()
        writer.transport.abort()
        server.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()


class _Writer:
    """What a Peer needs of a StreamWriter."""

    def __init__(self, way: Pipe) -> None:
        self._way = way

    def write(self, data: bytes) -> None:
        self._way.pass_in(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def write_eof(self) -> None:
        self._way.finish()


class Pipe:
    """A transport in memory, and the streams of its far end."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._reader = asyncio.StreamReader(limit=2**26)
        self._held: list[bytes] | None = None
        self._singly = 0
        self.peer = Peer(self._reader, cast(asyncio.StreamWriter, _Writer(self)))
        transport.taken = self._reader.feed_data
        transport.finished = self._reader.feed_eof

    def pass_in(self, data: bytes) -> None:
        """Hand on what the far end sends."""
        if self._held is not None:
            self._held.append(data)
            return
        start = min(max(self._singly, 0), len(data))
        self._singly -= start
        for index in range(start):
            self._transport.feed(data[index : index + 1])
        if data[start:]:
            self._transport.feed(data[start:])

    def inject(self, data: bytes) -> None:
        self._transport.feed(data)

    def reset(self) -> None:
        self._transport.lose(ConnectionResetError(104, "Connection reset by peer"))

    def finish(self) -> None:
        self._transport.feed_eof()

    def stall(self) -> None:
        self._held = []
        self._transport.stall()

    def go_on(self, singly: int = 0) -> None:
        held, self._held, self._singly = self._held or [], None, singly
        self._transport.go_on()
        for data in held:
            self.pass_in(data)


@asynccontextmanager
async def by_a_transport(host: Host) -> AsyncIterator[Way]:
    """A way to a host that is not running yet, without a network; it runs meanwhile."""
    async with in_memory(host) as connect:
        transport = connect()
        pipe = Pipe(transport)
        try:
            yield pipe
        finally:
            transport.lose(None)
