"""A dispatcher, a lane, and what is noted of them; no host, no wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from interceptor.dispatch import Dispatcher, Lane
from interceptor.events import (
    Event,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
)

from .peer import until
from .wire import Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

ID = "0123456789abcde"


def receive(data: str | int) -> WebSocketReceive:
    return WebSocketReceive(object="host", id=ID, data=str(data), datatype=1)


def close() -> WebSocketClose:
    return WebSocketClose(object="host", id=ID, code=1000)


def error() -> WebSocketError:
    return WebSocketError(object="host", id=ID, text="wrong")


def data_of(event: Event) -> str:
    return str(getattr(event, "data", event.event))


class Bench:
    """A dispatcher on the running loop, a lane, and what is noted of them."""

    def __init__(self, high: int = 10_000) -> None:
        self.dispatcher = Dispatcher()
        self.dispatcher.bind()
        self.holds: list[bool] = []
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.lane = self.another(high)

    def another(self, high: int = 10_000) -> Lane:
        return Lane(self.dispatcher, ID, "ws://x/", high, self.holds.append)

    def plain(self, name: str = "") -> Callable[[Event], None]:
        def handler(event: Event) -> None:
            self.log.append(name + data_of(event))

        return handler

    def slow(self, name: str = "", turns: int = 2) -> Callable[[Event], Awaitable[None]]:
        async def handler(event: Event) -> None:
            self.log.append(f"<{name}{data_of(event)}")
            for _ in range(turns):
                await asyncio.sleep(0)
            self.log.append(f"{name}{data_of(event)}>")

        return handler

    async def waiting(self, event: Event) -> None:
        self.log.append(f"<{data_of(event)}")
        await self.gate.wait()
        self.log.append(f"{data_of(event)}>")

    def put(self, *data: str | int) -> None:
        for item in data:
            self.lane.put(receive(item))

    async def idle(self) -> None:
        await until(lambda: self.lane.task is None)

    def errors(self, logged: list[Line]) -> list[object]:
        return [line["exc_info"] for line in logged if line["log_level"] == "error"]
