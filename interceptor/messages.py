"""Frames to messages: unpacked, UTF-8 checked across fragments, whole messages or chunks.

The core reads frames; `Inflate` and `Utf8`, which the core calls with each of them as it calls any extension,
unpack data and decode text on the way, so that what is wrong fails the connection at that very frame
(RFC 7692 section 7.2.2, RFC 6455 section 8.1). `Messages` then puts the frames together.
"""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Callable
from typing import Literal

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionName

__all__ = ["Inflate", "Messages", "Utf8"]

CONT, TEXT, BINARY, CLOSE = Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE
DATA = (CONT, TEXT, BINARY)

TAIL = b"\0\0\xff\xff"
"""What the sender of a packed message leaves out at its end (RFC 7692 section 7.2.1)."""

FINALS = 16
"""Most blocks of a frame that end a stream; for each of them what follows is copied."""

_incremental_decoder = codecs.getincrementaldecoder("utf-8")

Message = tuple[str | bytes, bool, Literal[1, 2]]
"""Data, FIN, and the opcode of its first frame."""


class Inflate(Extension):
    """Unpacks what permessage-deflate has packed; packs as websockets does.

    websockets' own takes a block with BFINAL for the end of all that ever comes: each message after it would
    be empty. Here another stream begins behind it (RFC 7692 section 7.2.3.4).

    Args:
        deflate: as it was agreed to.
        extra: bytes by which what is packed may be more than what it is unpacked; the core counts with them.
    """

    name = PerMessageDeflate.name

    def __init__(self, deflate: PerMessageDeflate, extra: int) -> None:
        self._deflate = deflate
        self._extra = extra
        self._packed = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Unpack a data frame of a packed message; all other frames pass, if they are not too large.

        Raises:
            ProtocolError: it is no deflate data; the core then closes with 1002.
            PayloadTooBig: the message is over the limit; the core then closes with 1009.
        """
        opcode = frame.opcode
        if opcode not in DATA:
            return frame
        if opcode is CONT and frame.rsv1:
            raise ProtocolError("reserved bits must be 0")  # It stands at the first fragment only.
        assert max_size is not None
        limit = max_size - self._extra
        packed = self._packed if opcode is CONT else frame.rsv1
        self._packed = packed and not frame.fin
        if packed:
            data = self.unpack(frame.data, limit, first=opcode is not CONT, last=frame.fin)
            return Frame(opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)
        if len(frame.data) > limit:
            raise PayloadTooBig(len(frame.data), limit)
        return frame

    def encode(self, frame: Frame) -> Frame:
        """Pack a frame that goes out."""
        return self._deflate.encode(frame)

    def unpack(
        self, data: bytes | bytearray | memoryview, limit: int, *, first: bool = True, last: bool = True
    ) -> bytes:
        """Unpack the payload of a frame.

        Args:
            data: the payload.
            limit: most bytes that it may be.
            first: whether its message begins with it.
            last: whether its message ends with it.

        Raises:
            ProtocolError, PayloadTooBig: as in `decode`.
        """
        deflate = self._deflate
        if first and deflate.remote_no_context_takeover:
            deflate.decoder = self._new_decoder()
        try:
            # One byte more than the limit: what is just at it is then told from what is over it.
            made = deflate.decoder.decompress(b"".join((data, TAIL)) if last else data, max(limit, 0) + 1)
            if deflate.decoder.eof:
                made = self._go_on(made, limit, last)
        except zlib.error as exc:
            raise ProtocolError("decompression failed") from exc
        if len(made) > limit:
            raise PayloadTooBig(None, limit)
        if last and deflate.remote_no_context_takeover:
            del deflate.decoder  # Its memory is not needed between messages.
        return made

    def _go_on(self, made: bytes, limit: int, last: bool) -> bytes:
        """Unpack what follows a block that ends a stream; return all together."""
        deflate = self._deflate
        for _ in range(FINALS):
            if not deflate.decoder.eof or len(made) > limit:
                return made
            rest = deflate.decoder.unused_data
            deflate.decoder = self._new_decoder()
            if rest and not (last and rest == TAIL):  # That alone would be half a block.
                made += deflate.decoder.decompress(rest, limit - len(made) + 1)
        raise ProtocolError("a frame has too many blocks that end a stream")

    def _new_decoder(self) -> zlib._Decompress:
        return zlib.decompressobj(wbits=-self._deflate.remote_max_window_bits)


class Utf8(Extension):
    """Decodes the text that passes through the core; comes after permessage-deflate has unpacked it.

    Args:
        closing: called when a close frame comes, before the core sees it.

    Attributes:
        texts: what the text frames say, one str for each frame, in order.
    """

    name = ExtensionName("utf-8")

    def __init__(self, closing: Callable[[], None] = lambda: None) -> None:
        self.texts: list[str] = []  # No deque: an empty one takes 700 bytes, and there may be 10,000 sockets.
        self._closing = closing
        self._decoder: codecs.IncrementalDecoder | None = None
        self._fragmented = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decode a text frame into `texts`; all other frames pass.

        Raises:
            UnicodeDecodeError: the text is not UTF-8; the core then closes with 1007.
        """
        opcode = frame.opcode
        if opcode is TEXT:
            # A new message inside another one is left to the core, which refuses it.
            if frame.fin and not self._fragmented:
                self.texts.append(bytes(frame.data).decode())
            elif not self._fragmented:
                self._decoder = _incremental_decoder()
                self._continue(frame)
        elif opcode is CONT:
            if self._decoder is not None:
                self._continue(frame)
            elif frame.fin:
                self._fragmented = False
        elif opcode is BINARY and not frame.fin:
            self._fragmented = True
        elif opcode is CLOSE:
            self._closing()
        return frame

    def encode(self, frame: Frame) -> Frame:
        """Pass a frame that goes out."""
        return frame

    def _continue(self, frame: Frame) -> None:
        assert self._decoder is not None
        self.texts.append(self._decoder.decode(bytes(frame.data), frame.fin))
        if not frame.fin:
            _check_pending(self._decoder.getstate()[0])
        self._fragmented = not frame.fin
        if frame.fin:
            self._decoder = None


def _check_pending(pending: bytes) -> None:
    # Python's decoder keeps the first two bytes of a surrogate back, though nothing can make them right.
    if pending[:1] == b"\xed" and pending[1:2] >= b"\xa0":
        raise UnicodeDecodeError("utf-8", pending, 0, 1, "invalid continuation byte")


class Messages:
    """Puts data frames together.

    Args:
        texts: where `Utf8` leaves what text frames say.
        chunks: give each frame as it comes instead of whole messages.

    """

    def __init__(self, texts: list[str], chunks: bool) -> None:
        self._texts = texts
        self._chunks = chunks
        self._opcode: Literal[1, 2] = 1
        # Not lists: a message of a million one-byte frames would cost eight bytes for each of them.
        self._text: io.StringIO | None = None
        self._binary: bytearray | None = None

    def forget(self) -> None:
        """Keep nothing of a message that is not complete."""
        self._texts.clear()
        self._text = self._binary = None

    def take(self, frame: Frame) -> Message | None:
        """Take a data frame that the core let through; return what is complete with it."""
        opcode = frame.opcode
        if opcode is TEXT:
            self._opcode = 1
        elif opcode is BINARY:
            self._opcode = 2
        data: str | bytes = self._texts.pop(0) if self._opcode == 1 else bytes(frame.data)
        if self._chunks or (frame.fin and opcode is not CONT):
            return data, frame.fin, self._opcode
        return self._assemble(data, frame.fin)

    def _assemble(self, data: str | bytes, fin: bool) -> Message | None:
        if isinstance(data, str):
            self._text = self._text or io.StringIO()
            self._text.write(data)
            return self._text_whole() if fin else None
        self._binary = bytearray() if self._binary is None else self._binary
        self._binary += data
        return self._binary_whole() if fin else None

    def _text_whole(self) -> Message:
        assert self._text is not None
        whole, self._text = self._text.getvalue(), None
        return whole, True, 1

    def _binary_whole(self) -> Message:
        assert self._binary is not None
        whole, self._binary = bytes(self._binary), None
        return whole, True, 2
