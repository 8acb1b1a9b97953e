"""The callbacks of a host, the threads they run on, and what of theirs still runs."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Set
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from .. import log
from ..clock import Clock
from ..events import EVENTS, Event
from ..exceptions import InvalidArgument, InvalidState
from ..stream import Outbox
from .crossing import Crossing, Job, Post
from .dq import Queue
from .handlers import ALL, Callback, Handler, check_handler, event_name, is_async
from .thread import wait

__all__ = ["Busy", "Dispatcher"]

GRACE = 1.0
"""Seconds in which cancelled callbacks may clean up."""

TURN = 0.005
"""Seconds after which calls of other threads let the sockets have their turn."""

TRIES = 3
"""How often what will not end is cancelled: the first time it has GRACE, then a part of it each."""


class Busy(Protocol):
    """Who has callbacks under way: the lane of a socket."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Runs an async callback now; None where the program's own thread has the event."""

    def skip(self, why: str) -> None:
        """Give up the callback that runs now, if it can be given up."""

    def recover(self, waiting: Set[Job]) -> None:
        """Go on if an exception took an event from the program's thread, where nothing may run now."""


class Dispatcher:
    """The callbacks of a host, its threads, and its event stream.

    Args:
        post: runs a function soon on the program's thread, where plain callbacks are to run; None runs them
            on the loop's.

    Attributes:
        callbacks: of each event, in the order of registration.
        crossing: the way to the program's thread; None where plain callbacks run on the loop's.
        early: takes events that neither a callback nor a stream takes; None drops them.
        when_lost: called on the loop's thread when `post` raised.
        flushes: what to call after all calls of other threads that wait, so that each socket writes once for
            them all; None where nothing is kept back.
        changing: held while tables of the host are changed, which any thread may do.
        clock: has the timers of the sockets.
    """

    def __init__(self, post: Post | None = None) -> None:
        self._registered: list[tuple[str, Callback]] = []
        self.callbacks: dict[type[Event], tuple[Callback, ...]] = dict.fromkeys(EVENTS, ())
        self._plain: frozenset[type[Event]] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._woken = False
        self._busy: set[Busy] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._excused: set[asyncio.Task[None]] = set()
        self._nudge: asyncio.Future[None] | None = None
        self._queue: Queue | None = None
        self.hurried = False
        self.outbox = Outbox()
        self.crossing = None if post is None else Crossing(post, self._program_gone)
        if self.crossing is not None:
            self.crossing.recover = self._recover_lost
        self.early: Callable[[Event], None] | None = None
        self.when_lost: Callable[[], None] = lambda: None
        self.flushes: list[Callable[[], None]] | None = None
        self.changing = threading.RLock()
        self.clock = Clock()

    # Who is registered.

    def check(self, which: object) -> None:
        """Check that there is such an event.

        Raises:
            UnknownEvent: there is none.
        """
        event_name(which)

    def on(self, which: object, handler: Handler) -> None:
        """Register a handler for an event's name, number or class, or `"All"`.

        Raises:
            UnknownEvent: `which` is no event.
            InvalidHandler: the handler cannot be called with one event.
        """
        name = event_name(which)
        check_handler(handler, "event")
        with self.changing:
            self._registered.append((name, Callback(handler, is_async(handler))))
            self._sort()

    def off(self, which: object, handler: Handler | None = None) -> None:
        """Undo `on`: for one handler, or for all that were registered with `which`.

        Raises:
            UnknownEvent: `which` is no event.
            InvalidArgument: there was no such registration.
        """
        name = event_name(which)
        with self.changing:
            kept = [
                (key, callback)
                for key, callback in self._registered
                if key != name or (handler is not None and callback.handler != handler)
            ]
            if len(kept) == len(self._registered):
                what = "no handler" if handler is None else f"{handler!r} not"
                raise InvalidArgument(f"{what} registered for {name}")
            self._registered = kept
            self._sort()

    def _sort(self) -> None:
        for cls in EVENTS:
            wanted = (ALL, cls.__name__)
            self.callbacks[cls] = tuple(callback for key, callback in self._registered if key in wanted)
        self._plain = frozenset(
            cls for cls, found in self.callbacks.items() if found and not any(c.is_async for c in found)
        )

    def is_plain(self, cls: type[Event]) -> bool:
        """Whether an event has callbacks, and none of them is async."""
        return cls in self._plain

    # The loop and its thread.

    def bind(self) -> None:
        """Belong to the running loop and its thread from now on."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.outbox.bind(self._loop)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the host runs on.

        Raises:
            InvalidState: the host was not started.
        """
        if self._loop is None:
            raise InvalidState(
                "the host is not running; use `async with host:`, `await host.start()`, "
                "or `with host.in_thread():`"
            )
        return self._loop

    @property
    def is_here(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.get_ident() == self._thread

    def unbind(self) -> None:
        """The loop's thread has ended; another may get its number."""
        self._thread = 0

    def check_loop(self, what: str) -> None:
        """Check that the running loop is the host's.

        Raises:
            InvalidState: it is another.
        """
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise InvalidState(
                f"{what} belongs to the host's event loop, and this is another; use host.stop_soon()"
            )

    def check_here(self, what: str) -> None:
        """Check that the caller runs on the host's loop.

        Raises:
            InvalidState: it does not.
        """
        if threading.get_ident() != self._thread and self._loop is not None:
            raise InvalidState(
                f"{what} belongs to the thread of the host's event loop; "
                "from others use WebSocketSend, WebSocketClose, answer, broadcast and dq of the host"
            )

    def may_act(self) -> bool:
        """Whether the caller is on the loop's thread, and no call of another thread is to come before it.

        They are not run here: a thread that calls without end would keep the caller from its end.
        """
        return threading.get_ident() == self._thread and not self._calls

    def run(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop's thread: now if the caller may act, else soon and in order.

        Raises:
            InvalidState: the loop is gone.
        """
        if self.may_act():
            function(*args)
            return
        loop = self._loop or self.loop
        if loop.is_closed():
            raise InvalidState("the host's event loop has ended")
        self._calls.append((function, args))
        if not self._woken:
            try:
                # One wake-up for all calls until the loop takes them.
                self._woken = True
                loop.call_soon_threadsafe(self._take_turn)
            except RuntimeError as exc:
                raise InvalidState("the host's event loop has ended") from exc
            except BaseException:  # Of a signal's handler: the next call wakes the loop, or `drain`.
                self._woken = False
                raise

    def report(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop's thread like `run`; where the loop is gone nobody needs to know."""
        try:
            self.run(function, *args)
        except InvalidState:
            """It has ended, and with it whoever wanted to know."""

    def _run_calls(self, until: float = math.inf) -> None:
        # First: who calls from now on wakes the loop again.
        self._woken = False
        calls, self.flushes = self._calls, []
        try:
            self._run_each(until)  # No loop here: see Crossing.run.
        finally:
            flushes, self.flushes = self.flushes, None
            for flush in flushes:
                flush()
            if calls and not self._woken:
                self._woken = True
                self.loop.call_soon(self._take_turn)

    def _run_each(self, until: float) -> None:
        calls = self._calls
        # Not more than wait now: a thread that calls without end must not keep the loop from its sockets.
        for _ in range(len(calls)):
            function, args = calls.popleft()
            function(*args)
            if time.monotonic() > until:
                break

    def _take_turn(self) -> None:
        """Run what other threads asked for, for a while, so that no socket waits for all of it."""
        self._run_calls(time.monotonic() + TURN)

    # The program's own thread.

    def expect_dq(self, size: int, *, at_once: bool) -> None:
        """Keep events that nobody takes for `dq()`; before the loop runs.

        Args:
            size: bytes of them to keep before the first `dq()`.
            at_once: have callbacks too wait for `dq()`, from the start.
        """
        if self.crossing is not None:
            if at_once:
                raise InvalidState("this host has a post=, where its callbacks run; dq() would run none")
            return
        self._queue = self._make_queue(size)
        self.early = self._queue.put_early
        if at_once:
            self.crossing = self._queue.crossing

    def dq(self, timeout: float | None) -> Event | None:
        """Run callbacks here until an event has none, which is returned.

        Raises:
            InvalidState: this is no place to wait.
        """
        if self.is_here:
            raise InvalidState(
                "dq() would wait here, on the host's own thread, for what only this thread can bring; "
                "use `async for event in host.events()`, or call dq() from another thread"
            )
        if self.loop.is_closed() and (self._queue is None or not self._queue.ended):
            raise InvalidState("the host's event loop has ended")
        if self.crossing is not None and not self.crossing.gives_out:
            raise InvalidState("this host has a post=, where its callbacks run; dq() is for hosts without")
        return self._begin_dq().take(timeout)

    def _make_queue(self, room: int) -> Queue:
        queue = Queue(room=room)
        queue.crossing.recover = self._recover_lost
        return queue

    @property
    def end_told(self) -> bool:
        """Whether `dq()` has told the program of the end, or nobody asked it before that."""
        return self._queue is None or self._queue.end_told

    def _begin_dq(self) -> Queue:
        with self.changing:
            if self._queue is None:
                self._queue = self._make_queue(0)
            if self.crossing is None:
                self.crossing = self._queue.crossing
            return self._queue

    def check_may_wait(self) -> None:
        """Check that the caller is not inside of a callback, which a stop would wait for.

        Raises:
            InvalidState: it is.
        """
        if self.is_here or (self.crossing is not None and self.crossing.in_job):
            raise InvalidState(
                "stop() would wait here for the callback that calls it; use host.stop_soon() in callbacks"
            )

    def wait(self, stop: Callable[[], Future[None]], timeout: float) -> Future[None]:
        """Stop the host and wait; run callbacks meanwhile if this is the thread where they run, or none is.

        Returns:
            What `stop` returned; not done where the time was over first.
        """
        queue, crossing = self._queue, self.crossing
        if crossing is not None and queue is None and crossing.thread == threading.get_ident():
            queue = Queue(crossing)  # No GUI loop runs while its thread waits here.
        deadline = time.monotonic() + timeout
        if crossing is not None and crossing.thread == threading.get_ident():
            self._recover_lost()
        future = stop()
        if crossing is not None and queue is not None and _is_for_here(crossing):
            future.add_done_callback(lambda _: queue.end())
            queue.run_until_ended(timeout)
        wait(future, deadline - time.monotonic())
        return future

    def _recover_lost(self) -> bool:
        """Have the loop go on with sockets that wait for this thread, which is in none of their jobs now.

        What a signal's handler raises comes between any two steps. False if the loop has no time for it.
        """
        if self.is_here and self.flushes is not None:
            return False
        # No Future: an exception amid its lock would break that. Who empties `asked` has it.
        asked, told = deque([True]), SimpleQueue[None]()
        with suppress(InvalidState):
            try:
                self.run(self._recover, asked, told)  # After all that this thread did tell.
                with suppress(Empty):
                    told.get(timeout=GRACE)
                    return True
            finally:
                begun = not _pop(asked)
            if begun:
                told.get()
            return begun
        return True

    def _recover(self, asked: deque[bool], told: SimpleQueue[None]) -> None:
        if self.crossing is None or not _pop(asked):
            return
        try:
            waiting = self.crossing.recover_calls()
            for lane in list(self._busy):
                lane.recover(waiting)
        finally:
            told.put(None)

    def end(self) -> None:
        """The host has stopped: nothing comes any more."""
        self.outbox.close()
        if self._queue is not None:
            self._queue.end()

    def _program_gone(self) -> None:
        with suppress(RuntimeError, InvalidState):  # The loop is gone too.
            self.loop.call_soon_threadsafe(self._give_up_program)

    def _give_up_program(self) -> None:
        if self.crossing is not None:
            self.crossing.discard()
        self.when_lost()

    # Lanes at work.

    def started(self, lane: Busy) -> None:
        """Note that a lane waits for a task or for the program's thread."""
        self._busy.add(lane)

    def finished(self, lane: Busy) -> None:
        """Note that a lane waits no more."""
        self._busy.discard(lane)
        if self._nudge is not None and not self._nudge.done():
            self._nudge.set_result(None)

    def spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that `drain` sees to the end of."""
        task = asyncio.Task(coroutine, loop=self.loop)  # See Lane._deliver.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def excuse(self, task: asyncio.Task[None] | None) -> None:
        """Do not wait for a task in `drain`: it waits for `drain` itself."""
        if task is not None:
            self._excused.add(task)
            if self._nudge is not None and not self._nudge.done():
                self._nudge.set_result(None)

    async def drain(self, deadline: float) -> None:
        """Wait until all callbacks and spawned tasks are through; after the deadline cancel them.

        What is cancelled gets GRACE seconds to clean up before it is cancelled again. Callbacks that the
        program's thread has not come to by then are left out.
        """
        self._run_calls()
        await self._settle(deadline)
        self.hurried = True
        if self.crossing is not None and self._waited_for():
            self.crossing.discard()
        for tried in range(TRIES):
            if not self._waited_for():
                return
            self._cancel_all()
            await self._settle(self.loop.time() + (GRACE / TRIES if tried else GRACE))
        if left := self._waited_for():
            log.get_logger().error("callbacks will not end and are left running", count=len(left))

    async def _settle(self, deadline: float) -> None:
        """Wait until nothing runs any more, or until the deadline."""
        while (waited_for := self._waited_for()) and (patience := deadline - self.loop.time()) > 0:
            tasks = [task for task in waited_for if task is not None]
            self._nudge = self.loop.create_future()
            await asyncio.wait([self._nudge, *tasks], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            self._nudge.cancel()

    def _waited_for(self) -> list[asyncio.Task[None] | None]:
        """Return all that runs; None stands for what is on the program's thread."""
        lanes = [lane.task for lane in self._busy]
        return [task for task in (*lanes, *self._tasks) if task not in self._excused]

    def _cancel_all(self) -> None:
        for lane in self._busy:
            if lane.task not in self._excused:
                lane.skip("the host was stopped")
        for task in self._tasks - self._excused:
            task.cancel("the host was stopped")


def _is_for_here(crossing: Crossing) -> bool:
    """Whether the caller's thread is the one that runs callbacks, or that has ended or was never there."""
    alive = (thread.ident for thread in threading.enumerate())
    return crossing.thread == threading.get_ident() or crossing.thread not in alive


def _pop(asked: deque[bool]) -> bool:
    try:
        return asked.pop()
    except IndexError:
        return False
