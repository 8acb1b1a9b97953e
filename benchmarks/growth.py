"""How the cost of our host grows: with sockets, rows, the size of a message, and handlers.

    python -m benchmarks.growth [--quick] [--loop uvloop] [--json FILE]

The cost is the server's processor time (Linux only): for each message echoed, or for each upgrade. A look-up
in InterceptedURLs is timed by itself; the rows name hosts. Below each series is the exponent of its growth at
its upper end, which is 0 where the cost stays the same, and 1 where it grows as its cause does.
"""

from __future__ import annotations

import argparse
import itertools
import math
import selectors
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import upgrades
from benchmarks.aims import FLAT, LINEAR, Verdict
from benchmarks.conditions import Content, conditions, describe, progress, run, versions, writable
from benchmarks.growing import WILD
from benchmarks.load import STALL, BenchmarkError, Client, Load, Message, Sample, binary_message, measure
from benchmarks.memory import allowed_sockets
from benchmarks.patterns import Budget, lookups, made_rows, made_urls
from benchmarks.processes import ServerProcess, running
from benchmarks.report import aligned
from benchmarks.servers import OURS
from interceptor import InterceptedURLs

PROGRAM = (sys.executable, "-m", "benchmarks.growing")
PACKAGES = (OURS, "websockets", "uvloop")
MESSAGE = 32  # bytes, where the size is not what grows
TALKING = 32  # sockets with a message in flight, of all that are open
AT_ONCE = 32  # upgrades
SIZES = tuple(16**power for power in range(1, 7))  # 16 B to 16 MiB
TENS = (1, 10, 100, 1000, 10_000)
AIMS = {"flat": FLAT, "linear": LINEAR}


@dataclass(frozen=True)
class Series:
    """How a cost grows.

    Attributes:
        name: of what is asked for more and more.
        cost: what has the cost.
        expected: "flat" or "linear".
        points: how much is asked for, and microseconds.
    """

    name: str
    cost: str
    expected: str
    points: Sequence[tuple[int, float]]

    @property
    def exponent(self) -> float:
        """Of the growth, over the last three points."""
        last = [(math.log(count), math.log(cost)) for count, cost in self.points[-3:]]
        return statistics.linear_regression(*zip(*last, strict=True)).slope

    def verdict(self) -> Verdict:
        """Whether it grows as it should."""
        return Verdict(f"exponent of {self.cost} over {self.name}", self.exponent, AIMS[self.expected])

    def as_json(self) -> dict[str, object]:
        """All of it for programs to read."""
        return {**asdict(self), "exponent": self.exponent}


@dataclass(frozen=True)
class Effort:
    """How much is measured: `rounds` of so many `seconds`, with no more than `most` sockets or rows."""

    rounds: int
    seconds: float
    most: int

    def median(self, take: Callable[[], Sample]) -> float:
        """Median cost in microseconds of the server's processor time."""
        costs = [take().server_cost for _ in range(self.rounds)]
        known = [cost for cost in costs if cost is not None]
        if not known:
            raise BenchmarkError("this system does not tell the processor time of another process")
        return statistics.median(known)


def grow(
    name: str, cost: str, expected: str, counts: Sequence[int], cost_of: Callable[[int], float]
) -> Series:
    """Measure one series."""
    points = []
    for count in counts:
        points.append((count, cost_of(count)))
        progress(f"{count:,} {name}: {points[-1][1]:,.2f} us for {cost}")
    return Series(name, cost, expected, points)


def over_sockets(server: ServerProcess, effort: Effort) -> Series:
    """More and more sockets are open; messages are in flight on some, on all in turn. Ends the server."""
    clients: list[Client] = []
    message = binary_message(MESSAGE)

    def cost_of(count: int) -> float:
        while len(clients) < count:
            client = Client(server.port)
            client.prepare(message, 1)
            client.sock.setblocking(False)
            clients.append(client)
        with selectors.DefaultSelector() as selector:
            for client in clients:
                selector.register(client.sock, selectors.EVENT_READ, client)
            return effort.median(lambda: talk_in_turn(server, clients, selector, message, effort.seconds))

    most = allowed_sockets(effort.most)
    counts = [count for count in TENS[1:] if count <= most]
    try:
        return grow("sockets", "a message", "flat", counts, cost_of)
    finally:
        server.process.kill()  # ten thousand closing handshakes would only take time
        for client in clients:
            client.sock.close()


def talk_in_turn(
    server: ServerProcess,
    clients: Sequence[Client],
    selector: selectors.BaseSelector,
    message: Message,
    seconds: float,
) -> Sample:
    """Put the load on all sockets in turn, and measure it."""
    before = server.processor_seconds()
    used, start = time.process_time(), time.perf_counter()
    count = pass_on(clients, selector, message.frame, start + seconds)
    spent, used = time.perf_counter() - start, time.process_time() - used
    after = server.processor_seconds()
    for client in clients:
        client.check()
    return Sample(count, spent, used, None if before is None or after is None else after - before)


def pass_on(clients: Sequence[Client], selector: selectors.BaseSelector, frame: bytes, end: float) -> int:
    """Send to some sockets at once and wait for their echoes, then to the next; return how many came back.

    In bursts, so that the server finds as much to do at a time however long the client needs for itself.
    """
    turn, buffer, count = itertools.cycle(clients), bytearray(1024), 0
    while time.perf_counter() < end:
        in_flight = min(TALKING, len(clients))
        count += in_flight
        for client in itertools.islice(turn, in_flight):
            client.sock.send(frame)
        while in_flight:
            ready = selector.select(STALL)
            if not ready:
                raise BenchmarkError(f"{in_flight} messages were not answered within {STALL} s")
            in_flight -= sum(key.data.receive(buffer) for key, _ in ready)
    return count


def over_rows(server: ServerProcess, effort: Effort) -> Series:
    """More and more rows in the table, of which the last one matches; the cost of an upgrade."""

    def cost_of(count: int) -> float:
        server.order(f"rows {count}")
        return effort.median(lambda: upgrades.measure(server, AT_ONCE, effort.seconds))

    counts = [count for count in TENS if count <= effort.most]
    series = grow("rows", "an upgrade", "flat", counts, cost_of)
    server.order("rows 1")
    return series


def over_rows_alone(effort: Effort) -> Series:
    """More and more rows in the table; the cost of a look-up, for URLs that match early, late and never."""
    budget = Budget(urls=10 * effort.rounds, seconds=effort.seconds / 100)

    def cost_of(count: int) -> float:
        rows = made_rows(count, WILD)
        table = InterceptedURLs(rows)
        kinds = made_urls(rows, budget.urls).values()
        return statistics.median(cost for urls in kinds for cost in lookups(table, urls, budget))

    return grow("rows", "a look-up", "flat", [count for count in TENS if count <= effort.most], cost_of)


def over_sizes(server: ServerProcess, effort: Effort) -> Series:
    """Larger and larger messages, one at a time."""

    def cost_of(size: int) -> float:
        load = Load(binary_message(size), 1, 1, effort.seconds)
        return effort.median(lambda: measure(server.port, load, server.processor_seconds))

    return grow("bytes", "a message", "linear", SIZES, cost_of)


def over_handlers(server: ServerProcess, effort: Effort) -> Series:
    """More and more handlers of the same event."""

    def cost_of(count: int) -> float:
        server.order(f"handlers {count}")
        load = Load(binary_message(MESSAGE), 10, 8, effort.seconds)
        return effort.median(lambda: measure(server.port, load, server.processor_seconds))

    return grow("handlers", "a message", "linear", (1, 3, 10, 30, 100), cost_of)


def table_of(found: Sequence[Series]) -> str:
    """All series for people to read."""
    heading = ("microseconds for", "grows with", "expected", "", "", "aim")
    groups = []
    for series in found:
        lines = [
            (series.cost, series.name, series.expected, f"{n:,}", f"{cost:,.2f}", "")
            for n, cost in series.points
        ]
        verdict = AIMS[series.expected].words(series.exponent)
        exponent = ("", "", "", "exponent", f"{series.exponent:.2f}", verdict)
        groups.append([*lines, exponent])
    return aligned(heading, groups, names=3)


def compare(options: argparse.Namespace, core: int | None) -> Content:
    """Measure all, print the table; return what was found."""
    effort = Effort(options.rounds, options.seconds, options.most)
    under = conditions(core, options.loop, options.rounds, options.seconds)
    packages = versions(PACKAGES)
    found = []
    with running(OURS, options.loop, core, program=PROGRAM) as server:
        found += [over_rows(server, effort), over_sizes(server, effort), over_handlers(server, effort)]
    with running(OURS, options.loop, core, program=PROGRAM) as server:
        found.insert(0, over_sockets(server, effort))
    found.insert(2, over_rows_alone(effort))
    print(describe(under, "ours alone", packages), table_of(found), sep="\n\n")
    aims = [series.verdict().as_json() for series in found]
    return {**under, "versions": packages, "series": [series.as_json() for series in found], "aims": aims}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description="How our cost grows.")
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, 1,000 sockets and rows at most: rougher")
    add("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the server's event loop")
    add("--most", type=int, help="sockets and rows (10,000)")
    add("--rounds", type=int, help="how often all is measured (5)")
    add("--seconds", type=float, help="of one measurement (0.3)")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    options.most = options.most or (1000 if options.quick else 10_000)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.15 if options.quick else 0.3)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    return run(compare, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
