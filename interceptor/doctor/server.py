"""A real server for the doctor: says its word on every WebSocket, and never heard of rules."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast

from ..config import Limits, Timeouts
from ..connection import Connection, End
from ..exceptions import HandshakeFailure
from ..handshake import Accepted, HeadReader, accept, read_offer, read_request, refusal

__all__ = ["serving"]

LIMITS = Limits()
TIMEOUTS = Timeouts()


@asynccontextmanager
async def serving(word: str, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen on loopback, in TLS if there is a context; gives the port."""
    transports: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Visit(word, transports), "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(transports):
            transport.abort()
        await asyncio.sleep(0)


class Visit(asyncio.Protocol):
    """One connection, until its WebSocket is open; then its owner."""

    def __init__(self, word: str, transports: set[asyncio.Transport]) -> None:
        self._word = word
        self._transports = transports
        self._reader = HeadReader(LIMITS.head)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it in."""
        self._transport = cast(asyncio.Transport, transport)
        self._transports.add(self._transport)

    def data_received(self, data: bytes) -> None:
        """Open the WebSocket once the head is complete, and say the word."""
        try:
            found = self._reader.feed(data)
            if found is None:
                return
            answer = accept(read_offer(read_request(found[0], LIMITS.fields)), Accepted())
        except HandshakeFailure as failure:
            self._transport.write(refusal(failure.status, failure.reason))
            self._transport.close()
            return
        self._transport.write(answer)
        connection = Connection(self._transport, self, limits=LIMITS, timeouts=TIMEOUTS, lost=self._lost)
        connection.send(self._word.encode(), 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._lost()

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        """Nothing is asked for here."""

    def connection_ending(self) -> None:
        """Nothing waits here."""

    def connection_ended(self, end: End) -> None:
        """How it ended is the page's to tell."""

    def _lost(self) -> None:
        self._transports.discard(self._transport)
