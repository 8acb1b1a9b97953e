"""Timers that wait for one of a few delays, and of which nearly all are cancelled.

Each connection has several: for its head, its answer, its keepalive, its end. asyncio puts every one into a
heap, with a handle of its own. Here all that wait equally long stand in one line, and the loop has one timer
for the first of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Clock", "Timer"]


class Timer:
    """Waits until its callback is called, or `cancel` is."""

    __slots__ = ("_callback", "_line", "when")

    def __init__(self, line: Line, when: float, callback: Callable[[], object]) -> None:
        self._line = line
        self.when = when
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Call nothing; without effect if it was called."""
        self._callback = None
        self._line.remove(self)

    def ring(self) -> None:
        """Call it, unless it was cancelled since its time came."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Line:
    """All timers of one delay, in the order of their ends."""

    __slots__ = ("_bell", "_delay", "_waiting")

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._bell: asyncio.TimerHandle | None = None
        self._waiting: dict[Timer, None] = {}

    def add(self, callback: Callable[[], object]) -> Timer:
        """Begin to wait."""
        loop = asyncio.get_running_loop()
        timer = Timer(self, loop.time() + self._delay, callback)
        self._waiting[timer] = None
        if self._bell is None:
            self._bell = loop.call_at(timer.when, self._ring)
        return timer

    def remove(self, timer: Timer) -> None:
        """Wait for it no more; where none is left, leave the loop nothing."""
        self._waiting.pop(timer, None)
        if not self._waiting and self._bell is not None:
            self._bell.cancel()
            self._bell = None

    def _ring(self) -> None:
        """Have those called whose time has come; wait for the next."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._bell = None
        while self._waiting:
            first = next(iter(self._waiting))
            if first.when > now:
                self._bell = loop.call_at(first.when, self._ring)
                return
            del self._waiting[first]
            loop.call_soon(first.ring)  # Apart: one that raises is nothing to the others.


class Clock:
    """Starts timers, on the loop that runs; one Clock serves one loop."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[float, Line] = {}

    def after(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call something once, so many seconds from now, unless it is cancelled."""
        line = self._lines.get(delay)
        if line is None:
            line = self._lines[delay] = Line(delay)
        return line.add(callback)
