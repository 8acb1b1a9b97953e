"""What hostile peers can do to a host over TCP: each attack ends with the right code and harms nobody else.

docs/reliability.md has the table. The frames that RFC 6455 forbids are in `illegal.py`.
"""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple, TypeVar

import pytest

from interceptor import Event, Host, Limits, Timeouts, WebSocketClose, WebSocketError, WebSocketReceive

from .illegal import CLIENT, ILLEGAL, LIMIT, Illegal
from .peer import BINARY, CLOSE, CONT, PATIENCE, PING, PONG, TEXT, Frame, Peer, Recorder, close_frame, frame
from .programs import CLOSED, DEFLATE, ERROR, MIB, RECEIVE, UPGRADE, Flood, ask, echo, narrow, opened, pause
from .test_relay import allow_files
from .wire import ANYONE, BOTH_LOOPS
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("lines")]

WITNESS = "witness"
E = TypeVar("E", bound=Event)


class Scene(NamedTuple):
    """A host under attack, its events, and a good socket that was open before."""

    host: Host
    seen: Recorder
    witness: Peer

    async def goes_on(self) -> None:
        """Check that the good socket is served."""
        await self.witness.send(frame(TEXT, WITNESS))
        assert (await self.witness.frame()).payload.decode() == WITNESS

    async def takes_another(self) -> None:
        """Check that a new socket is served too."""
        async with Peer.open(self.host, f"/{WITNESS}") as newcomer:
            await Scene(self.host, self.seen, newcomer).goes_on()
            await newcomer.send(close_frame(1000))
            assert await newcomer.close_code() == 1000

    async def first(self, kind: type[E], id: str) -> E:
        """Wait for the first event of a class that a socket has."""
        await self.seen.wait(lambda: self.seen.of(kind, id))
        return self.seen.of(kind, id)[0]


@asynccontextmanager
async def attacked(
    limits: Limits | None = None, timeouts: Timeouts | None = None, *, chunks: bool = False
) -> AsyncIterator[Scene]:
    """A host that is unharmed at the end: the good socket is served, and a new one too."""
    host = Host(
        [("*", 1)],
        security=ANYONE,
        limits=limits or Limits(),
        timeouts=timeouts or Timeouts(),
        chunks=chunks,
    )
    host.route(f"*/{WITNESS}")(echo)
    async with host, Peer.open(host, f"/{WITNESS}") as witness:
        scene = Scene(host, Recorder(host), witness)
        await scene.goes_on()
        yield scene
        await scene.goes_on()
        await scene.takes_another()
        await witness.send(close_frame(1000))
        assert await witness.close_code() == 1000


# Frames


async def break_off(scene: Scene, target: str, illegal: Illegal, extra: str) -> str:
    """Send what is illegal between two good messages; what came of it, empty if it is all that is due."""
    async with Peer.open(scene.host, target, extra=extra) as peer:
        await peer.send(CLIENT(TEXT, b"good") + illegal.write(CLIENT) + CLIENT(TEXT, b"late"))
        code, after = await peer.close_code(), await peer.rest()
    url = f"ws://dyalog_root{target}"
    await scene.seen.wait(lambda: any(event.url == url for event in scene.seen.of(WebSocketError)))
    (error,) = (event for event in scene.seen.of(WebSocketError) if event.url == url)
    closed = await scene.first(WebSocketClose, error.id)
    names, received = scene.seen.names(error.id), scene.seen.of(WebSocketReceive, error.id)
    wanted = [UPGRADE, *[RECEIVE] * len(received), ERROR, CLOSED]
    right = (
        (code, after, names) == (illegal.code, b"", wanted)
        and [event.data for event in received if event.fin] == ["good"]
        and (closed.code, closed.was_clean, closed.initiator) == (1006, False, "fault")
        and f"closed with {illegal.code}" in error.text
    )
    return "" if right else f"{code} {after!r} {names} {received} {closed!r} {error.text}"


@pytest.mark.parametrize("chunks", [False, True], ids=["", "chunks"])
@pytest.mark.parametrize("extra", ["", DEFLATE], ids=["", "deflate"])
async def test_illegal_frames(extra: str, chunks: bool) -> None:
    """With permessage-deflate one of the reserved bits has a meaning for data, and is left out."""
    cases = [
        (number, name)
        for number, name in enumerate(ILLEGAL)
        if not (extra and name in ("reserved bits 100 of a text", "reserved bits 100 of a binary"))
    ]
    async with attacked(Limits(message=LIMIT), chunks=chunks) as scene:
        found = {name: await break_off(scene, f"/{number}", ILLEGAL[name], extra) for number, name in cases}
        assert not scene.seen.of(WebSocketClose)[len(cases) :]
        assert {name: what for name, what in found.items() if what} == {}
    assert len(cases) >= 158


@pytest.mark.parametrize("size", [2, 8])
async def test_a_length_in_more_bytes_than_it_needs_is_read_as_it_stands(size: int) -> None:
    """Section 5.2 wants the fewest; it is no way to get around anything, so nobody is cut off for it."""
    async with attacked() as scene, opened(scene.host, scene.seen) as (peer, id):
        masked = frame(TEXT, "hello")[6:]
        await peer.send(CLIENT.head(TEXT, 5, size) + masked + close_frame(1000))
        assert await peer.close_code() == 1000
        await scene.first(WebSocketClose, id)
        assert scene.seen.names(id) == [UPGRADE, RECEIVE, CLOSED]
        assert scene.seen.of(WebSocketReceive, id)[0].data == "hello"


# Many small frames


async def test_a_mebibyte_in_fragments_of_a_byte_is_delivered_whole() -> None:
    asyncio.get_running_loop().set_debug(False)
    async with attacked() as scene, opened(scene.host, scene.seen) as (peer, id):
        await peer.send(frame(TEXT, "a", fin=False))
        for _ in range(15):
            await peer.send(frame(CONT, b"b", fin=False) * 65536)
            await scene.goes_on()
        await peer.send(frame(CONT, b"b", fin=False) * 65534 + frame(CONT, b"c"))
        received = await scene.first(WebSocketReceive, id)
        assert received.data == "a" + "b" * (MIB - 2) + "c"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_100_000_empty_fragments(opcode: int) -> None:
    asyncio.get_running_loop().set_debug(False)
    async with attacked() as scene, opened(scene.host, scene.seen) as (peer, id):
        await peer.send(frame(opcode, fin=False) + frame(CONT, fin=False) * 50_000)
        await scene.goes_on()
        await peer.send(frame(CONT, fin=False) * 50_000 + frame(CONT, b"end"))
        received = await scene.first(WebSocketReceive, id)
        assert received.data == ("end" if opcode == TEXT else b"end")


async def test_a_flood_of_pings_is_answered() -> None:
    asyncio.get_running_loop().set_debug(False)
    async with attacked() as scene, opened(scene.host, scene.seen) as (peer, id):
        count = 20_000
        pings = [number.to_bytes(125, "big") for number in range(count)]
        sending = asyncio.ensure_future(peer.send(b"".join(frame(PING, ping) for ping in pings)))
        await scene.goes_on()
        assert [await peer.frame() for _ in range(count)] == [Frame(PONG, ping) for ping in pings]
        await sending
        await peer.send(frame(PONG, b"nobody asked") * count + frame(TEXT, "over"))
        assert (await scene.first(WebSocketReceive, id)).data == "over"


async def test_a_flood_of_pings_whose_pongs_nobody_reads_is_not_read_either() -> None:
    asyncio.get_running_loop().set_debug(False)
    async with attacked(Limits(read_buffer=MIB // 4, write_buffer=4 * MIB)) as scene:
        narrow(scene.host)
        async with opened(scene.host, scene.seen) as (peer, id):
            pause(peer)
            tracemalloc.start()
            try:
                flood = Flood(peer, [frame(PING, bytes(125)) * 1000] * 1000)
                await flood.stalled(scene.witness)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 16 * MIB
            assert scene.host.sockets[id].buffered_amount < 2 * MIB
            flood.task.cancel()
            peer.reset()
            await scene.first(WebSocketClose, id)
        assert scene.seen.names(id) == [UPGRADE, ERROR, CLOSED]


# Much out of little


def bomb(size: int) -> bytes:
    """Deflate data of so many MiB of zeros, made of one MiB that is said again and again."""
    packer = zlib.compressobj(wbits=-12)
    once = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return (once * size).removesuffix(b"\0\0\xff\xff")


@pytest.mark.parametrize("pieces", [1, 64], ids=["a frame", "fragments"])
async def test_a_compression_bomb(pieces: int) -> None:
    """1 GiB out of 1 MiB: no more of it is unpacked than a message may have."""
    data = bomb(1024)
    assert len(data) < 1.1 * MIB
    size = -(-len(data) // pieces)
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    frames = [
        frame(CONT if index else BINARY, part, fin=index == len(parts) - 1, rsv=0 if index else 4)
        for index, part in enumerate(parts)
    ]
    async with attacked() as scene, opened(scene.host, scene.seen, extra=DEFLATE) as (peer, id):
        tracemalloc.start()
        try:
            sending = asyncio.ensure_future(peer.send(b"".join(frames)))
            assert await peer.close_code() == 1009
            await scene.first(WebSocketClose, id)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * 16 * MIB  # Limits.message is 16 MiB.
        assert scene.seen.names(id) == [UPGRADE, ERROR, CLOSED]
        peer.reset()
        await asyncio.wait([sending], timeout=PATIENCE)
        assert sending.done()
        sending.exception()


REFUSED = {
    # what is sent of 12 MiB or more, and whether it is packed
    "a bomb": (frame(BINARY, bomb(64), rsv=4), True),
    "a bomb in fragments": (
        frame(BINARY, bomb(8), rsv=4, fin=False) + frame(CONT, bomb(64), fin=False),
        True,
    ),
    "text": (frame(TEXT, b"a" * 12 * MIB + b"\xff"), False),
    "text in fragments": (frame(TEXT, b"a" * 12 * MIB, fin=False) + frame(CONT, b"\xff", fin=False), False),
    "a fault amid a message": (frame(BINARY, bytes(12 * MIB), fin=False) + frame(TEXT, "late"), False),
    "a close amid a message": (frame(BINARY, bytes(12 * MIB), fin=False) + close_frame(1000), False),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_nothing_is_kept_of_what_was_refused(name: str) -> None:
    """The peer may take all of `Timeouts.close` to leave, and counts in `Limits.sockets` no more."""
    data, packed = REFUSED[name]
    async with (
        attacked() as scene,
        opened(scene.host, scene.seen, extra=DEFLATE if packed else "") as (peer, id),
    ):
        tracemalloc.start()
        try:
            await peer.send(data)
            assert (await peer.frame()).opcode == CLOSE
            await scene.first(WebSocketClose, id)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak > 8 * MIB
        assert kept < MIB


# Heads


async def test_1000_heads_that_never_end() -> None:
    """There is room for a thousand connections besides the good ones; all of it is free again afterwards."""
    allow_files(2500)
    asyncio.get_running_loop().set_debug(False)
    async with attacked(Limits(sockets=1000, pending=10), Timeouts(head=2)) as scene:
        for _ in range(2):
            async with AsyncExitStack() as stack:
                peers = [await stack.enter_async_context(Peer.connect(scene.host)) for _ in range(1000)]
                for peer in peers:
                    await peer.send(ask(scene.host, "/")[:-2])
                await scene.goes_on()
                await scene.takes_another()
                answers = await asyncio.gather(*(peer.answer() for peer in peers))
                assert {answer.status for answer in answers} == {408}
                assert set(await asyncio.gather(*(peer.rest() for peer in peers))) == {b""}
                await scene.goes_on()
        assert not scene.seen.of(WebSocketError)


HEADS = {
    # what is sent, and the answer's status
    "a request line of 1 MiB": (b"GET /" + b"x" * MIB, 414),
    "a request line of 1 MiB that ends": (b"GET /" + b"x" * MIB + b" HTTP/1.1\r\n\r\n", 414),
    "a field of 1 MiB": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MIB, 431),
    "a field name of 1 MiB": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x" * MIB, 431),
    "100,000 fields": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000, 431),
    "101 fields": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
    "empty lines": (b"\r\n" * 100_000, 400),
    "lone line feeds": (b"G" + b"\n" * 100_000, 400),
    "spaces": (b"GET" + b" " * 100_000, 414),
    "NULs": (b"GET /" + bytes(100_000), 414),
    "frames": (b"G" + frame(BINARY, bytes(100_000)), 414),
    "a body that never comes": (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nContent-Length: 99999999999\r\n\r\n",
        405,
    ),
}


@pytest.mark.parametrize("name", HEADS)
async def test_heads_that_are_too_much(name: str) -> None:
    data, status = HEADS[name]
    async with attacked() as scene:
        async with Peer.connect(scene.host) as peer:
            sending = asyncio.ensure_future(peer.send(data))
            answer = await peer.answer()
            assert (answer.status, await peer.rest()) == (status, b"")
            await sending
        assert not scene.seen.of(WebSocketClose)
