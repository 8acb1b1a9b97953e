"""How a server of the benchmarks runs: in a process of its own, in the chosen loop, told what to do by stdin.

The first line on stdout is `port N`, or `missing WHY` where a package cannot be imported. Then each line on
stdin is an order, a word and a number, and is answered by `done` once it was carried out. The process ends
when its standard input does, so also when the program that started it is gone, however it went.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping

Ready = Callable[[int], None]
Serve = Callable[[Ready, asyncio.Event], Awaitable[None]]
Order = Callable[[int], Awaitable[None]]


async def collect(number: int) -> None:
    """Free what is garbage, so that memory can be looked at."""
    gc.collect()


ORDERS: dict[str, Order] = {"gc": collect}
"""What a server can be told while it runs; servers add their own before they are ready."""


def report(port: int) -> None:
    """Tell the program that started this one where the server is."""
    print(f"port {port}", flush=True)


async def carry_out(order: str) -> None:
    """Do what standard input says, then tell the program that started this one."""
    word, _, number = order.strip().partition(" ")
    try:
        await ORDERS[word](int(number or 0))
    except Exception as exc:
        print(f"failed {exc!r}", flush=True)
    else:
        print("done", flush=True)


def watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Carry out the orders on standard input and set `stop` at its end.

    In a thread, because not every system lets a loop watch a pipe. Each read is one order: the next is given
    when the last was answered.
    """

    def wait() -> None:
        while order := os.read(0, 64):
            asyncio.run_coroutine_threadsafe(carry_out(order.decode()), loop)
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, daemon=True).start()


async def serve_until_eof(serve: Serve, ready: Ready) -> None:
    """Run a server as long as standard input is open."""
    stop = asyncio.Event()
    watch_stdin(asyncio.get_running_loop(), stop)
    await serve(ready, stop)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop of that name; raises ImportError where it is not installed."""
    if name == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


def run(serve: Serve, loop: str, ready: Ready = report) -> None:
    """Serve in the chosen loop, or say what is missing."""
    try:
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            runner.run(serve_until_eof(serve, ready))
    except ImportError as exc:
        print(f"missing {exc}", flush=True)


def run_profiled(serve: Serve, loop: str) -> None:
    """Serve under cProfile, imports left out, and print the 25 functions that took most time themselves."""
    profile = cProfile.Profile()

    def ready(port: int) -> None:
        report(port)
        profile.enable()

    run(serve, loop, ready)
    profile.disable()
    pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(25)


def main(servers: Mapping[str, Serve]) -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="One server of the benchmarks.")
    parser.add_argument("name", choices=servers)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--core", type=int, help="the processor core to stay on")
    parser.add_argument("--profile", action="store_true", help="print a profile at the end")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    (run_profiled if options.profile else run)(servers[options.name], options.loop)
