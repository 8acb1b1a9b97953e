"""A Connection alone: how it ends, and keepalive; as server and as client."""

from __future__ import annotations

import asyncio
import gc
import weakref
import zlib
from contextlib import AbstractAsyncContextManager, suppress
from typing import ClassVar, Literal

import pytest

from interceptor.config import Limits, Timeouts
from interceptor.connection import Connection
from interceptor.ending import End
from interceptor.frames import SLICE

from .illegal import CLIENT, ILLEGAL, LIMIT, SERVER
from .pair import MIB, NEVER, Clock, Owner, Pair, connected, deflate, two_ends
from .peer import BINARY, CLOSE, CONT, PATIENCE, PING, PONG, TEXT, Frame, until
from .wire import quiet_loop as quiet_loop


class Ends:
    """What holds for either side; the classes below say which."""

    client: ClassVar[bool]

    def pair(self, **options: object) -> AbstractAsyncContextManager[Pair]:
        return connected(self.client, **options)  # type: ignore[arg-type]

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
            connection.hold(True)
            await connection.ping(b"late")
            await far.send(far.frame(TEXT, "much later"))
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

    @pytest.mark.parametrize("closer", ["peer", "owner"])
    @pytest.mark.parametrize("chunks", [False, True])
    async def test_a_close_amid_a_message_is_a_close_like_others(self, chunks: bool, closer: str) -> None:
        async with self.pair(chunks=chunks) as (connection, far, owner, _, _):
            await far.send(far.frame(TEXT, "whole"), far.frame(TEXT, "never ", fin=False))
            await until(lambda: owner.data)
            if closer == "owner":
                connection.close(3000)
            await far.send(far.frame(CONT, "done", fin=False), far.close_frame(3000), far.frame(CONT, "late"))
            assert await far.close_code() == 3000
            await until(lambda: owner.ends)
            assert owner.ends == [End(3000, "", True, "client" if closer == "peer" else "host")]
            assert owner.data == (["whole", "never ", "done"] if chunks else ["whole"])

    @pytest.mark.parametrize("name", ILLEGAL)
    async def test_illegal_frames_end_it(self, name: str) -> None:
        writer, (write, code) = SERVER if self.client else CLIENT, ILLEGAL[name]
        async with self.pair(limits=Limits(message=LIMIT)) as (_, far, owner, _, _):
            await far.send(far.frame(TEXT, "good"), write(writer), far.frame(TEXT, "late"))
            assert await far.close_code() == code
            await until(lambda: owner.ends)
            (end,) = owner.ends
            assert owner.data == ["good"]
            assert (end.code, end.was_clean, end.initiator) == (1006, False, "fault")
            assert f"closed with {code}" in end.fault

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

    @pytest.mark.parametrize("how", ["transport closed", "write failed", "aborted"])
    async def test_the_end_waits_behind_what_the_owner_has_no_room_for(self, how: str) -> None:
        texts = [f"{index:0500}" for index in range(200)]
        async with self.pair(extensions=deflate()) as (connection, far, owner, wire, lost):
            owner.on_message = lambda data: connection.hold(True)
            await far.send(*(far.frame(TEXT, text) for text in texts))
            await until(lambda: owner.data)
            if how == "transport closed":
                wire.close()
            elif how == "write failed":
                far.writer.transport.abort()
                while not lost.is_set():
                    connection.send(b"x", 2)
                    await asyncio.sleep(0)
            else:
                connection.abort("enough")
            await asyncio.wait_for(lost.wait(), PATIENCE)
            assert (len(owner.data) < 200, owner.ends, connection.end) == (True, [], None)
            assert owner.endings > 0
            connection.send(b"too late", 2)
            assert connection.buffered_amount == 0
            await asyncio.wait_for(connection.drain(), PATIENCE)
            while not owner.ends:
                connection.hold(False)
            assert owner.data == texts
            assert (owner.ends[0].code, owner.ends[0].was_clean) == (1006, False)

    async def test_what_ends_the_program_does_not_hide_the_end(self) -> None:
        async with self.pair(extensions=deflate()) as (connection, far, owner, _, _):

            def leave(data: str | bytes) -> None:
                raise KeyboardInterrupt

            owner.on_message = leave
            with pytest.raises(KeyboardInterrupt):
                connection.data_received(far.frame(TEXT, "x") * SLICE)
            owner.on_message = lambda data: None
            connection.abort("enough")
            assert len(owner.ends) == 1

    async def test_the_end_of_the_stream_is_seen_though_reading_was_held(self) -> None:
        async with self.pair() as (connection, far, owner, wire, lost):
            owner.on_message = lambda data: connection.hold(True)
            await far.send(far.frame(TEXT, "x"))
            await until(lambda: not wire.is_reading())
            connection.fail(1011, "enough")
            assert owner.ends
            assert wire.is_reading()
            far.writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)

    async def test_nothing_keeps_one_that_is_gone(self) -> None:
        async with two_ends() as (wire, _, writer):
            lost = asyncio.Event()
            timeouts = Timeouts(close=NEVER, ping=NEVER)
            connection = Connection(
                wire, Owner(), limits=Limits(), timeouts=timeouts, lost=lost.set, client=self.client
            )
            connection.close()
            writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)
            gone = weakref.ref(connection)
            del connection
            gc.collect()
            assert gone() is None

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
            for _ in range(3):
                await clock.pass_by(1001)
            assert not owner.ends
            await clock.pass_by(999)
            connection.hold(False)
            await clock.pass_by(999)
            assert not owner.ends, "its time has begun only now"
            await far.send(far.close_frame(3000))
            await until(lambda: owner.ends)
            assert owner.ends == [End(3000, "", True, "host")]

    async def test_what_an_owner_holds_meanwhile_does_not_count(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (connection, _, owner, _, _):
            connection.close(3000)
            await clock.pass_by(100)
            connection.hold(True)
            await clock.pass_by(800)
            connection.hold(False)
            await clock.pass_by(150)
            assert not owner.ends, "the peer's close could be read for a quarter of its time"
            await clock.pass_by(1000)
            assert "did not finish closing" in owner.ends[0].fault

    async def test_a_peer_that_sends_on_has_no_more_time_to_close(self) -> None:
        """Nor has one whose messages take several turns of the loop, or wait for a slow owner."""
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (connection, far, owner, _, _):
            connection.close(3000)
            for _ in range(3):
                await clock.pass_by(300)
                await far.send(far.frame(TEXT, "x" * 1000) * 100)
                connection.hold(True)
                connection.hold(False)
                connection._rest()
            assert not owner.ends
            await clock.pass_by(101)
            assert "did not finish closing" in owner.ends[0].fault

    async def test_an_owner_that_never_takes_anything_ends_the_close_at_last(self) -> None:
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (connection, _, owner, _, lost):
            connection.hold(True)
            connection.close(3000)
            for _ in range(9):
                await clock.pass_by(1001)
            assert not owner.ends
            await clock.pass_by(1001)
            await asyncio.wait_for(lost.wait(), PATIENCE)

    async def test_a_held_connection_is_dropped_if_the_peer_keeps_it_after_its_close(self) -> None:
        """The owner is held by what came in one packet with the close."""
        clock = Clock()
        async with self.pair(timeouts=Timeouts(close=1000, ping=None)) as (connection, far, owner, _, lost):
            owner.on_message = lambda data: connection.hold(True)
            connection.close(3000)
            await far.send(far.frame(TEXT, "a") + far.frame(TEXT, "b") + far.close_frame(3000))
            await until(lambda: owner.data)
            if not self.client:  # A client's frames are all the core's, some at a time.
                assert owner.data == ["a"], "nothing comes to an owner that is held"
            connection.hold(False)
            connection.hold(False)
            await until(lambda: owner.ends)
            assert (owner.data, lost.is_set()) == (["a", "b"], False)
            await clock.pass_by(1001)
            await asyncio.wait_for(lost.wait(), PATIENCE)

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

    async def test_the_stream_ends_only_when_all_is_out(self) -> None:
        """asyncio's transport raises in the loop where it has to end it later and the peer was faster."""
        async with self.pair() as (connection, far, _, wire, lost):
            left: list[int] = []
            end = wire.write_eof

            def write_eof() -> None:
                left.append(wire.get_write_buffer_size())
                end()

            wire.write_eof = write_eof  # type: ignore[method-assign]
            far.pause()
            while not wire.get_write_buffer_size():
                connection.send(bytes(20_000), 2)
            connection.close(3000)
            connection.fail(1011, "enough")
            far.resume()
            while await far.reader.read(MIB):
                pass
            far.writer.close()
            await asyncio.wait_for(lost.wait(), PATIENCE)
            assert left == [0]


class TestClient(Ends):
    """A connection to a real server."""

    client = True
