"""A loop in a thread of its own, and calls that come from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from .exceptions import InvalidState

__all__ = ["HomeLoop", "LoopThread"]

T = TypeVar("T")


class HomeLoop:
    """The loop that runs where this is made, and its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def run(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop's thread: now if this is that thread, else soon and in order.

        Raises:
            InvalidState: the loop is gone.
        """
        if threading.get_ident() == self._thread:
            function(*args)
            return
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError as exc:
            raise InvalidState("the event loop of this object has ended") from exc


class LoopThread:
    """An event loop in a thread of its own, which does not keep the program from ending.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the loop and return what it returns, or raise what it raises."""

        async def called() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    def stop(self) -> None:
        """End the loop and its thread soon; for calls on the loop."""
        self._stopped.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; return whether it has.

        Raises:
            InvalidState: called on that very thread.
        """
        if self._thread is threading.current_thread():
            raise InvalidState("a callback cannot wait here for the thread that it runs on")
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stopped.wait()
