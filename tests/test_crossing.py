"""Crossing and Queue: jobs for the program's thread, with nothing around them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from interceptor.dispatch.crossing import Crossing
from interceptor.dispatch.dq import Queue, cost
from interceptor.events import Event
from interceptor.exceptions import InvalidState

from .bench import close, receive
from .wire import Line
from .wire import lines as lines


class Bench:
    """A crossing whose posts are kept."""

    def __init__(self, gives_out: bool = False) -> None:
        self.posted: list[Callable[[], None]] = []
        self.lost = 0
        self.ran: list[object] = []
        self.crossing = Crossing(self.posted.append, self.lose, gives_out=gives_out)

    def lose(self) -> None:
        self.lost += 1

    def job(self, name: object) -> Callable[[], None]:
        return lambda: self.ran.append(name)


def test_one_post_for_all_that_waits() -> None:
    bench = Bench()
    for index in range(5):
        bench.crossing.enter(bench.job(index))
    assert len(bench.posted) == 1
    bench.posted.pop()()
    assert bench.ran == [0, 1, 2, 3, 4]
    assert not bench.posted
    bench.crossing.enter(bench.job(5))
    assert len(bench.posted) == 1


def test_a_slice_that_is_over_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interceptor.dispatch.crossing.SLICE", -1)
    bench = Bench()
    for index in range(3):
        bench.crossing.enter(bench.job(index))
    bench.posted.pop()()
    assert bench.ran == [0]
    resume = bench.posted.pop()
    # What comes in between does not ask again, and a pump from before does not overtake.
    bench.crossing.enter(bench.job(3))
    assert not bench.posted
    bench.crossing.pump()
    assert bench.ran == [0]
    resume()
    assert bench.ran == [0, 1]
    while bench.posted:
        bench.posted.pop()()
    assert bench.ran == [0, 1, 2, 3]


def test_a_job_that_raises_leaves_the_rest_for_the_next_pump() -> None:
    bench = Bench()

    def leave() -> None:
        assert bench.crossing.in_job
        raise KeyboardInterrupt

    bench.crossing.enter(leave)
    bench.crossing.enter(bench.job(1))
    with pytest.raises(KeyboardInterrupt):
        bench.posted.pop()()
    assert not bench.crossing.in_job
    bench.posted.pop()()
    assert bench.ran == [1]


def test_post_raises_once_and_again_later(lines: list[Line]) -> None:
    gone = [True]

    def post(function: Callable[[], None]) -> None:
        if gone:
            raise ZeroDivisionError

    lost: list[bool] = []
    crossing = Crossing(post, lambda: lost.append(True))
    assert not crossing.is_there()
    assert crossing.discarding
    assert not crossing.is_there()
    assert len([line for line in lines if line["log_level"] == "error"]) == 1
    gone.clear()
    assert crossing.is_there()
    assert not crossing.discarding
    assert lost


async def test_a_call_and_its_result() -> None:
    bench = Bench()
    waiting = asyncio.ensure_future(bench.crossing.call(lambda: "result"))
    await asyncio.sleep(0)
    await asyncio.to_thread(bench.posted.pop())
    assert await waiting == "result"
    bench.crossing.discard()
    assert await bench.crossing.call(lambda: "left out") is None


async def test_a_call_that_is_cancelled_is_left_out() -> None:
    bench = Bench()
    waiting = asyncio.ensure_future(bench.crossing.call(bench.job("late")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    bench.posted.pop()()
    assert bench.ran == []


class TestQueue:
    """A crossing that its caller pumps."""

    def give(self, queue: Queue, *events: Event | None) -> None:
        for event in events:
            queue.crossing.enter(lambda event=event: event)  # type: ignore[misc]

    def test_events_are_given_out_one_by_one(self) -> None:
        queue = Queue()
        first, second = receive("1"), receive("2")
        self.give(queue, None, first, None, second, None)
        assert queue.take(None) is first
        assert queue.take(0) is second
        assert queue.take(0) is None
        assert len(queue.crossing) == 0

    def test_early_ones_come_first_and_are_bounded(self, lines: list[Line]) -> None:
        events = [receive("x" * 100) for _ in range(5)]
        queue = Queue(room=2 * cost(events[0]))
        for event in events:
            queue.put_early(event)
        self.give(queue, close())
        taken = [queue.take(0) for _ in range(4)]
        assert taken[:2] == events[:2]
        assert [event and event.event for event in taken[2:]] == ["WebSocketClose", None]
        assert [line["count"] for line in lines] == [3]

    def test_an_early_one_wakes_who_waits(self) -> None:
        queue = Queue(room=10_000)
        timer = threading.Timer(0.01, queue.put_early, [receive("x")])
        timer.start()
        event = queue.take(None)
        assert event is not None
        timer.join()

    def test_end(self) -> None:
        queue = Queue()
        timer = threading.Timer(0.01, queue.end)
        timer.start()
        assert queue.take(None) is None
        timer.join()
        self.give(queue, receive("late"))
        assert queue.take(None) is not None
        assert queue.take(None) is None

    def test_it_takes_over_from_a_post(self) -> None:
        bench = Bench()
        bench.crossing.enter(bench.job("posted, and never run"))
        queue = Queue(bench.crossing)
        assert queue.take(0) is None
        bench.crossing.enter(bench.job("later"))
        assert queue.take(0) is None
        assert bench.ran == ["posted, and never run", "later"]
        assert len(bench.posted) == 1

    def test_one_at_a_time(self) -> None:
        queue = Queue()
        caught: list[str] = []

        def nest() -> None:
            try:
                queue.take(0)
            except InvalidState as exc:
                caught.append(str(exc))

        queue.crossing.enter(nest)
        queue.crossing.enter(lambda: run_in_thread(nest))
        queue.take(0)
        assert "inside of dq()" in caught[0]
        assert "another thread" in caught[1]


def run_in_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
