"""Outgoing: messages become frames in the order of the calls; what other threads send is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from interceptor.dispatch import Dispatcher
from interceptor.exceptions import InvalidArgument
from interceptor.frames import Shared
from interceptor.outgoing import CALL_COST, FULL, Outgoing

from .pair import Pair, connected
from .peer import BINARY, CONT, TEXT, Frame
from .wire import BOTH_LOOPS
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

HIGH = 1000


@asynccontextmanager
async def outgoing_of_a_socket() -> AsyncIterator[tuple[Outgoing, Pair]]:
    dispatcher = Dispatcher()
    dispatcher.bind()
    async with connected(client=False) as pair:
        outgoing = Outgoing(dispatcher, HIGH)
        outgoing.connection = pair.connection
        yield outgoing, pair


async def test_whole_messages_and_pieces() -> None:
    async with outgoing_of_a_socket() as (outgoing, pair):
        outgoing.send(b"x", True, None)
        outgoing.send("x", True, None)
        outgoing.send("a", False, None)
        with pytest.raises(InvalidArgument, match="text message is unfinished"):
            outgoing.send(b"b", True, None)
        outgoing.send("b", False, 0)
        outgoing.send("c", True, None)
        outgoing.send(b"d", True, None)
        with pytest.raises(InvalidArgument, match="fin"):
            outgoing.send("x", 2, None)  # type: ignore[arg-type]
        assert [await pair.far.receive() for _ in range(6)] == [
            Frame(BINARY, b"x"),
            Frame(TEXT, b"x"),
            Frame(TEXT, b"a", False),
            Frame(CONT, b"b", False),
            Frame(CONT, b"c"),
            Frame(BINARY, b"d"),
        ]


async def test_what_other_threads_send_goes_out_in_their_order() -> None:
    async with outgoing_of_a_socket() as (outgoing, pair):

        def send() -> bool:
            outgoing.send("1", False, None)
            outgoing.send("2", True, None)
            return outgoing.leave_shared(shared)

        shared = Shared(b"3", 2)
        assert await asyncio.to_thread(send)
        outgoing.arrive_shared(shared)
        outgoing.send("4", True, None)
        assert [(await pair.far.receive()).payload for _ in range(4)] == [b"1", b"2", b"3", b"4"]


async def test_what_is_on_its_way_from_other_threads_is_bounded() -> None:
    async with outgoing_of_a_socket() as (outgoing, pair):
        shared = Shared(b"", 2)

        def leave() -> list[bool]:
            return [outgoing.leave_shared(shared) for _ in range(10)]

        taken = leave()  # The loop does not turn meanwhile.
        assert taken == [True] * (HIGH // CALL_COST + 1) + [False] * (9 - HIGH // CALL_COST)
        assert pair.connection.end is not None
        assert pair.connection.end.fault == FULL
        outgoing.arrive_shared(shared)
        assert outgoing.leave_shared(Shared(bytes(5000), 2))
        assert not outgoing.leave_shared(shared)


async def test_without_a_connection_all_is_dropped() -> None:
    async with outgoing_of_a_socket() as (outgoing, pair):
        outgoing.connection = None
        outgoing.send(b"x", True, None)
        outgoing.send_shared(Shared(b"y", 2))
        await asyncio.to_thread(outgoing.send, b"y", True, None)
        outgoing.connection = pair.connection
        outgoing.send(b"z", True, None)
        assert (await pair.far.receive()).payload == b"z"
