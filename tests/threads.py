"""Programs without asyncio: a thread that runs what is posted to it, and clients that block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from interceptor import Event, EventName, Host, Limits, Timeouts

from .peer import PATIENCE
from .wire import ANYONE

TABLE = [("ws://myapp/manual*", 2), ("ws://myapp/*", 1)]


def make_host(
    post: Callable[[Callable[[], None]], object] | None = None,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
) -> Host:
    """A host for ws://myapp/*, automatic but for /manual."""
    return Host(
        TABLE,
        root="myapp",
        post=post,
        security=ANYONE,
        limits=limits or Limits(),
        timeouts=timeouts or Timeouts(close=5),
    )


def soon(condition: Callable[[], object]) -> None:
    """Wait until something holds that no thread tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


def client(
    host: Host, path: str = "/", *, subprotocols: list[str] | None = None
) -> AbstractContextManager[ClientConnection]:
    """A client of another library, which blocks."""
    wanted = None if subprotocols is None else [Subprotocol(name) for name in subprotocols]
    return connect(
        host.ws_url(path), compression=None, max_size=None, subprotocols=wanted, open_timeout=PATIENCE
    )


def dial(host: Host, path: str = "/") -> ClientConnection:
    """A client that the test, or the host, closes."""
    return client(host, path).__enter__()


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Check that the block leaves no thread behind that was not there before."""
    before = set(threading.enumerate())
    yield
    soon(lambda: set(threading.enumerate()) <= before)


def assert_true(value: object) -> None:
    """Check a value, where a statement cannot."""
    assert value


class Program:
    """A thread with a queue of functions: the least that a GUI's loop is.

    Attributes:
        ident: of the thread.
        gone: `post` raises.
    """

    def __init__(self) -> None:
        self._functions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="program")
        self.gone = False
        self.posts = 0
        self.ident = 0

    def post(self, function: Callable[[], None]) -> None:
        if self.gone:
            raise RuntimeError("the window is closed")
        self.posts += 1
        self._functions.put(function)

    def block(self, gate: threading.Event) -> None:
        """Keep the thread busy until a gate is opened."""
        self.post(lambda: assert_true(gate.wait(PATIENCE)))

    def do(self, function: Callable[[], object]) -> object:
        """Run a function on the thread, and wait for what it returns or raises."""
        done: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()

        def run() -> None:
            try:
                done.put((function(), None))
            except BaseException as exc:
                done.put((None, exc))

        self._functions.put(run)
        value, exc = done.get(timeout=PATIENCE)
        if exc is not None:
            raise exc
        return value

    def __enter__(self) -> Self:
        self._thread.start()
        self.ident = self._thread.ident or 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._functions.put(None)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while (function := self._functions.get()) is not None:
            function()


class Seen:
    """The events of a host in order, each with the thread that its callback ran on."""

    def __init__(self, host: Host, which: EventName = "All") -> None:
        self.events: list[Event] = []
        self.threads: set[int] = set()
        host.on(which)(self._take)

    def _take(self, event: Event) -> None:
        self.threads.add(threading.get_ident())
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.event for event in self.events]

    def data(self) -> list[object]:
        return [event.data for event in self.events if hasattr(event, "data")]

    def wait_for(self, name: str, count: int = 1) -> Event:
        soon(lambda: self.names().count(name) >= count)
        return [event for event in self.events if event.event == name][count - 1]
