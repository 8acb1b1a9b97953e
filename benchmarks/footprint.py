"""What is paid before anything is sent: the memory of an open, idle socket, and the time of the import.

    python -m benchmarks.footprint [--quick] [--loop uvloop] [--sockets 5000] [--json FILE]

Memory is what the server's process grows by (RSS, Linux only) for each of many sockets, all open, each of
which has echoed one message of 1 KiB; garbage is collected before each look. Settings are the defaults.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

if not __package__:  # started as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aims import IMPORT, MEMORY, Verdict
from benchmarks.conditions import Content, conditions, describe, progress, run, versions, writable
from benchmarks.deflate import JsonClient
from benchmarks.echo import PROGRAM_DEFLATING
from benchmarks.load import TEXT, BenchmarkError, Client, Message, binary_message
from benchmarks.memory import WARM, allowed_sockets
from benchmarks.processes import PROGRAM, MissingServer, ServerProcess, running
from benchmarks.report import aligned, number
from benchmarks.servers import OURS

NAMES = (OURS, "websockets", "aiohttp")
PACKAGES = (*NAMES, "uvloop", "pydantic", "cryptography", "structlog", "h11")
KIB = 1024


@dataclass(frozen=True)
class ImportTime:
    """Milliseconds of one import.

    Attributes:
        total: of all of it.
        own: of what no other package asked for: the modules, and those of the standard library that they use.
        modules: of the package's modules alone.
    """

    total: float
    own: float
    modules: float


def used_client(port: int, deflate: bool) -> Client:
    """A WebSocket that has echoed one message, rightly."""
    if not deflate:
        plain = Client(port)
        plain.exchange([binary_message(KIB)])
        return plain
    client = JsonClient(port)
    client.prepare(Message(TEXT, b""), 1)
    client.sock.sendall(client.next_frames(1))
    while not client.receive(bytearray()):
        pass
    client.check()
    return client


def weigh(server: ServerProcess, sockets: int, deflate: bool) -> float | None:
    """KiB of the server's memory for each socket; None where the system does not tell. Ends the server."""
    for _ in range(WARM):  # so that what is made once is not counted
        used_client(server.port, deflate).close(exact=False)
    server.order("gc")
    before = server.memory()
    clients = [used_client(server.port, deflate) for _ in range(sockets)]
    server.order("gc")
    after = server.memory()
    lost = sum(is_over(client.sock) for client in clients)
    server.process.kill()  # all at once; closing handshakes would only take time
    for client in clients:
        client.sock.close()
    if lost:
        raise BenchmarkError(f"{server.name}: {lost} of {sockets} sockets had ended")
    return None if before is None or after is None else (after - before) / sockets / KIB


def is_over(sock: socket.socket) -> bool:
    """Whether the server has ended a connection."""
    sock.setblocking(False)
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def weigh_all(
    options: argparse.Namespace, core: int | None, sockets: int
) -> dict[str, dict[str, float | None]]:
    """KiB of memory for each socket, by "plain" or "deflate", then by server."""
    found: dict[str, dict[str, float | None]] = {"plain": {}, "deflate": {}}
    for shape, row in found.items():
        program = PROGRAM_DEFLATING if shape == "deflate" else PROGRAM
        for name in NAMES:
            progress(f"memory: {name}, {shape}")
            try:
                with running(name, options.loop, core, program=program) as server:
                    row[name] = weigh(server, sockets, shape == "deflate")
            except MissingServer as exc:
                progress(f"left out: {name} ({exc})")
    return found


def import_time(name: str, compiled: str) -> ImportTime:
    """The time of one import in a new process, by `-X importtime`; its bytecode is kept in that folder."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {name}"]
    root = Path(__file__).resolve().parent.parent
    variables = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=variables)
    lines = [line.split("|") for line in done.stderr.splitlines()]
    times = [(module.rstrip(), own.removeprefix("import time:"), total) for own, total, module in lines[1:]]
    return add_up(name, [(module, int(own), int(total)) for module, own, total in times])


def add_up(name: str, rows: Sequence[tuple[str, int, int]]) -> ImportTime:
    """What an import took, from lines of module, microseconds of itself, and with those that it asked for.

    The module's name is indented by who asked for it, and comes after those that it asked for itself.
    """
    end = [module.strip() for module, _, _ in rows].index(name)
    total, foreign, outside = rows[end][2], 0, math.inf
    for module, _, spent in reversed(rows[:end]):
        depth = len(module) - len(module.lstrip())
        if depth > outside:  # asked for by a package of others
            continue
        outside = math.inf
        top = module.strip().partition(".")[0]
        if depth == 1:  # what the interpreter loads before
            break
        if top != name and top not in sys.stdlib_module_names:
            foreign, outside = foreign + spent, depth
    modules = sum(spent for module, spent, _ in rows if module.strip().partition(".")[0] == name)
    return ImportTime(total / 1e3, (total - foreign) / 1e3, modules / 1e3)


def median_import(name: str, runs: int) -> ImportTime:
    """The median of several imports; the first only fills the caches."""
    with tempfile.TemporaryDirectory() as compiled:
        found = [astuple(import_time(name, compiled)) for _ in range(runs + 1)][1:]
    return ImportTime(*map(statistics.median, zip(*found, strict=True)))


def table_of(memory: dict[str, dict[str, float | None]]) -> str:
    """The memory figures for people to read."""
    heading = ("idle socket", "server", "KiB", "aim")
    groups = [[words_of(shape, name, size) for name, size in row.items()] for shape, row in memory.items()]
    return aligned(heading, groups, names=2)


def words_of(shape: str, name: str, size: float | None) -> tuple[str, ...]:
    """One line of them."""
    aim = Verdict("", size, MEMORY[shape]).aim.words(size) if name == OURS else ""
    return shape, name, number(size, ".1f"), aim


def verdicts(memory: dict[str, dict[str, float | None]], spent: ImportTime) -> list[Verdict]:
    """What became of the aims."""
    found = [
        Verdict(f"KiB of an idle socket, {shape}", memory[shape][OURS], aim) for shape, aim in MEMORY.items()
    ]
    return [*found, Verdict("ms of the import, without other packages", spent.own, IMPORT)]


def compare(options: argparse.Namespace, core: int | None) -> Content:
    """Measure all, print the tables; return what was found."""
    sockets = allowed_sockets(options.sockets)
    under = conditions(core, options.loop, options.rounds)
    packages = versions(PACKAGES)
    memory = weigh_all(options, core, sockets)
    progress("import")
    spent = median_import(OURS, options.rounds)
    print(describe(under, f"{sockets:,} idle sockets", packages), table_of(memory), sep="\n\n")
    print(
        f"\nimport: {spent.own:.0f} ms ({IMPORT.words(spent.own)}), {spent.modules:.0f} ms of it our modules,"
    )
    print(f"the rest modules of the standard library; {spent.total:.0f} ms with other packages")
    aims = [verdict.as_json() for verdict in verdicts(memory, spent)]
    content = {**under, "versions": packages, "sockets": sockets, "memory_kib": memory}
    return content | {"import_ms": asdict(spent), "aims": aims}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(prog="benchmarks.footprint", description="Memory and import time.")
    add = parser.add_argument
    add("--quick", action="store_true", help="1,000 sockets, 3 imports: rougher")
    add("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the servers' event loop")
    add("--sockets", type=int, help="open at once (5,000)")
    add("--rounds", type=int, help="how often the import is measured (9)")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    options.sockets = options.sockets or (1000 if options.quick else 5000)
    options.rounds = options.rounds or (3 if options.quick else 9)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    return run(compare, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
