"""A connection that an exchange has handed over stays open when the exchange is forgotten."""

from __future__ import annotations

import asyncio
import gc

from interceptor import Host

from .peer import TEXT, Peer, close_frame, frame, request
from .proxied import server
from .real import real_server


async def test_a_socket_that_was_asked_for_by_its_whole_url() -> None:
    async with real_server() as real, Host([("ws://ours.test/*", 1)]) as host, Peer.connect(host) as peer:
        there = f"127.0.0.1:{real.port}"
        assert (await peer.ask(request(f"ws://{there}/", there))).status == 101
        gc.collect()
        await peer.send(frame(TEXT, "still there"))
        assert (await peer.frame()).payload == b"still there"
        await peer.send(close_frame())
        assert await peer.close_code() == 1000


async def test_one_request_after_the_other() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with server(answer) as port, Host([("ws://ours.test/*", 1)]) as host, Peer.connect(host) as peer:
        for _ in range(3):
            head = f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
            assert (await peer.ask(head.encode())).body == b"ok"
            gc.collect()
