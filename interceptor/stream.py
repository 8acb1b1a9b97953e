"""The stream of `host.events()`: the events that no callback takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

from .events import AnyEvent, Event
from .exceptions import InvalidState

__all__ = ["EventStream", "Outbox", "Taker", "Then"]

Then = Callable[[object], None]
"""What follows an event: gets the first result that is not None, else an exception, else None."""


class Taker(Protocol):
    """Who has an event for the stream and waits until it is taken: the lane of a socket."""

    def taken(self, event: Event, then: Then | None) -> None:
        """Go on after the stream gave out an event."""


class Outbox:
    """The events that no callback takes, for `host.events()`; one of each lane at most."""

    def __init__(self) -> None:
        self._waiting: dict[Taker, tuple[Event, Then | None]] = {}
        self._streams = 0
        self._wakeups: set[asyncio.Future[None]] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to a loop from now on."""
        self._loop = loop

    @property
    def is_open(self) -> bool:
        """Whether there is a stream."""
        return bool(self._streams)

    def offer(self, lane: Taker, event: Event, then: Then | None) -> bool:
        """Keep an event of a lane until the stream takes it; False if there is no stream."""
        if not self._streams:
            return False
        self._waiting[lane] = (event, then)
        self._wake()
        return True

    def withdraw(self, lane: Taker) -> bool:
        """Take back what a lane offered; tell whether it was not taken."""
        return self._waiting.pop(lane, None) is not None

    def holds(self, lane: Taker) -> bool:
        """Whether the lane waits for the stream."""
        return lane in self._waiting

    def open(self) -> None:
        """Count a stream in."""
        self._streams += 1

    def close_stream(self) -> None:
        """Count a stream out; with the last one goes what nobody will take."""
        self._streams -= 1
        self._wake()
        if self._streams:
            return
        waiting, self._waiting = self._waiting, {}
        for lane, (event, then) in waiting.items() if not self._closed else ():
            lane.taken(event, then)

    def close(self) -> None:
        """End the streams once they are empty."""
        self._closed = True
        self._wake()

    async def take(self, stream: EventStream) -> Event | None:
        """Return the next event, or None after `close`, and for a stream that is closed.

        Raises:
            InvalidState: this is another loop than the host's.
        """
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise InvalidState(
                "events() belongs to the host's event loop, and this is another; use dq() on other threads"
            )
        while not self._waiting or stream.closed:
            if self._closed or stream.closed:
                return None
            await self._wakeup()
        lane = next(iter(self._waiting))
        event, then = self._waiting.pop(lane)
        lane.taken(event, then)
        self._wake()
        return event

    async def _wakeup(self) -> None:
        wakeup = asyncio.get_running_loop().create_future()
        self._wakeups.add(wakeup)
        try:
            await wakeup
        finally:
            self._wakeups.discard(wakeup)

    def _wake(self) -> None:
        for wakeup in self._wakeups:
            if not wakeup.done():
                wakeup.set_result(None)


class EventStream(AsyncIterator[AnyEvent]):
    """The events that no callback takes, as they come; ends when the host has stopped.

    It takes part from the moment it is made. Keep it to go on where you stopped: when the last stream of
    a host is let go, events that wait for it are dropped.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.closed = False
        outbox.open()

    async def __anext__(self) -> AnyEvent:
        event = await self._outbox.take(self)
        if event is None:
            raise StopAsyncIteration
        return cast(AnyEvent, event)

    async def aclose(self) -> None:
        """Take part no longer; whoever waits here is told."""
        self._close()

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._outbox.close_stream()
