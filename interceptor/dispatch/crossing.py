"""Where callbacks leave the loop's thread for the program's own.

    loop's thread                           the program's thread
    enter(job) ──► jobs ─┬─► post(pump) ──► the GUI runs the pump: all that waits, in turn
                         └─► dq()       ──► the caller runs what waits until an event has no callback

However many jobs wait, one wake-up is under way. A job is one event of one socket.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from .. import log
from ..events import Event

__all__ = ["Crossing", "Job", "Post"]

Post = Callable[[Callable[[], None]], object]
"""Runs a function soon on the program's thread; callable from any thread; raises when that thread is gone."""

Job = Callable[[], Event | None]
"""Runs on the program's thread; returns an event that `dq()` is to return."""


class Call:
    """A function that the program's thread is to call for a task of the loop, which waits for its result."""

    __slots__ = ("_begun", "_crossing", "_function", "_loop", "_result", "future")

    def __init__(self, crossing: Crossing, function: Callable[[], object]) -> None:
        self._crossing = crossing
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._result: object = None
        self.future: asyncio.Future[object] = self._loop.create_future()

    def __call__(self) -> None:
        if self._crossing.discarding or self.future.cancelled():
            self._begun = True
        try:
            if not self._begun:
                self._begun = True
                self._result = self._function()
        finally:
            with suppress(RuntimeError):  # The loop has ended.
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        result, self._result = self._result, None  # See Lane._deliver.
        if not self.future.done():
            self.future.set_result(result)

    def recover(self) -> None:
        """Run once more if it had not begun, else have the task go on."""
        if self._begun:
            self._settle()
        else:
            self._crossing.enter(self)


SLICE = 0.01
"""Seconds after which the pump lets the GUI draw and listen before it goes on."""


class Crossing:
    """What waits for the program's thread.

    Args:
        post: runs a function soon on that thread.
        lost: called, on whichever thread, when `post` raised: nobody will run what waits.

    Attributes:
        gives_out: whether events without a callback cross too, for `dq()` to return.
        discarding: jobs are to leave their callbacks out: nobody can run them any more.
        thread: the thread that ran jobs last; 0 if there was none.
        amid: the thread that runs jobs, or that an exception took away from it; else 0.
        given: the event that `dq()` is about to return.
        recover: has the loop go on with what an exception took from this thread; tells whether it did.
    """

    def __init__(self, post: Post, lost: Callable[[], None], *, gives_out: bool = False) -> None:
        self.gives_out = gives_out
        self.discarding = False
        self.thread = 0
        self.amid = 0
        self.given: Event | None = None
        self.recover: Callable[[], bool] = lambda: True
        self._calls: set[Call] = set()
        self._post = post
        self._lost = lost
        self._jobs: deque[Job] = deque()
        self._posted = False
        self._pausing = False
        self._gone = False
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._jobs)

    # From the loop's thread.

    def enter(self, job: Job) -> None:
        """Have a job run on the program's thread, after those before it."""
        self._jobs.append(job)
        if not (self._posted or self._pausing):
            self._wake()

    async def call(self, function: Callable[..., object], *args: object) -> object:
        """Run a function on the program's thread and wait for its result; None where it is left out."""
        if self.discarding:
            return None
        job = Call(self, partial(function, *args))
        self._calls.add(job)
        self.enter(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self.withdraw(job)
            raise
        finally:
            self._calls.discard(job)

    def recover_calls(self) -> set[Job]:
        """Recover what was called, and is neither waiting nor done; return the jobs that waited before."""
        waiting = set(self._jobs)
        for job in self._calls - waiting:
            job.recover()
        return waiting

    def withdraw(self, job: Callable[[], object]) -> bool:
        """Take a job back, and tell whether it had not begun."""
        try:
            self._jobs.remove(job)  # type: ignore[arg-type]  # what `call` enters gives out nothing
        except ValueError:
            return False
        return True

    def is_there(self) -> bool:
        """Whether the program's thread takes calls: `post` is asked, also where a wake-up is under way.

        That one may be lost, with the loop that was to make it.
        """
        if not self.gives_out:
            gone, self._gone = self._gone, False
            self._wake(log_it=not gone)
            self.discarding = self.discarding and self._gone
        return not self._gone

    def discard(self) -> None:
        """Have everything that waits, and that comes, go through without its callbacks."""
        self.discarding = True
        self.run()

    # On the program's thread.

    @property
    def in_job(self) -> bool:
        """Whether the caller is inside of a job, that is of a callback."""
        return bool(getattr(self._local, "depth", 0))

    def run(self, until: float = math.inf, least: int = 1) -> Event | None:
        """Run jobs until one gives an event out, none is left, or the time is over.

        Args:
            until: on the clock of time.monotonic.
            least: so many jobs are run even where the time is over.
        """
        local = self._local
        local.depth = getattr(local, "depth", 0) + 1
        try:
            # The loop is in a method of its own: where a signal's handler raises just as a loop begins anew,
            # Python 3.13 leaves out a `finally` around it.
            return self._run(until, least)
        finally:
            local.depth -= 1

    def _run(self, until: float, least: int) -> Event | None:
        jobs = self._jobs
        while jobs:
            try:
                job = jobs.popleft()
            except IndexError:  # Another pump was faster.
                break
            event = job()
            least -= 1
            if event is not None or (time.monotonic() >= until and least <= 0):
                return event
        return None

    def pump(self) -> None:
        """Run what waits, for a while; the program's thread is made to call this."""
        self._posted = False
        if not self._pausing:
            self._run_slice()

    def begin(self) -> bool:
        """Be the thread that runs jobs, until `amid` is 0; return whether nothing is lost on this thread.

        An exception, of a signal's handler say, may have ended the last time between any two steps.
        """
        fit = True
        if self.amid:
            self._posted = False
            fit = self.recover()
        self.thread = self.amid = threading.get_ident()
        return fit

    def _run_slice(self) -> None:
        nested = self.in_job or self.amid not in (0, threading.get_ident())
        torn = True
        try:
            fit = not nested and self.begin()
            self.run(time.monotonic() + SLICE)
            if fit:
                self.amid = 0
            torn = False
        finally:
            if (self._jobs or torn) and not self._posted:
                # The rest comes after what the GUI has to do, whoever asks for the pump in between.
                self._pausing = True
                self._wake()

    def _resume(self) -> None:
        self._posted = self._pausing = False
        self._run_slice()

    def woken(self) -> None:
        """Learn that the wake-up has come; whoever says so runs what waits."""
        self._posted = False

    def divert(self, post: Post) -> None:
        """Wake by another `post` from now on: the thread that the old one reached waits for something."""
        self._post = post
        # What is gone is a GUI's loop; whoever diverts it is its thread.
        self._pausing = self._gone = self.discarding = False
        self._wake()

    def _wake(self, *, log_it: bool = True) -> None:
        # Before `post`, which may run the pump at once.
        self._posted = True
        try:
            self._post(self._resume if self._pausing else self.pump)
        except Exception as exc:
            self._posted = self._pausing = False
            self._gone = self.discarding = True
            if log_it:
                log.get_logger().error(
                    "post raised, so the program's thread is taken to be gone: "
                    "upgrades get 503, and sockets are closed",
                    exc_info=exc,
                )
            self._lost()
