"""The proxy way in: tunnels that are ours, tunnels that are not, and all that can be wrong with them."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from interceptor import (
    Host,
    InvalidState,
    Security,
    Timeouts,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import PATIENCE, TEXT, Frame, Peer, Recorder, frame, request, until
from .proxied import echo, page_request, record, server, tunnel
from .wire import Line, lines

__all__ = ["lines"]

ROWS = [("ws://myapp.test/*", 1)]

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


class TestOurs:
    async def test_a_socket_to_a_name_that_no_dns_knows(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            assert (await tunnel(peer, "myapp.test:80")).status == 200
            assert (await peer.ask(page_request())).status == 101
            await peer.send(frame(TEXT, "hello"))
            event = await recorder.wait_for(WebSocketReceive)
            assert recorder.of(WebSocketUpgrade)[0].url == "ws://myapp.test/chat"
            assert event.data == "hello"
            host.WebSocketSend(event.id, "and back")
            assert await peer.frame() == Frame(TEXT, b"and back")

    async def test_everything_in_one_packet(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            connect_head = b"CONNECT myapp.test:80 HTTP/1.1\r\nHost: myapp.test:80\r\n\r\n"
            await peer.send(connect_head + page_request() + frame(TEXT, "early"))
            assert (await recorder.wait_for(WebSocketReceive)).data == "early"

    async def test_byte_by_byte(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            connect_head = b"CONNECT myapp.test:80 HTTP/1.1\r\nHost: myapp.test:80\r\n\r\n"
            await peer.send_slowly(connect_head + page_request() + frame(TEXT, "slow"))
            assert (await recorder.wait_for(WebSocketReceive)).data == "slow"

    async def test_a_port_of_its_own(self) -> None:
        async with Host([("ws://myapp.test:8080/*", 1)]) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            assert (await tunnel(peer, "myapp.test:8080")).status == 200
            head = request("/", "myapp.test:8080", origin="http://myapp.test:8080")
            assert (await peer.ask(head)).status == 101
            assert (await recorder.wait_for(WebSocketUpgrade)).url == "ws://myapp.test:8080/"

    async def test_manual_answers(self) -> None:
        host = Host([("ws://myapp.test/*", 2)])

        @host.on("WebSocketUpgrade")
        async def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
            await asyncio.sleep(0)
            return event.accept() if event.url.endswith("/yes") else event.deny(403, "no")

        async with host:
            async with Peer.connect(host) as peer:
                await tunnel(peer, "myapp.test:80")
                assert (await peer.ask(page_request("/yes"))).status == 101
            async with Peer.connect(host) as peer:
                await tunnel(peer, "myapp.test:80")
                denied = await peer.ask(page_request("/no"))
                assert (denied.status, denied.body) == (403, b"no")

    @pytest.mark.parametrize("origin", ["http://elsewhere.test", "null"])
    async def test_origin_counts_here_too(self, origin: str) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            await tunnel(peer, "myapp.test:80")
            assert (await peer.ask(request("/chat", "myapp.test", origin=origin))).status == 403
            assert recorder.names() == ["WebSocketError"]

    async def test_a_program_needs_the_token_here_too(self) -> None:
        async with Host(ROWS) as host:
            for target, status in (("/chat", 403), (Peer.with_token(host, "/chat"), 101)):
                async with Peer.connect(host) as peer:
                    await tunnel(peer, "myapp.test:80")
                    assert (await peer.ask(request(target, "myapp.test"))).status == status

    async def test_a_host_that_differs_from_connect_is_misdirected(self) -> None:
        async with Host([("ws://*.test/*", 1)]) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            await tunnel(peer, "myapp.test:80")
            assert (await peer.ask(page_request(host="other.test"))).status == 421
            assert recorder.names() == []

    async def test_stop_ends_sockets_in_tunnels(self) -> None:
        host = Host(ROWS)
        recorder = Recorder(host)
        await host.start()
        async with Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:80")
            await peer.ask(page_request())
            stopping = asyncio.ensure_future(host.stop())
            assert await peer.close_code() == 1001
            peer.writer.close()
            await stopping
        assert recorder.names() == ["WebSocketUpgrade", "WebSocketError", "WebSocketClose"]


class TestPassedOn:
    async def test_blind_tunnel_carries_the_very_bytes(self) -> None:
        got = bytearray()
        sent = bytes(range(256)) * 3
        async with (
            server(lambda r, w: record(r, w, got)) as port,
            Host(ROWS) as host,
            Peer.connect(host) as peer,
        ):
            assert (await tunnel(peer, f"127.0.0.1:{port}")).status == 200
            await peer.send(sent)
            assert await peer.reader.readexactly(2) == b"ok"
            await peer.send(b"more")
            peer.half_close()
            assert await peer.rest() == b""
        assert bytes(got) == sent + b"more"

    async def test_a_request_that_no_rule_matches_goes_on_unchanged(self) -> None:
        got = bytearray()
        async with server(lambda r, w: record(r, w, got)) as port:
            rows = [(f"ws://localhost:{port}/ours", 1)]
            async with Host(rows) as host, Peer.connect(host) as peer:
                assert (await tunnel(peer, f"localhost:{port}")).status == 200
                head = request("/theirs?a=b&c", f"localhost:{port}", extra="X-Odd:   kept as it is \r\n")
                await peer.send(head + b"\x81\x02hi")
                assert await peer.reader.readexactly(2) == b"ok"
                peer.half_close()
                await peer.rest()
        assert bytes(got) == head + b"\x81\x02hi"

    async def test_what_is_no_http_goes_on_unchanged(self) -> None:
        got = bytearray()
        hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00"
        async with (
            server(lambda r, w: record(r, w, got)) as port,
            Host([(f"ws://localhost:{port}/*", 1)]) as host,
            Peer.connect(host) as peer,
        ):
            await tunnel(peer, f"localhost:{port}")
            await peer.send(hello)
            assert await peer.reader.readexactly(2) == b"ok"
            peer.half_close()
            await peer.rest()
        assert bytes(got) == hello

    async def test_a_server_that_speaks_first_is_heard(self) -> None:
        async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-here\r\n")
            await reader.read()

        async with server(banner) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, f"127.0.0.1:{port}")
            assert await peer.reader.readexactly(14) == b"SSH-2.0-here\r\n"

    async def test_a_real_client_and_a_real_server_meet(self) -> None:
        async def repeat(socket: ServerConnection) -> None:
            async for message in socket:
                await socket.send(message)

        async with serve(repeat, "127.0.0.1", 0) as real, Host(ROWS) as host:
            port = real.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/", proxy=host.proxy_url, max_size=None) as socket:
                for message in ("text", b"\x00\xff", "x" * 1_000_000):
                    await socket.send(message)
                    assert await socket.recv() == message

    async def test_nothing_ends_a_tunnel_that_idles(self) -> None:
        # `head` is what a slow machine has for each request here, and has to be over while they idle.
        short = Timeouts(head=0.5, answer=5, close=0.05, ping=0.05, pong=0.05)
        async with server(echo) as port:
            rows = [(f"ws://localhost:{port}/ours", 1)]
            async with Host(rows, timeouts=short) as host, AsyncExitStack() as peers:
                blind = await peers.enter_async_context(Peer.connect(host))
                await tunnel(blind, f"127.0.0.1:{port}")
                seen = await peers.enter_async_context(Peer.connect(host))
                await tunnel(seen, f"localhost:{port}")
                head = request("/theirs", f"localhost:{port}")
                await seen.send(head)
                assert await seen.reader.readexactly(len(head)) == head
                await asyncio.sleep(2 * 0.5)  # That nothing happens can be seen in no other way.
                for peer in (blind, seen):
                    await peer.send(b"still here")
                    assert await peer.reader.readexactly(10) == b"still here"

    async def test_much_data_and_a_slow_reader(self) -> None:
        size = 32 * 2**20

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(size // 65536):
                writer.write(bytes(65536))
                await writer.drain()

        async with server(pour) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, f"127.0.0.1:{port}")
            assert len(await peer.rest()) == size

    async def test_a_client_that_leaves_at_once_leaves_nothing(self) -> None:
        async with server(echo) as port, Host(ROWS) as host:
            for _ in range(20):
                async with Peer.connect(host) as peer:
                    await peer.send(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    peer.reset()
            await until(lambda: not host._listener.transports)
            assert not host._proxy._relays

    async def test_a_reset_is_passed_on(self) -> None:
        gone = asyncio.Event()

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read()
            finally:
                gone.set()

        async with server(watch) as port, Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, f"127.0.0.1:{port}")
            peer.reset()
            async with asyncio.timeout(PATIENCE):
                await gone.wait()

    async def test_stop_while_tunnels_are_made(self) -> None:
        """On uvloop an aborted transport has no socket any more."""
        async with server(echo) as port:
            for _ in range(10):
                host = Host(ROWS, timeouts=Timeouts(close=1))
                await host.start()
                pairs = [await asyncio.open_connection(*host.address) for _ in range(5)]
                for _, writer in pairs:
                    writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await asyncio.sleep(0)
                async with asyncio.timeout(PATIENCE):
                    await host.stop()
                for _, writer in pairs:
                    writer.transport.abort()
                assert not host._listener.transports

    async def test_stop_drops_tunnels(self) -> None:
        host = Host(ROWS)
        await host.start()
        async with server(echo) as port, Peer.connect(host) as peer:
            await tunnel(peer, f"127.0.0.1:{port}")
            async with asyncio.timeout(PATIENCE):
                await host.stop()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await peer.reader.readexactly(1)
        assert len(asyncio.all_tasks()) == 1


class TestRefused:
    @pytest.mark.parametrize(
        "target",
        [
            "myapp.test",
            "myapp.test:",
            "myapp.test:0",
            "myapp.test:65536",
            ":80",
            "a/b:80",
            "[::1:80",
            "u@h:80",
        ],
    )
    async def test_a_target_that_is_none(self, target: str) -> None:
        async with Host([("*", 1)]) as host, Peer.connect(host) as peer:
            assert (await tunnel(peer, target)).status == 400

    async def test_a_body(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            assert (await tunnel(peer, "myapp.test:80", extra="Content-Length: 5\r\n")).status == 400

    async def test_a_megabyte_of_head(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            answer = await tunnel(peer, "myapp.test:80", extra=f"X: {'a' * 2**20}\r\n")
            assert answer.status == 431

    @pytest.mark.parametrize(
        "name", ["127.0.0.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]", "localhost", "2130706433"]
    )
    async def test_the_own_port_in_every_spelling(self, name: str) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            answer = await tunnel(peer, f"{name}:{host.address[1]}")
            assert (answer.status, b"leads back" in answer.body) == (508, True)

    async def test_a_typo_in_a_url_of_a_host_of_ours_is_said_aloud(self, lines: list[Line]) -> None:
        async with Host([("ws://gate.invalid/chat", 1)]) as host, Peer.connect(host) as peer:
            await tunnel(peer, "gate.invalid:80")
            assert (await peer.ask(request("/caht", "gate.invalid"))).status == 502
        (line,) = [line for line in lines if "no rule matches" in line["event"]]
        assert (line["log_level"], line["to"]) == ("warning", "gate.invalid:80")

    async def test_a_name_that_does_not_resolve(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            answer = await tunnel(peer, "no-such-name.invalid:80")
            assert (answer.status, b"does not resolve" in answer.body) == (502, True)

    @pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", "-"])
    async def test_a_name_that_is_none(self, name: str) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            assert (await tunnel(peer, f"{name}:80")).status == 502

    async def test_a_server_that_is_not_there(self) -> None:
        async with server(echo) as port:
            pass
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            answer = await tunnel(peer, f"127.0.0.1:{port}")
            assert (answer.status, b"cannot be reached" in answer.body) == (502, True)

    async def test_proxy_switched_off(self) -> None:
        async with Host(ROWS, proxy=False) as host, Peer.connect(host) as peer:
            assert (await tunnel(peer, "myapp.test:80")).status == 501
            with pytest.raises(InvalidState, match="proxy=False"):
                host.proxy_url  # noqa: B018


class TestSettings:
    async def test_pac_names_the_sockets_of_the_rules(self) -> None:
        rows = [
            ("ws://myapp.test/*", 1),
            ("*://both.test/*", 2),
            ("wss://tls.test/*", 1),
            ("ws://not.test/*", 0),
        ]
        async with Host(rows) as host:
            text = host.pac()
            assert f"PROXY 127.0.0.1:{host.address[1]}" in text
            for scheme, host_name in (
                ("ws", "myapp"),
                ("ws", "both"),
                ("ws", "not"),
                ("wss", "tls"),
                ("wss", "both"),
            ):
                assert f'"{scheme}://{host_name}.test/*"' in text
            assert '"http://both.test/*"' in text
            assert "http://myapp.test" not in text
            host.intercepted_urls = [("ws://later.test/*", 1)]
            assert "later.test" in host.pac()
            assert "myapp.test" not in host.pac()


async def test_a_remote_client_gets_no_tunnel() -> None:
    """The client comes by another address of this machine than loopback, as one from outside would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = probe.getsockname()[0]
    async with Host(ROWS, listen=("0.0.0.0", 0), security=Security(allow_remote=True)) as host:
        reader, writer = await asyncio.open_connection(address, host.address[1])
        peer = Peer(reader, writer)
        try:
            assert (await tunnel(peer, "myapp.test:80")).status == 501
        finally:
            writer.transport.abort()


async def test_the_end_of_a_tunnelled_socket_is_reported_once() -> None:
    async with Host(ROWS) as host:
        recorder = Recorder(host)
        async with Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:80")
            await peer.ask(page_request())
        await recorder.wait_for(WebSocketClose)
    assert len(recorder.of(WebSocketError)) == 1
    assert len(recorder.of(WebSocketClose)) == 1
