"""A Connection on one end of a socket pair, with a scripted peer at the other; either side."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate

from interceptor.config import Limits, Timeouts
from interceptor.connection import Connection, End

from .peer import CLOSE, MASK, PATIENCE, Frame, frame
from .wire import quiet_loop as quiet_loop

MIB = 1024 * 1024
Message = tuple[str | bytes, bool, int]
NEVER = 3600.0
QUIET = Timeouts(close=NEVER, ping=None)


class Owner:
    """Keeps what a connection reports."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ends: list[End] = []
        self.endings = 0
        self.on_message: Callable[[str | bytes], None] = lambda data: None

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        assert not self.ends, "a message after the end"
        self.messages.append((data, fin, datatype))
        self.on_message(data)

    def connection_ending(self) -> None:
        assert not self.ends, "the end comes after this"
        self.endings += 1

    def connection_ended(self, end: End) -> None:
        self.ends.append(end)

    @property
    def data(self) -> list[str | bytes]:
        return [data for data, _, _ in self.messages]


class Wire(asyncio.Transport):
    """A transport that counts, and fails when it is told to."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self.inner = inner
        self.writes: list[int] = []
        self.eofs = 0
        self.no_eof: Literal["unknown", "fails"] | None = None

    @property
    def max_size(self) -> int:
        return self.inner.max_size  # type: ignore[attr-defined, no-any-return]  # of asyncio's own for a socket

    @max_size.setter
    def max_size(self, size: int) -> None:
        self.inner.max_size = size  # type: ignore[attr-defined]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(len(data))
        self.inner.write(data)

    def can_write_eof(self) -> bool:
        return self.no_eof != "unknown"

    def write_eof(self) -> None:
        self.eofs += 1
        if self.no_eof == "fails":
            raise OSError("the peer was faster")
        self.inner.write_eof()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.inner.set_protocol(protocol)

    def is_closing(self) -> bool:
        return self.inner.is_closing()

    def is_reading(self) -> bool:
        return self.inner.is_reading()

    def pause_reading(self) -> None:
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        self.inner.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self.inner.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.inner.set_write_buffer_limits(high, low)

    def close(self) -> None:
        self.inner.close()

    def abort(self) -> None:
        self.inner.abort()


class Far:
    """The scripted peer; it masks if the connection does not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, masks: bool) -> None:
        self.reader = reader
        self.writer = writer
        self._mask = MASK if masks else None

    def frame(self, opcode: int, data: bytes | str = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        return frame(opcode, data, fin=fin, rsv=rsv, mask=self._mask)

    def close_frame(self, code: int | None, reason: str = "") -> bytes:
        return self.frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    async def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def receive(self) -> Frame:
        """Read a frame, and check that it is masked as it must be."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second & 127
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            assert bool(second & 128) is (self._mask is None)
            mask = await self.reader.readexactly(4) if second & 128 else bytes(4)
            payload = await self.reader.readexactly(size)
        if any(mask):
            whole = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(size, "big")
        return Frame(first & 15, payload, bool(first & 128), first >> 4 & 7)

    async def close_code(self) -> int | None:
        """Read frames up to a close frame; its code, None if it has none."""
        while (got := await self.receive()).opcode != CLOSE:
            pass
        return int.from_bytes(got.payload[:2], "big") if got.payload else None

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def pause(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a socket can

    def resume(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]


class Pair(NamedTuple):
    """A connection and all that is around it."""

    connection: Connection
    far: Far
    owner: Owner
    wire: Wire
    lost: asyncio.Event


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Wire, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket pair: a transport without a protocol yet, and the streams of its far end."""
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    reader, writer = await asyncio.open_connection(sock=far, limit=2**26)
    try:
        yield Wire(transport), reader, writer
    finally:
        for end in (transport, writer.transport):
            with suppress(AttributeError):  # So does Python 3.11 where it is closed already.
                end.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(
    client: bool,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts = QUIET,
    chunks: bool = False,
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[Pair]:
    """A connection of either side, and its peer."""
    owner, lost = Owner(), asyncio.Event()

    def once() -> None:
        assert not lost.is_set(), "lost twice"
        lost.set()

    async with two_ends() as (wire, reader, writer):
        connection = Connection(
            wire,
            owner,
            extensions=extensions,
            limits=limits or Limits(),
            timeouts=timeouts,
            chunks=chunks,
            lost=once,
            client=client,
        )
        yield Pair(connection, Far(reader, writer, masks=not client), owner, wire, lost)
        wire.abort()
        async with asyncio.timeout(PATIENCE):
            await lost.wait()
    assert len(owner.ends) == 1, "not exactly one end"


class Clock:
    """The loop's clock, put forward by hand: no test waits for a timer, or races with one."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead = 0.0
        real = loop.time
        loop.time = lambda: real() + self._ahead  # type: ignore[method-assign]

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is due run."""
        self._ahead += seconds
        for _ in range(3):
            await asyncio.sleep(0)


def deflate() -> list[Extension]:
    return [PerMessageDeflate(False, False, 12, 12)]
