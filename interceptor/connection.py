"""One WebSocket on one transport, after its handshake; either side.

Bytes that arrive go through websockets' sans-I/O core and come out as messages for the owner; what the owner
sends goes the other way. All frames of one read are handled before anything is written, so that their answers
leave in one write. What the transport cannot take at once waits in a backlog, not in the transport.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from websockets.extensions import Extension

from .backlog import PIECE, Backlog, fit_writes
from .clock import Clock, Timer
from .config import Limits, Timeouts
from .ending import End, Patience, read_end
from .frames import SLICE, Frames, Shared
from .linger import half_close

__all__ = ["Connection", "End", "Owner", "fit_reads"]

READ = 127 * 1024
"""Most bytes that asyncio reads at once, into a new buffer of that size: from 128 KiB on the C library may
ask the system for each and give it back, which costs more than all the rest of a small message."""

WIDE_READ = 256 * 1024
"""The same after a large read, where it costs less than what is saved."""

TURN = 0.005
"""Seconds after which a socket that has more to be handled lets the others have their turn."""

LONG = TURN / 32
"""Seconds of handling a large read after which the next one waits for another turn: libuv reads 32 in one."""


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
        clock: has its timers.
    """

    # With more than 30 attributes CPython has a dict for each socket: five times the memory, and more spread.
    __slots__ = (
        "__weakref__",
        "_backlog",
        "_batched",
        "_begun",
        "_blocked",
        "_clock",
        "_corked",
        "_corked_bytes",
        "_end",
        "_ending",
        "_eof_received",
        "_fault",
        "_frames",
        "_heard",
        "_left_bytes",
        "_limits",
        "_loop",
        "_lost",
        "_lost_transport",
        "_made_bytes",
        "_owner",
        "_patience",
        "_pings",
        "_reading",
        "_resting",
        "_stream_ended",
        "_timeouts",
        "_timer",
        "_transport",
        "_waiters",
        "_wide",
    )

    _telling = False

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
        clock: Clock | None = None,
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
        self._clock = clock or Clock()
        self._timer: Timer | None = None
        self._end: End | None = None
        self._patience: Patience | None = None  # Once this end has begun to close.
        self._ending = False
        self._fault = ""
        # Writing
        self._backlog: Backlog | None = None  # None where nothing waits: there may be 10,000 sockets.
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
        fit_writes(transport)
        self._schedule_ping()

    # What the owner may ask and do.

    @property
    def end(self) -> End | None:
        """How the connection ended, None while it has not."""
        return self._end

    @property
    def buffered_amount(self) -> int:
        """Bytes of frames that were sent but not yet handed to the operating system."""
        return self._corked_bytes + self._waiting_bytes

    @property
    def _waiting_bytes(self) -> int:
        kept = 0 if self._backlog is None else self._backlog.size
        return kept + self._frames.waiting_bytes + self._transport.get_write_buffer_size()

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
        if frames.is_open:
            frames.send(payload, opcode, fin)
            self._sent(len(payload))

    def send_shared(self, message: Shared) -> None:
        """Send a message that goes to many; on the server's side."""
        frames = self._frames
        if not frames.is_open:
            return
        frame = frames.share(message)
        if not frame:
            self._check_full()
        elif self._corked or self._batched or not self._takes(len(frame)):
            frames.add(frame)
            self._sent(len(message.payload))
        else:
            # Of a thousand sockets each is new to the processor: the fewer objects on the way, the better.
            self._made_bytes += len(frame)
            self._transport.write(frame)
            if self._blocked:
                self._check_full()

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
        if self._frames.is_open:
            self._patience = Patience(self._timeouts.close, self._loop.time(), self._frames.held)
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
        if self._frames.is_open:
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
        if self._patience is not None and held is not self._frames.held:
            self._patience.count(self._loop.time(), held)
        self._frames.held = held
        if not held and self._frames.waiting and not self._corked:
            self._receive()
        if self._ending:
            self._finish()
            return
        self._choose_reading()

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
        if not frames.is_open or self._fault:
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
        waiting = self._backlog is not None
        return waiting and self._transport.can_write_eof()  # TLS has no half-closed state here.

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the transport, whatever the reason, and wake whoever waits."""
        if self._end is None and exc is not None:
            self._fault = self._fault or f"the connection was lost: {exc}"
        self._lost_transport = True
        self._start_timer(None, self._give_up)
        if self._backlog is not None:
            self._left_bytes = max(self._left_bytes, self._backlog.size)
            self._backlog = None
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
        if self._takes(size):
            self._transport.write(b"".join(writes))
        elif size and not self._transport.is_closing():
            if self._backlog is None:
                self._backlog = Backlog()
            self._backlog.add(writes, size)
            self._write()
        if self._blocked:
            self._check_full()
        elif self._frames.core.eof_sent:
            self._half_close()

    def _takes(self, size: int) -> bool:
        """Whether the transport takes so many bytes at once, and nothing is to go before them."""
        return (
            0 < size <= PIECE
            and self._backlog is None
            and not self._blocked
            and not self._transport.is_closing()
        )

    def _write(self) -> None:
        while self._backlog is not None and not self._blocked and not self._transport.is_closing():
            piece = self._backlog.take()
            if not self._backlog.size:
                self._backlog = None
            self._transport.write(piece)
        if self._backlog is None and not self._blocked and self._frames.core.eof_sent:
            # Soon, not now: within resume_writing() asyncio's transport would do it once more.
            self._loop.call_soon(self._half_close)

    def _half_close(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if transport.can_write_eof() and not self._eof_received:
            half_close(transport)
        else:
            # Soon, not now: closed within resume_writing(), asyncio's transport would be lost twice.
            self._loop.call_soon(transport.close)

    def _check_full(self) -> None:
        amount, unfinished = self._waiting_bytes, self._frames.waiting_bytes
        if amount > self._limits.write_buffer and self._end is None:
            what = f"{amount} bytes were not taken by the peer"
            if unfinished:
                what = (
                    f"{amount} bytes wait, {unfinished} of them broadcasts that may not go before the last "
                    "piece (fin=True) of the message that the program has begun"
                )
            # WHATWG, send() steps: flagged as full, then closed. A close frame would wait behind the rest.
            limit = self._limits.write_buffer
            self._fault = f"{what}, over Limits.write_buffer ({limit}); the socket is full and was closed"
            self._left_bytes = self.buffered_amount
            self._transport.abort()
            self._tell_full()
            return
        self._choose_reading()

    def _tell_full(self) -> None:
        """Tell the owner; if that has another one sent too much, its end is told once its transport is lost.

        Else a program that tells all of the end of one would come back here from within, as often as there
        are sockets.
        """
        if not Connection._telling:
            Connection._telling = True
            try:
                self._finish()
            finally:
                Connection._telling = False

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
        self._end = read_end(
            self._frames, closed=self._patience is not None, fault=self._fault, limit=self._limits.message
        )
        self._frames.forget()
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
        self._timer = None if delay is None else self._clock.after(delay, callback)

    def _schedule_ping(self) -> None:
        self._start_timer(self._timeouts.ping, self._keepalive)

    def _keepalive(self) -> None:
        if not self._frames.is_open:
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
        patience = self._patience if self._end is None else None
        if patience is not None and not patience.ran_out(self._loop.time(), self._frames.held):
            self._start_timer(self._timeouts.close, self._give_up)
            return
        self.abort(f"the peer did not finish closing within {self._timeouts.close} s")


def fit_reads(transport: asyncio.Transport, *, large: bool) -> None:
    """Have the next reads be as wide as small or large ones ask for, where the transport lets us."""
    if hasattr(transport, "max_size"):
        transport.max_size = WIDE_READ if large else READ
