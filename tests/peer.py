"""The other end of the wire, byte for byte, and the host's side of a test.

`Peer` is a WebSocket client that only knows bytes: it sends what it is told, also what no client should, and
reads what comes. `Recorder` keeps the events of a host and waits for the ones a test is about.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple, Self, TypeVar

from interceptor import Event, Host

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
MASK = b"\x11\x22\x33\x44"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATIENCE = 20.0  # Seconds until a test that waits for something gives up; never a measure of speed.

EVENT_NAMES: tuple[
    Literal["HTTPRequest", "WebSocketUpgrade", "WebSocketReceive", "WebSocketClose", "WebSocketError"], ...
] = ("HTTPRequest", "WebSocketUpgrade", "WebSocketReceive", "WebSocketClose", "WebSocketError")

E = TypeVar("E", bound=Event)


class Frame(NamedTuple):
    """A frame as it came over the wire."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes


def request(
    target: str = "/",
    host: str = "127.0.0.1",
    *,
    origin: str | None = None,
    extra: str = "",
    without: tuple[str, ...] = (),
    method: str = "GET",
    version: str = "HTTP/1.1",
) -> bytes:
    """A right request head, less the fields named in `without`; `extra` is whole lines with CRLF."""
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    if origin is not None:
        fields["Origin"] = origin
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if name not in without)
    return f"{method} {target} {version}\r\n{lines}{extra}\r\n".encode("latin-1")


def frame(
    opcode: int, payload: bytes | str = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK
) -> bytes:
    """The bytes of a frame; `mask=None` leaves it unmasked, which no client may."""
    data = payload.encode() if isinstance(payload, str) else payload
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    bit = 0x80 if mask is not None else 0
    if len(data) < 126:
        head = struct.pack("!BB", first, bit | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(data))
    if mask is None:
        return head + data
    whole = mask * (len(data) // 4 + 1)
    masked = int.from_bytes(data, "big") ^ int.from_bytes(whole[: len(data)], "big")
    return head + mask + masked.to_bytes(len(data), "big")


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    """The bytes of a close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


async def until(condition: Callable[[], object]) -> None:
    """Wait until something that no event tells of holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # a program has no event for these
            await asyncio.sleep(0.001)


class Peer:
    """A client that only knows bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, host: Host) -> AsyncIterator[Self]:
        """A TCP connection to a host; it is dropped at the end."""
        reader, writer = await asyncio.open_connection(*host.address, limit=2**26)
        peer = cls(reader, writer)
        try:
            yield peer
        finally:
            writer.transport.abort()

    @classmethod
    @asynccontextmanager
    async def dial(cls, url: str) -> AsyncIterator[Self]:
        """A TCP connection to the server of a URL, which names its port; it is dropped at the end."""
        host, port = url.split("/")[2].split(":")
        peer = cls(*await asyncio.open_connection(host, int(port)))
        try:
            yield peer
        finally:
            peer.writer.transport.abort()

    @classmethod
    @asynccontextmanager
    async def open(cls, host: Host, target: str = "/", *, extra: str = "") -> AsyncIterator[Self]:
        """A WebSocket that is open; the token is in the target."""
        async with cls.connect(host) as peer:
            answer = await peer.ask(request(cls.with_token(host, target), peer.authority(host), extra=extra))
            assert answer.status == 101, answer
            yield peer

    @staticmethod
    def authority(host: Host) -> str:
        """The host's own address, as it stands in Host."""
        return f"{host.address[0]}:{host.address[1]}"

    @staticmethod
    def with_token(host: Host, target: str = "/") -> str:
        """A target with the token in its query."""
        return "/" + host.ws_url(target).split("/", 3)[3]

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_slowly(self, data: bytes) -> None:
        """Send bytes one at a time, each in a packet of its own as far as the system lets us."""
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            await self.send(data[index : index + 1])
            await asyncio.sleep(0)

    async def ask(self, head: bytes) -> Answer:
        """Send a request and read its answer."""
        await self.send(head)
        return await self.answer()

    async def answer(self) -> Answer:
        """Read an answer; the body by Content-Length, else (not for a 101) to the end."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:-2])}
            status = int(lines[0].split(" ")[1])
            if status == 101:
                body = b""
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, headers, body, head)

    async def frame(self) -> Frame:
        """Read a frame; the host never masks."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            assert not second & 0x80, "a server masked a frame"
            payload = await self.reader.readexactly(size)
        return Frame(first & 15, payload, bool(first & 0x80), first >> 4 & 7)

    async def close_code(self) -> int | None:
        """Read frames up to a close frame; its code, None if it has none."""
        while (got := await self.frame()).opcode != CLOSE:
            pass
        return int.from_bytes(got.payload[:2], "big") if got.payload else None

    async def rest(self) -> bytes:
        """Read all that comes until the host ends the stream."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def half_close(self) -> None:
        """End our direction of the stream."""
        self.writer.write_eof()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    @property
    def raw(self) -> socket.socket:
        """The socket below."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        return sock


class Recorder:
    """Keeps every event of a host and waits for conditions on them.

    Args:
        host: its events are taken by a plain callback for "All", which leaves manual upgrades unanswered.
    """

    def __init__(self, host: Host) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        for which in EVENT_NAMES:
            host.on(which)(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, kind: type[E], id: str | None = None) -> list[E]:
        """The events of a class so far, of one socket or of all."""
        return [e for e in self.events if isinstance(e, kind) and id in (None, getattr(e, "id", None))]

    def names(self, id: str | None = None) -> list[str]:
        """The names of the events so far, in order."""
        return [e.event for e in self.events if id in (None, getattr(e, "id", None))]

    async def wait(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; it is asked after each event."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def wait_for(self, kind: type[E], count: int = 1) -> E:
        """Wait for the `count`th event of a class, and return it."""
        await self.wait(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]
