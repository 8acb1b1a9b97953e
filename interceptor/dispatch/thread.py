"""An event loop in a thread of its own, for programs that have none; and calls to a loop from any thread."""

from __future__ import annotations

import asyncio
import atexit
import math
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar

from .. import log
from ..exceptions import InvalidState

__all__ = ["PATIENCE_SLICE", "HomeLoop", "LoopFactory", "LoopThread"]

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

GRACE = 1.0
"""Seconds in which what is left on the loop may clean up, and in which its worker threads may end."""

LEAVE = 3 * GRACE
"""Seconds that a thread is waited for at the end of the program; longer it is held up, and left behind."""

PATIENCE_SLICE = 0.1 if sys.platform == "win32" else 1.0
"""Longest single wait of the main thread. On Windows Ctrl-C does not get through to one that waits; elsewhere
a signal does not that comes just as the wait begins, or on another thread: Python looks for it at the end."""


class LoopThread:
    """An event loop in a thread of its own, with a definite start and end.

        with LoopThread("reader") as thread:
            page = thread.run(fetch("http://..."))

    The thread never keeps a program from ending: one that is still there then is stopped, or left behind
    where a function on it does not return.

    Args:
        name: of the thread.
        loop_factory: makes the event loop, such as `uvloop.new_event_loop`; None is asyncio's own.
    """

    def __init__(self, name: str = "interceptor", loop_factory: LoopFactory | None = None) -> None:
        self._name = name
        self._loop_factory = loop_factory or asyncio.new_event_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def is_running(self) -> bool:
        """Whether there is a thread, and it takes calls."""
        return self._loop is not None and not self._stopping

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this thread."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread; its loop runs when this returns.

        Raises:
            InvalidState: it was started before.
            Exception: what `loop_factory` raised.
        """
        if self._thread is not None:
            raise InvalidState(f"the thread {self._name!r} is started once; make another LoopThread")
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._main, args=(started,), name=self._name, daemon=True)
        self._thread.start()
        wait(started)
        self._loop = started.result()
        atexit.register(self.stop, LEAVE)

    def submit(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run a coroutine on the loop and return its future at once; from any thread.

        Raises:
            InvalidState: the thread is not running.
        """
        loop = self._loop
        if loop is None or self._stopping:
            coroutine.close()
            raise InvalidState(f"the thread {self._name!r} is not running")
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError as exc:  # It ended just now.
            coroutine.close()
            raise InvalidState(f"the thread {self._name!r} has ended") from exc

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine on the loop and wait for its result; from any thread but this one.

        Raises:
            InvalidState: the thread is not running, or is the caller's own, which would wait for itself.
        """
        if self.is_current:
            coroutine.close()
            raise InvalidState(f"run() would wait here, on the thread {self._name!r}, for itself; use await")
        future = self.submit(coroutine)
        try:
            wait(future)
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def stop(self, timeout: float = math.inf) -> bool:
        """End the loop and the thread; what still runs on the loop is cancelled. A second call only waits.

        Args:
            timeout: seconds to wait.

        Returns:
            Whether the thread has ended.

        Raises:
            InvalidState: called on the thread itself, which would wait for itself.
        """
        if self._thread is None or self._loop is None:
            return True
        if self.is_current:
            raise InvalidState(f"stop() would wait here, on the thread {self._name!r}, for its own end")
        self.stop_soon()
        return self.join(timeout)

    def stop_soon(self) -> None:
        """Begin to end the loop and the thread as `stop` does, and return at once; from any thread."""
        self._stopping = True
        if self._loop is not None:
            with suppress(RuntimeError):  # It has ended.
                self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, timeout: float = math.inf) -> bool:
        """Wait until the thread has ended, which it does after `stop_soon`.

        Args:
            timeout: seconds to wait.

        Returns:
            Whether the thread has ended, or was never started.

        Raises:
            InvalidState: called on the thread itself, which would wait for itself.
        """
        if self._thread is None:
            return True
        if self.is_current:
            raise InvalidState(f"join() would wait here, on the thread {self._name!r}, for its own end")
        join(self._thread, timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # On the thread itself.

    def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            # Not where start() is called: a loop that Windows makes on the main thread takes its signals.
            loop = self._loop_factory()
        except BaseException as exc:
            started.set_exception(exc)
            return
        executor = ThreadPoolExecutor(thread_name_prefix=f"{self._name} worker")
        loop.set_default_executor(executor)
        started.set_result(loop)
        try:
            self._run_until_stopped(loop)
            loop.run_until_complete(_clean_up())
        finally:
            loop.close()
            _close(executor)
            atexit.unregister(self.stop)

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:
                # It can end the program from the main thread only.
                log.get_logger().error(
                    "an exception meant to end the program was raised on another thread than the main one",
                    thread=self._name,
                    exc_info=exc,
                )


class HomeLoop:
    """The loop that runs where this is made, and its thread.

    Raises:
        RuntimeError: no loop runs there.
    """

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


def _close(executor: ThreadPoolExecutor) -> None:
    """Let the worker threads end, but not for ever: a function that runs in one cannot be cancelled."""
    closer = threading.Thread(target=executor.shutdown, daemon=True)
    with suppress(RuntimeError):  # The interpreter is ending, and starts no thread any more.
        closer.start()
        closer.join(GRACE)


async def _clean_up() -> None:
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not own]
    for task in tasks:
        task.cancel("the loop is ending")
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE)
    await loop.shutdown_asyncgens()


def wait(future: Future[T], timeout: float = math.inf) -> bool:
    """Wait until a future is done, such that Ctrl-C gets through; return whether it is."""
    deadline = time.monotonic() + timeout
    while not future.done() and (patience := deadline - time.monotonic()) > 0:
        futures.wait([future], min(patience, PATIENCE_SLICE))
    return future.done()


def join(thread: threading.Thread, timeout: float = math.inf) -> None:
    """Wait until a thread has ended, such that Ctrl-C gets through."""
    deadline = time.monotonic() + timeout
    while thread.is_alive() and (patience := deadline - time.monotonic()) > 0:
        thread.join(min(patience, PATIENCE_SLICE))
