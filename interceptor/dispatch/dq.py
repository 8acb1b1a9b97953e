"""The program's thread waits for events itself: `dq()`, and a `stop()` that callbacks still come after."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from sys import getsizeof

from .. import log
from ..events import Event, HTTPRequest, WebSocketReceive
from ..exceptions import InvalidState
from .crossing import Crossing
from .thread import PATIENCE_SLICE

__all__ = ["EVENT_COST", "Queue", "cost"]

EVENT_COST = 512
"""Bytes that an event is counted for besides its data, so that empty messages are not free."""


def cost(event: Event) -> int:
    """Return how many bytes an event is counted for while it waits."""
    if isinstance(event, WebSocketReceive):
        return EVENT_COST + getsizeof(event.data)
    if isinstance(event, HTTPRequest):
        return EVENT_COST + getsizeof(event.body)
    return EVENT_COST


STEP = 0.01
"""Seconds between two looks whether another thread's stop is over."""

LOOK_AGAIN = 0.1
"""Seconds after which a stop looks for jobs without a wake-up: what ends the program, a signal's handler say,
may have raised just as this thread made one or took it."""


class Queue:
    """Wake-ups for a thread of the program that runs the jobs of a crossing itself.

    Args:
        crossing: has the jobs; None makes one that gives out events without a callback.
        room: bytes of events to keep that come early.

    Attributes:
        end_told: whether somebody was returned None because nothing comes any more.
    """

    def __init__(self, crossing: Crossing | None = None, room: int = 0) -> None:
        own = Crossing(self._post, _never, gives_out=True)
        self.crossing = own if crossing is None else crossing
        self._room = room
        self._early: deque[Event] = deque()
        self._dropped = 0
        self._wakeups: SimpleQueue[object] = SimpleQueue()
        self._choosing = threading.RLock()
        self._taker = 0
        self._stopper = 0
        self._slice = PATIENCE_SLICE
        self.ended = False
        self.end_told = False
        if crossing is not None:
            crossing.divert(self._post)

    def put_early(self, event: Event) -> None:
        """Keep an event that came before the first `take`, or that nobody ever takes, if there is room."""
        self._room -= cost(event)
        if self._room < 0:
            self._dropped += 1
        else:
            self._early.append(event)
            self._wakeups.put(None)

    def take(self, timeout: float | None) -> Event | None:
        """Run jobs until one gives out an event, the time is over, or `end` was called.

        Args:
            timeout: seconds; what waits already is run even where they are 0. None waits as long as it takes.

        Raises:
            InvalidState: somebody is at it, here or on another thread.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        mine = False
        try:
            while not mine:
                with self._choosing:
                    if not self._taker:
                        # In one statement without a call: no signal's handler can raise in between.
                        self._taker, mine = threading.get_ident(), True
                if not (mine or self._stop_is_over(deadline)):
                    return None
            event = self._take_one(deadline)
            self.end_told = event is None and self.ended and not len(self.crossing) and not self._stopper
            return event
        finally:
            if mine:
                self._taker = 0

    def _stop_is_over(self, deadline: float) -> bool:
        """Wait a little for another thread that runs what a stop has left; whether there is time for more.

        Raises:
            InvalidState: it is somebody else who is at it.
        """
        if self._taker == threading.get_ident():
            raise InvalidState(
                "dq() inside of dq(): return from the callback, and dq() goes on with what comes next"
            )
        if self._taker and self._taker != self._stopper:
            raise InvalidState("another thread is in dq(); callbacks run in one thread at a time")
        time.sleep(STEP)
        return time.monotonic() < deadline

    def run_until_ended(self, timeout: float) -> None:
        """Run jobs until `end` is called, unless another thread does; drop events that are given out."""
        self._slice = LOOK_AGAIN
        self._stopper = threading.get_ident()
        try:
            with suppress(InvalidState):
                self._take_all(time.monotonic() + timeout)  # No loop here: see Crossing.run.
        finally:
            self._stopper = 0

    def _take_all(self, deadline: float) -> None:
        while self.take(deadline - time.monotonic()) is not None:
            """Nobody asks for it any more."""

    def end(self) -> None:
        """Return who waits, once nothing is left to run."""
        self.ended = True
        self._wakeups.put(None)

    def _take_one(self, deadline: float) -> Event | None:
        crossing = self.crossing
        fit = crossing.begin()
        event = crossing.given  # Of the last time, where an exception came out instead.
        if event is None:
            event = self._take(deadline)
        crossing.given = None
        if fit:
            crossing.amid = 0
        return event

    def _take(self, deadline: float) -> Event | None:
        crossing = self.crossing
        waiting = len(crossing)
        while True:
            if self._dropped:
                self._tell_dropped()
            if self._early:
                crossing.given = self._early[0]
                self._early.popleft()
                return crossing.given
            event = crossing.run(deadline, waiting)
            if event is not None:
                return event
            if not len(crossing) and self.ended:
                return None
            if not self._wait(deadline):
                return None
            waiting = 1

    def _tell_dropped(self) -> None:
        log.get_logger().warning(
            "events came before the first dq() and were dropped, as nobody seemed to wait for them; "
            "use host.in_thread(dq=True)",
            count=self._dropped,
        )
        self._dropped = 0

    def _wait(self, deadline: float) -> bool:
        """Wait until there is something to do; return whether there is."""
        while (patience := deadline - time.monotonic()) > 0:
            if len(self.crossing):
                return True
            try:
                self._wakeups.get(timeout=min(patience, self._slice))
            except Empty:
                continue
            finally:
                # Also where a signal's handler raises just now: no other wake-up would come.
                self.crossing.woken()
            return True
        return False

    def _post(self, pump: object) -> None:
        self._wakeups.put(pump)


def _never() -> None:
    """A SimpleQueue takes everything."""
