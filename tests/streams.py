"""Bytes as a stream may bring them: heads, frames and answers, right and wrong, and cut at any place.

`examine_...` is what has to hold for such bytes; hypothesis tries it here, and atheris in `fuzz/`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Self
from unittest.mock import patch

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from interceptor import Event, Host, Limits, Timeouts, WebSocketUpgrade
from interceptor.connection import Connection, End

from .memory import MemoryTransport, in_memory
from .model import story
from .wire import ANYONE

QUIET = Timeouts(head=3600, answer=3600, close=1, ping=None, pong=None)
LIMITS = Limits(message=4096, head=2048, fields=20)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut bytes at places, which may be anywhere."""
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(marks) if start < end]


async def turns(count: int = 6) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


# Frames


class Read(NamedTuple):
    """What a connection made of a stream."""

    messages: list[tuple[str | bytes, bool, int]]
    ends: list[End]
    out: bytes


class Greedy:
    """An owner that takes what comes; holds the connection at each message, if it is told to."""

    def __init__(self) -> None:
        self.messages: list[tuple[str | bytes, bool, int]] = []
        self.ends: list[End] = []
        self.hold: Callable[[], None] = lambda: None

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        assert not self.ends, "a message after the end"
        self.messages.append((data, fin, datatype))
        self.hold()

    def connection_ending(self) -> None:
        """The end comes when all was taken."""

    def connection_ended(self, end: End) -> None:
        assert not self.ends, "two ends"
        self.ends.append(end)


def read_frames(pieces: Sequence[bytes], *, chunks: bool, deflate: bool, held: bool, eof: bool) -> Read:
    """Have a connection read a stream in these pieces, in one turn of the loop however long that takes."""
    with (
        patch("interceptor.connection.TURN", math.inf),
        patch("interceptor.connection.LONG", math.inf),
    ):
        return read_at_once(pieces, chunks=chunks, deflate=deflate, held=held, eof=eof)


def read_at_once(pieces: Sequence[bytes], *, chunks: bool, deflate: bool, held: bool, eof: bool) -> Read:
    """Do what `read_frames` does, while no turn ends."""
    transport, owner = MemoryTransport(), Greedy()
    extensions = [PerMessageDeflate(False, False, 12, 12)] if deflate else []
    connection = Connection(
        transport, owner, extensions=extensions, limits=LIMITS, timeouts=QUIET, chunks=chunks
    )
    if held:
        owner.hold = lambda: connection.hold(True)
    for piece in pieces:
        transport.feed(piece)
    while held and not owner.ends and transport.waits:
        connection.hold(False)
        transport.deliver()
    owner.hold = lambda: None
    connection.hold(False)
    transport.deliver()
    if eof:
        transport.feed_eof()
    made = Read(owner.messages, list(owner.ends), bytes(transport.out))
    transport.lose(None)
    return made


async def examine_frames(
    data: bytes, places: Sequence[int], *, chunks: bool, deflate: bool, held: bool, eof: bool
) -> Read:
    """However a stream is cut, it comes to the same messages, the same end and the same answers."""
    whole = read_frames(cut(data, []), chunks=chunks, deflate=deflate, held=False, eof=eof)
    pieces = read_frames(cut(data, places), chunks=chunks, deflate=deflate, held=held, eof=eof)
    await turns(2)
    assert pieces == whole
    assert len(whole.ends) == 1 or not eof
    return whole


def packed(data: bytes) -> bytes:
    """The payload of a compressed frame."""
    packer = zlib.compressobj(wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


# Hosts


class Asked(NamedTuple):
    """What a host made of a connection's bytes."""

    answer: bytes
    story: str
    open: bool


Reply = Callable[[WebSocketUpgrade], object]


class Desk:
    """A host in memory that is asked again and again.

    Attributes:
        reply: answers manual upgrades.
    """

    def __init__(self, host: Host) -> None:
        self.reply: Reply = lambda event: None
        self.host = host
        self.events: list[Event] = []
        self.troubles: list[object] = []
        self.connect: Callable[[], MemoryTransport]
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.troubles.append(context))
        host.on("WebSocketUpgrade")(self.answer)
        host.on("All")(self.take)

    def answer(self, event: WebSocketUpgrade) -> Any:
        """Answer a manual upgrade."""
        return self.reply(event) if event.type == "manual" else None

    def take(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Run a host that takes every URL, those with /manual by hand."""
        desk = cls(Host([("*/manual*", 2), ("*", 1)], security=ANYONE, limits=LIMITS, timeouts=QUIET))
        async with in_memory(desk.host) as desk.connect:
            yield desk

    async def ask(self, pieces: Sequence[bytes]) -> Asked:
        """Give it the bytes of a connection, and end that; nothing of it stays."""
        self.events.clear()
        transport = self.connect()
        for piece in pieces:
            transport.feed(piece)
        await turns()
        made = Asked(bytes(transport.out), story(self.events), bool(self.host.sockets))
        transport.lose(None)
        for _ in range(10):
            await turns()
            if not self.host.sockets:
                break
        assert not self.troubles, self.troubles
        assert not self.host.sockets, "a socket stays open"
        return made


async def examine_head(desk: Desk, data: bytes, places: Sequence[int]) -> Asked:
    """However a connection's first bytes are cut, they come to the same answer and the same events."""
    whole = await desk.ask(cut(data, []))
    assert await desk.ask(cut(data, places)) == whole
    assert whole.answer.startswith((b"HTTP/1.1 ", b"\x05", b"\x15")) or not whole.answer
    return whole


def offer() -> ClientProtocol:
    """A client that is about to read the answer to what it asked for."""
    client = ClientProtocol(
        parse_uri("ws://127.0.0.1:49152/manual"),
        subprotocols=[Subprotocol("chat"), Subprotocol("superchat")],
        extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)],
    )
    client.send_request(client.connect())
    return client


OURS = (b"\r\n\r\nthe program's answer is not valid\n", b"\r\n\r\nthe program failed\n")


async def examine_answer(desk: Desk, reply: Reply, *, verbatim: bytes | None = None) -> Asked:
    """Whatever a program answers, the client gets one right answer, or 500 and the program one 844.

    Args:
        desk: the host.
        reply: what the callback does.
        verbatim: the bytes of an answer that nobody checks; they go out as they are.
    """
    client = offer()
    desk.reply = reply
    made = await desk.ask(client.data_to_send())
    if verbatim is not None:
        assert (made.answer, made.story) == (verbatim, "U")
        return made
    client.receive_data(made.answer)
    client.receive_eof()
    if made.open:
        assert (client.handshake_exc, made.story) == (None, "U")
        assert client.state is not State.CONNECTING
    else:
        assert isinstance(client.handshake_exc, InvalidStatus), (client.handshake_exc, made)
        failed = made.answer.startswith(b"HTTP/1.1 500 ") and made.answer.endswith(OURS)
        assert made.story == ("UE" if failed else "U")
    # In the midst of a body, whose length is said, it may stand: an answer may be about HTTP.
    head, _, body = made.answer.partition(b"\r\n\r\n")
    assert not body.lstrip(b"\r\n").startswith(b"HTTP/1."), "two heads"
    if b"HTTP/1." in body and not made.open:
        assert f"\r\ncontent-length: {len(body)}".encode() in head.lower(), "no length"
    return made
