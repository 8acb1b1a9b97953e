"""One WebSocket on one transport, after its handshake; either side.

Bytes that arrive go through websockets' sans-I/O core and come out as messages for the owner; what the owner
sends goes the other way. All frames of one read are handled before anything is written, so that their answers
leave in one write. What the transport cannot take at once waits here, in pieces, not in the transport.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from websockets.extensions import Extension

from .config import Limits, Timeouts
from .frames import LARGE, OPEN, SLICE, Frames, Shared

__all__ = ["Connection", "End", "Initiator", "Linger", "Owner", "fit_reads"]

Bytes = bytes | bytearray | memoryview

PIECE = 256 * 1024
"""Most bytes handed to the transport at once."""

READ = 127 * 1024
"""Most bytes that asyncio reads at once, into a new buffer of that size: from 128 KiB on the C library may
ask the system for each and give it back, which costs more than all the rest of a small message."""

WIDE_READ = 256 * 1024
"""The same after a large read, where it costs less than what is saved."""

TURN = 0.005
"""Seconds after which a socket that has more to be handled lets the others have their turn."""

LONG = 0.001
"""Seconds of handling a large read after which the next one waits for another turn; libuv reads 32 in one."""

NOTHING: deque[Bytes] = deque(maxlen=0)
"""Stands for a deque while nothing waits: an empty one takes 700 bytes, and there may be 10,000 sockets."""

LOST = 1006
"""Close code of a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

TOO_BIG = 1009
"""Close code for a message that is over the limit."""

NO_HANDSHAKE = "the connection was lost without a closing handshake"

Initiator = Literal["client", "host", "fault"]


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended.

    Attributes:
        code: the peer's close code, 1005 if it gave none, 1006 if there was no close frame.
        reason: the peer's reason.
        was_clean: whether close frames went both ways.
        initiator: `client` the peer, `host` this end, `fault` neither meant to.
        fault: what went wrong, in plain words; empty if nothing did.
    """

    code: int
    reason: str
    was_clean: bool
    initiator: Initiator
    fault: str = ""


class Owner(Protocol):
    """Who a connection works for. Calls come on the loop's thread, in wire order."""

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        """Take a message, or a piece of one."""

    def connection_ending(self) -> None:
        """Learn that nothing can be sent any more, while messages are still to come."""

    def connection_ended(self, end: End) -> None:
        """Learn how it ended; called once, after every message."""


class Connection(asyncio.Protocol):
    """Frames on a transport.

    Args:
        transport: open; its protocol is set to this connection.
        owner: gets the messages and the end.
        extensions: as the handshake agreed.
        limits: `message`, `read_buffer` and `write_buffer` count.
        timeouts: `close`, `ping` and `pong` count.
        chunks: give each data frame as it comes instead of whole messages.
        lost: called once when the transport is gone.
        client: whether this end is the client.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        owner: Owner,
        *,
        extensions: Sequence[Extension] = (),
        limits: Limits,
        timeouts: Timeouts,
        chunks: bool = False,
        lost: Callable[[], None] = lambda: None,
        client: bool = False,
    ) -> None:
        self._transport = transport
        self._owner = owner
        self._limits = limits
        self._timeouts = timeouts
        self._lost = lost
        self._frames = Frames(
            extensions,
            limits.message,
            chunks=chunks,
            client=client,
            deliver=owner.message_received,
            pong=self._pong_received,
            enough=self._is_late,
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._end: End | None = None
        self._closed = False
        self._ending = False
        self._fault = ""
        # Writing
        self._out: deque[Bytes] = NOTHING
        self._out_bytes = 0
        self._made_bytes = 0
        self._left_bytes = 0
        self._corked = False
        self._batched = False
        self._corked_bytes = 0
        self._blocked = False
        self._waiters: list[asyncio.Future[None]] = []
        # Reading
        self._begun = 0.0
        self._resting = False
        self._reading = True
        self._heard = True
        self._eof_received = False
        self._stream_ended = False
        self._lost_transport = False
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self._wide = True
        self._fit_reads(0)
        transport.set_protocol(self)
        self._schedule_ping()

    # What the owner may ask and do.

    @property
    def end(self) -> End | None:
        """How the connection ended, None while it has not."""
        return self._end

    @property
    def buffered_amount(self) -> int:
        """Bytes of frames that were sent but not yet handed to the operating system."""
        return self._out_bytes + self._corked_bytes + self._transport.get_write_buffer_size()

    @property
    def blocked(self) -> bool:
        """Whether the transport takes no more for now."""
        return self._blocked

    @property
    def made_bytes(self) -> int:
        """Bytes of frames that were made for the wire so far."""
        return self._made_bytes

    @property
    def taken_bytes(self) -> int:
        """Bytes of frames that were handed to the operating system so far."""
        return self._made_bytes - max(self._left_bytes, self.buffered_amount)

    def send(self, payload: bytes, opcode: Literal[0, 1, 2], fin: bool = True) -> None:
        """Send a message, or a piece of one; without effect once the closing handshake has begun.

        Args:
            payload: as it goes into the frame; text is UTF-8.
            opcode: 1 text, 2 binary, 0 for the pieces of a message after its first.
            fin: whether the message ends here.
        """
        frames = self._frames
        if frames.core.state is OPEN:
            frames.send(payload, opcode, fin)
            self._sent(len(payload))

    def send_shared(self, message: Shared) -> None:
        """Send a message that goes to many; on the server's side."""
        frames = self._frames
        if frames.core.state is OPEN:
            frames.send_shared(message)
            self._sent(len(message.payload))
            if frames.behind > self._limits.write_buffer:
                self.abort(
                    f"{frames.behind} bytes of broadcasts wait for the last piece (fin=True) of a message, "
                    f"over Limits.write_buffer ({self._limits.write_buffer}); the socket was closed"
                )

    def batch(self) -> bool:
        """Keep back what is sent until `flush`; return whether that is new and a `flush` is to follow."""
        begun, self._batched = not self._batched, True
        return begun

    def flush(self) -> None:
        """Write what was kept back, all at once."""
        self._batched = False
        self._corked_bytes = 0
        self._flush()

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Start the closing handshake after what was sent; without effect if it has begun."""
        if self._frames.core.state is OPEN:
            self._closed = True
            self._frames.close(code, reason)
            self._sent(0)
            self._start_timer(self._timeouts.close, self._give_up)

    def fail(self, code: int, fault: str) -> None:
        """Close with a code of RFC 6455 section 7.4.1 because of a fault; the end is reported at once."""
        if self._end is None:
            self._fault = fault
            self._frames.fail(code, fault[:123])
            self._flush()
            self._finish()

    def abort(self, fault: str) -> None:
        """Drop the connection now; what was not sent is lost."""
        self._fault = self._fault or fault
        self._left_bytes = self.buffered_amount
        self._transport.abort()
        self._finish()

    async def drain(self) -> None:
        """Wait until the transport takes data again, or is gone."""
        # A transport that is closing takes nothing and is never blocked: there is its end to wait for.
        while (
            self._end is None and not self._lost_transport and (self._blocked or self._transport.is_closing())
        ):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)

    async def ping(self, payload: bytes) -> None:
        """Send a ping with a payload not in use and wait for its pong, or for the end of the connection."""
        if self._frames.core.state is OPEN:
            waiter = self._pings[payload] = self._loop.create_future()
            self._frames.ping(payload)
            self._sent(len(payload))
            try:
                await waiter
            finally:
                self._pings.pop(payload, None)

    def hold(self, held: bool) -> None:
        """Stop or resume reading on the owner's behalf."""
        if self._end is not None:
            return
        self._frames.held = held
        if not held and self._frames.waiting and not self._corked:
            self._receive()
        if self._ending:
            self._finish()
            return
        self._choose_reading()
        if not held and self._closed and self._end is None:
            # The peer's close may have waited to be read; its time starts now.
            self._start_timer(self._timeouts.close, self._give_up)

    # asyncio's side: reading.

    def data_received(self, data: bytes) -> None:
        """Handle every frame that is complete, then write all answers at once."""
        self._heard = True
        if self._wide is not (len(data) > SLICE):
            self._fit_reads(len(data))
        if self._end is None:
            self._receive(data)

    def _fit_reads(self, size: int) -> None:
        """Have the next read be as wide as one of this size asks for, where the transport lets us."""
        self._wide = size > SLICE
        fit_reads(self._transport, large=self._wide)

    def _receive(self, data: bytes = b"") -> None:
        frames = self._frames
        large = len(data) > SLICE or not data or frames.waiting
        if large:
            self._begun = time.monotonic()
        self._corked = True
        try:
            frames.receive(data)
        finally:
            self._corked = False
            self._corked_bytes = 0
        self._flush()
        if frames.core.state is not OPEN or self._fault:
            self._finish_if_over()
        if large and time.monotonic() > self._begun + LONG:
            self._rest()

    def _is_late(self) -> bool:
        return time.monotonic() > self._begun + TURN

    def _rest(self) -> None:
        """Let the other sockets have their turn of the loop before more is read, or handled."""
        if self._end is None and not self._resting:
            self._resting = True
            self._choose_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self.hold(self._frames.held)

    def eof_received(self) -> bool:
        """Take the end of the stream; keep the transport only while something is still to be sent."""
        self._eof_received = True
        self._end_of_stream()
        return bool(self._out) and self._transport.can_write_eof()  # TLS has no half-closed state here.

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the transport, whatever the reason, and wake whoever waits."""
        if self._end is None and exc is not None:
            self._fault = self._fault or f"the connection was lost: {exc}"
        self._lost_transport = True
        self._start_timer(None, self._give_up)
        self._left_bytes = max(self._left_bytes, self._out_bytes)
        self._out = NOTHING
        self._out_bytes = 0
        self._wake()
        self._end_of_stream()
        self._lost()
        self._let_go_if_over()

    def _end_of_stream(self) -> None:
        self._stream_ended = True
        if self._end is None:
            self._finish()
        else:
            self._frames.receive_eof()

    # asyncio's side: writing.

    def pause_writing(self) -> None:
        """The transport is full: keep what comes."""
        self._blocked = True

    def resume_writing(self) -> None:
        """The transport has room: go on with what was kept."""
        self._blocked = False
        self._write()
        self._choose_reading()
        if not self._blocked:
            self._wake()

    # Inside.

    def _sent(self, size: int) -> None:
        if not (self._corked or self._batched):
            self._flush()
            return
        self._corked_bytes += size
        if self._corked_bytes > PIECE:
            self._corked_bytes = 0
            self._flush()

    def _flush(self) -> None:
        writes = self._frames.take_writes()
        if not writes:
            return
        size = sum(map(len, writes))
        self._made_bytes += size
        if size and not self._transport.is_closing():
            if not self._out and not self._blocked and size <= PIECE:
                self._transport.write(b"".join(writes))
            else:
                self._keep(writes)
                self._out_bytes += size
                self._write()
        if self._blocked:
            self._check_full()
        elif self._frames.core.eof_sent:
            self._half_close()

    def _keep(self, writes: Sequence[bytes]) -> None:
        """Have frames wait, small ones in one place: each by itself would take many times its size."""
        if self._out is NOTHING:
            self._out = deque()
        for piece in writes:
            last = self._out[-1] if self._out else b""
            if len(piece) >= LARGE:
                self._out.append(piece)
            elif isinstance(last, bytearray) and len(last) < PIECE:
                last += piece
            else:
                self._out.append(bytearray(piece))

    def _write(self) -> None:
        while self._out and not self._blocked and not self._transport.is_closing():
            piece = self._next_piece()
            self._out_bytes -= len(piece)
            self._transport.write(piece)
        if not self._out:
            self._out = NOTHING
            if not self._blocked and self._frames.core.eof_sent:
                # Soon, not now: within resume_writing() asyncio's transport would do it once more.
                self._loop.call_soon(self._half_close)

    def _next_piece(self) -> Bytes:
        """Take the next PIECE bytes of what waits; a large payload is not copied for it."""
        pieces: list[Bytes] = []
        room = PIECE
        while self._out and room:
            piece = self._out.popleft()
            if len(piece) > room:
                view = memoryview(piece)
                self._out.appendleft(view[room:])
                piece = view[:room]
            room -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _half_close(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if transport.can_write_eof() and not self._eof_received:
            if transport.get_write_buffer_size():
                # Left to asyncio's transport, the half-close raises in the loop where the peer was faster.
                transport.set_write_buffer_limits(0)
                if self._blocked:
                    return
            try:
                transport.write_eof()
            except (OSError, RuntimeError):  # The peer was faster.
                self._loop.call_soon(transport.abort)
        else:
            # Soon, not now: closed within resume_writing(), asyncio's transport would be lost twice.
            self._loop.call_soon(transport.close)

    def _check_full(self) -> None:
        amount = self._out_bytes + self._transport.get_write_buffer_size()
        if amount > self._limits.write_buffer and self._end is None:
            # WHATWG, send() steps: flagged as full, then closed. A close frame would wait behind the rest.
            self.abort(
                f"{amount} bytes were not taken by the peer, over Limits.write_buffer "
                f"({self._limits.write_buffer}); the socket is full and was closed"
            )
            return
        self._choose_reading()

    def _choose_reading(self) -> None:
        # Who does not take our answers need not send more questions.
        stalled = self._blocked and self.buffered_amount > self._limits.read_buffer
        reading = not (self._frames.held or self._resting or stalled)
        if reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _finish_if_over(self) -> None:
        if self._frames.core.close_rcvd is not None or self._frames.core.parser_exc is not None:
            self._frames.drop()  # Nothing counts after that.
            self._finish()
        elif self._fault:
            self._finish()

    def _finish(self) -> None:
        """Report the end, once, after all that arrived before it.

        What the owner has no room for yet waits here, packed as it came, and the end behind it.
        """
        if self._end is not None or self._corked:
            return  # More of what arrived is on its way to the owner.
        self._ending = True
        if self._frames.waiting and not (self._frames.held or self._resting):
            self._receive()
            if self._end is not None:
                return
        if self._frames.waiting:
            self._owner.connection_ending()
            return
        if self._stream_ended:
            self._frames.receive_eof()
        self._end = self._make_end()
        self._start_timer(None if self._lost_transport else self._timeouts.close, self._give_up)
        self._wake()
        if not self._reading and not self._transport.is_closing():
            # What still comes is thrown away, but the peer's end of stream must be seen.
            self._reading = True
            self._transport.resume_reading()
        self._owner.connection_ended(self._end)
        self._let_go_if_over()

    def _let_go_if_over(self) -> None:
        if self._end is not None and self._lost_transport:
            self._frames.let_go()

    def _make_end(self) -> End:
        core = self._frames.core
        received, exc = core.close_rcvd, core.parser_exc
        code, reason = (LOST, "") if received is None else (int(received.code), received.reason)
        fault = self._fault or self._describe(exc)
        if received is not None and not fault:
            return End(code, reason, True, "client" if core.close_rcvd_then_sent else "host")
        by_host = self._closed and (exc is None or isinstance(exc, EOFError))
        return End(code, reason, False, "host" if by_host else "fault", fault or NO_HANDSHAKE)

    def _describe(self, exc: Exception | None) -> str:
        if exc is None:
            return ""
        if isinstance(exc, EOFError):
            return NO_HANDSHAKE
        sent = self._frames.core.close_sent
        code = LOST if sent is None else int(sent.code)
        if code == TOO_BIG:
            return f"a message is over Limits.message ({self._limits.message} bytes); closed with {code}"
        return f"{sent.reason if sent and sent.reason else exc}; closed with {code}"

    def _wake(self) -> None:
        over = self._end is not None or self._lost_transport
        waiting = [*self._waiters, *(self._pings.values() if over else ())]
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _pong_received(self, payload: bytes) -> None:
        waiter = self._pings.pop(payload, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # One timer: keepalive while open, then the patience for the close.

    def _start_timer(self, delay: float | None, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else self._loop.call_later(delay, callback)

    def _schedule_ping(self) -> None:
        self._start_timer(self._timeouts.ping, self._keepalive)

    def _keepalive(self) -> None:
        if self._frames.core.state is not OPEN:
            return
        self._heard = False
        self._frames.ping(os.urandom(4))
        self._flush()
        if self._timeouts.pong is None:
            self._schedule_ping()
        elif self._end is None:
            self._start_timer(self._timeouts.pong, self._expect_sign_of_life)

    def _expect_sign_of_life(self) -> None:
        # Whatever arrives counts: a pong may have to wait behind a large message.
        if self._heard or not self._reading:
            self._schedule_ping()
        else:
            self.fail(1011, f"no answer to a ping within {self._timeouts.pong} s; the peer is gone")

    def _give_up(self) -> None:
        if self._frames.held:
            # The peer's close may wait to be read; that the program is slow is not the peer's fault.
            self._start_timer(self._timeouts.close, self._give_up)
        else:
            self.abort(f"the peer did not finish closing within {self._timeouts.close} s")


def fit_reads(transport: asyncio.Transport, *, large: bool) -> None:
    """Have the next reads be as wide as small or large ones ask for, where the transport lets us."""
    if hasattr(transport, "max_size"):
        transport.max_size = WIDE_READ if large else READ


class Linger(asyncio.Protocol):
    """Says the last word on a transport and closes it politely.

    The transport is half-closed and what still comes is thrown away until the peer ends too: a plain close
    with unread bytes would reset the connection, and the peer might lose the answer.

    Args:
        transport: open; its protocol is set to this one.
        data: the last bytes to send.
        timeout: seconds after which the transport is dropped.
        lost: called once when the transport is gone.
    """

    def __init__(
        self, transport: asyncio.Transport, data: bytes, timeout: float, lost: Callable[[], None]
    ) -> None:
        self._lost = lost
        self._timer = asyncio.get_running_loop().call_later(timeout, transport.abort)
        transport.set_protocol(self)
        transport.write(data)
        try:
            if transport.can_write_eof():
                transport.write_eof()
                transport.resume_reading()
            else:
                transport.close()
        except (OSError, RuntimeError):  # The peer was faster.
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Throw away what still comes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._timer.cancel()
        self._lost()
