"""Slow, stuck and endless: a host's memory stays within its bound, and its other sockets are served.

The cases of `benchmarks/bounds.py` with less data; the memory is the most that the host's process ever had.
No time is asserted here: latencies are what the benchmark is for.
"""

from __future__ import annotations

import gc
import socket
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from benchmarks import bounds
from benchmarks.bounds import CASES, MIB, Case
from interceptor import Host, Limits, WebSocketReceive, connection
from interceptor.frames import SLICE

from .bench import Bench, receive
from .peer import BINARY, Peer, frame, until
from .threads import Program, client, make_host, no_thread_left, soon
from .wire import ANYONE, BOTH_LOOPS, TurnCounter

LOOPS = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]
LESS = 128 * MIB  # More than the system's own buffers take.
BLOCKED = "64 MiB, to a GUI blocked for 10 s"  # test_post.py has it without the ten seconds.


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the most memory")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.name != BLOCKED])
def test_memory_stays_within_its_bound(case: Case, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "QUIET", 0.05)
    monkeypatch.setattr(bounds, "LEAST", 1.0)
    monkeypatch.setattr(bounds, "MOST", 40.0)
    flood = case.flood
    if flood.size > 1024:
        flood = replace(flood, count=min(flood.count, LESS // flood.size))
    else:
        flood = replace(flood, count=min(flood.count, 4096 if case.delivers else flood.count))
    found = bounds.run_case(replace(case, flood=flood), loop, None)
    assert found.broken == []
    assert found.growth is not None


@pytest.mark.parametrize("loop", LOOPS)
def test_a_callback_that_stops_the_host(loop: str) -> None:
    assert bounds.run_stopping(loop, None) == []


def test_the_bound_follows_the_limits() -> None:
    small, large = Limits(read_buffer=MIB // 4, write_buffer=MIB), Limits()
    assert bounds.incoming(large, 100) - bounds.incoming(small, 100) == 3 * MIB // 4
    assert bounds.outgoing(large, 100) - bounds.outgoing(small, 100) == 15 * MIB
    assert bounds.incoming(small, 1000) < bounds.incoming(small, 1_000_000)


def test_the_verdict_and_the_page_say_what_is_let_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "pin", lambda: None)
    monkeypatch.setattr(bounds, "measure_all", lambda options, core: ([], []))
    assert bounds.main(["--loop", "asyncio"]) == 0
    allowance = f"{bounds.NOISE / MIB:.1f} MiB"
    assert f"all within their bounds and {allowance}, which" in capsys.readouterr().out
    root = Path(__file__).parent.parent
    assert f"{allowance} above it" in (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"{allowance} over its bound" in (root / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_a_word_that_no_case_has_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bounds.main(["--only", "no such case"])
    assert "a callback that stops the host" in capsys.readouterr().err, "it names no cases"


@BOTH_LOOPS
async def test_a_flood_leaves_the_loop_to_others() -> None:
    """However much one socket has to say, the loop turns in between; libuv would read 8 MiB in one turn."""
    handled: Counter[int] = Counter()
    turns = TurnCounter()
    host = Host([("*", 1)], security=ANYONE)

    @host.on("WebSocketReceive")
    def receive(event: WebSocketReceive) -> None:
        handled[turns.count] += 1
        time.sleep(0.001)

    async with host, Peer.open(host) as peer:
        peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
        await peer.send(frame(BINARY, bytes(1018)) * 1024)
        await until(lambda: handled.total() == 1024)
    assert max(handled.values()) <= 2 * (SLICE // 1024 + 1)  # libuv reads and runs what is due in one turn.


@BOTH_LOOPS
async def test_a_flood_of_what_takes_no_time_does_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that are short by themselves, and many in one turn; the clock is that of what was handled."""
    handled: Counter[int] = Counter()
    turns = TurnCounter()
    host = Host([("*", 1)], security=ANYONE)
    each = 0.000003
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: handled.total() * each))

    @host.on("WebSocketReceive")
    def receive(event: WebSocketReceive) -> None:
        handled[turns.count] += 1

    async with host, Peer.open(host) as peer:
        peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
        await peer.send(frame(BINARY, bytes(1018)) * 4096)
        await until(lambda: handled.total() == 4096)
    assert max(handled.values()) * each <= 1.5 * connection.TURN


class Oops(Exception):
    """Tells which of its kind are still there."""

    alive: ClassVar[weakref.WeakSet[Oops]] = weakref.WeakSet()

    def __init__(self) -> None:
        Oops.alive.add(self)


def fail(event: object) -> None:
    raise Oops


async def fail_soon(event: object) -> None:
    raise Oops


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed in the test is freed at once, not when the garbage collector comes by."""
    gc.collect()
    Oops.alive.clear()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
class TestWhatWasRaisedIsLetGo:
    """It knows the frames that it came through, and with them the read: 256 KiB each."""

    @pytest.mark.parametrize("handler", [fail, fail_soon])
    async def test_on_the_loop(self, handler: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("interceptor.dispatch.lane.Lane._report", lambda *_: None)
        bench = Bench()
        bench.dispatcher.on(WebSocketReceive, handler)  # type: ignore[arg-type]
        for number in range(3):
            bench.lane.put(receive(number))
        await bench.idle()
        assert not list(Oops.alive)

    def test_on_the_programs_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reported: list[str] = []
        monkeypatch.setattr("interceptor.dispatch.lane.Lane._report", lambda *_: reported.append("one"))
        with no_thread_left(), Program() as program:
            host = make_host(program.post)
            host.on("WebSocketReceive")(fail)
            with host.in_thread(), client(host) as peer:
                for _ in range(3):
                    peer.send("x")
                soon(lambda: len(reported) == 3)
                program.do(lambda: None)
        assert not list(Oops.alive)
