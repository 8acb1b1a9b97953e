"""Host(post=...): callbacks on the program's own thread, and the guarantees there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from interceptor import (
    Event,
    Host,
    InvalidArgument,
    InvalidState,
    Limits,
    Session,
    Timeouts,
    UnsupportedType,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.dispatch import crossing

from .peer import CLOSE, PATIENCE, TEXT, Peer, close_frame, frame, until
from .threads import Program, Seen, client, dial, make_host, no_thread_left, soon
from .wire import BOTH_LOOPS, Line
from .wire import lines as lines


def status_of(host: Host, path: str) -> int:
    """The status that an upgrade is refused with."""
    with pytest.raises(InvalidStatus) as caught, client(host, path):
        raise AssertionError("it opened")
    status: int = caught.value.response.status_code
    return status


class TestWhere:
    """Which thread a callback runs on."""

    def test_plain_ones_on_the_programs_in_order(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host)
            with host.in_thread():
                with client(host) as one, client(host) as two:
                    for index in range(200):
                        one.send(f"1 {index}")
                        two.send(f"2 {index}")
                    seen.wait_for("WebSocketReceive", 400)
                seen.wait_for("WebSocketClose", 2)
            assert seen.threads == {program.ident}
            for number in "12":
                data = [str(text) for text in seen.data() if str(text).startswith(number)]
                assert data == [f"{number} {index}" for index in range(200)]

    def test_async_ones_and_routes_on_the_hosts(self) -> None:
        where: dict[str, int] = {}
        with no_thread_left(), Program() as program:
            host = make_host(program.post)

            @host.on("WebSocketUpgrade")
            async def opened(event: Event) -> None:
                where["async"] = threading.get_ident()

            @host.on("WebSocketUpgrade")
            def then(event: Event) -> None:
                where["plain after async"] = threading.get_ident()

            @host.route("ws://myapp/route")
            async def route(socket: Session) -> None:
                where["route"] = threading.get_ident()
                async for message in socket:
                    await socket.send(message)

            with host.in_thread(), client(host, "/route") as peer:
                peer.send("x")
                assert peer.recv(PATIENCE) == "x"
                soon(lambda: len(where) == 3)
                hosts = host._dispatcher._thread
        assert where == {"async": hosts, "route": hosts, "plain after async": program.ident}

    def test_many_events_are_few_posts(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host, "WebSocketReceive")
            with host.in_thread(), client(host) as peer:
                gate = threading.Event()
                program.block(gate)
                before = program.posts
                for index in range(500):
                    peer.send(str(index))
                peer.ping().wait(PATIENCE)
                assert program.posts == before + 1
                gate.set()
                seen.wait_for("WebSocketReceive", 500)
            assert seen.data() == [str(index) for index in range(500)]

    def test_the_gui_gets_its_turn_under_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crossing, "SLICE", 0.0)
        turns: list[int] = []
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host, "WebSocketReceive")
            with host.in_thread(), client(host) as peer:
                gate = threading.Event()
                program.block(gate)

                def turn() -> None:
                    turns.append(len(seen.events))
                    if len(seen.events) < 50:
                        program.post(turn)

                for index in range(50):
                    peer.send(str(index))
                peer.ping().wait(PATIENCE)
                program.post(turn)
                gate.set()
                seen.wait_for("WebSocketReceive", 50)
                soon(lambda: turns[-1] == 50)
        # Between any two of the events that wait something else of the GUI's was run.
        assert set(turns) >= set(range(2, 51))

    @pytest.mark.parametrize("workers", [1, 4])
    def test_a_pool_of_threads_keeps_the_order_of_each_socket(self, workers: int) -> None:
        overlap: list[str] = []
        busy: set[str] = set()
        with no_thread_left(), ThreadPoolExecutor(workers) as pool:
            host = make_host(pool.submit)
            got: dict[str, list[object]] = {}

            @host.on("WebSocketReceive")
            def take(event: WebSocketReceive) -> None:
                if event.id in busy:
                    overlap.append(event.id)
                busy.add(event.id)
                got.setdefault(event.id, []).append(event.data)
                busy.discard(event.id)

            with host.in_thread():
                peers = [dial(host) for _ in range(5)]
                for index in range(100):
                    for peer in peers:
                        peer.send(str(index))
                soon(lambda: [len(data) for data in got.values()] == [100] * 5)
                for peer in peers:
                    peer.close()
            assert not overlap
            assert all(data == [str(index) for index in range(100)] for data in got.values())

    @pytest.mark.parametrize("post", ["qt", 1, [print]])
    def test_what_is_no_post(self, post: Callable[[Callable[[], None]], object]) -> None:
        with pytest.raises(UnsupportedType, match=r"interceptor\.gui\.qt\.post"):
            Host(post=post)

    def test_tks_without_its_window(self) -> None:
        tk = pytest.importorskip("interceptor.gui.tk")
        with pytest.raises(InvalidArgument, match=r"write Host\(post=tk\.post\(root\)\)"):
            Host(post=tk.post)

    @BOTH_LOOPS
    async def test_the_programs_own_loop_may_be_the_hosts(self) -> None:
        loop = asyncio.get_running_loop()
        host = make_host(loop.call_soon)
        seen = Seen(host)
        async with host, Peer.open(host) as peer:
            await peer.send(frame(TEXT, "x") + close_frame())
            await until(lambda: len(seen.events) == 3)
        assert seen.names() == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"]


class TestHandshake:
    """Manual handshakes answered from the program's thread."""

    def test_every_form(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            late: list[WebSocketUpgrade] = []

            @host.on("WebSocketUpgrade")
            def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
                assert threading.get_ident() == program.ident
                if event.url.endswith("deny"):
                    return event.deny(403)
                if event.url.endswith("raise"):
                    raise ZeroDivisionError
                if event.url.endswith("late"):
                    late.append(event)
                    return None
                return event.accept(subprotocol="chat")

            def answer_late() -> None:
                soon(lambda: late)
                program.do(lambda: host.answer(late[0].id, late[0].deny(402)))

            with host.in_thread():
                with client(host, "/manual", subprotocols=["chat"]) as peer:
                    assert peer.subprotocol == "chat"
                assert status_of(host, "/manual/deny") == 403
                assert status_of(host, "/manual/raise") == 500
                thread = threading.Thread(target=answer_late)
                thread.start()
                assert status_of(host, "/manual/late") == 402
                thread.join(PATIENCE)

    def test_a_blocked_program_is_504(self, lines: list[Line]) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post, timeouts=Timeouts(answer=0.05, close=5))
            seen = Seen(host)
            gate = threading.Event()
            with host.in_thread():
                program.block(gate)
                assert status_of(host, "/manual") == 504
                gate.set()
                seen.wait_for("WebSocketError")
            assert seen.names() == ["WebSocketUpgrade", "WebSocketError"]


class TestBlocked:
    """The program's thread does something else for long."""

    def test_only_its_own_sockets_wait_and_memory_is_bounded(self) -> None:
        limit = 50_000
        with no_thread_left(), Program() as program:
            host = make_host(program.post, limits=Limits(read_buffer=limit))
            seen = Seen(host, "WebSocketReceive")
            pieces = [bytes([index % 256]) * 1000 for index in range(2000)]

            def flood() -> None:
                for piece in pieces:
                    peer.send(piece)

            gate = threading.Event()
            with host.in_thread(), client(host) as peer:
                program.block(gate)
                soon(lambda: host.sockets)
                (session,) = host.sockets.values()
                sender = threading.Thread(target=flood)
                sender.start()
                soon(lambda: session._lane._held)
                assert session._lane._undelivered < limit + 2 * 64 * 1024
                with client(host, "/elsewhere") as other:  # Opens, though its events wait.
                    other.ping().wait(PATIENCE)
                gate.set()
                seen.wait_for("WebSocketReceive", len(pieces))
                sender.join(PATIENCE)
            assert seen.data() == pieces

    def test_stop_waits_only_so_long(self, lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("interceptor.dispatch.dispatcher.GRACE", 0.1)
        late: list[BaseException] = []
        with no_thread_left(), Program() as program:
            host = make_host(program.post, timeouts=Timeouts(close=0.1))
            gate, begun = threading.Event(), threading.Event()
            ended: list[Event] = []

            @host.on("WebSocketReceive")
            def block(event: WebSocketReceive) -> None:
                begun.set()
                gate.wait(PATIENCE)
                try:
                    host.WebSocketSend(event.id, "late")
                except BaseException as exc:
                    late.append(exc)

            host.on("WebSocketClose")(ended.append)
            with host.in_thread():
                peer = dial(host)
                peer.send("x")
                peer.send("y")
                assert begun.wait(PATIENCE)
                begun_at = time.monotonic()
                host.stop()
                assert time.monotonic() - begun_at < PATIENCE
            gate.set()
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)
            program.do(lambda: None)
            assert not ended, "nothing comes after stop()"
        errors = [line["event"] for line in lines if line["log_level"] == "error"]
        assert errors == ["callbacks will not end and are left running"]

    def test_stop_on_the_programs_thread_runs_what_is_left_there(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post, timeouts=Timeouts(close=3600))
            seen = Seen(host)
            threaded = host.in_thread()
            threaded.start()
            peer = dial(host)
            seen.wait_for("WebSocketUpgrade")
            program.do(threaded.stop)
            assert seen.names() == ["WebSocketUpgrade", "WebSocketClose"]
            assert seen.threads == {program.ident}
            peer.close()

    def test_the_usual_end_of_a_gui_program(self, lines: list[Line]) -> None:
        """Its loop has ended, `post` would say so, and the GUI's thread leaves the block."""
        with no_thread_left(), Program() as program:
            host = make_host(program.post, timeouts=Timeouts(close=3600))
            seen = Seen(host)
            threaded = host.in_thread()
            threaded.start()
            peer = dial(host)
            seen.wait_for("WebSocketUpgrade")

            def leave() -> None:
                program.gone = True
                threaded.stop()

            program.do(leave)
            assert seen.names() == ["WebSocketUpgrade", "WebSocketClose"]
            assert seen.threads == {program.ident}
            peer.close()
        assert not [line for line in lines if line["log_level"] in ("warning", "error")]

    @pytest.mark.parametrize("call", ["stop", "leave"])
    def test_stop_in_a_callback(self, call: str, lines: list[Line]) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            threaded = host.in_thread()
            caught: list[BaseException] = []

            @host.on("WebSocketReceive")
            def end(event: Event) -> None:
                try:
                    host.stop() if call == "stop" else threaded.stop()
                except InvalidState as exc:
                    caught.append(exc)
                host.stop_soon()

            with threaded:
                peer = dial(host)
                peer.send("x")
                with pytest.raises(ConnectionClosed):
                    peer.recv(PATIENCE)
            assert "host.stop_soon()" in str(caught[0])

    def test_a_dialog_in_a_callback_keeps_nobody_else(self) -> None:
        """A callback that runs a loop of its own, as a modal dialog does."""
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            answered = threading.Event()

            @host.on("WebSocketUpgrade")
            def ask(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
                if event.type == "auto":
                    return None
                while not answered.is_set():
                    function = program._functions.get(timeout=PATIENCE)
                    assert function is not None
                    function()
                return event.accept()

            @host.on("WebSocketReceive")
            def echo(event: WebSocketReceive) -> None:
                host.WebSocketSend(event.id, event.data)
                if event.data == "answer":
                    answered.set()

            def wait_at_the_gate() -> None:
                with client(host, "/manual"):
                    opened.append(True)

            opened: list[bool] = []
            with host.in_thread(), client(host) as peer:
                thread = threading.Thread(target=wait_at_the_gate)
                thread.start()
                soon(lambda: host._sessions.pending)
                for text in ("one", "two", "answer"):
                    peer.send(text)
                    assert peer.recv(PATIENCE) == text
                thread.join(PATIENCE)
            assert opened == [True]


class TestGone:
    """`post` raises."""

    def test_upgrades_get_503_sockets_1001_and_the_log_says_why(self, lines: list[Line]) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host)
            with host.in_thread(), client(host) as peer:
                seen.wait_for("WebSocketUpgrade")
                program.gone = True
                peer.send("nobody hears it")
                with pytest.raises(ConnectionClosed):
                    peer.recv(PATIENCE)
                assert peer.close_code == 1001
                for path in ("/", "/manual", "/"):
                    assert status_of(host, path) == 503
                soon(lambda: not host.sockets)
                assert not host._sessions.pending
            assert seen.names() == ["WebSocketUpgrade"]
        (error,) = [line for line in lines if line["log_level"] == "error"]
        assert str(error["exc_info"]) == "the window is closed"
        assert sum("own thread is gone" in str(line.get("why")) for line in lines) == 3

    def test_upgrades_that_wait_are_refused(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host)

            def ask() -> None:
                got.append(status_of(host, "/manual"))

            got: list[int] = []
            with host.in_thread():
                thread = threading.Thread(target=ask)
                thread.start()
                seen.wait_for("WebSocketUpgrade")
                program.gone = True
                assert status_of(host, "/") == 503
                thread.join(PATIENCE)
            assert got == [503]

    def test_a_program_that_comes_back_is_served(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host)
            program.gone = True
            with host.in_thread():
                assert status_of(host, "/") == 503
                program.gone = False
                with client(host) as peer:
                    peer.send("x")
                    seen.wait_for("WebSocketReceive")

    def test_with_a_wake_up_that_is_lost(self, lines: list[Line]) -> None:
        """The GUI's loop ended after it was woken, and before it ran what it was woken for."""
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host)
            with host.in_thread(), client(host) as peer:
                seen.wait_for("WebSocketUpgrade")
                gate = threading.Event()
                program.block(gate)
                peer.send("never heard")
                peer.ping().wait(PATIENCE)
                program.gone = True
                assert status_of(host, "/") == 503
                with pytest.raises(ConnectionClosed):
                    peer.recv(PATIENCE)
                assert peer.close_code == 1001
                gate.set()
        assert "WebSocketReceive" not in seen.names()

    def test_at_the_end_of_a_slice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The program's own thread is told first, and the host by it."""
        monkeypatch.setattr(crossing, "SLICE", 0.0)
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host, "WebSocketReceive")

            @host.on("WebSocketReceive")
            def vanish(event: Event) -> None:
                program.gone = True

            gate = threading.Event()
            with host.in_thread(), client(host) as peer:
                program.block(gate)
                for index in range(3):
                    peer.send(str(index))
                peer.ping().wait(PATIENCE)
                gate.set()
                with pytest.raises(ConnectionClosed):
                    peer.recv(PATIENCE)
            assert len(seen.events) < 3


@BOTH_LOOPS
async def test_what_a_thread_sends_at_once_is_one_write() -> None:
    """All messages of one wake-up leave together, and what is sent before a close goes before it."""
    program = Program()
    host = make_host(program.post)

    @host.on("WebSocketReceive")
    def answer(event: WebSocketReceive) -> None:
        for index in range(10):
            host.WebSocketSend(event.id, str(index))
        host.WebSocketClose(event.id, 3000, "enough")

    ended: list[Event] = []
    host.on("WebSocketClose")(ended.append)
    with program:
        async with host, Peer.open(host) as peer:
            await peer.send(frame(TEXT, "x"))
            assert [(await peer.frame()).payload for _ in range(10)] == [b"%d" % i for i in range(10)]
            assert (await peer.frame()).opcode == CLOSE
            await peer.send(close_frame(3000))
            await until(lambda: ended)
    (event,) = ended
    assert isinstance(event, WebSocketClose)
    assert (event.code, event.was_clean, event.initiator) == (3000, True, "host")
