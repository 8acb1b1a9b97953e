"""A TCP reset at the worst moments: what the program got stays in order, and nothing else comes of it.

A reset throws away what the host had not read yet, so how much arrives is not certain. That it is the
beginning of what was sent is, that one 844 and one 843 follow, and that nothing is left. `test_faults.py` has
every state once; here the messages are large and the program is slow.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from interceptor import Host, WebSocketClose, WebSocketError, WebSocketReceive, WebSocketUpgrade

from .conftest import FACTORIES
from .peer import BINARY, CLOSE, CONT, TEXT, Peer, Recorder, close_frame, frame, until
from .programs import CLOSED, DEFLATE, ERROR, MIB, RECEIVE, UPGRADE, ask, make_host, opened, pause
from .streams import packed
from .threads import Program, Seen, no_thread_left, soon
from .threads import make_host as make_threaded
from .wire import BOTH_LOOPS, HEAD, SWITCHED, Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

SIZE = 4 * MIB
BODY = bytes(range(256)) * (SIZE // 256)


def fragments(payload: bytes, rsv: int = 0) -> bytes:
    """A message in pieces of 64 KiB."""
    pieces = [payload[start : start + 65536] for start in range(0, len(payload), 65536)]
    return b"".join(
        frame(CONT if index else BINARY, piece, fin=index == len(pieces) - 1, rsv=0 if index else rsv)
        for index, piece in enumerate(pieces)
    )


NOISE = b"".join(number.to_bytes(4, "big") for number in range(SIZE // 4))  # Packed it is still large.
LARGE: dict[str, bytes] = {
    "plain": frame(BINARY, BODY),
    "packed": frame(BINARY, packed(NOISE), rsv=4),
    "fragments": fragments(BODY),
    "packed fragments": fragments(packed(NOISE), rsv=4),
}
SMALL = [f"{number:03}" for number in range(500)]
BEFORE = b"".join(frame(TEXT, text) for text in SMALL)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What a socket held is given back at its end, not when the garbage collector comes by."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def only_its_own(lines: list[Line], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Of all that is logged, one warning of the host's for each loss, and nothing of the loop's."""
    yield
    told = [line["event"] for line in lines if line["log_level"] in ("warning", "error")]
    assert set(told) <= {"ended abnormally", "handshake failed"}
    assert len(told) <= 1
    loop = [line.getMessage() for line in caplog.get_records("call") if line.name == "asyncio"]
    # In debug mode it tells of slow steps.
    assert not [line for line in loop if not line.startswith(("Executing", "Using selector"))]


def check_cut_off(seen: Recorder, id: str, sent: list[str]) -> None:
    """Check that the program got the beginning of what was sent, and then was told of the loss."""
    received = seen.of(WebSocketReceive, id)
    assert [event.data for event in received] == sent[: len(received)]
    assert seen.names(id) == [UPGRADE, *[RECEIVE] * len(received), ERROR, CLOSED]
    (closed,) = seen.of(WebSocketClose, id)
    assert (closed.code, closed.was_clean) == (1006, False)


async def is_forgotten(host: Host, left: weakref.ref[object]) -> None:
    """Wait until nothing of a socket is left."""
    await until(lambda: not host._listener.transports and left() is None)
    assert not host.sockets


@BOTH_LOOPS
@pytest.mark.usefixtures("only_its_own")
@pytest.mark.parametrize("slow", [False, True], ids=["", "slow"])
@pytest.mark.parametrize("kind", LARGE)
async def test_amid_a_large_message(kind: str, slow: bool) -> None:
    host = make_host()
    seen = Recorder(host)
    gate = asyncio.Event()

    @host.on(RECEIVE)
    async def wait(event: WebSocketReceive) -> None:
        if slow:
            await gate.wait()

    async with host:
        async with opened(host, seen, extra=DEFLATE) as (peer, id):
            left: weakref.ref[object] = weakref.ref(host.sockets[id])
            large = LARGE[kind]
            await peer.send(BEFORE)
            await seen.wait_for(WebSocketReceive, 1 if slow else len(SMALL))
            sending = asyncio.ensure_future(peer.send(large[: len(large) * 3 // 4]))
            await until(lambda: sending.done() or slow)
            peer.reset()
            await asyncio.wait([sending])
            sending.exception()
            gate.set()
            await seen.wait_for(WebSocketClose)
        check_cut_off(seen, id, SMALL)
        assert slow or len(seen.of(WebSocketReceive)) == len(SMALL)
        await is_forgotten(host, left)


@BOTH_LOOPS
@pytest.mark.usefixtures("only_its_own")
@pytest.mark.parametrize("size", [32, MIB])
async def test_amid_a_large_send_of_the_program(size: int) -> None:
    host = make_host()
    seen = Recorder(host)
    async with host:
        async with opened(host, seen) as (peer, id):
            pause(peer)
            session = host.sockets[id]
            while session.buffered_amount < MIB // 2:
                host.WebSocketSend(id, bytes(size))
            waiting = asyncio.ensure_future(session.send(bytes(size)))
            await asyncio.sleep(0)
            assert not waiting.done()
            peer.reset()
            await waiting
            await seen.wait_for(WebSocketClose)
        check_cut_off(seen, id, [])
        left: weakref.ref[object] = weakref.ref(session)
        del session, waiting
        await is_forgotten(host, left)


@BOTH_LOOPS
@pytest.mark.usefixtures("only_its_own")
@pytest.mark.parametrize("part", [1, 20, -2])
async def test_amid_the_head(part: int) -> None:
    host = make_host()
    seen = Recorder(host)
    async with host:
        async with Peer.connect(host) as peer:
            await peer.send(ask(host, "/")[:part])
            await until(lambda: host._listener.transports)
            peer.reset()
            await until(lambda: not host._listener.transports)
        assert not seen.events


@BOTH_LOOPS
@pytest.mark.usefixtures("only_its_own")
async def test_amid_a_manual_handshake_with_much_behind_its_head() -> None:
    """The host stops reading at `read_buffer`, so the loss may be seen with the answer only."""
    host = make_host()
    seen = Recorder(host)
    async with host:
        async with Peer.connect(host) as peer:
            sending = asyncio.ensure_future(peer.send(ask(host, "/manual") + LARGE["plain"]))
            upgrade = await seen.wait_for(WebSocketUpgrade)
            await until(lambda: not next(iter(host._listener.transports)).is_reading())
            peer.reset()
            await asyncio.wait([sending])
            sending.exception()
            host.answer(upgrade.id, upgrade.accept())
            await seen.wait(lambda: seen.of(WebSocketError))
        await until(lambda: not host._listener.transports and not host.sockets)
        assert seen.names() in ([UPGRADE, ERROR], [UPGRADE, ERROR, CLOSED])


CLOSINGS: dict[str, Callable[[Peer], bytes]] = {
    "instead of the close frame": lambda peer: b"",
    "amid the close frame": lambda peer: close_frame(3000, "reason")[:-3],
    "behind the close frame": lambda peer: close_frame(3000),
    "behind two close frames and a message": lambda peer: close_frame(3000) * 2 + frame(TEXT, "late"),
    "amid a message before the close frame": lambda peer: LARGE["plain"][:MIB],
}


@BOTH_LOOPS
@pytest.mark.usefixtures("only_its_own")
@pytest.mark.parametrize("by_host", [False, True], ids=["the peer's", "the host's"])
@pytest.mark.parametrize("last", CLOSINGS)
async def test_amid_the_closing_handshake(last: str, by_host: bool) -> None:
    host = make_host()
    seen = Recorder(host)
    async with host:
        async with opened(host, seen) as (peer, id):
            left: weakref.ref[object] = weakref.ref(host.sockets[id])
            if by_host:
                host.WebSocketClose(id, 3001)
                assert await peer.close_code() == 3001
            await peer.send(CLOSINGS[last](peer))
            peer.reset()
            closed = await seen.wait_for(WebSocketClose)
        assert seen.names() == [UPGRADE, *([ERROR] if closed.code == 1006 else []), CLOSED]
        assert closed.code == 1006 or (closed.code == 3000 and "behind" in last)
        assert closed.initiator in (("host",) if by_host else ("client", "fault"))
        await is_forgotten(host, left)


# On the program's own thread


def dial_raw(host: Host) -> socket.socket:
    """Open a WebSocket whose bytes are ours."""
    made = socket.create_connection(host.address, timeout=20)
    made.sendall(HEAD)
    came = b""
    while len(came) < len(SWITCHED):
        came += made.recv(4096)
    assert came == SWITCHED
    return made


def reset_raw(sock: socket.socket) -> None:
    """End a TCP connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize("kind", ["plain", "fragments"])
@pytest.mark.parametrize("style", ["post", "dq"])
@pytest.mark.parametrize("loop", FACTORIES)
def test_amid_a_large_message_while_the_programs_thread_is_busy(loop: str, style: str, kind: str) -> None:
    with no_thread_left(), Program() as program:
        host = make_threaded(program.post if style == "post" else None)
        seen = Seen(host)
        begun: list[str] = []

        def work() -> None:
            while style == "dq" and "WebSocketClose" not in seen.names():
                host.dq(0.1)

        @host.on(RECEIVE)
        def slow(event: WebSocketReceive) -> None:
            if not begun:
                begun.append(event.id)
                gate.result(20)

        gate: Future[None] = Future()
        with host.in_thread(dq=style == "dq", loop_factory=FACTORIES[loop]):
            program.post(work)
            sock = dial_raw(host)
            sock.sendall(BEFORE)
            soon(lambda: begun)
            sock.sendall(LARGE[kind][: MIB // 2])
            reset_raw(sock)
            gate.set_result(None)
            seen.wait_for(CLOSED)
            soon(lambda: not host.sockets)
        count = len(seen.data())
        assert seen.data() == SMALL[:count]
        assert seen.names() == [UPGRADE, *[RECEIVE] * count, ERROR, CLOSED]
        assert seen.threads == {program.ident}


def test_the_table_has_what_it_says() -> None:
    assert all(len(data) > MIB for data in LARGE.values())
    assert LARGE["fragments"][0] == BINARY
    assert close_frame(3000)[0] == 0x80 | CLOSE
