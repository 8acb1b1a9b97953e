"""HTTP through the proxy: how exchanges end that somebody leaves, breaks off, or never finishes."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import pytest

from interceptor import Host, Timeouts
from interceptor.ways.forward import Stream

from .forwarded import ROWS, Web, get, ok, read_exactly
from .peer import PATIENCE, Peer, until
from .proxied import real_tls as real_tls
from .proxied import server
from .wire import BOTH_LOOPS, Line
from .wire import lines as lines

pytestmark = BOTH_LOOPS


async def test_a_client_that_leaves_leaves_nothing() -> None:
    gone = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        finally:
            gone.set()

    async with server(pour) as port, Host(ROWS) as host:
        async with Peer.connect(host) as peer:
            await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
            await peer.reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(gone.wait(), PATIENCE)
        await until(lambda: not host._listener.transports)


@pytest.mark.asyncio  # uvloop's transports count what waits as it comes, and stop later
async def test_small_pieces_do_not_pile_up_in_a_transport() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with far:
        transport, stream = await loop.create_connection(Stream, sock=near)
        writing = loop.create_task(stream.write(b"small"))
        while not transport.get_write_buffer_size():
            await writing
            writing = loop.create_task(stream.write(b"small"))
            await asyncio.sleep(0)
        assert not writing.done()
        far.setblocking(False)
        await loop.sock_recv(far, 2**20)
        await asyncio.wait_for(writing, PATIENCE)
        stream.close()
        await asyncio.wait_for(stream.gone, PATIENCE)


async def test_idle_connections_go_after_the_time_for_a_head() -> None:
    async with Web.open(page=ok()) as web, Host(ROWS, timeouts=Timeouts(head=0.05)) as host:
        async with Peer.connect(host) as peer:
            await peer.send(get(web.url("/page"), f"127.0.0.1:{web.port}"))
            await read_exactly(peer, ok())
            assert await peer.rest() == b""
        await until(lambda: web.ended == 1)
        await until(lambda: not host._listener.transports)


async def test_a_client_that_left_a_deaf_server_is_not_waited_for() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with server(wait) as port, Host(ROWS, timeouts=Timeouts(answer=0.05)) as host:
        async with Peer.connect(host) as peer:
            await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
            await until(lambda: len(host._listener.transports) == 2)
            peer.half_close()
            assert (await peer.answer()).status == 502
        await until(lambda: not host._listener.transports)


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n", b"x"])
async def test_what_a_server_says_unasked_answers_nothing(unasked: bytes) -> None:
    came = 0

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        await reader.readuntil(b"\r\n\r\n")
        came += 1
        writer.write(ok())
        await asyncio.sleep(0)
        writer.write(unasked)
        await reader.read()

    async with server(chatter) as port, Host(ROWS) as host, Peer.connect(host) as peer:
        at = f"127.0.0.1:{port}"
        for _ in range(2):
            await peer.send(get(f"http://{at}/", at))
            await read_exactly(peer, ok())
            for _ in range(20):
                await asyncio.sleep(0.001)
    assert came == 2


async def test_a_server_that_cuts_off_before_its_answer() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with server(cut) as port, Host(ROWS) as host, Peer.connect(host) as peer:
        answer = await peer.ask(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
        assert (answer.status, b"did not answer" in answer.body) == (502, True)


async def test_interim_answers_without_end() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50)
            await writer.drain()

    async with server(stall) as port, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
        with suppress(ConnectionResetError):
            await peer.rest()
        await until(lambda: not host._listener.transports)


@pytest.mark.parametrize(("count", "comes"), [(10, True), (20, False)])
async def test_interim_answers_may_be_as_long_as_a_head_together(count: int, comes: bool) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 20_000 + b"\r\n\r\n"

    async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(interim * count + ok(extra="Connection: close\r\n"))
        await reader.read()

    async with server(hint) as port, Host(ROWS) as host, Peer.connect(host) as peer:
        await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
        got = b""
        with suppress(ConnectionResetError):
            got = await peer.rest()
        assert got.endswith(b"fine") is comes
        await until(lambda: not host._listener.transports)


async def test_no_word_of_a_malformed_head_reaches_client_or_log(lines: list[Line]) -> None:
    bad = b"HTTP/1.1 200 OK\r\nSet-Cookie : session=hunter2\r\n\r\n"
    async with Web.open(close=bad) as web, Host(ROWS) as host, Peer.connect(host) as peer:
        answer = await peer.ask(get(web.url("/close"), f"127.0.0.1:{web.port}"))
    assert (answer.status, b"hunter2" in answer.body) == (502, False)
    assert "hunter2" not in str(lines)


async def test_stop_ends_what_is_under_way() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(wait) as port:
        host = Host(ROWS)
        await host.start()
        async with Peer.connect(host) as peer:
            await peer.send(get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"))
            await until(lambda: len(host._listener.transports) == 2)
            async with asyncio.timeout(PATIENCE):
                await host.stop()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await peer.reader.readexactly(1)
        assert not host._listener.transports
