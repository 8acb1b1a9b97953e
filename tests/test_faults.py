"""Every fault at every state of a socket: the events are those of the model, and the host goes on.

Once through a TCP proxy that fails, and once on a transport that fails; on asyncio's loop and on uvloop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from interceptor import Host, WebSocketClose, WebSocketReceive, WebSocketUpgrade

from .faults import Way, by_a_transport, through_a_proxy
from .model import Account, check
from .peer import BINARY, CLOSE, CONT, PATIENCE, TEXT, Peer, Recorder, close_frame, frame, until
from .programs import MIB
from .wire import BOTH_LOOPS, HEAD, MANUAL, make_host, switched, turns
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("lines")]


@dataclass
class Case:
    """A socket on a wire that will fail."""

    host: Host
    seen: Recorder
    way: Way
    account: Account = field(default_factory=Account)
    id: str = ""
    rest: bytes = b""

    # The program.

    async def reported(self) -> str:
        """Wait until the upgrade is reported."""
        self.id = (await self.seen.wait_for(WebSocketUpgrade)).id
        return self.id

    def accept(self) -> None:
        """Answer a manual upgrade."""
        event = self.seen.of(WebSocketUpgrade)[0]
        self.host.answer(self.id, event.accept())
        self.account.outcome = "opened"

    def tell(self, data: str | bytes) -> None:
        """Send to the peer."""
        self.host.WebSocketSend(self.id, data)
        self.account.taken.append(data)

    # The peer.

    async def say(self, text: str) -> None:
        """Send a message."""
        self.account.sent.append(text)
        await self.way.peer.send(frame(TEXT, text))

    async def heard(self, count: int) -> None:
        """Read until so many messages have come in all."""
        while len(self.account.got) < count:
            got = await self.way.peer.frame()
            self.account.got.append(got.payload.decode() if got.opcode == TEXT else got.payload)

    async def leave(self, code: int, *, closed: bool = False) -> None:
        """Close, or answer a close; read what comes up to the end."""
        self.account.codes = self.account.codes or {code}
        await self.way.peer.send(close_frame(code))
        while not closed and (got := await self.way.peer.frame()).opcode != CLOSE:
            self.account.got.append(got.payload.decode() if got.opcode == TEXT else got.payload)
        await self.way.peer.rest()
        self.way.finish()

    @property
    def is_over(self) -> bool:
        """Whether the last event has come."""
        return bool(self.seen.names()[-1:] == ["WebSocketClose"])


# States: how to get there, and how a socket without a fault goes on from there


async def unfinished_head(case: Case) -> None:
    await case.way.peer.send(HEAD[:-2])
    case.rest = b"\r\n"


async def unanswered(case: Case) -> None:
    await case.way.peer.send(MANUAL)
    await case.reported()
    case.account.outcome = "waiting"


async def answered(case: Case) -> None:
    await unanswered(case)
    case.accept()  # The fault comes in the same turn of the loop.


async def idle(case: Case) -> None:
    await case.way.peer.send(HEAD)
    await switched(case.way.peer)
    await case.reported()
    case.account.outcome = "opened"
    await case.say("hello")
    case.tell("welcome")
    await case.heard(1)
    await case.seen.wait_for(WebSocketReceive)


async def amid_a_message(case: Case) -> None:
    await idle(case)
    piece = frame(CONT, "second half")
    await case.way.peer.send(frame(TEXT, "first half, ", fin=False) + piece[:9])
    case.account.begun = "first half, second half"
    case.rest = piece[9:]
    await turns()


async def blocked(case: Case) -> None:
    await idle(case)
    case.way.stall()
    for number in range(128):
        case.tell(bytes([number]) * (MIB // 16))
    await until(lambda: case.host.sockets[case.id].buffered_amount > MIB // 4)


async def closing_by_host(case: Case) -> None:
    await idle(case)
    case.host.WebSocketClose(case.id, 3000)
    assert await case.way.peer.close_code() == 3000
    case.account.initiators = {"host"}


async def closing_by_peer(case: Case) -> None:
    await idle(case)
    await case.way.peer.send(close_frame(3001))
    case.account.codes, case.account.initiators = {3001}, {"client"}
    assert await case.way.peer.close_code() == 3001
    await case.seen.wait_for(WebSocketClose)


async def closed(case: Case) -> None:
    await closing_by_host(case)
    await case.leave(3000, closed=True)
    await case.seen.wait_for(WebSocketClose)


STATES: list[Callable[[Case], Awaitable[None]]] = [
    unfinished_head,
    unanswered,
    answered,
    idle,
    amid_a_message,
    blocked,
    closing_by_host,
    closing_by_peer,
    closed,
]
ENDED = (closing_by_peer, closed)


async def complete(case: Case) -> None:
    """Go on as if nothing had been, to an orderly end."""
    if case.account.outcome == "waiting":
        case.accept()
    if case.rest:
        await case.way.peer.send(case.rest)
    if case.account.begun is not None:
        case.account.sent.append(case.account.begun)
        case.account.begun = None
    if case.account.outcome == "none":
        case.account.outcome = "opened"
    if not case.seen.of(WebSocketReceive):
        await switched(case.way.peer)
        await case.reported()
    if not case.account.codes:
        by_host = case.account.initiators == {"host"}
        if not by_host:
            case.tell("still here")
        await case.say("still here")
        await case.leave(3003, closed=by_host)


# Faults


async def reset(case: Case) -> None:
    case.way.reset()
    await cut_off(case)


async def half_close(case: Case) -> None:
    case.way.finish()
    await cut_off(case)


def half_a_frame(case: Case) -> bytes:
    """A frame without its last byte; where one has begun, the rest of that."""
    return case.rest[:-1] if case.account.begun is not None else frame(BINARY, b"cut")[:-1]


async def half_a_frame_and_a_reset(case: Case) -> None:
    case.way.inject(half_a_frame(case))
    case.way.reset()
    await cut_off(case)


async def half_a_frame_and_the_end(case: Case) -> None:
    case.way.inject(half_a_frame(case))
    case.way.finish()
    await cut_off(case)


async def stall(case: Case) -> None:
    case.way.stall()
    before = case.seen.names()
    finishing = asyncio.create_task(complete(case))
    await turns(50)
    # What was on its way to the program already comes; nothing else does, and nothing is given up.
    assert case.seen.names()[: len(before)] == before
    assert "WebSocketError" not in case.seen.names()
    case.way.go_on()
    await asyncio.wait_for(finishing, PATIENCE)


async def one_byte_at_a_time(case: Case) -> None:
    case.way.go_on(singly=500)
    await complete(case)


async def a_close_twice(case: Case) -> None:
    if case.account.outcome == "waiting":
        case.accept()
    case.account.codes = case.account.codes or {3002}
    if case.account.outcome == "none":
        case.account.outcome = "opened"
    if case.account.begun is not None:  # Between two frames of a message, not in one.
        await case.way.peer.send(case.rest)
        case.account.sent.append(case.account.begun)
        case.rest, case.account.begun = b"", None
    await case.way.peer.send(case.rest + close_frame(3002) * 2)
    case.way.go_on()
    case.account.lossy_out = True
    await case.way.peer.rest()
    case.way.finish()


async def cut_off(case: Case) -> None:
    """What a lost connection means at each state."""
    case.way.go_on()
    case.account.lost()
    if case.account.outcome == "waiting":
        case.account.outcome = "failed"


FAULTS = [
    reset,
    half_close,
    half_a_frame_and_a_reset,
    half_a_frame_and_the_end,
    stall,
    one_byte_at_a_time,
    a_close_twice,
]


@asynccontextmanager
async def by_tcp(host: Host) -> AsyncIterator[Way]:
    """A real host, which serves others too."""
    async with host, through_a_proxy(host) as way:
        yield way
        async with Peer.connect(host) as other:
            await other.send(HEAD + frame(TEXT, "unharmed") + close_frame(1000))
            await switched(other)
            assert await other.close_code() == 1000


@pytest.mark.parametrize("way_in", [by_tcp, by_a_transport], ids=["proxy", "transport"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("state", STATES)
async def test_a_fault_at_a_state(
    state: Callable[[Case], Awaitable[None]],
    fault: Callable[[Case], Awaitable[None]],
    way_in: Callable[[Host], AsyncIterator[Way]],
) -> None:
    before = asyncio.all_tasks()
    host = make_host()
    seen = Recorder(host)
    async with way_in(host) as way:  # type: ignore[attr-defined]  # a decorated generator
        case = Case(host, seen, way)
        await state(case)
        ended = case.seen.names()
        async with asyncio.timeout(PATIENCE):
            await fault(case)
        if case.account.outcome == "opened":
            case.id = case.id or await case.reported()
            await seen.wait(lambda: seen.of(WebSocketClose, case.id))
        elif case.account.outcome == "failed":
            await seen.wait(lambda: len(seen.names(case.id)) > 1)
        await turns(20)
        if state in ENDED:
            assert case.seen.names() == ended, "an event after the end"
        events = [event for event in seen.events if getattr(event, "id", None) == case.id]
        check(events, case.account, over=True)
        assert len(events) == len(seen.events), "an event of another ID"
    events_after = [event for event in seen.events if getattr(event, "id", None) == case.id]
    assert events_after == events
    assert not host.sockets
    await until(lambda: asyncio.all_tasks() == before)
