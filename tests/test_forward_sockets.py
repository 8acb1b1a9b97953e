"""Sockets whose way through the proxy begins with a whole URL, or with a request for a page."""

from __future__ import annotations

import asyncio

from interceptor import Host, Tls, WebSocketReceive, WebSocketUpgrade

from .forwarded import ROWS, Web, get, ok, read_exactly
from .peer import ACCEPT, TEXT, Peer, Recorder, frame, request, until
from .proxied import RealTls, begin_tls, server, trusting, tunnel
from .proxied import real_tls as real_tls
from .wire import BOTH_LOOPS
from .wire import lines as lines

pytestmark = BOTH_LOOPS


async def test_a_socket_by_a_whole_url() -> None:
    """WebKitGTK asks its proxy like this."""
    async with Host(ROWS) as host, Peer.connect(host) as peer:
        recorder = Recorder(host)
        assert (
            await peer.ask(request("ws://myapp.test/chat", "myapp.test", origin="http://myapp.test"))
        ).status == 101
        await peer.send(frame(TEXT, "hello"))
        assert (await recorder.wait_for(WebSocketReceive)).data == "hello"
        assert recorder.of(WebSocketUpgrade)[0].url == "ws://myapp.test/chat"


async def test_the_origin_counts() -> None:
    async with Host(ROWS) as host, Peer.connect(host) as peer:
        head = request("ws://myapp.test/chat", "myapp.test", origin="http://elsewhere.test")
        assert (await peer.ask(head)).status == 403


async def test_a_socket_that_no_rule_matches_after_another_request() -> None:
    switched = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x01a"
    )
    got = bytearray()

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok())
        got.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(switched)
        got.extend(await reader.read())

    async with server(switch) as port, Host(ROWS) as host, Peer.connect(host) as peer:
        at = f"127.0.0.1:{port}"
        await peer.send(get(f"http://{at}/", at))
        await read_exactly(peer, ok())
        await peer.send(request(f"ws://{at}/theirs?x", at) + b"early")
        await read_exactly(peer, switched)
        await peer.send(b" and late")
        peer.half_close()
        await peer.rest()
    assert bytes(got) == request("/theirs?x", at) + b"early and late"


async def test_after_a_denial_the_next_one_may_be_ours() -> None:
    no = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
    async with Web.open(theirs=no) as web, Host(ROWS) as host, Peer.connect(host) as peer:
        at = f"127.0.0.1:{web.port}"
        await peer.send(request(f"ws://{at}/theirs", at))
        await read_exactly(peer, no)
        ours = request("ws://myapp.test/chat", "myapp.test", origin="http://myapp.test")
        assert (await peer.ask(ours)).status == 101
        await until(lambda: web.ended == 1)


async def test_in_a_tunnel_a_page_first_and_then_a_socket() -> None:
    async with Web.open(page=ok()) as web:
        at = f"127.0.0.1:{web.port}"
        async with Host([(f"ws://{at}/ours", 1)]) as host, Peer.connect(host) as peer:
            await tunnel(peer, at)
            for _ in range(2):
                await peer.send(get("/page", at))
                await read_exactly(peer, ok())
            answer = await peer.ask(request("/ours", at, origin=f"http://{at}"))
            assert (answer.status, ACCEPT in answer.head.decode()) == (101, True)
            assert [number for number, _ in web.heads] == [1, 1]


async def test_in_a_secure_tunnel_too(real_tls: RealTls) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            writer.write(ok(head.split(b" ")[1]))

    async with server(page, real_tls.context("localhost")) as port:
        rows, tls = [(f"wss://localhost:{port}/ours", 1)], Tls(trust=real_tls.path)
        async with Host(rows, tls=tls) as host, Peer.connect(host) as peer:
            at = f"localhost:{port}"
            await tunnel(peer, at)
            await begin_tls(peer, trusting(host), "localhost")
            for path in ("/one", "/two"):
                await peer.send(get(path, at))
                await read_exactly(peer, ok(path.encode()))
            assert (await peer.ask(request("/ours", at, origin=f"https://{at}"))).status == 101


async def test_the_token_does_not_go_on() -> None:
    async with Web.open(page=ok()) as web, Host(ROWS) as host, Peer.connect(host) as peer:
        path = Peer.with_token(host, "/page?a=b")
        await peer.send(get(web.url(path), f"127.0.0.1:{web.port}"))
        await read_exactly(peer, ok())
    assert web.heads[0][1].startswith(b"GET /page?a=b HTTP/1.1\r\n")


async def test_the_hosts_own_address_by_a_whole_url() -> None:
    async with Host(root="myapp") as host:
        for at in (f"127.0.0.1:{host.address[1]}", "myapp"):
            async with Peer.connect(host) as peer:
                recorder = Recorder(host)
                head = request(f"ws://{at}/chat", at, origin=f"http://{at}")
                assert (await peer.ask(head)).status in (101, 403)
                assert len(recorder.events) <= 2
