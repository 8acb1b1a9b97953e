"""The client against servers that others wrote, and the host; plain, through TLS, and through a proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import WSMsgType, web
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from interceptor import Host
from interceptor.client import WebSocket

from .peer import PATIENCE
from .served import Site, closed, note
from .wire import ANYONE, BOTH_LOOPS, quiet_loop

__all__ = ["quiet_loop"]

pytestmark = BOTH_LOOPS

MESSAGES: list[str | bytes] = ["", "Grüße 🎈", b"", b"\x00\xff", "x" * 70_000, bytes(200_000)]
AUTHORITY = trustme.CA()


def server_context(name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def talk(socket: WebSocket, code: int = 3000) -> None:
    """Exchange messages with an echo, then close; the echo answers with `code`."""
    socket.binaryType = "arraybuffer"
    async with asyncio.timeout(PATIENCE), socket:
        assert socket.protocol == "chat"
        assert "permessage-deflate" in socket.extensions
        for message in MESSAGES:
            socket.send(message)
        events = aiter(socket)
        assert [(await anext(events)).data for _ in MESSAGES] == MESSAGES
        socket.close(3000, "enough")
    end = await closed(socket)
    assert (end.wasClean, end.code) == (True, code)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.mark.parametrize("secure", [False, True])
async def test_websockets(secure: bool) -> None:
    context = server_context() if secure else None
    async with serve(echo, "127.0.0.1", 0, ssl=context, subprotocols=[Subprotocol("chat")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        scheme = "wss" if secure else "ws"
        await talk(
            WebSocket(f"{scheme}://127.0.0.1:{port}/", "chat", ssl=client_context() if secure else None)
        )


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["chat"])
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_aiohttp() -> None:
    async with aiohttp_server() as port:
        await talk(WebSocket(f"ws://127.0.0.1:{port}/", ["chat", "other"]), code=1000)


@pytest.mark.parametrize("proxied", [False, True])
async def test_the_host_directly_and_as_a_proxy(proxied: bool) -> None:
    host = Host([("ws://feed.test/*", 1)], root="myapp", subprotocols=["chat"], security=ANYONE)

    @host.on("WebSocketReceive")
    def back(event) -> None:  # type: ignore[no-untyped-def]
        host.WebSocketSend(event.id, event.data)

    async with host:
        if proxied:
            await talk(WebSocket("ws://feed.test/x", "chat", proxy=host.proxy_url))
        else:
            await talk(WebSocket(host.ws_url("ws://feed.test/x"), "chat"))


@pytest.mark.parametrize("secure", [False, True])
async def test_a_proxy_that_passes_on_to_the_real_server(secure: bool) -> None:
    async with (
        Host([("ws://other.test/*", 1)], root="myapp") as proxy,
        Site.serving(server_context() if secure else None) as site,
    ):
        socket = WebSocket(site.url, proxy=proxy.proxy_url, ssl=client_context())
        served = await site.open(socket)
        assert served.field("Host") == f"127.0.0.1:{site.port}"
        await served.send(served.frame(1, "through"))
        async for event in socket:
            assert note(event) == ("message", "through")
            break
        socket.close()


def let_the_server_complain() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


async def test_a_certificate_that_is_not_trusted_is_a_failure() -> None:
    let_the_server_complain()
    async with Site.serving(server_context()) as site:
        socket = WebSocket(site.url)
        assert (await closed(socket)).code == 1006
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == "tls"
    assert "not trusted" in socket.diagnosis.reason


async def test_a_certificate_of_another_name_is_a_failure() -> None:
    let_the_server_complain()
    async with Site.serving(server_context("other.test")) as site:
        socket = WebSocket(site.url, ssl=client_context())
        assert (await closed(socket)).code == 1006
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == "tls"


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_certificate_is_checked_against_the_name_in_the_url(proxied: bool) -> None:
    async with (
        Host([("ws://other.test/*", 1)], root="myapp") as proxy,
        Site.serving(server_context("localhost")) as site,
    ):
        url = site.url.replace("127.0.0.1", "localhost")
        socket = WebSocket(url, ssl=client_context(), proxy=proxy.proxy_url if proxied else None)
        await site.open(socket)
        socket.close()


async def test_tls_that_is_none_is_a_failure() -> None:
    async with Site.serving() as site:
        socket = WebSocket(site.url.replace("ws:", "wss:"), ssl=client_context())
        served = await site.waiting.get()
        await served.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert (await closed(socket)).code == 1006
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == "tls"


async def test_tls_offers_http_1_1_and_nothing_else_as_browsers_do() -> None:
    async with Site.serving() as site:
        socket = WebSocket(site.url.replace("ws:", "wss:"))
        served = await site.waiting.get()
        hello = await served.reader.readexactly(5)
        hello = await served.reader.readexactly(int.from_bytes(hello[3:5], "big"))
        assert b"\x00\x09\x08http/1.1" in hello
        socket.close()


ANSWERS = {
    "refuses": (b"HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
    "wants a password": (b"HTTP/1.1 407 Who?\r\n\r\n", "status 407"),
    "hangs up": (b"", "without an answer"),
    "speaks out of turn": (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Forged\r\n\r\n", "bytes of its own"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_proxy_that(name: str) -> None:
    answer, reason = ANSWERS[name]
    async with Site.serving() as site:
        socket = WebSocket("ws://e.test/x", proxy=f"http://ann:p%40ss@127.0.0.1:{site.port}")
        served = await site.accept()
        assert served.lines == [
            "CONNECT e.test:80 HTTP/1.1",
            "Host: e.test:80",
            "Proxy-Authorization: Basic YW5uOnBAc3M=",
        ]
        await served.send(answer)
        served.writer.close()
        assert (await closed(socket)).code == 1006
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule in ("proxy", "network")
    assert reason in socket.diagnosis.reason


async def test_a_proxy_that_is_not_there() -> None:
    async with Site.serving() as site:
        port = site.port
    socket = WebSocket("ws://e.test/", proxy=f"http://127.0.0.1:{port}")
    assert (await closed(socket)).code == 1006
    assert socket.diagnosis is not None
    assert socket.diagnosis.rule == "proxy"
    assert "cannot reach the proxy" in socket.diagnosis.reason


async def test_names_below_localhost_are_loopback() -> None:
    async with Site.serving() as site:
        socket = WebSocket(f"ws://myapp.localhost:{site.port}/")
        served = await site.open(socket)
        assert served.field("Host") == f"myapp.localhost:{site.port}"
        socket.close()


async def test_keepalive_pings_are_sent_where_asked_for() -> None:
    async with Site.serving() as site:
        socket = WebSocket(site.url, ping_interval=0.01)
        served = await site.open(socket)
        assert (await served.receive()).opcode == 9
        socket.close()
