"""A host in a thread: its life, calls from every thread, and what is wrong said at once."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from interceptor import (
    Event,
    Host,
    InvalidState,
    Limits,
    Session,
    ThreadedHost,
    Timeouts,
    UnknownSocket,
    WebSocketReceive,
)
from interceptor.outgoing import CALL_COST

from .conftest import FACTORIES, LoopFactory
from .peer import PATIENCE
from .threads import Seen, client, dial, make_host, no_thread_left, soon
from .wire import Line
from .wire import lines as lines


@pytest.fixture(params=list(FACTORIES))
def factory(request: pytest.FixtureRequest) -> LoopFactory:
    return FACTORIES[request.param]


def blocked(host: Host) -> tuple[threading.Event, threading.Event]:
    """Have the loop's thread stand still at a message: an event that tells so, and one that lets it go on."""
    held, gate = threading.Event(), threading.Event()

    @host.on("WebSocketReceive")
    def block(event: Event) -> None:
        held.set()
        assert gate.wait(PATIENCE)

    return held, gate


class TestLife:
    """start and stop."""

    def test_it_listens_inside_of_the_block_and_leaves_nothing(self, factory: LoopFactory) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left():
            with host.in_thread(loop_factory=factory) as entered:
                assert entered is host
                address = host.address
                with client(host) as peer:
                    peer.send("hello")
                    seen.wait_for("WebSocketReceive")
                seen.wait_for("WebSocketClose")
            assert seen.threads.isdisjoint({threading.get_ident()})
            assert len(seen.threads) == 1
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
        assert repr(host) == "<Host 'host' stopped>"

    def test_without_a_block(self) -> None:
        with no_thread_left():
            threaded = make_host().in_thread()
            assert isinstance(threaded, ThreadedHost)
            host = threaded.start()
            assert host.address
            threaded.stop()
            threaded.stop()

    def test_open_sockets_get_1001(self) -> None:
        with no_thread_left():
            host = make_host()
            seen = Seen(host)
            with host.in_thread():
                peer = dial(host)
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)
            assert peer.close_code == 1001
            assert seen.names() == ["WebSocketUpgrade", "WebSocketClose"]

    def test_a_block_that_raises(self) -> None:
        host = make_host()
        with no_thread_left(), pytest.raises(ZeroDivisionError), host.in_thread():
            raise ZeroDivisionError
        assert repr(host) == "<Host 'host' stopped>"

    def test_a_port_that_is_taken(self) -> None:
        with no_thread_left():
            with socket.create_server(("127.0.0.1", 0)) as taken:
                host = Host(listen=taken.getsockname())
                with pytest.raises(InvalidState, match="cannot listen"):
                    host.in_thread().start()
            with host.in_thread():  # It is free now.
                assert host.address

    def test_stop_from_another_thread_and_twice(self) -> None:
        with no_thread_left():
            host = make_host()
            with host.in_thread():
                stoppers = [threading.Thread(target=host.stop) for _ in range(4)]
                for stopper in stoppers:
                    stopper.start()
                for stopper in stoppers:
                    stopper.join(PATIENCE)
                assert repr(host) == "<Host 'host' stopped>"

    @pytest.mark.parametrize("how", ["plain", "async", "route"])
    def test_stop_soon_in_a_callback(self, how: str) -> None:
        host = make_host()
        Seen(host)

        def plain(event: Event) -> None:
            host.stop_soon()
            host.stop_soon()

        async def later(event: Event | Session) -> None:
            host.stop_soon()

        if how == "route":
            host.route("ws://myapp/*")(later)
        else:
            host.on("WebSocketReceive")(plain if how == "plain" else later)
        with no_thread_left(), host.in_thread():
            with client(host) as peer:
                with pytest.raises(ConnectionClosed):  # noqa: PT012  # a route is over at once
                    peer.send("stop")
                    peer.recv(PATIENCE)
                assert peer.close_code in (1000, 1001)
            soon(lambda: repr(host) == "<Host 'host' stopped>")
            host.stop_soon()

    def test_an_async_callback_may_await_stop(self) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        async def end(event: Event) -> None:
            await host.stop()

        with no_thread_left(), host.in_thread():
            with client(host) as peer:
                peer.send("stop")
                with pytest.raises(ConnectionClosed):
                    peer.recv(PATIENCE)
            soon(lambda: repr(host) == "<Host 'host' stopped>")

    def test_a_callback_that_never_returns_does_not_keep_stop(
        self, lines: list[Line], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("interceptor.threaded.MARGIN", 0.1)
        gate, begun = threading.Event(), threading.Event()
        host = make_host(timeouts=Timeouts(close=0.1))

        @host.on("WebSocketReceive")
        def block(event: Event) -> None:
            begun.set()
            gate.wait()

        with no_thread_left():
            with host.in_thread():
                peer = dial(host)
                peer.send("block")
                assert begun.wait(PATIENCE)
            assert [line["event"] for line in lines if line["log_level"] == "error"] == [
                "the host's thread does not end, as a callback on it does not return; it is left running"
            ]
            gate.set()
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)

    def test_sys_exit_in_a_callback_is_an_error_like_others(self, lines: list[Line]) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def leave(event: WebSocketReceive) -> None:
            host.WebSocketSend(event.id, "still here")
            raise SystemExit

        with no_thread_left(), host.in_thread(), client(host) as peer:
            for _ in range(2):
                peer.send("x")
                assert peer.recv(PATIENCE) == "still here"
        errors = [line for line in lines if line["log_level"] == "error"]
        assert [type(line["exc_info"]) for line in errors] == [SystemExit] * 2
        assert all(line["id"] for line in errors)


class TestCalls:
    """Every method from every thread."""

    def test_methods(self) -> None:
        host = make_host()
        seen = Seen(host, "WebSocketUpgrade")
        with no_thread_left(), host.in_thread(), client(host, "/a") as one, client(host, "/b") as two:
            first = seen.wait_for("WebSocketUpgrade").id  # type: ignore[attr-defined]
            second = seen.wait_for("WebSocketUpgrade", 2).id  # type: ignore[attr-defined]
            assert host.WebSocketSend(first, "text") == 0
            assert host.WebSocketSend(first, [1, -1]) == 0
            assert host.broadcast([first, second, "none"], "all") == 2
            assert [one.recv(PATIENCE) for _ in range(3)] == ["text", b"\x01\xff", "all"]
            assert two.recv(PATIENCE) == "all"
            assert set(host.sockets) == {first, second}
            assert host.sockets[first].url == "ws://myapp/a"
            assert first in host.sockets
            assert len(host.sockets) == 2
            host.WebSocketSend(first, "last")
            assert host.WebSocketClose(first, 3001, "enough") == 0
            with pytest.raises(UnknownSocket):
                host.WebSocketSend(first, "late")
            assert one.recv(PATIENCE) == "last"
            with pytest.raises(ConnectionClosedError):
                one.recv(PATIENCE)
            assert (one.close_code, one.close_reason) == (3001, "enough")
            host.intercepted_urls = [("ws://myapp/c", 1)]
            with client(host, "/c"):
                pass
            host.off("WebSocketUpgrade")
            assert host.ws_url("/x")
            assert host.proxy_url

    def test_answer(self) -> None:
        host = make_host()
        asked: list[Event] = []
        host.on("WebSocketUpgrade")(asked.append)

        def answer() -> None:
            soon(lambda: asked)
            event = asked[0]
            host.answer(event.id, event.accept(subprotocol="chat"))  # type: ignore[attr-defined]

        with no_thread_left(), host.in_thread():
            thread = threading.Thread(target=answer)
            thread.start()
            with client(host, "/manual", subprotocols=["chat"]) as peer:
                assert peer.subprotocol == "chat"
            thread.join(PATIENCE)

    def test_sockets_are_gone_through_while_they_change(self) -> None:
        host = make_host()
        with no_thread_left(), host.in_thread():
            peers = [dial(host) for _ in range(3)]
            soon(lambda: len(host.sockets) == 3)
            seen = []
            for id in host.sockets:
                seen.append(id)
                if len(seen) == 1:
                    for peer in peers:
                        peer.close()
                    soon(lambda: not host.sockets)
            assert len(seen) == 3
            assert repr(host.sockets) == "{}"

    @pytest.fixture
    def _restless(self) -> Iterator[None]:
        """Threads take turns all the time."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(before)

    @pytest.mark.usefixtures("_restless")
    def test_tables_change_from_many_threads_at_once(self) -> None:
        host = make_host()
        count = 30
        together = threading.Barrier(8)

        async def handle(socket: Session) -> None:
            """Nothing."""

        def change(which: int) -> None:
            together.wait(PATIENCE)
            for _ in range(count):
                host.on("WebSocketReceive")(lambda event: None)
            together.wait(PATIENCE)
            for index in range(count):
                host.route(f"ws://r{which}/{index}")(handle)

        with no_thread_left(), host.in_thread():
            threads = [threading.Thread(target=change, args=(which,)) for which in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
        assert len(host._dispatcher.callbacks[WebSocketReceive]) == 8 * count
        assert len(list(host._sessions.table)) == 8 * count + 2

    def test_tables_change_one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two threads that change a table the slower one must not undo what the other did."""
        host = make_host()
        held: list[bool] = []

        def note() -> None:
            held.append(host._dispatcher.changing._is_owned())  # type: ignore[attr-defined]

        async def handle(socket: Session) -> None:
            """Nothing."""

        monkeypatch.setattr(host, "_compile", note)
        monkeypatch.setattr(host._dispatcher, "_sort", note)
        host.on("WebSocketReceive")(print)
        host.off("WebSocketReceive", print)
        host.route("ws://x/")(handle)
        host.intercepted_urls = []
        assert held == [True] * 4

    def test_a_thread_that_sends_without_end_does_not_fill_the_memory(self, lines: list[Line]) -> None:
        limit = 100_000
        host = make_host(limits=Limits(write_buffer=limit))
        seen = Seen(host, "WebSocketUpgrade")
        held, gate = blocked(host)

        with no_thread_left(), host.in_thread():
            peer = dial(host)
            id = seen.wait_for("WebSocketUpgrade").id  # type: ignore[attr-defined]
            peer.send("block")
            assert held.wait(PATIENCE)
            for _ in range(10_000):
                host.WebSocketSend(id, bytes(1000))
            assert len(host._dispatcher._calls) < 2 * limit / 1000
            gate.set()
            with pytest.raises(ConnectionClosedError):
                list(peer)
            soon(lambda: not host.sockets)
        assert "Limits.write_buffer" in next(line["fault"] for line in lines if "fault" in line)

    def test_buffered_amount_tells_a_thread_what_is_still_on_its_way(self) -> None:
        host = make_host()
        seen = Seen(host, "WebSocketUpgrade")
        held, gate = blocked(host)

        with no_thread_left(), host.in_thread(), dial(host) as peer:
            id = seen.wait_for("WebSocketUpgrade").id  # type: ignore[attr-defined]
            socket = host.sockets[id]
            assert socket.buffered_amount == 0
            peer.send("block")
            assert held.wait(PATIENCE)
            host.WebSocketSend(id, bytes(1000))
            assert host.broadcast([id], bytes(2000)) == 1
            assert socket.buffered_amount == 1000 + 2000 + 2 * CALL_COST
            gate.set()
            assert [len(peer.recv(PATIENCE)) for _ in range(2)] == [1000, 2000]
            soon(lambda: socket.buffered_amount == 0)

    def test_a_thread_that_minds_buffered_amount_can_send_any_amount(self) -> None:
        limit = 100_000
        host = make_host(limits=Limits(write_buffer=limit))
        seen = Seen(host, "WebSocketUpgrade")
        with no_thread_left(), host.in_thread(), dial(host) as peer:
            id = seen.wait_for("WebSocketUpgrade").id  # type: ignore[attr-defined]
            socket = host.sockets[id]

            def send() -> None:
                for number in range(2000):
                    soon(lambda: socket.buffered_amount < limit // 2)
                    host.WebSocketSend(id, number.to_bytes(2) * 1000)

            sending = threading.Thread(target=send)
            sending.start()
            assert all(peer.recv(PATIENCE) == number.to_bytes(2) * 1000 for number in range(2000))
            sending.join()

    def test_a_thread_that_calls_without_end_does_not_keep_the_loop_from_its_sockets(self) -> None:
        host = make_host()
        seen = Seen(host, "WebSocketUpgrade")
        over = threading.Event()

        @host.on("WebSocketReceive")
        def echo(event: WebSocketReceive) -> None:
            host.WebSocketSend(event.id, event.data)

        with no_thread_left(), host.in_thread(), client(host) as peer:
            seen.wait_for("WebSocketUpgrade")

            def feed() -> None:
                """Each call asks for the next one: without a limit they would go on for ever."""
                if not over.is_set():
                    host._dispatcher._calls.append((feed, ()))

            host._dispatcher.run(feed)
            peer.send("hello")
            assert peer.recv(PATIENCE) == "hello"
            over.set()

    def test_a_call_that_makes_a_call_of_its_own(self, caplog: pytest.LogCaptureFixture) -> None:
        host = make_host()
        done: list[int] = []
        with no_thread_left(), host.in_thread():
            run, gate, begun = host._dispatcher.run, threading.Event(), threading.Event()
            run(begun.set)
            run(gate.wait, PATIENCE)
            assert begun.wait(PATIENCE)
            run(lambda: run(done.append, 3))
            run(done.append, 1)
            run(done.append, 2)
            gate.set()
            soon(lambda: len(done) == 3)
        assert done == [1, 2, 3]
        assert not [record for record in caplog.records if record.name == "asyncio" and record.exc_info]

    def test_many_calls_are_one_wake_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        host = make_host()
        woken: list[object] = []
        with no_thread_left(), host.in_thread():
            dispatcher = host._dispatcher
            loop, gate, begun = dispatcher.loop, threading.Event(), threading.Event()
            dispatcher.run(begun.set)
            dispatcher.run(gate.wait, PATIENCE)
            assert begun.wait(PATIENCE)
            soon(lambda: not dispatcher._calls)
            real = loop.call_soon_threadsafe

            def wake(*args: Any) -> object:
                woken.append(args)
                return real(*args)

            monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
            done: list[int] = []
            for index in range(1000):
                dispatcher.run(done.append, index)
            gate.set()
            soon(lambda: len(done) == 1000)
            monkeypatch.undo()
        assert done == list(range(1000))
        assert len(woken) == 1


class TestWrongPlace:
    """What cannot be done here is said at once, and what would be right."""

    def errors(self, logged: list[Line]) -> list[str]:
        return [str(line["exc_info"]) for line in logged if line["log_level"] == "error"]

    def test_stop_in_a_callback(self, lines: list[Line]) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def end(event: WebSocketReceive) -> None:
            try:
                host.stop()
            finally:
                host.WebSocketSend(event.id, "told")

        with no_thread_left(), host.in_thread(), client(host) as peer:
            peer.send("stop")
            assert peer.recv(PATIENCE) == "told"
        (error,) = self.errors(lines)
        assert "would wait here for the callback" in error
        assert "host.stop_soon()" in error

    def test_leaving_the_block_on_the_hosts_thread(self) -> None:
        threaded = make_host().in_thread()
        host = threaded.start()
        caught: list[BaseException] = []

        def leave() -> None:
            try:
                threaded.stop()
            except InvalidState as exc:
                caught.append(exc)

        host._dispatcher.run(leave)
        soon(lambda: caught)
        threaded.stop()

    @pytest.mark.parametrize(
        "use",
        [
            lambda socket: socket.send("x"),
            lambda socket: socket.receive(),
            lambda socket: socket.close(),
            lambda socket: socket.ping(),
        ],
    )
    def test_what_is_awaited_belongs_to_the_hosts_loop(self, use: Callable[[Session], object]) -> None:
        host = make_host()
        seen = Seen(host, "WebSocketUpgrade")
        with no_thread_left(), host.in_thread(), client(host):
            id = seen.wait_for("WebSocketUpgrade").id  # type: ignore[attr-defined]
            with pytest.raises(InvalidState, match="WebSocketSend"):
                asyncio.run(use(host.sockets[id]))  # type: ignore[arg-type]

    def test_events_belong_to_the_hosts_loop(self) -> None:
        host = make_host()
        early = host.events()

        async def first() -> object:
            return await anext(early)

        with no_thread_left(), host.in_thread():
            with pytest.raises(InvalidState, match="dq"):
                host.events()
            with pytest.raises(InvalidState, match="dq"):
                asyncio.run(first())

    def test_stop_belongs_to_the_hosts_loop(self) -> None:
        async def program() -> None:
            async with make_host() as host:

                async def stop() -> None:
                    await host.stop()

                with pytest.raises(InvalidState, match="another"):
                    await asyncio.to_thread(asyncio.run, stop())
                await asyncio.to_thread(host.stop_soon)
                await host.stop()

        asyncio.run(program())

    def test_before_and_after(self) -> None:
        host = make_host()
        for call in (host.stop_soon, host.dq):
            with pytest.raises(InvalidState, match="in_thread"):
                call()
        with host.in_thread(), pytest.raises(InvalidState, match="running"):
            host.in_thread()
        assert host.dq() is None
        for use in (host.in_thread, host.dq, lambda: host.address):
            with pytest.raises(InvalidState, match="stopped"):
                use()
        with pytest.raises(UnknownSocket):
            host.WebSocketSend("0123456789abcde", "x")
        host.stop()
        host.stop_soon()
