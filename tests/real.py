"""A real server, one of `websockets` that never heard of us, and recorders of the bytes that go by."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Self

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from .peer import PATIENCE

NONCE = re.compile(rb"(?<=\r\nSec-WebSocket-Key: )[A-Za-z0-9+/]{22}==(?=\r\n)")


class Sent(NamedTuple):
    """What a client sent, without what differs from one connection to the next by its nature.

    Attributes:
        head: of the request, without the nonce.
        frames: first byte, and the payload unmasked.
    """

    head: bytes
    frames: list[tuple[int, bytes]]


class Leg:
    """A TCP port that hands on what comes, both ways, and keeps what clients sent.

    Attributes:
        port: where it listens, on loopback.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._sent: list[bytearray] = []
        self._ended: list[bytes] = []
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def to(cls, target: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """Record on the way to a port of this machine.

        Args:
            target: the port.
            context: ends TLS before that.
        """
        leg = cls(target)
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(leg._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        leg.port = server.sockets[0].getsockname()[1]
        try:
            yield leg
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    async def take_with(self, text: str) -> bytes:
        """Wait for a connection whose client sent a text to end, take it, and return all that was sent."""
        async with asyncio.timeout(PATIENCE):
            while not (found := [sent for sent in self._ended if text.encode() in sent]):
                self._changed.clear()
                await self._changed.wait()
        assert len(found) == 1, found
        self._ended.remove(found[0])
        return found[0]

    def has_seen(self, text: str) -> bool:
        """Whether a client sent a text, so far."""
        return any(text.encode() in sent for sent in self._sent)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = bytearray()
        self._sent.append(sent)
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(_pump(reader, back, sent), _pump(there, writer, bytearray()))
        finally:
            back.close()
            writer.close()
            self._ended.append(bytes(sent))
            self._changed.set()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            kept += data
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
    except OSError:  # A reset ends both ways.
        writer.transport.abort()


@asynccontextmanager
async def real_server(context: ssl.SSLContext | None = None) -> AsyncIterator[Leg]:
    """A server that sends back what it gets, behind a recorder that ends TLS if it has a context."""

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    def choose(socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((name for name in offered if name == "chat"), None)

    async with serve(echo, "127.0.0.1", 0, select_subprotocol=choose) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Leg.to(port, context) as leg:
            yield leg


def read_sent(data: bytes) -> Sent:
    """Read what a client sent: a request head, and frames none of which has 64 KiB."""
    head, mark, rest = data.partition(b"\r\n\r\n")
    frames: list[tuple[int, bytes]] = []
    while rest:
        size, at = rest[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(rest[2:4], "big"), 4
        assert rest[1] & 0x80, "a client that does not mask"
        mask, payload = rest[at : at + 4], rest[at + 4 : at + 4 + size]
        assert len(payload) == size, "half a frame"
        frames.append((rest[0], bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))))
        rest = rest[at + 4 + size :]
    nonce, count = NONCE.subn(b"*", head)
    assert (mark, count) == (b"\r\n\r\n", 1), data
    return Sent(nonce, frames)
