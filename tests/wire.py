"""What the tests over real TCP share: a host that lets anyone in, its usual bytes, its events in short."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from interceptor import (
    Event,
    Host,
    Limits,
    Security,
    Timeouts,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import ACCEPT, PATIENCE, Answer, Peer, Recorder, request

ANYONE = Security(allow_no_origin=True)
TABLE = [("ws://myapp/manual*", 2), ("ws://myapp/*", 1)]
HEAD = request("/chat", "myapp")
MANUAL = request("/manual", "myapp")
UPGRADE = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
RIGHT = f"{UPGRADE}Sec-WebSocket-Accept: {ACCEPT}\r\n"
SWITCHED = f"{RIGHT}\r\n".encode()
BOTH_LOOPS = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")

Line = MutableMapping[str, Any]
Told = tuple[object, ...]
Reply = Callable[[WebSocketUpgrade], Any]

AUTO: Told = ("upgrade", "auto")
ASKED: Told = ("upgrade", "manual")
ERROR: Told = ("error",)
LOST: tuple[Told, Told] = (ERROR, ("close", 1006, "fault"))


def make_host(*, limits: Limits | None = None, timeouts: Timeouts | None = None) -> Host:
    """A host for ws://myapp/*, automatic but for /manual, that needs neither Origin nor token."""
    return Host(
        TABLE, root="myapp", security=ANYONE, limits=limits or Limits(), timeouts=timeouts or Timeouts()
    )


def told(event: Event) -> Told:
    """An event in short, without its ID."""
    match event:
        case WebSocketUpgrade():
            return ("upgrade", event.type)
        case WebSocketReceive():
            return ("receive", event.data)
        case WebSocketClose():
            assert event.was_clean is (event.code != 1006 and event.initiator != "fault")
            return ("close", event.code, event.initiator)
        case WebSocketError():
            return ERROR
    raise AssertionError(f"what is {event!r}?")


def story(seen: Recorder, id: str | None = None) -> list[Told]:
    """The events so far in short, in order; of one socket, or all where they are of one."""
    events = [event for event in seen.events if id in (None, getattr(event, "id", None))]
    assert len({getattr(event, "id", None) for event in events}) <= 1, "events of several sockets"
    return [told(event) for event in events]


def error_of(seen: Recorder) -> str:
    """The text of the only WebSocketError so far."""
    (error,) = seen.of(WebSocketError)
    return error.text


async def turns(count: int = 5) -> None:
    """Let the loop turn, so that the host reads what is on the wire."""
    for _ in range(count):
        await asyncio.sleep(0)


async def switched(peer: Peer) -> None:
    """Read a 101 without subprotocol and extension: these bytes, and none before them."""
    async with asyncio.timeout(PATIENCE):
        assert await peer.reader.readexactly(len(SWITCHED)) == SWITCHED


class TurnCounter:
    """Counts the turns of the running loop, from now to its end."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._turn()

    def _turn(self) -> None:
        self.count += 1
        self._loop.call_soon(self._turn)


@asynccontextmanager
async def opened(host: Host, head: bytes = HEAD) -> AsyncIterator[Peer]:
    """A peer whose socket is open."""
    async with Peer.connect(host) as peer:
        await peer.send(head)
        await switched(peer)
        yield peer


async def served(host: Host, head: bytes = HEAD) -> Answer:
    """Ask until the answer is no 503: a slot that was taken gets free."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with Peer.connect(host) as peer:
                answer = await peer.ask(head)
            if answer.status != 503:
                return answer
            await asyncio.sleep(0.001)


async def exchange(reply: Reply, head: bytes = MANUAL) -> tuple[bytes, Recorder]:
    """Ask a host with this callback, plain or async; all that it said, and all its events."""
    host = make_host()
    seen = Recorder(host)
    host.on("WebSocketUpgrade")(reply)
    async with host, Peer.connect(host) as peer:
        await peer.send(head)
        said = await peer.rest()
        peer.writer.close()
    return said, seen


@pytest.fixture(autouse=True)
def quiet_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing of the host's may raise into the loop, which only logs it."""
    yield
    records = caplog.get_records("call")
    assert not [r.getMessage() for r in records if r.name == "asyncio" and r.levelno >= logging.ERROR]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """Every line that the package logs, of all levels."""
    with capture_logs() as captured:
        yield captured
    structlog.reset_defaults()
