"""How the host bears up: 200 sockets at random for twenty minutes, or ten thousand at once.

    python -m benchmarks.soak [--minutes 20] [--sockets 200] [--loop asyncio|uvloop] [--seed N]
    python -m benchmarks.soak --open [--sockets 10000] [--talking 1000]
    python -m benchmarks.soak --draw figures.json ... --svg docs/soak.svg

The exit status is 1, with the reason, where a promise is broken: every message accounted for by its number,
memory at the end at most 5 % above that after two minutes, and no task, timer, socket or descriptor left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmarks.conditions import conditions, progress, versions, writable
from benchmarks.load import BenchmarkError
from benchmarks.memory import need_files
from benchmarks.processes import MissingServer
from benchmarks.soak_chart import draw_chart
from benchmarks.soak_host import PLANTED, Census
from benchmarks.soak_lives import Broken, Life, Visit, draw, verdict
from benchmarks.soak_open import open_many
from benchmarks.soak_reports import PATIENCE, Report, Reports, hosting

MIB = 1024 * 1024
SETTLED = 120.0  # seconds after which memory is to grow no more
SHORTEST = 2 * SETTLED  # seconds that a run takes at least for its memory to be judged
WINDOW = 10.0  # seconds whose samples a figure of memory is the mean of
GROWTH = 0.05
STEP = 10.0  # seconds between two lines of progress
FILES = 100  # descriptors that are needed besides those of the sockets
SPARE = 1000  # more that there should be: sockets that have ended may have one for a while
WARM = ("auto", "manual", "later", "chunks", "route", "lazy")
PACKAGES = ("interceptor", "websockets", "uvloop")


@dataclass
class Totals:
    """What all sockets did that have ended."""

    lives: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    heard: int = 0
    answered: int = 0
    received: int = 0

    def add(self, life: Life, visit: Visit, report: Report | None) -> None:
        """Count a socket in."""
        kinds = [life.kind, life.end if life.kind != "deny" else "denied"]
        traits = [name for name in ("slow", "proxied", "deflate") if getattr(life, name)]
        self.lives.update(["all", *kinds, *traits])
        self.sent += visit.ledger.sent
        self.received += visit.ledger.received
        if report is not None and report["what"] == "end":
            self.heard += report["heard"]
            self.answered += report["sent"]


def on_loop(loop: asyncio.AbstractEventLoop, take: Callable[[Report], None]) -> Callable[[Report], None]:
    """A function for another thread that has the loop take a report."""

    def hand_over(report: Report) -> None:
        loop.call_soon_threadsafe(take, report)

    return hand_over


class Soak:
    """A number of sockets at a time, each followed by another one, for a time.

    Attributes:
        samples: seconds since the start, bytes of the host's memory, open sockets; one each second.
        broken: what was not as it must be.
    """

    def __init__(self, reports: Reports, options: argparse.Namespace) -> None:
        self.reports = reports
        self.sockets = options.sockets
        self.seconds = options.minutes * 60
        self.seed = options.seed
        self.patience = options.patience
        self.totals = Totals()
        self.samples: list[tuple[float, int, int]] = []
        self.broken: list[str] = []
        self.talking = 0
        self.over = asyncio.Event()
        self.awaited: dict[str, asyncio.Future[Report]] = {}
        self.loop = asyncio.get_running_loop()
        reports.on_report = on_loop(self.loop, self.reported)

    async def run(self) -> None:
        """Run to the end, or to the first broken promise."""
        watch = asyncio.create_task(self.watch())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.sockets):
                    group.create_task(self.work(number))
        finally:
            self.over.set()
            await watch

    async def work(self, number: int) -> None:
        """One socket after another."""
        dice = random.Random(f"{self.seed} {number}")
        index = 0
        while not self.over.is_set():
            name = f"{number}-{index}"
            try:
                await self.visit(draw(dice), name, dice)
            except Broken as exc:
                self.broken.append(f"socket {name}: {exc}")
                self.over.set()
            index += 1

    async def visit(self, life: Life, name: str, dice: random.Random) -> None:
        """Open one socket, see to its end, and compare the accounts."""
        visit = Visit(life, self.reports.server.port, name, dice, self.patience)
        awaited = self.awaited[name] = self.loop.create_future()
        self.talking += 1
        try:
            report = await self.compare(life, visit, awaited)
        except Broken as exc:
            raise Broken(f"{exc}; {life}") from exc
        finally:
            self.talking -= 1
            self.awaited.pop(name, None)
        self.totals.add(life, visit, report)

    async def compare(self, life: Life, visit: Visit, awaited: asyncio.Future[Report]) -> Report | None:
        """Let it live; return what the host reports, once it is right."""
        if not await visit.live(self.over):
            return None
        try:
            report = await asyncio.wait_for(awaited, PATIENCE)
        except TimeoutError:
            raise Broken("the host did not report its end") from None
        if life.end == "quit":
            return report
        if report["what"] == "failed":
            raise Broken("it opened, and the host reports that it failed")
        if wrong := verdict(life, visit.ledger, report):
            raise Broken(wrong)
        return report

    def reported(self, report: Report) -> None:
        """Take a report of the host."""
        awaited = self.awaited.get(report["name"])
        if awaited is None or awaited.done():
            if not report["name"].startswith("warm"):
                self.broken.append(f"an end too many was reported: {report}")
                self.over.set()
        else:
            awaited.set_result(report)

    async def watch(self) -> None:
        """Take a sample each second and show progress; end it when the time is over."""
        start = self.loop.time()
        shown = 0.0
        while not self.over.is_set():
            await asyncio.sleep(1)
            now = self.loop.time() - start
            self.samples.append((round(now, 2), self.reports.server.memory() or 0, self.talking))
            if now - shown >= STEP:
                shown = now
                self.show(now)
            if now >= self.seconds or self.reports.errors:
                self.over.set()

    def show(self, now: float) -> None:
        """One line of progress."""
        totals, memory = self.totals, self.samples[-1][1] / MIB
        progress(
            f"{now:6.0f} s  {memory:6.1f} MiB  {self.talking} open  {totals.lives['all']:,} were  "
            f"{totals.sent:,} messages up, {totals.received:,} down"
        )


def memory_at(samples: Sequence[tuple[float, int, int]], moment: float) -> float:
    """The mean memory in the seconds before a moment."""
    return statistics.fmean(size for now, size, _ in samples if moment - WINDOW <= now <= moment)


def judge_memory(samples: Sequence[tuple[float, int, int]]) -> tuple[dict[str, float], str]:
    """Memory after two minutes and at the end, and what is wrong with that."""
    last = samples[-1][0]
    if last < SHORTEST or not samples[-1][1]:
        return {}, ""
    settled, end = memory_at(samples, SETTLED), memory_at(samples, last)
    found = {"settled": settled, "end": end, "ratio": end / settled}
    wrong = f"memory went from {settled / MIB:.1f} to {end / MIB:.1f} MiB, which is over {GROWTH:.0%}"
    return found, wrong if end / settled > 1 + GROWTH else ""


def same(before: Census, now: Census) -> bool:
    """Whether nothing more is held."""
    return all(now[name] <= before[name] for name in before)


def at_rest(reports: Reports) -> Census:
    """Wait until no socket is held, and return what still is."""
    deadline = time.monotonic() + PATIENCE
    while (now := reports.census())["Session"] or now["transports"]:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"what was used before the run stays: {now}")
        time.sleep(0.1)
    return now


def settle(reports: Reports, before: Census, patience: float) -> Census:
    """Wait until nothing more is held than before; return the last census."""
    deadline = time.monotonic() + patience
    while not same(before, now := reports.census()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def left_over(when: str, before: Census, after: Census) -> list[str]:
    """What is held that was not held before, in words."""
    more = [f"{count - before[name]} {name}" for name, count in after.items() if count > before[name]]
    return [f"{when} there is more: {', '.join(more)}"] if more else []


async def warm_up(reports: Reports) -> None:
    """Use each kind of socket, so that what is made once is there."""
    loop = asyncio.get_running_loop()
    for number, kind in enumerate(WARM):
        ended: asyncio.Future[Report] = loop.create_future()
        reports.on_report = on_loop(loop, ended.set_result)
        life = Life(kind, "close", 0.1, False, number % 2 == 0, number % 3 == 0)
        await Visit(life, reports.server.port, f"warm{number}", random.Random(number)).live(asyncio.Event())
        await asyncio.wait_for(ended, PATIENCE)


async def soak(reports: Reports, options: argparse.Namespace) -> dict[str, object]:
    """The soak: all its figures, and what was broken."""
    await warm_up(reports)
    before = at_rest(reports)
    run = Soak(reports, options)
    start, used = time.perf_counter(), reports.server.processor_seconds()
    await run.run()
    seconds, used_now = time.perf_counter() - start, reports.server.processor_seconds()
    after = settle(reports, before, options.patience)
    memory, wrong = judge_memory(run.samples)
    broken = run.broken + ([wrong] if wrong else []) + left_over("after the run", before, after)
    busy = None if used is None or used_now is None else (used_now - used) / seconds
    return {
        "sockets": options.sockets,
        "minutes": options.minutes,
        "seed": options.seed,
        "totals": {**vars(run.totals), "lives": dict(run.totals.lives)},
        "memory": memory,
        "busy": busy,
        "before": before,
        "after": after,
        "samples": run.samples,
        "broken": broken,
    }


async def many(reports: Reports, options: argparse.Namespace) -> dict[str, object]:
    """Ten thousand at once: the figures, and what was broken."""
    await warm_up(reports)
    before = at_rest(reports)
    found, broken = open_many(reports, options.sockets, options.talking)
    after = settle(reports, before, options.patience)
    broken += left_over("after the run", before, after)
    return {**found, "before": before, "after": after, "broken": broken}


def describe_soak(found: dict[str, Any]) -> str:
    """The figures of a soak for people to read."""
    totals, memory = found["totals"], found["memory"]
    lives = totals["lives"]
    lines = [
        f"{found['sockets']} sockets at a time for {found['minutes']:g} minutes, seed {found['seed']}: "
        f"{lives['all']:,} in all",
        ", ".join(f"{name} {count:,}" for name, count in sorted(lives.items()) if name != "all"),
        f"messages: {totals['sent']:,} sent, {totals['heard']:,} heard by the host; "
        f"{totals['answered']:,} sent by the host, {totals['received']:,} received",
    ]
    if found["busy"] is not None:
        lines.append(f"the host used {found['busy']:.0%} of a core")
    if memory:
        settled, end = memory["settled"] / MIB, memory["end"] / MIB
        lines.append(
            f"memory: {settled:.1f} MiB after 2 minutes, {end:.1f} MiB at the end ({memory['ratio']:.3f})"
        )
    return "\n".join(lines)


def describe_many(found: dict[str, Any]) -> str:
    """The figures of many open sockets for people to read."""
    each = "not known" if found["each"] is None else f"{found['each'] / 1024:.1f} KiB"
    return (
        f"{found['sockets']:,} sockets open at once: {found['open_seconds']:.1f} s to open, "
        f"{found['close_seconds']:.1f} s to close, {each} of memory each\n"
        f"{found['talking']:,} of them talked: {found['sent']:,} messages sent, {found['heard']:,} heard, "
        f"{found['received']:,} came back, in order, in {found['talk_seconds']:.1f} s"
    )


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run the host and what is to be measured; add what the host left when it stopped."""
    with hosting(options.plant or ("many" if options.open else "host"), options.loop, None) as reports:
        found = asyncio.run((many if options.open else soak)(reports, options))
        left = reports.stop()
    broken = cast(list[str], found["broken"])
    broken += [f"in the host: {error}" for error in reports.errors]
    broken += left_over("after stop()", left["before"], left["after"])
    if left["accounts"]:
        broken.append(f"{left['accounts']} sockets were opened whose end was never reported")
    under = conditions(None, options.loop, 1, options.minutes * 60)
    return {**under, "versions": versions(PACKAGES), "left": left, **found}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description="How the host bears up.")
    parser.add_argument("--open", action="store_true", help="ten thousand sockets at once")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--sockets", type=int, help="at a time (200), with --open in all (10000)")
    parser.add_argument("--talking", type=int, default=1000, help="of those that --open opens")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--seed", type=int, help="of all that is drawn by lot")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds until a message is lost")
    parser.add_argument("--json", type=writable, metavar="FILE", help="file to write all figures to")
    parser.add_argument("--plant", choices=PLANTED, help="have the host break a promise")
    parser.add_argument(
        "--draw",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files of --json to make a chart of; runs nothing",
    )
    parser.add_argument("--svg", type=writable, metavar="FILE", help="file of the chart")
    options = parser.parse_args(arguments)
    if (options.draw is None) is not (options.svg is None):
        parser.error("--draw and --svg go together")
    if options.sockets is None:
        options.sockets = 10_000 if options.open else 200
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    options = parse(arguments)
    try:
        if options.draw:
            draw_chart(options.draw, options.svg)
            return 0
        need_files(options.sockets + FILES, spare=SPARE)
        progress(f"seed {options.seed}")
        found = measure(options)
    except (BenchmarkError, MissingServer, Broken) as exc:
        progress(f"failed: {exc}")
        return 1
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print((describe_many if options.open else describe_soak)(found))
    broken = cast(list[str], found["broken"])
    for reason in broken:
        print(f"broken: {reason}")
    print("a promise is broken" if broken else "all promises kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
