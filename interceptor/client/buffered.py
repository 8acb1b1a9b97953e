"""bufferedAmount: application data that was sent and that the network has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque

from ..connection import Connection

__all__ = ["Buffered"]


class Buffered:
    """Counts the bytes of messages, not of frames, and not those that left.

    As the standard has it, what is sent in the current task of the loop counts as unsent until the task is
    over, and what was not taken when the connection ended counts for ever.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._queue: deque[tuple[int, int]] = deque()
        self._fresh = 0
        self._lost = 0

    def queued(self, connection: Connection, size: int) -> None:
        """Count a message that was just handed to the connection."""
        self._connection = connection
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self._next_task)
        self._queue.append((connection.made_bytes, size))
        self._fresh += 1

    def lost(self, size: int) -> None:
        """Count a message that will never be sent."""
        self._lost += size

    def __int__(self) -> int:
        self._settle()
        return self._lost + sum(self._left(end, size) for end, size in self._queue)

    def _next_task(self) -> None:
        self._fresh = 0
        self._settle()

    def _settle(self) -> None:
        if self._connection is None:
            return
        taken = self._connection.taken_bytes
        while len(self._queue) > self._fresh and self._queue[0][0] <= taken:
            self._queue.popleft()

    def _left(self, end: int, size: int) -> int:
        # Packed data leaves in other sizes than it came in; at least what is left of the frame is left.
        if self._fresh or self._connection is None:
            return size
        return min(size, end - self._connection.taken_bytes)
