"""broadcast(): one message for many sockets, whatever each of them is amid."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from interceptor import (
    Limits,
    UnsupportedType,
    WebSocketError,
    WebSocketReceive,
)

from .peer import (
    BINARY,
    CONT,
    TEXT,
    Frame,
    Recorder,
)
from .programs import DEFLATE, MIB, frames, make_host, messages, opened, pause
from .test_host_sending import in_thread
from .wire import Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

OFFERS = [
    "",
    DEFLATE,
    DEFLATE.replace("\r\n", "; client_max_window_bits\r\n"),
    DEFLATE.replace("\r\n", "; server_no_context_takeover\r\n"),
    DEFLATE.replace("\r\n", "; server_max_window_bits=9\r\n"),
]


def inflater(extensions: str) -> Callable[[Frame], tuple[int, str]]:
    """What reads the frames of a socket, one after the other, as RFC 7692 section 7.2.2 has it."""
    unpacker = zlib.decompressobj(wbits=-15)

    def read(frame: Frame) -> tuple[int, str]:
        assert frame.rsv == (4 if extensions and frame.opcode != CONT else 0)
        end = b"\x00\x00\xff\xff" if frame.fin else b""
        data = unpacker.decompress(frame.payload + end) if extensions else frame.payload
        return frame.opcode, data.decode()

    return read


class TestBroadcast:
    """broadcast()."""

    async def test_to_those_that_are_open(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (one, first), opened(host, seen) as (two, second):
                assert host.broadcast([first, "0123456789abcde", second], "to all") == 2
                assert host.broadcast(host.sockets, b"\x00") == 2
                assert host.broadcast((id for id in [second]), "to one") == 1
                assert host.broadcast([], "to nobody") == 0
                assert [await one.frame() for _ in range(2)] == [
                    Frame(TEXT, b"to all"),
                    Frame(BINARY, b"\x00"),
                ]
                assert [(await two.frame()).payload for _ in range(3)] == [b"to all", b"\x00", b"to one"]
                host.WebSocketClose(first)
                assert host.broadcast(host.sockets, "again") == 1

    async def test_what_cannot_be_sent(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen), opened(host, seen):
                with pytest.raises(UnsupportedType):
                    host.broadcast(host.sockets, 5)  # type: ignore[arg-type]

    async def test_one_of_them_is_full(self, lines: list[Line]) -> None:
        """It is closed, and so leaves the table, in the middle of it."""
        async with make_host(limits=Limits(write_buffer=MIB)) as host:
            seen = Recorder(host)
            async with opened(host, seen) as (full, id), opened(host, seen) as (other, _):
                pause(full)
                count = 0
                while id in host.sockets:
                    count += 1
                    assert host.broadcast(host.sockets, bytes(MIB // 2)) == 2
                    assert len((await other.frame()).payload) == MIB // 2
                assert host.broadcast(host.sockets, "one left") == 1
                assert (await other.frame()).payload == b"one left"
        assert seen.names(id) == ["WebSocketUpgrade", "WebSocketError", "WebSocketClose"]
        assert count > 1

    async def test_each_compression_reads_what_is_compressed_once(self) -> None:
        """Between messages of its own, which refer to one another where the context is kept."""
        async with make_host() as host:
            seen = Recorder(host)
            texts = [f"{name} says: {'the same words again, ' * 5}" for name in "abcdefgh"]
            async with AsyncExitStack() as stack:
                entered = [
                    await stack.enter_async_context(opened(host, seen, extra=extra)) for extra in OFFERS
                ]
                for text in texts:
                    assert host.broadcast(host.sockets, text.upper()) == len(OFFERS)
                    for _, id in entered:
                        host.WebSocketSend(id, text)
                    assert host.broadcast(host.sockets, text.encode()) == len(OFFERS)
                    for _, id in entered:
                        host.WebSocketSend(id, text[:9], fin=False)
                        host.WebSocketSend(id, text[9:])
                for peer, id in entered:
                    inflate = inflater(host.sockets[id].extensions)
                    for text in texts:
                        assert [inflate(await peer.frame()) for _ in range(5)] == [
                            (TEXT, text.upper()),
                            (TEXT, text),
                            (BINARY, text),
                            (TEXT, text[:9]),
                            (CONT, text[9:]),
                        ]

    async def test_from_another_thread_it_keeps_its_place(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen, extra=DEFLATE) as (one, first), opened(host, seen) as (two, second):

                def send() -> None:
                    for text in messages(100):
                        host.WebSocketSend(first, text)
                        assert host.broadcast([first, second], text) == 2
                        host.WebSocketSend(second, text)

                await asyncio.to_thread(send)
                inflate = inflater(host.sockets[first].extensions)
                for text in messages(100):
                    assert [inflate(await one.frame()) for _ in range(2)] == [(TEXT, text)] * 2
                    assert [await two.frame() for _ in range(2)] == [Frame(TEXT, text.encode())] * 2

    @pytest.mark.parametrize("where", ["loop", "thread"])
    @pytest.mark.parametrize("begun", ["begun ", b"begun "])
    async def test_it_comes_after_a_message_in_pieces(self, where: str, begun: str | bytes) -> None:
        """Nothing may come between the pieces; the other sockets have it at once."""
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (one, first), opened(host, seen, extra=DEFLATE) as (two, second):
                for id in (first, second):
                    host.WebSocketSend(id, begun, fin=False)
                assert await one.frame() == Frame(TEXT if begun == "begun " else BINARY, b"begun ", fin=False)
                async with opened(host, seen) as (other, _):
                    for text in ("to all", "again"):
                        if where == "loop":
                            assert host.broadcast(host.sockets, text) == 3
                        else:
                            assert await asyncio.to_thread(host.broadcast, list(host.sockets), text) == 3
                    assert [(await other.frame()).payload for _ in range(2)] == [b"to all", b"again"]
                for id in (first, second):
                    host.WebSocketSend(id, type(begun)())
                    host.WebSocketSend(id, "next")
                    host.WebSocketSend(id, "begun and next, begun and next")
                assert [await one.frame() for _ in range(4)] == [
                    Frame(CONT, b""),
                    Frame(TEXT, b"to all"),
                    Frame(TEXT, b"again"),
                    Frame(TEXT, b"next"),
                ]
                inflate = inflater(host.sockets[second].extensions)
                texts = [inflate(await two.frame())[1] for _ in range(6)]
                assert texts == ["begun ", "", "to all", "again", "next", "begun and next, begun and next"]

    async def test_what_waits_for_the_last_piece_is_buffered(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                host.WebSocketSend(id, "begun ", fin=False)
                assert await peer.frame() == Frame(TEXT, b"begun ", fin=False)
                socket = host.sockets[id]
                host.broadcast([id], bytes(1000))
                host.broadcast([id], "")
                assert socket.buffered_amount == 4 + 1000 + 2
                host.WebSocketSend(id, "ended")
                assert [len((await peer.frame()).payload) for _ in range(3)] == [5, 1000, 0]
                assert socket.buffered_amount == 0

    @pytest.mark.parametrize("where", ["loop", "thread"])
    @pytest.mark.parametrize("size", [0, 1000])
    async def test_what_waits_for_the_last_piece_is_bounded(
        self, where: str, size: int, lines: list[Line]
    ) -> None:
        """The program may never send it, and broadcast for ever."""
        limit = 64 * (size + 4)
        async with make_host(limits=Limits(write_buffer=limit)) as host:
            seen = Recorder(host)
            async with opened(host, seen) as (_, id), opened(host, seen) as (other, _):
                host.WebSocketSend(id, "begun", fin=False)
                count = 0
                while id in host.sockets:
                    if where == "loop":
                        host.broadcast(host.sockets, bytes(size))
                    else:
                        await asyncio.to_thread(host.broadcast, list(host.sockets), bytes(size))
                    assert len((await other.frame()).payload) == size
                    count += 1
                    assert count * (size + 2) <= limit + size + 4
        [error] = seen.of(WebSocketError, id)
        assert "broadcasts that may not go before the last piece (fin=True)" in error.text
        assert f"over Limits.write_buffer ({limit})" in error.text
        assert count >= 64

    @pytest.mark.usefixtures("lines")
    async def test_what_other_threads_leave_for_a_busy_loop_counts(self) -> None:
        async with make_host(limits=Limits(write_buffer=MIB)) as host:
            seen = Recorder(host)
            async with opened(host, seen) as (_, id):
                in_thread(lambda: [host.broadcast([id], bytes(MIB // 2)) for _ in range(5)])
                await seen.wait_for(WebSocketError)
        assert "other threads sent faster" in seen.of(WebSocketError)[0].text

    async def test_within_a_callback(self) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def chat(event: WebSocketReceive) -> None:
            host.broadcast(host.sockets, event.data)

        seen = Recorder(host)
        async with host, opened(host, seen) as (one, _), opened(host, seen) as (two, _):
            await one.send(frames(messages(3)))
            for peer in (one, two):
                assert [(await peer.frame()).payload.decode() for _ in range(3)] == messages(3)
