"""A socket that has ended is freed at once: its memory does not wait for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.protocol import Protocol as Core

from interceptor import Host, WebSocketReceive, WebSocketUpgrade
from interceptor.connection import Connection
from interceptor.session import Session

from .peer import until
from .wire import ANYONE, BOTH_LOOPS

pytestmark = BOTH_LOOPS
RULES = [
    ("ws://*/manual", 2),
    ("ws://*/later", 2),
    ("ws://*/denied", 2),
    ("ws://*/silent", 2),
    ("ws://*/auto", 1),
]
ENDS = ["client", "host", "lost", "half-closed"]


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> Iterator[weakref.WeakSet[object]]:
    """The sessions, connections and cores that are there, while the collector is off."""
    found: weakref.WeakSet[object] = weakref.WeakSet()

    def count(cls: type[Session] | type[Connection] | type[Core]) -> None:
        make = cls.__init__

        def init(self: object, *args: object, **kwargs: object) -> None:
            make(self, *args, **kwargs)  # type: ignore[arg-type]
            if type(self) is cls:  # The client's core is another kind.
                found.add(self)

        monkeypatch.setattr(cls, "__init__", init)

    count(Session)
    count(Connection)
    count(Core)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


def make_host() -> Host:
    host = Host(RULES, security=ANYONE)

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        if event.url.endswith("/denied"):
            return event.deny(403)
        if event.url.endswith("/later"):
            asyncio.get_running_loop().call_soon(host.answer, event.id, event.accept())
        return event.accept() if event.url.endswith("/manual") else None

    @host.on("WebSocketReceive")
    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)
        if event.data == "bye":
            host.WebSocketClose(event.id)

    @host.route("ws://*/route")
    async def route(socket: Session) -> None:
        async for _ in socket:
            pass

    return host


async def end(client: ClientConnection, how: str) -> None:
    """End a socket in one of the ways."""
    if how == "client":
        await client.close()
    elif how == "host":
        await client.send("bye")
    elif how == "lost":
        client.transport.abort()
    else:
        client.transport.write_eof()
    with suppress(ConnectionClosed):
        while True:
            await client.recv()


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", ["auto", "manual", "later", "route", "packed", "proxied"])
async def test_a_socket_that_was_open(kind: str, how: str, living: weakref.WeakSet[object]) -> None:
    path = kind if kind not in ("packed", "proxied") else "auto"
    async with make_host() as host:
        authority = f"{host.address[0]}:{host.address[1]}"
        client = await connect(
            f"ws://{'myapp.test' if kind == 'proxied' else authority}/{path}",
            proxy=host.proxy_url if kind == "proxied" else None,
            compression="deflate" if kind == "packed" else None,
        )
        await client.send("x")
        assert await client.recv() == "x"
        assert len(living) == 3
        await end(client, how)
        await until(lambda: not host.sockets)
        await until(lambda: not living)


@pytest.mark.parametrize("kind", ["denied", "gone"])
async def test_one_that_never_was(kind: str, living: weakref.WeakSet[object]) -> None:
    async with make_host() as host:
        authority = f"{host.address[0]}:{host.address[1]}"
        if kind == "gone":
            _, writer = await asyncio.open_connection(*host.address)
            path, upgrade = "silent", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            writer.write(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\n{upgrade}\r\n{key}\r\n\r\n".encode())
            await until(lambda: len(living) == 1)
            writer.transport.abort()
        else:
            with pytest.raises(InvalidHandshake):
                await connect(f"ws://{authority}/{kind}", proxy=None)
        await until(lambda: not living)
