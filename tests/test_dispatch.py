"""Dispatcher, Lane and EventStream alone: no host, no wire."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Generator

import pytest

from interceptor.dispatch import EVENT_COST, Dispatcher, EventStream, Lane, check_handler, is_async
from interceptor.events import (
    EVENTS,
    Event,
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.exceptions import InvalidArgument, InvalidHandler, InvalidState, UnknownEvent

from .peer import PATIENCE, until
from .wire import Line
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

ID = "0123456789abcde"


def receive(data: str | int) -> WebSocketReceive:
    return WebSocketReceive(object="host", id=ID, data=str(data), datatype=1)


def close() -> WebSocketClose:
    return WebSocketClose(object="host", id=ID, code=1000)


def error() -> WebSocketError:
    return WebSocketError(object="host", id=ID, text="wrong")


def data_of(event: Event) -> str:
    return str(getattr(event, "data", event.event))


class Bench:
    """A dispatcher on the running loop, a lane, and what is noted of them."""

    def __init__(self, high: int = 10_000) -> None:
        self.dispatcher = Dispatcher()
        self.dispatcher.bind()
        self.holds: list[bool] = []
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.lane = self.another(high)

    def another(self, high: int = 10_000) -> Lane:
        return Lane(self.dispatcher, ID, "ws://x/", high, self.holds.append)

    def plain(self, name: str = "") -> Callable[[Event], None]:
        def handler(event: Event) -> None:
            self.log.append(name + data_of(event))

        return handler

    def slow(self, name: str = "", turns: int = 2) -> Callable[[Event], Awaitable[None]]:
        async def handler(event: Event) -> None:
            self.log.append(f"<{name}{data_of(event)}")
            for _ in range(turns):
                await asyncio.sleep(0)
            self.log.append(f"{name}{data_of(event)}>")

        return handler

    async def waiting(self, event: Event) -> None:
        self.log.append(f"<{data_of(event)}")
        await self.gate.wait()
        self.log.append(f"{data_of(event)}>")

    def put(self, *data: str | int) -> None:
        for item in data:
            self.lane.put(receive(item))

    async def idle(self) -> None:
        await until(lambda: self.lane.task is None)

    def errors(self, logged: list[Line]) -> list[object]:
        return [line["exc_info"] for line in logged if line["log_level"] == "error"]


class TestHandlers:
    """Who is registered for what."""

    @pytest.mark.parametrize("which", ["WebSocketReceive", 842, "842", WebSocketReceive])
    async def test_an_event_by_name_number_or_class(self, which: object) -> None:
        bench = Bench()
        handler = bench.plain()
        bench.dispatcher.on(which, handler)
        bench.lane.put(close())
        bench.put("a")
        assert bench.log == ["a"]
        bench.dispatcher.off(WebSocketReceive, handler)
        bench.put("b")
        assert bench.log == ["a"]

    async def test_all(self) -> None:
        bench = Bench()
        bench.dispatcher.on("All", bench.plain("all "))
        bench.dispatcher.on(842, bench.plain("one "))
        assert [len(bench.dispatcher.callbacks(cls)) for cls in EVENTS] == [1, 1, 2, 1, 1]
        bench.put("a")
        bench.lane.put(error())
        bench.lane.put(close())
        assert bench.log == ["all a", "one a", "all WebSocketError", "all WebSocketClose"]

    async def test_off_takes_only_what_was_registered_so(self) -> None:
        bench = Bench()
        first, second = bench.plain("1"), bench.plain("2")
        for which, handler in (("All", first), (842, first), (842, second), (842, first)):
            bench.dispatcher.on(which, handler)
        bench.dispatcher.off(842, first)
        bench.put("a")
        assert bench.log == ["1a", "2a"]
        bench.dispatcher.off("WebSocketReceive")
        bench.put("b")
        assert bench.log == ["1a", "2a", "1b"]
        bench.dispatcher.off("All")
        bench.put("c")
        assert len(bench.log) == 3

    async def test_off_of_a_bound_method(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.dispatcher.off(842, bench.waiting)
        assert bench.dispatcher.callbacks(WebSocketReceive) == ()

    @pytest.mark.parametrize("which", ["WebSocketRecieve", "all", 0, 845, None, Event, int, [], "All "])
    async def test_no_such_event(self, which: object) -> None:
        dispatcher = Dispatcher()
        for call in (dispatcher.on, dispatcher.off):
            with pytest.raises(UnknownEvent, match="WebSocketReceive \\(842\\)"):
                call(which, print)
        with pytest.raises(UnknownEvent):
            dispatcher.check(which)

    async def test_off_of_what_is_not_there(self) -> None:
        bench = Bench()
        handler = bench.plain()
        bench.dispatcher.on(842, handler)
        for which, other in ((843, None), (843, handler), (842, bench.plain()), ("All", handler)):
            with pytest.raises(InvalidArgument, match="registered for"):
                bench.dispatcher.off(which, other)
        bench.put("a")
        assert bench.log == ["a"]

    async def test_handlers_may_change_the_table(self) -> None:
        bench = Bench()

        def once(event: Event) -> None:
            bench.log.append("once")
            bench.dispatcher.off(842, once)
            bench.dispatcher.on(842, bench.plain("later "))

        bench.dispatcher.on(842, once)
        bench.put("a", "b")
        assert bench.log == ["once", "later b"]


class Plain:
    """A callable object."""

    def __call__(self, event: Event) -> None:
        """Handle."""

    def method(self, event: Event, extra: int = 0) -> None:
        """Handle."""

    async def slow_method(self, event: Event) -> None:
        """Handle."""


class Slow:
    """A callable object that is async."""

    async def __call__(self, event: Event) -> None:
        """Handle."""


class Lazy:
    """A callable object that runs nothing when it is called."""

    def __call__(self, event: Event) -> Generator[None]:
        """Handle."""
        yield


async def slow(event: Event, extra: int = 0) -> None:
    """Handle."""


def lazy(event: Event) -> Generator[None]:
    """Handle."""
    yield


class TestCheck:
    """What a handler is, told when it is registered."""

    @pytest.mark.parametrize(
        ("handler", "expected"),
        [
            (Plain(), False),
            (Plain().method, False),
            (print, False),
            (lambda event: None, False),
            (functools.partial(Plain().method, extra=1), False),
            (slow, True),
            (functools.partial(slow, extra=1), True),
            (functools.partial(functools.partial(slow), extra=1), True),
            (Plain().slow_method, True),
            (Slow(), True),
            (functools.partial(Slow()), True),
            (functools.partial(Plain.slow_method, Plain()), True),
        ],
    )
    def test_plain_or_async(self, handler: Callable[..., object], expected: bool) -> None:
        check_handler(handler, "event")
        assert is_async(handler) is expected

    @pytest.mark.parametrize(
        "handler",
        [
            lambda: None,
            lambda a, b: None,
            lambda *, event: None,
            functools.partial(slow, None, 1),
            Plain.method,
            "handler",
            None,
            lazy,
            functools.partial(lazy),
            Lazy(),
        ],
    )
    def test_what_cannot_be_called(self, handler: Callable[..., object]) -> None:
        with pytest.raises(InvalidHandler):
            check_handler(handler, "event")
        with pytest.raises(InvalidHandler):
            Dispatcher().on(842, handler)

    def test_the_message_tells_what_to_write(self) -> None:
        def greet(event: Event, name: str) -> None:
            """Handle."""

        with pytest.raises(InvalidHandler, match=r"greet\(.*one event.*write def .*greet\(event\)"):
            check_handler(greet, "event")

    def test_builtins_that_do_not_tell_are_taken(self) -> None:
        check_handler(dict.fromkeys, "event")
        check_handler(type, "event")


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
            bench.dispatcher.on(842, bench.slow("", 1))
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


class TestDrain:
    """Waiting for what still runs."""

    async def test_nothing_runs(self) -> None:
        bench = Bench()
        await bench.dispatcher.drain(0)

    async def test_callbacks_and_tasks_are_waited_for(self) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.put(1, 2)
        ended = asyncio.Event()

        async def job() -> None:
            await bench.gate.wait()
            ended.set()

        bench.dispatcher.spawn(job())
        draining = asyncio.create_task(bench.dispatcher.drain(bench.dispatcher.loop.time() + PATIENCE))
        await until(lambda: bench.log)
        assert not draining.done()
        bench.gate.set()
        await asyncio.wait_for(draining, PATIENCE)
        assert bench.log == ["<1", "1>", "<2", "2>"]
        assert ended.is_set()

    async def test_after_the_deadline_all_are_cancelled(self, lines: list[Line]) -> None:
        bench = Bench()
        bench.dispatcher.on(842, bench.waiting)
        bench.dispatcher.on(843, bench.plain())
        bench.put(1, 2, 3)
        bench.lane.put(close())
        left = [True, True]

        async def job() -> None:
            while True:
                try:
                    await bench.gate.wait()
                except asyncio.CancelledError:
                    if not left:
                        raise
                    left.pop()

        bench.dispatcher.spawn(job())
        await until(lambda: bench.log)
        await asyncio.wait_for(bench.dispatcher.drain(0), PATIENCE)
        assert bench.log == ["<1", "<2", "<3", "WebSocketClose"]
        assert not left
        assert bench.errors(lines) == []

    async def test_who_waits_for_it_is_excused(self) -> None:
        bench = Bench()
        drained: list[bool] = []

        async def stop(event: Event) -> None:
            bench.dispatcher.excuse(asyncio.current_task())
            await bench.dispatcher.drain(bench.dispatcher.loop.time() + 3600)
            drained.append(True)

        bench.dispatcher.on(842, stop)
        bench.put(1)
        await asyncio.wait_for(bench.idle(), PATIENCE)
        assert drained == [True]

    async def test_who_joins_later_is_excused_too(self) -> None:
        bench = Bench()

        async def stop(event: Event) -> None:
            await bench.gate.wait()
            bench.dispatcher.excuse(asyncio.current_task())
            await draining

        bench.dispatcher.on(842, stop)
        bench.put(1)
        draining = asyncio.create_task(bench.dispatcher.drain(bench.dispatcher.loop.time() + 3600))
        await asyncio.sleep(0)
        bench.gate.set()
        await asyncio.wait_for(bench.idle(), PATIENCE)
        await draining

    async def test_what_will_not_end_is_given_up(
        self, lines: list[Line], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("interceptor.dispatch.MOST_ROUNDS", 20)
        bench = Bench()
        free: list[bool] = []

        async def stubborn(event: Event) -> None:
            while not free:
                try:
                    await bench.gate.wait()
                    return
                except asyncio.CancelledError:
                    pass

        bench.dispatcher.on(842, stubborn)
        bench.put(1)
        await asyncio.wait_for(bench.dispatcher.drain(0), PATIENCE)
        assert [line["count"] for line in lines if line["log_level"] == "error"] == [1]
        free.append(True)
        bench.gate.set()
        await bench.idle()


class TestThreads:
    """Calls from other threads."""

    async def test_calls_of_a_thread_run_on_the_loop_in_order(self) -> None:
        bench = Bench()
        where: list[int] = []

        def note(item: str) -> None:
            bench.log.append(item)
            where.append(threading.get_ident())

        def work() -> None:
            for index in range(100):
                bench.dispatcher.run(note, str(index))

        await asyncio.to_thread(work)
        await until(lambda: len(bench.log) == 100)
        assert bench.log == [str(index) for index in range(100)]
        assert set(where) == {threading.get_ident()}

    async def test_a_call_of_the_loop_does_not_overtake_them(self) -> None:
        bench = Bench()
        thread = threading.Thread(target=bench.dispatcher.run, args=(bench.log.append, "thread"))
        thread.start()
        thread.join()
        assert bench.log == []
        bench.dispatcher.run(bench.log.append, "loop")
        assert bench.log == ["thread", "loop"]
        await asyncio.sleep(0)
        assert bench.log == ["thread", "loop"]

    def test_before_there_is_a_loop(self) -> None:
        dispatcher = Dispatcher()
        with pytest.raises(InvalidState, match="not running"):
            dispatcher.loop  # noqa: B018
        with pytest.raises(InvalidState, match="not running"):
            dispatcher.run(print)

    def test_after_the_loop_is_gone(self) -> None:
        async def bind() -> Dispatcher:
            dispatcher = Dispatcher()
            dispatcher.bind()
            return dispatcher

        dispatcher = asyncio.run(bind())
        failed: list[BaseException] = []

        def work() -> None:
            try:
                dispatcher.run(print)
            except InvalidState as exc:
                failed.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert "ended" in str(failed[0])


class TestStream:
    """Events that no callback takes."""

    async def test_from_now_on_in_order(self) -> None:
        bench = Bench()
        bench.put("before")
        events = EventStream(bench.dispatcher.outbox)
        bench.put(1, 2)
        bench.lane.put(close())
        bench.dispatcher.outbox.close()
        assert [data_of(event) async for event in events] == ["1", "2", "WebSocketClose"]
        assert [data_of(event) async for event in events] == []

    async def test_callbacks_come_first(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        bench.dispatcher.on(842, bench.plain())
        bench.put(1)
        bench.lane.put(close())
        assert isinstance(await anext(events), WebSocketClose)
        assert bench.log == ["1"]

    async def test_what_somebody_claims_does_not_go_there(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        bench.lane.claimed = frozenset({WebSocketReceive})
        bench.put(1)
        bench.lane.put(close())
        assert isinstance(await anext(events), WebSocketClose)

    async def test_a_reader_that_waits_is_woken(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        reading = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        bench.put(1)
        assert data_of(await asyncio.wait_for(reading, PATIENCE)) == "1"
        reading = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        bench.dispatcher.outbox.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reading, PATIENCE)

    async def test_back_pressure(self) -> None:
        bench = Bench(high=4 * EVENT_COST)
        events = EventStream(bench.dispatcher.outbox)
        for _ in range(7):
            bench.lane.put(error())
        assert bench.holds == [True]
        other = bench.another()
        bench.dispatcher.on(842, bench.plain())
        other.put(receive("other"))
        assert bench.log == ["other"]
        for _ in range(7):
            await anext(events)
        assert bench.holds == [True, False]

    async def test_then_is_called_when_the_event_was_taken(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        got: list[object] = []
        bench.lane.put(close(), got.append)
        assert got == []
        await anext(events)
        assert got == [None]

    async def test_between_async_callbacks(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        bench.dispatcher.on(842, bench.slow())
        bench.put(1)
        bench.lane.put(error())
        bench.put(2)
        bench.lane.put(close())
        assert isinstance(await anext(events), WebSocketError)
        assert bench.log == ["<1", "1>"]
        assert isinstance(await anext(events), WebSocketClose)
        assert bench.log == ["<1", "1>", "<2", "2>"]

    async def test_lanes_take_turns(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        other = bench.another()
        bench.put("a1", "a2", "a3")
        for item in ("b1", "b2"):
            other.put(receive(item))
        assert [data_of(await anext(events)) for _ in range(5)] == ["a1", "b1", "a2", "b2", "a3"]

    async def test_several_streams_share(self) -> None:
        bench = Bench()
        first, second = (EventStream(bench.dispatcher.outbox) for _ in range(2))
        reading = [asyncio.create_task(anext(stream)) for stream in (first, second)]
        await asyncio.sleep(0)
        bench.put(1, 2, 3)
        assert sorted([data_of(await task) for task in reading]) == ["1", "2"]
        await first.aclose()
        assert data_of(await anext(second)) == "3"

    async def test_closing_one_leaves_the_other(self) -> None:
        bench = Bench()
        first, second = (EventStream(bench.dispatcher.outbox) for _ in range(2))
        reading = asyncio.create_task(anext(first))
        await asyncio.sleep(0)
        await first.aclose()
        await first.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reading, PATIENCE)
        bench.put(1, 2)
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        assert data_of(await anext(second)) == "1"

    @pytest.mark.parametrize("how", ["aclose", "drop"])
    async def test_letting_the_last_one_go_frees_the_lanes(self, how: str) -> None:
        bench = Bench(high=EVENT_COST)
        events: EventStream | None = EventStream(bench.dispatcher.outbox)
        got: list[object] = []
        for _ in range(5):
            bench.lane.put(error(), got.append)
        assert bench.holds == [True]
        bench.dispatcher.on(843, bench.plain())
        bench.lane.put(close())
        assert got == []
        if how == "aclose" and events is not None:
            await events.aclose()
        else:
            events = None
        assert got == [None] * 5
        assert bench.holds == [True, False]
        assert bench.log == ["WebSocketClose"]

    async def test_a_reader_that_is_cancelled_loses_nothing(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        reading = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        bench.put(1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert data_of(await anext(events)) == "1"

    async def test_after_the_end_nothing_runs_any_more(self) -> None:
        bench = Bench()
        events: EventStream | None = EventStream(bench.dispatcher.outbox)
        bench.put(1)
        bench.lane.put(close())
        bench.dispatcher.on(843, bench.plain())
        bench.dispatcher.outbox.close()
        events = None
        assert events is None
        assert bench.log == []

    async def test_every_event_can_go_there(self) -> None:
        bench = Bench()
        events = EventStream(bench.dispatcher.outbox)
        upgrade = WebSocketUpgrade(object="host", id=ID, url="ws://x/", headers="", type="auto")
        page = HTTPRequest(object="host", url="http://x/")
        for event in (page, upgrade, receive(1), error(), close()):
            bench.lane.put(event)
            assert await anext(events) is event
