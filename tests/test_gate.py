"""Connections that pass from hand to hand while TLS begins, talks and is lost."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from interceptor import Limits, Timeouts, Tls
from interceptor.handshake import Request
from interceptor.ways.certs import Authority
from interceptor.ways.forward import Stream
from interceptor.ways.gate import Gate, start_tls
from interceptor.ways.listener import Holder, Incoming, Listener, Look, Tunnel

from .peer import PATIENCE

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


class Seen(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.told.append(data.decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.over.set()


class Nobody:
    """Receives nothing."""

    def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
        return Look.MORE

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        raise AssertionError("no head was to be read")


@asynccontextmanager
async def begun(*, say: bytes = b"") -> AsyncIterator[tuple[asyncio.Transport, asyncio.Transport, Gate]]:
    """TLS between two ends in this process: the transport below, the one inside, and its gate."""
    loop, authority = asyncio.get_running_loop(), Authority(Tls())
    ours, theirs = socket.socketpair()
    below, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    trust = ssl.create_default_context(cadata=authority.pem)
    ending = asyncio.create_task(start_tls(below, authority.context("x.test"), Timeouts()))
    reader, writer = await asyncio.open_connection(sock=theirs)
    await writer.start_tls(trust, server_hostname="x.test")
    writer.write(say)
    inside, gate = await ending
    try:
        yield below, inside, gate
    finally:
        inside.abort()
        writer.transport.abort()
        await asyncio.sleep(0)
        del reader


def lose(below: asyncio.Transport) -> None:
    """Let TLS notice that its connection is lost, and tell so in the next turn of the loop."""
    below.get_protocol().connection_lost(None)


async def told_of_loss(seen: Seen) -> None:
    async with asyncio.timeout(PATIENCE):
        await seen.over.wait()
    assert seen.told.count("lost") == 1


async def test_what_came_before_somebody_took_it_is_not_lost() -> None:
    async with begun(say=b"early") as (_, inside, gate):
        async with asyncio.timeout(PATIENCE):
            while not gate._data:  # noqa: ASYNC110  # nothing tells when it has come
                await asyncio.sleep(0.001)
        seen = Seen()
        gate.hand_over(inside, seen)
        assert seen.told == ["early"]


async def test_a_loss_before_a_gate_hands_over_and_told_after_it() -> None:
    async with begun() as (below, inside, gate):
        seen = Seen()
        lose(below)
        gate.hand_over(inside, seen)
        await told_of_loss(seen)


async def test_a_loss_that_a_gate_was_told_of() -> None:
    async with begun() as (below, inside, gate):
        lose(below)
        for _ in range(3):
            await asyncio.sleep(0)
        seen = Seen()
        gate.hand_over(inside, seen)
        await told_of_loss(seen)


async def test_a_loss_while_a_request_is_settled() -> None:
    async with begun() as (below, inside, gate):
        listener, seen = Listener(Nobody(), Limits(), Timeouts()), Seen()
        listener.made(inside)
        incoming = Incoming(listener, Nobody(), inside)
        gate.hand_over(inside, incoming)
        lose(below)
        incoming.switch(b"", lambda transport, lost: transport.set_protocol(seen))
        await told_of_loss(seen)


async def test_a_loss_while_an_exchange_parts() -> None:
    async with begun() as (below, inside, _):
        stream, seen = Stream(), Seen()
        stream.take(inside, lambda: None)
        lose(below)
        await stream.leave()
        inside.set_protocol(seen)
        await told_of_loss(seen)
