"""The part of a Host that takes callbacks, typed so that a checker knows the event of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, TypeVar, overload

from .dispatch import Dispatcher, Handler
from .events import (
    AnyEvent,
    Event,
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from .stream import EventStream

__all__ = ["Callbacks", "EventName", "UpgradeAnswer"]

EventName: TypeAlias = Literal[
    "HTTPRequest", "WebSocketUpgrade", "WebSocketReceive", "WebSocketClose", "WebSocketError", "All"
]
"""What `host.on` takes by name, for annotations."""

EventNumber: TypeAlias = Literal[840, 841, 842, 843, 844]

Page: TypeAlias = HTTPRequest | list[object] | tuple[object, ...] | None
UpgradeAnswer: TypeAlias = WebSocketUpgrade | list[object] | tuple[object, ...]
Upgrade: TypeAlias = UpgradeAnswer | None

HandlerT = TypeVar("HandlerT", bound=Handler)
PageT = TypeVar("PageT", bound=Callable[[HTTPRequest], Page | Awaitable[Page]])
UpgradeT = TypeVar("UpgradeT", bound=Callable[[WebSocketUpgrade], Upgrade | Awaitable[Upgrade]])
ReceiveT = TypeVar("ReceiveT", bound=Callable[[WebSocketReceive], object])
CloseT = TypeVar("CloseT", bound=Callable[[WebSocketClose], object])
ErrorT = TypeVar("ErrorT", bound=Callable[[WebSocketError], object])
AllT = TypeVar("AllT", bound=Callable[[AnyEvent], object])


class Callbacks:
    """Registers callbacks, and gives out the events that have none."""

    _dispatcher: Dispatcher

    @overload
    def on(self, which: Literal["HTTPRequest", 840] | type[HTTPRequest]) -> Callable[[PageT], PageT]: ...
    @overload
    def on(
        self, which: Literal["WebSocketUpgrade", 841] | type[WebSocketUpgrade]
    ) -> Callable[[UpgradeT], UpgradeT]: ...
    @overload
    def on(
        self, which: Literal["WebSocketReceive", 842] | type[WebSocketReceive]
    ) -> Callable[[ReceiveT], ReceiveT]: ...
    @overload
    def on(
        self, which: Literal["WebSocketClose", 843] | type[WebSocketClose]
    ) -> Callable[[CloseT], CloseT]: ...
    @overload
    def on(
        self, which: Literal["WebSocketError", 844] | type[WebSocketError]
    ) -> Callable[[ErrorT], ErrorT]: ...
    @overload
    def on(self, which: Literal["All"]) -> Callable[[AllT], AllT]: ...
    def on(self, which: object) -> Callable[[HandlerT], HandlerT]:
        """Return a decorator that registers a handler.

        Args:
            which: name, number or class of an event, or `"All"`.

        Raises:
            UnknownEvent: there is no such event.
            InvalidHandler: the handler cannot be called with one event.
        """
        self._dispatcher.check(which)

        def register(handler: HandlerT) -> HandlerT:
            self._dispatcher.on(which, handler)
            return handler

        return register

    def off(self, which: EventName | EventNumber | type[Event], handler: Handler | None = None) -> None:
        """Undo `on`, for one handler or for all registered with `which`.

        Raises:
            UnknownEvent: there is no such event.
            InvalidArgument: there was no such registration.
        """
        self._dispatcher.off(which, handler)

    def events(self) -> EventStream:
        """Return the stream of events that no callback takes, from now on; for `async for`."""
        self._dispatcher.check_here("events()")
        return EventStream(self._dispatcher.outbox)
