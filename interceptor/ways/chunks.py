"""The framing of a chunked body, read more strictly than h11 does: where two read it apart, requests hide."""

from __future__ import annotations

import re

__all__ = ["ChunkedBody"]

LINE = re.compile(rb"[^\r\n\x00]*\r\n")
SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t -~\x80-\xff]*)?")
TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
LONGEST, MOST = 4096, 100
"""Bytes of a line, and how many trailers."""


class ChunkedBody:
    """Reads along a body of RFC 9112 section 7.1.

    Attributes:
        over: whether its end was seen.
    """

    def __init__(self) -> None:
        self.over = False
        self._line = bytearray()
        self._left = 0
        self._take = self._size
        self._trailers = 0

    def feed(self, data: bytes) -> None:
        """Take bytes of the body.

        Raises:
            ValueError: they are no such body, or come after its end.
        """
        at = 0
        while at < len(data):
            if self.over:
                raise ValueError("bytes after the end")
            at = self._skip(data, at) if self._left else self._collect(data, at)

    def _skip(self, data: bytes, at: int) -> int:
        step = min(self._left, len(data) - at)
        self._left -= step
        return at + step

    def _collect(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1 or len(data)
        self._line += data[at:end]
        if len(self._line) > LONGEST:
            raise ValueError("a line is too long")
        if self._line.endswith(b"\n"):
            line = bytes(self._line)
            self._line.clear()
            if not LINE.fullmatch(line):
                raise ValueError("a line does not end with CRLF, or holds a control character")
            self._take(line[:-2])
        return end

    def _size(self, line: bytes) -> None:
        match = SIZE.fullmatch(line)
        if match is None:
            raise ValueError("this is no size of a chunk")
        self._left = int(match[1], 16)
        self._take = self._end_of_chunk if self._left else self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        if line:
            raise ValueError("a chunk is longer than its size")
        self._take = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailers += 1
        if not line:
            self.over = True
        elif self._trailers > MOST or not TRAILER.fullmatch(line):
            raise ValueError("this is no trailer, or one too many")
