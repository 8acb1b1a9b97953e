"""The chart of the soaks' memory over time, as SVG that can be read on a light page and on a dark one."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import BenchmarkError

INK = "#010203"  # stands for the colour of the text around the chart, which the SVG is told of afterwards
PLAIN = {"Date": None, "Creator": None}  # The same figures give the same file.
LINES = ("#3b82f6", "#e8833a", "#3aa675")
STYLE = """<style>
  svg { color: #1c2430 }
  @media (prefers-color-scheme: dark) { svg { color: #e4e9f0 } }
</style>"""


def read_run(path: Path) -> dict[str, Any]:
    """What `--json` wrote of a run.

    Raises:
        BenchmarkError: there is no such file, or it is of something else.
    """
    try:
        run: dict[str, Any] = json.loads(path.read_text())
        return {"samples": run["samples"], "loop": run["loop"]}
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise BenchmarkError(f"{path} is no file that --json wrote of a soak: {exc!r}") from exc


def draw_chart(files: Sequence[Path], target: Path) -> None:
    """Draw the memory of the host in each run that was written with `--json`.

    Raises:
        BenchmarkError: matplotlib is missing, or a file is none of those.
    """
    try:
        import matplotlib
    except ImportError as exc:
        raise BenchmarkError('a chart needs matplotlib: pip install "interceptor[bench]"') from exc
    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "soak", "font.family": "sans-serif"}
    coloured = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with pyplot.rc_context(settings | dict.fromkeys(coloured, INK)):
        figure, axes = pyplot.subplots(figsize=(8, 3))
        for path, colour in zip(files, LINES, strict=False):
            run = read_run(path)
            minutes = [sample[0] / 60 for sample in run["samples"]]
            axes.plot(
                minutes, [sample[1] / 2**20 for sample in run["samples"]], color=colour, label=run["loop"]
            )
        axes.axvline(2, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="minutes", ylabel="MiB of memory", ylim=(0, None), xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        image = io.StringIO()
        figure.savefig(image, format="svg", transparent=True, bbox_inches="tight", metadata=PLAIN)
    text = image.getvalue().replace(INK, "currentColor")
    target.write_text(text.replace("<defs>", f"{STYLE}\n <defs>", 1))
