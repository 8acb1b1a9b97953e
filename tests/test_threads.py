"""A loop in a thread of its own, and calls from other threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from interceptor import InvalidState
from interceptor.threads import HomeLoop, LoopThread

from .peer import PATIENCE, until


def test_a_loop_thread_calls_returns_raises_and_ends() -> None:
    thread = LoopThread("a test's")
    assert thread.call(threading.get_ident) != threading.get_ident()
    assert thread.call(lambda: threading.current_thread().name) == "a test's"
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)
    with pytest.raises(InvalidState, match="callback"):
        thread.call(thread.join)
    assert not thread.join(0)
    thread.call(thread.stop)
    assert thread.join(PATIENCE)


def test_a_loop_thread_does_not_keep_the_program_alive() -> None:
    thread = LoopThread("a test's")
    assert thread.call(lambda: threading.current_thread().daemon)
    thread.call(thread.stop)
    thread.join(PATIENCE)


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
    thread = LoopThread("a test's")
    home = thread.call(HomeLoop)
    thread.call(thread.stop)
    thread.join(PATIENCE)
    with pytest.raises(InvalidState, match="ended"):
        home.run(print)
