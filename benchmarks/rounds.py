"""Measurements in turn, A B C, B C A, ...: a slow spell of the machine meets all, and each comes first."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.aims import Aims
from benchmarks.conditions import Content, conditions, describe, progress, versions
from benchmarks.load import Sample
from benchmarks.report import Cell, Samples, as_json, figures_of, near_client_limit, table, verdicts
from benchmarks.servers import OURS

Turns = Mapping[Cell, Mapping[str, Callable[[], Sample]]]
"""What takes one measurement, by cell and server."""


def rotated(names: list[str], turns: int) -> list[str]:
    """The names in another order each time: who comes first has it as the cell before left the machine."""
    turns %= len(names)
    return names[turns:] + names[:turns]


def take_turns(turns: Turns, rounds: int) -> Samples:
    """All cells of all servers in turn, round after round."""
    samples: Samples = {cell: {name: [] for name in row} for cell, row in turns.items()}
    started = time.monotonic()
    for round_ in range(1, rounds + 1):
        for cell, row in turns.items():
            for name in rotated(list(row), round_ - 1):
                samples[cell][name].append(row[name]())
            rates = "  ".join(f"{name} {found[-1].rate:,.0f}" for name, found in samples[cell].items())
            when = f"{time.monotonic() - started:4.0f} s  round {round_}/{rounds}"
            progress(f"{when}  {cell}:  {rates}")
    return samples


def side_by_side(
    turns: Turns,
    options: argparse.Namespace,
    core: int | None,
    *,
    packages: Sequence[str],
    what: str,
    unit: str,
    aims: Aims,
) -> Content:
    """Measure all, print the table; return what was found.

    Args:
        turns: what takes the measurements.
        options: of the command line; `loop`, `rounds` and perhaps `seconds` count.
        core: where the servers run, or None.
        packages: whose versions are told.
        what: was measured, in words.
        unit: what a rate counts.
        aims: what we promise.
    """
    under = conditions(core, options.loop, options.rounds, getattr(options, "seconds", None))
    installed = versions(packages)
    found = figures_of(take_turns(turns, options.rounds), OURS)
    print(describe(under, what, installed), table(found, OURS, aims, unit), sep="\n\n")
    if held_back := [where for _, where in near_client_limit(found)]:
        print("\nthe client may have held back:", "; ".join(held_back))
    verdict = [verdict.as_json() for verdict in verdicts(found, aims)]
    return {**under, "versions": installed, "reference": OURS, "results": as_json(found), "aims": verdict}
