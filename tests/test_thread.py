"""LoopThread and HomeLoop: an event loop in a thread of its own, and calls from other threads."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interceptor.dispatch import HomeLoop, LoopThread
from interceptor.exceptions import InvalidState

from .conftest import FACTORIES, LoopFactory
from .peer import PATIENCE, until
from .threads import no_thread_left, soon
from .wire import Line
from .wire import lines as lines

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=list(FACTORIES))
def factory(request: pytest.FixtureRequest) -> LoopFactory:
    return FACTORIES[request.param]


async def where() -> int:
    return threading.get_ident()


def test_coroutines_run_on_the_thread(factory: LoopFactory) -> None:
    with no_thread_left(), LoopThread("reader", factory) as thread:
        ident = thread.run(where())
        assert ident != threading.get_ident()
        assert thread.submit(where()).result(PATIENCE) == ident
        assert {each.name: each for each in threading.enumerate()}["reader"].daemon
        assert thread.is_running
        assert not thread.is_current
    assert not thread.is_running


def test_what_a_coroutine_raises_comes_back() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with LoopThread() as thread, pytest.raises(ZeroDivisionError):
        thread.run(fail())


def test_what_still_runs_is_cancelled_and_cleans_up(factory: LoopFactory) -> None:
    told: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("cleaned up")

    async def generate() -> None:
        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                told.append("generator closed")

        async for _ in numbers():
            break
        await asyncio.Event().wait()

    with no_thread_left(), LoopThread(loop_factory=factory) as thread:
        thread.submit(work())
        thread.submit(generate())
        thread.run(asyncio.sleep(0))
    assert sorted(told) == ["cleaned up", "generator closed"]


def test_worker_threads_end_too() -> None:
    with no_thread_left(), LoopThread() as thread:
        assert thread.run(asyncio.to_thread(threading.get_ident)) != threading.get_ident()


def test_a_worker_that_is_busy_is_waited_for() -> None:
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(PATIENCE)

    before = set(threading.enumerate())
    with LoopThread() as thread:
        thread.submit(asyncio.to_thread(work))
        assert begun.wait(PATIENCE)
        opener = threading.Timer(0.1, gate.set)
        opener.start()
    assert set(threading.enumerate()) <= before | {opener}
    opener.join()


def test_a_worker_that_does_not_end_is_not_waited_for_for_ever() -> None:
    gate = threading.Event()
    thread = LoopThread()
    thread.start()
    begun = threading.Event()

    def work() -> None:
        begun.set()
        gate.wait()

    thread.submit(asyncio.to_thread(work))
    assert begun.wait(PATIENCE)
    assert thread.stop(PATIENCE)
    gate.set()


def test_calls_at_the_wrong_time() -> None:
    thread = LoopThread("reader")
    for _ in range(2):
        with pytest.raises(InvalidState, match="'reader' is not running"):
            thread.run(where())
        assert thread.stop(), "nothing to stop is no error"
    thread.start()
    with pytest.raises(InvalidState, match="make another"):
        thread.start()
    thread.stop()
    assert thread.stop()
    with pytest.raises(InvalidState, match="not running"):
        thread.submit(where())
    with pytest.raises(InvalidState, match="make another"):
        thread.start()


def test_it_does_not_wait_for_itself() -> None:
    async def wait_here(thread: LoopThread) -> None:
        assert thread.is_current
        with pytest.raises(InvalidState, match="use await"):
            thread.run(where())
        with pytest.raises(InvalidState, match="its own end"):
            thread.stop()
        with pytest.raises(InvalidState, match="its own end"):
            thread.join()

    with LoopThread() as thread:
        thread.run(wait_here(thread))


def test_it_ends_soon_from_within_and_is_waited_for() -> None:
    async def leave(thread: LoopThread) -> None:
        thread.stop_soon()

    with no_thread_left():
        thread = LoopThread()
        assert thread.join(), "nothing to wait for is no error"
        thread.start()
        assert not thread.join(0)
        thread.submit(leave(thread))
        assert thread.join(PATIENCE)
        assert not thread.is_running


def test_a_thread_that_has_ended_is_not_kept() -> None:
    async def leave(thread: LoopThread) -> None:
        thread.stop_soon()

    thread = LoopThread()
    thread.start()
    thread.submit(leave(thread))
    assert thread.join(PATIENCE)
    kept = weakref.ref(thread)
    del thread
    gc.collect()
    assert kept() is None


def test_a_factory_that_fails() -> None:
    def fail() -> asyncio.AbstractEventLoop:
        raise ZeroDivisionError

    with no_thread_left(), pytest.raises(ZeroDivisionError):
        LoopThread(loop_factory=fail).start()


def test_a_blocked_thread_is_given_up() -> None:
    gate, begun = threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        gate.wait()

    with no_thread_left():
        thread = LoopThread()
        thread.start()
        thread.submit(block())
        assert begun.wait(PATIENCE)
        assert not thread.stop(0)
        gate.set()
        assert thread.stop(PATIENCE)


def test_sys_exit_on_the_thread_is_logged_and_ends_nothing(lines: list[Line]) -> None:
    def leave() -> None:
        sys.exit("enough")

    async def plan() -> None:
        asyncio.get_running_loop().call_soon(leave)

    with LoopThread("reader") as thread:
        thread.run(plan())
        soon(lambda: lines)
        assert thread.run(where()) != threading.get_ident()
    assert [(line["log_level"], line["thread"]) for line in lines] == [("error", "reader")]


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ZeroDivisionError"])
def test_the_program_ends_with_it(ending: str) -> None:
    code = f"""
import asyncio, sys
from interceptor.dispatch import LoopThread
async def work():
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up")
thread = LoopThread()
thread.start()
thread.submit(work())
thread.run(asyncio.sleep(0))
{ending}
"""
    begun = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert time.monotonic() - begun < PATIENCE
    assert ran.returncode == {"": 0, "sys.exit(3)": 3}.get(ending, 1)
    assert ran.stdout == "cleaned up\n"
    assert "destroyed" not in ran.stderr
    assert "ResourceWarning" not in ran.stderr


async def test_home_runs_at_once_on_its_own_thread_and_soon_from_another() -> None:
    home, seen = HomeLoop(), list[int]()
    home.run(seen.append, 1)
    assert seen == [1]

    def from_outside() -> None:
        for number in (2, 3):
            home.run(seen.append, number)

    await asyncio.to_thread(from_outside)
    await until(lambda: seen == [1, 2, 3])


def test_home_that_is_gone_says_so() -> None:
    async def settle() -> HomeLoop:
        return HomeLoop()

    with LoopThread() as thread:
        home = thread.run(settle())
    with pytest.raises(InvalidState, match="ended"):
        home.run(print)


def test_home_is_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        HomeLoop()


def test_a_thread_that_is_held_up_does_not_keep_the_program() -> None:
    code = """
import threading
from interceptor.dispatch import LoopThread
begun = threading.Event()
async def block():
    begun.set()
    threading.Event().wait()
thread = LoopThread()
thread.start()
thread.submit(block())
begun.wait()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=PATIENCE, check=True)
