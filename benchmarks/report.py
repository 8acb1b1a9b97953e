"""What the measurements say: medians over rounds, ratios within rounds, as a table and as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.aims import Aims, Verdict
from benchmarks.load import Sample

RATES = ("size", "shape", "server", "{unit}s/s", "{reference}/peer", "lowest-highest", "by cpu", "aim")
COSTS = ("p50 us", "p99 us", "server us/{unit}", "client us/{unit}")
SHAPES = {
    "one": "one in flight",
    "many": "{sockets} x {window} in flight",
    "json": "{sockets} x {window} in flight, deflate",
    "plain": "to {sockets:,} sockets",
    "deflate": "to {sockets:,} sockets, deflate",
    "auto": "open and close, {sockets} at a time",
    "manual": "manual, {sockets} at a time",
}
NEAR = 0.7  # a client that needs so much of the server's time per message may be what limits it


@dataclass(frozen=True)
class Cell:
    """One size of message in one shape of load; of SHAPES."""

    size: int
    shape: str
    sockets: int
    window: int

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"{self.size}:{self.shape}"

    @property
    def size_name(self) -> str:
        """The size for people to read."""
        if self.shape == "json":
            return f"{self.size >> 10} KiB JSON"
        if not self.size:
            return ""
        for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if self.size >= unit:
                return f"{self.size // unit} {name}"
        return f"{self.size} B"

    @property
    def shape_name(self) -> str:
        """The shape for people to read."""
        return SHAPES[self.shape].format(sockets=self.sockets, window=self.window)

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.size_name, self.shape_name)))


@dataclass(frozen=True)
class Figures:
    """One server in one cell; every median is one over rounds, and None stands for what is not known.

    Attributes:
        rates: messages per second, round by round.
        rate: their median.
        ratios: rate of the reference / rate of this server, round by round; empty for the reference itself.
        ratio: their median.
        ratio_by_cpu: median of (this server's processor time per message / that of the reference).
        p50: median latency in microseconds, known if one message is in flight at a time.
        p99: the 99th percentile of it.
        server_cost: microseconds of the server's processor time per message.
        client_cost: the same of the client; where it is near the server's, the client was the limit.
    """

    rates: Sequence[float]
    rate: float
    ratios: Sequence[float]
    ratio: float | None
    ratio_by_cpu: float | None
    p50: float | None
    p99: float | None
    server_cost: float | None
    client_cost: float


Samples = dict[Cell, dict[str, list[Sample]]]
Table = Mapping[Cell, Mapping[str, Figures]]


def median(values: Sequence[float | None]) -> float | None:
    """The median of what is known, or None."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def cost_ratio(ours: Sample, theirs: Sample) -> float | None:
    """How much more of its processor's time the peer's server needs for a message."""
    if ours.server_cost is None or theirs.server_cost is None:
        return None
    return theirs.server_cost / ours.server_cost


def figures(samples: Sequence[Sample], reference: Sequence[Sample]) -> Figures:
    """The figures of one server beside those of the reference in the same rounds."""
    pairs = [] if reference is samples else list(zip(reference, samples, strict=True))
    rates = [sample.rate for sample in samples]
    ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
    return Figures(
        rates=rates,
        rate=statistics.median(rates),
        ratios=ratios,
        ratio=median(ratios),
        ratio_by_cpu=median([cost_ratio(ours, theirs) for ours, theirs in pairs]),
        p50=median([sample.percentile(0.5) for sample in samples]),
        p99=median([sample.percentile(0.99) for sample in samples]),
        server_cost=median([sample.server_cost for sample in samples]),
        client_cost=statistics.median(sample.client_cost for sample in samples),
    )


def figures_of(samples: Samples, reference: str) -> dict[Cell, dict[str, Figures]]:
    """The figures of all cells, each server beside the reference."""
    return {
        cell: {name: figures(found, row[reference]) for name, found in row.items()}
        for cell, row in samples.items()
    }


def number(value: float | None, form: str) -> str:
    """A number of the table, empty where there is none."""
    return "" if value is None else format(value, form)


def words_of(cell: Cell, name: str, found: Figures, aims: Aims) -> tuple[str, ...]:
    """One line of the table."""
    aim = aims.get((cell.name, name))
    return (
        cell.size_name,
        cell.shape_name,
        name,
        number(found.rate, ",.0f"),
        number(found.ratio, ".2f"),
        f"{min(found.ratios):.2f}-{max(found.ratios):.2f}" if found.ratios else "",
        number(found.ratio_by_cpu, ".2f"),
        aim.words(found.ratio) if aim else "",
        number(found.p50, ",.0f"),
        number(found.p99, ",.0f"),
        number(found.server_cost, ",.1f"),
        number(found.client_cost, ",.1f"),
    )


def table(cells: Table, reference: str, aims: Aims, unit: str = "message") -> str:
    """All figures for people to read, an empty line between cells."""
    heading = tuple(name.format(reference=reference, unit=unit) for name in RATES + COSTS)
    groups = [
        [words_of(cell, name, found, aims) for name, found in row.items()] for cell, row in cells.items()
    ]
    return aligned(heading, groups, names=3)


def aligned(heading: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], names: int) -> str:
    """Lines in columns, an empty line between groups; of the columns only those that hold something.

    Args:
        names: how many columns are words, which stand to the left; numbers stand to the right.
    """
    rows = [row for group in groups for row in group]
    columns = list(zip(heading, *rows, strict=True))
    widths = [max(map(len, column)) if any(column[1:]) else 0 for column in columns]

    def line(words: Sequence[str]) -> str:
        shown = [
            word.ljust(width) if place < names else word.rjust(width)
            for place, (word, width) in enumerate(zip(words, widths, strict=True))
            if width
        ]
        return "  ".join(shown).rstrip()

    return "\n\n".join([line(heading), *("\n".join(map(line, group)) for group in groups)])


def verdicts(cells: Table, aims: Aims) -> list[Verdict]:
    """What became of the aims, as far as they were measured."""
    return [
        Verdict(f"{cell}: {name}", found.ratio, aims[cell.name, name])
        for cell, row in cells.items()
        for name, found in row.items()
        if (cell.name, name) in aims and found.ratio is not None
    ]


def near_client_limit(cells: Table) -> Iterator[tuple[str, str]]:
    """Where the client cost nearly as much as the server, so that it may have held the server back."""
    for cell, row in cells.items():
        for name, found in row.items():
            if cell.shape != "one" and found.client_cost > NEAR * (found.server_cost or math.inf):
                yield name, f"{name} at {cell}"


def as_json(cells: Table) -> list[dict[str, object]]:
    """All figures for programs to read."""
    rows = [(cell, name, found) for cell, row in cells.items() for name, found in row.items()]
    return [
        {"cell": cell.name, **asdict(cell), "server": name, **asdict(found)} for cell, name, found in rows
    ]
