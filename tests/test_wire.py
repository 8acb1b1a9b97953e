"""Frames around the 101, and the ways a connection ends: what goes over the wire, and what is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from interceptor import (
    Host,
    Limits,
    Timeouts,
    UnknownSocket,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import BINARY, CLOSE, CONT, PING, TEXT, Peer, Recorder, close_frame, frame
from .wire import (
    ASKED,
    AUTO,
    BOTH_LOOPS,
    ERROR,
    HEAD,
    LOST,
    MANUAL,
    SWITCHED,
    error_of,
    make_host,
    opened,
    served,
    story,
    switched,
    turns,
)
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

MIB = 1024 * 1024
GONE = (1000).to_bytes(2, "big")

# The ways a callback can answer


def at_once(host: Host) -> None:
    """A plain callback returns the answer."""
    host.on("WebSocketUpgrade")(lambda event: event.accept())


def after_a_while(host: Host) -> None:
    """An async callback returns the answer."""

    @host.on("WebSocketUpgrade")
    async def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
        await turns()
        return event.accept()


def soon(host: Host) -> None:
    """The callback returns None; host.answer() follows on the loop."""

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> None:
        asyncio.get_running_loop().call_soon(host.answer, event.id, event.accept())


def elsewhere(host: Host) -> None:
    """The callback returns None; host.answer() follows from another thread."""

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> None:
        asyncio.get_running_loop().run_in_executor(None, host.answer, event.id, event.accept())


def at_the_start(host: Host) -> None:
    """The callback gives the answer by host.answer(), before it returns."""

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> None:
        host.answer(event.id, event.accept())


ANSWERS = [at_once, after_a_while, soon, elsewhere, at_the_start]

# Frames behind the head


async def test_frames_behind_the_head_follow_the_upgrade() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(HEAD + b"".join(frame(TEXT, str(number)) for number in range(100)))
        await switched(peer)
        await seen.wait_for(WebSocketReceive, 100)
        assert story(seen) == [AUTO, *(("receive", str(number)) for number in range(100))]
        await peer.send(close_frame())
        await seen.wait_for(WebSocketClose)


async def test_frames_behind_the_head_wait_for_an_async_upgrade_callback() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        order: list[object] = []
        done = asyncio.Event()

        @host.on("WebSocketUpgrade")
        async def begun(event: WebSocketUpgrade) -> None:
            await done.wait()
            order.append(event.type)

        @host.on("WebSocketReceive")
        def received(event: WebSocketReceive) -> None:
            order.append(event.data)

        seen = Recorder(host)
        await peer.send(HEAD + frame(TEXT, "one") + frame(TEXT, "two") + close_frame(3000))
        await switched(peer)  # The handshake waits for nobody.
        assert await peer.close_code() == 3000
        assert order == []
        done.set()
        await seen.wait_for(WebSocketClose)
        assert order == ["auto", "one", "two"]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_frames_before_a_manual_answer_are_kept(answer: Callable[[Host], None]) -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        answer(host)
        seen = Recorder(host)
        await peer.send(MANUAL + frame(PING, "early") + frame(TEXT, "o", fin=False) + frame(CONT, "ne"))
        await switched(peer)
        assert await peer.frame() == (10, b"early", True, 0)
        await peer.send(frame(BINARY, b"two") + close_frame(4001, "bye"))
        assert await peer.frame() == (CLOSE, b"\x0f\xa1bye", True, 0)
        assert await peer.rest() == b""
        await seen.wait_for(WebSocketClose)
        assert story(seen) == [ASKED, ("receive", "one"), ("receive", b"two"), ("close", 4001, "client")]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_close_before_a_manual_answer(answer: Callable[[Host], None]) -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        answer(host)
        seen = Recorder(host)
        await peer.send(MANUAL + frame(TEXT, "all") + frame(PING) + close_frame(4001, "bye"))
        await switched(peer)
        assert await peer.rest() == frame(10, mask=None) + frame(CLOSE, b"\x0f\xa1bye", mask=None)
        await seen.wait_for(WebSocketClose)
    assert story(seen) == [ASKED, ("receive", "all"), ("close", 4001, "client")]


async def test_nothing_is_answered_or_reported_before_the_101() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL + frame(PING, "1"))
        event = await seen.wait_for(WebSocketUpgrade)
        for early in (frame(PING, "2"), frame(TEXT, "early"), frame(TEXT, b"\xff"), b"\xff\xff"):
            await peer.send(early)
            await turns()
        assert story(seen) == [ASKED]
        host.answer(event.id, event.accept())
        await switched(peer)
        assert await peer.frame() == (10, b"1", True, 0)
        assert await peer.frame() == (10, b"2", True, 0)
        assert await peer.close_code() == 1007
        await seen.wait_for(WebSocketClose)
    assert story(seen) == [ASKED, ("receive", "early"), *LOST]


async def test_frames_before_the_answer_one_byte_at_a_time() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send_slowly(MANUAL + frame(TEXT, "slow") + frame(TEXT, "ly")[:4])
        event = await seen.wait_for(WebSocketUpgrade)
        host.answer(event.id, event.accept())
        await peer.send_slowly(frame(TEXT, "ly")[4:] + close_frame(1000))
        await switched(peer)
        assert await peer.close_code() == 1000
    assert story(seen) == [ASKED, ("receive", "slow"), ("receive", "ly"), ("close", 1000, "client")]


async def test_what_the_upgrade_callback_sends_follows_the_101() -> None:
    async with make_host() as host, Peer.connect(host) as peer:

        @host.on("WebSocketUpgrade")
        def welcome(event: WebSocketUpgrade) -> None:
            host.WebSocketSend(event.id, "welcome")

        host.on("WebSocketReceive")(lambda event: host.WebSocketSend(event.id, event.data))
        await peer.send(HEAD + frame(TEXT, "early"))
        await switched(peer)
        assert [(await peer.frame()).payload for _ in range(2)] == [b"welcome", b"early"]


async def test_nothing_can_be_sent_before_the_answer() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL)
        event = await seen.wait_for(WebSocketUpgrade)
        assert event.id not in host.sockets
        with pytest.raises(UnknownSocket):
            host.WebSocketSend(event.id, "early")
        with pytest.raises(UnknownSocket):
            host.WebSocketClose(event.id)
        host.answer(event.id, event.accept())
        assert event.id in host.sockets
        host.WebSocketSend(event.id, "in time")
        await switched(peer)
        assert await peer.frame() == (TEXT, b"in time", True, 0)


@asynccontextmanager
async def flooding(host: Host, seen: Recorder) -> AsyncIterator[tuple[Peer, WebSocketUpgrade]]:
    """A peer that has sent, before it was answered, until nobody took any more."""
    async with Peer.connect(host) as peer:
        peer.writer.writelines([MANUAL, *(frame(BINARY, data) for data in FLOOD)])
        event = await seen.wait_for(WebSocketUpgrade)
        left = -1
        while left != (now := peer.writer.transport.get_write_buffer_size()):
            left = now
            for _ in range(5):  # Another socket is answered meanwhile, so the host had its turn.
                async with opened(host):
                    pass
        assert left > 0, "the host read everything"
        yield peer, event


FLOOD = [bytes([number]) * MIB for number in range(48)]


async def test_more_than_the_read_buffer_before_the_answer() -> None:
    async with make_host(limits=Limits(read_buffer=65536)) as host:
        seen = Recorder(host)
        async with flooding(host, seen) as (peer, event):
            host.answer(event.id, event.accept())
            await switched(peer)
            await peer.send(close_frame(1000))
            assert await peer.close_code() == 1000
        await seen.wait(lambda: seen.of(WebSocketClose, event.id))
        assert [e.data for e in seen.of(WebSocketReceive, event.id)] == FLOOD
        assert seen.of(WebSocketError, event.id) == []


async def test_denial_of_one_that_sent_more_than_the_read_buffer() -> None:
    async with make_host(limits=Limits(read_buffer=65536)) as host:
        seen = Recorder(host)
        async with flooding(host, seen) as (peer, event):
            host.answer(event.id, event.deny(403, "too much"))
            answer = await peer.answer()
            assert (answer.status, answer.body) == (403, b"too much")
            await peer.writer.drain()
            assert await peer.rest() == b""
    assert story(seen, event.id) == [ASKED]


# Ends by half-close


async def test_half_close_right_behind_the_head() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(HEAD)
        peer.half_close()
        assert (await peer.rest()).startswith(SWITCHED)
        await seen.wait_for(WebSocketClose)
    assert story(seen) == [AUTO, *LOST]


async def test_half_close_behind_a_close_in_one_packet() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(HEAD + frame(TEXT, "all said") + close_frame(1000))
        peer.half_close()
        assert await peer.rest() == SWITCHED + frame(CLOSE, GONE, mask=None)
        await seen.wait_for(WebSocketClose)
    assert story(seen) == [AUTO, ("receive", "all said"), ("close", 1000, "client")]


async def test_half_close_before_the_answer() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL + frame(TEXT, "hello?"))
        event = await seen.wait_for(WebSocketUpgrade)
        peer.half_close()
        assert await peer.rest() == b""
        await seen.wait_for(WebSocketError)
        with pytest.raises(UnknownSocket):
            host.answer(event.id, event.accept())
    assert story(seen) == [ASKED, ERROR]
    assert error_of(seen) == "the client went away before it was answered"


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (b"", []),
        (frame(TEXT, "last"), [("receive", "last")]),
        (frame(TEXT, "last") + frame(TEXT, "cut")[:7], [("receive", "last")]),
        (frame(TEXT, "no end", fin=False), []),
    ],
    ids=["idle", "message", "mid-frame", "mid-message"],
)
async def test_half_close_while_open(data: bytes, reported: list[tuple[object, ...]]) -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host) as peer:
            await peer.send(data)
            peer.half_close()
            await peer.rest()
            await seen.wait_for(WebSocketClose)
            assert not host.sockets
    assert story(seen) == [AUTO, *reported, *LOST]


async def test_half_close_instead_of_the_answering_close() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host) as peer:
            event = await seen.wait_for(WebSocketUpgrade)
            host.WebSocketClose(event.id, 3000, "enough")
            assert await peer.frame() == (CLOSE, b"\x0b\xb8enough", True, 0)
            peer.half_close()
            assert await peer.rest() == b""
            await seen.wait_for(WebSocketClose)
    assert story(seen) == [AUTO, ERROR, ("close", 1006, "host")]


async def test_half_close_after_both_closes() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host) as peer:
            event = await seen.wait_for(WebSocketUpgrade)
            host.WebSocketClose(event.id, 3000)
            assert await peer.close_code() == 3000
            await peer.send(close_frame(3000))
            peer.half_close()
            assert await peer.rest() == b""
            await seen.wait_for(WebSocketClose)
    assert story(seen) == [AUTO, ("close", 3000, "host")]


# Ends by reset

State = Callable[[Host, Recorder, Peer], Awaitable[None]]


async def idle(host: Host, seen: Recorder, peer: Peer) -> None:
    await seen.wait_for(WebSocketUpgrade)


async def talking(host: Host, seen: Recorder, peer: Peer) -> None:
    await peer.send(frame(TEXT, "said"))
    await seen.wait_for(WebSocketReceive)


async def in_mid_frame(host: Host, seen: Recorder, peer: Peer) -> None:
    await peer.send(frame(TEXT, "said") + frame(TEXT, "cut off")[:9])
    await seen.wait_for(WebSocketReceive)


async def in_mid_message(host: Host, seen: Recorder, peer: Peer) -> None:
    await peer.send(frame(TEXT, "said") + frame(TEXT, "cut off", fin=False))
    await seen.wait_for(WebSocketReceive)


async def closing_by_host(host: Host, seen: Recorder, peer: Peer) -> None:
    event = await seen.wait_for(WebSocketUpgrade)
    host.WebSocketClose(event.id, 3000)
    assert await peer.close_code() == 3000


async def closed_by_host(host: Host, seen: Recorder, peer: Peer) -> None:
    await closing_by_host(host, seen, peer)
    await peer.send(close_frame(3000))
    await seen.wait_for(WebSocketClose)


async def closed_by_client(host: Host, seen: Recorder, peer: Peer) -> None:
    await peer.send(close_frame(3001))
    await seen.wait_for(WebSocketClose)


async def failed(host: Host, seen: Recorder, peer: Peer) -> None:
    await peer.send(frame(TEXT, b"\xff"))
    assert await peer.close_code() == 1007


async def sent_to(host: Host, seen: Recorder, peer: Peer) -> None:
    event = await seen.wait_for(WebSocketUpgrade)
    host.WebSocketSend(event.id, bytes(8 * MIB))


SAID = ("receive", "said")


@pytest.mark.parametrize(
    ("state", "then"),
    [
        (idle, LOST),
        (talking, (SAID, *LOST)),
        (in_mid_frame, (SAID, *LOST)),
        (in_mid_message, (SAID, *LOST)),
        (closing_by_host, (ERROR, ("close", 1006, "host"))),
        (closed_by_host, (("close", 3000, "host"),)),
        (closed_by_client, (("close", 3001, "client"),)),
        (failed, LOST),
        (sent_to, LOST),
    ],
)
async def test_reset_of_an_open_socket(state: State, then: tuple[tuple[object, ...], ...]) -> None:
    async with make_host(limits=Limits(sockets=1, pending=1)) as host:
        seen = Recorder(host)
        async with opened(host) as peer:
            await state(host, seen, peer)
            peer.reset()
            await seen.wait_for(WebSocketClose)
        id = seen.of(WebSocketUpgrade)[0].id
        with pytest.raises(UnknownSocket):
            host.WebSocketSend(id, "gone")
        assert (await served(host)).status == 101  # Its place is free.
    assert story(seen, id) == [AUTO, *then]


async def test_reset_before_the_answer() -> None:
    async with make_host(limits=Limits(sockets=1, pending=1)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            await peer.send(MANUAL + frame(TEXT, "hello?"))
            event = await seen.wait_for(WebSocketUpgrade)
            peer.reset()
            await seen.wait_for(WebSocketError)
        with pytest.raises(UnknownSocket):
            host.answer(event.id, event.accept())
        assert (await served(host)).status == 101
    assert story(seen, event.id) == [ASKED, ERROR]


async def test_reset_in_the_very_turn_of_the_answer() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            await peer.send(MANUAL)
            event = await seen.wait_for(WebSocketUpgrade)
            peer.reset()
            host.answer(event.id, event.accept())  # The host has not seen the reset.
            await seen.wait_for(WebSocketClose)
    assert story(seen) == [ASKED, *LOST]


async def test_reset_of_one_that_sent_more_than_the_read_buffer() -> None:
    async with make_host(limits=Limits(read_buffer=65536)) as host:
        seen = Recorder(host)
        async with flooding(host, seen) as (peer, event):
            peer.reset()
            host.answer(event.id, event.accept())
            await seen.wait(lambda: seen.of(WebSocketClose, event.id))
    names = seen.names(event.id)
    assert (names[0], names[-2:]) == ("WebSocketUpgrade", ["WebSocketError", "WebSocketClose"])
    assert set(names[1:-2]) <= {"WebSocketReceive"}


@pytest.mark.parametrize("leave", [Peer.reset, Peer.half_close])
async def test_client_that_leaves_cancels_the_callback(leave: Callable[[Peer], None]) -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        cancelled: list[str] = []

        @host.on("WebSocketUpgrade")
        async def answer(event: WebSocketUpgrade) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(event.id)
                raise

        await peer.send(MANUAL)
        event = await seen.wait_for(WebSocketUpgrade)
        await turns()
        leave(peer)
        await seen.wait_for(WebSocketError)
        assert cancelled == [event.id]
    assert story(seen) == [ASKED, ERROR]


async def test_peer_that_never_finishes_the_close() -> None:
    async with make_host(timeouts=Timeouts(close=0.05)) as host:
        seen = Recorder(host)
        async with opened(host) as peer:
            event = await seen.wait_for(WebSocketUpgrade)
            host.WebSocketClose(event.id)
            await seen.wait_for(WebSocketClose)
            assert await peer.rest() == frame(CLOSE, GONE, mask=None)
    assert story(seen) == [AUTO, ERROR, ("close", 1006, "host")]
