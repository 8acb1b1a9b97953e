"""What arrived is delivered, what was taken is sent, and neither fills the memory.

Guarantees 3, 4 and 7 of a socket's life, over real TCP, on asyncio's loop and on uvloop's.

`test_3_...` is a test of the third guarantee; docs/ has their text.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import tracemalloc

import pytest

from interceptor import (
    Host,
    Limits,
    State,
    Timeouts,
    UnknownSocket,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
)

from .peer import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    Recorder,
    close_frame,
    frame,
    until,
)
from .programs import (
    CLOSED,
    DEFLATE,
    ERROR,
    MIB,
    RECEIVE,
    UPGRADE,
    Flood,
    Taker,
    echo,
    everything,
    frames,
    make_host,
    messages,
    narrow,
    opened,
    pack,
    pause,
    resume,
)
from .wire import BOTH_LOOPS
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

# --- 3: every complete message that arrived before the end is delivered -------------------------------------


WAYS_TO_TAKE = ["plain", "slow", "route", "both", "stream"]
LAST_WORDS = {
    "close": (close_frame(3000), None, 3000),
    "bad opcode": (frame(3), None, 1002),
    "unmasked": (frame(TEXT, "x", mask=None), None, 1002),
    "bad text": (frame(TEXT, b"\xff"), None, 1007),
    "too big": (frame(BINARY, bytes(5000)), None, 1009),
    "FIN": (b"", Peer.half_close, None),
    "RST": (b"", Peer.reset, None),
    "FIN in a frame": (frame(TEXT, "cut")[:-1], Peer.half_close, None),
}


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
@pytest.mark.parametrize("way", WAYS_TO_TAKE)
@pytest.mark.parametrize("last", LAST_WORDS)
@pytest.mark.usefixtures("lines")
async def test_3_messages_before_the_end_are_delivered(last: str, way: str, paused: bool) -> None:
    data, then, code = LAST_WORDS[last]
    sent = messages(100, 400)  # With permessage-deflate that is more than is unpacked at once.
    host = make_host(limits=Limits(message=4096, read_buffer=1 if paused else MIB))
    taker = Taker(host)
    taker.begin(way)
    async with host, Peer.open(host, extra=DEFLATE) as peer:
        await peer.send(frames(sent[:10]))
        await taker.has_begun()
        await peer.send(frames(sent[10:]) + data)
        if then is not None:
            then(peer)
        if not paused:
            await until(lambda: all(s.state is State.CLOSED for s in host.sockets.values()))
        taker.gate.set()
        await taker.is_over()
        if code is not None:
            assert await peer.close_code() == code
        await until(lambda: len(taker.taken) >= len(sent))  # A route may go on after the end.
    assert taker.taken == sent
    assert taker.ends == 1


@pytest.mark.usefixtures("lines")
async def test_3_messages_that_wait_are_delivered_when_the_host_drops_the_socket() -> None:
    host = make_host(limits=Limits(read_buffer=1, write_buffer=1))
    taker = Taker(host)
    taker.begin("slow")
    sent = messages(60, 400)  # In one packet, so that the host has read it all, though not handled it.
    async with host, Peer.open(host, extra=DEFLATE) as peer:
        pause(peer)
        await peer.send(frames(sent))
        await taker.has_begun()
        ((id, session),) = host.sockets.items()
        while session.state is State.OPEN:
            host.WebSocketSend(id, os.urandom(MIB))
        taker.gate.set()
        await taker.is_over()
    assert session.close_code == 1006
    assert taker.taken == sent
    assert taker.ends == 1


@pytest.mark.usefixtures("lines")
async def test_3_a_slow_program_is_not_the_peers_fault() -> None:
    """The peer answers the close in time, but its answer waits behind messages that nobody takes."""
    host = make_host(limits=Limits(read_buffer=1), timeouts=Timeouts(close=0.25))
    seen = Recorder(host)
    taker = Taker(host)
    taker.begin("slow")
    async with host, opened(host, seen) as (peer, id):
        await peer.send(frames(messages(10)))
        await taker.has_begun()
        host.WebSocketClose(id, 3000)
        assert await peer.close_code() == 3000
        await peer.send(frame(TEXT, "last") + close_frame(3000))
        await asyncio.sleep(0.4)  # Longer than the peer would have.
        assert not seen.of(WebSocketClose)
        taker.gate.set()
        closed = await seen.wait_for(WebSocketClose)
    assert (closed.code, closed.was_clean) == (3000, True)
    assert taker.taken == [*messages(10), "last"]
    assert not seen.of(WebSocketError)


# --- 4: what WebSocketSend took before WebSocketClose is sent before the close frame ------------------------


@pytest.mark.parametrize("size", [0, 100, 100_000, MIB])
async def test_4_sends_go_before_the_close_frame(size: int) -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host, seen) as (peer, id):
            sent = [index.to_bytes(4, "big") + bytes(size) for index in range(12)]
            for data in sent:
                host.WebSocketSend(id, data)
            host.WebSocketClose(id, 3000)
            got = await everything(peer)
    assert [item.payload for item in got[:-1]] == sent
    assert got[-1] == Frame(CLOSE, b"\x0b\xb8")


async def test_4_a_slow_reader_gets_all_before_the_close_frame() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host, seen) as (peer, id):
            pause(peer)
            sent = [index.to_bytes(4, "big") + bytes(MIB) for index in range(12)]
            for data in sent:
                host.WebSocketSend(id, data)
            host.WebSocketClose(id, 3000)
            assert host.sockets[id].buffered_amount > 6 * MIB, "nothing was full"
            resume(peer)
            got = await everything(peer)
            await seen.wait_for(WebSocketClose)
    assert [item.payload for item in got[:-1]] == sent
    assert got[-1].opcode == CLOSE
    assert seen.names() == [UPGRADE, CLOSED]


async def test_4_in_one_callback_among_other_messages_of_the_same_read() -> None:
    async with make_host() as host:
        seen = Recorder(host)

        @host.on(RECEIVE)
        def answer(event: WebSocketReceive) -> None:
            host.WebSocketSend(event.id, event.data)
            if event.data == "3":
                host.WebSocketClose(event.id)
                with pytest.raises(UnknownSocket):
                    host.WebSocketSend(event.id, "too late")
                host.off(RECEIVE, answer)

        async with opened(host, seen) as (peer, _):
            await peer.send(frames(messages(4, 1)) + frame(PING, "?") + frames(messages(2, 1)))
            got = [await peer.frame() for _ in range(6)]
            await peer.send(close_frame())
            assert await peer.rest() == b""
    assert [item.payload for item in got[:4]] == [b"0", b"1", b"2", b"3"]
    assert [item.opcode for item in got[4:]] == [CLOSE, PONG]  # RFC 6455 section 5.5.2 asks for the pong.


@pytest.mark.parametrize("closer", ["thread", "loop"])
async def test_4_sends_of_a_thread_go_before_the_close_frame(closer: str) -> None:
    async with make_host() as host:
        seen = Recorder(host)

        def send(id: str) -> None:
            for text in messages(100):
                assert host.WebSocketSend(id, text) == 0
            if closer == "thread":
                host.WebSocketClose(id)

        async with opened(host, seen) as (peer, id):
            thread = threading.Thread(target=send, args=(id,))
            thread.start()
            thread.join()
            if closer == "loop":
                host.WebSocketClose(id)
            got = await everything(peer)
    assert [item.payload.decode() for item in got[:-1]] == messages(100)


# --- 7: memory is bounded both ways -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["slow", "route", "both", "stream"])
async def test_7_undelivered_data_stops_the_reading_of_that_socket_only(way: str) -> None:
    sent = messages(300, 16 * 1024)
    host = Host([("*", 1)], limits=Limits(read_buffer=MIB // 4))
    host.route("*/echo")(echo)
    taker = Taker(host, "*/flood")
    taker.begin(way)
    async with host:
        narrow(host)
        async with Peer.open(host, "/flood") as peer, Peer.open(host, "/echo") as other:
            flood = Flood(peer, [frame(TEXT, text) for text in sent] + [close_frame()])
            await flood.stalled(other)
            assert flood.sent < 2 * MIB
            taker.gate.set()
            await taker.is_over()
            await until(lambda: len(taker.taken) >= len(sent))
            await flood.task
    assert taker.taken == sent


@pytest.mark.parametrize("kind", ["empty messages", "empty chunks", "bombs"])
async def test_7_nothing_small_gets_around_the_mark(kind: str) -> None:
    """What comes small over the wire may be big here: its event, or what it is when unpacked."""
    piece, count, extra = {
        "empty messages": (frame(TEXT) * 1000, 500, ""),
        "empty chunks": (frame(TEXT, fin=False) + frame(CONT, fin=False) * 998 + frame(CONT), 500, ""),
        "bombs": (pack(b"a" * (MIB // 2)), 20_000, DEFLATE),
    }[kind]
    host = Host([("*", 1)], chunks=kind == "empty chunks", limits=Limits(read_buffer=MIB // 4))
    host.route("*/echo")(echo)
    taker = Taker(host)
    taker.begin("slow")
    async with host:
        if kind != "bombs":  # Of these a read is to hold many.
            narrow(host)
        async with Peer.open(host, extra=extra) as peer, Peer.open(host, "/echo") as other:
            tracemalloc.start()
            try:
                flood = Flood(peer, [piece] * count)
                await flood.stalled(other)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 32 * MIB
            flood.task.cancel()
            peer.reset()
            taker.gate.set()
            await taker.is_over()
    assert taker.taken


@pytest.mark.usefixtures("lines")
async def test_7_unsent_data_above_the_mark_closes_that_socket_only() -> None:
    async with make_host(limits=Limits(write_buffer=MIB)) as host:
        narrow(host)
        seen = Recorder(host)
        async with opened(host, seen) as (full, id), opened(host, seen) as (other, other_id):
            pause(full)
            for sent in itertools.count(1):
                host.WebSocketSend(id, bytes(64 * 1024))
                await other.send(frame(PING, "?"))
                assert await other.frame() == Frame(PONG, b"?")
                host.WebSocketSend(other_id, "still here")
                assert (await other.frame()).payload == b"still here"
                if seen.of(WebSocketClose):
                    break
                assert host.sockets[id].buffered_amount <= MIB
                assert sent < 1000, "nothing was ever full"
            await other.send(close_frame())
            assert await other.close_code() == 1000
        closed = seen.of(WebSocketClose)[0]
        assert seen.names(id) == [UPGRADE, ERROR, CLOSED]
        assert (closed.id, closed.code, closed.was_clean) == (id, 1006, False)
        assert "Limits.write_buffer" in seen.of(WebSocketError)[0].text


async def test_7_a_peer_that_takes_no_answers_is_not_read_either() -> None:
    """An echo stays far below the mark at which a socket is closed."""
    async with make_host(limits=Limits(read_buffer=MIB // 4, write_buffer=4 * MIB)) as host:
        narrow(host)
        seen = Recorder(host)
        host.on(RECEIVE)(lambda event: host.WebSocketSend(event.id, event.data))
        sent = messages(500, 32 * 1024)
        async with opened(host, seen) as (peer, id), opened(host, seen) as (other, _):
            pause(peer)
            flood = Flood(peer, [frame(TEXT, text) for text in sent])
            await flood.stalled(other)
            assert host.sockets[id].buffered_amount < 2 * MIB
            resume(peer)
            assert [(await peer.frame()).payload.decode() for _ in sent] == sent
            await flood.task
    assert seen.names(id)[:2] == [UPGRADE, RECEIVE]


async def test_7_pings_are_answered_while_a_handler_is_stuck() -> None:
    host = make_host()
    taker = Taker(host)
    taker.begin("slow")
    async with host, Peer.open(host) as peer:
        await peer.send(frames(messages(10)))
        await taker.has_begun()
        await peer.send(frame(PING, "?"))
        assert await peer.frame() == Frame(PONG, b"?")
        assert taker.taken == []
        taker.gate.set()
