"""WebSocketSend, WebSocketClose and answer: what they take and refuse, from every thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from interceptor import (
    Host,
    InterceptorError,
    InvalidArgument,
    State,
    UnknownSocket,
    UnsupportedType,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.payload import Data

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
from .programs import ask, everything, make_host, messages, opened
from .wire import Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop


def in_thread(function: Callable[[], object]) -> object:
    """What a function returns, or raises, on a thread of its own."""
    result: list[object] = []

    def work() -> None:
        try:
            result.append(function())
        except InterceptorError as exc:
            result.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return result[0]


def uses(host: Host, id: str) -> list[Callable[[], int]]:
    """What needs an open ID."""
    return [lambda: host.WebSocketSend(id, "x"), lambda: host.WebSocketClose(id)]


class TestSend:
    """WebSocketSend()."""

    @pytest.mark.parametrize(
        ("data", "opcode", "expected"),
        [
            ("text", None, Frame(TEXT, b"text")),
            ("", None, Frame(TEXT, b"")),
            ("\U0001f600", None, Frame(TEXT, b"\xf0\x9f\x98\x80")),
            (b"\xff", None, Frame(BINARY, b"\xff")),
            (bytearray(b"x"), None, Frame(BINARY, b"x")),
            (memoryview(b"xyz")[::2], None, Frame(BINARY, b"xz")),
            ([104, -1, 0], None, Frame(BINARY, b"h\xff\x00")),
            ((), None, Frame(BINARY, b"")),
            (range(3), None, Frame(BINARY, b"\x00\x01\x02")),
            ("text", 2, Frame(BINARY, b"text")),
            (b"text", 1, Frame(TEXT, b"text")),
            ([104, 105], 1, Frame(TEXT, b"hi")),
        ],
    )
    async def test_data(self, data: Data, opcode: Any, expected: Frame) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                assert host.WebSocketSend(id, data, opcode=opcode) == 0
                assert await peer.frame() == expected

    @pytest.mark.parametrize(
        ("data", "opcode", "error"),
        [
            (None, None, UnsupportedType),
            (5, None, UnsupportedType),
            (1.5, None, UnsupportedType),
            ({"a": 1}, None, UnsupportedType),
            ({1, 2}, None, UnsupportedType),
            (iter([1]), None, UnsupportedType),
            (["a"], None, UnsupportedType),
            ([256], None, InvalidArgument),
            ([-129], None, InvalidArgument),
            ("\ud800", None, InvalidArgument),
            (b"\xff", 1, InvalidArgument),
            ("x", 3, InvalidArgument),
            ("x", 8, InvalidArgument),
            ("x", -1, InvalidArgument),
            ("x", True, InvalidArgument),
        ],
    )
    async def test_what_cannot_be_sent(self, data: Data, opcode: Any, error: type[InterceptorError]) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                with pytest.raises(error):
                    host.WebSocketSend(id, data, opcode=opcode)
                assert isinstance(in_thread(lambda: host.WebSocketSend(id, data, opcode=opcode)), error)
                host.WebSocketSend(id, "fine")
                assert await peer.frame() == Frame(TEXT, b"fine")

    async def test_pieces(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                host.WebSocketSend(id, "a", fin=False)
                await peer.send(frame(PING, "?"))
                host.WebSocketSend(id, "b", fin=False, opcode=0)
                with pytest.raises(InvalidArgument, match="text message is unfinished"):
                    host.WebSocketSend(id, b"other")
                host.WebSocketSend(id, b"c", fin=True, opcode=0)
                host.WebSocketSend(id, b"d", fin=False)
                with pytest.raises(InvalidArgument, match="binary message is unfinished"):
                    host.WebSocketSend(id, "other")
                host.WebSocketSend(id, b"")
                host.WebSocketSend(id, "whole")
                got = [await peer.frame() for _ in range(7)]
        assert Frame(PONG, b"?") in got
        got.remove(Frame(PONG, b"?"))
        assert got == [
            Frame(TEXT, b"a", fin=False),
            Frame(CONT, b"b", fin=False),
            Frame(CONT, b"c"),
            Frame(BINARY, b"d", fin=False),
            Frame(CONT, b""),
            Frame(TEXT, b"whole"),
        ]

    async def test_data_that_is_changed_afterwards(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                data = bytearray(b"before")
                assert in_thread(lambda: host.WebSocketSend(id, data)) == 0
                data[:] = b"after!"
                assert (await peer.frame()).payload == b"before"

    @pytest.mark.parametrize("id", ["", "0123456789abcde", None, 5, [], {}, b"0123456789abcde"])
    async def test_ids_that_are_not_open(self, id: str) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen):
                calls: list[Callable[[], int]] = [
                    lambda: host.WebSocketSend(id, "x"),
                    lambda: host.WebSocketClose(id),
                    lambda: host.answer(id, []),
                ]
                for call in calls:
                    with pytest.raises(UnknownSocket) as caught:
                        call()
                    assert caught.value.id is id
                    assert isinstance(caught.value, LookupError)
                    assert isinstance(in_thread(call), UnknownSocket)

    async def test_an_upgrade_that_waits_is_not_open(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with Peer.connect(host) as peer:
                await peer.send(ask(host, "/manual"))
                id = (await seen.wait_for(WebSocketUpgrade)).id
                for call in uses(host, id):
                    with pytest.raises(UnknownSocket):
                        call()

    async def test_an_id_that_has_ended(self, lines: list[Line]) -> None:
        """Until its WebSocketClose is reported sends go nowhere, for it cannot know; then they fail."""
        host = make_host()
        results: list[object] = []

        @host.on("WebSocketReceive")
        async def answer(event: WebSocketReceive) -> None:
            await until(lambda: host.sockets[event.id].state is State.CLOSED)
            results.append(host.WebSocketSend(event.id, "nobody reads this"))
            results.append(host.WebSocketClose(event.id))

        @host.on("WebSocketClose")
        def ended(event: WebSocketClose) -> None:
            with pytest.raises(UnknownSocket):
                host.WebSocketSend(event.id, "late")
            with pytest.raises(UnknownSocket):
                host.WebSocketClose(event.id)
            results.append("refused")

        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, id):
            await peer.send(frame(TEXT, "x") + close_frame())
            await seen.wait_for(WebSocketClose)
            assert results == [0, 0, "refused"]
            await until(lambda: not host.sockets)
            with pytest.raises(UnknownSocket):
                host.WebSocketSend(id, "x")
        assert not [line for line in lines if line["log_level"] == "error"]

    async def test_in_the_callback_that_reports_its_upgrade(self) -> None:
        """An automatic one is open by then; a manual one is, once it was answered."""
        host = make_host()
        refused: list[str] = []

        @host.on("WebSocketUpgrade")
        def greet(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
            if event.type == "auto":
                host.WebSocketSend(event.id, "welcome")
                return None
            with pytest.raises(UnknownSocket):
                host.WebSocketSend(event.id, "too early")
            refused.append(event.id)
            host.answer(event.id, event.accept())
            host.WebSocketSend(event.id, "welcome")
            host.WebSocketClose(event.id, 3000)
            return None

        async with host, Peer.open(host) as auto, Peer.open(host, "/manual") as manual:
            assert await auto.frame() == Frame(TEXT, b"welcome")
            assert await manual.frame() == Frame(TEXT, b"welcome")
            assert await manual.close_code() == 3000
        assert len(refused) == 1

    async def test_in_the_callback_that_reports_its_end(self) -> None:
        host = make_host()
        refused: list[UnknownSocket] = []
        codes: list[int | None] = []

        @host.on("WebSocketClose")
        async def ended(event: WebSocketClose) -> None:
            for use in uses(host, event.id):
                try:
                    use()
                except UnknownSocket as exc:
                    refused.append(exc)
            codes.append(host.sockets[event.id].close_code)

        seen = Recorder(host)
        async with host, opened(host, seen) as (peer, _):
            await peer.send(close_frame(3000))
            await seen.wait_for(WebSocketClose)
        assert codes == [3000], "it is still there to be asked"
        assert len(refused) == 2
        assert "ended" in str(refused[0])


class TestClose:
    """WebSocketClose()."""

    @pytest.mark.parametrize(
        ("code", "reason"), [(1000, ""), (3000, "a"), (4999, "\u00e9" * 61), (4000, "x" * 123)]
    )
    async def test_codes_and_reasons(self, code: int, reason: str) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                assert host.WebSocketClose(id, code, reason) == 0
                got = await peer.frame()
                assert got == Frame(CLOSE, code.to_bytes(2, "big") + reason.encode())

    @pytest.mark.parametrize(
        ("code", "reason", "error"),
        [
            (0, "", InvalidArgument),
            (1001, "", InvalidArgument),
            (1005, "", InvalidArgument),
            (1006, "", InvalidArgument),
            (1011, "", InvalidArgument),
            (2999, "", InvalidArgument),
            (5000, "", InvalidArgument),
            (1000, "x" * 124, InvalidArgument),
            (1000, "\u00e9" * 62, InvalidArgument),
            (1000, "\ud800", InvalidArgument),
            ("1000", "", UnsupportedType),
            (1000.0, "", UnsupportedType),
            (True, "", UnsupportedType),
            (None, "", UnsupportedType),
            (1000, b"bye", UnsupportedType),
            (1000, None, UnsupportedType),
        ],
    )
    async def test_what_cannot_be_used(self, code: int, reason: str, error: type[InterceptorError]) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                with pytest.raises(error):
                    host.WebSocketClose(id, code, reason)
                host.WebSocketSend(id, "still open")
                assert await peer.frame() == Frame(TEXT, b"still open")

    async def test_codes_are_value_errors(self) -> None:
        with pytest.raises(ValueError, match="3000 to 4999"):
            Host().WebSocketClose("0123456789abcde", 1001)

    async def test_twice(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                host.WebSocketClose(id, 3000)
                for call in uses(host, id):
                    with pytest.raises(UnknownSocket):
                        call()
                assert [f.opcode for f in await everything(peer)] == [CLOSE]


class TestThreads:
    """Calls from other threads."""

    async def test_threads_keep_their_order(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):

                def work(name: str) -> None:
                    for text in messages(200):
                        assert host.WebSocketSend(id, name + text) == 0

                await asyncio.gather(*(asyncio.to_thread(work, name) for name in "abc"))
                host.WebSocketClose(id)
                got = [f.payload.decode() for f in (await everything(peer))[:-1]]
        for name in "abc":
            assert [text[1:] for text in got if text[0] == name] == messages(200)

    async def test_a_send_of_the_loop_does_not_overtake_one_of_a_thread(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                in_thread(lambda: host.WebSocketSend(id, "1"))
                host.WebSocketSend(id, "2")
                in_thread(lambda: host.WebSocketSend(id, "3"))
                sending = asyncio.create_task(host.sockets[id].send("4"))
                in_thread(lambda: host.WebSocketSend(id, "5"))
                await sending
                got = [(await peer.frame()).payload for _ in range(5)]
        assert sorted(got) == [b"1", b"2", b"3", b"4", b"5"]
        assert got[:3] == [b"1", b"2", b"3"]

    async def test_a_close_of_a_thread_counts_at_once(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (peer, id):
                assert in_thread(lambda: host.WebSocketClose(id, 3000, "bye")) == 0
                for call in uses(host, id):
                    with pytest.raises(UnknownSocket):
                        call()
                    assert isinstance(in_thread(call), UnknownSocket)
                assert (await peer.frame()).payload == b"\x0b\xb8bye"

    async def test_an_answer_of_a_thread(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with Peer.connect(host) as peer:
                await peer.send(ask(host, "/manual"))
                event = await seen.wait_for(WebSocketUpgrade)
                assert in_thread(lambda: host.answer(event.id, event.accept())) == 0
                assert (await peer.answer()).status == 101
                assert isinstance(in_thread(lambda: host.answer(event.id, event.deny())), UnknownSocket)
                assert in_thread(lambda: host.WebSocketSend(event.id, "hello")) == 0
                assert (await peer.frame()).payload == b"hello"

    def test_before_start_and_after_the_end(self) -> None:
        host = make_host()
        ids: list[str] = ["0123456789abcde"]

        async def run() -> None:
            seen = Recorder(host)
            async with host, opened(host, seen) as (_, id):
                ids.append(id)

        assert isinstance(in_thread(lambda: host.WebSocketSend(ids[0], "x")), UnknownSocket)
        asyncio.run(run())
        for id in ids:
            assert isinstance(in_thread(lambda id=id: host.WebSocketSend(id, "x")), UnknownSocket)  # type: ignore[misc]

    async def test_an_event_in_place_of_its_id(self) -> None:
        async with make_host() as host:
            seen = Recorder(host)
            async with opened(host, seen) as (_, id):
                wrong: Any = host.sockets[id], seen.events[0], 5, []
                for one in wrong:
                    text = rf"an ID is a str, not {type(one).__name__}; pass event\.id"
                    calls: list[Callable[[], int]] = [*uses(host, one), partial(host.answer, one, ())]
                    for call in calls:
                        with pytest.raises(UnknownSocket, match=text):
                            call()
