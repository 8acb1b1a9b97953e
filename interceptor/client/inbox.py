"""Waiting for what a WebSocket does: its messages, its opening, its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Generic, TypeVar

from .link import Link
from .target import MessageEvent

__all__ = ["Inbox", "Later"]

T = TypeVar("T")


class Later(Generic[T]):
    """Something to await, or not: the work begins when it is awaited."""

    def __init__(self, wait: Callable[[], Coroutine[object, object, T]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[object, object, T]:
        return self._wait().__await__()


class Inbox:
    """Messages that wait for `async for`; what waits keeps the link from reading too far.

    Attributes:
        changed: set while there is something to take, or nothing will come any more.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._events: deque[MessageEvent] = deque()
        self.changed = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._events)

    def put(self, event: MessageEvent) -> None:
        """Keep a message."""
        self._events.append(event)
        self._link.keep(event.data)
        self.changed.set()

    def take(self) -> MessageEvent:
        """Return the next message; only where there is one."""
        event = self._events.popleft()
        self._link.release(event.data)
        if not self._events:
            self.changed.clear()
        return event
