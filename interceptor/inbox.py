"""The messages of one socket that wait for `receive()` or `async for`."""

from __future__ import annotations

import asyncio
from collections import deque

from .dispatch import Lane
from .events import WebSocketReceive

__all__ = ["Inbox"]


class Inbox:
    """Messages between a lane and whoever awaits them; what waits here counts as undelivered.

    Args:
        lane: of the socket. Its callbacks see each message first.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._messages: deque[WebSocketReceive] = deque()
        self._coming = 0
        self._over = False
        self._closed = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._messages)

    def put(self, event: WebSocketReceive) -> None:
        """Take a message by way of the lane."""
        self._coming += 1
        self._lane.put(event, lambda _: self._add(event))

    async def take(self) -> WebSocketReceive | None:
        """Return the next message, or None once the socket has ended and nothing is left."""
        while not self._messages:
            if self._over and not self._coming:
                return None
            await self._wait()
        event = self._messages.popleft()
        if not self._closed:
            self._lane.release(event)
        return event

    def end(self) -> None:
        """No message will be put after this."""
        self._over = True
        self._wake()

    def close(self) -> None:
        """Keep nothing more of what comes; what waits can be taken, and holds the socket no longer."""
        if not self._closed:
            self._closed = True
            for event in self._messages:
                self._lane.release(event)

    def clear(self) -> None:
        """Nobody will take any more: drop what waits, and what comes."""
        self.close()
        self.end()
        self._messages.clear()

    def _add(self, event: WebSocketReceive) -> None:
        self._coming -= 1
        if not self._closed:
            self._messages.append(event)
            self._lane.keep(event)
        self._wake()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
