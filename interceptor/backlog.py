"""Bytes that wait for a transport which takes no more for now."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

__all__ = ["PIECE", "Backlog", "fit_writes"]

Bytes = bytes | bytearray | memoryview

LARGE = 4096
"""Bytes from which on a write waits as it is, and is not copied."""

PIECE = 256 * 1024
"""Most bytes handed to the transport at once: what it cannot send it copies, again and again."""


class Backlog:
    """Bytes that wait, in order; they go in as they were made and come out in pieces of at most PIECE.

    Attributes:
        size: bytes that wait.
    """

    __slots__ = ("_writes", "size")

    def __init__(self) -> None:
        self._writes: deque[Bytes] = deque()
        self.size = 0

    def add(self, writes: Iterable[bytes], size: int) -> None:
        """Put these at the end; together they have this size."""
        for piece in writes:
            last = self._writes[-1] if self._writes else b""
            if len(piece) >= LARGE:
                self._writes.append(piece)
            elif isinstance(last, bytearray) and len(last) < PIECE:
                last += piece  # In one place: small ones by themselves would take many times their size.
            else:
                self._writes.append(bytearray(piece))
        self.size += size

    def take(self) -> Bytes:
        """Take the next PIECE bytes, or all that there are; a large payload is not copied for it."""
        pieces: list[Bytes] = []
        room = PIECE
        while self._writes and room:
            piece = self._writes.popleft()
            if len(piece) > room:
                view = memoryview(piece)
                self._writes.appendleft(view[room:])
                piece = view[:room]
            room -= len(piece)
            pieces.append(piece)
        self.size -= PIECE - room
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def fit_writes(transport: asyncio.Transport) -> None:
    """Have the protocol told as soon as anything waits in a transport that does not join what waits.

    From Python 3.12 on asyncio's keeps each write by itself and counts them all at every next one: a thousand
    small ones would take ten times their size, and time by the square.
    """
    if hasattr(transport, "max_size"):
        transport.set_write_buffer_limits(0)
