"""How many WebSockets a second a server opens: connect, upgrade, closing handshake, end of the connection.

    python -m benchmarks.upgrades [--quick] [--loop uvloop] [--at-once 32] [--json FILE]

Our host answers by itself (auto), or a plain callback of the program returns `event.accept()` (manual). Each
answer is checked as a client must check it, and each socket ends with the right close frame.
"""

from __future__ import annotations

import argparse
import base64
import os
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aims import UPGRADES
from benchmarks.conditions import Content, progress, run, writable
from benchmarks.load import (
    CLOSE,
    CLOSE_1000,
    STALL,
    BenchmarkError,
    Sample,
    check_response,
    client_frame,
    request_head,
    server_frame,
)
from benchmarks.processes import MissingServer, ServerProcess, running
from benchmarks.report import Cell
from benchmarks.rounds import Turns, side_by_side
from benchmarks.servers import MANUAL, OURS

PEERS = ("websockets", "aiohttp", "uvicorn-sansio")
PACKAGES = (OURS, "websockets", "aiohttp", "uvicorn", "uvloop")
LEAVE, LEFT = client_frame(CLOSE, CLOSE_1000), server_frame(CLOSE, CLOSE_1000)
KEY = base64.b64encode(os.urandom(16))


class Opening:
    """One connection, from its start to its end."""

    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=STALL)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(request)
        self.received = b""
        self.open = False

    def go_on(self) -> bool:
        """Take what is there; return whether the server has ended the connection, and all was right."""
        data = self.sock.recv(4096)
        self.received += data
        if not self.open and b"\r\n\r\n" in self.received:
            head, end, self.received = self.received.partition(b"\r\n\r\n")
            if check_response(head + end, KEY):
                raise BenchmarkError(f"an extension that was not offered: {head!r}")
            self.open = True
            self.sock.sendall(LEAVE)
        if not data and self.received != LEFT:
            raise BenchmarkError(f"the connection ended with {self.received!r}")
        return not data


def open_and_close(port: int, at_once: int, seconds: float) -> int:
    """Open sockets, so many at once, and return how many came to their end."""
    end = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(at_once):
                begin(selector, port)
            return carry_on(selector, port, end)
        finally:
            for key in list(selector.get_map().values()):
                key.data.sock.close()


def begin(selector: selectors.BaseSelector, port: int) -> None:
    """Open one more."""
    opening = Opening(port, request_head(port, KEY))
    selector.register(opening.sock, selectors.EVENT_READ, opening)


def carry_on(selector: selectors.BaseSelector, port: int, end: float) -> int:
    """Follow each socket that ends with another one until it is time, then wait for those that are left."""
    count = 0
    while selector.get_map():
        ready = selector.select(STALL)
        if not ready:
            raise BenchmarkError(f"no answer within {STALL} s")
        for key, _ in ready:
            if not key.data.go_on():
                continue
            selector.unregister(key.fileobj)
            key.data.sock.close()
            count += 1
            if time.perf_counter() < end:
                begin(selector, port)
    return count


def measure(server: ServerProcess, at_once: int, seconds: float) -> Sample:
    """Warm up for a quarter of the time, then measure."""
    try:
        open_and_close(server.port, at_once, seconds / 4)
        before = server.processor_seconds()
        used, start = time.process_time(), time.perf_counter()
        count = open_and_close(server.port, at_once, seconds)
        spent, used = time.perf_counter() - start, time.process_time() - used
        after = server.processor_seconds()
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{server.name}: {exc}") from exc
    return Sample(count, spent, used, None if before is None or after is None else after - before)


def start_all(stack: ExitStack, options: argparse.Namespace, core: int | None) -> Turns:
    """Start the servers: ours of both kinds, each beside its peers."""
    servers = {}
    for name in (OURS, MANUAL, *PEERS):
        try:
            servers[name] = stack.enter_context(running(name, options.loop, core))
        except MissingServer as exc:
            progress(f"left out: {name} ({exc})")
    turns = {}
    for shape, ours, peers in (("auto", OURS, PEERS), ("manual", MANUAL, PEERS[:1])):
        takes = {
            OURS if name == ours else name: partial(measure, servers[name], options.at_once, options.seconds)
            for name in (ours, *peers)
            if name in servers
        }
        turns[Cell(0, shape, options.at_once, 1)] = takes
    return turns


def compare(options: argparse.Namespace, core: int | None) -> Content:
    """Measure all, print the table; return what was found."""
    with ExitStack() as stack:
        turns = start_all(stack, options, core)
        return side_by_side(
            turns, options, core, packages=PACKAGES, what="upgrades", unit="upgrade", aims=UPGRADES
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(prog="benchmarks.upgrades", description="Upgrades, side by side.")
    add = parser.add_argument
    add("--quick", action="store_true", help="3 short rounds: rougher")
    add("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the servers' event loop")
    add("--at-once", type=int, default=32, help="connections at a time (32)")
    add("--rounds", type=int, help="how often all is measured (5)")
    add("--seconds", type=float, help="of one measurement (0.5)")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.2 if options.quick else 0.5)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    return run(compare, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
