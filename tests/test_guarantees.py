"""What an upgrade becomes, the order of events, and what a failing callback does.

Guarantees 1, 2, 5 and 6 of a socket's life, over real TCP, on asyncio's loop and on uvloop's. `test_2_...` is
a test of the second; docs/events.md has their text.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import NamedTuple

import pytest

from interceptor import (
    AnyEvent,
    Event,
    EventName,
    Host,
    Session,
    SocketClosed,
    Timeouts,
    UnknownSocket,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    TEXT,
    Frame,
    Peer,
    Recorder,
    close_frame,
    frame,
    until,
)
from .programs import CLOSED, DEFLATE, ERROR, RECEIVE, UPGRADE, ask, frames, make_host, messages, opened
from .wire import BOTH_LOOPS, Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

# --- 1: one upgrade, one ID, exactly one of opened, denied, failed ------------------------------------------

OPENED = [UPGRADE, RECEIVE, CLOSED]
DENIED = [UPGRADE]
FAILED = [UPGRADE, ERROR]
REFUSED = [ERROR]

UPGRADES: dict[str, tuple[str, list[str]]] = {
    # what is asked for: how the answer begins, and the events of it
    "/auto": ("HTTP/1.1 101", OPENED),
    "/old": ("HTTP/1.1 426", REFUSED),
    "/manual/accept": ("HTTP/1.1 101", OPENED),
    "/manual/late": ("HTTP/1.1 101", OPENED),
    "/manual/twice": ("HTTP/1.1 101", OPENED),
    "/manual/deny": ("HTTP/1.1 403", DENIED),
    "/manual/drop": ("", DENIED),
    "/manual/verbatim": ("HTTP/1.1 101 Nope", DENIED),
    "/manual/wrong": ("HTTP/1.1 500", FAILED),
    "/manual/raise": ("HTTP/1.1 500", FAILED),
    "/manual/never": ("HTTP/1.1 504", FAILED),
    "/manual/gone": ("", FAILED),
}


def decide(host: Host, event: WebSocketUpgrade) -> WebSocketUpgrade | None:
    """What the program does with an upgrade, by the last word of its URL."""
    match event.url.rpartition("/")[2]:
        case "accept":
            return event.accept()
        case "late":
            asyncio.get_running_loop().call_soon(host.answer, event.id, event.accept())
        case "twice":
            host.answer(event.id, event.accept())
            return event.deny()
        case "deny":
            return event.deny()
        case "drop":
            return event.drop()
        case "verbatim":
            return event.verbatim(b"HTTP/1.1 101 Nope\r\n\r\n")
        case "wrong":
            return event.answer("HTTP/1.1 101 Nope\r\n\r\n")
        case "raise":
            raise ValueError("no answer")
    return None


async def upgrade_once(host: Host, seen: Recorder, target: str) -> None:
    """Ask for an upgrade, look at the answer, and use the socket where there is one."""
    begins, names = UPGRADES[target]
    async with Peer.connect(host) as peer:
        await peer.send(ask(host, target, without=("Sec-WebSocket-Version",) if target == "/old" else ()))
        if target == "/manual/gone":
            await seen.wait(lambda: any(e.url.endswith("gone") for e in seen.of(WebSocketUpgrade)))
            peer.reset()
        elif names is OPENED:
            assert (await peer.answer()).status == 101
            await peer.send(frame(TEXT, "hello") + close_frame())
            assert await peer.close_code() == 1000
        else:
            assert (await peer.rest()).decode().startswith(begins)


@pytest.mark.parametrize("never", [False, True], ids=["", "never"])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.usefixtures("lines")
async def test_1_each_upgrade_has_one_id_and_one_outcome(is_async: bool, never: bool) -> None:
    host = make_host(timeouts=Timeouts(answer=0.05 if never else 60))
    targets = [target for target in UPGRADES if target.endswith("never") is never] * 3
    seen = Recorder(host)

    def decide_now(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        return decide(host, event)

    async def decide_soon(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        await asyncio.sleep(0)
        return decide(host, event)

    host.on(UPGRADE)(decide_soon if is_async else decide_now)
    async with host:
        await asyncio.gather(*(upgrade_once(host, seen, target) for target in targets))
    outcomes: dict[str, list[str]] = defaultdict(list)
    for event in seen.events:
        outcomes[event.id].append(event.event)  # type: ignore[attr-defined]  # all of these have one
    assert sorted(outcomes.values()) == sorted(UPGRADES[target][1] for target in targets)
    for event in seen.of(WebSocketUpgrade):
        assert outcomes[event.id] == UPGRADES[event.url.removeprefix("ws://dyalog_root")][1]


@pytest.mark.parametrize("first", ["accept", "deny"])
async def test_1_what_was_answered_cannot_be_answered_again(first: str) -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            await peer.send(ask(host, "/manual/by-hand"))
            event = await seen.wait_for(WebSocketUpgrade)
            host.answer(event.id, event.accept() if first == "accept" else event.deny(404))
            with pytest.raises(UnknownSocket):
                host.answer(event.id, event.deny(401))
            assert (await peer.answer()).status == (101 if first == "accept" else 404)
    assert seen.names() == ([UPGRADE, ERROR, CLOSED] if first == "accept" else [UPGRADE])


def data_of(seen: Recorder) -> list[str | bytes]:
    return [event.data for event in seen.of(WebSocketReceive)]


# --- 2: 842s in wire order, at most one 844, exactly one 843, and nothing after it --------------------------


class Ending(NamedTuple):
    """How a peer ends, and what its 843 then says."""

    data: bytes
    code: int
    reason: str = ""
    then: Callable[[Peer], None] | None = None


PEER_ENDS = {
    "code": Ending(close_frame(3000, "bye"), 3000, "bye"),
    "no code": Ending(close_frame(None), 1005),
    "going away": Ending(close_frame(1001), 1001),
    "code, then FIN": Ending(close_frame(3000), 3000, "", Peer.half_close),
    "code, then RST": Ending(close_frame(3000), 3000, "", Peer.reset),
    "more after the code": Ending(close_frame(3000) + close_frame(3001) + frame(TEXT, "late"), 3000),
    "FIN": Ending(b"", 1006, "", Peer.half_close),
    "RST": Ending(b"", 1006, "", Peer.reset),
    "FIN in a frame": Ending(frame(TEXT, "cut")[:5], 1006, "", Peer.half_close),
    "FIN in a message": Ending(frame(TEXT, "cut", fin=False), 1006, "", Peer.half_close),
    "bad frame": Ending(frame(3) + frame(TEXT, "late"), 1006),
    "bad frame, then RST": Ending(frame(3), 1006, "", Peer.reset),
    "bad frame, then code": Ending(frame(3) + close_frame(3000), 1006),
}


@pytest.mark.parametrize("how", ["plain", "async", "deflate"])
@pytest.mark.parametrize("ending", PEER_ENDS.values(), ids=PEER_ENDS)
@pytest.mark.usefixtures("lines")
async def test_2_the_peer_ends_it(ending: Ending, how: str) -> None:
    async with make_host() as host:
        if how == "async":
            host.on("All")(Watch().slow("first"))
        seen = Recorder(host)
        async with opened(host, seen, extra=DEFLATE if how == "deflate" else "") as (peer, _):
            await peer.send(frame(TEXT, "one") + frame(BINARY, b"two"))
            await peer.send(frame(TEXT, "thr", fin=False) + frame(PING) + frame(CONT, "ee") + ending.data)
            if ending.then is not None:
                ending.then(peer)
            closed = await seen.wait_for(WebSocketClose)
    assert data_of(seen) == ["one", b"two", "three"]
    error = [ERROR] if ending.code == 1006 else []
    assert seen.names() == [UPGRADE, *[RECEIVE] * 3, *error, CLOSED]
    assert (closed.code, closed.reason) == (ending.code, ending.reason)
    assert closed.was_clean is (ending.code != 1006)
    assert closed.initiator == ("fault" if ending.code == 1006 else "client")


HOST_ENDS = {
    "the same": Ending(close_frame(4000, "why not"), 4000, "why not"),
    "another": Ending(close_frame(3001, "mine"), 3001, "mine"),
    "no code": Ending(close_frame(None), 1005),
    "messages first": Ending(frame(TEXT, "wait") + close_frame(4000), 4000),
    "FIN": Ending(b"", 1006, "", Peer.half_close),
    "RST": Ending(b"", 1006, "", Peer.reset),
    "nothing": Ending(b"", 1006),
}


@pytest.mark.parametrize("ending", HOST_ENDS.values(), ids=HOST_ENDS)
@pytest.mark.usefixtures("lines")
async def test_2_the_host_ends_it(ending: Ending) -> None:
    patience = 0.05 if ending is HOST_ENDS["nothing"] else 60
    async with make_host(timeouts=Timeouts(close=patience)) as host:
        seen = Recorder(host)
        async with opened(host, seen) as (peer, id):
            host.WebSocketClose(id, 4000, "why not")
            assert await peer.frame() == Frame(CLOSE, b"\x0f\xa0why not")
            await peer.send(ending.data)
            if ending.then is not None:
                ending.then(peer)
            closed = await seen.wait_for(WebSocketClose)
    received = [RECEIVE] if ending is HOST_ENDS["messages first"] else []
    assert data_of(seen) == ["wait" for _ in received]
    assert seen.names() == [UPGRADE, *received, *([ERROR] if ending.code == 1006 else []), CLOSED]
    assert (closed.code, closed.reason) == (ending.code, ending.reason)
    assert closed.was_clean is (ending.code != 1006)
    assert closed.initiator == "host"


async def test_2_both_end_it_at_once() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host, seen) as (peer, id):
            host.WebSocketClose(id, 4000)
            await peer.send(close_frame(3000))
            assert await peer.close_code() == 4000
            assert await peer.rest() == b""
            closed = await seen.wait_for(WebSocketClose)
    assert seen.names() == [UPGRADE, CLOSED]
    assert (closed.code, closed.was_clean, closed.initiator) == (3000, True, "host")


async def test_2_a_socket_that_was_closed_in_a_callback_still_reports_what_had_come() -> None:
    async with make_host() as host:
        seen = Recorder(host)

        @host.on(RECEIVE)
        def close(event: WebSocketReceive) -> None:
            if event.data == "0":
                host.WebSocketClose(event.id)

        async with opened(host, seen) as (peer, _id):
            await peer.send(frames(messages(5, 1)))
            assert await peer.close_code() == 1000
            await peer.send(close_frame())
            await seen.wait_for(WebSocketClose)
    assert data_of(seen) == messages(5, 1)
    assert seen.names() == [UPGRADE, *[RECEIVE] * 5, CLOSED]


# --- 5: handlers of one socket never overlap and keep order; sockets do not wait for each other -------------


class Watch:
    """Handlers that note what they see, and that none of them runs while another one of the socket does."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, str]] = []
        self._inside: set[str] = set()

    def plain(self, name: str) -> Callable[[AnyEvent], None]:
        def handler(event: AnyEvent) -> None:
            with self._alone(name, event):
                pass

        return handler

    def slow(self, name: str) -> Callable[[AnyEvent], Awaitable[None]]:
        async def handler(event: AnyEvent) -> None:
            with self._alone(name, event):
                for _ in range(len(self.log) % 4):
                    await asyncio.sleep(0)

        return handler

    @contextmanager
    def _alone(self, name: str, event: AnyEvent) -> Iterator[None]:
        assert event.id not in self._inside, "two handlers of one socket at once"
        self._inside.add(event.id)
        self.log.append((event.id, name, str(getattr(event, "data", "end"))))
        yield
        self._inside.discard(event.id)


@pytest.mark.parametrize("kinds", ["p", "a", "pa", "ap", "apa", "aa", "pp", "papa"])
async def test_5_handlers_of_a_socket_keep_order_and_never_overlap(kinds: str, lines: list[Line]) -> None:
    host = make_host()
    watch = Watch()
    names = [f"{kind}{index}" for index, kind in enumerate(kinds)]
    for name in names:
        handler = watch.plain(name) if name[0] == "p" else watch.slow(name)
        host.on(RECEIVE)(handler)
        host.on(CLOSED)(handler)
    seen = Recorder(host)
    async with host, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(opened(host, seen)) for _ in range(3)]
        for part in range(0, 60, 20):
            for peer, _ in sockets:
                await peer.send(frames(messages(60)[part : part + 20]))
                await asyncio.sleep(0)
        for peer, _ in sockets:
            await peer.send(close_frame())
        await seen.wait_for(WebSocketClose, 3)
    for _, id in sockets:
        mine = [(name, data) for owner, name, data in watch.log if owner == id]
        assert mine == [(name, data) for data in [*messages(60), "end"] for name in names]
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_5_sockets_do_not_wait_for_each_other() -> None:
    host = make_host()
    stuck: set[str] = set()
    gate = asyncio.Event()

    @host.on("All")
    async def handle(event: Event) -> object:
        if isinstance(event, WebSocketReceive):
            host.WebSocketSend(event.id, event.data)
        if getattr(event, "id", "") in stuck or "stuck" in getattr(event, "url", ""):
            await gate.wait()
        return event.accept() if isinstance(event, WebSocketUpgrade) and event.type == "manual" else None

    async with host, Peer.connect(host) as waiting:
        await waiting.send(ask(host, "/manual/stuck"))
        async with Peer.open(host) as slow, Peer.open(host) as quick, Peer.open(host, "/manual") as other:
            first, second, _ = host.sockets
            stuck.add(first)
            await slow.send(frame(TEXT, "stuck") + frame(TEXT, "behind"))
            assert (await slow.frame()).payload == b"stuck"
            for text in messages(20):
                for peer in (quick, other):
                    await peer.send(frame(TEXT, text))
                    assert (await peer.frame()).payload.decode() == text
            await quick.send(close_frame())
            assert await quick.close_code() == 1000
            await until(lambda: second not in host.sockets)
            gate.set()
            assert (await slow.frame()).payload == b"behind"
            assert (await waiting.answer()).status == 101


# --- 6: a callback's exception is logged once with the ID and never stops the host --------------------------


def failing(is_async: bool, error: BaseException) -> Callable[[Event], Awaitable[None] | None]:
    """A handler that raises."""

    def fail(event: Event) -> None:
        raise error

    async def fail_soon(event: Event) -> None:
        await asyncio.sleep(0)
        raise error

    return fail_soon if is_async else fail


def errors_of(logged: list[Line]) -> list[tuple[object, object]]:
    return [(line.get("id"), line.get("exc_info")) for line in logged if line["log_level"] == "error"]


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError()], ids=["error", "cancelled"])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("which", [UPGRADE, RECEIVE, ERROR, CLOSED])
async def test_6_an_exception_is_logged_once_and_stops_nothing(
    which: EventName, is_async: bool, error: BaseException, lines: list[Line]
) -> None:
    host = make_host()
    before = Recorder(host)
    host.on(which)(failing(is_async, error))
    after = Recorder(host)
    async with host, opened(host, after) as (other, _):
        lines.clear()
        async with opened(host, after) as (peer, id):
            await peer.send(frame(TEXT, "one") + frame(3))
            await after.wait_for(WebSocketClose)
        assert errors_of(lines) == [(id, error)]
        await other.send(close_frame())
        assert await other.close_code() == 1000
        await after.wait_for(WebSocketClose, 2)
    assert before.names(id) == after.names(id) == [UPGRADE, RECEIVE, ERROR, CLOSED]
    assert not host.sockets


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_6_in_a_manual_upgrade(is_async: bool, lines: list[Line]) -> None:
    host = make_host()
    error = ValueError("mine")
    host.on(UPGRADE)(failing(is_async, error))
    seen = Recorder(host)
    async with host, Peer.connect(host) as peer:
        assert (await peer.ask(ask(host, "/manual"))).status == 500
        failed = await seen.wait_for(WebSocketError)
        assert "ValueError('mine')" in failed.text
        assert errors_of(lines) == [(failed.id, error)]


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError(), SocketClosed(1000)])
async def test_6_in_a_route(error: BaseException, lines: list[Line]) -> None:
    host = make_host()
    seen = Recorder(host)

    @host.route("*/route")
    async def handler(socket: Session) -> None:
        await socket.receive()
        raise error

    async with host, opened(host, seen) as (other, _), opened(host, seen, "/route") as (peer, id):
        await peer.send(frame(TEXT, "go"))
        assert await peer.close_code() == 1011
        await peer.send(close_frame(1011))
        await seen.wait_for(WebSocketClose)
        assert errors_of(lines) == [(id, error)]
        await other.send(close_frame())
        assert await other.close_code() == 1000
