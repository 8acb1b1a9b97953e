"""The events of one socket, in order, whoever takes them and on whichever thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Set
from typing import cast

from .. import log
from ..events import Event, WebSocketClose, WebSocketError, WebSocketUpgrade
from ..exceptions import InvalidHandler
from ..stream import Then
from .crossing import Crossing, Job
from .dispatcher import Dispatcher
from .dq import cost
from .handlers import Callback, Handler, first, handler_name

__all__ = ["Lane"]

LAST = (WebSocketClose, WebSocketError)
"""What may be the last event of a socket."""


class Crossed:
    """An event on its way over the program's thread: a job, and how far it has come.

    An exception may end it between any two steps, so what is done is noted in the step that does it.

    Attributes:
        kept: whether it counts as undelivered.
        begun: whether a callback was called, or there is none to call.
        size: bytes of events that the loop is to count as delivered.
    """

    __slots__ = ("begun", "event", "kept", "lane", "result", "size", "then")

    def __init__(self, lane: Lane, event: Event, then: Then | None, kept: bool) -> None:
        self.lane = lane
        self.event = event
        self.then = then
        self.kept = kept
        self.begun = False
        self.result: object = None
        self.size = 0

    def __call__(self) -> Event | None:
        return self.lane._cross(self)


NOTHING: deque[tuple[Event, Then | None]] = deque(maxlen=0)
"""Stands for a queue while nothing waits: an empty deque takes 700 bytes, and there may be 10,000 sockets."""


class Lane:
    """The events of one socket: one at a time, in order, whoever takes them.

    Args:
        dispatcher: has the callbacks.
        id: of the socket; for the log.
        url: of the socket; for the log.
        high: bytes of waiting events above which the socket is held.
        hold: called with True to stop what fills the lane, with False to go on.

    Attributes:
        claimed: events that go elsewhere than to the stream where no callback takes them.
        task: runs an async callback now, else None.
    """

    __slots__ = (
        "__weakref__",
        "_crossed_size",
        "_current",
        "_dispatcher",
        "_entered",
        "_held",
        "_high",
        "_hold",
        "_queue",
        "_skipped",
        "_undelivered",
        "_working",
        "claimed",
        "id",
        "task",
        "url",
    )

    def __init__(
        self, dispatcher: Dispatcher, id: str, url: str, high: int, hold: Callable[[bool], None]
    ) -> None:
        self._dispatcher = dispatcher
        self.id = id
        self.url = url
        self.claimed: frozenset[type[Event]] = frozenset()
        self._high = high
        self._hold = hold
        self._held = False
        self._crossed_size = 0
        self._queue = NOTHING
        self._undelivered = 0
        self._working = False
        self._skipped = 0
        self._current: Event | None = None
        self._entered: Crossed | None = None  # The last one of which the loop was not told the end.
        self.task: asyncio.Task[None] | None = None

    def put(self, event: Event, then: Then | None = None) -> None:
        """Deliver an event after those before it; at once where nothing is in the way.

        Args:
            event: what happened.
            then: called after the callbacks, with the first result that is not None; where there is none
                and a callback raised, with its exception. On the loop's thread; that of a WebSocketUpgrade
                on the thread where its callbacks ran.
        """
        if self._working:
            if self._queue is NOTHING:
                self._queue = deque()
            self._queue.append((event, then))
            self.keep(event)
            return
        self._working = True
        if self._deliver(event, then):
            self._working = False
            if self._queue:
                self._go_on()

    @property
    def current(self) -> Event | None:
        """The event that callbacks are being told of."""
        return self._current

    def keep(self, event: Event) -> None:
        """Count an event as undelivered until `release`."""
        self._undelivered += cost(event)
        if self._undelivered > self._high and not self._held:
            self._held = True
            self._hold(True)

    def release(self, event: Event) -> None:
        """Count an event as delivered."""
        self._release(cost(event))

    def _release(self, size: int) -> None:
        self._undelivered -= size
        if self._held and self._undelivered <= self._high // 2:
            self._held = False
            self._hold(False)

    def let_go(self) -> None:
        """Forget who filled the lane: nothing is put any more."""
        self._hold = _nothing

    def skip(self, why: str) -> None:
        """Give up the callback that runs now, if it can be given up, and go on with the next event."""
        if self._current is not None:
            # Soon, not now: a task that is cancelled before its first step never runs its `finally`.
            self._dispatcher.loop.call_soon(self._cancel, self.task, self._current, why)

    def _cancel(self, task: asyncio.Task[None] | None, event: Event, why: str) -> None:
        if task is not None and task is self.task and event is self._current:
            log.get_logger(id=self.id, url=self.url).debug("callback cancelled", why=why)
            self._skipped += 1
            task.cancel(why)

    def withdraw(self) -> bool:
        """Take back the event that waits for the program's thread, or for the stream: nobody asks any more.

        Returns:
            Whether it was taken back; what follows it is not called then. False if the program has it.
        """
        job, crossing = self._entered, self._dispatcher.crossing
        if job is not None and crossing is not None and crossing.withdraw(job):
            self._entered = None
            self._dispatcher.finished(self)
        elif not self._dispatcher.outbox.withdraw(self):
            return False
        self._working = False
        self._go_on()
        return True

    def taken(self, event: Event, then: Then | None) -> None:
        """Go on after the stream gave out an event."""
        if then is not None:
            then(None)
        self._working = False
        self._go_on()

    # Inside. `_working` is True while an event is being delivered, so that nothing overlaps it.

    def _go_on(self) -> None:
        while self._queue and not self._working:
            event, then = self._queue.popleft()
            # Before `release`, which may let more events in: they come after this one.
            self._working = True
            self.release(event)
            if self._deliver(event, then):
                self._working = False

    def _deliver(self, event: Event, then: Then | None) -> bool:
        """Run the plain callbacks; return whether that was all, else go on in a task, a stream, a thread."""
        dispatcher = self._dispatcher
        callbacks, crossing = dispatcher.callbacks[event.__class__], dispatcher.crossing
        if not callbacks and self._offer(event, then, crossing):
            return False
        if crossing is not None and self._crosses(event):
            return self._enter(crossing, event, then)
        result: object = None
        self._current = event
        for index, callback in enumerate(callbacks):
            if callback.is_async or crossing is not None:
                coroutine = self._in_task(event, callbacks[index:], result, then)
                # Not create_task: what is eager (a task factory of Python 3.12) is over before it is noted.
                self.task = asyncio.Task(coroutine, loop=dispatcher.loop)
                dispatcher.started(self)
                return False
            value = self._call(callback.handler, event)
            if value is not None:
                result = first(result, value)
        self._current = None
        if then is not None:
            then(result)
        value = result = (
            None  # An exception knows this frame, and so would keep itself, the event, and the read.
        )
        return True

    def _offer(self, event: Event, then: Then | None, crossing: Crossing | None) -> bool:
        dispatcher = self._dispatcher
        if event.__class__ in self.claimed:
            return False
        if dispatcher.outbox.offer(self, event, then):
            return True
        if crossing is None and dispatcher.early is not None:
            dispatcher.early(event)
        return False

    # On the program's thread, if plain callbacks run there. Between `_enter` and the `_crossed` that is the
    # last one, the loop only adds to the queue, and only the program's thread takes from it.

    def _crosses(self, event: Event) -> bool:
        """Whether an event is for the program's thread."""
        dispatcher, kind = self._dispatcher, event.__class__
        if dispatcher.crossing is None or dispatcher.callbacks[kind]:
            return dispatcher.crossing is not None and dispatcher.is_plain(kind)
        return dispatcher.crossing.gives_out and kind not in self.claimed and not dispatcher.outbox.is_open

    def _enter(self, crossing: Crossing, event: Event, then: Then | None) -> bool:
        if crossing.discarding:
            if then is not None:
                then(None)
            return True
        self._dispatcher.started(self)
        self._entered = Crossed(self, event, then, False)
        crossing.enter(self._entered)
        return False

    def _cross(self, job: Crossed) -> Event | None:
        """Run the callbacks of an event; return it if it has none and `dq()` is to have it."""
        dispatcher, event = self._dispatcher, job.event
        crossing = cast(Crossing, dispatcher.crossing)
        callbacks = () if crossing.discarding else dispatcher.callbacks[event.__class__]
        if callbacks and not dispatcher.is_plain(event.__class__):  # Since a moment ago.
            dispatcher.report(self._recall, job)
            return None
        given = None if callbacks or crossing.discarding or not crossing.gives_out else event
        self._current = event
        try:
            if not callbacks:
                # Without a call in between: from now on `dq()` has it.
                job.begun, crossing.given = True, given
            for callback in callbacks:
                job.result = first(job.result, self._call(callback.handler, event, job))
        finally:
            if job.begun:
                self._cross_on(crossing, job)
        return given

    def _cross_on(self, crossing: Crossing, job: Crossed) -> None:
        """Go on with the next event if it is for this thread too; tell the loop what it has to know now."""
        if job.event.__class__ not in LAST:  # After that its ID is not the program's any more.
            self._current = None
        if job.then is not None and job.event.__class__ is WebSocketUpgrade:
            # Here and now: the program may use the ID as soon as its callback has returned.
            job.then(job.result)
            job.then = None
        if job.then is None:
            job.result = None  # See _deliver.
        if job.kept:
            size = cost(job.event)
            self._crossed_size, job.kept = self._crossed_size + size, False
        following = self._queue[0] if self._queue and self._crosses(self._queue[0][0]) else None
        if job.then is not None or following is None or self._crossed_size > self._high // 4:
            job.size, self._crossed_size = self._crossed_size, 0
            self._dispatcher.report(self._crossed, job, following is None)
        if following is not None:
            self._entered = after = Crossed(self, *following, True)
            self._queue.popleft()
            crossing.enter(after)

    def _crossed(self, job: Crossed, last: bool) -> None:
        """Go on after the program's thread had events of so many bytes."""
        size, job.size = job.size, 0
        if size:
            self._release(size)
        then, job.then = job.then, None
        if then is not None:
            result, job.result = job.result, None
            then(result)
        if last:
            self._entered = None
            self._working = False
            self._dispatcher.finished(self)
            self._go_on()

    def recover(self, waiting: Set[Job]) -> None:
        """Go on if an exception took an event from the program's thread, where nothing may run now.

        Args:
            waiting: the jobs that the thread will come to. Of all others it told the end before, or never.
        """
        job, crossing = self._entered, self._dispatcher.crossing
        if job is None or crossing is None or job in waiting:
            return
        if not job.begun:
            crossing.enter(job)
            return
        if job.kept:
            job.kept = False
            self._crossed_size += cost(job.event)
        self._current = None
        job.size, self._crossed_size = job.size + self._crossed_size, 0
        self._crossed(job, True)

    def _recall(self, job: Crossed) -> None:
        """Deliver an event from here after all."""
        self._entered = None
        if job.kept:
            self.release(job.event)
        self._dispatcher.finished(self)
        if self._deliver(job.event, job.then):
            self._working = False
            self._go_on()

    # Callbacks, on whichever thread.

    def _call(self, handler: Handler, event: Event, job: Crossed | None = None) -> object:
        """Call a plain callback; what ends the whole program goes up, and leaves the lane fit for its end."""
        if job is not None:
            job.begun = True
        try:
            value = handler(event)
        except (Exception, asyncio.CancelledError) as exc:
            self._report(exc, handler, event)
            return exc
        except BaseException as exc:
            if self._dispatcher.is_here and threading.current_thread() is not threading.main_thread():
                self._report(exc, handler, event)  # From this thread it ends nothing.
                return exc
            if self._dispatcher.crossing is None:
                self._working = False
            raise
        if value is not None and inspect.isawaitable(value):
            return self._refuse_awaitable(value, handler, event)
        return value

    def _refuse_awaitable(self, value: object, handler: Handler, event: Event) -> object:
        if inspect.iscoroutine(value):
            value.close()
        exc = InvalidHandler(
            f"{handler_name(handler)} is a plain function that returned an awaitable; use `async def`"
        )
        self._report(exc, handler, event)
        return exc

    async def _in_task(
        self, event: Event, callbacks: tuple[Callback, ...], result: object, then: Then | None
    ) -> None:
        """Run the callbacks that are left, then all events that came meanwhile."""
        try:
            while True:
                self._current = event
                for callback in callbacks:
                    result = first(result, await self._await(callback, event))
                self._current = None
                if then is not None:
                    then(result)
                result = None  # See _deliver; since Python 3.12 an exception knows the frames around, too.
                if not self._queue or self._dispatcher.crossing is not None:
                    return
                event, then = self._queue.popleft()
                self.release(event)
                callbacks = self._dispatcher.callbacks[event.__class__]
                if not callbacks and self._offer(event, then, None):
                    return
        except asyncio.CancelledError as exc:
            if then is not None and self._current is event:
                then(exc)
            raise
        finally:
            self._leave_task()

    def _leave_task(self) -> None:
        self.task = self._current = None
        self._dispatcher.finished(self)
        if not self._dispatcher.outbox.holds(self):
            self._working = False
            self._go_on()

    async def _await(self, callback: Callback, event: Event) -> object:
        if not callback.is_async:
            crossing = self._dispatcher.crossing
            if crossing is None:
                return self._call(callback.handler, event)
            return await crossing.call(self._call, callback.handler, event)
        if self._dispatcher.hurried:
            return self._step(callback.handler, event)
        try:
            return await callback.handler(event)  # type: ignore[misc]  # it is async, so this is awaitable
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling() > self._skipped:
                raise  # The program ends its loop.
            if not self._skipped:
                self._report(exc, callback.handler, event)
            return exc
        except Exception as exc:
            self._report(exc, callback.handler, event)
            return exc
        finally:
            self._forget_skips()

    def _step(self, handler: Handler, event: Event) -> object:
        """Run an async callback as far as it goes without waiting: the host was stopped, its time is over."""
        coroutine = cast(Coroutine[object, object, object], handler(event))
        try:
            coroutine.send(None)
            coroutine.close()
        except StopIteration as done:
            return done.value
        except (Exception, asyncio.CancelledError) as exc:
            self._report(exc, handler, event)
            return exc
        return None

    def _forget_skips(self) -> None:
        # Also where the callback swallowed them: the next one is not to blame.
        task = asyncio.current_task()
        while self._skipped and task is not None:
            task.uncancel()
            self._skipped -= 1

    def _report(self, exc: BaseException, handler: Handler, event: Event) -> None:
        log.get_logger(id=self.id, url=self.url).error(
            "callback raised", callback=handler_name(handler), event_name=event.event, exc_info=exc
        )


def _nothing(held: bool) -> None:
    """Nobody is to be held any more."""
