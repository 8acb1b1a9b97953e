"""Inbox: messages that wait for receive()."""

from __future__ import annotations

import asyncio

from interceptor.dispatch import EVENT_COST
from interceptor.inbox import Inbox

from .bench import Bench, data_of, receive
from .peer import PATIENCE, until
from .wire import quiet_loop as quiet_loop


async def take(inbox: Inbox) -> str | None:
    event = await asyncio.wait_for(inbox.take(), PATIENCE)
    return None if event is None else data_of(event)


async def test_messages_wait_in_order() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    assert not inbox
    for item in ("a", "b"):
        inbox.put(receive(item))
    assert inbox
    assert [await take(inbox), await take(inbox)] == ["a", "b"]
    assert not inbox


async def test_who_waits_is_woken_by_a_message() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    waiting = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    event = receive("a")
    inbox.put(event)
    assert await waiting is event


async def test_several_that_wait_get_one_each() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    waiting = [asyncio.create_task(inbox.take()) for _ in range(4)]
    await asyncio.sleep(0)
    for item in ("a", "b", "c"):
        inbox.put(receive(item))
    await until(lambda: sum(task.done() for task in waiting) == 3)
    inbox.end()
    got = await asyncio.gather(*waiting)
    assert [event and data_of(event) for event in got] == ["a", "b", "c", None]


async def test_the_end_wakes_all() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    waiting = [asyncio.create_task(inbox.take()) for _ in range(3)]
    await asyncio.sleep(0)
    inbox.end()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*waiting) == [None] * 3


async def test_one_that_is_cancelled_loses_nothing() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    waiting = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(receive("a"))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert await take(inbox) == "a"


async def test_callbacks_see_each_message_first() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    bench.dispatcher.on(842, bench.waiting)
    inbox.put(receive("a"))
    await until(lambda: bench.log == ["<a"])
    assert not inbox
    bench.gate.set()
    assert await take(inbox) == "a"
    assert bench.log == ["<a", "a>"]


async def test_at_the_end_what_is_left_can_still_be_taken() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    inbox.put(receive("a"))
    inbox.end()
    assert [await take(inbox), await take(inbox), await take(inbox)] == ["a", None, None]


async def test_at_the_end_what_is_still_with_a_callback_is_waited_for() -> None:
    bench = Bench()
    inbox = Inbox(bench.lane)
    bench.dispatcher.on(842, bench.waiting)
    inbox.put(receive("a"))
    inbox.put(receive("b"))
    inbox.end()
    waiting = asyncio.create_task(take(inbox))
    await until(lambda: bench.log)
    assert not waiting.done()
    bench.gate.set()
    assert [await waiting, await take(inbox), await take(inbox)] == ["a", "b", None]


async def test_what_waits_here_is_undelivered() -> None:
    bench = Bench(high=10 * EVENT_COST)
    inbox = Inbox(bench.lane)
    for index in range(12):
        inbox.put(receive(index))
    assert bench.holds == [True]
    for _ in range(12):
        await inbox.take()
    assert bench.holds == [True, False]
    bench.lane.keep(receive("x" * 8 * EVENT_COST))
    assert bench.holds == [True, False], "nothing is counted any more, or twice"


async def test_what_waits_for_a_callback_counts_once() -> None:
    bench = Bench(high=10 * EVENT_COST)
    inbox = Inbox(bench.lane)
    bench.dispatcher.on(842, bench.waiting)
    for index in range(12):
        inbox.put(receive(index))
    assert bench.holds == [True]
    bench.gate.set()
    for _ in range(12):
        await inbox.take()
    assert bench.holds[-1] is False
    bench.lane.keep(receive("x" * 8 * EVENT_COST))
    assert bench.holds[-1] is False, "nothing is counted any more, or twice"


async def test_close_keeps_nothing_new_and_counts_no_more() -> None:
    bench = Bench(high=3 * EVENT_COST)
    inbox = Inbox(bench.lane)
    for index in range(5):
        inbox.put(receive(index))
    assert bench.holds == [True]
    inbox.close()
    inbox.close()
    assert bench.holds == [True, False]
    inbox.put(receive("late"))
    inbox.end()
    assert [await take(inbox) for _ in range(6)] == ["0", "1", "2", "3", "4", None]
    bench.lane.keep(receive("x" * EVENT_COST))
    assert bench.holds == [True, False]
    bench.lane.keep(receive("x" * EVENT_COST))
    assert bench.holds == [True, False, True], "something was counted off twice"


async def test_clear_drops_all_and_wakes_who_waits() -> None:
    bench = Bench(high=EVENT_COST)
    inbox = Inbox(bench.lane)
    inbox.put(receive("a"))
    inbox.put(receive("b"))
    inbox.clear()
    assert bench.holds == [True, False]
    assert await take(inbox) is None
    other = Inbox(bench.another())
    waiting = asyncio.create_task(other.take())
    await asyncio.sleep(0)
    other.clear()
    assert await waiting is None
