"""A Connection alone: messages, writing, reading; as server and as client."""

from __future__ import annotations

import asyncio
import itertools
import os
import zlib
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import pytest

from interceptor.backlog import PIECE
from interceptor.config import Limits
from interceptor.ending import End
from interceptor.frames import SLICE

from .pair import MIB, Pair, connected, deflate
from .peer import BINARY, CONT, PATIENCE, PING, PONG, TEXT, Frame, until
from .wire import quiet_loop as quiet_loop


class Sides:
    """What holds for either side; the classes below say which."""

    client: ClassVar[bool]

    def pair(self, **options: object) -> AbstractAsyncContextManager[Pair]:
        return connected(self.client, **options)  # type: ignore[arg-type]

    # Messages.

    async def test_messages_come_in_and_go_out(self) -> None:
        async with self.pair() as (connection, far, owner, _, _):
            await far.send(
                far.frame(TEXT, "\u00e9 \U0001f600"), far.frame(BINARY, b"\0\xff"), far.frame(TEXT)
            )
            await until(lambda: len(owner.messages) == 3)
            assert owner.messages == [("\u00e9 \U0001f600", True, 1), (b"\0\xff", True, 2), ("", True, 1)]
            connection.send(b"text", 1)
            connection.send(b"", 2)
            connection.send(b"a", 1, fin=False)
            connection.send(b"b", 0)
            assert await far.receive() == Frame(TEXT, b"text")
            assert await far.receive() == Frame(BINARY, b"")
            assert await far.receive() == Frame(TEXT, b"a", fin=False)
            assert await far.receive() == Frame(CONT, b"b")

    @pytest.mark.parametrize("size", [125, 126, 65535, 65536, 3 * MIB])
    async def test_sizes(self, size: int) -> None:
        data = os.urandom(size)
        async with self.pair() as (connection, far, owner, _, _):
            connection.send(data, 2)
            assert (await far.receive()).payload == data
            await far.send(far.frame(BINARY, data))
            await until(lambda: owner.messages)
            assert owner.data == [data]

    async def test_pieces_are_joined_around_control_frames(self) -> None:
        async with self.pair() as (_, far, owner, _, _):
            await far.send(
                far.frame(TEXT, b"\xf0\x9f", fin=False),
                far.frame(PING, b"1"),
                far.frame(CONT, b"\x98\x80", fin=False),
                far.frame(PONG, b"nobody asked"),
                far.frame(CONT),
                far.frame(BINARY, b"a", fin=False),
                far.frame(CONT, b"b"),
            )
            assert await far.receive() == Frame(PONG, b"1")
            await until(lambda: len(owner.messages) == 2)
            assert owner.messages == [("\U0001f600", True, 1), (b"ab", True, 2)]

    async def test_chunks_are_given_as_they_come(self) -> None:
        async with self.pair(chunks=True) as (_, far, owner, _, _):
            await far.send(far.frame(TEXT, b"a\xf0\x9f", fin=False))
            await until(lambda: owner.messages)
            await far.send(far.frame(CONT, b"\x98\x80"), far.frame(BINARY, b"b"))
            await until(lambda: len(owner.messages) == 3)
            assert owner.messages == [("a", False, 1), ("\U0001f600", True, 1), (b"b", True, 2)]

    async def test_bytes_come_one_at_a_time(self) -> None:
        async with self.pair() as (_, far, owner, _, _):
            for byte in far.frame(TEXT, "slow") + far.close_frame(3000, "bye"):
                await far.send(bytes([byte]))
                await asyncio.sleep(0)
            await until(lambda: owner.ends)
            assert owner.data == ["slow"]
            assert owner.ends == [End(3000, "bye", True, "client")]

    # Writing.

    async def test_all_answers_of_one_read_leave_in_one_write(self) -> None:
        async with self.pair() as (connection, far, owner, wire, _):
            owner.on_message = lambda data: connection.send(str(data).encode(), 1)
            texts = [f"{index}" for index in range(50)]
            await far.send(*(far.frame(TEXT, text) + far.frame(PING, text) for text in texts))
            got = [await far.receive() for _ in range(100)]
            assert [f.payload.decode() for f in got if f.opcode == TEXT] == texts
            assert [f.payload.decode() for f in got if f.opcode == PONG] == texts
            assert len(wire.writes) == 1
            connection.send(b"by itself", 1)
            assert len(wire.writes) == 2

    async def test_answers_of_one_read_are_not_piled_up_without_end(self) -> None:
        async with self.pair() as (connection, far, owner, wire, _):
            amounts: list[int] = []
            written: list[int] = []

            def answer(data: str | bytes) -> None:
                connection.send(bytes(100_000), 2)
                amounts.append(connection.buffered_amount)
                written.append(len(wire.writes))

            owner.on_message = answer
            await far.send(far.frame(TEXT) * 20)
            for _ in range(20):
                assert len((await far.receive()).payload) == 100_000
            assert amounts[0] == 100_000, "not counted while it is kept"
            assert written[0] == 0
            assert written[-1] > 0, "nothing left before the read was handled"
            assert max(wire.writes) <= PIECE

    async def test_large_messages_leave_in_pieces_as_there_is_room(self) -> None:
        async with self.pair() as (connection, far, _, wire, _):
            far.pause()
            data = [os.urandom(MIB), b"small", os.urandom(MIB)]
            for item in data:
                connection.send(item, 2)
            amount = connection.buffered_amount
            assert amount > MIB
            assert wire.get_write_buffer_size() <= 2 * PIECE, "the transport was given what it cannot send"
            far.resume()
            assert [(await far.receive()).payload for _ in data] == data
            assert max(wire.writes) <= PIECE
            await until(lambda: connection.buffered_amount == 0)

    async def test_small_messages_wait_in_one_piece(self) -> None:
        """By themselves in a transport they would take ten times their size, and time by the square."""
        async with self.pair() as (connection, far, _, wire, _):
            far.pause()
            numbers = itertools.count()
            while not wire.get_write_buffer_size():
                connection.send(next(numbers).to_bytes(4, "big"), 2)
            held, amount = wire.get_write_buffer_size(), connection.buffered_amount
            for number in itertools.islice(numbers, 1000):
                connection.send(number.to_bytes(4, "big"), 2)
            assert wire.get_write_buffer_size() == held
            assert connection.buffered_amount >= amount + 1000 * 6
            far.resume()
            for number in range(next(numbers)):
                assert (await far.receive()).payload == number.to_bytes(4, "big")

    async def test_drain_waits_for_room(self) -> None:
        async with self.pair() as (connection, far, _, _, _):
            await asyncio.wait_for(connection.drain(), PATIENCE)
            far.pause()
            connection.send(bytes(4 * MIB), 2)
            waiting = [asyncio.create_task(connection.drain()) for _ in range(3)]
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
            assert not waiting[1].done()
            far.resume()
            await far.receive()
            await asyncio.wait_for(asyncio.gather(*waiting[1:]), PATIENCE)

    @pytest.mark.parametrize("how", ["lost", "aborted"])
    async def test_drain_wakes_when_the_connection_is_lost_while_full(self, how: str) -> None:
        """A transport that is lost while writing is paused tells nobody to go on."""
        async with self.pair() as (connection, far, owner, _, _):
            far.pause()
            connection.send(bytes(4 * MIB), 2)
            waiting = [asyncio.create_task(connection.drain()) for _ in range(2)]
            await asyncio.sleep(0)
            if how == "lost":
                far.writer.transport.abort()
            else:
                connection.abort("enough")
            await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
            await until(lambda: owner.ends)
            assert owner.ends[0].code == 1006
            await until(lambda: connection.buffered_amount == 0)

    async def test_what_nobody_takes_ends_the_connection(self) -> None:
        limit = MIB
        async with self.pair(limits=Limits(write_buffer=limit)) as (connection, far, owner, _, _):
            far.pause()
            while not owner.ends:
                assert connection.buffered_amount <= limit
                connection.send(bytes(100_000), 2)
            (end,) = owner.ends
            assert (end.code, end.was_clean, end.initiator) == (1006, False, "fault")
            assert str(limit) in end.fault
            connection.send(b"too late", 1)

    async def test_full_within_a_read(self) -> None:
        async with self.pair(limits=Limits(write_buffer=MIB)) as (connection, far, owner, _, _):
            owner.on_message = lambda data: connection.send(bytes(MIB), 2)
            far.pause()
            await far.send(far.frame(TEXT, "x") * 10)
            await until(lambda: owner.ends)
            assert owner.data == ["x"] * 10
            assert owner.ends[0].code == 1006

    async def test_a_peer_that_takes_nothing_is_not_read(self) -> None:
        async with self.pair(limits=Limits(read_buffer=MIB)) as (connection, far, _, wire, _):
            far.pause()
            connection.send(bytes(MIB // 2), 2)
            assert wire.is_reading()
            connection.send(bytes(MIB), 2)
            assert not wire.is_reading()
            far.resume()
            await far.receive()
            await far.receive()
            await until(wire.is_reading)

    # Reading.

    async def test_an_owner_can_hold_the_connection(self) -> None:
        async with self.pair() as (connection, far, owner, wire, _):
            connection.hold(True)
            await far.send(far.frame(TEXT, "kept"))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not wire.is_reading()
            assert owner.data == []
            connection.hold(False)
            await until(lambda: owner.data == ["kept"])

    async def test_a_transport_that_reads_on_for_a_while(self) -> None:
        """Some transports give one more piece after they were told to pause."""
        texts = [f"{index:0500}" for index in range(100)]
        async with self.pair(extensions=deflate()) as (connection, far, owner, _, _):
            connection.hold(True)
            for part in (texts[:50], texts[50:99], texts[99:]):
                connection.data_received(b"".join(far.frame(TEXT, text) for text in part))
            assert owner.data == []
            connection.hold(False)
            await until(lambda: owner.data == texts)

    async def test_an_owner_that_holds_at_each_message(self) -> None:
        """Each time it goes on it gets a little more, in order, and at the end all that is left."""
        texts = [f"{index:0500}" for index in range(200)]
        async with self.pair(extensions=deflate()) as (connection, far, owner, _, _):
            owner.on_message = lambda data: connection.hold(True)
            await far.send(*(far.frame(TEXT, text) for text in texts))
            await until(lambda: owner.data)
            counts = [len(owner.data)]
            for _ in range(3):
                connection.hold(False)
                await until(lambda: len(owner.data) > counts[-1])
                counts.append(len(owner.data))
            most = SLICE // 500 + 1
            assert all(after - before <= most for before, after in itertools.pairwise(counts))
            connection.hold(False)
            far.writer.close()
            while not owner.ends:
                connection.hold(False)
                await asyncio.sleep(0)
            assert owner.data == texts

    @pytest.mark.parametrize("how", ["close", "EOF", "abort", "bad frame"])
    async def test_what_waits_is_given_out_before_the_end(self, how: str) -> None:
        texts = [f"{index:0500}" for index in range(200)]
        async with self.pair(extensions=deflate()) as (connection, far, owner, _, _):
            owner.on_message = lambda data: connection.hold(True)
            end = {"close": far.close_frame(3000), "bad frame": far.frame(3)}.get(how, b"")
            await far.send(*(far.frame(TEXT, text) for text in texts), end)
            await until(lambda: owner.data)
            if how == "abort":
                connection.abort("enough")
            elif how == "EOF":
                far.writer.close()
            while not owner.ends:
                connection.hold(False)
                await asyncio.sleep(0)
            assert owner.data == texts
            assert owner.ends[0].code == (3000 if how == "close" else 1006)

    async def test_a_bomb_is_unpacked_little_by_little(self) -> None:
        async with self.pair(extensions=deflate()) as (connection, far, owner, _, _):
            owner.on_message = lambda data: connection.hold(True)
            packer = zlib.compressobj(wbits=-12)
            bombs = []
            for _ in range(200):
                data = packer.compress(bytes(MIB // 4)) + packer.flush(zlib.Z_SYNC_FLUSH)
                bombs.append(far.frame(BINARY, data.removesuffix(b"\0\0\xff\xff"), rsv=4))
            assert sum(map(len, bombs)) > 3 * SLICE
            await far.send(*bombs)
            await until(lambda: owner.data)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(owner.data) < 100
            owner.on_message = lambda data: None
            connection.hold(False)
            await until(lambda: len(owner.data) == 200)
            assert set(map(len, owner.data)) == {MIB // 4}

    async def test_both_sides_compress(self) -> None:
        async with self.pair(extensions=deflate()) as (connection, far, owner, wire, _):
            connection.send(b"a" * 10_000, 1)
            got = await far.receive()
            assert got.rsv == 4
            assert sum(wire.writes) < 200
            assert zlib.decompressobj(wbits=-12).decompress(got.payload + b"\0\0\xff\xff") == b"a" * 10_000
            await far.send(far.frame(TEXT, got.payload, rsv=4), far.frame(TEXT, "plain"))
            await until(lambda: len(owner.data) == 2)
            assert owner.data == ["a" * 10_000, "plain"]


class TestServer(Sides):
    """A connection as the host has it."""

    client = False


class TestClient(Sides):
    """A connection to a real server."""

    client = True
