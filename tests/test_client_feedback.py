"""What the wire brings (WebSockets Standard section 4): order, codes, failures; and its section 7."""

from __future__ import annotations

import asyncio
import gc
import socket as sockets
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import ref

import pytest
import pytest_asyncio

from interceptor import Host
from interceptor.client import WebSocket

from .answers import CASES
from .pair import Clock
from .peer import BINARY, CLOSE, PING, TEXT, until
from .served import FAILED, Served, Site, closed, record
from .wire import ANYONE, BOTH_LOOPS, Line, lines, quiet_loop, turns

__all__ = ["lines", "quiet_loop"]

pytestmark = BOTH_LOOPS


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    async with Site.serving() as site:
        yield site


# Established


async def test_open_has_state_extensions_and_protocol_set_before_it(site: Site) -> None:
    socket = WebSocket(site.url, ["a", "b"])
    seen: list[tuple[int, str, str]] = []
    socket.onopen = lambda event: seen.append((socket.readyState, socket.extensions, socket.protocol))
    served = await site.accept()
    await served.switch("Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n")
    await until(lambda: seen)
    assert seen == [(1, "permessage-deflate", "b")]
    socket.close()


async def test_what_comes_in_one_packet_with_the_101_comes_after_open_in_order(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.accept()
    frames = served.frame(TEXT, "1") + served.frame(BINARY, b"2") + served.close_frame(4001, "bye")
    await served.switch(after=frames)
    assert await served.close_code() == 4001
    await served.end()
    await closed(socket)
    assert seen == [("open",), ("message", "1"), ("message", "blob", b"2"), ("close", 4001, "bye", True)]


# Messages


async def test_a_message_while_closing_is_dropped(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    socket.close(1000)
    await served.send(served.frame(TEXT, "too late"), served.close_frame(1000))
    await served.close_code()
    await served.end()
    await closed(socket)
    assert seen == [("open",), ("close", 1000, "", True)]


async def test_the_origin_of_a_message_is_that_of_the_url(site: Site) -> None:
    socket = WebSocket(f"ws://user:x@127.0.0.1:{site.port}/path?q")
    origins: list[str] = []
    socket.onmessage = lambda event: origins.append(event.origin)
    served = await site.open(socket)
    await served.send(served.frame(TEXT, "x"))
    await until(lambda: origins)
    assert origins == [f"ws://127.0.0.1:{site.port}"]
    assert served.field("Authorization") is None
    socket.close()


async def test_text_keeps_its_byte_order_mark_and_fragments_are_one_message(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    await served.send(
        served.frame(TEXT, "\ufeffa", fin=False), served.frame(PING, b"p"), served.frame(0, "b")
    )
    assert (await served.receive()).payload == b"p"
    await until(lambda: len(seen) == 2)
    assert seen[1] == ("message", "\ufeffab")
    socket.close()


# Closing

ENDS = {
    "1000": (b"\x03\xe8", (1000, "", True)),
    "none: 1005": (b"", (1005, "", True)),
    "3000 with a reason": (b"\x0b\xb8\xef\xbb\xbfwhy", (3000, "\ufeffwhy", True)),
    "1012": (b"\x03\xf4", (1012, "", True)),
}


@pytest.mark.parametrize("name", ENDS)
async def test_the_servers_close_gives_closing_then_closed(site: Site, name: str) -> None:
    payload, expected = ENDS[name]
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    await served.send(served.frame(CLOSE, payload))
    assert (await served.receive()).payload == payload
    await until(lambda: socket.readyState == socket.CLOSING)
    assert seen == [("open",)]  # Closed only when TCP is (RFC 6455 section 7.1.4), which the server begins.
    await served.end()
    await closed(socket)
    assert seen == [("open",), ("close", *expected)]
    assert socket.diagnosis is None


async def test_a_server_that_leaves_tcp_open_is_cut_off(site: Site) -> None:
    clock = Clock()
    socket = WebSocket(site.url, close_timeout=5)
    seen = record(socket)
    served = await site.open(socket)
    await served.send(served.close_frame(1000))
    await until(lambda: socket.readyState == socket.CLOSING)
    await clock.pass_by(6)
    await closed(socket)
    assert seen == [("open",), ("close", 1000, "", True)]


async def test_a_server_that_never_answers_our_close_is_cut_off(site: Site) -> None:
    clock = Clock()
    socket = WebSocket(site.url, close_timeout=5)
    seen = record(socket)
    await site.open(socket)
    socket.close(1000)
    await clock.pass_by(6)
    await closed(socket)
    assert seen == [("open",), *FAILED]


# Fail the WebSocket connection


async def bad_frame(served: Served) -> None:
    await served.send(served.frame(3, b"x"))


async def masked_frame(served: Served) -> None:
    await served.send(b"\x81\x81\x01\x02\x03\x04x")


async def bad_text(served: Served) -> None:
    await served.send(served.frame(TEXT, b"\xff"))


async def code_1015(served: Served) -> None:
    await served.send(served.close_frame(1015))


async def code_1006(served: Served) -> None:
    await served.send(served.close_frame(1006))


async def too_big(served: Served) -> None:
    await served.send(served.frame(BINARY, bytes(1001)))


async def lost(served: Served) -> None:
    served.writer.close()


async def reset(served: Served) -> None:
    raw: sockets.socket = served.writer.get_extra_info("socket")
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    served.writer.transport.abort()


FAULTS: list[tuple[Callable[[Served], Awaitable[None]], int | None]] = [
    (bad_frame, 1002),
    (masked_frame, 1002),
    (bad_text, 1007),
    (code_1015, 1002),
    (code_1006, 1002),
    (too_big, 1009),
    (lost, None),
    (reset, None),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS)
async def test_fail_an_open_connection(
    site: Site, fault: Callable[[Served], Awaitable[None]], code: int | None, lines: list[Line]
) -> None:
    socket = WebSocket(site.url, max_size=1000)
    seen = record(socket)
    served = await site.open(socket)
    await fault(served)
    if code is not None:
        assert await served.close_code() == code
    await closed(socket)
    assert seen == [("open",), *FAILED]
    assert socket.diagnosis is not None
    assert (socket.diagnosis.rule, bool(socket.diagnosis.reason)) == ("connection", True)
    assert [line["log_level"] for line in lines if line["event"] == "a WebSocket failed"] == ["debug"]


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.rule not in ("open", "odd", "interim")]
)
async def test_fail_a_handshake_tells_the_program_nothing_but_the_diagnosis(
    name: str, lines: list[Line]
) -> None:
    case = CASES[name]
    host = Host([("*", 2)], security=ANYONE)
    host.on("WebSocketUpgrade")(lambda event: event.verbatim(case.reply(event)))
    async with host:
        socket = WebSocket(host.ws_url("/x"), case.asked)
        seen = record(socket)
        await closed(socket)
    assert seen == FAILED
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == case.rule
    assert socket.diagnosis.request.startswith(b"GET /x?token=")
    assert [line["rule"] for line in lines if line["event"] == "a WebSocket failed"] == [case.rule]
    assert "token" not in str([line for line in lines if line["event"] == "a WebSocket failed"])


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.rule in ("open", "odd", "interim")]
)
async def test_establish_with_an_answer_in_unusual_clothes(name: str) -> None:
    case = CASES[name]
    host = Host([("*", 2)], security=ANYONE)
    host.on("WebSocketUpgrade")(lambda event: event.verbatim(case.reply(event)))
    async with host:
        socket = WebSocket(host.ws_url("/x"), case.asked)
        seen = record(socket)
        await closed_by(socket)
    assert seen[0] == ("open",)


async def closed_by(socket: WebSocket) -> None:
    await socket.opened
    socket.close(1000)
    await closed(socket)


async def test_fail_where_nobody_listens() -> None:
    async with Site.serving() as site:
        url = site.url
    socket = WebSocket(url)
    seen = record(socket)
    await closed(socket)
    assert seen == FAILED
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == "network"
    assert socket.diagnosis.request == b""


@pytest.mark.parametrize(
    ("url", "rule"), [("ws://127.0.0.1:25/", "port"), (f"ws://{'a' * 70}.test/", "network")]
)
async def test_fail_what_cannot_be_connected_to(url: str, rule: str) -> None:
    socket = WebSocket(url)
    await closed(socket)
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == rule


async def test_fail_after_the_time_to_open(site: Site) -> None:
    socket = WebSocket(site.url, open_timeout=0.05)
    seen = record(socket)
    served = await site.accept()
    await closed(socket)
    assert seen == FAILED
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == "timeout"
    assert await served.rest() == b""


# Full

BIG = bytes(4_000_000)


async def test_full_a_socket_whose_buffer_overflows_is_closed(site: Site) -> None:
    socket = WebSocket(site.url, compression=False, max_buffered=20_000_000)
    seen = record(socket)
    served = await site.open(socket)
    served.pause()
    sent = 0
    while socket.diagnosis is None:
        socket.send(BIG)
        sent += len(BIG)
        assert socket.bufferedAmount <= sent
    assert socket.bufferedAmount == sent  # In this task nothing counts as taken.
    await closed(socket)
    assert seen == [("open",), *FAILED]
    assert "full" in socket.diagnosis.reason
    left = socket.bufferedAmount
    assert 20_000_000 < left <= sent
    socket.send("x")
    assert socket.bufferedAmount == left + 1


# bufferedAmount


async def test_buffered_amount_falls_as_the_network_takes_data_but_not_within_a_task(site: Site) -> None:
    socket = WebSocket(site.url, compression=False)
    served = await site.open(socket)
    served.pause()
    for _ in range(10):
        socket.send(BIG)
    assert socket.bufferedAmount == 10 * len(BIG)
    await until(lambda: socket.bufferedAmount < 10 * len(BIG))
    assert socket.bufferedAmount > 5 * len(BIG)
    served.resume()
    for _ in range(10):
        await served.receive()
    await until(lambda: socket.bufferedAmount == 0)
    socket.close()


async def test_buffered_amount_only_rises_after_the_end(site: Site) -> None:
    socket = WebSocket(site.url, compression=False)
    served = await site.open(socket)
    socket.send("12345")
    await served.receive()
    await until(lambda: socket.bufferedAmount == 0)
    socket.close(1000)
    socket.send("ü")
    assert socket.bufferedAmount == 2
    await served.send(served.close_frame(1000))
    await served.end()
    await closed(socket)
    socket.send(b"123")
    assert socket.bufferedAmount == 5


async def test_buffered_amount_keeps_what_was_lost(site: Site) -> None:
    socket = WebSocket(site.url, compression=False)
    served = await site.open(socket)
    served.pause()
    for _ in range(5):
        socket.send(BIG)
    await reset(served)
    await closed(socket)
    left = socket.bufferedAmount
    assert 2 * len(BIG) < left <= 5 * len(BIG)
    socket.send("x")
    assert socket.bufferedAmount == left + 1


# Section 7


async def let_go(make: Callable[[], Awaitable[ref[WebSocket]]]) -> ref[WebSocket]:
    weak = await make()
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    return weak


async def test_gc_an_open_socket_has_nothing_of_its_handshake_any_more(site: Site) -> None:
    asyncio.get_running_loop().set_debug(False)
    tracemalloc.start()
    try:
        socket = WebSocket(site.url)
        served = await site.open(socket, f"X-Large: {'x' * 200_000}\r\n")
        served.head = b""
        await turns()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 400_000
    assert kept < 100_000
    socket.close()
    assert await served.close_code() is None


async def test_gc_an_open_socket_starts_the_closing_handshake_without_a_status(site: Site) -> None:
    async def make() -> tuple[ref[WebSocket], Served]:
        socket = WebSocket(site.url)
        socket.onopen = lambda event: None  # Listeners for open do not count any more.
        return ref(socket), await site.open(socket)

    weak, served = await make()
    gc.collect()
    assert weak() is None
    frame = await served.receive()
    assert (frame.opcode, frame.payload) == (CLOSE, b"")
    await served.send(served.close_frame(None))
    await served.end()


@pytest.mark.parametrize("kind", ["open", "message", "error", "close"])
async def test_gc_spares_a_connecting_socket_with_listeners(site: Site, kind: str) -> None:
    weak = ref(listening(site, kind))
    served = await site.accept()
    gc.collect()
    socket = weak()
    assert socket is not None
    socket.close()
    assert await served.rest() == b""


@pytest.mark.parametrize("kind", ["message", "error", "close"])
async def test_gc_spares_an_open_socket_with_listeners(site: Site, kind: str) -> None:
    weak = ref(listening(site, kind))
    served = await site.accept()
    await served.switch(after=served.frame(PING))
    await served.receive()
    gc.collect()
    socket = weak()
    assert socket is not None
    assert socket.readyState == socket.OPEN
    for event in (kind, "open"):
        socket.removeEventListener(event, print)
    del socket
    gc.collect()
    assert weak() is None


def listening(site: Site, kind: str) -> WebSocket:
    socket = WebSocket(site.url)
    socket.addEventListener(kind, print)
    return socket


@pytest.mark.parametrize(("kind", "spared"), [("error", True), ("close", True), ("message", False)])
async def test_gc_spares_a_closing_socket_with_listeners(site: Site, kind: str, spared: bool) -> None:
    async def make() -> tuple[ref[WebSocket], Served]:
        socket = WebSocket(site.url)
        served = await site.open(socket)
        socket.addEventListener(kind, print)
        socket.close(1000)
        return ref(socket), served

    weak, served = await make()
    assert await served.close_code() == 1000
    gc.collect()
    assert (weak() is not None) is spared
    await served.send(served.close_frame(1000))
    await served.end()
    await until(lambda: gc.collect() is not None and weak() is None)


async def test_gc_spares_a_socket_with_data_queued(site: Site) -> None:
    async def make() -> tuple[ref[WebSocket], Served]:
        socket = WebSocket(site.url, compression=False)
        served = await site.open(socket)
        served.pause()
        for _ in range(10):
            socket.send(BIG)
        return ref(socket), served

    weak, served = await make()
    gc.collect()
    assert weak() is not None
    served.resume()
    for _ in range(10):
        assert len((await served.receive()).payload) == len(BIG)
    assert (await served.receive()).opcode == CLOSE
    assert weak() is None


async def test_gc_a_connecting_socket_that_nobody_has_is_given_up(site: Site) -> None:
    WebSocket(site.url)
    served = await site.waiting.get() if not site.waiting.empty() else None
    await until(lambda: not [task for task in asyncio.all_tasks() if "Link" in repr(task)])
    assert served is None


async def test_gc_spares_a_socket_that_is_awaited(site: Site) -> None:
    seen: list[str] = []

    async def wait() -> None:
        async with WebSocket(site.url) as socket:
            async for event in socket:
                seen.append(str(event.data))
            seen.append(str((await socket.closed).code))

    asyncio.create_task(wait())  # noqa: RUF006  # That nobody holds it is the point.
    served = await site.accept()
    gc.collect()
    await served.switch(after=served.frame(TEXT, "1"))
    await until(lambda: seen == ["1"])
    gc.collect()
    await served.send(served.close_frame(4000))
    assert await served.close_code() == 4000
    gc.collect()
    await served.end()
    await until(lambda: seen == ["1", "4000"])


async def test_disappear_closes_an_open_socket_with_1001(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    served = await site.open(socket)
    socket.disappear()
    socket.disappear()
    assert await served.close_code() == 1001
    assert socket.readyState == socket.CLOSING
    await served.send(served.close_frame(1001))
    await served.end()
    await closed(socket)
    socket.disappear()
    assert seen == [("open",), ("close", 1001, "", True)]


async def test_disappear_fails_a_connecting_socket(site: Site) -> None:
    socket = WebSocket(site.url)
    seen = record(socket)
    socket.disappear()
    await closed(socket)
    assert seen == FAILED


async def test_disappear_does_nothing_once_closing(site: Site) -> None:
    socket = WebSocket(site.url)
    served = await site.open(socket)
    socket.close(4000)
    socket.disappear()
    assert await served.close_code() == 4000
