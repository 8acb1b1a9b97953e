"""Who makes trouble for the hosts of `bounds.py`: peers that send without pause, or do not read."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event

from benchmarks.load import (
    BINARY,
    BUFFER,
    CLOSE,
    CLOSE_1000,
    Client,
    client_frame,
    receive_exactly,
)

BLOCK = 256 * 1024  # bytes that are sent at once, of small messages
PONG = 10
PAUSE = 0.005  # seconds that a slow reader rests after each read


@dataclass(frozen=True)
class Flood:
    """What a peer does: it sends messages without pause, and reads in its own way.

    Attributes:
        size: bytes of each message.
        count: messages in all.
        reads: `all`, `slowly`, or `nothing`.
        ends: whether it ends with a close frame, which the host answers once all was read; reads `nothing`.
    """

    size: int = 64 * 1024
    count: int = 0
    reads: str = "nothing"
    ends: bool = False


def make_trouble(port: int, flood: Flood, begun: Event, done: multiprocessing.Queue[float]) -> None:
    """Send, in a process of its own; tell when it begins, and how many seconds it took."""
    with suppress(AttributeError, OSError):
        os.nice(10)  # The probe shares a core with this.
    client = Client(port, path="/trouble/")
    client.sock.settimeout(None)
    begun.set()
    start = time.perf_counter()
    if flood.reads != "nothing":
        threading.Thread(target=read, args=(client.sock, flood.reads), daemon=True).start()
    with suppress(OSError):  # The host dropped the connection.
        send(client.sock, flood)
        if flood.ends:
            finish(client.sock)
        elif not flood.count:
            wait_dropped(client.sock)
        done.put(time.perf_counter() - start)
    time.sleep(3600)


def send(sock: socket.socket, flood: Flood) -> None:
    """Send the messages."""
    frame = client_frame(BINARY, bytes(flood.size))
    at_once = max(1, BLOCK // len(frame))
    block, sent = frame * at_once, 0
    while sent < flood.count:
        many = min(at_once, flood.count - sent)
        sock.sendall(block if many == at_once else frame * many)
        sent += many


def finish(sock: socket.socket) -> None:
    """Close, and wait for the answer, which comes after all that was sent is handled."""
    sock.sendall(client_frame(CLOSE, CLOSE_1000))
    while receive_exactly(sock, 2)[0] & 0x0F != CLOSE:
        receive_exactly(sock, 4)  # of a ping


def wait_dropped(sock: socket.socket) -> None:
    """Wait until the host has dropped the connection, without reading what it sent."""
    with suppress(OSError):
        while True:
            sock.sendall(client_frame(PONG, b""))
            time.sleep(PAUSE)


def read(sock: socket.socket, how: str) -> None:
    """Read what comes."""
    buffer = bytearray(BUFFER)
    with suppress(OSError):
        while sock.recv_into(buffer):
            if how == "slowly":
                time.sleep(PAUSE)


class Trouble:
    """A peer that makes trouble.

    Attributes:
        begun: set once it has connected.
        done: seconds until it was through; None if it is not.
    """

    def __init__(self, port: int, flood: Flood) -> None:
        context = multiprocessing.get_context("spawn")
        self.done: float | None = None
        self.begun = context.Event()
        self._told: multiprocessing.Queue[float] = context.Queue()
        self.process = context.Process(
            target=make_trouble, args=(port, flood, self.begun, self._told), daemon=True
        )
        self.process.start()

    def is_through(self) -> bool:
        """Whether all was sent, and handled if it waits for that."""
        if self.done is None and not self._told.empty():
            self.done = self._told.get()
        return self.done is not None

    def end(self) -> None:
        """End it, however far it is."""
        self.process.kill()
        self.process.join()
        self._told.close()


@contextmanager
def trouble(port: int, flood: Flood) -> Iterator[Trouble]:
    """A peer that makes trouble as long as the block."""
    peer = Trouble(port, flood)
    try:
        yield peer
    finally:
        peer.end()
