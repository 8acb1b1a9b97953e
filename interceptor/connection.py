"""One WebSocket on one transport, after its handshake; either side.

Bytes that arrive go through websockets' sans-I/O core and come out as messages for the owner; what the owner
sends goes the other way. All frames of one read are handled before anything is written, so that their answers
leave in one write. What the transport cannot take at once waits here, in pieces, not in the transport.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from websockets.extensions import Extension
from websockets.frames import Opcode
from websockets.protocol import Protocol as Core
from websockets.protocol import Side, State

from .config import Limits, Timeouts
from .messages import Messages, Utf8

__all__ = ["Connection", "End", "Initiator", "Linger", "Owner"]

OPEN = State.OPEN
CONT, TEXT, BINARY, PONG = Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.PONG
PIECE = 256 * 1024
"""Most bytes handed to the transport at once."""

SLICE = 64 * 1024
"""Most bytes handled before it is asked again whether the owner can take more."""

UNPACKING = 16 * 1024
"""The same where they are compressed: they may become a thousand times as many."""

LOST = 1006
"""Close code of a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

TOO_BIG = 1009
"""Close code for a message that is over the limit."""

NO_HANDSHAKE = "the connection was lost without a closing handshake"

Initiator = Literal["client", "host", "fault"]
Bytes = bytes | bytearray | memoryview

# The core names frames with their payloads at debug level only, and nobody's logging is set up for it.
_core_log = logging.getLogger("interceptor.core")


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
        self._core = Core(Side.CLIENT if client else Side.SERVER, max_size=limits.message, logger=_core_log)
        utf8 = Utf8(self._forget_message)
        # Incoming frames pass the extensions from last to first: text is checked once it is unpacked.
        self._core.extensions = [utf8, *extensions]
        self._messages = Messages(utf8.texts, chunks)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._end: End | None = None
        self._closed = False
        self._ending = False
        self._fault = ""
        # Writing
        self._out: deque[Bytes] = deque()
        self._out_bytes = 0
        self._made_bytes = 0
        self._left_bytes = 0
        self._corked = False
        self._batched = False
        self._corked_bytes = 0
        self._blocked = False
        self._waiters: set[asyncio.Future[None]] = set()
        # Reading
        self._slice = UNPACKING if extensions else SLICE
        self._backlog = bytearray()
        self._slicing = False
        self._held = False
        self._reading = True
        self._heard = True
        self._eof_received = False
        self._stream_ended = False
        self._lost_transport = False
        self._pings: dict[bytes, asyncio.Future[None]] = {}
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

    def send(self, payload: Bytes, opcode: Literal[0, 1, 2], fin: bool = True) -> None:
        """Send a message, or a piece of one; without effect once the closing handshake has begun.

        Args:
            payload: as it goes into the frame; text is UTF-8.
            opcode: 1 text, 2 binary, 0 for the pieces of a message after its first.
            fin: whether the message ends here.
        """
        core = self._core
        if core.state is not OPEN:
            return
        if opcode == 2:
            core.send_binary(payload, fin)
        elif opcode == 1:
            core.send_text(payload, fin)
        else:
            core.send_continuation(payload, fin)
        self._sent(len(payload))

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
        if self._core.state is OPEN:
            self._closed = True
            self._core.send_close(code, reason)
            self._sent(0)
            self._start_timer(self._timeouts.close, self._give_up)

    def fail(self, code: int, fault: str) -> None:
        """Close with a code of RFC 6455 section 7.4.1 because of a fault; the end is reported at once."""
        if self._end is None:
            self._fault = fault
            self._core.fail(code, fault[:123])
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
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    async def ping(self, payload: bytes) -> None:
        """Send a ping with a payload not in use and wait for its pong, or for the end of the connection."""
        if self._core.state is OPEN:
            waiter = self._pings[payload] = self._loop.create_future()
            self._core.send_ping(payload)
            self._sent(len(payload))
            try:
                await waiter
            finally:
                self._pings.pop(payload, None)

    def hold(self, held: bool) -> None:
        """Stop or resume reading on the owner's behalf."""
        if self._end is not None:
            return
        self._held = held
        self._work_off()
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
        if self._end is not None:
            return
        if self._backlog:
            self._backlog += data
            self._work_off()
        elif len(data) <= self._slice:
            self._handle(data)
        else:
            self._handle_slices(memoryview(data))

    def _handle_slices(self, data: memoryview) -> None:
        """Handle a large read a slice at a time; keep the rest once the owner takes no more."""
        self._slicing = True
        try:
            for start in range(0, len(data), self._slice):
                if self._held:
                    self._backlog += data[start:]
                    break
                self._handle(data[start : start + self._slice])
        finally:
            self._slicing = False
        if self._core.state is not OPEN or self._fault:
            self._finish_if_over()

    def _work_off(self) -> None:
        """Handle what is kept, a slice at a time, while the owner takes it."""
        while self._backlog and not self._held and not self._corked and self._end is None:
            piece = bytes(memoryview(self._backlog)[: self._slice])
            del self._backlog[: self._slice]
            self._handle(piece)

    def _handle(self, data: bytes | memoryview) -> None:
        core = self._core
        core.receive_data(data)  # type: ignore[arg-type]  # it appends to a bytearray, which takes any bytes
        take, received = self._messages.take, self._owner.message_received
        self._corked = True
        try:
            for frame in core.events_received():
                opcode = frame.opcode  # type: ignore[union-attr]  # there is no handshake here, only frames
                if opcode is TEXT or opcode is BINARY or opcode is CONT:
                    message = take(frame)  # type: ignore[arg-type]
                    if message is not None:
                        received(*message)
                elif opcode is PONG:
                    self._pong_received(bytes(frame.data))  # type: ignore[union-attr]
        finally:
            self._corked = False
            self._corked_bytes = 0
        self._flush()
        if core.state is not OPEN or self._fault:
            self._finish_if_over()

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
        self._out.clear()
        self._out_bytes = 0
        self._wake()
        self._end_of_stream()
        self._lost()

    def _end_of_stream(self) -> None:
        self._stream_ended = True
        if self._end is None:
            self._finish()
        else:
            self._core.receive_eof()

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
        writes = self._core.data_to_send()
        if not writes:
            return
        data = writes[0] if len(writes) == 1 else b"".join(writes)
        self._made_bytes += len(data)
        if data and not self._transport.is_closing():
            if not self._out and not self._blocked and len(data) <= PIECE:
                self._transport.write(data)
            else:
                self._out.append(data)
                self._out_bytes += len(data)
                self._write()
        if self._blocked:
            self._check_full()
        elif self._core.eof_sent:
            self._half_close()

    def _write(self) -> None:
        out = self._out
        while out and not self._blocked and not self._transport.is_closing():
            piece = out.popleft()
            if len(piece) > PIECE:
                view = memoryview(piece)
                out.appendleft(view[PIECE:])
                piece = view[:PIECE]
            self._out_bytes -= len(piece)
            self._transport.write(piece)
        if not out and not self._blocked and self._core.eof_sent:
            self._half_close()

    def _half_close(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if transport.can_write_eof() and not self._eof_received:
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
        reading = not (self._held or stalled)
        if reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _finish_if_over(self) -> None:
        if self._core.close_rcvd is not None or self._core.parser_exc is not None:
            self._backlog.clear()  # Nothing counts after that.
            self._finish()
        elif self._fault:
            self._finish()

    def _finish(self) -> None:
        """Report the end, once, after all that arrived before it.

        What the owner has no room for yet waits here, packed as it came, and the end behind it.
        """
        if self._end is not None or self._corked or self._slicing:
            return  # More of what arrived is on its way to the owner.
        self._ending = True
        self._work_off()
        if self._end is not None:
            return
        if self._backlog:
            self._owner.connection_ending()
            return
        if self._stream_ended:
            self._core.receive_eof()
        self._end = self._make_end()
        self._start_timer(None if self._lost_transport else self._timeouts.close, self._give_up)
        self._wake()
        if not self._reading and not self._transport.is_closing():
            # What still comes is thrown away, but the peer's end of stream must be seen.
            self._reading = True
            self._transport.resume_reading()
        self._owner.connection_ended(self._end)

    def _make_end(self) -> End:
        core = self._core
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
        sent = self._core.close_sent
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

    def _forget_message(self) -> None:
        # A close frame may come amid a message (RFC 6455 section 5.4); to the core that is a fault.
        self._core.current_size = None

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
        if self._core.state is not OPEN:
            return
        self._heard = False
        self._core.send_ping(os.urandom(4))
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
        if self._held:
            # The peer's close may wait to be read; that the program is slow is not the peer's fault.
            self._start_timer(self._timeouts.close, self._give_up)
        else:
            self.abort(f"the peer did not finish closing within {self._timeouts.close} s")


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
