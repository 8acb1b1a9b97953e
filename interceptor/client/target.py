"""Events and who listens to them: the part of the DOM Standard that a WebSocket needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

from .. import log
from ..dispatch import check_handler, is_async
from .blob import Blob

__all__ = ["CloseEvent", "Event", "EventTarget", "Handler", "MessageEvent"]

Handler = Callable[..., object]
"""A listener: takes one event; plain or `async def`."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened.

    Attributes:
        type: `open`, `message`, `error` or `close`.
        target: where it happened; None before it is fired.
    """

    type: str
    target: EventTarget | None = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class MessageEvent(Event):
    """A message came (HTML Standard section 9.2).

    Attributes:
        data: str for text; Blob or bytes for binary, as `binaryType` has it.
        origin: of the URL that was connected to, such as `ws://example.com:8080`.
    """

    data: str | bytes | Blob = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class CloseEvent(Event):
    """The end of a WebSocket (WebSockets Standard section 6).

    Attributes:
        wasClean: whether it was closed in order.
        code: the close code; 1005 none given, 1006 not closed in order.
        reason: the server's reason.
    """

    wasClean: bool = False
    code: int = 0
    reason: str = ""


@dataclass(slots=True)
class Listener:
    """One entry of a target's list; an event handler's (`onmessage`) keeps its place when it is replaced."""

    type: str
    callback: Handler
    is_async: bool
    once: bool = False
    attribute: bool = False
    removed: bool = False


class EventTarget:
    """Calls listeners in the order in which they were added.

    An `async` listener is started in its turn and not waited for, as in a browser. What a listener raises is
    logged once, and stops nobody else.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._running: set[asyncio.Future[object]] = set()

    def addEventListener(self, type: str, callback: Handler | None, *, once: bool = False) -> None:
        """Call a listener for each event of a type; the same one for the same type counts only once.

        Args:
            type: `open`, `message`, `error` or `close`.
            callback: takes the event; None does nothing.
            once: remove it when it is called.

        Raises:
            InvalidHandler: it cannot be called with one event.
        """
        if callback is None or self._find(type, callback) is not None:
            return
        check_handler(callback, "event")
        self._listeners.append(Listener(type, callback, is_async(callback), once))
        self._listeners_changed()

    def removeEventListener(self, type: str, callback: Handler | None) -> None:
        """Undo `addEventListener`; without effect if there is no such listener."""
        listener = None if callback is None else self._find(type, callback)
        if listener is not None:
            self._remove(listener)

    def dispatchEvent(self, event: Event) -> bool:
        """Fire an event of the program's own at the listeners of its type; return True."""
        object.__setattr__(event, "target", self)
        for listener in [one for one in self._listeners if one.type == event.type]:
            if not listener.removed:
                if listener.once:
                    self._remove(listener)
                self._call(listener, event)
        return True

    def _find(self, type: str, callback: Handler) -> Listener | None:
        ours = (one for one in self._listeners if one.type == type and not one.attribute)
        return next((one for one in ours if one.callback == callback), None)

    def _remove(self, listener: Listener) -> None:
        listener.removed = True
        self._listeners.remove(listener)
        self._listeners_changed()

    def _listens(self, *types: str) -> bool:
        return any(listener.type in types for listener in self._listeners)

    def _listeners_changed(self) -> None:
        """Learn that there are more listeners, or fewer."""

    # Event handlers: the attributes that begin with "on" (HTML Standard section 8.1.8.1).

    def _handler(self, type: str) -> Handler | None:
        return next((one.callback for one in self._listeners if one.attribute and one.type == type), None)

    def _set_handler(self, type: str, callback: Handler | None) -> None:
        listener = next((one for one in self._listeners if one.attribute and one.type == type), None)
        if callback is not None:
            check_handler(callback, "event")
        if callback is None and listener is not None:
            self._remove(listener)
        elif callback is not None and listener is not None:
            listener.callback, listener.is_async = callback, is_async(callback)
        elif callback is not None:
            self._listeners.append(Listener(type, callback, is_async(callback), attribute=True))
            self._listeners_changed()

    # Calling.

    def _call(self, listener: Listener, event: Event) -> None:
        try:
            result = listener.callback(event)
        except Exception:
            self._report(event, exc_info=True)
            return
        if listener.is_async:
            task = asyncio.ensure_future(cast(Awaitable[object], result))
            self._running.add(task)
            self._started(task, event)
            task.add_done_callback(lambda done: self._finished(done, event))

    def _started(self, task: asyncio.Future[object], event: Event) -> None:
        """Learn that an async listener works on an event."""

    def _finished(self, task: asyncio.Future[object], event: Event) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._report(event, exc_info=exc)

    def _report(self, event: Event, exc_info: bool | BaseException) -> None:
        log.get_logger().error("a listener failed", event_type=event.type, exc_info=exc_info)
