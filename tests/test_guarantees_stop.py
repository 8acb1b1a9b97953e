"""stop() leaves nothing behind: guarantee 8, over real TCP, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from interceptor import (
    Event,
    EventName,
    Host,
    InvalidState,
    Limits,
    Session,
    Timeouts,
    WebSocketClose,
    WebSocketError,
    WebSocketUpgrade,
)

from .peer import (
    PATIENCE,
    TEXT,
    Peer,
    Recorder,
    close_frame,
    frame,
    until,
)
from .programs import CLOSED, ERROR, MIB, RECEIVE, UPGRADE, ask, frames, make_host, messages, opened, pause
from .wire import BOTH_LOOPS
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

# --- 8: stop() leaves nothing behind ------------------------------------------------------------------------


@asynccontextmanager
async def nothing_left(host: Host) -> AsyncIterator[None]:
    """Check that a host which is stopped inside leaves no task, transport, port or warning behind."""
    address, before = host.address, asyncio.all_tasks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with asyncio.timeout(PATIENCE):
            yield
        left = asyncio.all_tasks() - before
        gc.collect()
    assert not left
    assert not host._listener.transports
    assert not [str(warning.message) for warning in caught]
    assert not host.sockets
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


@pytest.mark.usefixtures("lines")
async def test_8_stop_closes_every_socket_with_1001() -> None:
    host = make_host()
    seen = Recorder(host)
    await host.start()
    async with AsyncExitStack() as stack:
        peers = [(await stack.enter_async_context(opened(host, seen))).peer for _ in range(5)]

        async def leave(peer: Peer) -> None:
            assert await peer.close_code() == 1001
            await peer.send(frame(TEXT, "last") + close_frame(1001))
            assert await peer.rest() == b""

        async with nothing_left(host):
            await asyncio.gather(host.stop(), *map(leave, peers))
    assert len(seen.events) == 5 * 3
    for upgrade in seen.of(WebSocketUpgrade):
        assert seen.names(upgrade.id) == [UPGRADE, RECEIVE, CLOSED]
    assert {(e.code, e.was_clean, e.initiator) for e in seen.of(WebSocketClose)} == {(1001, True, "host")}


@pytest.mark.usefixtures("lines")
async def test_8_stop_does_not_wait_for_ever_for_a_peer() -> None:
    host = make_host(timeouts=Timeouts(close=0.1))
    seen = Recorder(host)
    await host.start()
    async with opened(host, seen) as (_, id), opened(host, seen) as (deaf, _):
        pause(deaf)
        while not host.sockets[id].buffered_amount:
            host.WebSocketSend(id, bytes(MIB))
        async with nothing_left(host):
            await host.stop()
    assert [e.code for e in seen.of(WebSocketClose)] == [1006, 1006]
    assert len(seen.of(WebSocketError)) == 2


@pytest.mark.usefixtures("lines")
async def test_8_upgrades_that_wait_are_refused_and_silent_connections_closed() -> None:
    host = make_host()
    seen = Recorder(host)
    cancelled = asyncio.Event()

    @host.on(UPGRADE)
    async def wait(event: WebSocketUpgrade) -> None:
        if "stuck" in event.url:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    await host.start()
    async with AsyncExitStack() as stack:
        slow = (await stack.enter_async_context(opened(host, seen))).peer
        peers = [await stack.enter_async_context(Peer.connect(host)) for _ in range(4)]
        _, partial, stuck, waiting = peers
        await partial.send(ask(host, "/")[:-2])
        await stuck.send(ask(host, "/manual/stuck"))
        await waiting.send(ask(host, "/manual"))
        await seen.wait_for(WebSocketUpgrade, 3)
        async with nothing_left(host):
            address = host.address
            stopping = asyncio.ensure_future(host.stop())
            assert await slow.close_code() == 1001
            # All this while a socket that is slow to close is waited for.
            await asyncio.wait_for(cancelled.wait(), PATIENCE)
            assert (await stuck.answer()).status == 503
            assert (await waiting.answer()).status == 503
            for peer in peers:
                assert await peer.rest() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            assert not stopping.done()
            await slow.send(close_frame(1001))
            await stopping
    for upgrade in seen.of(WebSocketUpgrade)[1:]:
        assert seen.names(upgrade.id) == [UPGRADE, ERROR]


@pytest.mark.parametrize("turns", range(6))
async def test_8_a_connection_that_is_just_coming(turns: int) -> None:
    host = make_host()
    await host.start()
    with socket.create_connection(host.address) as coming:
        for _ in range(turns):
            await asyncio.sleep(0)
        async with nothing_left(host):
            await host.stop()
        coming.settimeout(PATIENCE)
        with suppress(ConnectionResetError):  # That is an end too.
            assert coming.recv(1) == b""


@pytest.mark.parametrize("stubborn", [False, True], ids=["", "stubborn"])
@pytest.mark.parametrize("kind", ["callback", "held", "route"])
@pytest.mark.usefixtures("lines")
async def test_8_handlers_that_never_end_are_cancelled(kind: str, stubborn: bool) -> None:
    host = make_host(limits=Limits(read_buffer=1 if kind == "held" else MIB), timeouts=Timeouts(close=0.1))
    seen = Recorder(host)
    patience = [True] if stubborn else []
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def never_end(event: Event | Session) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if patience:
                patience.pop()
                await never_end(event)
            cancelled.set()
            raise

    if kind == "route":
        host.route("*")(never_end)
    else:
        host.on(RECEIVE)(never_end)
    await host.start()
    async with opened(host, seen) as (peer, _):
        await peer.send(frames(messages(3)))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        async with nothing_left(host):
            await host.stop()
        assert cancelled.is_set()
    assert seen.names() == [UPGRADE, *[RECEIVE] * 3, ERROR, CLOSED]


@pytest.mark.usefixtures("lines")
async def test_8_many_messages_behind_one_that_never_ends() -> None:
    host = make_host(timeouts=Timeouts(close=0.1))
    seen = Recorder(host)
    begun, told = asyncio.Event(), asyncio.Event()

    @host.on(RECEIVE)
    async def never_end(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    @host.on(CLOSED)
    def tell(event: Event) -> None:
        told.set()

    await host.start()
    async with opened(host, seen) as (peer, _):
        await peer.send(frame(TEXT) * 10_000)
        await asyncio.wait_for(begun.wait(), PATIENCE)
        async with nothing_left(host):
            await host.stop()
    assert told.is_set()


class Stopper:
    """A program that stops its host from inside, for the socket whose URL says so.

    Args:
        place: the callback, or `route`, that does it.

    Attributes:
        stops: what a plain callback has begun.
        stopped: one True for each call that returned.
        cancelled: one True for each call that was cancelled.
    """

    def __init__(self, host: Host, place: str) -> None:
        self._host = host
        self.stops: list[asyncio.Task[None]] = []
        self.stopped: list[bool] = []
        self.cancelled: list[bool] = []
        if place == "route":
            host.route("*/stop")(self.stop)
        elif place == "plain":
            host.on(RECEIVE)(self.stop_soon)
        else:
            places: dict[str, EventName] = {
                "async": "WebSocketReceive",
                "upgrade": "WebSocketUpgrade",
                "manual": "WebSocketUpgrade",
                "error": "WebSocketError",
                "close": "WebSocketClose",
            }
            host.on(places[place])(self.stop)

    def stop_soon(self, event: Event) -> None:
        self.stops.append(asyncio.ensure_future(self._host.stop()))

    async def stop(self, event: Event | Session) -> None:
        if not getattr(event, "url", "/stop").endswith("/stop"):
            return
        try:
            await self._host.stop()
        except asyncio.CancelledError:
            self.cancelled.append(True)
            raise
        self.stopped.append(True)


@pytest.mark.parametrize("place", ["plain", "async", "upgrade", "manual", "error", "close", "route"])
@pytest.mark.usefixtures("lines")
async def test_8_stop_from_inside(place: str) -> None:
    host = make_host()
    seen = Recorder(host)
    program = Stopper(host, place)
    before, target = asyncio.all_tasks(), "/manual/stop" if place == "manual" else "/stop"
    await host.start()
    async with opened(host, seen, "/other") as (other, _), Peer.connect(host) as peer:
        await peer.send(ask(host, Peer.with_token(host, target)) + frames(messages(3)))
        if place in ("error", "close"):
            await peer.send(frame(3) if place == "error" else close_frame())
        assert await other.close_code() == 1001
        await other.send(close_frame(1001))
        assert await other.rest() == b""
        if place != "manual":
            assert (await peer.answer()).status == 101
            await peer.close_code()
            await peer.send(close_frame(1001))
        await peer.rest()
        async with asyncio.timeout(PATIENCE):
            await host.stop()
        await until(lambda: asyncio.all_tasks() == before)
    assert not host.sockets
    # Nobody waits for the answer of a callback whose upgrade was refused.
    assert {"manual": program.cancelled, "plain": program.stops}.get(place, program.stopped)
    outcomes = [seen.names(upgrade.id) for upgrade in seen.of(WebSocketUpgrade)]
    error = [ERROR] if place == "error" else []
    assert outcomes[0] == [UPGRADE, CLOSED]
    assert outcomes[1] == [UPGRADE, ERROR] if place == "manual" else [UPGRADE, *[RECEIVE] * 3, *error, CLOSED]


@pytest.mark.usefixtures("lines")
async def test_8_stop_twice_and_at_once() -> None:
    host = make_host()
    seen = Recorder(host)
    await host.start()
    async with opened(host, seen) as (peer, _), nothing_left(host):
        stops = [asyncio.ensure_future(host.stop()) for _ in range(3)]
        assert await peer.close_code() == 1001
        stops[0].cancel()
        await asyncio.wait(stops[:1])
        assert not any(stop.done() for stop in stops[1:])
        await peer.send(close_frame(1001))
        await asyncio.gather(*stops[1:])
        await host.stop()
    assert seen.names() == [UPGRADE, CLOSED]
    assert stops[0].cancelled()


async def test_8_stop_before_start() -> None:
    host = make_host()
    before = asyncio.all_tasks()
    await host.stop()
    with pytest.raises(InvalidState, match="stopped"):
        await host.start()
    assert asyncio.all_tasks() == before


@pytest.mark.usefixtures("lines")
async def test_8_a_program_that_fails_stops_its_host() -> None:
    host = make_host()
    seen = Recorder(host)

    async def program() -> None:
        async with host, Peer.open(host) as peer:
            await seen.wait_for(WebSocketUpgrade)
            peer.half_close()
            raise ZeroDivisionError

    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        await program()
    assert seen.names() == [UPGRADE, ERROR, CLOSED]
    assert asyncio.all_tasks() == before
