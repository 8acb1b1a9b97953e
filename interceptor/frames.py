"""Bytes to messages and back, for one side of one WebSocket; no transport, no clock.

websockets' sans-I/O core does the frames, but for one kind: on the server's side a *whole* message is read
and written here. That is a frame with FIN and without a fault in its head: a few bytes before a payload, most
of what ever comes, and so at a third of the cost. Every other frame goes to the core byte for byte, so that
nothing but the core judges fragments, control frames and what no frame may be.
"""

from __future__ import annotations

import logging
import sys
import zlib
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Literal

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol as Core
from websockets.protocol import Side, State

from .messages import Inflate, Messages, Utf8

try:
    from websockets.speedups import apply_mask
except ImportError:  # Built without a compiler.
    from websockets.utils import apply_mask

__all__ = ["Deliver", "Frames", "Shared"]

Deliver = Callable[[str | bytes, bool, Literal[1, 2]], None]
"""Takes a message, or a piece of one: data, FIN, and 1 text or 2 binary."""

OPEN = State.OPEN
CONT, TEXT, BINARY, PONG = Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.PONG

WHOLE_TEXT, WHOLE_BINARY = 0x81, 0x82
PACKED_TEXT, PACKED_BINARY = 0xC1, 0xC2
"""First byte of a frame that is a whole message, as it is or compressed (RFC 6455, 5.2; RFC 7692, 6)."""

OPCODES = frozenset(Opcode)
PLAIN = frozenset((WHOLE_TEXT, WHOLE_BINARY))
PACKED = frozenset((PACKED_TEXT, PACKED_BINARY))

LONGEST_HEAD = 14
"""Bytes of a head with a length of 64 bits and a mask."""

LARGE = 4096
"""Bytes above which a view is cheaper than a copy."""

SLICE = 16 * 1024
"""Bytes after which it is asked whether that is enough for now. The core gets no more at once: compressed,
they may become a thousand times as many."""

ANY = sys.maxsize // 2
"""More bytes than any message has; zlib takes no limit that is much larger."""

SHORT_HEADS = {first: [bytes((first, length)) for length in range(126)] for first in PLAIN | PACKED}
_head_16 = Struct("!BBH").pack
_head_64 = Struct("!BBQ").pack

# The core names frames with their payloads at debug level only, and nobody's logging is set up for it.
_core_log = logging.getLogger("interceptor.core")


class Shared:
    """A message for many sockets: made into a frame, and compressed, once for all that agreed to the same.

    Compressed for itself it refers to nothing that was sent before, so that it fits into any connection's
    stream (RFC 7692 section 7.2.1).

    Attributes:
        payload: as it goes into the frame; text is UTF-8.
    """

    __slots__ = ("_frames", "_opcode", "payload")

    def __init__(self, payload: bytes, opcode: Literal[1, 2]) -> None:
        self.payload = payload
        self._opcode = opcode
        self._frames: dict[int, bytes] = {}

    def frame(self, deflate: PerMessageDeflate | None) -> bytes:
        """Return the frame for a connection with this compression."""
        bits = 0 if deflate is None else deflate.local_max_window_bits
        made = self._frames.get(bits)
        if made is None:
            fresh = deflate and PerMessageDeflate(True, True, bits, bits, deflate.compress_settings)
            made = self._frames[bits] = b"".join(_whole_frame(self.payload, self._opcode, fresh))
        return made


class Frames:
    """What one end reads and writes.

    Args:
        extensions: as the handshake agreed.
        limit: bytes of a message, unpacked.
        chunks: give each data frame as it comes instead of whole messages.
        client: whether this end is the client.
        deliver: takes what comes, in order, while `receive` runs.
        pong: takes the payload of each pong.
        enough: asked in a large read now and then; True has the rest kept.

    Attributes:
        core: the core; for what it knows of the closing handshake.
        is_open: whether data may be sent: no close frame has come or gone, and nothing has failed.
        held: set, also within `deliver`, to have what follows kept.
    """

    __slots__ = (
        "_after",
        "_body",
        "_client",
        "_come",
        "_deflate",
        "_deliver",
        "_enough",
        "_extra",
        "_failed",
        "_fragmented",
        "_head",
        "_inflate",
        "_kept",
        "_limit",
        "_messages",
        "_missing",
        "_owed",
        "_pong",
        "_stale",
        "_start",
        "_wanted",
        "_whole",
        "_within",
        "_writes",
        "core",
        "held",
        "is_open",
    )

    def __init__(
        self,
        extensions: Sequence[Extension],
        limit: int,
        *,
        chunks: bool,
        client: bool,
        deliver: Deliver,
        pong: Callable[[bytes], None],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._deflate = next((each for each in extensions if isinstance(each, PerMessageDeflate)), None)
        limit = min(limit, ANY)
        # What cannot be made smaller is more once it is packed.
        self._extra = extra = 0 if self._deflate is None else limit // 64 + 64
        self._inflate = None if self._deflate is None else Inflate(self._deflate, extra)
        self.core = Core(Side.CLIENT if client else Side.SERVER, max_size=limit + extra, logger=_core_log)
        utf8 = Utf8(self._forget_message)
        # Incoming frames pass the extensions from last to first: text is checked once it is unpacked.
        self.core.extensions = [utf8] if self._inflate is None else [utf8, self._inflate]
        self._messages = Messages(utf8.texts, chunks)
        self._limit = limit
        self._deliver = deliver
        self._pong = pong
        self._enough = enough
        self._client = client
        self._stale = False
        self._failed = False
        self._whole = PLAIN | PACKED if self._deflate is not None else PLAIN
        self._writes: list[bytes] = []
        # Of what goes: whether a message in pieces is under way, and what waits for its last piece.
        self._within = False
        self._after = bytearray()
        self.is_open = True
        self.held = False
        # Of what came: what is kept, from which place on; how many bytes must be added to it before a look is
        # of use; how many are to come of a frame that the core has begun; whether a message in fragments is
        # under way.
        self._kept = b""
        self._start = 0
        self._wanted = 0
        self._owed = 0
        self._fragmented = False
        # Of a whole message that is not complete yet: its head, its payload, unmasked, how much of that has
        # come, and how much is missing.
        self._head = b""
        self._body: list[bytes | bytearray] = []
        self._come = 0
        self._missing = 0

    # Out.

    def send(self, payload: bytes, opcode: Literal[0, 1, 2], fin: bool) -> None:
        """Make a data frame; the core must be open."""
        if self._stale and self._deflate is not None:
            # A shared message is in the peer's window and not in ours: what follows may refer to neither.
            self._deflate.encoder.flush(zlib.Z_FULL_FLUSH)
            self._stale = False
        if opcode and fin and not self._client:
            self._writes += _whole_frame(payload, opcode, self._deflate)
            return
        if opcode == 2:
            self.core.send_binary(payload, fin)
        elif opcode == 1:
            self.core.send_text(payload, fin)
        else:
            self.core.send_continuation(payload, fin)
        self._pull()
        self._within = not fin
        if fin and self._after:
            self._writes.append(bytes(self._after))
            self._stale = self._refers_back()
            self._after = bytearray()

    def share(self, message: Shared) -> bytes:
        """Return the frame of a message that goes to many; it is to be written next, or to be added.

        The core must be open, on the server's side. Empty where the frame has to wait here: nothing may come
        between the pieces of a message.
        """
        frame = message.frame(self._deflate)
        if self._within:
            self._after += frame  # In one place: an object for each would be more than a short message.
            return b""
        if self._deflate is not None:
            self._stale = self._refers_back()
        return frame

    def add(self, frame: bytes) -> None:
        """Have a frame written after those that were made so far."""
        self._writes.append(frame)

    def _refers_back(self) -> bool:
        """Whether what is compressed refers to what was sent before."""
        return self._deflate is not None and not self._deflate.local_no_context_takeover

    @property
    def waiting_bytes(self) -> int:
        """Bytes of frames that wait for the last piece of a message."""
        return len(self._after)

    def ping(self, payload: bytes) -> None:
        """Make a ping."""
        self.core.send_ping(payload)
        self._pull()

    def close(self, code: int | None, reason: str) -> None:
        """Begin the closing handshake; the core must be open."""
        self.core.send_close(code, reason)
        self._pull()

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7)."""
        self._failed = True
        self.core.fail(code, reason)
        self._pull()

    def take_writes(self) -> list[bytes]:
        """Return what is to be written, in order; an empty piece is the end of the stream."""
        writes, self._writes = self._writes, []
        return writes

    def _pull(self) -> None:
        # After each call of the core, so that its frames and those made here leave in the order of the calls.
        self._writes += self.core.data_to_send()
        self.is_open = self.core.state is OPEN

    # In.

    @property
    def waiting(self) -> bool:
        """Whether whole frames may be kept because of `held`."""
        return bool(self._kept) and self._wanted <= 0

    def drop(self) -> None:
        """Forget what is kept."""
        self._kept = b""

    def forget(self) -> None:
        """Keep nothing of what came: nothing more is delivered, and the peer may take its time to leave."""
        self._kept = b""
        self._body = []
        self._messages.forget()
        self.core.parser_exc = None  # It knows the parser, and all that was being read, by its traceback.

    def let_go(self) -> None:
        """Leave no circle: nothing comes or goes any more.

        The core and its parser know each other, and until the garbage collector came by, would keep what
        permessage-deflate has.
        """
        self.forget()
        self._after = bytearray()
        self.core.extensions = []
        self.core.parser.close()
        self._deliver = self._pong = _nothing
        self._enough = bool

    def _forget_message(self) -> None:
        # A close frame may come amid a message (RFC 6455 section 5.4); to the core that is a fault.
        self.core.current_size = None

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        self.core.receive_eof()
        self._pull()

    def receive(self, data: bytes = b"") -> None:
        """Deliver what is complete with `data`, and with what was kept, until `held` is set."""
        start = 0
        if self._kept:
            self._wanted -= len(data)
            data, start, self._kept = self._join(data), 0 if data else self._start, b""
            if self._wanted > 0:
                self._kept, self._start = data, start
                return
        size, turn = len(data), start + SLICE
        while start < size:
            if self.held or (start >= turn and self._enough()):
                start = self._keep(data, start, 0)
            elif self._missing:
                start = self._receive_body(data, start)
            elif self._client or (not self.is_open and self._is_over()):
                start = self._to_core(data, start, min(start + SLICE, size))
            elif self._owed:
                end = min(start + self._owed, size)
                self._owed -= end - start
                start = self._to_core(data, start, end)
            else:
                after = start if self._fragmented else self._receive_whole(data, start)
                start = after if after > start else self._receive_other(data, start)

    def _is_over(self) -> bool:
        """Whether nothing counts any more that comes: the peer has closed, or the connection failed."""
        core = self.core
        return self._failed or core.close_rcvd is not None or core.parser_exc is not None

    def _join(self, data: bytes) -> bytes:
        return self._kept[self._start :] + data if data else self._kept

    def _keep(self, data: bytes, start: int, wanted: int) -> int:
        # Not a copy of the rest: where each message holds, there would be one for each.
        self._kept, self._start, self._wanted = data, start, wanted
        return len(data)

    def _receive_other(self, data: bytes, start: int) -> int:
        """Have the core take a frame that is no whole message, or keep what is incomplete."""
        size = len(data)
        if size - start < 2:
            return self._keep(data, start, 1)
        first, length = data[start], data[start + 1] - 0x80
        if length < 0 or first & 0x0F not in OPCODES:
            return self._to_core(data, start, size)  # Not masked, or of no kind: there is nothing after it.
        head = 2 if length < 126 else 4 if length == 126 else 10
        if size - start < head:
            return self._keep(data, start, start + head - size)
        if length > 125:
            length = int.from_bytes(data[start + 2 : start + head])
        head += 4
        end = start + head + length
        most = self._limit + self._extra if first in PACKED else self._limit
        if first not in self._whole or self._fragmented or length > most:
            self._owed = max(0, end - size)
            return self._to_core(data, start, min(end, size))
        if size - start < head:
            return self._keep(data, start, start + head - size)
        self._head = data[start : start + head]
        self._come, self._missing = 0, length
        return self._receive_body(data, start + head)

    def _receive_whole(self, data: bytes, start: int) -> int:
        """Deliver the whole messages that data has from `start` on; return where the rest begins."""
        size, limit, whole = len(data), self._limit, self._whole
        stop = min(size - 5, start + SLICE)
        while start < stop:
            first, length = data[start], data[start + 1] - 0x80
            if first not in whole or length < 0:
                break
            body = start + 6
            if length > 125:
                body = start + (8 if length == 126 else LONGEST_HEAD)
                length = int.from_bytes(data[start + 2 : body - 4])
            end = body + length
            if end > size or length > limit:
                break
            payload = data[body:end] if length < LARGE else memoryview(data)[body:end]
            self._deliver_whole(first, apply_mask(payload, data[body - 4 : body]))
            start = end
            if self.held or not self.is_open:
                break
        return start

    def _deliver_whole(self, first: int, payload: bytes) -> None:
        """Deliver a message, or fail the connection with the code that the core has for its fault."""
        try:
            if first in PACKED:
                assert self._inflate is not None
                payload, first = self._inflate.unpack(payload, self._limit), first & ~0x40
            message = payload if first == WHOLE_BINARY else str(payload, "utf-8")
        except ProtocolError as exc:
            self._refuse(CloseCode.PROTOCOL_ERROR, str(exc), exc)
        except PayloadTooBig as exc:
            self._refuse(CloseCode.MESSAGE_TOO_BIG, str(exc), exc)
        except UnicodeDecodeError as exc:
            self._refuse(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}", exc)
        else:
            self._deliver(message, True, 2 if first == WHOLE_BINARY else 1)

    def _refuse(self, code: CloseCode, reason: str, exc: Exception) -> None:
        self.fail(code, reason)
        self.core.parser_exc = exc

    def _receive_body(self, data: bytes, start: int) -> int:
        """Take a piece of the whole message that is under way; deliver it once it is complete."""
        end = min(start + self._missing, len(data))
        self._add(apply_mask(memoryview(data)[start:end], self._mask_now()))
        self._come += end - start
        self._missing -= end - start
        if not self._missing:
            body, self._body = self._body, []
            self._deliver_whole(self._head[0], b"".join(body))
        return end

    def _add(self, piece: bytes) -> None:
        """Add a piece to the payload; small ones in one place, for it may come byte by byte."""
        last = self._body[-1] if self._body else b""
        if len(piece) >= LARGE:
            self._body.append(piece)
        elif isinstance(last, bytearray) and len(last) < SLICE:
            last += piece
        else:
            self._body.append(bytearray(piece))

    def _mask_now(self) -> bytes:
        """Return the mask as the next byte of the payload has it."""
        turn = self._come % 4
        return self._head[turn - 4 :] + self._head[-4 : turn - 4] if turn else self._head[-4:]

    def _to_core(self, data: bytes, start: int, end: int) -> int:
        """Have the core take a piece of data, and deliver what comes of it; return where the rest begins."""
        self.core.receive_data(data[start:end])
        self._pull()
        for frame in self.core.events_received():
            opcode = frame.opcode  # type: ignore[union-attr]  # there is no handshake here, only frames
            if opcode is TEXT or opcode is BINARY or opcode is CONT:
                self._fragmented = not frame.fin  # type: ignore[union-attr]
                message = self._messages.take(frame)  # type: ignore[arg-type]
                if message is not None:
                    self._deliver(*message)
            elif opcode is PONG:
                self._pong(bytes(frame.data))  # type: ignore[union-attr]
        return end


def _nothing(*args: object) -> None:
    """Nobody is to be told any more."""


def _whole_frame(
    payload: bytes, opcode: Literal[1, 2], deflate: PerMessageDeflate | None
) -> tuple[bytes, bytes]:
    """Return head and payload of the frame of a whole message, not masked."""
    first = WHOLE_TEXT if opcode == 1 else WHOLE_BINARY
    if deflate is not None:
        first |= 0x40
        payload = bytes(deflate.encode(Frame(TEXT if opcode == 1 else BINARY, payload)).data)
    length = len(payload)
    if length < 126:
        return SHORT_HEADS[first][length], payload
    return _head_16(first, 126, length) if length < 65536 else _head_64(first, 127, length), payload
