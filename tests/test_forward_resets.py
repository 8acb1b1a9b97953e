"""Through the proxy: a client that resets its connection leaves nothing, however silent the server is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from interceptor import Host, Timeouts, Tls

from .forwarded import ROWS, get, ok, read_exactly
from .peer import Peer, request, until
from .proxied import RealTls, begin_tls, server, trusting, tunnel
from .proxied import real_tls as real_tls
from .test_socks import ask_for, greet, reply
from .wire import BOTH_LOOPS

pytestmark = BOTH_LOOPS

LONG = "Content-Length: 1000000\r\n"
NEVER = Timeouts(head=1000)
BEGUN = f"HTTP/1.1 200 OK\r\n{LONG}\r\nhalf".encode()


class Silent:
    """A real server that says one thing at most, and then reads on for ever.

    Attributes:
        port: where it is.
        got: what came to it.
        open: its connections.
    """

    def __init__(self, says: bytes) -> None:
        self.port = 0
        self.got = b""
        self.open = 0
        self._says = says

    @classmethod
    @asynccontextmanager
    async def serving(cls, says: bytes = b"", tls: RealTls | None = None) -> AsyncIterator[Silent]:
        """Serve."""
        silent = cls(says)
        context = None if tls is None else tls.context("localhost")
        async with server(silent._handle, context) as silent.port:
            yield silent

    @property
    def at(self) -> str:
        """Its authority."""
        return f"localhost:{self.port}"

    def asked_for(self, *, extra: str = "", method: str = "GET") -> bytes:
        """A request for it as a proxy gets one."""
        return get(f"http://{self.at}/", self.at, extra=extra, method=method)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        writer.write(self._says)
        with suppress(OSError):
            while data := await reader.read(65536):
                self.got += data
        self.open -= 1


async def nothing_is_left(host: Host, silent: Silent) -> None:
    """Wait until both sides are gone."""
    await until(lambda: not host._listener.transports and not silent.open)
    assert not host._proxy._relays
    await until(lambda: not host._proxy._tasks)


async def test_before_the_answer() -> None:
    async with Silent.serving() as silent, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(silent.asked_for())
        await until(lambda: silent.got.endswith(b"\r\n\r\n"))
        peer.reset()
        await nothing_is_left(host, silent)


async def test_behind_a_request_that_has_to_wait() -> None:
    async with Silent.serving() as silent, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(silent.asked_for())
        await until(lambda: silent.got.endswith(b"\r\n\r\n"))
        await peer.send(silent.asked_for())
        peer.reset()
        await nothing_is_left(host, silent)


async def test_amid_the_body_of_the_request() -> None:
    async with Silent.serving() as silent, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(silent.asked_for(extra=LONG, method="POST") + b"half")
        await until(lambda: silent.got.endswith(b"half"))
        peer.reset()
        await nothing_is_left(host, silent)


async def test_amid_the_answer() -> None:
    async with Silent.serving(BEGUN) as silent, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(silent.asked_for())
        await read_exactly(peer, BEGUN)
        peer.reset()
        await nothing_is_left(host, silent)


async def test_while_the_server_is_being_reached() -> None:
    """Another proxy, which the server is reached by, says nothing."""
    async with (
        Silent.serving() as silent,
        Host(ROWS, upstream_proxy=f"http://{silent.at}") as host,
        Peer.connect(host) as peer,
    ):
        await peer.send(get("http://far.test/", "far.test"))
        await until(lambda: silent.got.startswith(b"CONNECT far.test:80 "))
        peer.reset()
        await nothing_is_left(host, silent)


async def test_a_socket_that_is_passed_on_before_its_answer() -> None:
    async with Silent.serving() as silent, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(request(f"ws://{silent.at}/theirs", silent.at))
        await until(lambda: silent.got.endswith(b"\r\n\r\n"))
        peer.reset()
        await nothing_is_left(host, silent)


@pytest.mark.parametrize("path", ["/page", "/socket"])
@pytest.mark.parametrize("seen", [False, True], ids=["blind", "looked into"])
async def test_in_a_tunnel(seen: bool, path: str) -> None:
    async with Silent.serving() as silent:
        rows = [(f"ws://{silent.at}/ours", 1)] if seen else ROWS
        async with Host(rows) as host, Peer.connect(host) as peer:
            await tunnel(peer, silent.at)
            await peer.send(request(path, silent.at) if path == "/socket" else get(path, silent.at))
            await until(lambda: silent.got.endswith(b"\r\n\r\n"))
            peer.reset()
            await nothing_is_left(host, silent)


async def test_in_a_tunnel_of_socks() -> None:
    async with Silent.serving() as silent, Host(ROWS) as host, Peer.connect(host) as peer:
        await greet(peer)
        await peer.send(ask_for("localhost", silent.port))
        assert await reply(peer) == 0
        await peer.send(b"hello")
        await until(lambda: silent.got == b"hello")
        peer.reset()
        await nothing_is_left(host, silent)


@pytest.mark.parametrize("says", [b"", BEGUN], ids=["before the answer", "amid the answer"])
async def test_in_tls(real_tls: RealTls, says: bytes) -> None:
    async with Silent.serving(says, real_tls) as silent:
        rows, trust = [(f"wss://{silent.at}/ours", 1)], Tls(trust=real_tls.path)
        async with Host(rows, tls=trust) as host, Peer.connect(host) as peer:
            await tunnel(peer, silent.at)
            await begin_tls(peer, trusting(host), "localhost")
            await peer.send(get("/page", silent.at))
            await until(lambda: silent.got.endswith(b"\r\n\r\n"))
            await read_exactly(peer, says)
            peer.reset()
            await nothing_is_left(host, silent)


async def test_a_kept_connection_that_its_server_resets_counts_no_more() -> None:
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok())
        await over.wait()
        Peer(reader, writer).reset()

    async with server(answer) as port, Host(ROWS, timeouts=NEVER) as host, Peer.connect(host) as peer:
        at = f"127.0.0.1:{port}"
        await peer.send(get(f"http://{at}/", at))
        await read_exactly(peer, ok())
        assert len(host._listener.transports) == 2
        over.set()
        await until(lambda: len(host._listener.transports) == 1)
        assert not peer.reader.at_eof()
