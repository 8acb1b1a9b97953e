"""Manual upgrades answered on other threads than the loop's, and sends by their IDs before it knows."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.headers import parse_extension
from websockets.sync.client import ClientConnection

from interceptor import Host, Limits, UnknownSocket, WebSocketError, WebSocketReceive, WebSocketUpgrade
from interceptor.answering import agree, program_answer, usual_answer
from interceptor.events import TOKEN_PREFIX, upgrade_event
from interceptor.exceptions import InvalidAnswer
from interceptor.handshake import Answer, Offer
from interceptor.outgoing import FULL

from .peer import KEY, PATIENCE, request
from .test_events_upgrade import Place
from .test_post import status_of
from .threads import Program, Seen, assert_true, client, make_host, no_thread_left, soon
from .wire import SWITCHED
from .wire import quiet_loop as quiet_loop


@contextmanager
def held(host: Host, last: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Keep the host's loop busy; `last` is what it does before it goes on."""
    entered, gate = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert_true(gate.wait(PATIENCE))
        last()

    host._dispatcher.run(hold)
    assert entered.wait(PATIENCE)
    try:
        yield
    finally:
        gate.set()


def hear(peer: ClientConnection) -> list[str | bytes]:
    """All messages up to the end."""
    heard = []
    with suppress(ConnectionClosed):
        while True:
            heard.append(peer.recv(PATIENCE))
    return heard


class Call:
    """A client in a thread of its own, which asks for a manual upgrade and hears all that comes."""

    def __init__(self, host: Host, seen: Seen) -> None:
        self.heard: list[str | bytes] = []
        self.code: int | None = None
        self.status = 101
        self._thread = threading.Thread(target=self._run, args=(host,))
        self._thread.start()
        event = seen.wait_for("WebSocketUpgrade")
        assert isinstance(event, WebSocketUpgrade)
        self.event = event

    def _run(self, host: Host) -> None:
        try:
            with client(host, "/manual") as peer:
                self.heard = hear(peer)
                self.code = peer.close_code
        except InvalidStatus as refused:
            self.status = refused.response.status_code
        except InvalidMessage:
            self.status = 0

    def ended(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class TestAccepted:
    """Once the answer is given the ID can be used."""

    def test_messages_and_a_close_go_out_after_the_101_in_order(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            id = call.event.id
            with held(host):
                assert host.answer(id, call.event.accept()) == 0
                assert id not in host.sockets
                assert host.WebSocketSend(id, "one") == 0
                host.WebSocketSend(id, b"two")
                host.WebSocketSend(id, "th", fin=False)
                host.WebSocketSend(id, "ree")
                assert host.broadcast([id], "four") == 1
                host.WebSocketClose(id, 3001, "enough")
                with pytest.raises(UnknownSocket, match="the program has closed this socket"):
                    host.WebSocketSend(id, "late")
            call.ended()
            assert (call.status, call.heard, call.code) == (101, ["one", b"two", "three", "four"], 3001)
            assert seen.wait_for("WebSocketClose").code == 3001  # type: ignore[attr-defined]
        assert seen.names() == ["WebSocketUpgrade", "WebSocketClose"]

    def test_from_a_third_thread_and_from_the_loop(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            id = call.event.id
            with held(host, lambda: host.WebSocketSend(id, "the loop's")):
                host.answer(id, call.event.accept())
                other = threading.Thread(target=host.WebSocketSend, args=(id, "another's"))
                other.start()
                other.join(PATIENCE)
            soon(lambda: id in host.sockets)
            assert not host._sessions._promised
            assert host.WebSocketClose(id) == 0
            call.ended()
            assert (call.heard, call.code) == (["another's", "the loop's"], 1000)

    def test_nobody_is_ahead_of_the_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        host = make_host()
        seen = Seen(host)
        at_it, gate = threading.Event(), threading.Event()
        run = host._dispatcher.run

        def run_late(function: Callable[..., object], *args: object) -> None:
            if threading.current_thread() is answering:
                at_it.set()
                assert_true(gate.wait(PATIENCE))
            run(function, *args)

        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            id = call.event.id
            answering = threading.Thread(target=host.answer, args=(id, call.event.accept()))
            closing = threading.Thread(target=host.WebSocketClose, args=(id, 3000))
            monkeypatch.setattr(host._dispatcher, "run", run_late)
            answering.start()
            assert at_it.wait(PATIENCE)
            closing.start()
            closing.join(0.1)  # It cannot come to its end before the answer is on its way.
            gate.set()
            answering.join(PATIENCE)
            closing.join(PATIENCE)
            call.ended()
            assert (call.status, call.code) == (101, 3000)

    def test_bytes_that_happen_to_be_right(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            answer = call.event.accept().headers
            assert isinstance(answer, str)
            with held(host):
                host.answer(call.event.id, call.event.verbatim(answer.encode()))
                host.WebSocketSend(call.event.id, "hello")
                host.WebSocketClose(call.event.id)
            call.ended()
            assert call.heard == ["hello"]

    def test_no_more_than_the_mark_is_kept(self) -> None:
        host = make_host(limits=Limits(write_buffer=10_000))
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            with held(host):
                host.answer(call.event.id, call.event.accept())
                for _ in range(100):
                    host.WebSocketSend(call.event.id, bytes(1000))
                assert len(host._dispatcher._calls) < 15
            error = seen.wait_for("WebSocketError")
            assert isinstance(error, WebSocketError)
            assert error.text == FULL
            call.ended()
            assert len(call.heard) < 12
            assert seen.wait_for("WebSocketClose").code == 1006  # type: ignore[attr-defined]

    def test_the_time_for_an_answer_does_not_run_out_while_it_is_on_its_way(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            session = host._sessions.pending[call.event.id]
            with held(host, session._answer_timed_out):
                host.answer(call.event.id, call.event.accept())
                host.WebSocketSend(call.event.id, "in time")
                host.WebSocketClose(call.event.id)
            call.ended()
            assert (call.status, call.heard) == (101, ["in time"])


class TestReturned:
    """The same where a callback on the program's own thread returns the answer."""

    def test_by_post(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            holds: list[object] = []

            @host.on("WebSocketUpgrade")
            def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
                hold = held(host)
                hold.__enter__()
                holds.append(hold)
                # What the GUI does next.
                program.post(lambda: assert_true(host.WebSocketSend(event.id, "next") == 0))
                program.post(lambda: assert_true(host.WebSocketClose(event.id) == 0))
                program.post(lambda: assert_true(not hold.__exit__(None, None, None)))
                return event.accept()

            seen = Seen(host)
            with host.in_thread():
                call = Call(host, seen)
                call.ended()
                assert (call.status, call.heard, call.code) == (101, ["next"], 1000)
                assert len(holds) == 1

    def test_by_dq(self) -> None:
        host = make_host()
        asked: list[WebSocketUpgrade] = []
        heard: list[str | bytes] = []

        @host.on("WebSocketUpgrade")
        def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
            hold.__enter__()
            asked.append(event)
            return event.accept()

        def talk() -> None:
            with client(host, "/manual") as peer:
                heard.extend(hear(peer))

        with no_thread_left(), host.in_thread(dq=True):
            hold = held(host)
            thread = threading.Thread(target=talk)
            thread.start()
            while not asked:
                assert host.dq(0.001) is None
            host.WebSocketSend(asked[0].id, "next")
            host.WebSocketClose(asked[0].id, 3000)
            hold.__exit__(None, None, None)
            event = host.dq(PATIENCE)
            assert event is not None
            assert event.event == "WebSocketClose"
            thread.join(PATIENCE)
        assert heard == ["next"]

    def test_one_that_is_not_valid_opens_nothing(self) -> None:
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            seen = Seen(host)
            refused: list[str] = []

            @host.on("WebSocketUpgrade")
            def answer(event: WebSocketUpgrade) -> Any:
                def send() -> None:
                    with pytest.raises(UnknownSocket):
                        host.WebSocketSend(event.id, "next")
                    refused.append(event.id)

                program.post(send)
                return "HTTP/1.1 101 Switching Protocols\r\n\r\n"

            with host.in_thread():
                assert status_of(host, "/manual") == 500
                assert "return event.accept()" in seen.wait_for("WebSocketError").text  # type: ignore[attr-defined]
                soon(lambda: refused)


class TestNotAccepted:
    """An answer that opens nothing gives nothing to send by."""

    @pytest.mark.parametrize("answer", ["deny", "drop", "invalid", "verbatim"])
    def test_sends_are_refused(self, answer: str) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread(), socket.create_connection(host.address) as raw:
            raw.settimeout(PATIENCE)
            raw.sendall(request("/manual", "myapp"))
            event = seen.wait_for("WebSocketUpgrade")
            assert isinstance(event, WebSocketUpgrade)
            message: WebSocketUpgrade = {
                "deny": event.deny(403),
                "drop": event.drop(),
                "invalid": event.answer("HTTP/1.1 101 No\r\n\r\n"),
                "verbatim": event.verbatim(b"HTTP/1.1 101 No\r\n\r\n"),
            }[answer]
            with held(host):
                assert host.answer(event.id, message) == 0
                with pytest.raises(UnknownSocket):
                    host.WebSocketSend(event.id, "x")
                with pytest.raises(UnknownSocket):
                    host.WebSocketClose(event.id)
                assert host.broadcast([event.id], "x") == 0
            said = b"".join(iter(lambda: raw.recv(4096), b""))
            assert (
                said.partition(b"\r\n")[0]
                == {
                    "deny": b"HTTP/1.1 403 Forbidden",
                    "drop": b"",
                    "invalid": b"HTTP/1.1 500 Internal Server Error",
                    "verbatim": b"HTTP/1.1 101 No",
                }[answer]
            )
            if answer == "invalid":
                assert "the answer is not valid" in seen.wait_for("WebSocketError").text  # type: ignore[attr-defined]
        assert seen.names()[1:] == (["WebSocketError"] if answer == "invalid" else [])

    def test_a_second_answer_is_refused_at_once(self) -> None:
        host = make_host()
        seen = Seen(host)
        with no_thread_left(), host.in_thread():
            call = Call(host, seen)
            id = call.event.id
            with held(host):
                host.answer(id, call.event.accept())
                late: Any
                for late in (call.event.deny(), call.event.accept(), "nonsense"):
                    with pytest.raises(UnknownSocket, match="waits for an answer"):
                        host.answer(id, late)
                host.WebSocketClose(id, 3000)
            call.ended()
            assert (call.status, call.code) == (101, 3000)

    def test_the_first_answer_counts_and_its_sends_arrive(self) -> None:
        """Whichever of many threads, the callback and the loop is first."""
        host = make_host()
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with no_thread_left(), host.in_thread():
                for round in range(30):
                    self._race(host, round)
        finally:
            sys.setswitchinterval(before)

    def _race(self, host: Host, round: int) -> None:
        seen = Seen(host)
        won: list[str] = []
        call = Call(host, seen)
        event = call.event
        barrier = threading.Barrier(4)

        def answer(name: str, message: WebSocketUpgrade) -> None:
            barrier.wait(PATIENCE)
            try:
                host.answer(event.id, message)
            except UnknownSocket:
                return
            won.append(name)
            if name != "deny":
                host.WebSocketSend(event.id, name)
                host.WebSocketClose(event.id)

        threads = [
            threading.Thread(target=answer, args=(name, event.deny() if name == "deny" else event.accept()))
            for name in ("one", "deny", "two", "three")
        ]
        for thread in threads[round % 4 :] + threads[: round % 4]:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        call.ended()
        assert len(won) == 1
        assert (call.status, call.heard) == ((403, []) if won == ["deny"] else (101, won))
        if won != ["deny"]:
            seen.wait_for("WebSocketClose")
        host.off("All", seen._take)


def test_the_client_left_meanwhile() -> None:
    """What is sent is dropped until WebSocketError was reported; then the ID is none."""
    host = make_host()
    seen = Seen(host)
    entered, gate = threading.Event(), threading.Event()
    tried: list[bool] = []

    @host.on("WebSocketReceive")
    def block(event: WebSocketReceive) -> None:
        entered.set()
        assert_true(gate.wait(PATIENCE))

    @host.on("WebSocketError")
    def told(event: WebSocketError) -> None:
        with pytest.raises(UnknownSocket):
            host.WebSocketSend(event.id, "in the callback")
        tried.append(True)

    with no_thread_left(), host.in_thread(), client(host) as other:
        leaving = socket.create_connection(host.address)
        leaving.sendall(request("/manual", "myapp"))
        event = seen.wait_for("WebSocketUpgrade", 2)
        assert isinstance(event, WebSocketUpgrade)
        with held(host):  # When the loop goes on it reads of both, of this one first.
            other.send("x")
            leaving.close()
        assert entered.wait(PATIENCE)
        assert host.answer(event.id, event.accept()) == 0
        assert host.WebSocketSend(event.id, "dropped") == 0
        gate.set()
        error = seen.wait_for("WebSocketError")
        assert isinstance(error, WebSocketError)
        assert (error.id, error.text) == (event.id, "the client went away before it was answered")
        soon(lambda: not host._sessions._promised)
        with pytest.raises(UnknownSocket):
            host.WebSocketSend(event.id, "late")
        assert tried == [True]
    assert "WebSocketClose" not in [e.event for e in seen.events if getattr(e, "id", "") == event.id]


def test_after_its_callback_a_failed_one_is_gone_on_the_programs_thread() -> None:
    with no_thread_left(), Program() as program:
        host = make_host(program.post)
        tried: list[str] = []

        @host.on("WebSocketError")
        def told(event: WebSocketError) -> None:
            hold = held(host)
            hold.__enter__()

            def send() -> None:
                with pytest.raises(UnknownSocket):
                    host.WebSocketSend(event.id, "the loop does not know that it was told")
                hold.__exit__(None, None, None)
                tried.append(event.id)

            program.post(send)

        seen = Seen(host, "WebSocketUpgrade")
        with host.in_thread():
            call = Call(host, seen)
            session = host._sessions.pending[call.event.id]
            with held(host, session.client_gone):
                host.answer(call.event.id, call.event.accept())
            soon(lambda: tried)
            call.ended()


def test_a_client_reads_the_101_first() -> None:
    host = make_host()
    seen = Seen(host)
    with no_thread_left(), host.in_thread(), socket.create_connection(host.address) as raw:
        raw.settimeout(PATIENCE)
        raw.sendall(request("/manual", "myapp"))
        event = seen.wait_for("WebSocketUpgrade")
        assert isinstance(event, WebSocketUpgrade)
        with held(host):
            host.answer(event.id, event.accept())
            host.WebSocketSend(event.id, "hi")
        said = b""
        while len(said) < len(SWITCHED) + 4:
            said += raw.recv(4096)
        assert said == SWITCHED + b"\x81\x02hi"


CHROMIUM = "permessage-deflate; client_max_window_bits"
USUAL = [
    Offer(KEY, subprotocols, tuple(parse_extension(asked)) if asked else ())
    for subprotocols in ((), ("chat",), ("chat", f"{TOKEN_PREFIX}abc"))
    for asked in ("", CHROMIUM, f"x-unknown, {CHROMIUM}")
]


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("offer", USUAL)
def test_the_usual_answer_is_what_accept_writes_and_what_a_check_finds(
    offer: Offer, compression: bool
) -> None:
    agreed = agree(offer, compression)
    usual = usual_answer(offer, agreed).data.decode()
    names = f"Sec-WebSocket-Protocol: {', '.join(offer.subprotocols)}\r\n" if offer.subprotocols else ""
    head = f"GET / HTTP/1.1\r\nSec-WebSocket-Key: {KEY}\r\n{names}\r\n"
    made = [
        upgrade_event(Place(), "0" * 15, "ws://a/", head, "manual", agreed.header, text).accept()
        for text in ("", usual)
    ]
    assert made[0].headers == made[1].headers == usual
    short, long = (program_answer(made[0], "0" * 15, offer, text, compression) for text in (usual, ""))
    assert (short.data, short.status) == (long.data, long.status) == (usual.encode(), 101)
    assert [found(answer) for answer in (short, long)] == [found(usual_answer(offer, agreed))] * 2


def found(answer: Answer) -> tuple[object, ...]:
    """What an answer agrees to, to be compared."""
    accepted = answer.accepted
    assert accepted is not None
    extensions = [
        (each.local_max_window_bits, each.remote_max_window_bits, each.compress_settings)
        for each in accepted.extensions
        if isinstance(each, PerMessageDeflate)
    ]
    return accepted.subprotocol, accepted.header, extensions


def test_accept_with_arguments_is_not_the_usual_answer() -> None:
    head = f"GET / HTTP/1.1\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    event = upgrade_event(Place(), "0" * 15, "ws://a/", head, "manual", "x-ext", "usual")
    assert event.accept().headers == "usual"
    assert "\r\nSec-WebSocket-Protocol: chat\r\n" in str(event.accept("chat").headers)
    assert "\r\nX-Way: a\r\n" in str(event.accept(headers={"X-Way": "a"}).headers)
    assert "x-ext" not in str(event.accept(compression=False).headers)
    with pytest.raises(InvalidAnswer, match="holds no request"):
        event.accept().accept()
