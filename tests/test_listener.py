"""The listening port: heads in any packets, limits, answers that arrive, connections that end early."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket

import pytest

from interceptor import Host, Limits, Timeouts, WebSocketClose, WebSocketError, WebSocketUpgrade
from interceptor.handshake import Request
from interceptor.ways import listener
from interceptor.ways.listener import Holder, Incoming, Listener, Look, Tunnel

from .peer import BINARY, CLOSE, PATIENCE, PING, TEXT, Peer, Recorder, close_frame, frame, request
from .wire import (
    ASKED,
    AUTO,
    BOTH_LOOPS,
    HEAD,
    MANUAL,
    SWITCHED,
    Line,
    error_of,
    make_host,
    needs_ipv6,
    opened,
    served,
    story,
    switched,
    turns,
)
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

MIB = 1024 * 1024
TALK = frame(TEXT, "one") + frame(PING, "?") + frame(BINARY, b"\x00\xff") + close_frame(4000, "bye")
TOLD = [AUTO, ("receive", "one"), ("receive", b"\x00\xff"), ("close", 4000, "client")]
REPLY = SWITCHED + frame(10, "?", mask=None) + frame(CLOSE, b"\x0f\xa0bye", mask=None)


def padded(size: int) -> bytes:
    """A right head of so many bytes."""
    pad = size - len(request("/chat", "myapp", extra="X-Pad: \r\n"))
    return request("/chat", "myapp", extra=f"X-Pad: {'x' * pad}\r\n")


def with_fields(count: int) -> bytes:
    """A right head of so many header fields."""
    return request("/chat", "myapp", extra="".join(f"X-{n}: {n}\r\n" for n in range(count - 5)))


async def send_for_ever(peer: Peer) -> None:
    """Send now and then until the connection is gone."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.01)


# Packets


async def test_head_is_answered_byte_for_byte_and_reported_as_it_came() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host):
            event = await seen.wait_for(WebSocketUpgrade)
            assert event.headers == HEAD.decode("latin-1")
            assert event.url == "ws://myapp/chat"


async def test_head_and_frames_one_byte_at_a_time() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send_slowly(HEAD + TALK)
        assert await peer.rest() == REPLY
        assert story(seen) == TOLD


async def test_head_and_frames_cut_at_every_place() -> None:
    whole = HEAD + TALK
    for cut in range(1, len(whole)):
        async with make_host() as host, Peer.connect(host) as peer:
            peer.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seen = Recorder(host)
            await peer.send(whole[:cut])
            await turns()
            await peer.send(whole[cut:])
            assert await peer.rest() == REPLY, cut
            assert story(seen) == TOLD, cut


async def test_everything_in_one_packet() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(HEAD + TALK)
        assert await peer.rest() == REPLY
        assert story(seen) == TOLD


async def test_one_empty_line_before_the_head_is_ignored_wherever_it_is_cut() -> None:
    async with make_host() as host:
        for cut in range(4):
            async with Peer.connect(host) as peer:
                await peer.send((b"\r\n" + HEAD)[:cut])
                await turns()
                await peer.send((b"\r\n" + HEAD)[cut:])
                await switched(peer)


async def test_many_connections_at_once_are_kept_apart() -> None:
    async with make_host() as host:
        seen = Recorder(host)

        async def talk(number: int) -> None:
            async with opened(host, request(f"/{number}", "myapp")) as peer:
                await peer.send(frame(TEXT, str(number)) + close_frame(3000 + number))
                assert await peer.close_code() == 3000 + number

        await asyncio.gather(*map(talk, range(50)))
        await seen.wait_for(WebSocketClose, 50)
        ids = {event.url: event.id for event in seen.of(WebSocketUpgrade)}
        assert len(set(ids.values())) == 50
        for number in range(50):
            id = ids[f"ws://myapp/{number}"]
            assert story(seen, id) == [AUTO, ("receive", str(number)), ("close", 3000 + number, "client")]


# Limits


async def test_head_at_the_limit_is_taken() -> None:
    async with make_host(limits=Limits(head=2048)) as host:
        async with Peer.connect(host) as peer:
            assert (await peer.ask(padded(2048) + frame(TEXT, "x" * 4096))).status == 101
        async with Peer.connect(host) as peer:
            assert (await peer.ask(padded(2049))).status == 431


HEAD_OVER = b"the request head is over 2048 bytes (Limits.head)\n"


async def test_head_over_the_limit_is_refused_before_it_ends() -> None:
    async with make_host(limits=Limits(head=2048)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            answer = await peer.ask(padded(2100)[:-4])
            assert (answer.status, answer.body) == (431, HEAD_OVER)
            assert await peer.rest() == b""
    assert seen.events == []


async def test_a_head_that_is_too_large_by_its_cookies_says_what_to_do(lines: list[Line]) -> None:
    """Other servers at 127.0.0.1 set them; the user sees the answer, and the program's author the log."""
    async with make_host(limits=Limits(head=2048)) as host, Peer.connect(host) as peer:
        answer = await peer.ask(request(extra=f"cookie: a={'x' * 2048}\r\n"))
    assert answer.status == 431
    text = answer.body.decode()
    assert "over 2048 bytes (Limits.head)" in text
    assert "clear the cookies of this address in the browser" in text
    [line] = [line for line in lines if line["event"] == "request refused"]
    assert (line["log_level"], line["status"], line["why"]) == ("warning", 431, text.rstrip("\n"))


async def test_request_line_over_the_limit() -> None:
    async with make_host(limits=Limits(head=2048)) as host:
        seen = Recorder(host)
        for line in (b"GET /" + b"x" * 2048, b"GET /" + b"x" * 4096 + b" HTTP/1.1\r\nHost: myapp\r\n\r\n"):
            async with Peer.connect(host) as peer:
                answer = await peer.ask(line)
                assert (answer.status, answer.body) == (
                    414,
                    b"the request line is over 2048 bytes (Limits.head)\n",
                )
    assert seen.events == []


async def test_number_of_fields() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            answer = await peer.ask(with_fields(101))
            assert answer.status == 431
            assert answer.body == b"the request has 101 header fields, over 100 (Limits.fields)\n"
        assert seen.events == []
        async with Peer.connect(host) as peer:
            assert (await peer.ask(with_fields(100))).status == 101


async def test_unfinished_head_times_out_however_busily_it_comes() -> None:
    async with make_host(timeouts=Timeouts(head=0.5)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            await peer.send(HEAD[:-2] + b"X-Slow: ")

            dripping = asyncio.create_task(send_for_ever(peer))
            answer = await peer.answer()
            dripping.cancel()
            assert (answer.status, answer.body) == (408, b"the request head was not complete within 0.5 s\n")
    assert seen.events == []


async def test_connection_without_a_request_is_closed_in_silence() -> None:
    async with make_host(timeouts=Timeouts(head=0.05)) as host, Peer.connect(host) as peer:
        assert await peer.rest() == b""


async def test_open_socket_knows_no_time_limit_for_its_head() -> None:
    async with make_host(timeouts=Timeouts(head=0.05)) as host:
        seen = Recorder(host)
        async with opened(host) as peer, Peer.connect(host) as later:
            assert await later.rest() == b""  # Its time was over after that of the open one.
            await peer.send(frame(TEXT, "still here") + close_frame(1000))
            assert await peer.close_code() == 1000
    assert story(seen) == [AUTO, ("receive", "still here"), ("close", 1000, "client")]


async def test_open_socket_in_a_tunnel_knows_no_time_limit_for_its_head() -> None:
    async with make_host(timeouts=Timeouts(head=0.1)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            await peer.send(b"CONNECT myapp:80 HTTP/1.1\r\nHost: myapp:80\r\n\r\n")
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await peer.send(HEAD)
            await switched(peer)
            async with Peer.connect(host) as later:
                assert await later.rest() == b""  # Its time was over after that of the tunnel.
            await peer.send(frame(TEXT, "still here") + close_frame(1000))
            assert await peer.frame() == (CLOSE, b"\x03\xe8", True, 0)
            await seen.wait_for(WebSocketClose)
    assert story(seen) == [AUTO, ("receive", "still here"), ("close", 1000, "client")]


async def test_head_in_a_tunnel_has_a_time_limit() -> None:
    async with make_host(timeouts=Timeouts(head=0.1)) as host, Peer.connect(host) as peer:
        await peer.send(b"CONNECT myapp:80 HTTP/1.1\r\nHost: myapp:80\r\n\r\n")
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert (await peer.ask(HEAD[:-2])).status == 408


async def test_too_many_connections(lines: list[Line]) -> None:
    async with make_host(limits=Limits(sockets=1, pending=1)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as first, Peer.connect(host) as second:
            await turns()
            async with Peer.connect(host) as third:
                answer = await third.answer()
                assert answer.status == 503
                assert answer.body == b"this host has too many connections; try again later\n"
                assert await third.rest() == b""
            first.half_close()
            assert await first.rest() == b""
            assert (await served(host)).status == 101
            await seen.wait_for(WebSocketClose)
            await second.send(MANUAL)
            assert (await seen.wait_for(WebSocketUpgrade, 2)).type == "manual"
    [line] = [line for line in lines if line["event"] == "connection refused"]
    assert line["log_level"] == "warning"
    assert line["why"] == "2 connections are open (Limits.sockets + Limits.pending)"


async def test_too_many_sockets() -> None:
    async with make_host(limits=Limits(sockets=1)) as host:
        seen = Recorder(host)
        async with opened(host) as first:
            async with Peer.connect(host) as peer:
                answer = await peer.ask(HEAD)
                assert answer.status == 503
                assert answer.body == b"this host has 1 open sockets (Limits.sockets)\n"
            assert "Limits.sockets" in error_of(seen)
            await first.send(close_frame(1000))
            assert await first.close_code() == 1000
        assert (await served(host)).status == 101
    assert len(seen.of(WebSocketUpgrade)) == 2


async def test_unanswered_upgrades_count_as_sockets() -> None:
    async with make_host(limits=Limits(sockets=1)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as waiting:
            await waiting.send(MANUAL)
            await seen.wait_for(WebSocketUpgrade)
            async with Peer.connect(host) as peer:
                assert (await peer.ask(HEAD)).status == 503


async def test_too_many_unanswered_upgrades() -> None:
    async with make_host(limits=Limits(pending=1)) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as waiting:
            await waiting.send(MANUAL)
            event = await seen.wait_for(WebSocketUpgrade)
            async with Peer.connect(host) as peer:
                answer = await peer.ask(MANUAL)
                assert (answer.status, answer.body) == (
                    503,
                    b"1 upgrades wait for an answer (Limits.pending)\n",
                )
            assert "Limits.pending" in error_of(seen)
            async with opened(host):
                pass  # An automatic one waits for nobody.
            host.answer(event.id, event.accept())
            await switched(waiting)
            async with Peer.connect(host) as peer:
                await peer.send(MANUAL)
                await seen.wait_for(WebSocketUpgrade, 3)


# Answers that arrive

REFUSED = [
    (request("/chat", "myapp", method="POST"), 405),
    (request("/chat", "myapp", without=("Sec-WebSocket-Key",)), 400),
    (request("/chat", "myapp", origin="http://evil.test"), 403),
    (request("/chat", "elsewhere"), 421),
    (request("chat", "myapp"), 400),
    (b"GET /" + b"x" * 32768, 414),
    (HEAD[:-2] + b"X-Pad: " + b"x" * 32768, 431),
]


@pytest.mark.parametrize(("head", "status"), REFUSED, ids=[str(status) for _, status in REFUSED])
async def test_refusal_arrives_while_the_client_still_sends(head: bytes, status: int) -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        peer.writer.write(head + bytes(8 * MIB))
        answer = await peer.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close" or status == 426
        assert answer.body.endswith(b"\n")
        await peer.writer.drain()
        assert await peer.rest() == b""


async def test_refused_client_that_never_leaves_is_dropped() -> None:
    async with make_host(timeouts=Timeouts(close=0.05)) as host, Peer.connect(host) as peer:
        assert (await peer.ask(b"nonsense\r\n\r\n")).status == 400
        assert await peer.rest() == b""
        with pytest.raises(ConnectionError):
            await send_for_ever(peer)


async def test_one_answer_and_no_more() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        assert (await peer.ask(request("/chat", "elsewhere") + HEAD)).status == 421
        await peer.send(HEAD)
        assert await peer.rest() == b""
    assert seen.events == []


# Ends before the head is complete


async def test_half_close_before_and_in_the_head() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        for start in (b"", b"G", HEAD[:40], HEAD[:-1]):
            async with Peer.connect(host) as peer:
                await peer.send(start)
                peer.half_close()
                assert await peer.rest() == b""
    assert seen.events == []


async def test_reset_before_and_in_the_head() -> None:
    async with make_host(limits=Limits(sockets=1, pending=1)) as host:
        seen = Recorder(host)
        for start in (b"", b"G", HEAD[:40], HEAD[:-1]):
            async with Peer.connect(host) as peer:
                await peer.send(start)
                await turns()
                peer.reset()
            assert (await served(host)).status == 101
            await seen.wait(lambda: not host.sockets)
    assert [event.event for event in seen.events] == [
        "WebSocketUpgrade",
        "WebSocketError",
        "WebSocketClose",
    ] * 4


async def test_reset_after_a_refusal() -> None:
    async with make_host(limits=Limits(sockets=1, pending=1)) as host:
        seen = Recorder(host)
        for _ in range(4):
            async with Peer.connect(host) as peer:
                assert (await peer.ask(request("/chat", "elsewhere"))).status == 421
                peer.reset()
        assert (await served(host, request("/chat", "elsewhere"))).status == 421
    assert seen.events == []


# Stop


async def test_stop_at_every_stage() -> None:
    host = make_host()
    seen = Recorder(host)
    async with host, Peer.connect(host) as idle, Peer.connect(host) as begun, Peer.connect(host) as asking:
        await begun.send(HEAD[:40])
        await asking.send(MANUAL)
        asked = await seen.wait_for(WebSocketUpgrade)
        async with opened(host) as talking:
            await seen.wait_for(WebSocketUpgrade, 2)
            stopping = asyncio.ensure_future(host.stop())
            answer = await asking.answer()
            assert (answer.status, answer.body) == (503, b"this host is stopping\n")
            assert await idle.rest() == await begun.rest() == b""
            assert await talking.close_code() == 1001
            await talking.send(close_frame(1001))
            assert await talking.rest() == b""
        asking.half_close()
        await stopping
    assert story(seen, asked.id) == [ASKED, ("error",)]
    assert "stopped" in error_of(seen)
    opened_id = seen.of(WebSocketUpgrade)[1].id
    assert story(seen, opened_id) == [AUTO, ("close", 1001, "host")]


async def test_nobody_listens_after_stop() -> None:
    async with make_host() as host:
        address = host.address
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


@pytest.mark.parametrize("pause", range(8))
async def test_stop_in_the_midst_of_a_new_connection(pause: int) -> None:
    host = make_host(timeouts=Timeouts(close=0.05))
    seen = Recorder(host)
    await host.start()
    with socket.create_connection(host.address) as client:
        client.sendall(HEAD)
        await turns(pause)
        await host.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not host.sockets
    assert seen.names() in ([], ["WebSocketUpgrade", "WebSocketError", "WebSocketClose"])
    gc.collect()  # What was left open would be warned of.


async def test_connection_that_shows_up_after_the_port_was_closed_is_dropped() -> None:
    class Nobody:
        def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
            raise AssertionError(f"asked for {data!r}")

        def receive(self, request: Request, wire: Tunnel) -> Holder | None:
            raise AssertionError(f"asked for {request.target}")

    nobody = Nobody()
    listener = Listener(nobody, Limits(), Timeouts())
    await listener.start("127.0.0.1", 0)
    await listener.close()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(HEAD)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: Incoming(listener, nobody), ours)
        await asyncio.wait_for(listener.wait_empty(PATIENCE), PATIENCE / 2)
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)


# Addresses


@needs_ipv6
async def test_ipv6() -> None:
    async with Host([("ws://myapp/*", 1)], root="myapp", listen=("::1", 0)) as host:
        seen = Recorder(host)
        address, port = host.address
        assert (address, host.ws_url("/")[: len("ws://[::1]:")]) == ("::1", "ws://[::1]:")
        own = f"[::1]:{port}"
        async with Peer.connect(host) as peer:
            answer = await peer.ask(request("/page", own, origin=f"http://{own}"))
            assert answer.status == 101
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request(Peer.with_token(host, "/program"), own))).status == 101
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/page", own, origin="http://[::2]"))).status == 403
        await seen.wait_for(WebSocketError)
        assert [event.url for event in seen.of(WebSocketUpgrade)] == ["ws://myapp/page", "ws://myapp/program"]


async def test_small_packets_are_not_delayed() -> None:
    """asyncio sees to it for sockets that it knows to be TCP."""
    async with make_host() as host, Peer.open(host):
        [transport] = host._listener.transports
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_reads_are_no_larger_than_memory_is_cheap() -> None:
    """asyncio makes a buffer of that size for each; uvloop has one for all."""
    async with make_host() as host, Peer.open(host):
        [transport] = host._listener.transports
        assert getattr(transport, "max_size", 0) < 128 * 1024


# localhost


@pytest.mark.parametrize(("taken", "holds"), [(0, True), (3, True), (99, False)])
async def test_the_system_is_asked_for_a_port_that_is_free_at_both_loopback_addresses(
    taken: int, holds: bool, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def hold(host: str, port: int) -> socket.socket:
        asked.append(port)
        if len(asked) <= taken:
            raise OSError(errno.EADDRINUSE, "in use")
        return socket.socket()

    monkeypatch.setattr(listener, "hold", hold)
    async with make_host() as host:
        assert host._listener.holds_localhost is holds
        assert asked[-1] == host.address[1]
        assert len(asked) == min(taken + 1, listener.TRIES)
    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert len([text for text in warnings if "other loopback address" in str(text)]) == (not holds)


async def test_a_port_that_was_asked_for_is_taken_as_it_is(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(host: str, port: int) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "in use")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(listener, "hold", hold)
    async with Host([("*", 1)], listen=("127.0.0.1", port)) as host:
        assert host.address == ("127.0.0.1", port)
        assert not host._listener.holds_localhost
    assert any("other loopback address" in str(line["event"]) for line in lines)
