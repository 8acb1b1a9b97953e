"""Who is told of an event, in which order, and on which thread.

    Lane ──► plain callbacks, at once          each socket has a lane: one event at a time, in order
         ──► async callbacks, in a task        a plain callback costs no task, future or queue
         ──► the stream of host.events()       where there is no callback

What waits in a lane is counted; above the mark the lane asks its owner to hold the socket.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import cast

from . import log
from .events import EVENTS, Event, WebSocketReceive, event_class
from .exceptions import InvalidArgument, InvalidHandler, InvalidState, UnknownEvent
from .stream import Outbox, Then

__all__ = ["Callback", "Dispatcher", "Handler", "Lane", "check_handler", "is_async"]

Handler = Callable[..., object]
"""A callback, plain or async, that takes one event (a route's takes one socket)."""

ALL = "All"
EVENT_COST = 512
"""Bytes that an event is counted for besides its data, so that empty messages are not free."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A registered handler; whether it is async was decided when it was registered."""

    handler: Handler
    is_async: bool


class Dispatcher:
    """The callbacks of a host, its lanes, and its event stream."""

    def __init__(self) -> None:
        self._registered: list[tuple[str, Callback]] = []
        self._callbacks: dict[type[Event], tuple[Callback, ...]] = dict.fromkeys(EVENTS, ())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._busy: set[Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._excused: set[asyncio.Task[None]] = set()
        self.hurried = False
        self._nudge: asyncio.Future[None] | None = None
        self.outbox = Outbox()

    def check(self, which: object) -> None:
        """Check that there is such an event.

        Raises:
            UnknownEvent: there is none.
        """
        _event_name(which)

    def on(self, which: object, handler: Handler) -> None:
        """Register a handler for an event's name, number or class, or `"All"`.

        Raises:
            UnknownEvent: `which` is no event.
            InvalidHandler: the handler cannot be called with one event.
        """
        name = _event_name(which)
        check_handler(handler, "event")
        self._registered.append((name, Callback(handler, is_async(handler))))
        self._sort()

    def off(self, which: object, handler: Handler | None = None) -> None:
        """Undo `on`: for one handler, or for all that were registered with `which`.

        Raises:
            UnknownEvent: `which` is no event.
            InvalidArgument: there was no such registration.
        """
        name = _event_name(which)
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
            self._callbacks[cls] = tuple(callback for key, callback in self._registered if key in wanted)

    def callbacks(self, cls: type[Event]) -> tuple[Callback, ...]:
        """Return the callbacks of an event, in the order of registration."""
        return self._callbacks[cls]

    # The loop and its thread.

    def bind(self) -> None:
        """Belong to the running loop and its thread from now on."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the host runs on.

        Raises:
            InvalidState: the host was not started.
        """
        if self._loop is None:
            raise InvalidState("the host is not running; use `async with host:` or `await host.start()`")
        return self._loop

    def run(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop's thread: now if this is that thread, else soon and in order.

        Raises:
            InvalidState: the loop is gone.
        """
        if threading.get_ident() == self._thread:
            if self._calls:
                self._run_calls()
            function(*args)
            return
        loop = self.loop
        self._calls.append((function, args))
        try:
            loop.call_soon_threadsafe(self._run_calls)
        except RuntimeError as exc:
            raise InvalidState("the host's event loop has ended") from exc

    def _run_calls(self) -> None:
        while self._calls:
            function, args = self._calls.popleft()
            function(*args)

    # Lanes at work.

    def started(self, lane: Lane) -> None:
        """Note that a lane has a task."""
        self._busy.add(lane)

    def finished(self, lane: Lane) -> None:
        """Note that a lane has no task any more."""
        self._busy.discard(lane)

    def spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that `drain` sees to the end of."""
        task = self.loop.create_task(coroutine)
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
        """Wait until all async callbacks and spawned tasks are through; after the deadline cancel them.

        What is cancelled gets GRACE seconds in all to clean up.
        """
        while (tasks := self._waited_for()) and self.loop.time() < deadline:
            await self._wait(tasks, deadline - self.loop.time())
        self.hurried = True
        for _ in range(TRIES):
            if not (tasks := self._waited_for()):
                return
            self._cancel_all()
            await asyncio.wait(tasks, timeout=GRACE / TRIES)
        if tasks := self._waited_for():
            log.get_logger().error("callbacks will not end and are left running", count=len(tasks))

    def _waited_for(self) -> list[asyncio.Task[None]]:
        lanes = [lane.task for lane in self._busy if lane.task is not None]
        return [task for task in (*lanes, *self._tasks) if task not in self._excused]

    def _cancel_all(self) -> None:
        for lane in self._busy:
            if lane.task not in self._excused:
                lane.skip("the host was stopped")
        for task in self._tasks - self._excused:
            task.cancel("the host was stopped")

    async def _wait(self, tasks: list[asyncio.Task[None]], timeout: float) -> None:
        self._nudge = self.loop.create_future()
        await asyncio.wait([self._nudge, *tasks], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        self._nudge.cancel()


GRACE = 1.0
"""Seconds in which cancelled callbacks may clean up."""

TRIES = 3
"""How often what will not end is cancelled."""


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
        "_current",
        "_dispatcher",
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
        self._queue: deque[tuple[Event, Then | None]] = deque()
        self._undelivered = 0
        self._working = False
        self._skipped = 0
        self._current: Event | None = None
        self.task: asyncio.Task[None] | None = None

    def put(self, event: Event, then: Then | None = None) -> None:
        """Deliver an event after those before it; at once where nothing is in the way.

        Args:
            event: what happened.
            then: called after the callbacks, with the first result that is not None; where there is none
                and a callback raised, with its exception.
        """
        if self._working:
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
        self._undelivered += _cost(event)
        if self._undelivered > self._high and not self._held:
            self._held = True
            self._hold(True)

    def release(self, event: Event) -> None:
        """Count an event as delivered."""
        self._undelivered -= _cost(event)
        if self._held and self._undelivered <= self._high // 2:
            self._held = False
            self._hold(False)

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
        """Run the plain callbacks; return whether that was all, else go on in a task or the stream."""
        callbacks = self._dispatcher.callbacks(event.__class__)
        if not callbacks and self._offer(event, then):
            return False
        result: object = None
        self._current = event
        for index, callback in enumerate(callbacks):
            if callback.is_async:
                coroutine = self._in_task(event, callbacks[index:], result, then)
                self.task = self._dispatcher.loop.create_task(coroutine)
                self._dispatcher.started(self)
                return False
            result = _first(result, self._call(callback.handler, event))
        self._current = None
        if then is not None:
            then(result)
        return True

    def _offer(self, event: Event, then: Then | None) -> bool:
        if event.__class__ in self.claimed:
            return False
        return self._dispatcher.outbox.offer(self, event, then)

    def _call(self, handler: Handler, event: Event) -> object:
        """Call a plain callback; what ends the whole program goes up, and leaves the lane fit for its end."""
        try:
            value = handler(event)
        except (Exception, asyncio.CancelledError) as exc:
            self._report(exc, handler, event)
            return exc
        except BaseException:
            self._working = False
            raise
        if value is not None and inspect.isawaitable(value):
            return self._refuse_awaitable(value, handler, event)
        return value

    def _refuse_awaitable(self, value: object, handler: Handler, event: Event) -> object:
        if inspect.iscoroutine(value):
            value.close()
        exc = InvalidHandler(
            f"{_name(handler)} is a plain function that returned an awaitable; use `async def`"
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
                    result = _first(result, await self._await(callback, event))
                self._current = None
                if then is not None:
                    then(result)
                if not self._queue:
                    return
                event, then = self._queue.popleft()
                self.release(event)
                result = None
                callbacks = self._dispatcher.callbacks(event.__class__)
                if not callbacks and self._offer(event, then):
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
            return self._call(callback.handler, event)
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
            "callback raised", callback=_name(handler), event_name=event.event, exc_info=exc
        )


def is_async(handler: Handler) -> bool:
    """Whether a handler is an `async def`, also behind `partial` or as `__call__`."""
    return any(map(inspect.iscoroutinefunction, _functions(handler)))


def _functions(handler: Handler) -> tuple[object, object]:
    """Return what may be the function behind a handler: itself, and, as Python calls objects, its class's."""
    while isinstance(handler, partial):
        handler = handler.func
    return handler, type(handler).__call__


def check_handler(handler: Handler, argument: str) -> None:
    """Check that a handler can be called with one argument.

    Raises:
        InvalidHandler: it cannot.
    """
    if not callable(handler):
        raise InvalidHandler(f"{handler!r} cannot be called; a handler is a function of one {argument}")
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in _functions(handler)):
        raise InvalidHandler(f"{_name(handler)} has a yield in it, so calling it runs nothing; take it out")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # Some builtins do not tell.
    try:
        signature.bind(None)
    except TypeError as exc:
        raise InvalidHandler(
            f"{_name(handler)}{signature} cannot be called with one {argument}: {exc}; "
            f"write def {_name(handler)}({argument})"
        ) from exc


def _first(result: object, value: object) -> object:
    """Keep the first result of several callbacks; any is better than an exception, that better than None."""
    if result is None or (isinstance(result, BaseException) and value is not None):
        return value
    return result


def _name(handler: Handler) -> str:
    return str(getattr(handler, "__qualname__", None) or repr(handler))


def _event_name(which: object) -> str:
    if inspect.isfunction(which):
        raise UnknownEvent(
            f'the event comes first: write @host.on("WebSocketReceive") before {which.__name__}'
        )
    return ALL if which == ALL else event_class(which).__name__


def _cost(event: Event) -> int:
    if isinstance(event, WebSocketReceive):
        return EVENT_COST + sys.getsizeof(event.data)
    return EVENT_COST
