"""Hosts without a network: transports in memory that do what a test tells them, at the very moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from interceptor import Host

HIGH = 64 * 1024


class MemoryTransport(asyncio.Transport):
    """A transport whose far end is the test.

    Args:
        protocol: gets what the test feeds; None where somebody sets it later.

    Attributes:
        out: all that was written, where `taken` is not another.
        taken: gets what is written, as it leaves.
        finished: called once at the end of what is written.
        gone: whether the transport is closed, and its protocol told.
    """

    def __init__(self, protocol: asyncio.BaseProtocol | None = None) -> None:
        super().__init__()
        self.out = bytearray()
        self.finished: Callable[[], object] = lambda: None
        self._ended = False
        self.gone = False
        self.taken: Callable[[bytes], None] = self.out.extend
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = protocol
        self._closing = False
        self._stalled = False
        self._waiting = bytearray()
        self._high = HIGH
        self._full = False
        self._paused = False
        self._coming: list[bytes | None] = []
        self._eof_written = False
        if protocol is not None:
            protocol.connection_made(self)

    # The test's side.

    def feed(self, data: bytes) -> None:
        """Bytes come in, at once unless reading is paused."""
        if not self._closing:
            self._coming.append(data)
            self.deliver()

    def feed_eof(self) -> None:
        """The far end ends its direction of the stream."""
        if not self._closing:
            self._coming.append(None)
            self.deliver()

    def lose(self, exc: Exception | None) -> None:
        """The connection is gone, without a word."""
        if not self._closing:
            self._lose(exc)

    @property
    def waits(self) -> bool:
        """Whether something has come that the host does not read."""
        return bool(self._coming)

    def deliver(self) -> None:
        """Hand in what has come, unless reading is paused."""
        while self._coming and not self._paused and not self._closing:
            data = self._coming.pop(0)
            if data is not None:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    def stall(self) -> None:
        """Nothing that is written leaves any more."""
        self._stalled = True

    def go_on(self) -> None:
        """What was written leaves."""
        self._stalled = False
        waiting, self._waiting = bytes(self._waiting), bytearray()
        if waiting:
            self.taken(waiting)
        if self._full:
            self._full = False
            self._protocol.resume_writing()
        self._finish()

    # The host's side.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        assert not self._eof_written, "written after the end of the stream"
        if not self._stalled:
            self.taken(bytes(data))
            return
        self._waiting += data
        self._mind_the_mark()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH if high is None else high
        self._mind_the_mark()

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof_written = True
        self._finish()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._finish()

    def abort(self) -> None:
        if not self.gone:
            self._lose(None)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self.deliver)

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 50000) if name == "peername" else default

    # Inside.

    def _mind_the_mark(self) -> None:
        if len(self._waiting) > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def _finish(self) -> None:
        if self._waiting:
            return
        if self._eof_written or self._closing:
            self._end()
        if self._closing and not self.gone:
            self._lose(None)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.finished()

    def _lose(self, exc: Exception | None) -> None:
        self._closing = self.gone = True
        self._waiting.clear()
        self._end()
        self._loop.call_soon(self._protocol.connection_lost, exc)


class _Server:
    """What is needed of a server, and of its only socket; it says that its port is 49152."""

    def __init__(self, sock: socket.socket) -> None:
        self.sockets = [self]
        self._sock = sock

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 49152)

    def close(self) -> None:
        self._sock.close()


@asynccontextmanager
async def in_memory(host: Host) -> AsyncIterator[Callable[[], MemoryTransport]]:
    """Run a host whose port nobody serves; what is yielded makes a connection to it."""
    loop = asyncio.get_running_loop()
    factories: list[Callable[[], asyncio.BaseProtocol]] = []

    async def create_server(
        factory: Callable[[], asyncio.BaseProtocol], *, sock: socket.socket, backlog: int
    ) -> _Server:
        factories.append(factory)
        return _Server(sock)

    async def no_network(*_: object, **__: object) -> None:
        raise OSError("there is no network here")

    loop.create_server = create_server  # type: ignore[method-assign, assignment]
    loop.create_connection = loop.getaddrinfo = no_network  # type: ignore[method-assign, assignment]
    try:
        async with host:
            yield lambda: MemoryTransport(factories[0]())
    finally:
        del loop.create_server, loop.create_connection, loop.getaddrinfo
