"""What a handler is: a function of one argument, plain or async, known when it is registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..events import event_class
from ..exceptions import InvalidHandler, UnknownEvent

__all__ = ["ALL", "Callback", "Handler", "check_handler", "event_name", "first", "handler_name", "is_async"]

Handler = Callable[..., object]
"""A callback, plain or async, that takes one event (a route's takes one socket)."""

ALL = "All"


@dataclass(frozen=True, slots=True)
class Callback:
    """A registered handler; whether it is async was decided when it was registered."""

    handler: Handler
    is_async: bool


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
        name = handler_name(handler)
        raise InvalidHandler(f"{name} has a yield in it, so calling it runs nothing; take it out")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # Some builtins do not tell.
    try:
        signature.bind(None)
    except TypeError as exc:
        name = handler_name(handler)
        raise InvalidHandler(
            f"{name}{signature} cannot be called with one {argument}: {exc}; write def {name}({argument})"
        ) from exc


def first(result: object, value: object) -> object:
    """Keep the first result of several callbacks; any is better than an exception, that better than None."""
    if result is None or (isinstance(result, BaseException) and value is not None):
        return value
    return result


def handler_name(handler: Handler) -> str:
    """Return a handler's name for people to read."""
    return str(getattr(handler, "__qualname__", None) or repr(handler))


def event_name(which: object) -> str:
    """Return the name of an event, or `All`.

    Raises:
        UnknownEvent: there is no such event.
    """
    if inspect.isfunction(which):
        raise UnknownEvent(
            f'the event comes first: write @host.on("WebSocketReceive") before {which.__name__}'
        )
    return ALL if which == ALL else event_class(which).__name__
