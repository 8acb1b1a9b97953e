"""Reaching the real server: by another proxy, by every spelling of loopback, and what is said if it fails."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from interceptor import Host, InvalidArgument, Timeouts, Tls

from .peer import PATIENCE, Peer, request, until
from .proxied import Handler, RealTls, begin_tls, echo, real_tls, server, trusting, tunnel
from .wire import BOTH_LOOPS, Line, lines, needs_ipv6

__all__ = ["lines", "real_tls"]

ROWS = [("ws://myapp.test/*", 1)]


class OtherProxy:
    """Another proxy: answers CONNECT as it is told, and joins to loopback what it lets through.

    Attributes:
        heads: what it was asked.
    """

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.heads: list[bytes] = []
        self._answer = answer

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one client."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        writer.write(self._answer)
        if b" 200 " not in self._answer:
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        finally:
            far_writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first."""
    writer.write(b"SSH-2.0-here\r\n")
    await reader.read()


async def repeat(connection: ServerConnection) -> None:
    """A real server's handler."""
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def behind(handler: Handler, timeouts: Timeouts | None = None) -> AsyncIterator[Peer]:
    """A client of a host that is behind another proxy."""
    async with server(handler) as at:
        host = Host(ROWS, upstream_proxy=f"http://127.0.0.1:{at}", timeouts=timeouts or Timeouts())
        async with host, Peer.connect(host) as peer:
            yield peer


@BOTH_LOOPS
class TestByAnotherProxy:
    async def test_all_that_goes_on_goes_by_it(self) -> None:
        other = OtherProxy()
        async with server(other.handle) as at, serve(repeat, "127.0.0.1", 0) as real:
            port = real.sockets[0].getsockname()[1]
            rows = [(f"ws://looked-into.test:{port}/ours", 1)]
            async with Host(rows, upstream_proxy=f"http://user:p%40ss@127.0.0.1:{at}") as host:
                # Neither name resolves here; the other proxy knows them.
                for name in ("blind.test", "looked-into.test"):
                    async with connect(f"ws://{name}:{port}/theirs", proxy=host.proxy_url) as ws:
                        await ws.send("by two proxies")
                        assert await ws.recv() == "by two proxies"
        assert [head.split(b" ")[1] for head in other.heads] == [
            f"{name}:{port}".encode() for name in ("blind.test", "looked-into.test")
        ]
        secret = base64.b64encode(b"user:p@ss")
        assert all(b"proxy-authorization: basic " + secret.lower() in head.lower() for head in other.heads)

    async def test_requests_go_by_it_too(self) -> None:
        other = OtherProxy()

        async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)
            await reader.read()

        async with server(page) as port, behind(other.handle) as peer:
            head = f" HTTP/1.1\r\nHost: far.test:{port}\r\n\r\n"
            answer = await peer.ask(f"GET http://far.test:{port}/page{head}".encode())
        assert answer.body == f"GET /page{head}".encode()

    async def test_tls_beyond_it(self, real_tls: RealTls) -> None:
        other = OtherProxy()
        async with server(other.handle) as at, server(echo, real_tls.context("far.test")) as port:
            rows = [(f"wss://far.test:{port}/ours", 1)]
            tls = Tls(trust=real_tls.path)
            async with (
                Host(rows, tls=tls, upstream_proxy=f"http://127.0.0.1:{at}") as host,
                Peer.connect(host) as peer,
            ):
                await tunnel(peer, f"far.test:{port}")
                await begin_tls(peer, trusting(host), "far.test")
                head = request("/theirs", f"far.test:{port}")
                await peer.send(head + b"more")
                assert await peer.reader.readexactly(len(head) + 4) == head + b"more"

    async def test_a_server_that_speaks_first(self) -> None:
        other = OtherProxy()
        async with server(banner) as port, behind(other.handle) as peer:
            await tunnel(peer, f"far.test:{port}")
            assert await peer.reader.readexactly(14) == b"SSH-2.0-here\r\n"

    async def test_the_first_bytes_in_one_packet_with_its_answer(self) -> None:
        async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nfirst")
            await reader.read()

        async with behind(at_once) as peer:
            await tunnel(peer, "far.test:22")
            assert await peer.reader.readexactly(5) == b"first"

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            (b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\n\r\n", b"answered 407 Who are you?"),
            (b"SSH-2.0-x\r\n\r\n", b"answered nonsense"),
            (b"HTTP/1.1 103 Wait\r\n\r\n" * 101, b"answered nonsense"),
            (b"HTTP/1.1 103 Wait\r\n\r\n" * 100, b"without an answer"),
            (b"", b"without an answer"),
        ],
    )
    async def test_one_that_says_no(self, said: bytes, why: bytes) -> None:
        async with behind(OtherProxy(said).handle) as peer:
            answer = await tunnel(peer, "far.test:22")
            assert (answer.status, why in answer.body) == (502, True), answer

    async def test_one_that_says_nothing(self) -> None:
        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with behind(wait, Timeouts(answer=0.05)) as peer:
            assert (await tunnel(peer, "far.test:22")).status == 504

    async def test_one_that_is_not_there(self) -> None:
        async with server(echo) as at:
            pass
        async with Host(ROWS, upstream_proxy=f"http://127.0.0.1:{at}") as host, Peer.connect(host) as peer:
            assert (await tunnel(peer, "far.test:22")).status == 502

    async def test_one_that_is_the_host_itself(self) -> None:
        async with server(echo) as free:
            pass
        loop = {"listen": ("127.0.0.1", free), "upstream_proxy": f"http://127.0.0.1:{free}"}
        async with Host(ROWS, **loop) as host, Peer.connect(host) as peer:  # type: ignore[arg-type]
            assert (await tunnel(peer, "far.test:22")).status == 508


@BOTH_LOOPS
async def test_a_ring_of_proxies_is_found(lines: list[Line]) -> None:
    async with server(echo) as free:
        pass
    async with Host(ROWS, upstream_proxy=f"http://127.0.0.1:{free}") as one:
        listen, back = ("127.0.0.1", free), one.proxy_url
        async with Host(ROWS, listen=listen, upstream_proxy=back) as two, Peer.connect(two) as peer:
            assert (await tunnel(peer, "far.test:22")).status == 502
    assert sum("508" in str(line.get("why")) for line in lines) == 1
    assert len(lines) < 10


@BOTH_LOOPS
@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("My.App.localhost", "127.0.0.1"),
        pytest.param("my.app.localhost.", "::1", marks=needs_ipv6),
        pytest.param("[::1]", "::1", marks=needs_ipv6),
    ],
)
async def test_loopback_in_other_words(name: str, address: str) -> None:
    async with server(banner, address=address) as port, Host(ROWS) as host, Peer.connect(host) as peer:
        assert (await tunnel(peer, f"{name}:{port}")).status == 200
        async with asyncio.timeout(PATIENCE):
            assert await peer.reader.readexactly(3) == b"SSH"


@BOTH_LOOPS
async def test_the_machines_own_name_leads_nowhere() -> None:
    async with Host(ROWS) as host, Peer.connect(host) as peer:
        answer = await tunnel(peer, f"{socket.gethostname()}:{host.address[1]}")
        assert answer.status in (502, 508), answer


@BOTH_LOOPS
async def test_stop_during_a_look_up_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    async def stop_early(host: Host) -> None:
        await host.start()
        async with Peer.connect(host) as peer:
            await peer.send(b"CONNECT no-such-name.invalid:80 HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: host._proxy._tasks)
            await host.stop()

    for _ in range(3):
        await stop_early(Host(ROWS))
    await asyncio.get_running_loop().shutdown_default_executor()
    gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_trust_that_is_no_certificate(tmp_path: Path) -> None:
    for text in (None, "nothing of use"):
        path = tmp_path / "trust.pem"
        if text is not None:
            path.write_text(text)
        with pytest.raises(InvalidArgument, match=r"Tls\.trust"):
            Host(tls=Tls(trust=path))


def test_the_systems_store_is_believed_and_names_are_checked() -> None:
    host = Host()
    context = host._proxy._dialer._server_trust()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
