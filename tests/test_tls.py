"""TLS at the host: ended for the names of rules, and left alone for all others."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from interceptor import Host, Timeouts, Tls, WebSocketClose, WebSocketReceive, WebSocketUpgrade

from .peer import CLOSE, PATIENCE, TEXT, Frame, Peer, Recorder, close_frame, frame, request, until
from .proxied import RealTls, begin_tls, real_tls, record, server, trusting, tunnel
from .wire import Line, lines

__all__ = ["lines", "real_tls"]

ROWS = [("wss://myapp.test/*", 1)]
ORIGIN = "https://myapp.test"

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


OFTEN = 60
"""How often something is done of which the log is to be told seldom."""


def told(lines: list[Line], what: str) -> int:
    """How many lines of a kind the log has."""
    return sum(line["event"] == what for line in lines)


def socket_request(path: str = "/chat", host: str = "myapp.test") -> bytes:
    """A handshake of a page of https://myapp.test."""
    return request(path, host, origin=ORIGIN)


def hello(name: str | None, *alpn: str) -> bytes:
    """A ClientHello."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


class TestEnded:
    async def test_a_secure_socket_to_a_name_that_no_dns_knows(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            assert (await tunnel(peer, "myapp.test:443")).status == 200
            await begin_tls(peer, trusting(host, "http/1.1"), "myapp.test")
            assert (await peer.ask(socket_request())).status == 101
            await peer.send(frame(TEXT, "hello"))
            event = await recorder.wait_for(WebSocketReceive)
            assert recorder.of(WebSocketUpgrade)[0].url == "wss://myapp.test/chat"
            host.WebSocketSend(event.id, "x" * 300_000)
            assert await peer.frame() == Frame(TEXT, b"x" * 300_000)
            await peer.send(close_frame(3001, "bye"))
            assert (await peer.frame()).opcode == CLOSE
            closed = await recorder.wait_for(WebSocketClose)
            assert (closed.code, closed.was_clean) == (3001, True)

    async def test_the_chain_has_the_root_and_the_name(self) -> None:
        async with Host([("wss://myapp_one.test/*", 1)]) as host, Peer.connect(host) as peer:
            await tunnel(peer, "myapp_one.test:443")
            await begin_tls(peer, trusting(host), "myapp_one.test")
            tls = peer.writer.get_extra_info("ssl_object")
            assert tls.getpeercert()["subjectAltName"] == (("DNS", "myapp_one.test"),)
            assert tls.selected_alpn_protocol() is None

    @pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
    async def test_addresses_have_no_name_in_tls(self, address: str) -> None:
        async with Host([(f"wss://{address}/*", 1)]) as host, Peer.connect(host) as peer:
            await tunnel(peer, f"{address}:443")
            await begin_tls(peer, trusting(host, "http/1.1"), address.strip("[]"))
            head = request("/", address, origin=f"https://{address}")
            assert (await peer.ask(head)).status == 101

    async def test_hello_in_one_byte_pieces(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:443")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = trusting(host, "http/1.1").wrap_bio(incoming, outgoing, server_hostname="myapp.test")
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            await peer.send_slowly(outgoing.read())
            while True:
                incoming.write(await peer.reader.read(65536))
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    continue
            tls.write(socket_request())
            # The end of the handshake, the request and the first frame all in one packet.
            tls.write(frame(TEXT, "early"))
            recorder = Recorder(host)
            await peer.send(outgoing.read())
            assert (await recorder.wait_for(WebSocketReceive)).data == "early"

    async def test_everything_from_connect_to_hello_in_one_packet(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            head = b"CONNECT myapp.test:443 HTTP/1.1\r\nHost: myapp.test:443\r\n\r\n"
            await peer.send(head + hello("myapp.test"))
            answer = await peer.reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert (await peer.reader.readexactly(1))[0] == 0x16

    async def test_straight_to_the_port_as_resolver_rules_bring_it(self) -> None:
        async with Host([("wss://myapp.test:8443/*", 1)]) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            await begin_tls(peer, trusting(host, "http/1.1"), "myapp.test")
            head = request("/chat", "myapp.test:8443", origin="https://myapp.test:8443")
            assert (await peer.ask(head)).status == 101
            event = await recorder.wait_for(WebSocketUpgrade)
            assert event.url == "wss://myapp.test:8443/chat"

    async def test_the_host_itself_speaks_tls_at_its_own_address(self) -> None:
        async with Host(root="myapp") as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            await begin_tls(peer, trusting(host), "127.0.0.1")
            head = request(Peer.with_token(host, "/chat"), Peer.authority(host))
            assert (await peer.ask(head)).status == 101
            assert (await recorder.wait_for(WebSocketUpgrade)).url == "wss://myapp/chat"

    async def test_stop_ends_secure_sockets_and_those_on_the_way(self) -> None:
        host = Host(ROWS)
        recorder = Recorder(host)
        await host.start()
        async with Peer.connect(host) as peer, Peer.connect(host) as half:
            await tunnel(half, "myapp.test:443")
            await half.send(hello("myapp.test"))
            await tunnel(peer, "myapp.test:443")
            await begin_tls(peer, trusting(host), "myapp.test")
            await peer.ask(socket_request())
            await recorder.wait_for(WebSocketUpgrade)
            stopping = asyncio.ensure_future(host.stop())
            assert await peer.close_code() == 1001
            await peer.send(close_frame(1001))
            async with asyncio.timeout(PATIENCE):
                await stopping
        assert recorder.names() == ["WebSocketUpgrade", "WebSocketClose"]
        assert len(asyncio.all_tasks()) == 1


class TestRefused:
    @pytest.mark.parametrize("way", ["tunnel", "direct"])
    async def test_a_name_that_is_not_that_of_the_tunnel(self, way: str) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            if way == "tunnel":
                await tunnel(peer, "myapp.test:443")
            with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                await begin_tls(peer, trusting(host), "other.test")

    @pytest.mark.parametrize("way", ["tunnel", "direct"])
    async def test_a_host_field_that_differs_from_the_name_is_misdirected(self, way: str) -> None:
        async with Host([("wss://*.test/*", 1)]) as host, Peer.connect(host) as peer:
            recorder = Recorder(host)
            if way == "tunnel":
                await tunnel(peer, "myapp.test:443")
            await begin_tls(peer, trusting(host), "myapp.test")
            assert (await peer.ask(socket_request(host="other.test"))).status == 421
            assert recorder.names() == []

    async def test_the_origin_counts_inside_tls_too(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:443")
            await begin_tls(peer, trusting(host), "myapp.test")
            head = request("/chat", "myapp.test", origin="http://myapp.test")
            assert (await peer.ask(head)).status == 403

    @pytest.mark.parametrize(
        "garbage", [b"\x16\x03\x01" + b"\xff" * 40, b"\x16garbage" * 10, b"\x16\x03\x01\x00\x05\x02\0\0\1\0"]
    )
    @pytest.mark.parametrize("way", ["tunnel", "direct"])
    async def test_garbage_that_begins_as_tls(self, way: str, garbage: bytes) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            if way == "tunnel":
                await tunnel(peer, "myapp.test:443")
            await peer.send(garbage)
            assert (await peer.rest())[:1] in (b"", b"\x15")  # Nothing but an alert.

    async def test_a_hello_without_end(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            piece = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(16380)
            await peer.send(piece * 4)
            assert (await peer.rest())[:1] in (b"", b"\x15")

    async def test_a_hello_that_stops_half_way(self) -> None:
        async with Host(ROWS, timeouts=Timeouts(head=0.05)) as host, Peer.connect(host) as peer:
            await peer.send(hello("myapp.test")[:-1])
            assert await peer.rest() == b""

    async def test_a_browser_that_does_not_trust_us_is_told_of_in_the_log(self, lines: list[Line]) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:443")
            with pytest.raises(ssl.SSLCertVerificationError):
                await begin_tls(peer, ssl.create_default_context(), "myapp.test")
            await until(lambda: any(line["event"] == "TLS did not come about" for line in lines))
            (line,) = [line for line in lines if line["event"] == "TLS did not come about"]
            assert "chromium_args" in line["remedy"]
            await until(lambda: not host._listener.transports)

    @pytest.mark.parametrize("after", [b"", b"\x16garbage"], ids=["reset", "garbage"])
    async def test_handshakes_broken_off_again_and_again_are_told_of_seldom(
        self, after: bytes, lines: list[Line]
    ) -> None:
        async with Host(ROWS) as host:
            for _ in range(OFTEN):
                async with Peer.connect(host) as peer:
                    await peer.send(hello("myapp.test"))
                    async with asyncio.timeout(PATIENCE):
                        assert await peer.reader.readexactly(1) == b"\x16"  # The host has answered.
                    if after:
                        await peer.send(after)
                        await peer.rest()
                    else:
                        peer.reset()
            await until(lambda: not host._listener.transports)
        assert 20 <= told(lines, "TLS did not come about") < OFTEN / 2

    async def test_connect_inside_tls(self) -> None:
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await begin_tls(peer, trusting(host), "127.0.0.1")
            await peer.send(f"CONNECT x.test:80 HTTP/1.1\r\nHost: {Peer.authority(host)}\r\n\r\n".encode())
            assert (await peer.answer()).status == 501


class TestLeftAlone:
    async def test_http2_is_a_page_load_and_goes_on_untouched(self) -> None:
        got = bytearray()
        sent = hello("localhost", "h2", "http/1.1")
        async with server(lambda r, w: record(r, w, got)) as port:
            rows = [(f"wss://localhost:{port}/*", 1)]
            async with Host(rows) as host, Peer.connect(host) as peer:
                await tunnel(peer, f"localhost:{port}")
                await peer.send_slowly(sent)
                assert await peer.reader.readexactly(2) == b"ok"
                peer.half_close()
                await peer.rest()
        assert bytes(got) == sent

    async def test_firefox_offers_http2_for_sockets_too(self) -> None:
        agent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0\r\n"
        async with Host(ROWS) as host, Peer.connect(host) as peer:
            await tunnel(peer, "myapp.test:443", extra=agent)
            await begin_tls(peer, trusting(host, "h2", "http/1.1"), "myapp.test")
            assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert (await peer.ask(socket_request())).status == 101

    async def test_tls_where_only_a_rule_for_ws_could_match(self) -> None:
        got = bytearray()
        sent = hello("localhost")
        async with (
            server(lambda r, w: record(r, w, got)) as port,
            Host([(f"ws://localhost:{port}/*", 1)]) as host,
            Peer.connect(host) as peer,
        ):
            await tunnel(peer, f"localhost:{port}")
            await peer.send(sent)
            assert await peer.reader.readexactly(2) == b"ok"
        assert bytes(got) == sent


async def repeat(socket: ServerConnection) -> None:
    """A real server's handler."""
    async for message in socket:
        await socket.send(message)


class TestPassedOn:
    async def test_a_real_secure_server_meets_its_client(self, real_tls: RealTls) -> None:
        async with serve(repeat, "127.0.0.1", 0, ssl=real_tls.context("localhost")) as real:
            port = real.sockets[0].getsockname()[1]
            rows = [(f"wss://localhost:{port}/ours", 1)]
            async with Host(rows, tls=Tls(trust=real_tls.path)) as host:
                url = f"wss://localhost:{port}/theirs"
                context = trusting(host, "http/1.1")
                async with connect(url, proxy=host.proxy_url, ssl=context, max_size=None) as socket:
                    for message in ("text", b"\x00\xff", "x" * 1_000_000):
                        await socket.send(message)
                        assert await socket.recv() == message

    async def test_the_head_goes_on_unchanged(self, real_tls: RealTls) -> None:
        got = bytearray()
        async with server(lambda r, w: record(r, w, got), real_tls.context("localhost")) as port:
            rows = [(f"wss://localhost:{port}/ours", 1)]
            async with Host(rows, tls=Tls(trust=real_tls.path)) as host, Peer.connect(host) as peer:
                await tunnel(peer, f"localhost:{port}")
                await begin_tls(peer, trusting(host), "localhost")
                head = request("/theirs?a", f"localhost:{port}", extra="X-Odd:   kept \r\n")
                await peer.send(head + b"\x81\x02hi")
                assert await peer.reader.readexactly(2) == b"ok"
                peer.writer.close()
                await until(lambda: len(got) == len(head) + 4)
        assert bytes(got) == head + b"\x81\x02hi"

    @pytest.mark.parametrize("fault", ["unknown authority", "another name"])
    async def test_a_bad_certificate_of_the_real_server_is_not_hidden(
        self, real_tls: RealTls, fault: str, lines: list[Line]
    ) -> None:
        name = "localhost" if fault == "unknown authority" else "other.test"
        tls = Tls() if fault == "unknown authority" else Tls(trust=real_tls.path)
        async with server(lambda r, w: record(r, w, bytearray()), real_tls.context(name)) as port:
            rows = [(f"wss://localhost:{port}/ours", 1)]
            async with Host(rows, tls=tls) as host, Peer.connect(host) as peer:
                await tunnel(peer, f"localhost:{port}")
                await begin_tls(peer, trusting(host), "localhost")
                answer = await peer.ask(request("/theirs", f"localhost:{port}"))
                assert (answer.status, b"is not valid" in answer.body) == (502, True)
        assert any(line["event"] == "a server's certificate is bad" for line in lines)

    async def test_bad_certificates_again_and_again_are_told_of_seldom(
        self, real_tls: RealTls, lines: list[Line]
    ) -> None:
        async with server(lambda r, w: record(r, w, bytearray()), real_tls.context("localhost")) as port:
            head = f"GET https://localhost:{port}/ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
            async with Host(ROWS) as host:
                for _ in range(OFTEN):
                    async with Peer.connect(host) as peer:
                        assert (await peer.ask(head.encode())).status == 502
        assert 20 <= told(lines, "a server's certificate is bad") < OFTEN / 2


class TestSettings:
    async def test_an_authority_that_is_kept(self, tmp_path: Path) -> None:
        tls = Tls(ca=tmp_path / "authority.pem")
        pins = []
        for _ in range(2):
            async with Host(ROWS, tls=tls) as host, Peer.connect(host) as peer:
                pins.append(host.spki_pin)
                await tunnel(peer, "myapp.test:443")
                await begin_tls(peer, trusting(host), "myapp.test")
                assert (await peer.ask(socket_request())).status == 101
        assert pins[0] == pins[1] != Host().spki_pin


class TestLost:
    @pytest.mark.parametrize("way", ["tunnel", "direct"])
    async def test_connections_that_are_lost_at_any_moment_are_counted_out(self, way: str) -> None:
        """TLS tells of a loss whoever had the connection when it was noticed; he may have passed it on."""
        async with Host([("wss://myapp.test/*", 1)]) as host:
            trust = trusting(host, "http/1.1")

            async def leave(turns: int) -> None:
                async with Peer.connect(host) as peer:
                    if way == "tunnel":
                        await tunnel(peer, "myapp.test:443")
                    await begin_tls(peer, trust, "myapp.test")
                    peer.writer.write(socket_request())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    peer.reset()

            for turns in range(40):
                await asyncio.gather(*(leave(turns // 4) for _ in range(4)))
            await until(lambda: not host._listener.transports)
