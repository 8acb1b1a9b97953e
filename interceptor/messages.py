"""Frames to messages: UTF-8 checked across fragments, whole messages or chunks.

The core reads frames; `Utf8`, which the core calls with each of them as it calls any extension, decodes
text on the way, so that bad UTF-8 fails the connection at that very frame (RFC 6455 section 8.1).
`Messages` then puts the frames together.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import Literal

from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionName

__all__ = ["Messages", "Utf8"]

CONT, TEXT, BINARY, CLOSE = Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE

_incremental_decoder = codecs.getincrementaldecoder("utf-8")

Message = tuple[str | bytes, bool, Literal[1, 2]]
"""Data, FIN, and the opcode of its first frame."""


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
