"""What a peer or a program that misbehaves costs: memory beside its bound, and the latency of everybody else.

    python -m benchmarks.bounds [--loop asyncio|uvloop|both] [--only WORD ...] [--json figures.json]

Each case has a host of its own. A socket that is no part of the trouble echoes all the time, one message in
flight; the 99th percentile of its latency with the trouble is divided by that without it, in the same run.
Where the program's own thread is what is slow, the callbacks of all sockets wait for it, so this one sends
pings, which the host answers. The exit status is 1 where memory went over its bound, or where somebody did
not get what was sent.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass

from benchmarks.bounds_hosts import FREE
from benchmarks.bounds_peers import Flood, trouble
from benchmarks.conditions import conditions, pin, progress, versions, writable
from benchmarks.load import (
    BINARY,
    BenchmarkError,
    Client,
    binary_message,
    client_frame,
    receive_exactly,
    server_frame,
)
from benchmarks.processes import MissingServer, ServerProcess, running
from interceptor import Limits

KIB, MIB = 1024, 1024 * 1024
GIB = 1024 * MIB
PROGRAM = (sys.executable, "-m", "benchmarks.bounds_hosts")
PACKAGES = ("interceptor", "websockets", "uvloop")

QUIET = 1.0  # seconds that the other socket is measured alone, before the trouble and after it
LEAST, MOST = 2.0, 20.0  # seconds that it is measured with trouble that does not end, and with one that does
PING, PONG = 9, 10
PAUSE = 0.002  # seconds between two of its messages
EVENT = 512  # bytes that an event takes besides its data; it is counted for as much
READ = 256 * KIB  # bytes of one read of a socket
SLICE = 16 * KIB  # bytes of frames that may be handled before the host asks again whether there is room
HEAP = MIB  # bytes that a thread's own heap takes of which nothing is in use: the loop's cannot have them
NOISE = 3 * MIB // 2  # bytes that a process grows by when it does something for the first time

WITHIN = (
    f"all within their bounds and {NOISE / MIB:.1f} MiB, which a process grows by when it does something for "
    "the first time"
)


def incoming(limits: Limits, size: int) -> int:
    """The most bytes that the messages of one socket take which the program has not had yet.

    The mark; what one read brought beyond it; the events of one slice of frames; and the message that is
    being read, at most four times: its frame, unmasked, put together, and as the program gets it.
    """
    frame = size + 6
    events = max(1, SLICE // frame) * (EVENT + size)
    return limits.read_buffer + READ + events + 4 * size


def outgoing(limits: Limits, size: int, threads: bool = False) -> int:
    """The most bytes of one socket that the peer has not taken yet.

    The mark; the message that goes over it, with its frame; what the transport has. What other threads send
    is counted apart until the loop gets it, and has a heap of its own.
    """
    one = limits.write_buffer + 2 * size + READ
    return one + limits.write_buffer + HEAP if threads else one


@dataclass(frozen=True)
class Case:
    """One kind of trouble.

    Attributes:
        name: in words.
        host: what the program does, see bounds_hosts.py.
        flood: what the peer does.
        bound: bytes that the host may grow by.
        delivers: whether all that was sent must come to the program in the end.
    """

    name: str
    host: str
    flood: Flood
    bound: int
    delivers: bool = False


BIG = 64 * KIB
HUGE = 16 * MIB
LIMITS = Limits()
IN, OUT = incoming(LIMITS, BIG), outgoing(LIMITS, BIG)
CASES = (
    Case("4 GiB, to a handler that takes it", "loop take", Flood(BIG, 4 * GIB // BIG, ends=True), IN, True),
    Case(
        "64 MiB in messages of 1 KiB, to the same",
        "loop take",
        Flood(KIB, 64 * KIB, ends=True),
        incoming(LIMITS, KIB),
        True,
    ),
    Case(
        "4 GiB in messages of 16 MiB, to the same",
        "loop take",
        Flood(HUGE, 4 * GIB // HUGE, ends=True),
        incoming(LIMITS, HUGE),
        True,
    ),
    Case(
        "64 MiB in messages of 32 bytes, to the same",
        "loop take",
        Flood(32, 2 * MIB, ends=True),
        incoming(LIMITS, 32),
        True,
    ),
    Case("1 GiB, to a handler that never returns", "loop hang", Flood(BIG, GIB // BIG), IN),
    Case("empty messages, to the same", "loop hang", Flood(0, MIB), incoming(LIMITS, 0)),
    Case("1 GiB, to a slow async handler", "loop wait", Flood(BIG, GIB // BIG), IN),
    Case("1 GiB, to a slow handler by post", "post rest", Flood(BIG, GIB // BIG), IN),
    Case("1 GiB, to a slow handler in dq()", "dq rest", Flood(BIG, GIB // BIG), IN),
    Case("64 MiB, to a GUI blocked for 10 s", "post block", Flood(BIG, KIB, ends=True), IN, True),
    Case(
        "16 MiB in messages of 1 KiB, to a handler that raises",
        "loop throw",
        Flood(KIB, 16 * KIB, ends=True),
        incoming(LIMITS, KIB),
        True,
    ),
    Case("1 GiB, echoed to a slow reader", "loop echo", Flood(BIG, GIB // BIG, reads="slowly"), 2 * IN),
    Case("1 GiB, echoed to one that never reads", "loop echo", Flood(BIG, GIB // BIG), 2 * IN),
    Case("the program sends to one that never reads", "loop send", Flood(), OUT),
    Case("the same, from a thread", "thread send", Flood(), outgoing(LIMITS, BIG, threads=True)),
)
STOPPING = "a callback that stops the host"


@dataclass
class Found:
    """What one case cost.

    Attributes:
        growth: bytes that the host's memory grew by at most; None where the system does not tell.
        alone: microseconds, p99 of the other socket without the trouble.
        beside: the same with it.
        ratio: of the two.
        worst: microseconds, the slowest of all with the trouble.
        seconds: until the peer was through, or was dropped; None if neither came.
    """

    case: str
    loop: str
    bound: int
    growth: int | None
    alone: float
    beside: float
    ratio: float
    worst: float
    seconds: float | None
    broken: list[str]


class Probe:
    """A socket that is no part of the trouble: one message in flight, with a rest in between.

    Args:
        port: of the host.
        pings: send pings instead of messages to be echoed.
    """

    def __init__(self, port: int, pings: bool = False) -> None:
        self.client = Client(port, path="/probe")
        payload = bytes(32)
        self.frame = client_frame(PING if pings else BINARY, payload)
        self.reply = server_frame(PONG if pings else BINARY, payload)

    def close(self) -> None:
        """Drop the connection."""
        self.client.sock.close()

    def measure(self, least: float, most: float, is_over: Callable[[], bool] = lambda: True) -> list[float]:
        """Measure until it is over, within these seconds; return microseconds, sorted."""
        found, clock, sock = [], time.perf_counter, self.client.sock
        start = clock()
        while (now := clock()) < start + least or (now < start + most and not is_over()):
            sock.sendall(self.frame)
            if receive_exactly(sock, len(self.reply)) != self.reply:
                raise BenchmarkError("the other socket got something else than its echo")
            found.append((clock() - now) * 1e6)
            time.sleep(PAUSE)
        return sorted(found)


def p99(latencies: Sequence[float]) -> float:
    """The 99th percentile of what is sorted."""
    return latencies[int(0.99 * len(latencies))]


def warm_up(port: int, flood: Flood) -> None:
    """Send as many messages as every callback takes."""
    client = Client(port, path="/trouble/")
    message = binary_message(flood.size)
    for _ in range(FREE):
        client.sock.sendall(message.frame)
    client.close(exact=False)


def measure_case(case: Case, server: ServerProcess, loop: str, probe: Probe) -> Found:
    """Measure without the trouble, with it, and without it again."""
    if case.flood.count:
        warm_up(server.port, case.flood)
    alone = probe.measure(QUIET, QUIET)
    server.forget_peak()
    before = server.memory()
    with trouble(server.port, case.flood) as peer:
        peer.begun.wait(MOST)
        beside = probe.measure(
            0.1, MOST if case.flood.ends or not case.flood.count else LEAST, peer.is_through
        )
        peak = server.memory("VmHWM")
    alone = sorted(alone + probe.measure(QUIET, QUIET))
    growth = None if before is None or peak is None else peak - before
    ratio = p99(beside) / p99(alone)
    seconds = peer.done
    found = Found(
        case.name, loop, case.bound, growth, p99(alone), p99(beside), ratio, beside[-1], seconds, []
    )
    if growth is not None and growth > case.bound + NOISE:
        found.broken.append(f"it grew by {growth / MIB:.1f} MiB")
    if peer.done is None and (case.flood.ends or not case.flood.count):
        found.broken.append("it did not end in time")
    return found


def run_case(case: Case, loop: str, core: int | None) -> Found:
    """One case, on a host of its own."""
    progress(f"{loop}: {case.name}")
    with running(case.host, loop, core, program=PROGRAM) as server:
        pings = not case.host.startswith("loop")
        with closing(Probe(server.port, pings)) as probe:
            found = measure_case(case, server, loop, probe)
    heard = int(server.output or -1)
    if case.delivers and heard != case.flood.count + FREE:
        found.broken.append(f"{heard - FREE} of {case.flood.count} messages came to the program")
    return found


def run_stopping(loop: str, core: int | None) -> list[str]:
    """A callback stops the host: another socket hears 1001, and the port is gone; return what is wrong."""
    progress(f"{loop}: {STOPPING}")
    with running("loop stop", loop, core, program=PROGRAM) as server:
        probe = Probe(server.port)
        probe.measure(0.1, 0.1)
        client = Client(server.port, path="/trouble/")
        for _ in range(FREE + 1):
            client.sock.sendall(binary_message(32).frame)
        wrong = []
        for name, one in (("the other socket", probe.client), ("its own socket", client)):
            got = one.sock.recv(4)
            if got != b"\x88\x02\x03\xe9":
                wrong.append(f"{name} got {got!r} instead of a close frame with 1001")
            one.sock.close()
        deadline = time.monotonic() + LEAST
        while is_open(server.port) and time.monotonic() < deadline:
            time.sleep(0.01)
        if is_open(server.port):
            wrong.append("the port is still open")
    return wrong


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def row(found: Found) -> tuple[str, ...]:
    """One line of the table."""
    return (
        found.case,
        found.loop,
        f"{found.bound / MIB:.1f}",
        "" if found.growth is None else f"{found.growth / MIB:.1f}",
        f"{found.alone:,.0f}",
        f"{found.beside:,.0f}",
        f"{found.ratio:.1f}",
        f"{found.worst / 1000:,.1f}",
        "never" if found.seconds is None else f"{found.seconds:.1f}",
        "; ".join(found.broken),
    )


HEADING: tuple[str, ...] = (
    "trouble",
    "loop",
    "bound MiB",
    "grew MiB",
    "p99 alone us",
    "p99 beside us",
    "ratio",
    "worst ms",
)
HEADING += ("through s", "broken")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """All figures for people to read."""
    widths = [max(map(len, column)) for column in zip(HEADING, *rows, strict=True)]
    lines = []
    for words in (HEADING, *rows):
        names = [word.ljust(width) for word, width in zip(words[:2], widths[:2], strict=True)]
        numbers = [word.rjust(width) for word, width in zip(words[2:-1], widths[2:-1], strict=True)]
        lines.append("  ".join((*names, *numbers, words[-1])).rstrip())
    return "\n".join(lines)


def measure_all(options: argparse.Namespace, core: int | None) -> tuple[list[Found], list[str]]:
    """All cases on all loops; also what is wrong where a callback stops the host."""
    found, wrong = [], []
    for loop in ("asyncio", "uvloop") if options.loop == "both" else (options.loop,):
        for case in CASES:
            if not options.only or any(word in case.name for word in options.only):
                found.append(run_case(case, loop, core))
        if not options.only or any(word in STOPPING for word in options.only):
            wrong += run_stopping(loop, core)
    return found, wrong


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.bounds", description="What trouble costs.")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "both"], default="both")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cases whose name has one of these in it")
    parser.add_argument("--json", type=writable, metavar="FILE", help="file to write all figures to")
    options = parser.parse_args(arguments)
    names = [*(case.name for case in CASES), STOPPING]
    if options.only and not any(word in name for word in options.only for name in names):
        parser.error("--only: no case has one of these words; there are\n  " + "\n  ".join(names))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    options = parse(arguments)
    core = pin()
    under = conditions(core, options.loop, 1, LEAST)
    try:
        found, wrong = measure_all(options, core)
    except (BenchmarkError, MissingServer) as exc:
        progress(f"failed: {exc}")
        return 1
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    print(table([row(one) for one in found]))
    broken = [f"{one.loop}: {one.case}: {what}" for one in found for what in one.broken]
    broken += [f"{STOPPING}: {what}" for what in wrong]
    print("\n".join(f"broken: {what}" for what in broken) or WITHIN)
    if options.json:
        content = {**under, "versions": versions(PACKAGES), "cases": [asdict(one) for one in found]}
        options.json.write_text(json.dumps({**content, "broken": broken}, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
