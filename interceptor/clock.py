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
        self._line.waiting.pop(self, None)

    def ring(self) -> None:
        """Call it, unless it was cancelled since its time came."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Line:
    """All timers of one delay.

    Attributes:
        waiting: in the order of their ends.
    """

    __slots__ = ("_armed", "_delay", "waiting")

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._armed = False
        self.waiting: dict[Timer, None] = {}

    def add(self, callback: Callable[[], object]) -> Timer:
        """Begin to wait."""
        loop = asyncio.get_running_loop()
        timer = Timer(self, loop.time() + self._delay, callback)
        self.waiting[timer] = None
        if not self._armed:
            self._arm(loop, timer)
        return timer

    def _arm(self, loop: asyncio.AbstractEventLoop, first: Timer) -> None:
        self._armed = True
        loop.call_at(first.when, self._ring)

    def _ring(self) -> None:
        """Have those called whose time has come; wait for the next."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._armed = False
        while self.waiting:
            first = next(iter(self.waiting))
            if first.when > now:
                self._arm(loop, first)
                return
            del self.waiting[first]
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
