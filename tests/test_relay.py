"""The relay: every order in which two ends can close, a reader that is slow, and a thousand tunnels."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from interceptor import Host
from interceptor.relay import Relay, Side

from .pair import Clock
from .peer import PATIENCE, Peer, until
from .proxied import RealTls, echo, server, tunnel
from .proxied import real_tls as real_tls

MIB = 2**20
DATA = bytes(range(256)) * 128
NEVER = 3600.0
HIGH_WATER = 64 * 1024  # asyncio's and uvloop's own
READ = 256 * 1024  # most that either reads at once

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


class End:
    """Who is at one end of the relay: a socket of the system, and nothing in between."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._loop.sock_sendall(self.sock, data)

    async def receive(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._loop.sock_recv(self.sock, READ)

    async def rest(self) -> bytes:
        """All that comes until the stream ends."""
        got = bytearray()
        while data := await self.receive():
            got += data
        return bytes(got)

    async def until_reset(self) -> bytes:
        """All that comes until the connection is reset; an orderly end fails."""
        got = bytearray()
        try:
            while data := await self.receive():
                got += data
        except ConnectionResetError:
            return bytes(got)
        pytest.fail("the stream ended as if it were whole")

    async def until_cut_off(self) -> None:
        """Send until it fails."""
        with suppress(ConnectionResetError, BrokenPipeError):
            while True:
                await self.send(DATA)

    async def arrived(self, size: int) -> None:
        """Wait until so many bytes are there to be read, and leave them there."""
        await until(lambda: self._waiting(size) == size)

    def _waiting(self, size: int) -> int:
        try:
            return len(self.sock.recv(size, socket.MSG_PEEK))
        except BlockingIOError:
            return 0

    def fin(self) -> None:
        with suppress(OSError):  # It was reset already.
            self.sock.shutdown(socket.SHUT_WR)

    def rst(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Joined(NamedTuple):
    """A relay, who is at its ends, and what it told."""

    relay: Relay
    near: End
    far: End
    told: list[str]

    def end(self, name: str) -> End:
        return self.near if name == "near" else self.far

    def side(self, name: str) -> Side:
        return self.relay.near if name == "near" else self.relay.far

    async def over(self) -> None:
        """Wait until the relay is done, and check that it told each thing once."""
        await until(lambda: "done" in self.told)
        assert sorted(self.told) == ["done", "far", "near"]
        assert self.told[-1] == "done"


def tcp_pair(buffer: int | None) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, neither blocking; `buffer` bytes in each of their buffers, if given."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as calling:
        if buffer is not None:
            for sock in (listening, calling):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        calling.connect(listening.getsockname())
        accepted, _ = listening.accept()
        pair = calling.dup(), accepted
    for sock in pair:
        sock.setblocking(False)
    return pair


@asynccontextmanager
async def joined(patience: float = NEVER, buffer: int | None = None) -> AsyncIterator[Joined]:
    """Two TCP connections that a relay makes one."""
    loop, told = asyncio.get_running_loop(), list[str]()
    wrong: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    relay = Relay(lambda relay: told.append("done"), patience)
    relay.far.lost = lambda: told.append("far")
    near, near_wire = tcp_pair(buffer)
    far, far_wire = tcp_pair(buffer)
    await loop.create_connection(lambda: relay.far, sock=far_wire)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near_wire)
    relay.attach(transport, lambda: told.append("near"))
    with near, far:
        yield Joined(relay, End(near), End(far), told)
        relay.close()
        await until(lambda: "done" in told)
    assert not wrong


both_ways = pytest.mark.parametrize("first", ["near", "far"])


def other(name: str) -> str:
    return "far" if name == "near" else "near"


class TestClosing:
    @both_ways
    async def test_one_direction_ends_and_the_other_stays_open(self, first: str) -> None:
        async with joined() as pair:
            one, two = pair.end(first), pair.end(other(first))
            await one.send(DATA)
            one.fin()
            assert await two.rest() == DATA
            for _ in range(3):
                await two.send(b"still here")
                assert await one.receive() == b"still here"
            assert pair.told == []
            two.fin()
            assert await one.rest() == b""
            await pair.over()

    @both_ways
    @pytest.mark.parametrize("second", ["fin", "rst", "stays"])
    @pytest.mark.parametrize("how", ["fin", "rst"])
    @pytest.mark.parametrize("seen", ["seen", "unseen"])
    @pytest.mark.parametrize("unread", ["", "first", "second", "first second"])
    async def test_every_order(self, first: str, how: str, second: str, seen: str, unread: str) -> None:
        async with joined() as pair:
            one, two = pair.end(first), pair.end(other(first))
            for reader, sender, name in ((one, two, "first"), (two, one, "second")):
                if name in unread.split():
                    await sender.send(DATA)
                    await reader.arrived(len(DATA))
            to_two = DATA if "second" in unread else b""
            to_one = DATA if "first" in unread else b""
            getattr(one, how)()
            if seen == "seen" and how == "fin":
                assert await two.rest() == to_two
                to_two = b""
            elif seen == "seen":
                await until(lambda: "done" in pair.told)
            if second != "stays":
                getattr(two, second)()
            await self.check_ends(one, two, f"{how} {second}", to_one, to_two)
            await pair.over()

    async def check_ends(self, one: End, two: End, order: str, to_one: bytes, to_two: bytes) -> None:
        """Check what each end that is still there gets."""
        match order:
            case "fin fin":
                assert (await one.rest(), await two.rest()) == (to_one, to_two)
            case "fin rst":
                assert to_one.startswith(await one.until_reset())
            case "fin stays":
                assert await two.rest() == to_two
                two.fin()
                assert await one.rest() == to_one
            case "rst stays" | "rst fin":
                assert to_two.startswith(await two.until_reset())

    @both_ways
    async def test_an_end_that_is_closed_with_data_unread_cuts_the_other_off(self, first: str) -> None:
        async with joined() as pair:
            one, two = pair.end(first), pair.end(other(first))
            await two.send(DATA)
            await one.arrived(len(DATA))
            one.sock.close()
            await two.until_reset()
            await pair.over()

    @both_ways
    async def test_a_reset_after_the_own_end_is_found_by_the_next_bytes(self, first: str) -> None:
        async with joined() as pair:
            one, two = pair.end(first), pair.end(other(first))
            one.fin()
            assert await two.rest() == b""
            one.rst()
            await two.until_cut_off()
            await pair.over()

    @pytest.mark.asyncio(loop_factories=("asyncio",))  # whose clock can be put forward
    @both_ways
    async def test_what_is_left_goes_out_to_a_reader_that_takes_its_time(self, first: str) -> None:
        clock = Clock()
        async with joined(patience=NEVER, buffer=READ) as pair:
            one, two = pair.end(first), pair.end(other(first))
            sent, got, side = await fill(pair, first), 0, pair.side(other(first))
            two.fin()
            assert await one.rest() == b""
            one.fin()
            await until(lambda: side.transport is not None and side.transport.is_closing())
            assert side.transport is not None
            for _ in range(3):
                left = side.transport.get_write_buffer_size()
                while side.transport.get_write_buffer_size() == left:
                    got += len(await two.receive())
                await clock.pass_by(NEVER)
                assert side.transport.get_write_buffer_size() > 0
            assert got + len(await two.rest()) == sent
            await pair.over()

    @both_ways
    async def test_a_reader_that_takes_nothing_is_dropped(self, first: str) -> None:
        async with joined(patience=0.05, buffer=READ) as pair:
            one, two = pair.end(first), pair.end(other(first))
            sent = await fill(pair, first)
            two.fin()
            assert await one.rest() == b""
            one.fin()
            await pair.over()
            assert len(await two.until_reset()) < sent

    async def test_a_reset_is_no_orderly_end_inside_tls_either(self, real_tls: RealTls) -> None:
        seen: list[str] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read()
            except ConnectionResetError:
                seen.append("reset")
            else:
                seen.append("end")

        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with server(handle, real_tls.context("localhost")) as port:
            relay = Relay(lambda relay: done.set(), NEVER)
            trust = real_tls.trusted()
            await loop.create_connection(
                lambda: relay.far, "127.0.0.1", port, ssl=trust, server_hostname="localhost"
            )
            near, wire = tcp_pair(None)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=wire)
            relay.attach(transport, lambda: None)
            End(near).rst()
            await until(lambda: seen and done.is_set())
        assert seen == ["reset"]

    async def test_the_host_drops_both_ends(self) -> None:
        async with joined() as pair:
            pair.relay.close()
            await pair.near.until_reset()
            await pair.far.until_reset()
            await pair.over()


async def fill(pair: Joined, sender: str) -> int:
    """Hand over much more than the system takes, and have it kept; return how many bytes."""
    reader = pair.side(other(sender)).transport
    assert reader is not None
    reader.set_write_buffer_limits(high=16 * MIB)
    for _ in range(8):
        pair.side(sender).data_received(bytes(MIB))
    await asyncio.sleep(0)
    return 8 * MIB


class TestSlowReader:
    """The sizes of all buffers are given, so that the bound is one of bytes and not of luck."""

    LEAD = 6 * MIB
    BUFFER = MIB // 2

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("reader", ["near", "far"])
    async def test_the_sender_of_a_gibibyte_is_never_far_ahead(self, reader: str) -> None:
        size, sent, received = 1024 * MIB, 0, 0
        piece, buffer = memoryview(bytes(MIB)), bytearray(MIB)
        asyncio.get_running_loop().set_debug(False)  # It costs more than the relay.
        async with joined(buffer=self.BUFFER) as pair:
            side, sock = pair.side(reader), pair.end(reader).sock
            while received < size:
                sent += await self.push(pair, other(reader), piece, size - sent)
                assert sent - received <= self.LEAD
                assert side.transport is not None
                assert side.transport.get_write_buffer_size() <= HIGH_WATER + READ
                received += self.pull(sock, buffer)
                await asyncio.sleep(0)
            assert sent == size

    async def push(self, pair: Joined, sender: str, piece: memoryview, left: int) -> int:
        """Send until the relay reads no more and nothing more is taken."""
        sent, side, sock = 0, pair.side(sender), pair.end(sender).sock
        while sent < left:
            try:
                sent += sock.send(piece[: left - sent])
            except BlockingIOError:
                if side.transport is None or not side.transport.is_reading():
                    break
                await asyncio.sleep(0)
        return sent

    def pull(self, sock: socket.socket, buffer: bytearray) -> int:
        """Take once what is there."""
        try:
            return sock.recv_into(buffer)
        except BlockingIOError:
            return 0


@pytest.mark.asyncio  # uvloop's transports count what waits as it comes, and stop later
async def test_small_pieces_do_not_pile_up_in_a_transport() -> None:
    """By themselves there they would take many times their size, and time by the square."""
    async with joined(buffer=READ) as pair:
        sender, reader = pair.side("near").transport, pair.side("far").transport
        assert sender is not None
        assert reader is not None
        sent = 0
        while not reader.get_write_buffer_size():
            await pair.near.send(DATA[:1000])
            sent += 1000
            await asyncio.sleep(0)
        assert not sender.is_reading()
        pair.near.fin()
        assert len(await pair.far.rest()) == sent


def allow_files(count: int) -> None:
    """Raise the limit of open files as far as is needed, or skip."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"NOT TESTED: 1,000 tunnels need {count} open files, and {hard} are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


@pytest.mark.timeout(120)
async def test_a_thousand_tunnels_at_once() -> None:
    allow_files(4500)  # Four for each tunnel: they are all in this process.
    asyncio.get_running_loop().set_debug(False)  # It costs more than the tunnels.
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(server(echo))
        host = await stack.enter_async_context(Host([("ws://myapp.test/*", 1)]))
        peers = []
        for _ in range(1000):
            peers.append(await stack.enter_async_context(Peer.connect(host)))
            assert (await tunnel(peers[-1], f"127.0.0.1:{port}")).status == 200
        words = [f"number {number:4}".encode() for number in range(1000)]
        for peer, word in zip(peers, words, strict=True):
            peer.writer.write(word)
        echoes = await asyncio.gather(*(peer.reader.readexactly(11) for peer in peers))
        assert echoes == words
        for peer in peers:
            peer.half_close()
        assert set(await asyncio.gather(*(peer.rest() for peer in peers))) == {b""}
        await until(lambda: not host._listener.transports)
        assert not host._proxy._relays
