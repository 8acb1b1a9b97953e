"""Session: a socket as the program has it."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import isasyncgen
from typing import NamedTuple

import pytest

from interceptor import (
    AnyEvent,
    Event,
    Host,
    InvalidArgument,
    InvalidState,
    Limits,
    Mode,
    Rule,
    Session,
    SocketClosed,
    State,
    Timeouts,
    UnknownSocket,
    UnsupportedType,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.session import new_id
from interceptor.state import MOVES

from .peer import BINARY, CONT, PATIENCE, PING, PONG, TEXT, Frame, Peer, Recorder, close_frame, frame, until
from .programs import DEFLATE, MIB, ask, echo, frames, make_host, messages, opened, pause, resume
from .wire import ANYONE, Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop


class Socket(NamedTuple):
    """Both ends of a socket."""

    session: Session
    peer: Peer
    seen: Recorder


@asynccontextmanager
async def open_socket(host: Host | None = None, *, extra: str = "") -> AsyncIterator[Socket]:
    """A host that runs, and a socket of it."""
    host = host or make_host()
    seen = Recorder(host)
    async with host, opened(host, seen, extra=extra) as (peer, id):
        yield Socket(host.sockets[id], peer, seen)


def test_ids_never_come_twice() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{15}", id) for id in ids)
    assert len({id[:8] for id in ids}) > 9_900, "they can be guessed"


async def test_no_object_of_a_socket_has_a_dict_of_its_own() -> None:
    """CPython shares the names of up to 30 attributes; with more, each has a dict four times as large."""
    async with open_socket() as (socket, _, _):
        assert sys.getsizeof(vars(socket)) < 400
        socket.name = "a program may give it more"  # type: ignore[attr-defined]
        for part in (socket._connection, socket._lane, socket.outgoing):
            assert not hasattr(part, "__dict__")


def test_moves_lead_to_the_end_only() -> None:
    for before, after in MOVES.items():
        assert all(state.value > before.value for state in after)
    assert MOVES[State.CLOSED] == ()
    assert [state.name for state in sorted(State, key=lambda s: s.value)] == [
        "CONNECTING",
        "OPEN",
        "CLOSING",
        "CLOSED",
    ]


class TestAttributes:
    """What a socket says of itself."""

    async def test_an_automatic_one(self) -> None:
        async with open_socket(extra="Origin: http://dyalog_root\r\n" + DEFLATE) as (session, peer, _):
            assert session.mode is Mode.AUTO
            assert session.url == "ws://dyalog_root/"
            assert session.origin == "http://dyalog_root"
            assert session.subprotocol is None
            assert session.extensions.startswith("permessage-deflate")
            assert session.state is State.OPEN
            assert (session.close_code, session.close_reason) == (None, "")
            assert session.buffered_amount == 0
            assert repr(session) == f"<Session {session.id} OPEN ws://dyalog_root/>"
            await peer.send(close_frame(3000, "bye"))
            await session.ended
            assert (session.state, session.close_code, session.close_reason) == (State.CLOSED, 3000, "bye")

    async def test_a_manual_one(self) -> None:
        host = make_host()
        seen = Recorder(host)
        async with host, Peer.connect(host) as peer:
            await peer.send(
                ask(host, "/manual?x=1")[:-2]
                + b"Sec-WebSocket-Protocol: chat, log\r\n"
                + DEFLATE.encode()
                + b"\r\n"
            )
            event = await seen.wait_for(WebSocketUpgrade)
            assert not host.sockets
            host.answer(event.id, event.accept("log", compression=False))
            assert (await peer.answer()).status == 101
            session = host.sockets[event.id]
            assert (session.id, session.url) == (event.id, "ws://dyalog_root/manual?x=1")
            assert (session.mode, session.subprotocol, session.extensions) == (Mode.MANUAL, "log", "")
            assert session.origin is None

    async def test_the_rules_subprotocols_come_before_the_hosts(self) -> None:
        host = Host(
            [Rule("*/own", subprotocols=("b", "a")), ("*", 1)], subprotocols=("c", "a"), security=ANYONE
        )
        seen = Recorder(host)
        async with host:
            chosen = []
            for target, asked in (("/own", "a, b, c"), ("/own", "c"), ("/", "a, b, c"), ("/", "x")):
                async with opened(host, seen, target, extra=f"Sec-WebSocket-Protocol: {asked}\r\n") as (
                    _,
                    id,
                ):
                    chosen.append(host.sockets[id].subprotocol)
        assert chosen == ["b", "c", "c", None]

    async def test_states(self) -> None:
        states: list[tuple[str, State]] = []
        host = make_host()

        @host.on("All")
        def note(event: AnyEvent) -> None:
            states.append((event.event, host.sockets[event.id].state))

        async with open_socket(host) as (session, peer, seen):
            await peer.send(frame(TEXT, "one"))
            await seen.wait_for(WebSocketReceive)
            host.WebSocketClose(session.id)
            assert session.state is State.CLOSING
            await peer.send(frame(TEXT, "two") + close_frame())
            await seen.wait_for(WebSocketClose)
            await until(lambda: not host.sockets)
        assert states == [
            ("WebSocketUpgrade", State.OPEN),
            ("WebSocketReceive", State.OPEN),
            ("WebSocketReceive", State.CLOSING),
            ("WebSocketClose", State.CLOSED),
        ]

    async def test_the_log_names_the_socket(self, lines: list[Line]) -> None:
        async with open_socket() as (session, peer, _):
            await peer.send(close_frame(3000))
            await session.ended
        own = [line for line in lines if line.get("id") == session.id]
        assert [line["event"] for line in own] == ["opened", "closed"]
        assert {line["url"] for line in own} == {"ws://dyalog_root/"}

    @pytest.mark.parametrize("target", ["/", "/route", "/manual"])
    async def test_nothing_keeps_one_that_is_gone(self, target: str) -> None:
        host = make_host()
        host.route("*/route")(echo)
        closed = asyncio.Event()
        gone: list[weakref.ref[Session]] = []

        @host.on("All")
        async def handle(event: Event) -> object:
            await asyncio.sleep(0)
            if isinstance(event, WebSocketReceive):
                gone.append(weakref.ref(host.sockets[event.id]))
            elif isinstance(event, WebSocketClose):
                closed.set()
            return event.accept() if isinstance(event, WebSocketUpgrade) and event.type == "manual" else None

        async with host, Peer.open(host, target) as peer:
            await peer.send(frame(TEXT, "x") + close_frame())
            assert await peer.close_code() == 1000
            await asyncio.wait_for(closed.wait(), PATIENCE)
            peer.writer.close()
            await until(lambda: not host._listener.transports)
            gc.collect()
            assert [session() for session in gone] == [None]

    async def test_buffered_amount(self) -> None:
        async with open_socket() as (session, peer, _):
            pause(peer)
            session.send_soon(bytes(12 * MIB))
            assert MIB < session.buffered_amount < 13 * MIB
            resume(peer)
            assert len((await peer.frame()).payload) == 12 * MIB
            await until(lambda: session.buffered_amount == 0)


class TestSend:
    """send()."""

    async def test_every_kind_of_data(self) -> None:
        async with open_socket() as (session, peer, _):
            await session.send("text \u00e9")
            await session.send(b"bytes")
            await session.send(bytearray(b"array"))
            await session.send(memoryview(b"view"))
            await session.send([-1, 0, 255])
            await session.send("text as binary", opcode=2)
            await session.send(b"bytes as text", opcode=1)
            await session.send("a", fin=False)
            await session.send("b", fin=False)
            await session.send("c")
            assert [await peer.frame() for _ in range(10)] == [
                Frame(TEXT, "text \u00e9".encode()),
                Frame(BINARY, b"bytes"),
                Frame(BINARY, b"array"),
                Frame(BINARY, b"view"),
                Frame(BINARY, b"\xff\x00\xff"),
                Frame(BINARY, b"text as binary"),
                Frame(TEXT, b"bytes as text"),
                Frame(TEXT, b"a", fin=False),
                Frame(CONT, b"b", fin=False),
                Frame(CONT, b"c"),
            ]

    async def test_it_waits_until_there_is_room(self) -> None:
        async with open_socket() as (session, peer, _):
            pause(peer)
            sending = asyncio.create_task(session.send(bytes(12 * MIB)))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not sending.done()
            resume(peer)
            await peer.frame()
            await asyncio.wait_for(sending, PATIENCE)

    async def test_it_waits_for_nobody_who_has_gone(self) -> None:
        async with open_socket() as (session, peer, _):
            pause(peer)
            sending = asyncio.create_task(session.send(bytes(12 * MIB)))
            await asyncio.sleep(0)
            peer.reset()
            await asyncio.wait_for(sending, PATIENCE)
            await until(lambda: session.state is State.CLOSED)

    async def test_what_cannot_be_sent(self) -> None:
        async with open_socket() as (session, peer, _):
            with pytest.raises(UnsupportedType):
                await session.send(5)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument):
                await session.send("\ud800")
            await session.send("fine")
            assert (await peer.frame()).payload == b"fine"

    @pytest.mark.parametrize("who", ["peer", "host", "nobody"])
    async def test_after_the_end(self, who: str) -> None:
        async with open_socket() as (session, peer, _):
            if who == "peer":
                await peer.send(close_frame(3001, "bye"))
            elif who == "host":
                closing = asyncio.create_task(session.close(3001, "mine"))
                await peer.close_code()
                with pytest.raises(SocketClosed):
                    await session.send("late")
                await peer.send(close_frame(3001, "bye"))
                await closing
            else:
                peer.reset()
            await session.ended
            with pytest.raises(SocketClosed) as caught:
                await session.send("late")
            assert caught.value.code == (1006 if who == "nobody" else 3001)
            assert caught.value.reason == ("" if who == "nobody" else "bye")


class TestReceive:
    """receive() and `async for`."""

    async def test_messages_from_the_first_call_on(self) -> None:
        async with open_socket() as (session, peer, seen):
            await peer.send(frame(TEXT, "before"))
            await seen.wait_for(WebSocketReceive)
            receiving = asyncio.create_task(session.receive())
            await asyncio.sleep(0)
            await peer.send(frame(TEXT, "one") + frame(BINARY, b"two") + close_frame(3000, "bye"))
            assert await asyncio.wait_for(receiving, PATIENCE) == "one"
            await session.ended
            assert await session.receive() == b"two"
            for _ in range(2):
                with pytest.raises(SocketClosed) as caught:
                    await session.receive()
                assert (caught.value.code, caught.value.reason) == (3000, "bye")
        assert [event.data for event in seen.of(WebSocketReceive)] == ["before", "one", b"two"]

    async def test_async_for_ends_with_the_socket(self) -> None:
        async with open_socket() as (session, peer, _):
            got: list[str | bytes] = []

            async def read() -> None:
                async for message in session:
                    got.append(message)
                    if message == "2":
                        break
                got.append("|")
                async for message in session:
                    got.append(message)

            reading = asyncio.create_task(read())
            await asyncio.sleep(0)
            await peer.send(frames(messages(5, 1)) + close_frame())
            await asyncio.wait_for(reading, PATIENCE)
            assert got == ["0", "1", "2", "|", "3", "4"]
            assert [message async for message in session] == []
            assert not isasyncgen(aiter(session)), "uvloop's debug mode crashes where one is let go early"

    async def test_one_that_is_cancelled_loses_nothing(self) -> None:
        async with open_socket() as (session, peer, _):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.receive(), 0.01)
            await peer.send(frame(TEXT, "one"))
            assert await asyncio.wait_for(session.receive(), PATIENCE) == "one"

    async def test_in_a_callback_of_the_same_socket(self) -> None:
        """It is refused, and the messages go their way as if it had not been asked."""
        host = make_host(limits=Limits(read_buffer=4096))
        refused: list[InvalidState] = []

        @host.on("WebSocketReceive")
        async def handle(event: WebSocketReceive) -> None:
            if event.data == "ask":
                try:
                    await host.sockets[event.id].receive()
                except InvalidState as exc:
                    refused.append(exc)

        async with open_socket(host) as (_, peer, seen):
            await peer.send(frame(TEXT, "ask"))
            await until(lambda: refused)
            assert "host.route()" in str(refused[0])
            for text in messages(50, 1000):
                await peer.send(frame(TEXT, text))
                await until(lambda text=text: seen.of(WebSocketReceive)[-1].data == text)  # type: ignore[misc]
            await peer.send(close_frame())
            await seen.wait_for(WebSocketClose)

    async def test_in_a_task_of_a_callback(self) -> None:
        host = make_host()
        tasks: list[asyncio.Task[str | bytes]] = []

        @host.on("WebSocketReceive")
        async def handle(event: WebSocketReceive) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(host.sockets[event.id].receive()))
                await asyncio.sleep(0)

        async with open_socket(host) as (_, peer, _):
            await peer.send(frame(TEXT, "one"))
            await until(lambda: tasks)
            await peer.send(frame(TEXT, "two"))
            assert await asyncio.wait_for(tasks[0], PATIENCE) == "two"

    async def test_of_another_socket_in_a_callback(self) -> None:
        host = make_host()
        got: list[str | bytes] = []
        begun = asyncio.Event()

        @host.on("WebSocketReceive")
        async def handle(event: WebSocketReceive) -> None:
            if event.data == "go":
                begun.set()
                other = next(session for session in host.sockets.values() if session.id != event.id)
                got.append(await other.receive())

        async with open_socket(host) as (_, peer, seen), opened(host, seen) as (other, _):
            await peer.send(frame(TEXT, "go"))
            await asyncio.wait_for(begun.wait(), PATIENCE)
            await other.send(frame(TEXT, "from there"))
            await until(lambda: got == ["from there"])

    async def test_for_the_first_time_after_the_end(self) -> None:
        async with open_socket() as (session, peer, _):
            await peer.send(frame(TEXT, "gone") + close_frame(3000))
            await session.ended
            with pytest.raises(SocketClosed):
                await session.receive()
            assert [message async for message in session] == []


class TestClose:
    """close()."""

    async def test_it_waits_for_the_end(self) -> None:
        async with open_socket() as (session, peer, seen):
            closing = [asyncio.create_task(session.close(3000, "mine")) for _ in range(2)]
            assert await peer.close_code() == 3000
            assert session.state is State.CLOSING
            with pytest.raises(UnknownSocket, match="CLOSING"):
                session.send_soon("late")
            closing[0].cancel()
            await asyncio.wait(closing[:1])
            assert not closing[1].done()
            await peer.send(close_frame(3001, "theirs"))
            await asyncio.wait_for(closing[1], PATIENCE)
            assert (session.close_code, session.close_reason) == (3001, "theirs")
            await session.close(4000)
            assert await peer.rest() == b""
        assert len(seen.of(WebSocketClose)) == 1

    @pytest.mark.parametrize("code", [999, 1001, 1005, 1006, 2999, 5000, -1])
    async def test_codes(self, code: int) -> None:
        async with open_socket() as (session, _, _):
            with pytest.raises(InvalidArgument, match="3000 to 4999"):
                await session.close(code)
            assert session.state is State.OPEN

    async def test_what_cannot_be_a_reason(self) -> None:
        async with open_socket() as (session, peer, _):
            with pytest.raises(InvalidArgument, match="124 bytes"):
                await session.close(1000, "\u00e9" * 62)
            with pytest.raises(UnsupportedType):
                await session.close("1000")  # type: ignore[arg-type]
            with pytest.raises(UnsupportedType):
                await session.close(1000, b"bye")  # type: ignore[arg-type]
            closing = asyncio.create_task(session.close(1000, "\u00e9" * 61 + "x"))
            assert (await peer.frame()).payload[2:].decode() == "\u00e9" * 61 + "x"
            closing.cancel()

    async def test_what_came_before_the_end_can_still_be_received(self) -> None:
        async with open_socket() as (session, peer, _):
            receiving = asyncio.create_task(session.receive())
            await asyncio.sleep(0)
            await peer.send(frames(messages(3, 1)))
            assert await asyncio.wait_for(receiving, PATIENCE) == "0"
            closing = asyncio.create_task(session.close())
            await peer.close_code()
            await peer.send(close_frame())
            await asyncio.wait_for(closing, PATIENCE)
            assert [await session.receive(), await session.receive()] == ["1", "2"]
            with pytest.raises(SocketClosed):
                await session.receive()

    @pytest.mark.parametrize("held", [False, True], ids=["", "held"])
    async def test_in_a_callback_of_the_same_socket(self, held: bool) -> None:
        """It does not wait there: the end could not be reported before the callback has returned."""
        host = make_host(limits=Limits(read_buffer=1 if held else MIB))
        closed: list[State] = []

        @host.on("WebSocketReceive")
        async def handle(event: WebSocketReceive) -> None:
            if event.data == "0":
                socket = host.sockets[event.id]
                await socket.close(3000)
                closed.append(socket.state)

        async with open_socket(host) as (_, peer, seen):
            await peer.send(frames(messages(5, 1)))
            assert await peer.close_code() == 3000
            await peer.send(close_frame(3000))
            assert (await seen.wait_for(WebSocketClose)).code == 3000
        assert closed == [State.CLOSING]
        assert len(seen.of(WebSocketReceive)) == 5
        assert not seen.of(WebSocketError)

    async def test_in_a_route_that_takes_no_messages(self) -> None:
        """What the peer sent meanwhile does not keep its close frame from being read."""
        host = Host([("*", 1)], security=ANYONE, limits=Limits(read_buffer=1))
        codes: list[int | None] = []
        gate = asyncio.Event()

        @host.route("*/")
        async def handler(socket: Session) -> None:
            await gate.wait()
            await socket.close(3000)
            codes.append(socket.close_code)

        async with open_socket(host) as (_, peer, seen):
            await peer.send(frames(messages(20, 1)))
            await seen.wait_for(WebSocketReceive)
            await peer.send(frames(messages(20, 1)))
            gate.set()
            assert await peer.close_code() == 3000
            await peer.send(close_frame(3000))
            await seen.wait_for(WebSocketClose)
        assert codes == [3000]

    async def test_a_peer_that_never_answers(self) -> None:
        async with open_socket(make_host(timeouts=Timeouts(close=0.05))) as (session, _, seen):
            await asyncio.wait_for(session.close(), PATIENCE)
            assert session.close_code == 1006
        assert len(seen.of(WebSocketError)) == 1


class TestPing:
    """ping()."""

    async def test_seconds_until_the_pong(self) -> None:
        async with open_socket() as (session, peer, _):
            pings = [asyncio.create_task(session.ping()) for _ in range(2)]
            payloads = [(await peer.frame()).payload for _ in range(2)]
            assert payloads[0] != payloads[1]
            await peer.send(frame(PONG, payloads[1]))
            assert await asyncio.wait_for(pings[1], PATIENCE) > 0
            assert not pings[0].done()
            await peer.send(frame(PONG, payloads[0]))
            assert await asyncio.wait_for(pings[0], PATIENCE) > 0

    async def test_no_pong(self) -> None:
        async with open_socket(make_host(timeouts=Timeouts(pong=0.02))) as (session, peer, _):
            with pytest.raises(TimeoutError):
                await session.ping()
            assert (await peer.frame()).opcode == PING
            assert session.state is State.OPEN

    async def test_an_end_instead_of_a_pong(self) -> None:
        async with open_socket() as (session, peer, _):
            ping = asyncio.create_task(session.ping())
            await peer.frame()
            await peer.send(close_frame(3000, "bye"))
            with pytest.raises(SocketClosed) as caught:
                await asyncio.wait_for(ping, PATIENCE)
            assert (caught.value.code, caught.value.reason) == (3000, "bye")
            with pytest.raises(SocketClosed):
                await session.ping()
