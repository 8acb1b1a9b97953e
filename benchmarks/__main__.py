"""All benchmarks, one after another: tables on the terminal, all figures in one file, and the charts.

    python -m benchmarks [--quick] [--parts echo growth ...] [--into build]

It takes under ten minutes, with --quick about two, and writes bench.json, speed.svg and growth.svg. At the
end it lists the aims that were missed; the exit status only says whether all of it could be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks import broadcast, chart, echo, footprint, growth, upgrades
from benchmarks.conditions import Content, pin, progress, writable_folder
from benchmarks.load import BenchmarkError
from benchmarks.processes import MissingServer

BUILD = Path(__file__).resolve().parent.parent / "build"
BOTH, ONE = ("asyncio", "uvloop"), ("asyncio",)
CELLS = ("32:one", "32:many", "1024:many", "65536:many", "1048576:many", "1024:json")
SHORT = ("--rounds", "5", "--seconds", "0.3")

Parse = Callable[[Sequence[str]], argparse.Namespace]
Compare = Callable[[argparse.Namespace, int | None], Content]
PARTS: dict[str, tuple[Parse, Compare, tuple[str, ...], tuple[str, ...]]] = {
    # How its options are read, what measures, the options, and the event loops.
    "echo": (echo.parse, echo.compare, ("--only", *CELLS), BOTH),
    "threads": (echo.parse, echo.compare, ("--threads", "--only", "32:many"), BOTH),
    "broadcast": (broadcast.parse, broadcast.compare, (), BOTH),
    "upgrades": (upgrades.parse, upgrades.compare, (), BOTH),
    "footprint": (footprint.parse, footprint.compare, (), ONE),
    "growth": (growth.parse, growth.compare, (), ONE),
}


def measure(part: str, loop: str, quick: bool, core: int | None) -> Content:
    """Run one benchmark in one event loop, as if it had been called by itself."""
    parse, compare, arguments, _ = PARTS[part]
    short = SHORT if part in ("echo", "threads") else ()
    print(f"\n\n=== {part}, {loop}\n", flush=True)
    return compare(parse([*arguments, "--loop", loop, *(("--quick",) if quick else short)]), core)


def measure_all(parts: Sequence[str], quick: bool, core: int | None) -> tuple[dict[str, Any], list[str]]:
    """Run the benchmarks; return what they found, by benchmark and event loop, and what failed."""
    found: dict[str, dict[str, Content]] = {}
    failed = []
    for part in parts:
        for loop in PARTS[part][-1]:
            try:
                found.setdefault(part, {})[loop] = measure(part, loop, quick, core)
            except MissingServer as exc:
                progress(f"left out: {part}, {loop} ({exc})")
            except BenchmarkError as exc:
                progress(f"failed: {part}, {loop}: {exc}")
                failed.append(f"{part}, {loop}")
    return found, failed


def missed(found: dict[str, Any]) -> list[str]:
    """A line for each aim that was missed."""
    return [
        f"{part}, {loop}: {aim['what']}: {aim['figure']:.3g}, aim {aim['limit']:g}"
        for part, row in found.items()
        for loop, content in row.items()
        for aim in cast("list[dict[str, Any]]", content["aims"])
        if aim["met"] is False
    ]


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw the charts, where there is what draws them."""
    try:
        chart.draw(found, folder)
    except ImportError as exc:
        progress(f"no charts: {exc}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="All benchmarks.")
    parser.add_argument("--quick", action="store_true", help="about two minutes, and rougher")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="some of them only")
    parser.add_argument(
        "--into", type=writable_folder, default=str(BUILD), help="folder of what it writes (build)"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        found, failed = measure_all(options.parts, options.quick, pin())
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    (options.into / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(found, options.into)
    print(f"\n\n=== {time.monotonic() - started:.0f} s; the figures are in {options.into / 'bench.json'}\n")
    print("\n".join(["aims missed:", *missed(found)] if missed(found) else ["all aims reached"]))
    if failed:
        print("not measured:", "; ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
