"""A Connection and messages that go to many: they are written at once, if nothing is to go before them."""

from __future__ import annotations

import pytest

from interceptor.config import Limits
from interceptor.frames import Shared

from .pair import MIB, connected
from .peer import CONT, TEXT, Frame, until
from .wire import quiet_loop as quiet_loop


async def test_it_leaves_at_once_and_is_not_copied() -> None:
    async with connected(client=False) as (connection, far, _, wire, _):
        connection.send_shared(Shared(b"to all", 1))
        assert wire.writes == [8]
        assert connection.made_bytes == connection.taken_bytes == 8
        assert await far.receive() == Frame(TEXT, b"to all")


async def test_within_a_read_it_keeps_its_place() -> None:
    async with connected(client=False) as (connection, far, owner, wire, _):

        def answer(data: str | bytes) -> None:
            connection.send(b"before", 1)
            connection.send_shared(Shared(b"to all", 1))
            connection.send(b"after", 1)

        owner.on_message = answer
        await far.send(far.frame(TEXT, "x"))
        assert [(await far.receive()).payload for _ in range(3)] == [b"before", b"to all", b"after"]
        assert len(wire.writes) == 1


async def test_in_a_batch_it_keeps_its_place() -> None:
    async with connected(client=False) as (connection, far, _, wire, _):
        connection.batch()
        connection.send(b"before", 1)
        connection.send_shared(Shared(b"to all", 1))
        assert not wire.writes
        connection.flush()
        assert [(await far.receive()).payload for _ in range(2)] == [b"before", b"to all"]


@pytest.mark.parametrize("size", [6, MIB])
async def test_behind_what_waits(size: int) -> None:
    async with connected(client=False) as (connection, far, _, wire, _):
        far.pause()
        connection.send(bytes(2 * MIB), 2)
        connection.send_shared(Shared(bytes(size), 2))
        amount = wire.get_write_buffer_size()
        connection.send_shared(Shared(b"last", 1))
        assert wire.get_write_buffer_size() == amount, "the transport was given what it cannot send"
        far.resume()
        assert [len((await far.receive()).payload) for _ in range(3)] == [2 * MIB, size, 4]
        await until(lambda: connection.buffered_amount == 0)


async def test_after_the_last_piece_of_a_message() -> None:
    async with connected(client=False) as (connection, far, _, _, _):
        connection.send(b"a", 1, fin=False)
        connection.send_shared(Shared(b"to all", 1))
        connection.send(b"b", 0)
        connection.send_shared(Shared(b"again", 1))
        assert [await far.receive() for _ in range(4)] == [
            Frame(TEXT, b"a", fin=False),
            Frame(CONT, b"b"),
            Frame(TEXT, b"to all"),
            Frame(TEXT, b"again"),
        ]


async def test_the_one_that_fills_the_socket_is_the_last() -> None:
    """The bound holds from the very message on that goes over it."""
    async with connected(client=False, limits=Limits(write_buffer=65536)) as (connection, far, owner, _, _):
        far.pause()
        message = Shared(bytes(200_000), 2)
        while not owner.ends:
            assert connection.buffered_amount <= 65536
            connection.send_shared(message)
        assert "Limits.write_buffer" in owner.ends[0].fault


async def test_none_goes_to_a_transport_that_closes() -> None:
    """asyncio would say so in the log, for each."""
    async with connected(client=False) as (connection, _, _, wire, _):
        wire.abort()
        connection.send_shared(Shared(b"too late", 1))
        assert not wire.writes


async def test_none_goes_after_a_close() -> None:
    async with connected(client=False) as (connection, _, _, _, _):
        connection.close()
        connection.send_shared(Shared(b"too late", 1))
        assert connection.made_bytes == 4
