"""Lane: the events of one socket, one at a time and in order."""

from __future__ import annotations

import asyncio
import functools

import pytest

from interceptor.dispatch import EVENT_COST, Lane
from interceptor.events import (
    Event,
)
from interceptor.exceptions import InvalidHandler
from interceptor.stream import EventStream

from .bench import ID, Bench, close, data_of, error, receive
from .peer import PATIENCE, until
from .wire import Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop


class Slow:
    """A callable object that is async."""

    async def __call__(self, event: Event) -> None:
        """Handle."""


class TestLane:
    """One event at a time, in order."""

    async def test_plain_callbacks_run_at_once(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.plain("a"))
        bench.dispatcher.on(842, bench.plain("b"))
        bench.put(1, 2)
        assert bench.log == ["a1", "b1", "a2", "b2"]
        assert bench.lane.task is None
        assert not bench.holds

    async def test_async_callbacks_run_one_after_another(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.slow("a"))
        bench.dispatcher.on(842, bench.plain("b"))
        bench.dispatcher.on(842, bench.slow("c", 0))
        bench.put(1, 2)
        assert bench.log == [], "an async callback runs in a task"
        await bench.idle()
        assert bench.log == ["<a1", "a1>", "b1", "<c1", "c1>", "<a2", "a2>", "b2", "<c2", "c2>"]

    async def test_what_comes_while_a_callback_runs_waits(self) -> None:
        bench = Bench()

        def handler(event: Event) -> None:
            bench.log.append(f"<{data_of(event)}")
            if data_of(event) == "1":
                bench.put(2, 3)
            bench.log.append(f"{data_of(event)}>")

        bench.dispatcher.on(842, handler)
        bench.put(1)
        bench.put(4)
        assert bench.log == ["<1", "1>", "<2", "2>", "<3", "3>", "<4", "4>"]

    async def test_events_without_callback_go_in_order_too(self) -> None:
        bench = Bench()
        order: list[str] = []
        bench.dispatcher.on(842, bench.slow())
        bench.lane.put(receive("a"), lambda _: order.append("a"))
        bench.lane.put(error(), lambda _: order.append("error"))
        bench.lane.put(receive("b"), lambda _: order.append("b"))
        assert order == []
        await bench.idle()
        assert order == ["a", "error", "b"]

    async def test_lanes_do_not_wait_for_each_other(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.put(1)
        other = bench.another()
        other.put(receive("other"))
        await until(lambda: len(bench.log) == 2)
        assert bench.log == ["<1", "<other"]
        bench.gate.set()
        await until(lambda: other.task is None and bench.lane.task is None)
        assert bench.log[2:] == ["1>", "other>"]

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_then_gets_the_first_result(self, is_async: bool, lines: list[Line]) -> None:
        bench = Bench()
        values: list[object] = [None, ValueError("mine"), "first", "second"]

        def give(value: object, event: Event) -> object:
            if isinstance(value, Exception):
                raise value
            return value

        async def give_soon(value: object, event: Event) -> object:
            return give(value, event)

        for value in values:
            bench.dispatcher.on(842, functools.partial(give_soon if is_async else give, value))
        got: list[object] = []
        bench.lane.put(receive("x"), got.append)
        await bench.idle()
        assert got == ["first"]
        assert bench.errors(lines) == [values[1]]

    async def test_then_gets_an_exception_where_there_is_no_result(self, lines: list[Line]) -> None:
        bench = Bench()
        mine = ValueError("mine")

        def fail(event: Event) -> None:
            raise mine

        bench.dispatcher.on(842, fail)
        bench.dispatcher.on(842, bench.slow())
        got: list[object] = []
        bench.lane.put(receive("x"), got.append)
        await bench.idle()
        assert got == [mine]
        assert bench.log == ["<x", "x>"]

    async def test_exceptions_are_logged_once_with_who_and_where(self, lines: list[Line]) -> None:
        bench = Bench()
        mine = [ValueError("plain"), ValueError("async"), asyncio.CancelledError(), asyncio.CancelledError()]

        def fail(event: Event) -> None:
            raise mine[0 if data_of(event) == "1" else 2]

        async def fail_soon(event: Event) -> None:
            raise mine[1 if data_of(event) == "1" else 3]

        bench.dispatcher.on(842, fail)
        bench.dispatcher.on(842, fail_soon)
        bench.dispatcher.on(842, bench.plain())
        bench.put(1, 2)
        await bench.idle()
        assert bench.log == ["1", "2"]
        assert bench.errors(lines) == mine
        assert {(line["id"], line["url"], line["event_name"]) for line in lines} == {
            (ID, "ws://x/", "WebSocketReceive")
        }
        assert "fail_soon" in str(lines[1]["callback"])

    async def test_a_plain_function_that_returns_an_awaitable(self, lines: list[Line]) -> None:
        bench = Bench()
        bench.dispatcher.on(842, lambda event: Slow()(event))
        bench.dispatcher.on(842, lambda event: asyncio.get_running_loop().create_future())
        got: list[object] = []
        bench.lane.put(receive("x"), got.append)
        assert [type(exc) for exc in bench.errors(lines)] == [InvalidHandler, InvalidHandler]
        assert "async def" in str(got[0])

    async def test_what_ends_the_program_goes_up_and_leaves_the_lane_fit(self) -> None:
        bench = Bench()

        def leave(event: Event) -> None:
            raise KeyboardInterrupt

        bench.dispatcher.on(842, leave)
        with pytest.raises(KeyboardInterrupt):
            bench.put(1)
        bench.dispatcher.off(842)
        bench.dispatcher.on(842, bench.plain())
        bench.put(2)
        assert bench.log == ["2"]

    # Marks.

    async def test_above_the_mark_the_lane_holds_until_half_is_gone(self) -> None:
        bench = Bench(high=4 * EVENT_COST)
        bench.dispatcher.on(843, bench.waiting)
        bench.lane.put(close())
        for _ in range(4):
            bench.lane.put(error())
        assert bench.holds == [], "at the mark, not above it"
        bench.lane.put(error())
        bench.lane.put(error())
        assert bench.holds == [True]
        releases: list[int] = []
        bench.dispatcher.on(844, lambda event: releases.append(len(bench.holds)))
        bench.gate.set()
        await bench.idle()
        assert bench.holds == [True, False]
        assert releases == [1, 1, 1, 2, 2, 2], "three of six had to go first"

    async def test_data_counts(self) -> None:
        bench = Bench(high=100_000)
        bench.dispatcher.on(842, bench.waiting)
        bench.put("first")
        bench.put("x" * 99_000)
        assert bench.holds == []
        bench.put("x")
        assert bench.holds == [True]
        bench.gate.set()
        await bench.idle()
        assert bench.holds == [True, False]

    async def test_bytes_and_wide_text_count_by_their_size(self) -> None:
        bench = Bench(high=100_000)
        bench.dispatcher.on(842, bench.waiting)
        bench.put("first")
        bench.put("\U0001f600" * 30_000)
        assert bench.holds == [True]
        bench.gate.set()
        await bench.idle()

    async def test_what_is_kept_elsewhere_counts(self) -> None:
        bench = Bench(high=EVENT_COST)
        event = close()
        bench.lane.keep(event)
        bench.lane.keep(event)
        assert bench.holds == [True]
        bench.lane.release(event)
        bench.lane.release(event)
        assert bench.holds == [True, False]

    @pytest.mark.parametrize("kind", ["plain", "async", "stream", "stream after async"])
    async def test_what_comes_on_release_keeps_its_place(self, kind: str) -> None:
        """When the lane lets go its owner puts what it had kept, while the lane is at work."""
        bench = Bench()
        kept = list(range(6, 30))

        def hold(held: bool) -> None:
            for item in () if held else kept[:3]:
                kept.remove(item)
                lane.put(receive(item))

        lane = Lane(bench.dispatcher, ID, "ws://x/", 4 * EVENT_COST, hold)
        events = EventStream(bench.dispatcher.outbox) if "stream" in kind else None
        bench.dispatcher.on(844, bench.slow() if kind == "stream after async" else bench.plain())
        if kind == "async":

            async def handler_soon(event: Event) -> None:
                await asyncio.sleep(0)
                bench.log.append(data_of(event))

            bench.dispatcher.on(842, handler_soon)
        elif kind == "plain":

            def handler(event: Event) -> None:
                bench.log.append(data_of(event))
                for index in range(1, 6) if data_of(event) == "0" else ():
                    lane.put(receive(index))

            bench.dispatcher.on(842, handler)
        lane.put(error())
        for index in range(1 if kind == "plain" else 6):
            lane.put(receive(index))
        if events is not None:
            while kept or bench.dispatcher.outbox.holds(lane):
                bench.log.append(data_of(await asyncio.wait_for(anext(events), PATIENCE)))
        await until(lambda: lane.task is None)
        order = [int(item) for item in bench.log if item.isdigit()]
        assert order == list(range(len(order)))
        assert len(order) >= 9, "nothing was let in"

    # Skipping.

    async def test_a_callback_can_be_skipped(self, lines: list[Line]) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.dispatcher.on(844, bench.slow())
        got: list[object] = []
        bench.lane.put(receive(1), got.append)
        bench.lane.put(error(), got.append)
        await until(lambda: bench.log)
        bench.lane.skip("enough")
        await bench.idle()
        assert bench.log == ["<1", "<WebSocketError", "WebSocketError>"]
        assert isinstance(got[0], asyncio.CancelledError)
        assert got[1] is None
        assert bench.errors(lines) == [], "who was asked to go did nothing wrong"

    async def test_skip_before_the_callback_has_begun(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.put(1, 2)
        bench.lane.skip("enough")
        await until(lambda: "<2" in bench.log)
        bench.gate.set()
        await bench.idle()
        assert bench.log[-2:] == ["<2", "2>"]

    async def test_skip_that_comes_too_late_hits_nobody_else(self) -> None:
        """The callback is through when the skip takes effect, and the next one runs in the same task."""
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.dispatcher.on(844, bench.slow(turns=5))
        bench.put(1)
        bench.lane.put(error())
        await until(lambda: bench.log)
        bench.gate.set()
        bench.lane.skip("enough")
        await bench.idle()
        assert bench.log[-2:] == ["<WebSocketError", "WebSocketError>"]

    async def test_skip_of_nothing(self) -> None:
        bench = Bench()
        bench.lane.skip("enough")
        bench.dispatcher.on(842, bench.plain())
        await asyncio.sleep(0)
        bench.put(1)
        assert bench.log == ["1"]

    async def test_a_callback_that_will_not_be_skipped_harms_no_other(self, lines: list[Line]) -> None:
        bench = Bench()
        mine = asyncio.CancelledError()

        async def stubborn(event: Event) -> None:
            if data_of(event) == "1":
                try:
                    await bench.waiting(event)
                except asyncio.CancelledError:
                    return
            raise mine

        bench.dispatcher.on(842, stubborn)
        bench.put(1, 2)
        await until(lambda: bench.log)
        bench.lane.skip("enough")
        await bench.idle()
        assert bench.errors(lines) == [mine]

    async def test_a_program_that_cancels_the_task_of_a_callback(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        got: list[object] = []
        bench.lane.put(receive(1), got.append)
        bench.lane.put(receive(2), got.append)
        await until(lambda: bench.log)
        task = bench.lane.task
        assert task is not None
        task.cancel()
        await until(lambda: "<2" in bench.log)
        bench.gate.set()
        await bench.idle()
        assert task.cancelled()
        assert isinstance(got[0], asyncio.CancelledError)
        assert got[1:] == [None]
