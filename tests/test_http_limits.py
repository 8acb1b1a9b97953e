"""HTTPRequest: what a request may cost in time and memory, and what never comes to the program."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from interceptor import Host, HTTPRequest, Limits, Security, Timeouts

from .asked import ROWS, ask, host_of, one, origin
from .peer import PATIENCE, Peer, until
from .wire import BOTH_LOOPS, Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS


async def test_an_answer_that_takes_too_long_is_504_and_delays_nobody(lines: list[Line]) -> None:
    cancelled = asyncio.Event()
    host = Host(ROWS, root="myapp", timeouts=Timeouts(answer=0.05))

    @host.on("HTTPRequest")
    async def slow(event: HTTPRequest) -> HTTPRequest:
        if event.url.endswith("/quick"):
            return event.respond("quick")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with host, Peer.connect(host) as peer:
        await peer.send(ask("/slow"))
        assert (await one(host, ask("/quick"))).body == b"quick"
        assert (await peer.answer()).status == 504
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()
    assert any(line["event"] == "no answer to an HTTPRequest in time" for line in lines)


async def test_requests_that_the_program_does_not_take_are_bounded() -> None:
    async with Host(ROWS, root="myapp", limits=Limits(pending=2)) as host, Peer.connect(host) as peer:
        events = host.events()
        async with Peer.connect(host) as other:
            await peer.send(ask("/1"))
            await other.send(ask("/2"))
            await until(lambda: len(host._dispatcher.outbox._waiting) == 2)
            assert (await one(host, ask("/3"))).status == 503
            await anext(events)
            await anext(events)
            assert (await peer.answer()).status == 404
        await events.aclose()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(chunked: bool) -> None:
    security = Security(allow_no_origin=True)
    async with host_of(limits=Limits(body=10), security=security) as host:
        extra, body = (
            ("Content-Length: 11", b"")
            if not chunked
            else ("Transfer-Encoding: chunked", b"b\r\n" + b"x" * 11)
        )
        answer = await one(host, ask("/", "myapp", extra, method="POST") + body)
        assert answer.status == 413
        assert b"Limits.body" in answer.body
        assert (await one(host, ask("/", method="POST", body=b"x" * 10))).status == 200


@pytest.mark.parametrize("by_stream", [False, True])
async def test_bodies_are_bounded_in_all_and_not_kept_for_clients_that_left(by_stream: bool) -> None:
    """The program does not take what waits; four of the largest bodies have room."""
    host = Host(ROWS, root="myapp", limits=Limits(body=1000))
    called: list[str] = []
    if not by_stream:
        host.on("HTTPRequest")(lambda event: called.append(event.url))

    def waiting() -> int:
        crossing = host._dispatcher.crossing
        return len(host._dispatcher.outbox._waiting) if crossing is None else len(crossing)

    async with AsyncExitStack() as stack:
        if by_stream:
            await stack.enter_async_context(host)
            stack.push_async_callback(host.events().aclose)
        else:
            stack.enter_context(host.in_thread(dq=True))
        full = ask("/kept", "myapp", origin(host), method="POST", body=b"x" * 1000)
        peers = [await stack.enter_async_context(Peer.connect(host)) for _ in range(4)]
        for peer in peers:
            await peer.send(full)
        await until(lambda: waiting() == 4)
        refused = await one(host, full)
        assert refused.status == 503
        assert b"may have 4000 bytes at once (four times Limits.body)" in refused.body
        for peer in peers:
            peer.reset()
        await until(lambda: waiting() == 0)
        again = await stack.enter_async_context(Peer.connect(host))
        await again.send(full.replace(b"/kept", b"/again"))
        await until(lambda: waiting() == 1)
        if not by_stream:
            await asyncio.to_thread(host.dq, 0)
            assert called == ["http://myapp/again"]
            assert (await again.answer()).status == 404


async def test_a_request_that_got_504_is_not_kept_for_the_program(lines: list[Line]) -> None:
    host = Host(ROWS, root="myapp", timeouts=Timeouts(answer=0.05), limits=Limits(pending=1))
    called: list[str] = []
    host.on("HTTPRequest")(lambda event: called.append(event.url))
    with host.in_thread(dq=True):
        for _ in range(3):  # Each has the one place among those that wait.
            assert (await one(host, ask("/"))).status == 504
        assert await asyncio.to_thread(host.dq, 0) is None
    assert called == []


async def test_bodies_that_come_before_the_first_dq_are_bounded(lines: list[Line]) -> None:
    host = Host(ROWS, root="myapp", limits=Limits(read_buffer=10_000))
    with host.in_thread():
        for size in (20_000, 5_000):
            answer = await one(host, ask(f"/{size}", "myapp", origin(host), method="POST", body=b"x" * size))
            assert answer.status == 404
        assert await asyncio.to_thread(host.dq, 0) is None
    (line,) = [line for line in lines if line["event"].startswith("events came before the first dq()")]
    assert line["count"] == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_program_without_the_token_sends_no_body(method: str) -> None:
    async with host_of() as host:
        chunked = ask("/", "myapp", "Transfer-Encoding: chunked", method=method) + b"1\r\na\r\n0\r\n\r\n"
        for head in (ask("/", method=method, body=b"x"), chunked):
            answer = await one(host, head)
            assert answer.status == 403
            if method == "GET":
                assert b"needs the token" in answer.body
        assert (await one(host, ask("/", "myapp", "Content-Length: 0"))).status == 200
        for target, extra in ((Peer.with_token(host), ()), ("/", (origin(host),))):
            assert (await one(host, ask(target, "myapp", *extra, body=b"x"))).status == 200


async def test_a_body_that_does_not_come_is_408() -> None:
    security, timeouts = Security(allow_no_origin=True), Timeouts(answer=0.05)
    async with host_of(security=security, timeouts=timeouts) as host:
        assert (await one(host, ask("/", "myapp", "Content-Length: 1", method="POST"))).status == 408


@pytest.mark.parametrize(
    "extra",
    [
        ("Content-Length: x",),
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: 1, 1",),
        ("Content-Length: +1",),
        ("Content-Length: " + "9" * 30,),
        ("Transfer-Encoding: gzip",),
    ],
)
async def test_malformed(extra: tuple[str, ...]) -> None:
    async with host_of(security=Security(allow_no_origin=True)) as host:
        assert (await one(host, ask("/", "myapp", *extra, method="POST"))).status in (400, 501)


@pytest.mark.parametrize("fields", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["myapp", "{own}"])
async def test_a_body_of_two_lengths_is_refused_and_the_connection_ends(
    fields: tuple[int, int], name: str
) -> None:
    """A proxy before the host may end the request elsewhere, and take the rest for somebody else's."""
    both = ("Content-Length: 4", "Transfer-Encoding: chunked")
    async with host_of() as host:
        name = name.format(own=Peer.authority(host))
        for method in ("GET", "POST"):
            async with Peer.connect(host) as peer:
                head = ask("/", name, *(both[field] for field in fields), origin(host), method=method)
                answer = await peer.ask(head + b"0\r\n\r\n" + ask("/smuggled"))
                assert (answer.status, answer.headers["connection"]) == (400, "close")
                assert await peer.rest() == b""


async def test_http_1_0_is_refused() -> None:
    async with host_of() as host:
        assert (await one(host, ask().replace(b"HTTP/1.1", b"HTTP/1.0"))).status == 505


async def test_a_client_that_leaves_is_nobodys_failure(lines: list[Line]) -> None:
    host, begun = Host(ROWS, root="myapp"), asyncio.Event()
    go = asyncio.Event()

    @host.on("HTTPRequest")
    async def answer(event: HTTPRequest) -> HTTPRequest:
        begun.set()
        await go.wait()
        return event.respond("x" * 10_000_000)

    async with host:
        async with Peer.connect(host) as peer:
            await peer.send(ask("/"))
            async with asyncio.timeout(PATIENCE):
                await begun.wait()
        go.set()
        async with Peer.connect(host) as peer:
            await peer.send(ask("/", "myapp", "Content-Length: 9", method="POST"))
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_stop_with_a_request_under_way_leaves_nothing(lines: list[Line]) -> None:
    host, begun = Host(ROWS, root="myapp", timeouts=Timeouts(close=0.1)), asyncio.Event()

    @host.on("HTTPRequest")
    async def never(event: HTTPRequest) -> None:
        begun.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    await host.start()
    async with Peer.connect(host) as peer, Peer.connect(host) as idle:
        await idle.send(ask("/", "gate", "Content-Length: 9", "Origin: http://gate", method="POST"))
        await peer.send(ask("/"))
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            await host.stop()
    await until(lambda: asyncio.all_tasks() == before)
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_a_client_that_ends_its_side_before_its_answer_holds_no_place() -> None:
    host = Host(ROWS, root="myapp", timeouts=Timeouts(close=3600))

    @host.on("HTTPRequest")
    async def answer(event: HTTPRequest) -> HTTPRequest:
        (transport,) = host._listener.transports
        await until(lambda: getattr(transport.get_protocol(), "ended", False))
        return event.respond("here")

    async with host, Peer.connect(host) as peer:
        await peer.send(ask("/"))
        peer.half_close()
        assert ((await peer.answer()).status, await peer.rest()) == (200, b"")
        await until(lambda: not host._listener.transports)
