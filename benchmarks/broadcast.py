"""One message to many sockets: `host.broadcast` beside `websockets.broadcast`, plain and deflated.

    python -m benchmarks.broadcast [--quick] [--loop uvloop] [--sockets 1000] [--json FILE]

A measurement ends when the last socket has all its bytes. Then each message of each socket is unpacked and
compared with what was to be sent.
"""

from __future__ import annotations

import argparse
import selectors
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aims import BROADCAST
from benchmarks.broadcasters import DEFLATE
from benchmarks.conditions import Content, run, writable
from benchmarks.deflate import SIZE, JsonClient
from benchmarks.load import STALL, BenchmarkError, Sample
from benchmarks.memory import need_files
from benchmarks.processes import ServerProcess, running
from benchmarks.report import Cell
from benchmarks.rounds import Turns, side_by_side
from benchmarks.servers import OURS

PROGRAM = (sys.executable, "-m", "benchmarks.broadcasters")
NAMES = (OURS, "websockets")
PACKAGES = (*NAMES, "uvloop")


class Audience:
    """The sockets of one server, all open."""

    def __init__(self, server: ServerProcess, size: int, deflate: bool) -> None:
        self.server = server
        self.clients: list[JsonClient] = []
        self.selector = selectors.DefaultSelector()
        for _ in range(size):
            client = JsonClient(server.port, deflate=deflate)
            self.clients.append(client)
            client.sock.setblocking(False)
            self.selector.register(client.sock, selectors.EVENT_READ, client)

    def __enter__(self) -> Audience:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.selector.close()
        for client in self.clients:
            if kind is None:
                client.close(exact=False)
            client.sock.close()

    def measure(self, count: int) -> Sample:
        """Have so many messages broadcast, and check what came when the clock has stopped."""
        for client in self.clients:
            client.sent += count
        before = self.server.processor_seconds()
        used, start = time.process_time(), time.perf_counter()
        self.server.begin(f"broadcast {count}")
        self.listen(count * len(self.clients))
        seconds, used = time.perf_counter() - start, time.process_time() - used
        self.server.wait_done()
        after = self.server.processor_seconds()
        for client in self.clients:
            client.check()
        served = None if before is None or after is None else after - before
        return Sample(count, seconds, used, served)

    def listen(self, missing: int) -> None:
        """Take what comes until so many messages are complete."""
        buffer = bytearray()
        while missing > 0:
            ready = self.selector.select(STALL)
            if not ready:
                raise BenchmarkError(f"{self.server.name}: {missing} messages did not come within {STALL} s")
            for key, _ in ready:
                missing -= key.data.receive(buffer)


def start_all(stack: ExitStack, options: argparse.Namespace, core: int | None) -> Turns:
    """Start each server with its audience, and have it broadcast once."""
    turns: dict[Cell, dict[str, partial[Sample]]] = {}
    for shape in ("plain", "deflate"):
        cell = Cell(SIZE, shape, options.sockets, 1)
        turns[cell] = {}
        for name in NAMES:
            deflate = shape == "deflate"
            full_name = name + DEFLATE * deflate
            server = stack.enter_context(running(full_name, options.loop, core, program=PROGRAM))
            audience = stack.enter_context(Audience(server, options.sockets, deflate))
            audience.measure(1)
            turns[cell][name] = partial(audience.measure, options.count)
    return turns


def compare(options: argparse.Namespace, core: int | None) -> Content:
    """Measure all, print the table; return what was found."""
    need_files(4 * options.sockets + 100)
    what = f"{options.count} broadcasts at a time"
    with ExitStack() as stack:
        turns = start_all(stack, options, core)
        return side_by_side(
            turns, options, core, packages=PACKAGES, what=what, unit="broadcast", aims=BROADCAST
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(prog="benchmarks.broadcast", description="Broadcast, side by side.")
    add = parser.add_argument
    add("--quick", action="store_true", help="3 rounds of 8 broadcasts: rougher")
    add("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the servers' event loop")
    add("--sockets", type=int, default=1000, help="that a message goes to (1,000)")
    add("--count", type=int, help="broadcasts in one measurement (20)")
    add("--rounds", type=int, help="how often all is measured (7)")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.count = options.count or (8 if options.quick else 20)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    return run(compare, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
