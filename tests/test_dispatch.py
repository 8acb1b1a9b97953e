"""Dispatcher: who is registered, calls from other threads, and waiting for what still runs."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator

import pytest

from interceptor.dispatch import Dispatcher, check_handler, is_async
from interceptor.events import (
    EVENTS,
    Event,
    WebSocketReceive,
)
from interceptor.exceptions import InvalidArgument, InvalidHandler, InvalidState, UnknownEvent

from .bench import Bench, close, error, receive
from .peer import PATIENCE, until
from .wire import Line, TurnCounter
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

EAGER = getattr(asyncio, "eager_task_factory", None)


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
        assert [len(bench.dispatcher.callbacks[cls]) for cls in EVENTS] == [1, 1, 2, 1, 1]
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
        assert bench.dispatcher.callbacks[WebSocketReceive] == ()

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
            functools.partial(slow, receive("x"), 1),
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
        assert not bench.dispatcher.may_act()
        bench.dispatcher.run(bench.log.append, "loop")
        assert bench.log == [], (
            "it is not the caller who runs what others asked for: there may be no end of it"
        )
        await asyncio.sleep(0)
        assert bench.log == ["thread", "loop"]
        assert bench.dispatcher.may_act()

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

    async def test_what_is_cancelled_has_its_time_to_clean_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("interceptor.dispatch.dispatcher.GRACE", 0.6)
        bench = Bench()
        cleaned: list[Event] = []

        async def careful(event: Event) -> None:
            try:
                await bench.gate.wait()
            finally:
                await asyncio.sleep(0.3)
                cleaned.append(event)

        bench.dispatcher.on(842, careful)
        bench.put(1)
        await asyncio.sleep(0)
        await asyncio.wait_for(bench.dispatcher.drain(0), PATIENCE)
        assert len(cleaned) == 1, "it was cancelled again while it cleaned up"

    async def test_what_will_not_end_is_given_up(
        self, lines: list[Line], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("interceptor.dispatch.dispatcher.GRACE", 0.05)
        bench, begun = Bench(), asyncio.Event()
        free: list[bool] = []

        async def stubborn(event: Event) -> None:
            begun.set()
            while not free:
                try:
                    await bench.gate.wait()
                    return
                except asyncio.CancelledError:
                    pass

        bench.dispatcher.on(842, stubborn)
        bench.put(1)
        await asyncio.wait_for(begun.wait(), PATIENCE)
        await asyncio.wait_for(bench.dispatcher.drain(0), PATIENCE)
        assert [line["count"] for line in lines if line["log_level"] == "error"] == [1]
        free.append(True)
        bench.gate.set()
        await bench.idle()


@pytest.mark.skipif(not EAGER, reason="eager tasks came with Python 3.12")
async def test_eager_tasks_of_the_program_leave_nothing_to_wait_for() -> None:
    """They may be over before whoever makes them knows them."""
    asyncio.get_running_loop().set_task_factory(EAGER)
    bench = Bench()
    bench.dispatcher.on(842, bench.slow(turns=0))
    bench.put(1)
    await bench.idle()
    bench.dispatcher.spawn(bench.waiting(receive(2)))
    bench.gate.set()
    await bench.dispatcher.drain(asyncio.get_running_loop().time() + PATIENCE)
    assert bench.log == ["<1", "1>", "<2", "2>"]


async def test_calls_of_other_threads_leave_the_loop_to_its_sockets() -> None:
    """However many there are, the loop turns in between."""
    bench = Bench()
    handled: Counter[int] = Counter()
    turns = TurnCounter()

    def work() -> None:
        handled[turns.count] += 1
        time.sleep(0.001)

    def ask() -> None:
        for _ in range(200):
            bench.dispatcher.run(work)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    await until(lambda: handled.total() == 200)
    assert max(handled.values()) < 20
