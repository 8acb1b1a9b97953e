"""What the benchmarks have in common: the cores they keep to, and how figures came about."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.load import BenchmarkError
from benchmarks.processes import MissingServer

Content = dict[str, object]
"""What a benchmark found, for JSON."""


def progress(text: str) -> None:
    """Show that something happens, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def pin() -> int | None:
    """Keep the client on one core; return another for the servers, or None where that cannot be done."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[0]})
    return cores[-1]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of every one of these packages that is installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def writable(text: str) -> Path:
    """The file that an option names, refused at once if it cannot be written: figures take minutes."""
    path = Path(text)
    new = not path.exists()
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {exc.strerror}") from exc
    return path


def writable_folder(text: str) -> Path:
    """The folder that an option names, made if it is not there, and refused at once if it cannot be used."""
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{text} cannot be made a folder: {exc.strerror}") from exc
    if not os.access(text, os.W_OK):
        raise argparse.ArgumentTypeError(f"nothing can be written into {text}")
    return Path(text)


def run(work: Callable[[argparse.Namespace, int | None], Content | None], options: argparse.Namespace) -> int:
    """Do the work on one core, write what it found where the options say; return the exit status."""
    core = pin()
    try:
        content = work(options, core)
    except (BenchmarkError, MissingServer) as exc:
        progress(f"failed: {exc}")
        return 1
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    if content and options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def conditions(core: int | None, loop: str, rounds: int, seconds: float | None = None) -> dict[str, object]:
    """Under what conditions the figures were taken."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "pinned": core is not None,
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "loop": loop,
        "rounds": rounds,
        "seconds": seconds,
    }


def describe(under: Mapping[str, object], what: str, packages: Mapping[str, str]) -> str:
    """The conditions in two lines."""
    pinned = "pinned" if under["pinned"] else "not pinned"
    length = f" of {under['seconds']} s" if under["seconds"] else ""
    return (
        f"Python {under['python']}, {under['loop']}, {what}, "
        f"{under['rounds']} rounds{length}, {under['cores']} cores, {pinned}\n"
    ) + ", ".join(f"{name} {version}" for name, version in packages.items())
