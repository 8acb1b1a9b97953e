"""Programs to test a host with, and peers that ask much of them."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from interceptor import (
    Event,
    Host,
    Limits,
    Session,
    Timeouts,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import CLOSE, PATIENCE, PING, PONG, TEXT, Frame, Peer, Recorder, close_frame, frame
from .peer import request as request_head
from .wire import ANYONE

MIB = 1024 * 1024
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
UPGRADE: Final = "WebSocketUpgrade"
RECEIVE: Final = "WebSocketReceive"
CLOSED: Final = "WebSocketClose"
ERROR: Final = "WebSocketError"


class Open(NamedTuple):
    """A socket that is open: its far end, and its ID."""

    peer: Peer
    id: str


def make_host(*, limits: Limits | None = None, timeouts: Timeouts | None = None) -> Host:
    """A host that takes every URL, those with /manual by hand, and anyone."""
    return Host(
        [("*/manual*", 2), ("*", 1)],
        security=ANYONE,
        limits=limits or Limits(),
        timeouts=timeouts or Timeouts(),
    )


@asynccontextmanager
async def opened(host: Host, seen: Recorder, target: str = "/", *, extra: str = "") -> AsyncIterator[Open]:
    """Open a socket, one at a time."""
    count = len(seen.of(WebSocketUpgrade)) + 1
    async with Peer.open(host, target, extra=extra) as peer:
        yield Open(peer, (await seen.wait_for(WebSocketUpgrade, count)).id)


def ask(host: Host, target: str, *, extra: str = "", without: tuple[str, ...] = ()) -> bytes:
    """A request head for a path at the host's own address."""
    return request_head(target, Peer.authority(host), extra=extra, without=without)


def messages(count: int, size: int = 20) -> list[str]:
    """Texts that can be told apart."""
    return [f"{index:0{size}}" for index in range(count)]


def frames(texts: list[str]) -> bytes:
    """One frame for each text."""
    return b"".join(frame(TEXT, text) for text in texts)


def pack(payload: bytes) -> bytes:
    """A frame that permessage-deflate made small."""
    packer = zlib.compressobj(wbits=-12)
    data = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, data.removesuffix(b"\0\0\xff\xff"), rsv=4)


def pause(peer: Peer) -> None:
    """Let the peer read nothing."""
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a socket can


def resume(peer: Peer) -> None:
    """Let the peer read again."""
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def everything(peer: Peer) -> list[Frame]:
    """All frames up to the close frame; it is answered, and nothing comes after it."""
    got = [await peer.frame()]
    while got[-1].opcode != CLOSE:
        got.append(await peer.frame())
    await peer.send(close_frame())
    assert await peer.rest() == b""
    return got


QUESTION = "are you there?"


async def echo(socket: Session) -> None:
    """A route's handler."""
    async for message in socket:
        await socket.send(message)


class Taker:
    """Takes messages in one of the ways that a program has; slow ones take none before `gate` is open.

    A QUESTION is for another socket, and left alone.

    Attributes:
        gate: set by the test.
        begun: a message has come to the gate.
        over: 843 was reported.
        taken: the data of the messages, in order; none that a callback was given after the end.
        ends: how often 843 was reported.
    """

    def __init__(self, host: Host, pattern: str = "*") -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.taken: list[str | bytes] = []
        self.ends = 0
        self._host = host
        self._pattern = pattern
        self._task: asyncio.Task[None] | None = None

    def begin(self, way: str) -> None:
        """Take part.

        Args:
            way: `plain` or `slow` by a callback, `route`, `both` by a route behind a slow callback, `stream`
                by the host's stream of events.
        """
        if way == "stream":
            self._task = asyncio.create_task(self._read(self._host.events()))
            return
        self._host.on(CLOSED)(self._end)
        if way in ("route", "both"):
            self._host.route(self._pattern)(self._run if way == "route" else self._run_at_once)
            if way == "both":
                self._host.on(RECEIVE)(self._wait)
        elif way == "slow":
            self._host.on(RECEIVE)(self._take_slowly)
        else:
            self.begun.set()
            self._host.on(RECEIVE)(self._take)

    async def has_begun(self) -> None:
        """Wait until the program is busy with a message."""
        await asyncio.wait_for(self.begun.wait(), PATIENCE)

    async def is_over(self) -> None:
        """Wait for the end."""
        await asyncio.wait_for(self.over.wait(), PATIENCE)

    def _take(self, event: WebSocketReceive) -> None:
        if not self.ends:
            self.taken.append(event.data)

    async def _take_slowly(self, event: WebSocketReceive) -> None:
        if event.data != QUESTION:
            await self._at_the_gate()
            self._take(event)

    async def _wait(self, event: WebSocketReceive) -> None:
        if event.data != QUESTION:
            await self._at_the_gate()

    async def _run(self, socket: Session) -> None:
        await self._at_the_gate()
        await self._run_at_once(socket)

    async def _run_at_once(self, socket: Session) -> None:
        async for message in socket:
            self.taken.append(message)

    async def _read(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            if isinstance(event, WebSocketReceive):
                await self._take_slowly(event)
            elif isinstance(event, WebSocketClose):
                self._end(event)

    async def _at_the_gate(self) -> None:
        self.begun.set()
        await self.gate.wait()

    def _end(self, event: WebSocketClose) -> None:
        self.ends += 1
        self.over.set()


def narrow(host: Host) -> None:
    """Give the sockets of a host small kernel buffers, so that little is on the way."""
    server = host._listener._server
    assert server is not None
    for listening in server.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)


class Flood:
    """Sends pieces as fast as the other end lets it, and counts what has left."""

    def __init__(self, peer: Peer, pieces: list[bytes]) -> None:
        peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        peer.writer.transport.set_write_buffer_limits(high=0)
        self.sent = 0
        self.task = asyncio.create_task(self._run(peer, pieces))

    async def _run(self, peer: Peer, pieces: list[bytes]) -> None:
        for piece in pieces:
            await peer.send(piece)
            self.sent += len(piece)

    async def stalled(self, other: Peer) -> None:
        """Wait until nothing more leaves while another socket, one of `echo`, gets many answers."""
        sent, quiet = -1, 0
        while quiet < 100:
            quiet = quiet + 1 if sent == self.sent else 0
            sent = self.sent
            await other.send(frame(TEXT, QUESTION) + frame(PING, "?"))
            assert {(await other.frame()).opcode, (await other.frame()).opcode} == {TEXT, PONG}
        assert not self.task.done(), "the host took it all"
