"""A host in a thread of its own, for programs without asyncio."""

from __future__ import annotations

import atexit
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, Never, Protocol, TypeVar

from . import log
from .dispatch import Dispatcher, LoopFactory, LoopThread
from .exceptions import InvalidState

__all__ = ["ThreadedHost"]

MARGIN = 5.0
"""Seconds beyond `Timeouts.close` after which a host that does not stop is left to itself."""


class Life(Protocol):
    """What a thread needs of its host."""

    name: str

    async def start(self) -> None:
        """Listen, on the running loop."""

    def stop(self) -> Awaitable[None]:
        """Stop, on the running loop."""


HostT = TypeVar("HostT", bound=Life)


class ThreadedHost(Generic[HostT]):
    """Runs a host on an event loop in a thread of its own; `host.in_thread()` makes one.

        with host.in_thread():
            ...

    The host is stopped at the end of the block however that comes, or else at the end of the program.

    Args:
        host: not started.
        dispatcher: the host's.
        patience: seconds that the host's stop() takes at most.
        loop_factory: makes the event loop; None is asyncio's own.
    """

    def __init__(
        self, host: HostT, dispatcher: Dispatcher, patience: float, loop_factory: LoopFactory | None
    ) -> None:
        self._host = host
        self._dispatcher = dispatcher
        self._patience = patience + MARGIN
        self._loop_factory = loop_factory
        self._thread: LoopThread | None = None

    def start(self) -> HostT:
        """Start the thread and the host in it; the host listens when this returns.

        Raises:
            InvalidState: the host was started before, or the address cannot be had.
        """
        thread = LoopThread(f"interceptor {self._host.name}", self._loop_factory)
        thread.start()
        try:
            thread.run(self._host.start())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        atexit.register(self.stop)
        return self._host

    def stop(self) -> None:
        """Stop the host as `Host.stop` does, and end the thread; without effect if that was done.

        On the thread where callbacks run (the GUI's, or that of `dq()`), those that are left run meanwhile.

        Raises:
            InvalidState: called in a callback, which it would wait for.
        """
        thread = self._thread
        if thread is None:
            return
        self._dispatcher.check_may_wait()
        if thread.is_running:
            try:
                stopping = self._dispatcher.wait(lambda: thread.submit(self._end()), self._patience)
            except InvalidState:
                if thread.is_running:
                    raise
            else:  # Unless another thread has stopped it meanwhile.
                if not stopping.done() and thread.is_running:
                    self._give_up(thread, stopping)
                    return
        if thread.stop(self._patience):
            self._dispatcher.unbind()
            atexit.unregister(self.stop)

    def _give_up(self, thread: LoopThread, stopping: Future[None]) -> None:
        """Leave a thread that is held up to itself; it stops the host when it comes to that."""
        log.get_logger().error(
            "the host's thread does not end, as a callback on it does not return; it is left running",
            host=self._host.name,
        )
        stopping.add_done_callback(lambda _: thread.stop_soon())
        atexit.unregister(self.stop)

    async def _end(self) -> None:
        await self._host.stop()

    def __enter__(self) -> HostT:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    if not TYPE_CHECKING:  # Type checkers refuse `async with host.in_thread():` by themselves.

        async def __aenter__(self) -> Never:
            raise InvalidState(
                "a thread of its own is for programs without asyncio: write `with host.in_thread():` there, "
                "and `async with host:` in an `async def`"
            )

        async def __aexit__(self, *exc_info: object) -> None:
            """Without it Python would not come to __aenter__."""
