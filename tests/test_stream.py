"""EventStream: the events that no callback takes."""

from __future__ import annotations

import asyncio

import pytest

from interceptor.dispatch import EVENT_COST
from interceptor.events import (
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.stream import EventStream

from .bench import ID, Bench, close, data_of, error, receive
from .peer import PATIENCE
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop


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
