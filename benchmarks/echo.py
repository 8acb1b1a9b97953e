"""Our host beside other WebSocket servers: how many messages a second each can echo.

    python -m benchmarks.echo [--quick] [--all] [--loop uvloop] [--json FILE] ...

Each server runs in a process of its own, all on the same kind of event loop, all with the same client, one
after the other, round after round (A B C, B C A, ...); README.md beside this file explains the figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aims import ECHO, THREADS, Aims
from benchmarks.conditions import Content, conditions, describe, progress, run, versions, writable
from benchmarks.deflate import SIZE, JsonClient, NotAgreed, check_deflate
from benchmarks.load import (
    BenchmarkError,
    Client,
    Load,
    Sample,
    ascii_message,
    binary_message,
    check_echo,
    measure,
)
from benchmarks.processes import PROGRAM, MissingServer, ServerProcess, running
from benchmarks.report import Cell, Samples, Table, as_json, figures_of, near_client_limit, table, verdicts
from benchmarks.rounds import take_turns
from benchmarks.servers import BARE, DEFLATING, ELSEWHERE, OURS, SERVERS

JSON = "json"
AIMS: Aims = {**ECHO, **THREADS}
IN_FLIGHT = {32: (10, 8), 1024: (10, 8), 65536: (4, 4), 1048576: (2, 2)}  # sockets, messages on each
SIZES = tuple(IN_FLIGHT)
PROGRAM_DEFLATING = (sys.executable, "-m", "benchmarks.deflating")
PEERS = [name for name in SERVERS if name not in ELSEWHERE]
PACKAGES = (OURS, "websockets", "aiohttp", "uvicorn", "wsproto", "picows", "aiofastnet", "uvloop", "pydantic")


def cell_of(text: str) -> Cell:
    """`32:many` and the like, from the command line."""
    size, _, shape = text.partition(":")
    shapes = ("one", "many", JSON) if size == str(SIZE) else ("one", "many")
    if not size.isdecimal() or int(size) not in SIZES or shape not in shapes:
        sizes = "|".join(map(str, SIZES))
        raise argparse.ArgumentTypeError(f"{text!r} reads neither {sizes}:one|many nor {SIZE}:{JSON}")
    sockets, window = (1, 1) if shape == "one" else IN_FLIGHT[int(size)]
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
    add("--json", type=writable, metavar="FILE", help="write all figures there")
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
    cells = [f"{size}:{shape}" for size in sizes for shape in ("one", "many")]
    return options.only or [cell_of(cell) for cell in [*cells, f"{SIZE}:{JSON}"]]


@dataclass
class Field:
    """The servers that take part.

    Attributes:
        plain: those of the cells without compression.
        deflating: those of the cell with it.
        left_out: why others take no part.
        replies: mean bytes of a compressed reply.
    """

    plain: list[ServerProcess] = field(default_factory=list)
    deflating: list[ServerProcess] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    replies: dict[str, float] = field(default_factory=dict)

    def of(self, cell: Cell) -> list[ServerProcess]:
        """Those that are measured in a cell."""
        return self.deflating if cell.shape == JSON else self.plain

    def leave_out(self, name: str, why: object) -> None:
        """Note that a server takes no part."""
        self.left_out[name] = str(why)
        progress(f"left out: {name} ({why})")


def start_all(
    stack: ExitStack, options: argparse.Namespace, core: int | None, cells: Sequence[Cell]
) -> Field:
    """Start and check every server that the cells need."""
    servers = Field()
    deflate = any(cell.shape == JSON for cell in cells)
    plain = any(cell.shape != JSON for cell in cells)
    for name in options.servers:
        try:
            if plain:
                servers.plain.append(started(stack, name, options.loop, core))
            if deflate:
                start_deflating(stack, servers, name, options.loop, core)
        except MissingServer as exc:
            servers.leave_out(name, exc)
    if not servers.plain and not servers.deflating:
        raise BenchmarkError("none of these servers can be started here")
    return servers


def started(stack: ExitStack, name: str, loop: str, core: int | None) -> ServerProcess:
    """A server that echoes rightly."""
    server = stack.enter_context(running(name, loop, core))
    if name != BARE:
        check(server)
    return server


def start_deflating(stack: ExitStack, servers: Field, name: str, loop: str, core: int | None) -> None:
    """Start a server with permessage-deflate, or note why it takes no part."""
    if name not in DEFLATING:
        if name not in (BARE, *ELSEWHERE):
            servers.leave_out(f"{name}, deflate", "it has no permessage-deflate")
        return
    server = stack.enter_context(running(name, loop, core, program=PROGRAM_DEFLATING))
    try:
        servers.replies[name], compresses = check_deflate(server.port)
    except NotAgreed as exc:
        servers.leave_out(f"{name}, deflate", exc)
        return
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{name}, deflate, does not echo rightly: {exc}") from exc
    if not compresses:
        progress(f"{name} does not compress its replies")
    servers.deflating.append(server)


def check(server: ServerProcess) -> None:
    """Raise, naming the server, unless it echoes rightly."""
    try:
        check_echo(server.port, SIZES)
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{server.name} does not echo rightly: {exc}") from exc


def load_of(cell: Cell, options: argparse.Namespace) -> Load:
    """The load of a cell."""
    make = ascii_message if options.text else binary_message
    client = JsonClient if cell.shape == JSON else Client
    return Load(make(cell.size), cell.sockets, cell.window, options.seconds, client)


def measure_server(server: ServerProcess, load: Load) -> Sample:
    """One measurement; what goes wrong in it names the server."""
    try:
        return measure(server.port, load, server.processor_seconds, exact=server.name != BARE)
    except (BenchmarkError, OSError) as exc:
        raise BenchmarkError(f"{server.name}: {exc}") from exc


def measure_all(servers: Field, cells: Sequence[Cell], options: argparse.Namespace) -> Samples:
    """All cells of all servers."""
    loads = {cell: load_of(cell, options) for cell in cells}
    turns = {
        cell: {server.name: partial(measure_server, server, loads[cell]) for server in servers.of(cell)}
        for cell in cells
    }
    return take_turns(turns, options.rounds)


def compare(options: argparse.Namespace, core: int | None) -> Content:
    """Measure all, print the table; return what was found."""
    under = conditions(core, options.loop, options.rounds, options.seconds)
    under["messages"] = messages = "text" if options.text else "binary"
    under["versions"] = packages = versions(PACKAGES)
    cells = cells_of(options)
    with ExitStack() as stack:
        servers = start_all(stack, options, core, cells)
        samples = measure_all(servers, cells, options)
    names = [server.name for cell in cells for server in servers.of(cell)]
    reference = OURS if OURS in names else names[0]
    found = figures_of(samples, reference)
    aims = AIMS if reference == OURS else {}
    what = f"{messages} messages, compressed only where it says deflate"
    print(describe(under, what, packages), table(found, reference, aims), sep="\n\n")
    print_notes(servers, found)
    content = {**under, "reference": reference, "left_out": servers.left_out, "reply_bytes": servers.replies}
    verdict = [verdict.as_json() for verdict in verdicts(found, aims)]
    return content | {"results": as_json(found), "aims": verdict}


def print_notes(servers: Field, found: Table) -> None:
    """What there is to say below the table."""
    for name, why in servers.left_out.items():
        print(f"\nleft out: {name} ({why})")
    if servers.replies:
        sizes = ", ".join(f"{name} {size:.0f}" for name, size in servers.replies.items())
        print(f"\nbytes of a compressed reply of {SIZE}: {sizes}")
    if held_back := [where for name, where in near_client_limit(found) if name != BARE]:
        print("\nthe client may have held back:", "; ".join(held_back))


def profile(options: argparse.Namespace, core: int | None) -> None:
    """Put the chosen load on one server under cProfile and print what it cost."""
    name = OURS if OURS in options.servers else options.servers[0]
    cell: Cell = options.profile
    program = PROGRAM_DEFLATING if cell.shape == JSON else PROGRAM
    with running(name, options.loop, core, profile=True, program=program) as server:
        sample = measure_server(server, load_of(cell, options))
    print(f"{name}, {cell}: {sample.rate:,.0f} messages/s under cProfile")
    print(server.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(arguments)
    return run(profile if options.profile else compare, options)


if __name__ == "__main__":
    sys.exit(main())
