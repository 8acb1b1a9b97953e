"""Outgoing: what other threads send is counted until the loop has it."""

from __future__ import annotations

import threading

import pytest

from interceptor.exceptions import InvalidArgument
from interceptor.outgoing import CALL_COST, Outgoing


def test_whole_messages_and_pieces() -> None:
    outgoing = Outgoing(1000, threading.Lock())
    assert outgoing.prepare(b"x", True, None) == (b"x", 2, True)
    assert outgoing.prepare("x", True, None) == (b"x", 1, True)
    assert outgoing.prepare("a", False, None) == (b"a", 1, False)
    with pytest.raises(InvalidArgument, match="text message is unfinished"):
        outgoing.prepare(b"b", True, None)
    assert outgoing.prepare("b", False, 0) == (b"b", 0, False)
    assert outgoing.prepare("c", True, None) == (b"c", 0, True)
    assert outgoing.prepare(b"d", True, None) == (b"d", 2, True)
    with pytest.raises(InvalidArgument, match="fin"):
        outgoing.prepare("x", 2, None)  # type: ignore[arg-type]


def test_what_is_on_its_way_is_bounded() -> None:
    outgoing = Outgoing(1000, threading.Lock())
    taken = [outgoing.leave(b"") for _ in range(10)]
    assert taken == [True] * (1000 // CALL_COST + 1) + [False] * (9 - 1000 // CALL_COST)
    assert outgoing.overflows()
    assert not outgoing.overflows()
    outgoing.arrive(b"")
    assert outgoing.leave(bytes(5000))
    assert not outgoing.leave(b"")
