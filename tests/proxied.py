"""Tests of the proxy ways in share: real servers on loopback, tunnels by hand, TLS at both ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from interceptor import Host, Tls
from interceptor.ways.certs import Authority

from .peer import PATIENCE, Answer, Peer, request

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(
    handler: Handler, context: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """A TCP server that never heard of us, in TLS if it has a context; gives its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError):
                await handler(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, address, 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
    """Keep every byte, answer `ok` to the first, end when the client ends."""
    got += await reader.read(65536)
    writer.write(b"ok")
    got += await reader.read()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def tunnel(peer: Peer, target: str, *, extra: str = "") -> Answer:
    """Ask for a tunnel; 200 has no body."""
    await peer.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{extra}\r\n".encode("latin-1"))
    async with asyncio.timeout(PATIENCE):
        head = await peer.reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    body = b"" if status == 200 else await peer.rest()
    return Answer(status, {}, body, head)


def page_request(path: str = "/chat", host: str = "myapp.test", **more: str) -> bytes:
    """A handshake as a page of the same host makes it."""
    return request(path, host, origin=f"http://{host}", **more)  # type: ignore[arg-type]


def trusting(host: Host, *alpn: str) -> ssl.SSLContext:
    """What a browser that trusts the host's authority has."""
    context = ssl.create_default_context(cadata=host.ca_pem)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def begin_tls(peer: Peer, context: ssl.SSLContext, name: str) -> None:
    """Begin TLS on a peer's connection."""
    async with asyncio.timeout(PATIENCE):
        await peer.writer.start_tls(context, server_hostname=name)


class RealTls:
    """The certificates of real servers.

    Attributes:
        path: of the certificate of their authority, for `Tls(trust=...)`.
    """

    def __init__(self, folder: Path) -> None:
        self._authority = Authority(Tls())
        self.path = folder / "authority.pem"
        self.path.write_text(self._authority.pem)

    def context(self, name: str) -> ssl.SSLContext:
        """What ends TLS at a real server of this name."""
        return self._authority.context(name)

    def trusted(self) -> ssl.SSLContext:
        """What a client has that trusts the real servers."""
        return ssl.create_default_context(cadata=self._authority.pem)


@pytest.fixture
def real_tls(tmp_path: Path) -> RealTls:
    """The certificates of real servers."""
    return RealTls(tmp_path)
