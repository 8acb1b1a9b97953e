"""What a lookup in InterceptedURLs costs: tables of up to 10,000 rows, and URLs made to be slow.

    python -m benchmarks.patterns [--quick] [--rows 1,100,10000] [--wild 1]

The first part has a line for each table of rows and kind of URL: the median and the slowest of many URLs,
each measured over many calls. The second has the time of one call for URLs that double in length: linear work
stays near a factor of 2 from one to the next (now and then a bit more, where str.find changes its algorithm),
and quadratic work would show 4.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import Timer

if not __package__:  # started as a file: the package is found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from interceptor.patterns import URL, InterceptedURLs, Mode, normalize

KIB = 1024
SIZES = (8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)
TAILS = ("/", "/chat", "/chat/room-7?token=0123456789abcdef", "/api/v2/stream/events?since=1700000000&kind=a")

# The end of the first decides at once; the others must look for each of their pieces.
HOSTILE_PATTERNS = ("*a*a*a*a*a*b", "*a*a*a*a*a*b*", "ws://*aaaaaaab*aaaaaaab*")
HOSTILE_PATHS = {
    "aaaa": lambda size: "a" * size,
    "a-a-a-": lambda size: "a-" * (size // 2),
    "a/a/a/": lambda size: "a/" * (size // 2),
}
HOSTILE_SPELLINGS = {
    "normal already": lambda size: "a" * size,
    "a/../a/../": lambda size: "a/../" * (size // 5),
    "spaces": lambda size: "a " * (size // 2),
    "%2e%2e/": lambda size: "%2e%2e/" * (size // 7),
}


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Attributes:
        urls: different URLs for each line.
        seconds: for each URL, and for each measurement of a hostile one.
    """

    urls: int
    seconds: float


def made_rows(count: int, wild: float) -> list[tuple[str, int]]:
    """Rows of which all but `wild` per cent name a host."""
    every = round(100 / wild) if wild else 2 * count + 2  # whose half no row has
    return [(row_pattern(number, number % every == every // 2), Mode.AUTO) for number in range(count)]


def row_pattern(number: int, wild: bool) -> str:
    """One row: `ws://host7.test/*`, or `*://*.zone7.test/*`."""
    return f"*://*.zone{number}.test/*" if wild else f"ws://host{number}.test/*"


def made_urls(rows: Sequence[tuple[str, int]], count: int) -> dict[str, list[str]]:
    """URLs that hit a row of the first or last tenth, a wildcard row, or none."""
    hosts = [pattern[5:-2] for pattern, _ in rows if "*." not in pattern]
    zones = [f"sub.{pattern[6:-2]}" for pattern, _ in rows if "*." in pattern]
    tenth = max(1, len(hosts) // 10)
    strangers = [f"stranger{number}.test" for number in range(count)]
    kinds = {
        "hit early": hosts[:tenth],
        "hit late": hosts[-tenth:],
        "hit a wildcard": zones,
        "miss": strangers,
    }
    pick = random.Random(7)  # the same URLs each time
    return {
        kind: [f"ws://{pick.choice(names)}{pick.choice(TAILS)}" for _ in range(count)]
        for kind, names in kinds.items()
        if names
    }


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """The time of one call: the best of five measurements, so that other work here counts least."""
    timer = Timer(call)
    number = 1
    while (spent := timer.timeit(number)) < seconds / 10:
        number *= 2 if spent > seconds / 100 else 8
    return min(timer.repeat(5, number)) / number * 1e6


def lookups(table: InterceptedURLs, urls: Sequence[str], budget: Budget) -> list[float]:
    """Microseconds of a lookup, for each URL."""
    normal = [normalize(url) for url in urls]
    return [microseconds(partial(table.lookup, url), budget.seconds) for url in normal]


def print_lookups(counts: Sequence[int], wild: float, budget: Budget) -> None:
    """The first part."""
    print(f"Lookup of one URL in microseconds; {wild:g} % of the rows have a wildcard in the host\n")
    print(f"{'rows':>7}  {'built in':>9}  {'URLs that':<15} {'median':>8} {'slowest':>8}")
    for count in counts:
        rows = made_rows(count, wild)
        began = time.perf_counter()
        table = InterceptedURLs(rows)
        built = time.perf_counter() - began
        for kind, urls in made_urls(rows, budget.urls).items():
            times = lookups(table, urls, budget)
            figures = f"{statistics.median(times):>8.2f} {max(times):>8.2f}"
            print(f"{count:>7,}  {built * 1e3:>6.1f} ms  {kind:<15} {figures}")


def doublings(call: Callable[[URL], object], path: Callable[[int], str], budget: Budget) -> Iterator[str]:
    """Microseconds for each size, each but the first with its factor to the one before."""
    before = 0.0
    for size in SIZES:
        url = URL("ws://host/" + path(size))
        spent = microseconds(partial(call, url), budget.seconds)
        yield f"{spent:>9.1f} {f'x{spent / before:.2f}' if before else '':<6}"
        before = spent


def print_hostile(budget: Budget) -> None:
    """The second part."""
    heads = "".join(f"{size // KIB:>6} KiB {'':<6}" for size in SIZES)
    print(f"\nHostile URLs in microseconds, and the factor from one length to the next\n\n{'':<42}{heads}")
    tables = {pattern: InterceptedURLs([(pattern, Mode.AUTO)]) for pattern in HOSTILE_PATTERNS}
    tables["10,000 rows, 1 % wild"] = InterceptedURLs(made_rows(10_000, 1))
    for title, table in tables.items():
        for name, path in HOSTILE_PATHS.items():
            print(f"{'lookup':<10}{title:<24} {name:<7}" + "".join(doublings(table.lookup, path, budget)))
    for name, path in HOSTILE_SPELLINGS.items():
        print(f"{'normalize':<10}{name:<32}" + "".join(doublings(normalize, path, budget)))


def counts_of(text: str) -> list[int]:
    """`1,100,10000` from the command line."""
    counts = [int(part) for part in text.split(",") if part.strip().isdecimal() and int(part)]
    if len(counts) != text.count(",") + 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not read 1,100,10000")
    return counts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.patterns", description="The cost of a lookup.")
    parser.add_argument("--quick", action="store_true", help="fewer URLs, shorter measurements: rougher")
    parser.add_argument("--rows", type=counts_of, default=[1, 100, 10_000], help="rows of the tables")
    parser.add_argument(
        "--wild", type=float, default=1.0, help="per cent of the rows with a wildcard in the host"
    )
    options = parser.parse_args()
    budget = Budget(urls=10, seconds=0.005) if options.quick else Budget(urls=100, seconds=0.02)
    print_lookups(options.rows, options.wild, budget)
    print_hostile(budget)


if __name__ == "__main__":
    main()
