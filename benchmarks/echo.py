"""Our host beside other WebSocket servers: how many messages a second each can echo.

    python -m benchmarks.echo [--quick] [--all] [--loop uvloop] [--json FILE] ...

Each server runs in a process of its own, all on the same kind of event loop, all with the same client, one
after the other, round after round (A B C A B C ...); README.md beside this file explains the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.conditions import conditions, describe, pin, progress, versions
from benchmarks.load import BenchmarkError, Load, Sample, ascii_message, binary_message, check_echo, measure
from benchmarks.processes import MissingServer, ServerProcess, running
from benchmarks.report import Cell, Samples, as_json, figures_of, near_client_limit, table
from benchmarks.servers import BARE, ELSEWHERE, OURS, SERVERS

IN_FLIGHT = {32: (10, 8), 1024: (10, 8), 65536: (4, 4), 1048576: (2, 2)}  # sockets, messages on each
SIZES = tuple(IN_FLIGHT)
PEERS = [name for name in SERVERS if name not in ELSEWHERE]
PACKAGES = (OURS, "websockets", "aiohttp", "uvicorn", "wsproto", "picows", "aiofastnet", "uvloop", "pydantic")


def cell_of(text: str) -> Cell:
    """`32:many` and the like, from the command line."""
    size, _, shape = text.partition(":")
    if not size.isdecimal() or int(size) not in SIZES or shape not in ("one", "many"):
        sizes = "|".join(map(str, SIZES))
        raise argparse.ArgumentTypeError(f"{text!r} does not read {sizes}:one|many")
    sockets, window = IN_FLIGHT[int(size)] if shape == "many" else (1, 1)
    return Cell(int(size), shape, sockets, window)


def names_of(text: str) -> list[str]:
    """`interceptor,websockets` and the like, from the command line."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SERVERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SERVERS)}")
    return names


def parser_of_options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.echo", description="WebSocket echo, side by side.")
    add = parser.add_argument
    add("--quick", action="store_true", help="3 short rounds: under 40 s, and rougher")
    add("--all", action="store_true", help="messages of 1 MiB too")
    add("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the servers' event loop")
    add("--text", action="store_true", help="text messages (ASCII) instead of binary ones")
    add("--servers", type=names_of, default=PEERS, metavar="A,B", help=", ".join(SERVERS))
    what = "only ours: callbacks on the loop, by post and in dq() on another thread"
    add("--threads", action="store_const", dest="servers", const=[OURS, *ELSEWHERE], help=what)
    add("--only", type=cell_of, nargs="+", metavar="SIZE:SHAPE", help="for example 32:many 1024:one")
    add("--rounds", type=int, help="how often all is measured (5)")
    add("--seconds", type=float, help="of one measurement (0.4)")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    what = (
        "run ours (or the first of --servers) under cProfile, print the 25 functions that cost most; 32:many"
    )
    add("--profile", type=cell_of, nargs="?", const=cell_of("32:many"), metavar="SIZE:SHAPE", help=what)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick stands for filled in."""
    options = parser_of_options().parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.17 if options.quick else 0.4)
    return options


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """What is to be measured."""
    sizes = SIZES if options.all else SIZES[:-1]
    return options.only or [cell_of(f"{size}:{shape}") for size in sizes for shape in ("one", "many")]


def start_all(
    stack: ExitStack, options: argparse.Namespace, core: int | None
) -> tuple[list[ServerProcess], dict[str, str]]:
    """Start and check every server; return those that run, and why the others do not."""
    servers, missing = [], {}
    for name in options.servers:
        try:
            server = stack.enter_context(running(name, options.loop, core))
        except MissingServer as exc:
            missing[name] = str(exc)
            progress(f"left out: {name} ({exc})")
            continue
        if name != BARE:
            check(server)
        servers.append(server)
    if not servers:
        raise BenchmarkError("none of these servers can be started here")
    return servers, missing


def check(server: ServerProcess) -> None:
    """Raise, naming the server, unless it echoes rightly."""
    try:
        check_echo(server.port, SIZES)
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{server.name} does not echo rightly: {exc}") from exc


def load_of(cell: Cell, options: argparse.Namespace) -> Load:
    """The load of a cell."""
    make = ascii_message if options.text else binary_message
    return Load(make(cell.size), cell.sockets, cell.window, options.seconds)


def measure_server(server: ServerProcess, load: Load) -> Sample:
    """One measurement; what goes wrong in it names the server."""
    try:
        return measure(server.port, load, server.processor_seconds, exact=server.name != BARE)
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{server.name}: {exc}") from exc


def measure_all(
    servers: Sequence[ServerProcess], cells: Sequence[Cell], options: argparse.Namespace
) -> Samples:
    """All cells of all servers in turn, round after round."""
    samples: Samples = {cell: {server.name: [] for server in servers} for cell in cells}
    loads = {cell: load_of(cell, options) for cell in cells}
    started = time.monotonic()
    for round_ in range(1, options.rounds + 1):
        for cell in cells:
            for server in servers:
                samples[cell][server.name].append(measure_server(server, loads[cell]))
            rates = "  ".join(f"{name} {found[-1].rate:,.0f}" for name, found in samples[cell].items())
            when = f"{time.monotonic() - started:4.0f} s  round {round_}/{options.rounds}"
            progress(f"{when}  {cell.size_name}, {cell.shape_name}:  {rates}")
    return samples


def compare(options: argparse.Namespace, core: int | None) -> None:
    """Measure all, print the table and write the JSON."""
    under = conditions(core, options.loop, options.rounds, options.seconds)
    under["messages"] = messages = "text" if options.text else "binary"
    under["versions"] = packages = versions(PACKAGES)
    with ExitStack() as stack:
        servers, missing = start_all(stack, options, core)
        samples = measure_all(servers, cells_of(options), options)
    names = [server.name for server in servers]
    reference = OURS if OURS in names else names[0]
    found = figures_of(samples, reference)
    print(describe(under, messages, packages), table(found, reference), sep="\n\n")
    for name, why in missing.items():
        print(f"\nleft out: {name} ({why})")
    if held_back := [where for name, where in near_client_limit(found) if name != BARE]:
        print("\nthe client may have held back:", "; ".join(held_back))
    if options.json:
        content = {**under, "reference": reference, "left_out": missing, "results": as_json(found)}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def profile(options: argparse.Namespace, core: int | None) -> None:
    """Put the chosen load on one server under cProfile and print what it cost."""
    name = OURS if OURS in options.servers else options.servers[0]
    cell: Cell = options.profile
    with running(name, options.loop, core, profile=True) as server:
        sample = measure_server(server, load_of(cell, options))
    print(f"{name}, {cell.size_name}, {cell.shape_name}: {sample.rate:,.0f} messages/s under cProfile")
    print(server.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(arguments)
    core = pin()
    try:
        (profile if options.profile else compare)(options, core)
    except (BenchmarkError, MissingServer) as exc:
        progress(f"failed: {exc}")
        return 1
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
