"""Draws the figures of `build/bench.json`: how fast we are beside others, and how our cost grows.

    python -m benchmarks.chart [build/bench.json] [--into docs]

It writes `speed.svg` and `growth.svg`, each on a white ground of its own, to be read on any page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aims import ECHO
from benchmarks.report import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOUND = Path(__file__).resolve().parent.parent / "build" / "bench.json"
DOCS = Path(__file__).resolve().parent.parent / "docs"
INK, QUIET, PALE = "#1c2430", "#5a6675", "#c3cad3"
COLOURS = {
    "websockets": "#2f6fc1",
    "aiohttp": "#d9822b",
    "uvicorn-sansio": "#3f9463",
    "uvicorn-wsproto": "#8cc5a2",
    "picows": "#9a6fb8",
}
STYLE = {
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "interceptor",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
PANELS = {
    "sockets": ("More open sockets", "open sockets"),
    "rows": ("More rows in InterceptedURLs", "rows"),
    "bytes": ("Larger messages", "bytes of a message"),
    "handlers": ("More handlers", "handlers of WebSocketReceive"),
}
Json = Mapping[str, Any]


def draw_growth(series: Sequence[Json], file: Path) -> None:
    """Four panels, each with a grey line of what should be: flat, or linear."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(9.6, 7))
        for panel, (name, (title, label)) in zip(panels.flat, PANELS.items(), strict=True):
            draw_panel(panel, [line for line in series if line["name"] == name])
            panel.set(title=title, xlabel=label, ylabel="processor time, microseconds")
        figure.tight_layout(pad=2)
        save(figure, file)


def draw_panel(panel: Axes, lines: Sequence[Json]) -> None:
    """The costs that grow with one thing, on scales where a power is a straight line."""
    for colour, line in zip(COLOURS.values(), lines, strict=False):
        counts, costs = zip(*line["points"], strict=True)
        expected = f"{line['expected']}, as it should be" if line is lines[0] else None
        panel.plot(*reference(line), color=PALE, linewidth=5, solid_capstyle="round", label=expected)
        panel.plot(counts, costs, color=colour, marker="o", markersize=4, label=line["cost"])
    measured = [cost for line in lines for _, cost in line["points"]]
    panel.set(
        xscale="log", yscale="log", ylim=(min(measured) / 3, max(max(measured), 10 * min(measured)) * 3)
    )
    label_ticks(panel, [count for count, _ in lines[0]["points"]])
    panel.grid(color=PALE, linewidth=0.5, alpha=0.6)
    panel.legend(frameon=False, loc="best")


def reference(line: Json) -> tuple[list[float], list[float]]:
    """What should be: the last cost all along, or the straight line from the first cost to the last."""
    (first, low), (last, high) = line["points"][0], line["points"][-1]
    counts = [first * (last / first) ** (step / 24) for step in range(25)]
    slope = 0 if line["expected"] == "flat" else (high - low) / (last - first)
    return counts, [high + slope * (count - last) for count in counts]


def label_ticks(panel: Axes, counts: Sequence[int]) -> None:
    """Numbers as people write them, at what was measured and at the powers of ten."""
    names = [Cell(count, "one", 1, 1).size_name if counts[-1] > 1 << 20 else f"{count:,}" for count in counts]
    panel.set_xticks(counts, names)
    low, high = panel.get_ylim()
    tens = [10.0**power for power in range(-3, 9) if low <= 10.0**power <= high]
    panel.set_yticks(tens, [f"{ten:,g}" for ten in tens])
    panel.minorticks_off()


def draw_speed(echo: Mapping[str, Json], file: Path) -> None:
    """A panel for each event loop, a group of bars for each cell, a bar for each peer."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        size = (4.6 * len(echo) + 1, 7.6)
        figure, panels = plt.subplots(1, len(echo), figsize=size, squeeze=False, sharey=True)
        for panel, (loop, found) in zip(panels.flat, echo.items(), strict=True):
            draw_ratios(panel, found["results"])
            panel.set(title=loop, xlabel="our messages/s divided by theirs: right of 1 we are faster")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="upper center", ncols=len(labels))
        figure.tight_layout(pad=2, rect=(0, 0, 1, 0.96))
        save(figure, file)


def draw_ratios(panel: Axes, results: Sequence[Json]) -> None:
    """The bars of one loop: to the right of 1 we are faster, to the left slower."""
    cells = list(
        dict.fromkeys(Cell(*(row[key] for key in ("size", "shape", "sockets", "window"))) for row in results)
    )
    step = 1 / (len(COLOURS) + 1)
    for place, peer in enumerate(COLOURS):
        rows = [row for row in results if row["server"] == peer and row["ratio"] is not None]
        where = [[cell.name for cell in cells].index(row["cell"]) + place * step for row in rows]
        ratios = [row["ratio"] for row in rows]
        widths = [ratio - 1 for ratio in ratios]
        panel.barh(where, widths, left=1, height=step * 0.9, color=COLOURS[peer], label=peer)
        for height, row in zip(where, rows, strict=True):
            mark(panel, height, step, row)
    panel.plot([], [], color=INK, marker="|", markersize=12, markeredgewidth=2, linestyle="", label="aim")
    low, high = panel.get_xlim()
    panel.set(
        xscale="log", xlim=(min(0.5, low), high), yticks=[place + 2 * step for place in range(len(cells))]
    )
    panel.set_yticklabels([str(cell).replace(", ", "\n") for cell in cells], color=INK)
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 4, 8) if panel.get_xlim()[0] <= tick <= panel.get_xlim()[1]]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
    panel.tick_params(axis="y", length=0)
    panel.axvline(1, color=INK, linewidth=1)
    panel.set_ylim(len(cells) - step, -step)


def mark(panel: Axes, height: float, step: float, row: Json) -> None:
    """The figure at the end of a bar, and a line where the aim is."""
    end = ratio = row["ratio"]
    faster = ratio >= 1
    if aim := ECHO.get((row["cell"], row["server"])):
        panel.plot([aim.limit] * 2, [height - step / 2, height + step / 2], color=INK, linewidth=2, zorder=3)
        if 1 <= (aim.limit / ratio if faster else ratio / aim.limit) < 1.3:
            end = aim.limit  # the figure stands beyond it
    panel.annotate(
        f"{ratio:.2f}",
        (end, height),
        (4 if faster else -4, 0),
        textcoords="offset points",
        ha="left" if faster else "right",
        va="center",
        fontsize=8,
        color=QUIET,
    )


def save(figure: Any, file: Path) -> None:
    """Write the picture."""
    import matplotlib.pyplot as plt

    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def draw(found: Json, folder: Path) -> list[Path]:
    """Draw what the figures are there for; return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    loops = found.get("echo", {})
    if loops:
        files.append(folder / "speed.svg")
        draw_speed(loops, files[-1])
    for content in list(found.get("growth", {}).values())[:1]:
        files.append(folder / "growth.svg")
        draw_growth(content["series"], files[-1])
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.chart", description="Draws what was measured.")
    parser.add_argument("found", type=Path, nargs="?", default=FOUND, help="build/bench.json")
    parser.add_argument("--into", type=Path, default=DOCS, help="folder of the pictures (docs)")
    options = parser.parse_args(arguments)
    if not options.found.exists():
        parser.error(f"there is no {options.found}; `make bench` makes it")
    for file in draw(json.loads(options.found.read_text()), options.into):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
