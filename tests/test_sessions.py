"""Sessions: the table of a host's sockets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from interceptor import Host, Limits, Mode, Session, State, WebSocketError, WebSocketUpgrade
from interceptor.config import Security, Settings, Timeouts
from interceptor.dispatch import Dispatcher
from interceptor.exceptions import HandshakeFailure, UnknownSocket
from interceptor.patterns import InterceptedURLs
from interceptor.sessions import Sessions

from .peer import Peer, Recorder, close_frame, request
from .programs import ask, make_host, opened
from .wire import quiet_loop as quiet_loop


def table(**limits: int) -> Sessions:
    settings = Settings((), True, False, Limits(**limits), Timeouts(), Security())
    return Sessions(Host(), settings, Dispatcher(), InterceptedURLs([]))


def stand_in(id: str) -> Session:
    """All that the table knows of a session."""
    return cast(Session, SimpleNamespace(id=id))


def test_a_session_is_pending_then_open_then_gone() -> None:
    sessions, one = table(), stand_in("1")
    sessions.session_begun(one)
    assert sessions.pending == {"1": one}
    assert not sessions.open
    sessions.session_opened(one)
    assert not sessions.pending
    assert sessions.find("1") is sessions.open["1"] is one
    sessions.session_over(one)
    sessions.session_over(one)
    assert not sessions.open


def test_a_session_that_never_opens() -> None:
    sessions, one = table(), stand_in("1")
    sessions.session_begun(one)
    sessions.session_over(one)
    assert not sessions.pending


@pytest.mark.parametrize("id", ["2", "", 1, None, [], {}, b"1"])
def test_an_id_that_is_not_open(id: str) -> None:
    sessions = table()
    sessions.session_opened(stand_in("1"))
    with pytest.raises(UnknownSocket) as caught:
        sessions.find(id)
    assert caught.value.id is id
    assert repr(id) in str(caught.value)


def test_nobody_else_changes_the_table() -> None:
    sessions = table()
    with pytest.raises(TypeError):
        sessions.open["1"] = stand_in("1")  # type: ignore[index]  # that it cannot is the point


def test_limits() -> None:
    sessions = table(sockets=3, pending=1)
    sessions.admit(Mode.MANUAL)
    sessions.session_begun(stand_in("1"))
    with pytest.raises(HandshakeFailure, match=r"1 upgrades.*Limits\.pending") as caught:
        sessions.admit(Mode.MANUAL)
    assert caught.value.status == 503
    sessions.admit(Mode.AUTO)
    sessions.session_opened(stand_in("1"))
    sessions.admit(Mode.MANUAL)
    sessions.session_opened(stand_in("2"))
    sessions.session_begun(stand_in("3"))
    for mode in (Mode.AUTO, Mode.MANUAL):
        with pytest.raises(HandshakeFailure, match=r"3 open sockets.*Limits\.sockets") as caught:
            sessions.admit(mode)
        assert caught.value.status == 503
    sessions.session_over(stand_in("3"))
    sessions.admit(Mode.AUTO)


async def test_nothing_is_admitted_once_the_end_has_begun() -> None:
    sessions = table()
    await sessions.end_all(0)
    with pytest.raises(HandshakeFailure, match="stopping"):
        sessions.admit(Mode.AUTO)


async def test_end_all_knows_every_state() -> None:
    """Pending, open, closed by the program, closed by the peer: each ends as it should."""
    async with make_host() as host:
        seen = Recorder(host)
        sessions = host._sessions
        async with (
            opened(host, seen) as (plain, plain_id),
            opened(host, seen) as (closing, closing_id),
            opened(host, seen) as (closed, closed_id),
            Peer.connect(host) as waiting,
        ):
            await waiting.send(ask(host, "/manual"))
            pending = (await seen.wait_for(WebSocketUpgrade, 4)).id
            gate = asyncio.Event()

            @host.on("WebSocketClose")
            async def wait(event: object) -> None:
                await gate.wait()

            await closed.send(close_frame(3000))
            assert await closed.close_code() == 3000
            host.WebSocketClose(closing_id, 4000)
            assert host.sockets[closed_id].state is State.CLOSED
            loop = asyncio.get_running_loop()
            ending = asyncio.create_task(sessions.end_all(loop.time() + 20))
            assert await closing.close_code() == 4000
            assert await plain.close_code() == 1001
            assert (await waiting.answer()).status == 503
            assert [error.id for error in seen.of(WebSocketError)] == [pending]
            assert not ending.done()
            await closing.send(close_frame(4000))
            await plain.send(close_frame(1001))
            await ending
            assert {session.close_code for session in sessions.open.values()} == {1001, 3000, 4000}
            assert sessions.find(plain_id).state is State.CLOSED
            gate.set()
    assert not host.sockets


async def test_failures_that_nobody_hears_are_bounded() -> None:
    """A page that is refused again and again, before a program that is slow to hear of it."""
    go = asyncio.Event()
    host = make_host(limits=Limits(pending=5))
    seen = Recorder(host)
    told: list[WebSocketError] = []

    @host.on("WebSocketError")
    async def slow(event: WebSocketError) -> None:
        await go.wait()
        told.append(event)

    async with host:
        statuses = []
        for _ in range(8):
            async with Peer.connect(host) as peer:
                head = request("/", Peer.authority(host), origin="http://evil.test")
                statuses.append((await peer.ask(head)).status)
        assert statuses == [403] * 8
        # Whoever may connect does.
        async with opened(host, seen):
            pass
        go.set()
    assert len([event for event in told if "may not connect" in event.text]) == 5


async def test_failures_of_those_let_in_are_bounded_apart() -> None:
    """They leave before the program has answered, and it hears of it late."""
    go = asyncio.Event()
    host = make_host(limits=Limits(pending=5))
    seen, told = Recorder(host), 0

    @host.on("WebSocketError")
    async def slow(event: WebSocketError) -> None:
        nonlocal told
        await go.wait()
        told += 1

    async with host:
        for count in range(1, 6):
            async with Peer.connect(host) as peer:
                await peer.send(ask(host, "/manual"))
                await seen.wait_for(WebSocketUpgrade, count)
            await seen.wait_for(WebSocketError, count)
        for path in ("/manual", "/auto"):
            async with Peer.connect(host) as peer:
                answer = await peer.ask(ask(host, path))
                assert answer.status == 503
                assert b"not told yet" in answer.body
        go.set()
    assert told == 7
