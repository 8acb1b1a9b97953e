"""Manual handshakes: every form of answer, over the wire and in the events."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from interceptor import (
    Host,
    Limits,
    Timeouts,
    UnknownSocket,
    UnsupportedType,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .peer import ACCEPT, CLOSE, PATIENCE, TEXT, Peer, Recorder, close_frame, frame, request
from .wire import (
    ASKED,
    AUTO,
    BOTH_LOOPS,
    ERROR,
    HEAD,
    MANUAL,
    RIGHT,
    SWITCHED,
    UPGRADE,
    Line,
    Reply,
    error_of,
    exchange,
    make_host,
    opened,
    story,
    switched,
    turns,
)
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

MIB = 1024 * 1024
CHAT = request("/manual", "myapp", extra="Sec-WebSocket-Protocol: chat, superchat\r\n")
DEFLATE = request("/manual", "myapp", extra="Sec-WebSocket-Extensions: permessage-deflate\r\n")


async def accepted(reply: Reply, head: bytes = MANUAL) -> bytes:
    """Ask a host with this callback, which accepts; what came before the frames. The socket must work."""
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        host.on("WebSocketUpgrade")(reply)
        answer = await peer.ask(head)
        assert answer.status == 101
        event = await seen.wait_for(WebSocketUpgrade)
        await peer.send(frame(TEXT, "up"))
        assert (await seen.wait_for(WebSocketReceive)).data == "up"
        host.WebSocketSend(event.id, "down")
        assert (await peer.frame()).opcode == TEXT
        await peer.send(close_frame(1000))
        assert await peer.close_code() == 1000
    assert story(seen) == [ASKED, ("receive", "up"), ("close", 1000, "client")]
    return answer.head


# 101


async def test_accept() -> None:
    assert await accepted(lambda event: event.accept()) == SWITCHED


async def test_accept_by_an_async_callback() -> None:
    async def reply(event: WebSocketUpgrade) -> WebSocketUpgrade:
        await turns()
        return event.accept()

    assert await accepted(reply) == SWITCHED


async def test_accept_with_a_subprotocol_and_fields() -> None:
    head = await accepted(lambda event: event.accept("superchat", {"Set-Cookie": "a=1; Path=/"}), CHAT)
    more = b"Sec-WebSocket-Protocol: superchat\r\nSet-Cookie: a=1; Path=/\r\n\r\n"
    assert head == RIGHT.encode() + more


async def test_accept_with_and_without_compression() -> None:
    head = await accepted(lambda event: event.accept(), DEFLATE)
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate" in head
    assert await accepted(lambda event: event.accept(compression=False), DEFLATE) == SWITCHED


async def test_raw_text_opens_too() -> None:
    assert await accepted(lambda event: event.answer(f"{RIGHT}\r\n")) == SWITCHED
    lone = f"{RIGHT}Server: mine\r\n\r\n".replace("\r\n", "\n")
    assert await accepted(lambda event: event.answer(lone)) == f"{RIGHT}Server: mine\r\n\r\n".encode()


async def test_vector_edited_by_hand() -> None:
    def reply(event: WebSocketUpgrade) -> list[object]:
        message = event.message()
        assert message[1:4] == ["WebSocketUpgrade", event.id, "ws://myapp/manual"]
        message[4] = f"{RIGHT}\r\n"
        return message

    assert await accepted(reply) == SWITCHED
    assert await accepted(lambda event: tuple(reply(event))) == SWITCHED


async def test_numeric_vector() -> None:
    def reply(event: WebSocketUpgrade) -> object:
        message = event.message(numeric=True)
        assert message[1] == 841
        message[4] = f"{RIGHT}\r\n"
        return message

    assert await accepted(reply) == SWITCHED


async def test_first_callback_that_returns_something_answers() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        host.on("WebSocketUpgrade")(lambda event: None)
        host.on("WebSocketUpgrade")(lambda event: event.accept())
        host.on("WebSocketUpgrade")(lambda event: event.deny(500))
        await peer.send(MANUAL)
        await switched(peer)


async def test_result_of_an_automatic_upgrade_callback_is_no_answer() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        host.on("WebSocketUpgrade")(lambda event: event.deny(403))
        async with opened(host) as peer:
            await peer.send(frame(TEXT, "open") + close_frame(1000))
            assert await peer.close_code() == 1000
    assert story(seen) == [AUTO, ("receive", "open"), ("close", 1000, "client")]


# Denials: final answers of the program, which are no errors

DENIALS: list[tuple[str, Reply, bytes]] = [
    ("403", lambda event: event.deny(), b"HTTP/1.1 403 Forbidden\r\n\r\n"),
    (
        "403 with a body",
        lambda event: event.deny(403, "members only"),
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\n\r\n"
        b"members only",
    ),
    (
        "302 with a field",
        lambda event: event.deny(302, headers={"Location": "http://myapp/login"}),
        b"HTTP/1.1 302 Found\r\nLocation: http://myapp/login\r\n\r\n",
    ),
    (
        "401 as text",
        lambda event: event.answer("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n"),
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n",
    ),
    (
        "404 with lone LF, its body as it is",
        lambda event: event.answer("HTTP/1.1 404 Not Found\nX-A: 1\n\nnot\nhere é"),
        b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nContent-Length: 11\r\n\r\nnot\nhere \xc3\xa9",
    ),
    (
        "200 without a phrase",
        lambda event: event.answer("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "vector",
        lambda event: [*event.message()[:4], "HTTP/1.1 599 Ours\r\n\r\n", "manual"],
        b"HTTP/1.1 599 Ours\r\n\r\n",
    ),
    ("drop", lambda event: event.drop(), b""),
]


@pytest.mark.parametrize(("reply", "said"), [d[1:] for d in DENIALS], ids=[d[0] for d in DENIALS])
async def test_denial(reply: Reply, said: bytes, lines: list[Line]) -> None:
    got, seen = await exchange(reply)
    assert got == said
    assert story(seen) == [ASKED]
    assert [line["event"] for line in lines if line["log_level"] in ("warning", "error")] == []


async def test_sending_before_the_answer_says_what_to_do_and_that_works() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        said: list[str] = []

        @host.on("WebSocketUpgrade")
        def upgrade(event: WebSocketUpgrade) -> None:
            with pytest.raises(UnknownSocket, match=r"not answered.*host\.answer") as caught:
                host.WebSocketSend(event.id, "too early")
            said.append(str(caught.value))
            host.answer(event.id, event.accept())
            host.WebSocketSend(event.id, "in time")

        await peer.send(MANUAL)
        await switched(peer)
        assert (await peer.frame()).payload == b"in time"
        assert len(said) == 1


@pytest.mark.parametrize("is_denied", [True, False])
async def test_sending_after_a_denial_says_that_it_was_one(is_denied: bool) -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL)
        event = await seen.wait_for(WebSocketUpgrade)

        def deny_and_send() -> None:
            # While the loop waits for this thread, so that it has not come to the answer.
            host.answer(event.id, event.deny(403) if is_denied else event.answer("no"))
            host.WebSocketSend(event.id, "x")

        with ThreadPoolExecutor() as pool:
            error = pool.submit(deny_and_send).exception()
        assert isinstance(error, UnknownSocket)
        assert "was denied, or its answer was not valid" in str(error)


async def test_denial_frees_the_place_and_the_id() -> None:
    async with make_host(limits=Limits(pending=1)) as host:
        seen = Recorder(host)
        for _ in range(3):
            async with Peer.connect(host) as peer:
                await peer.send(MANUAL)
                event = await seen.wait_for(WebSocketUpgrade, len(seen.events) + 1)
                host.answer(event.id, event.deny(404))
                assert await peer.rest() == b"HTTP/1.1 404 Not Found\r\n\r\n"
                with pytest.raises(UnknownSocket):
                    host.WebSocketSend(event.id, "too late")
                with pytest.raises(UnknownSocket):
                    host.answer(event.id, event.accept())
    assert seen.names() == ["WebSocketUpgrade"] * 3


async def test_denial_arrives_while_the_client_still_sends() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        host.on("WebSocketUpgrade")(lambda event: event.deny(403, "x" * MIB))
        peer.writer.write(MANUAL + bytes(8 * MIB))
        answer = await peer.answer()
        assert (answer.status, answer.body) == (403, b"x" * MIB)
        await peer.writer.drain()
        assert await peer.rest() == b""
    assert story(seen) == [ASKED]


# Verbatim

VERBATIM = [
    ("wrong Accept", SWITCHED.replace(ACCEPT.encode(), b"x" * 28)),
    ("no Accept", f"{UPGRADE}\r\n".encode()),
    ("unasked subprotocol", f"{RIGHT}Sec-WebSocket-Protocol: nobody\r\n\r\n".encode()),
    ("unasked extension", f"{RIGHT}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()),
    ("half a head", SWITCHED[:40]),
    ("garbage", b"\x00\xff\r\n\r\n\xfe"),
    ("another status", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ("bad final answer", b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nlonger"),
]


@pytest.mark.parametrize("data", [v[1] for v in VERBATIM], ids=[v[0] for v in VERBATIM])
async def test_verbatim_that_opens_nothing(data: bytes) -> None:
    said, seen = await exchange(lambda event: event.verbatim(data))
    assert said == data
    assert story(seen) == [ASKED]


async def test_verbatim_in_the_vector() -> None:
    said, seen = await exchange(lambda event: [*event.message()[:4], b"\x00\x01", "manual"])
    assert said == b"\x00\x01"
    assert story(seen) == [ASKED]


async def test_verbatim_101_opens() -> None:
    assert await accepted(lambda event: event.verbatim(SWITCHED)) == SWITCHED


async def test_verbatim_101_opens_with_what_it_agreed_to() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        data = f"{RIGHT}Sec-WebSocket-Protocol: chat\r\n\r\n".encode()
        host.on("WebSocketUpgrade")(lambda event: event.verbatim(data))
        assert (await peer.ask(CHAT)).head == data
        event = await seen.wait_for(WebSocketUpgrade)
        assert host.sockets[event.id].subprotocol == "chat"


async def test_verbatim_101_with_ready_made_frames() -> None:
    greeting = frame(TEXT, "welcome", mask=None) + frame(0x3, "reserved", mask=None)
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        host.on("WebSocketUpgrade")(lambda event: event.verbatim(SWITCHED + greeting))
        await peer.send(MANUAL + frame(TEXT, "early"))
        await switched(peer)
        assert await peer.reader.readexactly(len(greeting)) == greeting
        await peer.send(close_frame(1000))
        assert await peer.close_code() == 1000
        await seen.wait_for(WebSocketClose)
    assert story(seen) == [ASKED, ("receive", "early"), ("close", 1000, "client")]


# No callback


async def test_no_callback(lines: list[Line]) -> None:
    host = make_host()
    errors: list[WebSocketError] = []
    host.on("WebSocketError")(errors.append)
    async with host:
        (warning,) = lines
        assert warning["log_level"] == "warning"
        assert "a manual rule needs a WebSocketUpgrade callback" in warning["event"]
        assert warning["pattern"] == "ws://myapp/manual*"
        async with Peer.connect(host) as peer:
            answer = await peer.ask(MANUAL)
            assert (answer.status, answer.body) == (500, b"the program has no answer\n")
    (error,) = errors
    assert 'host.on("WebSocketUpgrade")' in error.text


async def test_a_callback_before_the_start_is_not_warned_of(lines: list[Line]) -> None:
    host = make_host()
    host.on("All")(lambda event: None)
    async with host:
        assert lines == []


# Answers that come later


async def test_second_answer() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL)
        event = await seen.wait_for(WebSocketUpgrade)
        assert host.answer(event.id, event.accept()) == 0
        for message in (event.accept(), event.deny(403)):
            with pytest.raises(UnknownSocket):
                host.answer(event.id, message)
        await switched(peer)
        await peer.send(close_frame(1000))
        assert await peer.close_code() == 1000
    assert story(seen) == [ASKED, ("close", 1000, "client")]


async def test_answer_in_the_callback_and_another_by_its_result() -> None:
    def reply(event: WebSocketUpgrade) -> WebSocketUpgrade:
        host = event.object
        assert isinstance(host, Host)
        host.answer(event.id, event.accept())
        return event.deny(403)

    assert await accepted(reply) == SWITCHED


async def test_invalid_late_answer() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL)
        event = await seen.wait_for(WebSocketUpgrade)
        with pytest.raises(UnsupportedType, match="None is no answer"):
            host.answer(event.id, None)  # type: ignore[arg-type]
        host.answer(event.id, True)  # type: ignore[arg-type]
        assert (await peer.answer()).status == 500
        assert "bool; return event.accept()" in error_of(seen)
        with pytest.raises(UnknownSocket):
            host.answer(event.id, event.accept())
    assert story(seen) == [ASKED, ERROR]


async def test_answers_from_many_threads_at_once() -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(MANUAL)
        event = await seen.wait_for(WebSocketUpgrade)
        calls = (asyncio.to_thread(host.answer, event.id, event.accept()) for _ in range(8))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert 0 in results
        assert all(result == 0 or isinstance(result, UnknownSocket) for result in results)
        await switched(peer)
        await peer.send(close_frame(1000))
        assert await peer.close_code() == 1000
    assert story(seen) == [ASKED, ("close", 1000, "client")]


async def test_answer_for_an_unknown_id() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host):
            event = await seen.wait_for(WebSocketUpgrade)
            for id in (event.id, "0" * 15, ""):
                with pytest.raises(UnknownSocket, match="waits for an answer"):
                    host.answer(id, event)


# The time limit


async def test_no_answer_in_time() -> None:
    async with make_host(timeouts=Timeouts(answer=0.05)) as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        answer = await peer.ask(MANUAL + frame(TEXT, "hello?"))
        assert (answer.status, answer.body) == (504, b"the program did not answer in time\n")
        assert await peer.rest() == b""
        event = seen.of(WebSocketUpgrade)[0]
        with pytest.raises(UnknownSocket):
            host.answer(event.id, event.accept())
    assert story(seen) == [ASKED, ERROR]
    assert error_of(seen).startswith("timed out")
    assert "Timeouts.answer" in error_of(seen)
    assert "return event.accept()" in error_of(seen)
    assert "host.answer(event.id, ...)" in error_of(seen)


async def test_async_callback_that_takes_too_long_is_cancelled(lines: list[Line]) -> None:
    async with make_host(timeouts=Timeouts(answer=0.05)) as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        cancelled = asyncio.Event()

        @host.on("WebSocketUpgrade")
        async def reply(event: WebSocketUpgrade) -> WebSocketUpgrade:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return event.accept()

        assert (await peer.ask(MANUAL)).status == 504
        await seen.wait_for(WebSocketError)
        assert cancelled.is_set()
    assert story(seen) == [ASKED, ERROR]
    assert [line for line in lines if line["log_level"] == "error"] == []


async def test_answer_of_a_callback_that_will_not_be_cancelled_is_too_late() -> None:
    async with make_host(timeouts=Timeouts(answer=0.05)) as host, Peer.connect(host) as peer:
        seen = Recorder(host)

        @host.on("WebSocketUpgrade")
        async def reply(event: WebSocketUpgrade) -> WebSocketUpgrade:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await turns()
            return event.accept()

        assert (await peer.ask(MANUAL)).status == 504
        await seen.wait_for(WebSocketError)
        assert await peer.rest() == b""
    assert story(seen) == [ASKED, ERROR]


async def test_answer_in_time_ends_the_time_limit() -> None:
    async with make_host(timeouts=Timeouts(answer=0.05)) as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        await peer.send(request("/manual/1", "myapp"))
        event = await seen.wait_for(WebSocketUpgrade)
        host.answer(event.id, event.accept())
        async with Peer.connect(host) as later:
            assert (await later.ask(request("/manual/2", "myapp"))).status == 504
        await switched(peer)
        await peer.send(close_frame(3000))
        assert await peer.frame() == (CLOSE, b"\x0b\xb8", True, 0)
        await seen.wait_for(WebSocketClose)
    assert story(seen, event.id) == [ASKED, ("close", 3000, "client")]


async def test_slow_answer_delays_nobody() -> None:
    async with make_host() as host, Peer.connect(host) as slow:
        seen = Recorder(host)
        go_on = asyncio.Event()

        @host.on("WebSocketUpgrade")
        async def reply(event: WebSocketUpgrade) -> WebSocketUpgrade:
            if event.url.endswith("slow"):
                await go_on.wait()
            return event.accept()

        await slow.send(request("/manual/slow", "myapp") + frame(TEXT, "kept"))
        first = await seen.wait_for(WebSocketUpgrade)
        for head in (request("/manual/fast", "myapp"), HEAD):
            async with opened(host, head) as fast:
                await fast.send(frame(TEXT, "quick") + close_frame(1000))
                assert await fast.close_code() == 1000
        assert story(seen, first.id) == [ASKED]
        go_on.set()
        await switched(slow)
        await slow.send(close_frame(1000))
        assert await slow.close_code() == 1000
        await seen.wait_for(WebSocketClose, 3)
    assert story(seen, first.id) == [ASKED, ("receive", "kept"), ("close", 1000, "client")]


async def test_every_denial_status_gets_through() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        host.on("WebSocketUpgrade")(lambda event: event.deny(int(event.url.rpartition("/")[2]), "so it is"))
        for status in sorted({200, 250, 599, *(code for code in HTTPStatus if code >= 200)}):
            if status in (204, 205, 304):
                continue  # They have no body.
            async with Peer.connect(host) as peer:
                answer = await peer.ask(request(f"/manual/{int(status)}", "myapp"))
                assert (answer.status, answer.body) == (status, b"so it is")
                async with asyncio.timeout(PATIENCE):
                    assert await peer.reader.read() == b""
    assert set(seen.names()) == {"WebSocketUpgrade"}
