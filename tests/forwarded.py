"""A web server that never heard of us, and requests to it that go through the proxy as whole URLs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .peer import PATIENCE, Peer
from .proxied import server

ROWS = [("ws://myapp.test/*", 1)]


class Web:
    """A real server that reads heads, and writes what it is told; it never heard of us.

    Attributes:
        heads: the request heads that came, in order, each with the number of its connection.
        bodies: what came after each head until the answer was begun.
    """

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.heads: list[tuple[int, bytes]] = []
        self.bodies: list[bytes] = []
        self.ended = 0
        self._answers = answers
        self._count = 0
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, **answers: bytes) -> AsyncIterator[Web]:
        """Serve an answer for each name of a path; a name with `body` reads 4 bytes of a body first."""
        web = cls(answers)
        async with server(web._handle) as web.port:
            yield web

    def url(self, path: str) -> str:
        """The whole URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        number = self._count
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append((number, head))
                name = head.split(b" ")[1].decode().strip("/").partition("?")[0]
                self.bodies.append(await reader.readexactly(4) if "body" in name else b"")
                writer.write(self._answers[name])
                await writer.drain()
                if "close" in name:
                    return
        except asyncio.IncompleteReadError:
            self.ended += 1


def get(url: str, host: str, *, extra: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    """A request for a whole URL."""
    return f"{method} {url} HTTP/{version}\r\nHost: {host}\r\n{extra}\r\n".encode("latin-1")


def ok(body: bytes = b"fine", *, extra: str = "") -> bytes:
    """An answer with an oddly written head, which has to come as it is."""
    return (
        f"HTTP/1.1 200 Quite  Fine\r\nX-oDD:   kept \r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode()
        + body
    )


async def read_exactly(peer: Peer, data: bytes) -> None:
    """See that these very bytes come."""
    async with asyncio.timeout(PATIENCE):
        assert await peer.reader.readexactly(len(data)) == data
