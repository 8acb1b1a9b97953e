"""A Connection alone: on a socket pair with a scripted peer at the other end, as server and as client."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import ClassVar, Literal, NamedTuple

import pytest
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate

from interceptor.config import Limits, Timeouts
from interceptor.connection import PIECE, UNPACKING, Connection, End, Linger

from .peer import BINARY, CLOSE, CONT, MASK, PATIENCE, PING, PONG, TEXT, Frame, frame, until
from .wire import quiet_loop as quiet_loop

MIB = 1024 * 1024
Message = tuple[str | bytes, bool, int]
NEVER = 3600.0
QUIET = Timeouts(close=NEVER, ping=None)


class Owner:
    """Keeps what a connection reports."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ends: list[End] = []
        self.on_message: Callable[[str | bytes], None] = lambda data: None

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        assert not self.ends, "a message after the end"
        self.messages.append((data, fin, datatype))
        self.on_message(data)

    def connection_ended(self, end: End) -> None:
        self.ends.append(end)

    @property
    def data(self) -> list[str | bytes]:
        return [data for data, _, _ in self.messages]


class Wire(asyncio.Transport):
    """A transport that counts, and fails when it is told to."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self.inner = inner
        self.writes: list[int] = []
        self.eofs = 0
        self.no_eof: Literal["unknown", "fails"] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(len(data))
        self.inner.write(data)

    def can_write_eof(self) -> bool:
        return self.no_eof != "unknown"

    def write_eof(self) -> None:
        self.eofs += 1
        if self.no_eof == "fails":
            raise OSError("the peer was faster")
        self.inner.write_eof()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.inner.set_protocol(protocol)

    def is_closing(self) -> bool:
        return self.inner.is_closing()

    def is_reading(self) -> bool:
        return self.inner.is_reading()

    def pause_reading(self) -> None:
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        self.inner.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self.inner.get_write_buffer_size()

    def close(self) -> None:
        self.inner.close()

    def abort(self) -> None:
        self.inner.abort()


class Far:
    """The scripted peer; it masks if the connection does not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, masks: bool) -> None:
        self.reader = reader
        self.writer = writer
        self._mask = MASK if masks else None

    def frame(self, opcode: int, data: bytes | str = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        return frame(opcode, data, fin=fin, rsv=rsv, mask=self._mask)

    def close_frame(self, code: int | None, reason: str = "") -> bytes:
        return self.frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    async def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def receive(self) -> Frame:
        """Read a frame, and check that it is masked as it must be."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second & 127
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            assert bool(second & 128) is (self._mask is None)
            mask = await self.reader.readexactly(4) if second & 128 else bytes(4)
            payload = await self.reader.readexactly(size)
        if any(mask):
            whole = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(size, "big")
        return Frame(first & 15, payload, bool(first & 128), first >> 4 & 7)

    async def close_code(self) -> int | None:
        """Read frames up to a close frame; its code, None if it has none."""
        while (got := await self.receive()).opcode != CLOSE:
            pass
        return int.from_bytes(got.payload[:2], "big") if got.payload else None

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def pause(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a socket can

    def resume(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]


class Pair(NamedTuple):
    """A connection and all that is around it."""

    connection: Connection
    far: Far
    owner: Owner
    wire: Wire
    lost: asyncio.Event


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Wire, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket pair: a transport without a protocol yet, and the streams of its far end."""
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    reader, writer = await asyncio.open_connection(sock=far, limit=2**26)
    try:
        yield Wire(transport), reader, writer
    finally:
        for end in (transport, writer.transport):
            with suppress(AttributeError):  # So does Python 3.11 where it is closed already.
                end.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(
    client: bool,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts = QUIET,
    chunks: bool = False,
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[Pair]:
    """A connection of either side, and its peer."""
    owner, lost = Owner(), asyncio.Event()

    def once() -> None:
        assert not lost.is_set(), "lost twice"
        lost.set()

    async with two_ends() as (wire, reader, writer):
        connection = Connection(
            wire,
            owner,
            extensions=extensions,
            limits=limits or Limits(),
            timeouts=timeouts,
            chunks=chunks,
            lost=once,
            client=client,
        )
        yield Pair(connection, Far(reader, writer, masks=not client), owner, wire, lost)
        wire.abort()
        async with asyncio.timeout(PATIENCE):
            await lost.wait()
    assert len(owner.ends) == 1, "not exactly one end"


class Clock:
    """The loop's clock, put forward by hand: no test waits for a timer, or races with one."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead = 0.0
        real = loop.time
        loop.time = lambda: real() + self._ahead  # type: ignore[method-assign]

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is due run."""
        self._ahead += seconds
        for _ in range(3):
            await asyncio.sleep(0)


def deflate() -> list[Extension]:
    return [PerMessageDeflate(False, False, 12, 12)]


class Ends:
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
            connection.send(bytearray(b"a"), 1, fin=False)
            connection.send(memoryview(b"b"), 0)
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

            def answer(data: str | bytes) -> None:
                connection.send(bytes(100_000), 2)
                amounts.append(connection.buffered_amount)

            owner.on_message = answer
            await far.send(far.frame(TEXT) * 20)
            for _ in range(20):
                assert len((await far.receive()).payload) == 100_000
            assert amounts[0] == 100_000, "not counted while it is kept"
            assert len(wire.writes) > 3
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
            most = UNPACKING // 500 + 1
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
            assert sum(map(len, bombs)) > 3 * UNPACKING
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

    # Ends.

    @pytest.mark.parametrize(("code", "told"), [(1000, 1000), (4999, 4999), (1001, 1001), (None, 1005)])
    async def test_the_peer_closes(self, code: int | None, told: int) -> None:
        async with self.pair() as (connection, far, owner, wire, lost):
            await far.send(far.close_frame(code, "bye" if code else ""), far.frame(TEXT, "late"))
            assert await far.close_code() == code
            await until(lambda: owner.ends)
            assert owner.ends == [End(told, "bye" if code else "", True, "client")]
            assert connection.end == owner.ends[0]
            connection.send(b"late", 1)
            connection.close(3000)
            await connection.ping(b"late")
            if not self.client:
                assert await far.rest() == b"", "a server ends the stream once it has answered"
            far.writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)
            assert len(wire.writes) == 1

    async def test_the_owner_closes(self) -> None:
        async with self.pair() as (connection, far, owner, _, lost):
            connection.send(b"first", 1)
            connection.close(4000, "why not")
            connection.close(3000)
            connection.send(b"late", 1)
            assert (await far.receive()).payload == b"first"
            assert await far.receive() == Frame(CLOSE, b"\x0f\xa0why not")
            assert connection.end is None
            await far.send(far.frame(TEXT, "late"), far.frame(PING), far.close_frame(4000, "as you like"))
            await until(lambda: owner.ends)
            assert owner.data == ["late"]
            assert owner.ends == [End(4000, "as you like", True, "host")]
            far.writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)

    async def test_the_owner_closes_without_a_code(self) -> None:
        async with self.pair() as (connection, far, _, _, _):
            connection.close(None)
            assert await far.receive() == Frame(CLOSE, b"")

    BAD: ClassVar[dict[str, tuple[Callable[[Far], bytes], int]]] = {
        "opcode": (lambda far: far.frame(3), 1002),
        "rsv": (lambda far: far.frame(TEXT, "x", rsv=1), 1002),
        "continuation": (lambda far: far.frame(CONT, "x"), 1002),
        "mask": (lambda far: frame(TEXT, "x", mask=None if far._mask else MASK), 1002),
        "long ping": (lambda far: far.frame(PING, bytes(126)), 1002),
        "short code": (lambda far: far.frame(CLOSE, b"\x03"), 1002),
        "forbidden code": (lambda far: far.close_frame(1006), 1002),
        "text": (lambda far: far.frame(TEXT, b"\xed\xa0\x80"), 1007),
        "text cut": (lambda far: far.frame(TEXT, b"\xf0\x9f"), 1007),
        "text in a piece": (lambda far: far.frame(TEXT, b"a", fin=False) + far.frame(CONT, b"\xff"), 1007),
        "size": (lambda far: far.frame(BINARY, bytes(1001)), 1009),
        "size in all": (
            lambda far: far.frame(BINARY, bytes(900), fin=False) + far.frame(CONT, bytes(101)),
            1009,
        ),
    }

    @pytest.mark.parametrize("bad", BAD)
    async def test_bad_frames_end_it(self, bad: str) -> None:
        make, code = self.BAD[bad]
        async with self.pair(limits=Limits(message=1000)) as (_, far, owner, _, _):
            await far.send(far.frame(TEXT, "good"), make(far), far.frame(TEXT, "late"))
            assert await far.close_code() == code
            await until(lambda: owner.ends)
            (end,) = owner.ends
            assert owner.data == ["good"]
            assert (end.code, end.was_clean, end.initiator) == (1006, False, "fault")
            assert str(code) in end.fault

    async def test_a_message_that_unpacks_over_the_limit(self) -> None:
        async with self.pair(extensions=deflate(), limits=Limits(message=1000)) as (_, far, owner, _, _):
            packer = zlib.compressobj(wbits=-12)
            data = packer.compress(bytes(10 * MIB)) + packer.flush(zlib.Z_SYNC_FLUSH)
            await far.send(far.frame(BINARY, data[:5_000], rsv=4, fin=False))
            assert await far.close_code() == 1009
            await until(lambda: owner.ends)
            assert "Limits.message" in owner.ends[0].fault

    @pytest.mark.parametrize("how", ["EOF", "reset"])
    async def test_the_peer_vanishes(self, how: str) -> None:
        async with self.pair() as (connection, far, owner, _, lost):
            ping = asyncio.create_task(connection.ping(b"?"))
            await far.receive()
            await far.send(far.frame(TEXT, "good"), far.frame(TEXT, "cut")[:4])
            if how == "reset":
                connection.send(b"unread", 1)
                await until(lambda: connection.buffered_amount == 0)
                far.writer.transport.abort()
            else:
                far.writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)
            await asyncio.wait_for(ping, PATIENCE)
            (end,) = owner.ends
            assert owner.data == ["good"]
            assert (end.code, end.reason, end.was_clean, end.initiator) == (1006, "", False, "fault")
            assert "lost" in end.fault

    async def test_the_peer_vanishes_instead_of_answering_a_close(self) -> None:
        async with self.pair() as (connection, far, owner, _, _):
            connection.close(3000)
            await far.receive()
            far.writer.close()
            await until(lambda: owner.ends)
            assert (owner.ends[0].code, owner.ends[0].initiator) == (1006, "host")

    async def test_a_peer_that_says_it_is_through_still_gets_the_rest(self) -> None:
        """Its close frame and its end of stream came in one packet, while much was on the way to it."""
        async with self.pair(limits=Limits(read_buffer=2 * MIB)) as (connection, far, owner, _, lost):
            far.pause()
            connection.send(bytes(MIB), 2)
            await far.send(far.close_frame(3000))
            far.writer.write_eof()
            await until(lambda: owner.ends)
            assert owner.ends == [End(3000, "", True, "client")]
            far.resume()
            assert len((await far.receive()).payload) == MIB
            assert await far.close_code() == 3000
            assert await far.rest() == b""
            await asyncio.wait_for(lost.wait(), PATIENCE)

    async def test_abort_drops_it_at_once(self) -> None:
        async with self.pair() as (connection, far, owner, _, lost):
            connection.abort("enough")
            connection.abort("again")
            assert owner.ends == [End(1006, "", False, "fault", "enough")]
            with suppress(ConnectionResetError):
                assert await far.rest() == b""
            await asyncio.wait_for(lost.wait(), PATIENCE)

    async def test_abort_within_a_read(self) -> None:
        async with self.pair() as (connection, far, owner, _, _):
            owner.on_message = lambda data: connection.abort("enough")
            await far.send(far.frame(TEXT, "1"), far.frame(TEXT, "2"))
            await until(lambda: owner.ends)
            assert owner.data == ["1", "2"]

    async def test_fail_tells_the_peer_why(self) -> None:
        async with self.pair() as (connection, far, owner, _, _):
            connection.fail(1011, "tired " * 100)
            connection.fail(1002, "again")
            assert (await far.receive()).payload == b"\x03\xf3" + (b"tired " * 100)[:123]
            assert owner.ends == [End(1006, "", False, "fault", "tired " * 100)]

    @pytest.mark.parametrize("no_eof", ["unknown", "fails"])
    async def test_a_transport_that_cannot_be_half_closed(self, no_eof: Literal["unknown", "fails"]) -> None:
        async with self.pair() as (_, far, owner, wire, lost):
            wire.no_eof = no_eof
            await far.send(far.close_frame(1000))
            await until(lambda: owner.ends)
            if self.client:
                assert wire.eofs == 0, "it is for the server to end the stream"
                far.writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)
            assert owner.ends == [End(1000, "", True, "client")]

    # Time.

    async def test_the_peer_never_answers_a_close(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (connection, far, owner, _, lost):
            connection.close(3000)
            await far.receive()
            await clock.pass_by(999)
            assert not owner.ends
            await clock.pass_by(2)
            assert (owner.ends[0].code, owner.ends[0].initiator) == (1006, "host")
            assert "did not finish closing" in owner.ends[0].fault
            await asyncio.wait_for(lost.wait(), PATIENCE)

    async def test_the_peer_never_goes_after_the_close(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (_, far, owner, _, lost):
            await far.send(far.close_frame(3000))
            await until(lambda: owner.ends)
            assert not lost.is_set()
            await clock.pass_by(1001)
            await asyncio.wait_for(lost.wait(), PATIENCE)
            assert owner.ends == [End(3000, "", True, "client")]

    async def test_a_held_connection_has_time_to_close(self) -> None:
        """That the owner does not take what comes is not the peer's fault."""
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (connection, far, owner, _, _):
            connection.hold(True)
            connection.close(3000)
            assert await far.close_code() == 3000
            await far.send(far.close_frame(3000))
            for _ in range(3):
                await clock.pass_by(1001)
            assert not owner.ends
            await clock.pass_by(999)
            connection.hold(False)
            await clock.pass_by(2)
            await until(lambda: owner.ends)
            assert owner.ends == [End(3000, "", True, "host")]

    async def test_keepalive_pings_and_takes_any_byte_for_a_sign_of_life(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(ping=1000, pong=100)) as (_, far, owner, _, _):
            payloads = set()
            for round in range(6):
                await clock.pass_by(1001)
                ping = await far.receive()
                assert ping.opcode == PING
                payloads.add(ping.payload)
                half = far.frame(TEXT, "alive")
                match round % 3:
                    case 0:
                        await far.send(far.frame(PONG, ping.payload))
                    case 1:
                        await far.send(far.frame(PING))
                        assert (await far.receive()).opcode == PONG
                    case 2:
                        await far.send(half[:3])
                await asyncio.sleep(0.01)
                await clock.pass_by(101)
                if round % 3 == 2:
                    await far.send(half[3:])
                assert not owner.ends
            assert len(payloads) == 6, "each ping has a payload of its own"
            await until(lambda: owner.data == ["alive", "alive"])

    async def test_keepalive_finds_out_that_the_peer_is_gone(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(ping=1000, pong=100)) as (connection, far, owner, _, _):
            await far.send(far.frame(TEXT, "alive"))
            await until(lambda: owner.data)
            await clock.pass_by(1001)
            assert (await far.receive()).opcode == PING
            await clock.pass_by(99)
            assert not owner.ends
            await clock.pass_by(2)
            (end,) = owner.ends
            assert (end.code, end.was_clean, end.initiator) == (1006, False, "fault")
            assert "no answer to a ping within 100" in end.fault
            assert await far.close_code() == 1011
            assert connection.end == end

    async def test_keepalive_waits_while_nothing_is_read(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(ping=1000, pong=100)) as (connection, far, owner, _, _):
            connection.hold(True)
            for _ in range(3):
                await clock.pass_by(1001)
                assert (await far.receive()).opcode == PING
                await clock.pass_by(101)
            assert not owner.ends
            connection.hold(False)
            await clock.pass_by(1001)
            assert (await far.receive()).opcode == PING
            await clock.pass_by(101)
            assert owner.ends[0].initiator == "fault"

    async def test_keepalive_that_waits_for_ever(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(ping=1000, pong=None)) as (_, far, owner, _, _):
            for _ in range(3):
                await clock.pass_by(1001)
                assert (await far.receive()).opcode == PING
            assert not owner.ends

    async def test_no_ping_once_the_close_has_begun(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(ping=10, pong=10, close=1000)) as (
            connection,
            far,
            owner,
            wire,
            _,
        ):
            connection.close()
            assert await far.close_code() == 1000
            await clock.pass_by(500)
            assert len(wire.writes) == 1
            assert not owner.ends

    async def test_ping_waits_for_its_own_pong(self) -> None:
        async with self.pair() as (connection, far, _, _, _):
            first = asyncio.create_task(connection.ping(b"1"))
            second = asyncio.create_task(connection.ping(b"2"))
            assert [await far.receive(), await far.receive()] == [Frame(PING, b"1"), Frame(PING, b"2")]
            await far.send(far.frame(PONG, b"3"), far.frame(PONG, b"2"))
            await asyncio.wait_for(second, PATIENCE)
            assert not first.done()
            await far.send(far.frame(PONG, b"1"), far.frame(PONG, b"1"))
            await asyncio.wait_for(first, PATIENCE)

    async def test_ping_that_is_given_up_leaves_nothing(self) -> None:
        async with self.pair() as (connection, far, _, _, _):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.ping(b"1"), 0.01)
            assert not connection._pings
            await far.receive()
            await far.send(far.frame(PONG, b"1"))
            again = asyncio.create_task(connection.ping(b"2"))
            await far.receive()
            await far.send(far.frame(PONG, b"2"))
            await asyncio.wait_for(again, PATIENCE)


class TestServer(Ends):
    """A connection as the host has it."""

    client = False


class TestClient(Ends):
    """A connection to a real server."""

    client = True


class TestLinger:
    """The last word on a transport."""

    async def test_the_peer_gets_the_last_word_though_it_still_sends(self) -> None:
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

    async def test_a_peer_that_does_not_go_is_dropped(self) -> None:
        clock = Clock()
        async with two_ends() as (wire, _, _):
            lost = asyncio.Event()
            Linger(wire, b"no", 1000, lost.set)
            await clock.pass_by(999)
            assert not wire.is_closing()
            await clock.pass_by(2)
            await asyncio.wait_for(lost.wait(), PATIENCE)

    @pytest.mark.parametrize("paused", [False, True])
    @pytest.mark.parametrize("no_eof", [None, "unknown", "fails"])
    async def test_transports(self, no_eof: Literal["unknown", "fails"] | None, paused: bool) -> None:
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
