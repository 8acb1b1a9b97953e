"""Timers of equal delays: in order, never early, and none after it was cancelled."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from functools import partial

import pytest

from interceptor.clock import Clock, Timer

from .wire import BOTH_LOOPS

DELAY = 0.01


async def over(clock: Clock, delay: float = DELAY) -> None:
    """Wait until all timers of this delay that wait now are over."""
    done = asyncio.get_running_loop().create_future()
    clock.after(delay, lambda: done.set_result(None))
    await done


@BOTH_LOOPS
async def test_each_is_called_once_in_order_and_not_early() -> None:
    clock, loop, called = Clock(), asyncio.get_running_loop(), list[tuple[int, float]]()

    def note(number: int) -> Callable[[], None]:
        start = loop.time()
        return lambda: called.append((number, loop.time() - start))

    for number in range(5):
        clock.after(DELAY, note(number))
        await asyncio.sleep(0.001)
    await over(clock)
    assert [number for number, _ in called] == [0, 1, 2, 3, 4]
    counts_milliseconds = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    assert min(after for _, after in called) >= DELAY - 0.0011 * counts_milliseconds
    clock.after(DELAY, note(5))  # The line was empty in between.
    await over(clock)
    assert [number for number, _ in called] == [0, 1, 2, 3, 4, 5]


@BOTH_LOOPS
async def test_a_short_delay_does_not_wait_for_a_long_one() -> None:
    clock, called = Clock(), list[str]()
    late = clock.after(60, lambda: called.append("late"))
    await over(clock)
    late.cancel()
    assert called == []


@BOTH_LOOPS
async def test_none_is_called_once_it_is_cancelled() -> None:
    clock, called = Clock(), list[int]()
    timers = [clock.after(DELAY, partial(called.append, number)) for number in range(4)]
    timers[0].cancel()
    timers[2].cancel()
    timers[2].cancel()
    await over(clock)
    assert called == [1, 3]
    timers[1].cancel()
    await over(clock)
    assert called == [1, 3]


@BOTH_LOOPS
async def test_one_cancels_the_next_whose_time_has_come_too() -> None:
    clock, called = Clock(), list[str]()

    def first() -> None:
        called.append("first")
        second.cancel()

    clock.after(DELAY, first)
    second = clock.after(DELAY, lambda: called.append("second"))
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * DELAY
    while loop.time() < end:
        """Both are late before the loop turns."""
    await over(clock)
    assert called == ["first"]


@BOTH_LOOPS
async def test_one_that_raises_is_nothing_to_the_others() -> None:
    clock, loop, called = Clock(), asyncio.get_running_loop(), list[str]()
    caught: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: caught.append(context))

    def fail() -> None:
        raise ValueError("this one")

    clock.after(DELAY, fail)
    clock.after(DELAY, lambda: called.append("next"))
    await over(clock)
    assert called == ["next"]
    assert [str(context["exception"]) for context in caught] == ["this one"]


@BOTH_LOOPS
async def test_a_cancelled_timer_keeps_nobody() -> None:
    class Owner:
        def ring(self) -> None:
            raise AssertionError("it was cancelled")

    clock, owner = Clock(), Owner()
    gone = weakref.ref(owner)
    timer = clock.after(60, owner.ring)
    timer.cancel()
    del owner, timer
    gc.collect()
    assert gone() is None
    assert not any(isinstance(each, Timer) for each in gc.get_objects())


@BOTH_LOOPS
async def test_the_loop_has_one_timer_for_a_delay_and_none_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, loop, made = Clock(), asyncio.get_running_loop(), list[asyncio.TimerHandle]()

    class Loop:
        """Counts what is asked of the loop; uvloop's methods cannot be replaced."""

        def time(self) -> float:
            return loop.time()

        def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
            made.append(loop.call_at(when, callback))
            return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", Loop)
        timers = [clock.after(60, lambda: None) for _ in range(1000)]
    assert len(made) == 1
    for timer in timers:
        assert not made[0].cancelled()
        timer.cancel()
    assert made[0].cancelled()
