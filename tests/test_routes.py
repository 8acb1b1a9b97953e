"""host.route() and host.events(): sockets that live with a handler, and events that nobody else takes."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from interceptor import (
    Event,
    Host,
    InvalidHandler,
    InvalidRule,
    Limits,
    Mode,
    Session,
    SocketClosed,
    State,
    Timeouts,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import CONT, PATIENCE, PONG, TEXT, Frame, Peer, Recorder, close_frame, frame, until
from .programs import Taker, ask, echo, frames, make_host, messages, opened, pause
from .wire import ANYONE, Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop


def errors_of(logged: list[Line]) -> list[Line]:
    return [line for line in logged if line["log_level"] == "error"]


class TestRoute:
    """A socket that lives as long as its handler."""

    async def test_it_takes_what_the_peer_sends(self) -> None:
        host = Host(root="myapp", security=ANYONE)
        assert host.route("ws://myapp/echo*")(echo) is echo
        seen = Recorder(host)
        async with host, opened(host, seen, "/echo?x") as (peer, id):
            assert host.sockets[id].url == "ws://myapp/echo?x"
            await peer.send(frames(messages(5)))
            assert [(await peer.frame()).payload.decode() for _ in range(5)] == messages(5)
            await peer.send(close_frame(3000))
            await seen.wait_for(WebSocketClose)
        assert [event.data for event in seen.of(WebSocketReceive)] == messages(5), "callbacks see it all too"

    async def test_messages_that_came_with_the_request(self) -> None:
        host = make_host()
        host.route("*/echo")(echo)
        async with host, Peer.connect(host) as peer:
            await peer.send(ask(host, "/echo") + frames(messages(5)) + close_frame())
            assert (await peer.answer()).status == 101
            # It had closed before an answer was made.
            assert await peer.close_code() == 1000

    async def test_it_returns(self, lines: list[Line]) -> None:
        host = make_host()
        seen = Recorder(host)

        @host.route("*/hello")
        async def hello(socket: Session) -> None:
            await socket.send("hello")

        async with host, opened(host, seen, "/hello") as (peer, _):
            assert await peer.frame() == Frame(TEXT, b"hello")
            assert await peer.close_code() == 1000
            await peer.send(close_frame())
            closed = await seen.wait_for(WebSocketClose)
            assert (closed.code, closed.was_clean, closed.initiator) == (1000, True, "host")
        assert not errors_of(lines)

    async def test_it_raises(self, lines: list[Line]) -> None:
        host = make_host()
        seen = Recorder(host)

        @host.route("*/fail")
        async def fail(socket: Session) -> None:
            await socket.send("soon")
            raise ZeroDivisionError("mine")

        async with host, opened(host, seen, "/fail") as (peer, id):
            assert (await peer.frame()).payload == b"soon"
            assert await peer.close_code() == 1011
            await peer.send(close_frame(1011))
            await seen.wait_for(WebSocketClose)
        (line,) = errors_of(lines)
        assert (line["id"], line["url"]) == (id, "ws://dyalog_root/fail")
        assert isinstance(line["exc_info"], ZeroDivisionError)

    @pytest.mark.parametrize("waits_in", ["receive", "send", "ping"])
    async def test_the_peer_leaves_while_it_waits(self, waits_in: str, lines: list[Line]) -> None:
        """That is no error of the handler's."""
        host = make_host()
        seen = Recorder(host)
        begun = asyncio.Event()
        ended: list[type[BaseException]] = []

        @host.route("*/wait")
        async def wait(socket: Session) -> None:
            begun.set()
            try:
                while True:
                    await (socket.send(bytes(100_000)) if waits_in == "send" else getattr(socket, waits_in)())
            except SocketClosed as exc:
                ended.append(type(exc))
                raise

        async with host, opened(host, seen, "/wait") as (peer, _):
            await asyncio.wait_for(begun.wait(), PATIENCE)
            pause(peer)
            peer.reset()
            assert (await seen.wait_for(WebSocketClose)).code == 1006
            await until(lambda: ended)
        assert ended == [SocketClosed]
        assert not errors_of(lines)

    async def test_it_outlives_its_socket(self) -> None:
        """It may go on after the end; stop() waits for it."""
        host = make_host()
        seen = Recorder(host)
        gate, through = asyncio.Event(), asyncio.Event()

        @host.route("*/late")
        async def late(socket: Session) -> None:
            await gate.wait()
            assert socket.state is State.CLOSED
            through.set()

        async with host, opened(host, seen, "/late") as (peer, _):
            await peer.send(close_frame())
            await seen.wait_for(WebSocketClose)
            assert not through.is_set()
            stopping = asyncio.ensure_future(host.stop())
            await asyncio.sleep(0)
            gate.set()
            await stopping
            assert through.is_set()

    async def test_stop_cancels_it(self, lines: list[Line]) -> None:
        host = make_host(timeouts=Timeouts(close=0.05))
        seen = Recorder(host)
        ended: list[str] = []

        @host.route("*/stuck")
        async def stuck(socket: Session) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async with host, opened(host, seen, "/stuck") as (peer, _):
            stopping = asyncio.ensure_future(host.stop())
            assert await peer.close_code() == 1001
            await peer.send(close_frame(1001))
            await asyncio.wait_for(stopping, PATIENCE)
        assert ended == ["cancelled"]
        assert len(seen.of(WebSocketClose)) == 1
        assert not errors_of(lines)

    async def test_stop_ends_one_that_reads(self) -> None:
        host = make_host()
        seen = Recorder(host)
        ended: list[int | None] = []

        @host.route("*/read")
        async def read(socket: Session) -> None:
            async for _ in socket:
                pass
            ended.append(socket.close_code)

        async with host, opened(host, seen, "/read") as (peer, _):
            stopping = asyncio.ensure_future(host.stop())
            assert await peer.close_code() == 1001
            await peer.send(close_frame(1001))
            await stopping
        assert ended == [1001]

    async def test_subprotocols(self) -> None:
        host = Host([("*", 1)], subprotocols=["other"], security=ANYONE)
        chosen: list[str | None] = []

        @host.route("*/chat", subprotocols=["chat2", "chat"])
        async def chat(socket: Session) -> None:
            chosen.append(socket.subprotocol)

        async with host:
            for asked in ("chat, chat2", "chat", "other", "none"):
                async with Peer.open(host, "/chat", extra=f"Sec-WebSocket-Protocol: {asked}\r\n") as peer:
                    assert await peer.close_code() == 1000
        assert chosen == ["chat2", "chat", "other", None]

    @pytest.mark.parametrize("chunks", [False, True, None])
    @pytest.mark.parametrize("host_chunks", [False, True])
    async def test_chunks(self, chunks: bool | None, host_chunks: bool) -> None:
        host = Host([("*", 1)], chunks=host_chunks, security=ANYONE)
        seen = Recorder(host)
        got: list[str | bytes] = []

        @host.route("*/chunks", chunks=chunks)
        async def take(socket: Session) -> None:
            async for message in socket:
                got.append(message)

        async with host, opened(host, seen, "/chunks") as (peer, _):
            await peer.send(frame(TEXT, "a", fin=False) + frame(CONT, "b") + close_frame())
            await seen.wait_for(WebSocketClose)
            await until(lambda: "".join(map(str, got)) == "ab")
        in_chunks = host_chunks if chunks is None else chunks
        assert got == (["a", "b"] if in_chunks else ["ab"])
        assert [event.fin for event in seen.of(WebSocketReceive)] == ([False, True] if in_chunks else [True])

    @pytest.mark.parametrize("answer", ["accept", "deny"])
    async def test_by_a_manual_handshake(self, answer: str) -> None:
        host = make_host()
        begun: list[str] = []

        @host.on("WebSocketUpgrade")
        async def decide(event: WebSocketUpgrade) -> WebSocketUpgrade:
            await asyncio.sleep(0)
            return event.accept("chat") if answer == "accept" else event.deny(403)

        @host.route("*/gate", mode=Mode.MANUAL)
        async def handler(socket: Session) -> None:
            begun.append(str(socket.subprotocol))
            await echo(socket)

        async with host, Peer.connect(host) as peer:
            await peer.send(ask(host, "/gate", extra="Sec-WebSocket-Protocol: chat\r\n"))
            if answer == "accept":
                assert (await peer.answer()).status == 101
                await peer.send(frame(TEXT, "x"))
                assert (await peer.frame()).payload == b"x"
            else:
                assert (await peer.answer()).status == 403
        assert begun == (["chat"] if answer == "accept" else [])

    async def test_while_the_host_runs(self) -> None:
        async with make_host() as host:
            host.route("*/new")(echo)
            async with Peer.open(host, "/new") as peer:
                await peer.send(frame(TEXT, "x"))
                assert (await peer.frame()).payload == b"x"

    async def test_the_first_route_that_matches(self) -> None:
        host = make_host()
        for name in ("one", "two"):

            async def greet(socket: Session, name: str = name) -> None:
                await socket.send(name)

            host.route("*/greet")(greet)
        async with host, Peer.open(host, "/greet") as peer:
            assert (await peer.frame()).payload == b"one"

    async def test_many_sockets_of_one_route(self) -> None:
        host = make_host()
        host.route("*/echo")(echo)
        seen = Recorder(host)
        async with host, opened(host, seen, "/echo") as (one, _), opened(host, seen, "/echo") as (two, _):
            for peer, text in ((one, "1"), (two, "2")):
                await peer.send(frame(TEXT, text))
            assert (await two.frame()).payload == b"2"
            assert (await one.frame()).payload == b"1"

    async def test_what_it_leaves_is_dropped(self) -> None:
        host = Host(security=ANYONE, limits=Limits(read_buffer=1))

        @host.route("*")
        async def handler(socket: Session) -> None:
            await socket.receive()

        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, id):
            session = host.sockets[id]
            await peer.send(frames(messages(50, 100)))
            assert await peer.close_code() == 1000
            await peer.send(frames(messages(50, 100)) + close_frame())
            closed = await seen.wait_for(WebSocketClose)
            assert (closed.code, closed.was_clean) == (1000, True)
            with pytest.raises(SocketClosed):
                await session.receive()

    async def test_held_back_messages_come_when_they_are_asked_for(self) -> None:
        host = Host(security=ANYONE, limits=Limits(read_buffer=1))
        taker = Taker(host)
        taker.begin("route")
        sent = messages(500, 1000)
        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, _):
            sending = asyncio.create_task(peer.send(frames(sent) + close_frame()))
            await taker.has_begun()
            taker.gate.set()
            await taker.is_over()
            await sending
            await until(lambda: len(taker.taken) == len(sent))
        assert taker.taken == sent

    def test_handlers_that_cannot_be(self) -> None:
        host = Host()

        def plain(socket: Session) -> None:
            """Not async."""

        async def nothing() -> None:
            """No argument."""

        async def lazy(socket: Session) -> object:
            """Runs nothing when it is called."""
            yield socket

        handlers: list[Any] = [plain, nothing, lazy, lambda socket: None, "text", None]
        for handler in handlers:
            with pytest.raises(InvalidHandler):
                host.route("*")(handler)
        with pytest.raises(InvalidHandler, match="async def"):
            host.route("*")(handlers[0])

    def test_one_without_parentheses_says_what_to_write(self) -> None:
        bare: Any = Host().route
        with pytest.raises(InvalidRule, match=r'the pattern comes first: @host\.route\("ws://myapp/chat"\)'):
            bare(echo)

    @pytest.mark.parametrize(
        ("pattern", "options"),
        [
            ("", {}),
            ("ftp://x/", {}),
            (5, {}),
            ("*", {"mode": 7}),
            ("*", {"subprotocols": ["a b"]}),
            ("*", {"subprotocols": "chat"}),
            ("*", {"mode": Mode.PASS}),
        ],
    )
    async def test_bad_routes_change_nothing(self, pattern: str, options: dict[str, Mode]) -> None:
        host = Host([("*", 1)], security=ANYONE)
        with pytest.raises(InvalidRule):
            host.route(pattern, **options)(echo)  # type: ignore[arg-type]
        host.route("*/echo")(echo)
        async with host, Peer.open(host, "/echo") as peer:
            await peer.send(frame(TEXT, "x"))
            assert (await peer.frame()).payload == b"x"


class TestEvents:
    """The stream of events that no callback takes."""

    async def test_from_now_on_until_the_host_has_stopped(self) -> None:
        host = make_host()
        events = host.events()
        async with host, Peer.open(host) as peer:
            await peer.send(frames(messages(3)) + frame(3))
            await peer.close_code()
        names = [event.event async for event in events]
        assert names == [
            "WebSocketUpgrade",
            *["WebSocketReceive"] * 3,
            "WebSocketError",
            "WebSocketClose",
        ]
        assert [event async for event in host.events()] == []

    async def test_what_came_before_is_not_in_it(self) -> None:
        async with make_host() as host, Peer.open(host) as peer:
            await peer.send(frame(TEXT, "before"))
            (session,) = host.sockets.values()
            ping = asyncio.create_task(session.ping())
            got = await peer.frame()
            await peer.send(frame(PONG, got.payload))
            await ping
            events = host.events()
            await peer.send(frame(TEXT, "after"))
            event = await asyncio.wait_for(anext(events), PATIENCE)
            assert isinstance(event, WebSocketReceive)
            assert event.data == "after"

    async def test_callbacks_and_routes_come_first(self) -> None:
        host = make_host()
        events = host.events()
        host.on("WebSocketUpgrade")(lambda event: None)
        host.route("*/echo")(echo)
        async with host, Peer.open(host, "/echo") as routed, Peer.open(host) as peer:
            await routed.send(frame(TEXT, "for the route"))
            await routed.frame()
            await peer.send(frame(TEXT, "for the stream"))
            event = await asyncio.wait_for(anext(events), PATIENCE)
            assert isinstance(event, WebSocketReceive)
            assert event.data == "for the stream"

    async def test_a_program_that_is_nothing_but_a_stream(self) -> None:
        host = make_host()

        async def program() -> list[str]:
            names: list[str] = []
            async for event in host.events():
                names.append(event.event)
                match event:
                    case WebSocketUpgrade(type="manual"):
                        host.answer(event.id, event.accept())
                    case WebSocketReceive():
                        host.WebSocketSend(event.id, event.data)
            return names

        running = asyncio.create_task(program())
        await asyncio.sleep(0)
        async with host, Peer.open(host) as peer:
            await peer.send(frames(messages(20)))
            assert [(await peer.frame()).payload.decode() for _ in range(20)] == messages(20)
            await peer.send(close_frame())
            assert await peer.close_code() == 1000
        names = await asyncio.wait_for(running, PATIENCE)
        assert names == ["WebSocketUpgrade", *["WebSocketReceive"] * 20, "WebSocketClose"]

    async def test_several_streams_share_the_events(self) -> None:
        host = make_host()
        got: list[list[Event]] = [[], []]

        async def read(index: int) -> None:
            async for event in host.events():
                got[index].append(event)
                await asyncio.sleep(0)

        readers = [asyncio.create_task(read(index)) for index in range(2)]
        await asyncio.sleep(0)
        async with host, Peer.open(host) as peer:
            await peer.send(frames(messages(50)) + close_frame())
            await peer.close_code()
        await asyncio.gather(*readers)
        assert len(got[0]) + len(got[1]) == 52
        data = [[event.data for event in part if isinstance(event, WebSocketReceive)] for part in got]
        assert sorted(map(str, data[0] + data[1])) == messages(50)
        assert data == [sorted(part, key=str) for part in data]

    @pytest.mark.parametrize("how", ["aclose", "drop", "break"])
    async def test_letting_the_last_one_go_frees_the_sockets(self, how: str) -> None:
        host = Host([("*", 1)], security=ANYONE, limits=Limits(read_buffer=1))
        closed: list[WebSocketClose] = []
        host.on("WebSocketClose")(closed.append)
        events = host.events()
        async with host, Peer.open(host) as peer:
            sending = asyncio.create_task(peer.send(frames(messages(1000, 1000)) + close_frame()))
            first = await asyncio.wait_for(anext(events), PATIENCE)
            assert first.event == "WebSocketUpgrade"
            assert not closed
            if how == "aclose":
                await events.aclose()
            elif how == "break":
                async for _ in events:
                    break
            del events
            gc.collect()
            assert await peer.close_code() == 1000
            await sending
            await until(lambda: closed)

    async def test_each_end_is_seen_before_the_socket_leaves_the_table(self) -> None:
        host = make_host()
        events = host.events()
        async with host, Peer.open(host) as peer:
            upgrade = await asyncio.wait_for(anext(events), PATIENCE)
            assert isinstance(upgrade, WebSocketUpgrade)
            await peer.send(close_frame())
            assert await peer.close_code() == 1000
            assert host.sockets[upgrade.id].state is State.CLOSED
            await asyncio.wait_for(anext(events), PATIENCE)
            assert not host.sockets
