"""Listeners (DOM Standard section 2) and blobs."""

from __future__ import annotations

import asyncio

import pytest

from interceptor import UnsupportedType
from interceptor.client import Blob, CloseEvent, Event, EventTarget, MessageEvent

from .wire import Line, lines

__all__ = ["lines"]


class Target(EventTarget):
    onx = property(lambda self: self._handler("x"), lambda self, value: self._set_handler("x", value))


def test_listeners_are_called_in_order_and_the_same_one_counts_once() -> None:
    target, seen = EventTarget(), []
    first, second = (lambda event: seen.append("first")), (lambda event: seen.append("second"))
    for listener in (first, second, first):
        target.addEventListener("x", listener)
    target.addEventListener("y", first)
    target.dispatchEvent(Event("x"))
    assert seen == ["first", "second"]


def test_the_same_bound_method_counts_once_and_can_be_removed() -> None:
    target, seen = EventTarget(), list[Event]()
    target.addEventListener("x", seen.append)
    target.addEventListener("x", seen.append)
    target.dispatchEvent(Event("x"))
    target.removeEventListener("x", seen.append)
    target.removeEventListener("x", seen.append)
    target.removeEventListener("x", None)
    target.addEventListener("x", None)
    target.dispatchEvent(Event("x"))
    assert seen == [Event("x")]
    assert seen[0].target is target


def test_once_is_called_once_even_where_it_fires_again() -> None:
    target, seen = EventTarget(), []

    def again(event: Event) -> None:
        seen.append(event.type)
        target.dispatchEvent(Event("x"))

    target.addEventListener("x", again, once=True)
    target.dispatchEvent(Event("x"))
    assert seen == ["x"]


def test_a_listener_removed_meanwhile_is_not_called_and_one_added_not_yet() -> None:
    target, seen = EventTarget(), []
    late = lambda event: seen.append("late")  # noqa: E731
    removed = lambda event: seen.append("removed")  # noqa: E731

    def change(event: Event) -> None:
        target.removeEventListener("x", removed)
        target.addEventListener("x", late)

    target.addEventListener("x", change)
    target.addEventListener("x", removed)
    target.dispatchEvent(Event("x"))
    assert seen == []
    target.dispatchEvent(Event("x"))
    assert seen == ["late"]


def test_an_event_handler_keeps_its_place_when_replaced_and_loses_it_when_removed() -> None:
    target, seen = Target(), []
    target.onx = lambda event: seen.append("old")
    target.addEventListener("x", lambda event: seen.append("listener"))
    target.onx = lambda event: seen.append("new")
    target.dispatchEvent(Event("x"))
    target.onx = None
    target.dispatchEvent(Event("x"))
    target.onx = lambda event: seen.append("last")
    target.dispatchEvent(Event("x"))
    assert seen == ["new", "listener", "listener", "listener", "last"]


def test_a_handler_and_the_same_function_as_listener_are_two() -> None:
    target, seen = Target(), list[Event]()
    target.onx = seen.append
    target.addEventListener("x", seen.append)
    target.dispatchEvent(Event("x"))
    assert len(seen) == 2


async def test_an_exception_in_one_does_not_stop_the_next_and_is_logged_once(lines: list[Line]) -> None:
    target, seen = EventTarget(), []

    def plain(event: Event) -> None:
        raise ValueError("plain")

    async def slow(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append("async")
        raise ValueError("async")

    for listener in (plain, slow, lambda event: seen.append("last")):
        target.addEventListener("x", listener)
    target.dispatchEvent(Event("x"))
    assert seen == ["last"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == ["last", "async"]
    assert [(line["event"], line["log_level"]) for line in lines] == [("a listener failed", "error")] * 2


def test_events_carry_what_the_standard_says() -> None:
    assert MessageEvent("message", "x", "ws://e") == MessageEvent("message", data="x", origin="ws://e")
    end = CloseEvent("close", code=1000)
    assert (end.type, end.wasClean, end.code, end.reason, end.target) == ("close", False, 1000, "", None)


# Blob


async def test_a_blob_is_its_parts_one_after_the_other() -> None:
    blob = Blob(
        ["ü", b"\0", bytearray(b"a"), memoryview(b"xbx")[1:2], Blob(["c"]), "\ud800"], type="Text/Plain"
    )
    assert bytes(blob) == await blob.arrayBuffer() == "ü\0abc\ufffd".encode()
    assert (blob.size, len(blob), blob.type) == (9, 9, "text/plain")
    assert await blob.text() == "ü\0abc\ufffd"
    assert bytes(blob.slice(2, 4)) == b"\0a"
    assert (bytes(blob.slice(-3)), blob.slice(-3, contentType="a/b").type) == ("\ufffd".encode(), "a/b")
    assert repr(Blob([b"x"], type="a/b")) == "<Blob 1 bytes a/b>"
    assert Blob([], type="ü").type == ""
    assert await Blob([b"\xef\xbb\xbfa\xff"]).text() == "a\ufffd"


@pytest.mark.parametrize("parts", ["text", b"bytes", Blob(), [1], [None]])
def test_a_blob_of_other_parts_is_refused(parts: object) -> None:
    with pytest.raises(UnsupportedType):
        Blob(parts)  # type: ignore[arg-type]
