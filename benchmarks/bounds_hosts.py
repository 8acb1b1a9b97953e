"""The hosts of `bounds.py`, each with a program that does something it had better not.

    python -m benchmarks.bounds_hosts NAME [--loop asyncio|uvloop] [--core N]

Sockets below `/trouble/` get the program's callbacks; `/probe` is a route that echoes. At the end the process
prints how many messages its callbacks were given. What the host logs goes nowhere, but is made.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from benchmarks.serving import Ready, Serve, main
from interceptor import Host, InterceptorError, Security, Session, WebSocketReceive, WebSocketUpgrade

REST = 0.01  # seconds that a slow callback takes
BLOCKED = 10.0  # seconds for which a GUI does not come back
SIZE = 64 * 1024  # bytes of what a program sends
STEP = 0.005  # seconds between two messages of a program that sends
FREE = 8  # messages that a callback which fails later still takes, so that all is warm


class Program:
    """A host, and what the callbacks of its program do.

    Attributes:
        heard: messages that a callback was given.
    """

    def __init__(self, style: str, act: str) -> None:
        self.heard = 0
        self.over = threading.Event()
        self.posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.style = style
        self.host = Host(
            [("ws://*/trouble/*", 1)],
            security=Security(allow_no_origin=True),
            post=self.posted.put if style == "post" else None,
        )
        self.host.route("ws://*/probe")(self.echo_probe)
        self.host.on("WebSocketReceive")(getattr(self, act))
        if act == "send":
            self.host.on("WebSocketUpgrade")(self.begin_sending)

    async def echo_probe(self, socket: Session) -> None:
        """Echo for who measures."""
        async for data in socket:
            await socket.send(data)

    # What callbacks do with a message; they are given those of the probe as well.

    def is_trouble(self, event: WebSocketReceive) -> bool:
        """Whether a message is not of the probe, nor one of the first of its socket."""
        if self.host.sockets[event.id].url.endswith("/probe"):
            return False
        self.heard += 1
        return self.heard > FREE

    def take(self, event: WebSocketReceive) -> None:
        """Nothing, at once."""
        self.is_trouble(event)

    def echo(self, event: WebSocketReceive) -> None:
        """Send it back."""
        if self.is_trouble(event):
            self.host.WebSocketSend(event.id, event.data)

    def throw(self, event: WebSocketReceive) -> None:
        """Raise, also at first: the log is to be warm."""
        if self.is_trouble(event) or self.heard:
            raise RuntimeError("this callback always fails")

    def stop(self, event: WebSocketReceive) -> None:
        """Stop the host."""
        if self.is_trouble(event):
            self.host.stop_soon()

    def rest(self, event: WebSocketReceive) -> None:
        """Take long, and block the thread."""
        if self.is_trouble(event):
            time.sleep(REST)

    def block(self, event: WebSocketReceive) -> None:
        """Block the thread once, for very long."""
        if self.is_trouble(event) and self.heard == FREE + 1:
            time.sleep(BLOCKED)

    async def wait(self, event: WebSocketReceive) -> None:
        """Take long."""
        if self.is_trouble(event):
            await asyncio.sleep(REST)

    async def hang(self, event: WebSocketReceive) -> None:
        """Never return."""
        if self.is_trouble(event):
            await asyncio.Event().wait()

    def send(self, event: WebSocketReceive) -> None:
        """Nothing: this one sends."""

    def begin_sending(self, event: WebSocketUpgrade) -> None:
        """Send without end to who is trouble."""
        if event.url.endswith("/probe"):
            return
        if self.style == "thread":
            threading.Thread(target=self.send_from_thread, args=(event.id,), daemon=True).start()
        else:
            self.sending = asyncio.create_task(self.send_on(event.id))

    async def send_on(self, id: str) -> None:
        """Send more than the peer takes, until the host has had enough."""
        with suppress(InterceptorError):
            while True:
                self.host.WebSocketSend(id, b"x" * SIZE)
                await asyncio.sleep(STEP)

    def send_from_thread(self, id: str) -> None:
        """The same, as fast as a thread can."""
        with suppress(InterceptorError):
            while True:
                self.host.WebSocketSend(id, b"x" * SIZE)

    # The program's own thread.

    def run_thread(self) -> None:
        """Run what is posted, or `dq()`."""
        while not self.over.is_set():
            if self.style == "post":
                self.posted.get()()
            else:
                self.host.dq(1.0)

    @contextmanager
    def threaded(self) -> Iterator[None]:
        """Have the program's own thread run, if it has one."""
        thread = threading.Thread(target=self.run_thread, daemon=True)
        if self.style in ("post", "dq"):
            thread.start()
        yield
        self.over.set()
        self.posted.put(lambda: None)


async def serve(ready: Ready, stop: asyncio.Event, style: str, act: str) -> None:
    """Serve, and say at the end how many messages came to the program."""
    program = Program(style, act)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, ASYNC230
    async with program.host:
        with program.threaded():
            ready(program.host.address[1])
            await stop.wait()
    print(program.heard, flush=True)


HOSTS: dict[str, Serve] = {
    f"{style} {act}": partial(serve, style=style, act=act)
    for style, acts in {
        "loop": ("take", "echo", "throw", "stop", "wait", "hang", "send"),
        "post": ("rest", "block"),
        "dq": ("rest",),
        "thread": ("send",),
    }.items()
    for act in acts
}

if __name__ == "__main__":
    main(HOSTS)
