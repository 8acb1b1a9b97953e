"""The WebSocket interface (WebSockets Standard section 3): constructor, attributes, close() and send()."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from inspect import isasyncgen

import pytest
import pytest_asyncio

from interceptor import (
    DOMException,
    InvalidArgument,
    InvalidHandler,
    InvalidState,
    SocketClosed,
    UnsupportedType,
)
from interceptor.client import Blob, WebSocket
from interceptor.exceptions import ConnectFailure

from .peer import BINARY, CLOSE, TEXT, until
from .served import FAILED, Site, closed, note, record
from .wire import BOTH_LOOPS, Line, lines, quiet_loop, turns

__all__ = ["lines", "quiet_loop"]

pytestmark = BOTH_LOOPS


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    async with Site.serving() as site:
        yield site


# The constructor


async def test_the_constants_are_on_the_class() -> None:
    assert (WebSocket.CONNECTING, WebSocket.OPEN, WebSocket.CLOSING, WebSocket.CLOSED) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("url", "protocols"),
    [("nowhere", ()), ("ftp://e", ()), ("ws://e#f", ()), ("ws://e", ["a", "a"]), ("ws://e", "a b")],
)
async def test_constructor_steps_3_6_7_and_9_throw_syntax_error(url: str, protocols: str | list[str]) -> None:
    with pytest.raises(DOMException) as error:
        WebSocket(url, protocols)
    assert error.value.name == "SyntaxError"


async def test_constructor_initial_values(site: Site) -> None:
    socket = WebSocket(f"http://127.0.0.1:{site.port}", "chat")
    assert (socket.url, socket.readyState) == (site.url, socket.CONNECTING)
    assert (socket.bufferedAmount, socket.extensions, socket.protocol, socket.binaryType) == (
        0,
        "",
        "",
        "blob",
    )
    assert (socket.onopen, socket.onmessage, socket.onerror, socket.onclose) == (None, None, None, None)
    assert socket.diagnosis is None
    assert repr(socket) == f"<WebSocket CONNECTING {site.url}>"
    socket.close()


async def test_constructor_step_12_the_connection_is_begun_at_once(site: Site) -> None:
    socket = WebSocket("chat?x=1#"[:-1], ["b", "a"], base_url=site.url, origin="http://page.test")
    served = await site.accept()
    assert served.lines[0] == "GET /chat?x=1 HTTP/1.1"
    assert served.field("Host") == f"127.0.0.1:{site.port}"
    assert (served.field("Sec-WebSocket-Protocol"), served.field("Origin")) == ("b, a", "http://page.test")
    socket.close()


async def test_options_beyond_the_standard_reach_the_request(site: Site) -> None:
    socket = WebSocket(site.url, headers={"Cookie": "a=b"}, compression=False)
    served = await site.accept()
    assert (served.field("Cookie"), served.field("Sec-WebSocket-Extensions")) == ("a=b", None)
    assert served.field("Origin") is None
    socket.close()


@pytest.mark.parametrize(
    "options", [{"headers": {"Upgrade": "x"}}, {"origin": "a\nb"}, {"proxy": "socks5://x"}, {"proxy": "x"}]
)
async def test_options_that_cannot_be_used_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        WebSocket("ws://127.0.0.1/", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"max_size": 0}, {"close_timeout": 0}, {"ping_interval": -1}, {"max_buffered": 0}]
)
async def test_limits_that_cannot_be_used_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        WebSocket("ws://127.0.0.1/", **options)  # type: ignore[arg-type]


async def test_without_a_loop_it_says_what_is_needed() -> None:
    with pytest.raises(InvalidState, match="running event loop"):
        await asyncio.to_thread(WebSocket, "ws://127.0.0.1/")


# binaryType


async def test_binary_type_decides_what_comes(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    await served.send(served.frame(BINARY, b"one"))
    await until(lambda: len(seen) == 2)
    socket.binaryType = "arraybuffer"
    await served.send(served.frame(BINARY, b"two"))
    await until(lambda: len(seen) == 3)
    assert seen == [("open",), ("message", "blob", b"one"), ("message", b"two")]
    socket.close()


async def test_binary_type_of_another_value_changes_nothing(site: Site, lines: list[Line]) -> None:
    socket = WebSocket(site.url)
    socket.binaryType = "bytes"  # type: ignore[assignment]
    assert socket.binaryType == "blob"
    assert "'blob' or 'arraybuffer'" in lines[0]["event"]
    socket.close()


# send()


async def test_send_step_1_throws_invalid_state_error_while_connecting(site: Site) -> None:
    socket = WebSocket(site.url)
    with pytest.raises(DOMException, match="not open yet") as error:
        socket.send("x")
    assert (error.value.name, socket.bufferedAmount) == ("InvalidStateError", 0)
    socket.close()


@pytest.mark.parametrize(
    ("data", "opcode", "payload"),
    [
        ("Grüße 🎈", TEXT, "Grüße 🎈".encode()),
        ("", TEXT, b""),
        ("a\ud800b", TEXT, b"a\xef\xbf\xbdb"),
        ("\ud83c\udf88", TEXT, "🎈".encode()),
        (Blob(["a", b"\0"]), BINARY, b"a\0"),
        (b"bytes", BINARY, b"bytes"),
        (bytearray(b"array"), BINARY, b"array"),
        (memoryview(b"a view")[2:], BINARY, b"view"),
    ],
)
async def test_send_step_2_sends_each_type_and_counts_its_bytes(
    site: Site, data: str | bytes | Blob, opcode: int, payload: bytes
) -> None:
    socket = WebSocket(site.url)
    served = await site.open(socket)
    socket.send(data)
    assert socket.bufferedAmount == len(payload)
    frame = await served.receive()
    assert (frame.opcode, frame.payload, frame.fin) == (opcode, payload, True)
    await until(lambda: socket.bufferedAmount == 0)
    socket.close()


@pytest.mark.parametrize("data", [None, 1, [1, 2], object()])
async def test_send_of_another_type_is_refused(site: Site, data: object) -> None:
    socket = WebSocket(site.url)
    await site.open(socket)
    with pytest.raises(UnsupportedType):
        socket.send(data)  # type: ignore[arg-type]
    socket.close()


# close()


@pytest.mark.parametrize(
    "code",
    [
        0,
        1,
        999,
        999.4,
        1001,
        1005,
        1006,
        1011,
        1015,
        2999,
        2999.4,
        5000,
        65536 + 1000,
        -1,
        float("nan"),
        float("inf"),
        True,
    ],
)
async def test_close_step_1_throws_invalid_access_error(site: Site, code: float) -> None:
    socket = WebSocket(site.url)
    with pytest.raises(DOMException) as error:
        socket.close(code, "x" * 124)
    assert (error.value.name, socket.readyState) == ("InvalidAccessError", socket.CONNECTING)
    socket.close()


@pytest.mark.parametrize(
    ("code", "sent"),
    [(1000, 1000), (3000, 3000), (4999, 4999), (999.6, 1000), (1000.5, 1000), (4999.4, 4999)],
)
async def test_close_clamps_its_code(site: Site, code: float, sent: int) -> None:
    socket = WebSocket(site.url)
    served = await site.open(socket)
    socket.close(code)
    assert await served.close_code() == sent


@pytest.mark.parametrize("reason", ["x" * 124, "ü" * 62, "\ud800" * 42])
async def test_close_step_2_throws_syntax_error(site: Site, reason: str) -> None:
    socket = WebSocket(site.url)
    with pytest.raises(DOMException, match="123") as error:
        socket.close(1000, reason)
    assert (error.value.name, socket.readyState) == ("SyntaxError", socket.CONNECTING)
    socket.close()


@pytest.mark.parametrize("wrong", [("1000",), (1000, b"x"), (object(),)])
async def test_close_of_another_type_is_refused(site: Site, wrong: tuple[object, ...]) -> None:
    socket = WebSocket(site.url)
    with pytest.raises(UnsupportedType):
        socket.close(*wrong)  # type: ignore[arg-type]
    socket.close()


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ((), b""),
        ((None, "dropped"), b""),
        ((1000,), b"\x03\xe8"),
        ((1000, ""), b"\x03\xe8"),
        ((3001, "bye"), b"\x0b\xb9bye"),
        ((1000, "x" * 123), b"\x03\xe8" + b"x" * 123),
        ((1000, "\ud800!"), b"\x03\xe8\xef\xbf\xbd!"),
    ],
)
async def test_close_step_3_starts_the_closing_handshake(
    site: Site, arguments: tuple[int, str], payload: bytes
) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    socket.close(*arguments)
    assert socket.readyState == socket.CLOSING
    frame = await served.receive()
    assert (frame.opcode, frame.payload) == (CLOSE, payload)
    await served.send(served.frame(CLOSE, payload))
    await served.end()
    code = int.from_bytes(payload[:2], "big") or 1005
    await closed(socket)
    assert seen == [("open",), ("close", code, payload[2:].decode(), True)]
    assert socket.readyState == socket.CLOSED


async def test_close_step_3_fails_a_connection_that_is_not_established(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.accept()
    socket.close(1000, "never mind")
    assert (socket.readyState, seen) == (socket.CLOSING, [])
    await closed(socket)
    assert seen == FAILED
    assert await served.rest() == b""
    with pytest.raises(SocketClosed) as error:
        await socket.opened
    assert error.value.code == 1006


async def test_an_answer_that_comes_as_the_socket_is_given_up_is_too_late(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.accept()
    exchange = socket._link._exchange
    assert exchange is not None
    socket.close()
    exchange.done = asyncio.get_running_loop().create_future()  # As before create_connection() has returned.
    exchange.data_received(f"HTTP/1.1 101 \r\n{served.fields}\r\n".encode())
    assert isinstance(exchange.done.exception(), ConnectFailure)
    await closed(socket)
    assert seen == FAILED
    assert await served.rest() == b""


async def test_an_answer_that_comes_as_the_time_is_over_is_in_time(site: Site) -> None:
    socket = WebSocket(site.url)
    served = await site.open(socket)
    socket._link._failed(ConnectFailure("timeout", "too late"))
    await turns()
    socket.send("x")
    assert (await served.receive()).payload == b"x"
    socket.close()


async def test_close_step_3_does_nothing_twice(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    socket.close(3000)
    socket.close(3001)
    assert await served.close_code() == 3000
    await served.send(served.close_frame(3000))
    await served.end()
    await closed(socket)
    socket.close(3002)
    assert seen == [("open",), ("close", 3000, "", True)]


async def test_close_keeps_what_was_sent_before(site: Site) -> None:
    socket = WebSocket(site.url, compression=False)
    served = await site.open(socket)
    sent = [bytes([index]) * 300_000 for index in range(20)]
    for data in sent:
        socket.send(data)
    socket.close(1000)
    assert [(await served.receive()).payload for _ in sent] == sent
    assert await served.close_code() == 1000


async def test_close_in_the_task_of_the_opening_comes_before_open(site: Site) -> None:
    """Established on the wire, and not yet told: no open event may follow a close()."""
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.accept()
    original = socket.link_opened

    def close_first(accepted: object) -> None:
        socket.close(4000)
        original(accepted)  # type: ignore[arg-type]

    socket.link_opened = close_first  # type: ignore[method-assign]
    await served.switch()
    assert await served.close_code() == 4000
    await served.send(served.close_frame(4000))
    await served.end()
    await closed(socket)
    assert seen == [("close", 4000, "", True)]


# Python's own


async def test_async_with_gives_messages_and_closes_with_1000(site: Site) -> None:
    async def serve() -> int | None:
        served = await site.accept()
        await served.switch(after=served.frame(TEXT, "early") + served.frame(TEXT, "bird"))
        code = await served.close_code()
        await served.send(served.close_frame(1000))
        await served.end()
        return code

    serving = asyncio.create_task(serve())
    async with WebSocket(site.url) as socket:
        seen = []
        async for event in socket:
            seen.append(note(event))
            if len(seen) == 2:
                break
    assert seen == [("message", "early"), ("message", "bird")]
    assert await serving == 1000
    assert socket.readyState == socket.CLOSED


async def test_async_for_ends_with_the_socket(site: Site) -> None:
    socket = WebSocket(site.url)
    messages = aiter(socket)
    served = await site.open(socket)
    await served.send(served.frame(TEXT, "last"), served.close_frame(1001, "gone"))
    await served.close_code()
    await served.end()
    assert [note(event) async for event in messages] == [("message", "last")]
    assert (await closed(socket)).code == 1001
    assert [event async for event in socket] == []
    assert not isasyncgen(aiter(socket)), "uvloop's debug mode crashes where one is let go early"


async def test_a_reader_that_is_slow_stops_the_sender(site: Site) -> None:
    socket = WebSocket(site.url, compression=False)
    messages = aiter(socket)
    served = await site.open(socket)
    piece = served.frame(BINARY, bytes(100_000))
    served.writer.transport.set_write_buffer_limits(0)
    sending = asyncio.create_task(served.send(*[piece] * 300))
    taken = 0
    await anext(messages)
    await until(lambda: socket._link._held)
    await turns(300)
    assert not sending.done()
    while not sending.done() or taken < 299:
        await anext(messages)
        taken += 1
    socket.close()


async def test_close_does_not_wait_for_a_reader_that_stopped(site: Site) -> None:
    socket = WebSocket(site.url, compression=False)
    aiter(socket)
    served = await site.open(socket)
    flood = asyncio.create_task(served.send(*[served.frame(BINARY, bytes(100_000))] * 300))
    await until(lambda: socket._link._held)
    socket.close(1000)
    await flood
    assert await served.close_code() == 1000
    await served.send(served.close_frame(1000))
    await served.end()
    assert (await closed(socket)).wasClean


async def test_async_listeners_that_are_slow_stop_the_sender(site: Site) -> None:
    gate, count = asyncio.Event(), 0

    async def slow(event: object) -> None:
        nonlocal count
        await gate.wait()
        count += 1

    socket = WebSocket(site.url, compression=False)
    socket.onmessage = slow
    served = await site.open(socket)
    flood = asyncio.create_task(served.send(*[served.frame(BINARY, bytes(100_000))] * 300))
    await until(lambda: socket._link._held)
    await turns(300)
    assert not flood.done()
    gate.set()
    await flood
    await until(lambda: count == 300)
    socket.close()


async def test_opened_raises_where_the_socket_fails(site: Site) -> None:
    socket = WebSocket(site.url)
    served = await site.accept()
    await served.send(b"HTTP/1.1 403 No\r\n\r\n")
    with pytest.raises(SocketClosed) as error:
        await socket.opened
    assert error.value.code == 1006
    with pytest.raises(SocketClosed):
        async with socket:
            pytest.fail("it is not open")


async def test_async_with_that_is_cancelled_leaves_nothing(site: Site) -> None:
    socket = WebSocket(site.url)

    async def enter() -> None:
        async with socket:
            pytest.fail("it is not open")

    task = asyncio.create_task(enter())
    served = await site.accept()
    task.cancel()
    assert await served.rest() == b""
    assert (await closed(socket)).code == 1006


async def test_a_handler_that_cannot_be_called_with_one_event_is_refused(site: Site) -> None:
    socket = WebSocket(site.url)
    with pytest.raises(InvalidHandler):
        socket.onopen = lambda: None
    with pytest.raises(InvalidHandler):
        socket.addEventListener("open", lambda a, b: None)
    socket.close()
