"""A WebSocket echo through our host, no proxy, a plain TCP relay and mitmproxy; and what tunnels weigh.

    python -m benchmarks.relay [--quick] [--loop uvloop] [--target bare] [--json FILE] ...

The echo is the server of `websockets`, which never heard of us; every proxy is asked for a tunnel to it by
CONNECT and runs in a process of its own. README.md beside this file explains the figures.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aims import RELAY
from benchmarks.conditions import Content, conditions, describe, progress, run, versions, writable
from benchmarks.load import BenchmarkError, Load, Sample, binary_message, check_echo, measure
from benchmarks.memory import MIB, HeldBack, allow_files, idle_tunnel, slow_reader
from benchmarks.processes import MissingServer, ServerProcess, running
from benchmarks.relays import MITMPROXY, OURS, PLAIN, RELAYS
from benchmarks.report import Cell, Samples, as_json, figures_of, near_client_limit, table, verdicts
from benchmarks.servers import BARE

NONE = "no proxy"
CELLS = [
    Cell(32, "one", 1, 1),
    *(Cell(size, "many", 10, 8) for size in (32, 1024)),
    Cell(65536, "many", 4, 4),
]
PACKAGES = (OURS, "websockets", "uvloop")
READERS = ("client", "server")
HOLDING_BACK = (
    OURS,
    PLAIN,
)  # mitmproxy keeps all that it passes on, and a tunnel that is looked into is no other
FILES = 4096
OWN_ENVIRONMENT = Path(__file__).resolve().parent.parent / "build" / "mitmproxy"


@dataclass(frozen=True)
class Way:
    """A way to the echo: by a proxy, or straight where it is None."""

    name: str
    proxy: ServerProcess | None

    @property
    def port(self) -> int | None:
        """The proxy's port."""
        return None if self.proxy is None else self.proxy.port

    def processor_seconds(self) -> float | None:
        """The proxy's processor time; None without one, or where the system does not tell."""
        return None if self.proxy is None else self.proxy.processor_seconds()


@dataclass(frozen=True)
class Weight:
    """What tunnels weigh in a proxy; bytes, None where it is not known."""

    idle: float | None
    slow: dict[str, HeldBack]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(prog="benchmarks.relay", description="Pass-through, side by side.")
    add = parser.add_argument
    add("--quick", action="store_true", help="10 rounds, 256 MiB for slow readers: rougher")
    add(
        "--loop",
        choices=["asyncio", "uvloop"],
        default="asyncio",
        help="the event loop of all but the client",
    )
    add("--target", choices=["websockets", "bare"], default="websockets", help="the echo behind the proxies")
    add("--without", action="append", choices=[NONE, *RELAYS], default=[], help="leave one out")
    add("--rounds", type=int, help="how often all is measured (20)")
    add("--seconds", type=float, help="of one measurement (0.1)")
    add("--tunnels", type=int, default=500, help="idle tunnels that are weighed; 0 for no memory figures")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    add("--profile", action="store_true", help="run our host under cProfile at 1 KiB, print what costs most")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (10 if options.quick else 20)
    options.seconds = options.seconds or 0.1
    options.flood = (256 if options.quick else 1024) * MIB
    options.target = BARE if options.target == "bare" else options.target
    return options


def mitmproxy_python() -> str:
    """The Python of mitmproxy's own environment, which is made where it is not there yet.

    Raises:
        MissingServer: it cannot be made.
    """
    windows = sys.platform == "win32"
    python = OWN_ENVIRONMENT / ("Scripts/python.exe" if windows else "bin/python")
    stamp = OWN_ENVIRONMENT / "ready"
    if not stamp.exists():
        progress("installing mitmproxy into build/mitmproxy; a minute, once")
        venv.create(OWN_ENVIRONMENT, with_pip=True, clear=True, symlinks=not windows)
        packages = ["mitmproxy"] if windows else ["mitmproxy", "uvloop"]
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        if subprocess.run(command, check=False).returncode:
            raise MissingServer("pip could not install it")
        stamp.touch()
    return str(python)


@functools.cache
def mitmproxy_version(python: str) -> str:
    """Which mitmproxy is in that environment."""
    ask = "import importlib.metadata as m; print(m.version('mitmproxy'))"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()


def start_proxy(stack: ExitStack, name: str, loop: str, core: int | None) -> ServerProcess:
    """Start a proxy.

    Raises:
        MissingServer: a package is not there.
        BenchmarkError: it did not start.
    """
    python = mitmproxy_python() if name == MITMPROXY else sys.executable
    return stack.enter_context(running(name, loop, core, program=(python, "-m", "benchmarks.relays")))


def start_all(
    stack: ExitStack, options: argparse.Namespace, core: int | None, port: int
) -> tuple[list[Way], dict[str, str]]:
    """Start and check every proxy; return the ways there are, and why others are not."""
    ways, missing = [], {}
    for name in (NONE, *RELAYS):
        if name in options.without:
            continue
        try:
            way = Way(name, None if name == NONE else start_proxy(stack, name, options.loop, core))
        except MissingServer as exc:
            missing[name] = str(exc)
            progress(f"left out: {name} ({exc})")
            continue
        if options.target != BARE:
            check_echo(port, [cell.size for cell in CELLS], way.port)
        ways.append(way)
    return ways, missing


def measure_way(way: Way, port: int, cell: Cell, options: argparse.Namespace) -> Sample:
    """One measurement; what goes wrong in it names the way."""
    load = Load(binary_message(cell.size), cell.sockets, cell.window, options.seconds)
    try:
        return measure(port, load, way.processor_seconds, options.target != BARE, way.port)
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{way.name}: {exc}") from exc


def measure_all(ways: Sequence[Way], port: int, options: argparse.Namespace) -> Samples:
    """All cells of all ways in turn, round after round."""
    samples: Samples = {cell: {way.name: [] for way in ways} for cell in CELLS}
    started = time.monotonic()
    for round_ in range(1, options.rounds + 1):
        for cell in CELLS:
            turn = round_ % len(ways)  # nobody is always the one that comes after mitmproxy
            for way in [*ways[turn:], *ways[:turn]]:
                samples[cell][way.name].append(measure_way(way, port, cell, options))
        progress(f"{time.monotonic() - started:4.0f} s  round {round_}/{options.rounds}")
    return samples


def weigh(options: argparse.Namespace, core: int | None, port: int) -> dict[str, Weight]:
    """The memory of each proxy, in a new process of its own."""
    found = {}
    for name in RELAYS:
        if name in options.without:
            continue
        progress(f"memory: {name}")
        with ExitStack() as stack:
            try:
                proxy = start_proxy(stack, name, options.loop, core)
            except MissingServer:
                continue
            idle = idle_tunnel(proxy, port, options.tunnels)
            readers = READERS if name in HOLDING_BACK else ()
            found[name] = Weight(
                idle, {reader: slow_reader(proxy, options.flood, reader) for reader in readers}
            )
    return found


def in_units(value: float | None, unit: int, name: str) -> str:
    """A number of bytes for people to read."""
    return "not known" if value is None else f"{value / unit:,.1f} {name}"


def describe_weights(found: dict[str, Weight], options: argparse.Namespace) -> str:
    """The memory figures for people to read."""
    lines = [
        f"memory of the proxy: {options.tunnels} idle tunnels, {options.flood // MIB} MiB to a slow reader"
    ]
    for name, weight in found.items():
        lines.append(f"  {name}: {in_units(weight.idle, 1024, 'KiB')} for each idle tunnel")
        for reader, held in weight.slow.items():
            growth, ahead = in_units(held.growth, MIB, "MiB"), in_units(held.ahead, MIB, "MiB")
            lines.append(f"    slow {reader}: at most {growth} more; the sender was {ahead} ahead of it")
    return "\n".join(lines)


def compare(options: argparse.Namespace, core: int | None) -> Content:
    """Measure all, print the tables; return what was found."""
    under = conditions(core, options.loop, options.rounds, options.seconds)
    with ExitStack() as stack:
        target = stack.enter_context(running(options.target, options.loop, core))
        with ExitStack() as proxies:
            ways, missing = start_all(proxies, options, core, target.port)
            samples = measure_all(ways, target.port, options)
        weights = weigh(options, core, target.port) if options.tunnels and options.target != BARE else {}
    packages = versions(PACKAGES)
    if any(way.name == MITMPROXY for way in ways):
        packages[MITMPROXY] = mitmproxy_version(mitmproxy_python())
    found = figures_of(samples, OURS)
    what = describe(under, "binary messages, no compression", packages)
    print(f"echo: {options.target}", what, table(found, OURS, RELAY), sep="\n\n")
    if held_back := [where for name, where in near_client_limit(found) if name != NONE]:
        print("\nthe client may have held back:", "; ".join(held_back))
    if weights:
        print("\n" + describe_weights(weights, options))
    memory = {name: asdict(weight) for name, weight in weights.items()}
    content = {**under, "target": options.target, "versions": packages, "left_out": missing}
    aims = [verdict.as_json() for verdict in verdicts(found, RELAY)]
    return content | {"reference": OURS, "results": as_json(found), "memory": memory, "aims": aims}


def profile(options: argparse.Namespace, core: int | None) -> None:
    """Put a load of 1 KiB messages on our host under cProfile and print what it cost."""
    with ExitStack() as stack:
        target = stack.enter_context(running(options.target, options.loop, core))
        program = (sys.executable, "-m", "benchmarks.relays")
        with running(OURS, options.loop, core, profile=True, program=program) as proxy:
            sample = measure_way(Way(OURS, proxy), target.port, CELLS[2], options)
    print(f"{sample.rate:,.0f} messages/s under cProfile\n{proxy.output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(arguments)
    allow_files(FILES)
    return run(profile if options.profile else compare, options)


if __name__ == "__main__":
    sys.exit(main())
