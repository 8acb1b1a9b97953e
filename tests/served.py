"""A raw server that does what a test tells it, for the client to talk to; and what a WebSocket object saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Self

from websockets.utils import accept_key

from interceptor.client import Blob, CloseEvent, Event, MessageEvent, WebSocket

from .pair import Far
from .peer import PATIENCE

FAILED = [("error",), ("close", 1006, "", False)]
"""All that a program may learn of a connection that failed."""


class Served(Far):
    """One connection to the server.

    Attributes:
        head: the request head that came on it.
    """

    head = b""

    @property
    def lines(self) -> list[str]:
        """The lines of the request head."""
        return self.head.decode("latin-1").split("\r\n")[:-2]

    def field(self, name: str) -> str | None:
        """The value of a request field."""
        pairs = (line.split(": ", 1) for line in self.lines[1:])
        return next((value for key, value in pairs if key == name), None)

    @property
    def fields(self) -> str:
        """The fields of a right 101, with CRLF."""
        right = accept_key(self.field("Sec-WebSocket-Key") or "")
        return f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {right}\r\n"

    async def switch(self, extra: str = "", after: bytes = b"") -> None:
        """Answer with a right 101."""
        await self.send(f"HTTP/1.1 101 Switching Protocols\r\n{self.fields}{extra}\r\n".encode(), after)

    async def end(self) -> None:
        """End the connection as a server does, and see the client end it too."""
        self.writer.close()
        async with asyncio.timeout(PATIENCE):
            await self.writer.wait_closed()


class Site:
    """The server.

    Attributes:
        port: where it listens.
        url: its WebSocket.
    """

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}/"
        self.waiting: asyncio.Queue[Served] = asyncio.Queue()

    async def accept(self) -> Served:
        """Wait for a connection and read its request head."""
        async with asyncio.timeout(PATIENCE):
            served = await self.waiting.get()
            served.head = await served.reader.readuntil(b"\r\n\r\n")
        return served

    async def open(self, socket: WebSocket, extra: str = "") -> Served:
        """Answer a socket with a right 101, and wait until it is open."""
        served = await self.accept()
        await served.switch(extra)
        async with asyncio.timeout(PATIENCE):
            await socket.opened
        return served

    @classmethod
    @asynccontextmanager
    async def serving(cls, context: SSLContext | None = None) -> AsyncIterator[Self]:
        """Serve on loopback; every connection is dropped at the end."""
        writers: list[asyncio.StreamWriter] = []

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            site.waiting.put_nowait(Served(reader, writer, masks=False))

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context, limit=2**26)
        site = cls(server.sockets[0].getsockname()[1], "ws" if context is None else "wss")
        try:
            yield site
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0)
            await server.wait_closed()


def note(event: Event) -> tuple[object, ...]:
    """An event in short."""
    match event:
        case MessageEvent(data=Blob() as blob):
            return ("message", "blob", bytes(blob))
        case MessageEvent(data=data):
            return ("message", data)
        case CloseEvent():
            return ("close", event.code, event.reason, event.wasClean)
    return (event.type,)


def record(socket: WebSocket) -> list[tuple[object, ...]]:
    """All that a socket fires from now on, in short."""
    seen: list[tuple[object, ...]] = []
    for kind in ("open", "message", "error", "close"):
        socket.addEventListener(kind, lambda event: seen.append(note(event)))
    return seen


async def closed(socket: WebSocket) -> CloseEvent:
    """Wait for the end of a socket."""
    async with asyncio.timeout(PATIENCE):
        return await socket.closed
