"""Measurements in turn: A B C A B C ..., so that a slow spell of the machine meets all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from benchmarks.conditions import progress
from benchmarks.load import Sample
from benchmarks.report import Cell, Samples

Turns = Mapping[Cell, Mapping[str, Callable[[], Sample]]]
"""What takes one measurement, by cell and server."""


def take_turns(turns: Turns, rounds: int) -> Samples:
    """All cells of all servers in turn, round after round."""
    samples: Samples = {cell: {name: [] for name in row} for cell, row in turns.items()}
    started = time.monotonic()
    for round_ in range(1, rounds + 1):
        for cell, row in turns.items():
            for name, take in row.items():
                samples[cell][name].append(take())
            rates = "  ".join(f"{name} {found[-1].rate:,.0f}" for name, found in samples[cell].items())
            when = f"{time.monotonic() - started:4.0f} s  round {round_}/{rounds}"
            progress(f"{when}  {cell}:  {rates}")
    return samples
