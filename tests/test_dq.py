"""host.dq(): callbacks in the thread that calls it, and events that have none returned."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from interceptor import (
    Event,
    Host,
    InvalidArgument,
    InvalidState,
    Limits,
    Session,
    Timeouts,
    UnknownSocket,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import PATIENCE
from .threads import Program, Seen, client, dial, make_host, no_thread_left, soon
from .wire import Line
from .wire import lines as lines


def send_all(peer: ClientConnection, pieces: list[bytes]) -> None:
    """Send one message after the other."""
    for piece in pieces:
        peer.send(piece)


def take(host: Host, name: str) -> Event:
    """The next event from dq(), which is to be this one."""
    event = host.dq(PATIENCE)
    assert event is not None
    assert event.event == name
    return event


class TestEvents:
    """What dq() returns."""

    @pytest.mark.parametrize("at_once", [False, True])
    def test_events_without_a_callback_in_order(self, at_once: bool) -> None:
        host = make_host()
        with no_thread_left(), host.in_thread(dq=at_once):
            with client(host) as peer:
                upgrade = take(host, "WebSocketUpgrade")
                assert isinstance(upgrade, WebSocketUpgrade)
                for text in ("a", "b", "c"):
                    peer.send(text)
                for text in ("a", "b", "c"):
                    event = take(host, "WebSocketReceive")
                    assert isinstance(event, WebSocketReceive)
                    assert (event.id, event.data) == (upgrade.id, text)
                host.WebSocketSend(upgrade.id, "heard")
                assert peer.recv(PATIENCE) == "heard"
            event = take(host, "WebSocketClose")
            assert isinstance(event, WebSocketClose)
            assert event.code == 1000
            with pytest.raises(UnknownSocket):
                host.WebSocketSend(upgrade.id, "x")
            with pytest.raises(UnknownSocket):
                host.WebSocketClose(upgrade.id)
            assert host.dq(0) is None

    def test_what_came_before_the_first_call_is_there(self) -> None:
        host = make_host()
        with no_thread_left(), host.in_thread():
            with client(host) as peer:
                peer.send("early")
                peer.ping().wait(PATIENCE)
                for name in ("WebSocketUpgrade", "WebSocketReceive"):
                    take(host, name)
            take(host, "WebSocketClose")

    def test_of_what_comes_before_it_only_so_much_is_kept(self, lines: list[Line]) -> None:
        host = make_host(limits=Limits(read_buffer=10_000))
        with no_thread_left(), host.in_thread(), client(host) as peer:
            for index in range(100):
                peer.send(f"{index:1000}")
            peer.ping().wait(PATIENCE)
            take(host, "WebSocketUpgrade")
            data = []
            while (event := host.dq(0)) is not None:
                assert isinstance(event, WebSocketReceive)
                data.append(int(event.data))
            assert data == list(range(len(data)))
            assert 0 < len(data) < 10
            (warning,) = [line for line in lines if "dropped" in line["event"]]
            assert warning["count"] == 100 - len(data)
            peer.send("late")
            assert take(host, "WebSocketReceive").data == "late"  # type: ignore[attr-defined]

    def test_time_out(self) -> None:
        with no_thread_left(), make_host().in_thread() as host:
            begun = time.monotonic()
            assert host.dq(0) is None
            assert host.dq(timeout=0.05) is None
            assert time.monotonic() - begun >= 0.05

    def test_time_is_over_though_callbacks_go_on(self) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def echo(event: WebSocketReceive) -> None:
            host.WebSocketSend(event.id, event.data)

        host.on("WebSocketUpgrade")(lambda event: None)
        over = threading.Event()

        def talk() -> None:
            with client(host) as peer:
                while not over.is_set():
                    peer.send("x")
                    peer.recv(PATIENCE)

        with no_thread_left(), host.in_thread(dq=True):
            thread = threading.Thread(target=talk)
            thread.start()
            assert host.dq(0.2) is None
            over.set()
            take(host, "WebSocketClose")
            thread.join(PATIENCE)

    def test_a_timeout_of_nothing_runs_what_waits(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread(dq=True):
            peers = [dial(host) for _ in range(5)]
            soon(lambda: len(host._dispatcher._queue.crossing) == 5)  # type: ignore[union-attr]
            assert host.dq(0) is None
            assert seen.names() == ["WebSocketUpgrade"] * 5
            for peer in peers:
                peer.close()

    @pytest.mark.parametrize("timeout", [-1, "1", float("nan"), [], -0.1])
    def test_bad_timeouts(self, timeout: float) -> None:
        with make_host().in_thread() as host, pytest.raises(InvalidArgument, match="seconds"):
            host.dq(timeout)

    def test_it_returns_when_the_host_stops(self) -> None:
        host = make_host()
        with no_thread_left(), host.in_thread():
            stopper = threading.Timer(0.05, host.stop)
            stopper.start()
            assert host.dq() is None
            stopper.join(PATIENCE)
            with pytest.raises(InvalidState, match="stopped"):
                host.dq()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_it_says_that_the_host_has_stopped_whenever_that_was(self, at_once: bool) -> None:
        """The program was busy with an event when another thread stopped the host."""
        host = make_host()
        with no_thread_left(), host.in_thread(dq=at_once):
            peer = dial(host)
            assert take(host, "WebSocketUpgrade")
            stopper = threading.Thread(target=host.stop)
            stopper.start()
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)
            assert take(host, "WebSocketClose")
            stopper.join(PATIENCE)
            assert host.dq() is None
            for timeout in (None, 0, 1):
                with pytest.raises(InvalidState, match="leave the loop when dq"):
                    host.dq(timeout)

    @pytest.mark.parametrize("at_once", [True, False])
    def test_it_says_so_once_also_after_a_stop_of_the_same_thread(self, at_once: bool) -> None:
        host = make_host()
        with no_thread_left(), host.in_thread(dq=at_once):
            assert host.dq(0) is None
            assert host.is_running
            host.stop()
            assert not host.is_running
            assert host.dq() is None
            with pytest.raises(InvalidState, match="leave the loop when dq"):
                host.dq(0)

    def test_its_end_and_that_of_the_block_may_come_together(self) -> None:
        """Another thread stops the host, and this one leaves the block as soon as dq() says so."""
        for _ in range(30):
            host = make_host()
            with no_thread_left():
                stopper = threading.Thread(target=host.stop)
                with host.in_thread(dq=True):
                    stopper.start()
                    while host.dq() is not None:
                        """Nothing comes."""
                stopper.join(PATIENCE)
                assert not stopper.is_alive()

    def test_a_callback_that_a_stop_runs_is_no_place_for_it(self) -> None:
        host, told = make_host(), list[str]()

        @host.on("WebSocketClose")
        def ask(event: WebSocketClose) -> None:
            with pytest.raises(InvalidState) as caught:
                host.dq(0)
            told.append(str(caught.value))

        with no_thread_left(), host.in_thread(dq=True):
            peer = dial(host)
            take(host, "WebSocketUpgrade")
            host.stop()
            peer.close()
        assert len(told) == 1
        assert told[0].startswith("dq() inside of dq()")

    async def test_without_a_thread_of_its_own_it_never_hangs(self) -> None:
        async with make_host() as host:
            pass
        with pytest.raises(InvalidState, match="stopped"):
            await asyncio.to_thread(host.dq)

    def test_streams_and_routes_have_theirs(self) -> None:
        host = make_host()
        got: list[object] = []

        @host.route("ws://myapp/route")
        async def route(socket: Session) -> None:
            async for message in socket:
                got.append(message)
                await socket.send(message)

        with no_thread_left(), host.in_thread(dq=True):
            with client(host, "/route") as peer:
                peer.send("x")
                assert peer.recv(PATIENCE) == "x"
            assert host.dq(0.05) is None
        assert got == ["x"]


class TestCallbacks:
    """What dq() runs."""

    def test_they_run_in_the_calling_thread_and_in_order(self) -> None:
        host = make_host()
        seen = Seen(host, "WebSocketReceive")
        with no_thread_left(), host.in_thread(dq=True), client(host) as one, client(host) as two:
            for index in range(100):
                one.send(f"1 {index}")
                two.send(f"2 {index}")
            for _ in range(2):
                take(host, "WebSocketUpgrade")
            while len(seen.events) < 200:
                assert host.dq(0.1) is None
        assert seen.threads == {threading.get_ident()}
        for name in "12":
            data = [str(text) for text in seen.data() if str(text).startswith(name)]
            assert data == [f"{name} {index}" for index in range(100)]

    def test_from_the_first_call_on(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            with client(host) as peer:
                seen.wait_for("WebSocketUpgrade")
                assert threading.get_ident() not in seen.threads
                assert host.dq(0) is None
                seen.threads.clear()
                peer.send("x")
                while len(seen.events) < 2:
                    assert host.dq(0.05) is None
            assert seen.threads == {threading.get_ident()}
            host.dq(0)

    def test_manual_handshakes(self) -> None:
        host = make_host()

        @host.on("WebSocketUpgrade")
        def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
            return event.accept(subprotocol="chat") if threading.get_ident() == main else event.deny(500)

        main = threading.get_ident()
        got: list[str | None] = []

        def talk() -> None:
            with client(host, "/manual", subprotocols=["chat"]) as peer:
                got.append(peer.subprotocol)

        with no_thread_left(), host.in_thread(dq=True):
            thread = threading.Thread(target=talk)
            thread.start()
            take(host, "WebSocketClose")
            thread.join(PATIENCE)
        assert got == ["chat"]

    def test_async_and_mixed(self) -> None:
        host = make_host()
        order: list[tuple[str, bool]] = []

        def note(name: str) -> None:
            order.append((name, threading.get_ident() == main))

        @host.on("WebSocketReceive")
        def first(event: WebSocketReceive) -> None:
            note(f"plain {event.data!s}")

        @host.on("WebSocketReceive")
        async def second(event: WebSocketReceive) -> None:
            await asyncio.sleep(0)
            note(f"async {event.data!s}")

        @host.on("WebSocketReceive")
        def third(event: WebSocketReceive) -> None:
            note(f"last {event.data!s}")

        main = threading.get_ident()
        with no_thread_left(), host.in_thread(dq=True):
            with client(host) as peer:
                peer.send("1")
                peer.send("2")
                take(host, "WebSocketUpgrade")
                while len(order) < 6:
                    assert host.dq(0.01) is None
            take(host, "WebSocketClose")
        assert order == [
            (f"{name} {number}", name != "async") for number in "12" for name in ("plain", "async", "last")
        ]

    def test_handlers_change_while_events_wait(self) -> None:
        host = make_host()
        got: list[tuple[str, object]] = []
        first: Callable[[WebSocketReceive], None] = lambda event: got.append(("first", event.data))  # noqa: E731

        @host.on("WebSocketReceive")
        def once(event: WebSocketReceive) -> None:
            host.off("WebSocketReceive", once)
            if event.data == "1":
                host.on("WebSocketReceive")(first)
            else:
                host.on("WebSocketReceive")(later)

        async def later(event: WebSocketReceive) -> None:
            got.append(("later", event.data))

        with no_thread_left(), host.in_thread(dq=True), client(host) as peer:
            for text in "123":
                peer.send(text)
            take(host, "WebSocketUpgrade")
            while len(got) < 2:
                assert host.dq(0.01) is None
            assert got == [("first", "2"), ("first", "3")]
            host.off("WebSocketReceive", first)
            host.on("WebSocketReceive")(once)
            for text in "456":
                peer.send(text)
            while len(got) < 4:
                assert host.dq(0.01) is None
            assert got[2:] == [("later", "5"), ("later", "6")]
            host.off("WebSocketReceive", later)
            peer.send("7")
            assert take(host, "WebSocketReceive").data == "7"  # type: ignore[attr-defined]

    def test_a_handler_that_comes_while_its_event_waits_here(self, lines: list[Line]) -> None:
        host = make_host()
        got: list[str] = []
        host.on("WebSocketUpgrade")(lambda event: got.append("plain"))

        async def late(event: Event) -> None:
            got.append("async")

        with no_thread_left(), host.in_thread(dq=True), client(host):
            soon(lambda: len(host._dispatcher._queue.crossing) == 1)  # type: ignore[union-attr]
            host.on("WebSocketUpgrade")(late)
            while len(got) < 2:
                assert host.dq(0.01) is None
        assert got == ["plain", "async"]
        assert not [line for line in lines if line["log_level"] == "error"]

    def test_an_event_behind_an_async_callback_is_given_out(self) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        async def wait(event: WebSocketReceive) -> None:
            session = host.sockets[event.id]
            while not session._lane._queue:  # noqa: ASYNC110  # for the end, which is behind this
                await asyncio.sleep(0.001)

        with no_thread_left(), host.in_thread(dq=True):
            with client(host) as peer:
                take(host, "WebSocketUpgrade")
                peer.send("x")
            take(host, "WebSocketClose")

    def test_an_exception_is_logged_once_and_stops_nothing(self, lines: list[Line]) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def fail(event: WebSocketReceive) -> None:
            host.WebSocketSend(event.id, event.data)
            raise ZeroDivisionError

        with no_thread_left(), host.in_thread(dq=True), client(host) as peer:
            id = take(host, "WebSocketUpgrade").id  # type: ignore[attr-defined]
            for text in ("1", "2"):
                peer.send(text)
                assert host.dq(0.05) is None
                assert peer.recv(PATIENCE) == text
        errors = [line for line in lines if line["log_level"] == "error"]
        assert [(line["id"], type(line["exc_info"])) for line in errors] == [(id, ZeroDivisionError)] * 2

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_what_ends_the_program_comes_out_and_nothing_is_stuck(self, kind: type[BaseException]) -> None:
        host = make_host()
        got: list[object] = []

        @host.on("WebSocketReceive")
        def leave(event: WebSocketReceive) -> None:
            got.append(event.data)
            if event.data == "leave":
                raise kind

        with no_thread_left(), host.in_thread(dq=True), client(host) as peer:
            take(host, "WebSocketUpgrade")
            peer.send("leave")
            peer.send("after")
            with pytest.raises(kind):
                host.dq(PATIENCE)
            while len(got) < 2:
                assert host.dq(0.01) is None
        assert got == ["leave", "after"]

    def test_what_is_left_runs_at_the_end_of_the_block(self) -> None:
        host = make_host(timeouts=Timeouts(close=PATIENCE))
        seen = Seen(host)
        with no_thread_left():
            with host.in_thread(dq=True):
                peer = dial(host)
                peer.send("x")
                peer.ping().wait(PATIENCE)
                begun = time.monotonic()
            assert time.monotonic() - begun < PATIENCE
            assert seen.names() == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"]
            assert seen.threads == {threading.get_ident()}
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)

    def test_events_that_nobody_takes_do_not_keep_the_end(self) -> None:
        host = make_host(timeouts=Timeouts(close=3600))
        with no_thread_left(), host.in_thread(dq=True), client(host) as peer:
            peer.send("x")
            take(host, "WebSocketUpgrade")

    def test_nobody_in_dq_keeps_no_more_than_the_mark(self) -> None:
        limit = 50_000
        host = make_host(limits=Limits(read_buffer=limit))
        seen = Seen(host, "WebSocketReceive")
        pieces = [bytes([index % 256]) * 1000 for index in range(2000)]
        with no_thread_left(), host.in_thread(dq=True), client(host) as peer, client(host) as other:
            sender = threading.Thread(target=send_all, args=(peer, pieces))
            sender.start()
            for _ in range(2):
                take(host, "WebSocketUpgrade")
            session = next(iter(host.sockets.values()))
            soon(lambda: session._lane._held or session._lane._undelivered > limit)
            # Another socket is read meanwhile.
            other.ping().wait(PATIENCE)
            assert session._lane._undelivered < limit + 64 * 1024 * 2
            while len(seen.events) < len(pieces):
                assert host.dq(0.05) is None
                assert session._lane._undelivered < limit + 64 * 1024 * 2
            sender.join(PATIENCE)
        assert seen.data() == pieces


class TestWrongPlace:
    """What would wait for ever says so."""

    def test_dq_in_dq(self, lines: list[Line]) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def nest(event: WebSocketReceive) -> None:
            try:
                host.dq()
            finally:
                host.WebSocketSend(event.id, "told")

        with no_thread_left(), host.in_thread(dq=True), client(host) as peer:
            take(host, "WebSocketUpgrade")
            peer.send("x")
            assert host.dq(0.05) is None
            assert peer.recv(PATIENCE) == "told"
            assert host.dq(0) is None
        (error,) = [str(line["exc_info"]) for line in lines if line["log_level"] == "error"]
        assert "inside of dq()" in error
        assert "return from the callback" in error

    def test_two_threads_at_once(self) -> None:
        host = make_host()
        with no_thread_left(), host.in_thread():
            thread = threading.Thread(target=host.dq)
            thread.start()
            soon(lambda: host._dispatcher._queue._taker)  # type: ignore[union-attr]
            with pytest.raises(InvalidState, match="another thread"):
                host.dq(0)
            host.stop()
            thread.join(PATIENCE)

    def test_on_the_hosts_thread(self, lines: list[Line]) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def wait(event: WebSocketReceive) -> None:
            try:
                host.dq()
            finally:
                host.WebSocketSend(event.id, "told")

        with no_thread_left(), host.in_thread(), client(host) as peer:
            peer.send("x")
            assert peer.recv(PATIENCE) == "told"
        (error,) = [str(line["exc_info"]) for line in lines if line["log_level"] == "error"]
        assert "host.events()" in error

    def test_in_a_program_of_asyncio(self) -> None:
        async def program() -> None:
            async with make_host() as host:
                with pytest.raises(InvalidState, match=r"host\.events\(\)"):
                    host.dq()
                waiting = asyncio.create_task(asyncio.to_thread(host.dq, PATIENCE))
                # A worker thread may wait, though.
                while host._dispatcher.crossing is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                peer = await asyncio.to_thread(dial, host)
                event = await waiting
                assert event is not None
                assert event.event == "WebSocketUpgrade"
                closing = asyncio.create_task(asyncio.to_thread(peer.close))
                event = await asyncio.to_thread(host.dq, PATIENCE)
                assert event is not None
                assert event.event == "WebSocketClose"
                await closing

        with no_thread_left():
            asyncio.run(program())

    def test_with_post(self) -> None:
        with Program() as program:
            host = make_host(program.post)
            with pytest.raises(InvalidState, match="post"):
                host.in_thread(dq=True)
            with host.in_thread(), pytest.raises(InvalidState, match="post"):
                host.dq()

    def test_stop_in_a_callback(self, lines: list[Line]) -> None:
        host = make_host()

        @host.on("WebSocketReceive")
        def end(event: WebSocketReceive) -> None:
            if event.data == "soon":
                host.stop_soon()
            else:
                host.stop()

        with no_thread_left(), host.in_thread(dq=True):
            peer = dial(host)
            take(host, "WebSocketUpgrade")
            peer.send("now")
            assert host.dq(0.05) is None
            peer.send("soon")
            assert take(host, "WebSocketClose").code == 1001  # type: ignore[attr-defined]
            assert host.dq() is None
            peer.close()
        (error,) = [str(line["exc_info"]) for line in lines if line["log_level"] == "error"]
        assert "host.stop_soon()" in error


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_ctrl_c() -> None:
    """A signal gets through to a dq() that waits for ever."""
    host = make_host()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with no_thread_left(), pytest.raises(KeyboardInterrupt), host.in_thread():  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            host.dq()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert repr(host) == "<Host 'host' stopped>"
