"""The last word on a transport, and its polite end."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from interceptor.linger import Linger

from .faults import reset
from .pair import MIB, NEVER, Clock, two_ends
from .peer import PATIENCE, until
from .wire import BOTH_LOOPS
from .wire import quiet_loop as quiet_loop


@BOTH_LOOPS
async def test_the_peer_gets_the_last_word_though_it_still_sends() -> None:
    async with two_ends() as (wire, reader, writer):
        lost = asyncio.Event()
        writer.write(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0)
        Linger(wire, b"no", NEVER, lost.set)
        writer.write(bytes(MIB))
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b"no"
            assert not lost.is_set()
            writer.close()
            await lost.wait()


@BOTH_LOOPS
@pytest.mark.parametrize("waiting", [0, 4 * MIB])
async def test_a_long_last_word_is_out_before_the_stream_ends(waiting: int) -> None:
    """asyncio's transport raises in the loop where it has to end the stream later and the peer was faster."""
    async with two_ends() as (wire, reader, writer):
        lost = asyncio.Event()
        left: list[int] = []
        end = wire.write_eof

        def write_eof() -> None:
            left.append(wire.get_write_buffer_size())
            end()

        wire.write_eof = write_eof  # type: ignore[method-assign]
        wire.write(bytes(waiting))  # The transport may be full before: its next protocol is not told of that.
        Linger(wire, bytes(4 * MIB), NEVER, lost.set)
        await until(lambda: wire.get_write_buffer_size())
        async with asyncio.timeout(PATIENCE):
            assert len(await reader.read()) == waiting + 4 * MIB
            assert not lost.is_set()
            writer.close()
            await lost.wait()
        assert left == [0]


@BOTH_LOOPS
async def test_a_peer_that_resets_before_a_long_last_word_is_out() -> None:
    async with two_ends() as (wire, _, writer):
        lost = asyncio.Event()
        Linger(wire, bytes(4 * MIB), NEVER, lost.set)
        assert wire.get_write_buffer_size()
        reset(writer)
        await asyncio.wait_for(lost.wait(), PATIENCE)
        assert wire.eofs == 0


async def test_a_peer_that_does_not_go_is_dropped() -> None:
    clock = Clock()
    async with two_ends() as (wire, _, _):
        lost = asyncio.Event()
        Linger(wire, b"no", 1000, lost.set)
        await clock.pass_by(999)
        assert not wire.is_closing()
        await clock.pass_by(2)
        await asyncio.wait_for(lost.wait(), PATIENCE)


@BOTH_LOOPS
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("no_eof", [None, "unknown", "fails"])
async def test_transports(no_eof: Literal["unknown", "fails"] | None, paused: bool) -> None:
    async with two_ends() as (wire, reader, writer):
        wire.no_eof = no_eof
        if paused:
            wire.pause_reading()
        lost = asyncio.Event()
        Linger(wire, b"no", NEVER, lost.set)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b"no"
            writer.close()
            await lost.wait()


class Half(asyncio.Protocol):
    """Goes on sending after the peer has ended its side."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def eof_received(self) -> Literal[True]:
        self.ended.set()
        return True


@BOTH_LOOPS
async def test_a_peer_that_ended_before_the_last_word_is_not_waited_for() -> None:
    """Its end has come already, and comes no second time."""
    async with two_ends() as (wire, reader, writer):
        lost, half = asyncio.Event(), Half()
        wire.set_protocol(half)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await half.ended.wait()
            Linger(wire, bytes(4 * MIB), NEVER, lost.set, ended=True)
            assert len(await reader.read()) == 4 * MIB
            await lost.wait()
