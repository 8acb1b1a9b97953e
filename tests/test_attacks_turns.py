"""Attacks on the host's own reading of frames and on the turns of its loop, over TCP.

The smallest pieces, floods while the program holds a socket, and what a program's threads can do meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from interceptor import (
    InvalidState,
    Limits,
    Timeouts,
    UnknownSocket,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.frames import Frames

from .peer import BINARY, CONT, PATIENCE, PING, PONG, TEXT, Frame, Peer, Recorder, close_frame, frame, until
from .programs import (
    CLOSED,
    DEFLATE,
    ERROR,
    MIB,
    RECEIVE,
    UPGRADE,
    Flood,
    ask,
    make_host,
    messages,
    narrow,
    opened,
    pack,
    pause,
)
from .test_attacks import attacked
from .wire import BOTH_LOOPS
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("lines")]


# The smallest pieces


async def send_in(peer: Peer, data: bytes, size: int) -> None:
    """Send in segments, each of which the host reads by itself as far as the system lets us."""
    peer.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(data), size):
        peer.writer.write(data[start : start + size])
        await asyncio.sleep(0)
    await peer.writer.drain()


def work_of(size: int, step: int) -> int:
    """How many lines of Python the reader of frames runs for a message of this size in pieces."""
    got: list[object] = []
    frames = Frames(
        [],
        size,
        chunks=False,
        client=False,
        deliver=lambda data, fin, kind: got.append(data),
        pong=got.append,
    )
    data, count = frame(BINARY, bytes(size)), 0

    def trace(frame: object, event: str, arg: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        for start in range(0, len(data), step):
            frames.receive(data[start : start + step])
    finally:
        sys.settrace(None)
    assert got == [bytes(size)]
    return count


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_the_work_for_tiny_pieces_is_linear(step: int) -> None:
    once, twice = work_of(20_000, step), work_of(40_000, step)
    assert twice < 2.01 * once


@pytest.mark.parametrize("extra", ["", DEFLATE], ids=["", "deflate"])
@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_message_in_tiny_segments(step: int, extra: str) -> None:
    asyncio.get_running_loop().set_debug(False)
    data = bytes(range(256)) * 128
    async with attacked() as scene, opened(scene.host, scene.seen, extra=extra) as (peer, id):
        sending = asyncio.ensure_future(send_in(peer, frame(BINARY, data), step))
        while not sending.done():
            await scene.goes_on()
        assert (await scene.first(WebSocketReceive, id)).data == data


# Held


STREAM = (
    frame(TEXT, "one")
    + frame(PING, "?")
    + frame(BINARY, bytes(200))
    + frame(TEXT, "tw", fin=False)
    + frame(PING, "!")
    + frame(CONT, "o")
    + pack(b"three")
    + close_frame(3000, "enough")
    + frame(TEXT, "late")
)
HEARD = ["one", bytes(200), "two", "three"]


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
async def test_a_socket_that_is_held_at_each_message(step: int) -> None:
    """A handler that waits holds it; what is behind, cut anywhere, comes in order, and the end behind it."""
    host = make_host(limits=Limits(read_buffer=1))
    taken: list[str | bytes] = []

    @host.on(RECEIVE)
    async def take(event: WebSocketReceive) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        taken.append(event.data)

    seen = Recorder(host)
    async with host, opened(host, seen, extra=DEFLATE) as (peer, _):
        await send_in(peer, STREAM, step)
        assert [await peer.frame(), await peer.frame()] == [Frame(PONG, b"?"), Frame(PONG, b"!")]
        assert await peer.close_code() == 3000
        closed = await seen.wait_for(WebSocketClose)
        assert (closed.code, closed.reason, closed.was_clean) == (3000, "enough", True)
        assert taken == HEARD
        assert seen.names() == [UPGRADE, *[RECEIVE] * 4, CLOSED]


async def test_every_place_to_cut_the_stream() -> None:
    """In two packets; at each byte."""
    asyncio.get_running_loop().set_debug(False)
    host = make_host(limits=Limits(read_buffer=1))
    seen = Recorder(host)

    @host.on(RECEIVE)
    async def hold(event: WebSocketReceive) -> None:
        await asyncio.sleep(0)

    async with host:
        for place in range(1, len(STREAM) - len(frame(TEXT, "late"))):
            async with opened(host, seen, extra=DEFLATE) as (peer, id):
                await send_in(peer, STREAM[:place], place)
                await send_in(peer, STREAM[place:], len(STREAM))
                assert await peer.close_code() == 3000
                await seen.wait(lambda id=id: seen.of(WebSocketClose, id))  # type: ignore[misc]
                assert [event.data for event in seen.of(WebSocketReceive, id)] == HEARD, place


@pytest.mark.parametrize("by", ["stalling", "resetting"])
async def test_pings_to_a_socket_that_is_held(by: str) -> None:
    """They wait with all the rest, unread: none is answered before its turn, and memory is bounded."""
    asyncio.get_running_loop().set_debug(False)
    gate = asyncio.Event()
    async with attacked(Limits(read_buffer=1)) as scene:

        @scene.host.on(RECEIVE)
        async def wait(event: WebSocketReceive) -> None:
            if event.data in ("1", "2"):
                await gate.wait()

        narrow(scene.host)
        async with opened(scene.host, scene.seen) as (peer, id):
            await peer.send(frame(TEXT, "1") + frame(TEXT, "2") + frame(TEXT, "3"))
            await scene.seen.wait(lambda: scene.seen.of(WebSocketReceive, id))
            first = asyncio.ensure_future(peer.frame())
            tracemalloc.start()
            try:
                flood = Flood(peer, [frame(PING, "x") * 1000] * 300)
                await flood.stalled(scene.witness)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 2 * MIB
            assert not first.done()
            if by == "resetting":
                peer.reset()
                await asyncio.wait([flood.task, first])
                assert isinstance(first.exception(), OSError | EOFError)
                flood.task.exception()
                gate.set()
                await scene.first(WebSocketClose, id)
                assert scene.seen.names(id)[-2:] == [ERROR, CLOSED]
                return
            gate.set()
            pongs = {await first} | {await peer.frame() for _ in range(300_000 - 1)}
            assert pongs == {Frame(PONG, b"x")}
            await flood.task


# After the end


@pytest.mark.parametrize("by_host", [False, True], ids=["the peer's", "the host's"])
async def test_a_flood_behind_the_close_frame(by_host: bool) -> None:
    asyncio.get_running_loop().set_debug(False)
    late = frame(TEXT, "late") * 20_000 + frame(PING) * 1000 + frame(3) + b"\xff" * 1000
    async with attacked() as scene, opened(scene.host, scene.seen) as (peer, id):
        if by_host:
            scene.host.WebSocketClose(id, 3001)
            assert await peer.close_code() == 3001
        await peer.send(frame(TEXT, "last") + close_frame(3000) + late)
        if not by_host:
            assert await peer.close_code() == 3000
        assert await peer.rest() == b""
        await peer.send(late)
        closed = await scene.first(WebSocketClose, id)
        peer.half_close()
        assert scene.seen.names(id) == [UPGRADE, RECEIVE, CLOSED]
        assert (closed.code, closed.was_clean) == (3000, True)


@pytest.mark.parametrize("place", [1, 500, 999])
async def test_a_close_by_a_callback_amid_a_burst(place: int) -> None:
    """What had arrived is told to the end, also what the core reads once the socket is closing."""
    texts = messages(1000)
    host = make_host()
    seen = Recorder(host)

    @host.on(RECEIVE)
    def close(event: WebSocketReceive) -> None:
        if event.data == texts[place]:
            host.WebSocketSend(event.id, "last")
            host.WebSocketClose(event.id, 3000)
            with pytest.raises(UnknownSocket):
                host.WebSocketSend(event.id, "too late")

    async with host, opened(host, seen) as (peer, _):
        burst = b"".join(frame(TEXT, text) for text in texts)
        await peer.send(burst + frame(TEXT, "a", fin=False) + frame(CONT, "b") + close_frame(3000))
        assert await peer.frame() == Frame(TEXT, b"last")
        assert await peer.close_code() == 3000
        closed = await seen.wait_for(WebSocketClose)
        assert [event.data for event in seen.of(WebSocketReceive)] == [*texts, "ab"]
        assert seen.names() == [UPGRADE, *[RECEIVE] * 1001, CLOSED]
        assert (closed.initiator, closed.was_clean) == ("host", True)


# Reads that grow and shrink


async def test_reads_that_grow_and_shrink_while_the_socket_is_held() -> None:
    """Large and small messages in turn, from a socket that is paused and resumed all the time."""
    asyncio.get_running_loop().set_debug(False)
    host = make_host(limits=Limits(read_buffer=1000))
    seen = Recorder(host)

    @host.on(RECEIVE)
    async def hold(event: WebSocketReceive) -> None:
        await asyncio.sleep(0)

    sizes = [0, 10, 300_000, 1, 70_000, 16_384, 5, 140_000, 127 * 1024, 256 * 1024] * 3
    async with host, opened(host, seen) as (peer, id):
        for size in sizes:
            await peer.send(frame(BINARY, bytes(size)))
        await peer.send(close_frame())
        assert await peer.close_code() == 1000
        await seen.wait_for(WebSocketClose)
        assert [len(event.data) for event in seen.of(WebSocketReceive, id)] == sizes


# What the program sends


async def test_small_messages_that_nobody_reads_take_what_they_count_for() -> None:
    """Each by itself would take five times its size."""
    asyncio.get_running_loop().set_debug(False)
    host = make_host(limits=Limits(write_buffer=2 * MIB))
    seen = Recorder(host)
    async with host:
        narrow(host)
        async with opened(host, seen) as (peer, id):
            pause(peer)
            tracemalloc.start()
            try:
                for number in itertools.count():
                    host.WebSocketSend(id, number.to_bytes(8, "big"))
                    if host.sockets[id].buffered_amount > MIB * 15 // 8:
                        break
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert held < 3 * MIB
            resumed = asyncio.ensure_future(peer.reader.readexactly(10 * (number + 1)))
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            came = await asyncio.wait_for(resumed, PATIENCE)
            assert came == b"".join(frame(BINARY, n.to_bytes(8, "big"), mask=None) for n in range(number + 1))


@pytest.mark.parametrize("size", [100, 10_000])
async def test_broadcasts_behind_a_message_that_never_ends(size: int) -> None:
    """They wait for its last piece, but not without limit."""
    asyncio.get_running_loop().set_debug(False)
    async with attacked(Limits(write_buffer=MIB)) as scene, opened(scene.host, scene.seen) as (_, id):
        scene.host.WebSocketSend(id, "begun", fin=False)
        most, count = MIB // len(frame(BINARY, bytes(size), mask=None)), 0
        while id in scene.host.sockets and count <= most + 1:
            scene.host.broadcast([id], bytes(size))
            count += 1
        assert count == most + 1
        assert "Limits.write_buffer" in (await scene.first(WebSocketError, id)).text
        await scene.first(WebSocketClose, id)
        assert scene.seen.names(id) == [UPGRADE, ERROR, CLOSED]


async def test_sockets_that_are_full_one_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    """The program tells all of the end of one, and so fills the next: hundreds of times."""
    asyncio.get_running_loop().set_debug(False)
    count, host = 300, make_host(limits=Limits(write_buffer=MIB // 2))
    seen = Recorder(host)

    @host.on("WebSocketClose")
    def tell_all(event: WebSocketClose) -> None:
        host.broadcast(host.sockets, bytes(MIB // 16))

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host)
        narrow(host)
        for _ in range(count):
            peer, _ = await stack.enter_async_context(opened(host, seen))
            pause(peer)
        while not seen.of(WebSocketClose):
            host.broadcast(host.sockets, bytes(MIB // 16))
        await seen.wait_for(WebSocketClose, count)
        await until(lambda: not host.sockets)
        ids = [event.id for event in seen.of(WebSocketClose)]
    assert len(set(ids)) == len(ids) == count
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# The program's threads


def in_a_thread(function: Callable[[], object]) -> None:
    """Run a function in a thread while the loop stands still."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("answers", ["right", "wrong"])
async def test_hundreds_of_answers_of_a_thread_at_once(answers: str) -> None:
    """Each of them has the host tell the program something, who calls the host: one after the other."""
    count = 300
    host = make_host()
    seen = Recorder(host)

    @host.on(RECEIVE)
    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    @host.on(ERROR)
    def tell(event: WebSocketError) -> None:
        host.broadcast(host.sockets, event.id)

    async with host, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer.connect(host)) for _ in range(count)]
        for peer in peers:
            await peer.send(ask(host, "/manual") + frame(TEXT, "early") + frame(TEXT, "again"))
        await seen.wait_for(WebSocketUpgrade, count)
        # What came early is read by now: it is behind the head in the same packet.
        upgrades = seen.of(WebSocketUpgrade)
        right = answers == "right"
        in_a_thread(lambda: [host.answer(e.id, e.accept() if right else e.message()) for e in upgrades])
        for peer in peers:
            assert (await peer.answer()).status == (101 if right else 500)
            if right:
                assert [(await peer.frame()).payload for _ in range(2)] == [b"early", b"again"]
    names = [UPGRADE, *[RECEIVE] * 2] if right else [UPGRADE, ERROR]
    assert all(seen.names(e.id)[: len(names)] == names for e in upgrades)


async def test_who_answers_within_a_call_of_a_thread_may_use_the_socket_at_once() -> None:
    """The callback runs within the first call of the thread, while the second one waits."""
    host = make_host()
    seen = Recorder(host)
    other: list[WebSocketUpgrade] = []

    @host.on(RECEIVE)
    def answer(event: WebSocketReceive) -> None:
        host.answer(other[0].id, other[0].accept())
        host.WebSocketSend(other[0].id, "at once")
        host.WebSocketSend(event.id, "second")

    async with host, Peer.connect(host) as first, Peer.connect(host) as second:
        await first.send(ask(host, "/manual") + frame(TEXT, "early"))
        one = await seen.wait_for(WebSocketUpgrade)
        await second.send(ask(host, "/manual"))
        other.append(await seen.wait_for(WebSocketUpgrade, 2))

        def work() -> None:
            host.answer(one.id, one.accept())
            host.WebSocketSend(one.id, "first")

        in_a_thread(work)
        assert (await first.answer()).status == (await second.answer()).status == 101
        assert [(await first.frame()).payload for _ in range(2)] == [b"first", b"second"]
        assert (await second.frame()).payload == b"at once"


async def test_calls_of_threads_while_the_host_stops() -> None:
    """They end with UnknownSocket or InvalidState, and nothing else."""
    asyncio.get_running_loop().set_debug(False)
    host = make_host(timeouts=Timeouts(close=0.5))
    seen = Recorder(host)
    raised: set[type[BaseException]] = set()
    over = threading.Event()

    def work(id: str) -> None:
        while not over.is_set():
            try:
                host.WebSocketSend(id, "x")
                host.broadcast([id, "0" * 15], "y")
                assert host.sockets[id].url
            except BaseException as exc:
                raised.add(type(exc))

    threads: list[threading.Thread] = []
    async with AsyncExitStack() as stack:
        async with host:
            for _ in range(5):
                peer, id = await stack.enter_async_context(opened(host, seen))
                threads.append(threading.Thread(target=work, args=(id,)))
                threads[-1].start()
                assert await peer.frame()
        over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join, PATIENCE)
            assert not thread.is_alive()
    assert raised <= {UnknownSocket, InvalidState, KeyError}
    assert UnknownSocket in raised
    assert len(seen.of(WebSocketClose)) == 5
