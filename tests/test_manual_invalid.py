"""Answers of a manual handshake that must not be sent, and callbacks that fail: 500, one error, one line."""

from __future__ import annotations

import pytest

from interceptor import (
    Event,
    WebSocketClose,
    WebSocketError,
    WebSocketUpgrade,
)

from .peer import ACCEPT, Peer, Recorder, request
from .wire import (
    ASKED,
    BOTH_LOOPS,
    ERROR,
    MANUAL,
    RIGHT,
    SWITCHED,
    UPGRADE,
    Line,
    Reply,
    error_of,
    exchange,
    make_host,
    story,
    turns,
)
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS

CHAT = request("/manual", "myapp", extra="Sec-WebSocket-Protocol: chat, superchat\r\n")
DEFLATE = request("/manual", "myapp", extra="Sec-WebSocket-Extensions: permessage-deflate\r\n")

# Answers that must not be sent


class Odd:
    """Some object."""


def other_event(event: WebSocketUpgrade) -> Event:
    """An event of another kind, for the right ID."""
    return WebSocketClose(object="host", id=event.id, code=1000)


def headers(text: str) -> Reply:
    """A callback that answers with raw text."""
    return lambda event: event.answer(text)


INVALID: list[tuple[str, Reply, str]] = [
    ("unchanged event", lambda event: event, "still holds the request"),
    ("unchanged vector", lambda event: event.message(), "still holds the request"),
    ("another ID", lambda event: event.accept().model_copy(update={"id": "0" * 15}), "it is for 0000"),
    ("another event", other_event, "WebSocketClose"),
    ("another vector", lambda event: ["host", "WebSocketError", event.id, "x"], "WebSocketError"),
    ("unknown event", lambda event: ["host", "Upgrade", event.id, "", "", "manual"], "'Upgrade'"),
    ("short vector", lambda event: event.message()[:5], "6 elements"),
    ("empty vector", lambda event: [], "no event message"),
    ("wrong element", lambda event: [*event.message()[:4], 101, "manual"], "headers"),
    ("True", lambda event: True, "return event.accept()"),
    ("101", lambda event: 101, "return event.accept()"),
    ("text", lambda event: f"{RIGHT}\r\n", "return event.accept()"),
    ("bytes", lambda event: SWITCHED, "return event.accept()"),
    ("dict", lambda event: event.model_dump(), "return event.accept()"),
    ("object", lambda event: Odd(), "return event.accept()"),
    ("empty text", headers(""), "does not end"),
    ("no end", headers("HTTP/1.1 403 No\r\n"), "empty line"),
    ("no status line", headers("403 No\r\n\r\n"), "HTTP/1.1 and a status"),
    ("HTTP/1.0", headers("HTTP/1.0 403 No\r\n\r\n"), "HTTP/1.1 and a status"),
    ("status 100", headers("HTTP/1.1 100 Continue\r\n\r\n"), "200 to 599"),
    ("status 600", headers("HTTP/1.1 600 Far\r\n\r\n"), "200 to 599"),
    ("bad field", headers("HTTP/1.1 403 No\r\nno colon\r\n\r\n"), "name, colon, value"),
    ("folded field", headers("HTTP/1.1 403 No\r\nX: a\r\n b\r\n\r\n"), "folded line"),
    ("control character", headers("HTTP/1.1 403 No\r\nX: \x07\r\n\r\n"), "control characters"),
    ("NUL", headers("HTTP/1.1 403 No\r\nX: \x00\r\n\r\n"), "control characters"),
    ("lone CR", headers("HTTP/1.1 403 No\r\nX: a\rb\r\n\r\n"), "control characters"),
    ("not ASCII", headers("HTTP/1.1 403 Nö\r\n\r\n"), "not ASCII"),
    ("second head", headers("HTTP/1.1 403 No\r\n\r\nHTTP/1.1 200 Yes\r\n\r\n"), "second head"),
    ("second head later", headers("HTTP/1.1 403 No\n\n\r\nHTTP/1.1 200 Yes\r\n\r\n"), "second head"),
    ("wrong length", headers("HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nfour"), "4 bytes"),
    ("two lengths", headers("HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"), "1 bytes"),
    ("chunked", headers("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"), "Transfer-Encoding"),
    ("204 with a body", headers("HTTP/1.1 204 No\r\n\r\nx"), "no body"),
    ("lone surrogate", headers("HTTP/1.1 403 No\r\n\r\n\ud800"), "UTF-8"),
    ("no Upgrade", headers(RIGHT.replace("Upgrade: websocket\r\n", "") + "\r\n"), "Upgrade: websocket"),
    ("no Connection", headers(RIGHT.replace("Connection: Upgrade\r\n", "") + "\r\n"), "Connection: Upgrade"),
    ("no Accept", headers(f"{UPGRADE}\r\n"), f"Sec-WebSocket-Accept: {ACCEPT}"),
    ("wrong Accept", headers(f"{RIGHT}\r\n".replace(ACCEPT, "x" * 28)), f"Sec-WebSocket-Accept: {ACCEPT}"),
    ("Accept twice", headers(f"{RIGHT}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"), "once"),
    (
        "unasked subprotocol",
        headers(f"{RIGHT}Sec-WebSocket-Protocol: mqtt\r\n\r\n"),
        "asked for: chat, superchat",
    ),
    (
        "two subprotocols",
        headers(f"{RIGHT}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: superchat\r\n\r\n"),
        "one subprotocol at most",
    ),
    (
        "list of subprotocols",
        headers(f"{RIGHT}Sec-WebSocket-Protocol: chat, superchat\r\n\r\n"),
        "was not asked for",
    ),
    (
        "extension not offered",
        headers(f"{RIGHT}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        "did not offer",
    ),
    (
        "unknown extension",
        headers(f"{RIGHT}Sec-WebSocket-Extensions: x-own\r\n\r\n"),
        "permessage-deflate only",
    ),
    ("a tuple", lambda event: (403, "no"), "tuple is read as an event message: 'no' is no event"),
    ("its advice", lambda event: (403, "no"), "return event.accept() or event.deny(status, body)"),
    ("a number", lambda event: 403, "it is of type int; return event.accept()"),
    ("frames behind a 101", headers(f"{RIGHT}\r\nhello"), "WebSocketSend"),
    ("101 with a length", headers(f"{RIGHT}Content-Length: 0\r\n\r\n"), "no content-length"),
]


@pytest.mark.parametrize(("reply", "text"), [i[1:] for i in INVALID], ids=[i[0] for i in INVALID])
async def test_invalid_answer(reply: Reply, text: str, lines: list[Line]) -> None:
    async with make_host() as host, Peer.connect(host) as peer:
        seen = Recorder(host)
        host.on("WebSocketUpgrade")(reply)
        answer = await peer.ask(CHAT)
        assert (answer.status, answer.body) == (500, b"the program's answer is not valid\n")
        assert await peer.rest() == b""
    assert story(seen) == [ASKED, ERROR]
    assert error_of(seen).startswith("the answer is not valid: ")
    assert text in error_of(seen)
    (line,) = [line for line in lines if line["log_level"] == "warning" and "id" in line]
    assert line["event"] == "handshake failed"
    assert line["why"] == error_of(seen)
    assert line["id"] == seen.of(WebSocketError)[0].id
    assert line["url"] == "ws://myapp/manual"


async def test_invalid_answer_to_an_offer_of_compression_names_a_right_one() -> None:
    text = f"{RIGHT}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\r\n\r\n"
    said, seen = await exchange(headers(text), DEFLATE)
    assert said.startswith(b"HTTP/1.1 500 ")
    assert "right would be: permessage-deflate" in error_of(seen)


async def test_field_that_would_break_out_of_its_line_is_not_sent() -> None:
    for inject in ("a\r\nX-Own: b", "a\nX-Own: b", "a\r\n\r\nHTTP/1.1 200 OK"):
        for reply in (
            lambda event, value=inject: event.accept(headers={"X-User": value}),
            lambda event, value=inject: event.deny(403, headers={"X-User": value}),
        ):
            said, seen = await exchange(reply)
            assert said.startswith(b"HTTP/1.1 500 ")
            assert b"X-Own" not in said
            assert story(seen) == [ASKED, ERROR]


async def test_secrets_of_an_invalid_answer_are_not_told(lines: list[Line]) -> None:
    token = "interceptor.token.0123456789abcdef"
    asked = f"Sec-WebSocket-Protocol: chat, {token}\r\n"
    head = MANUAL.replace(b"Host", f"Cookie: session=s3cret\r\n{asked}Host".encode(), 1)
    wrong: list[Reply] = [
        lambda event: event.headers,
        lambda event: event.answer(f"{RIGHT}{asked}\r\n"),
        lambda event: event.answer("HTTP/1.1 403 No\r\nSet-Cookie: session=s3cret\x07\r\n\r\n"),
        lambda event: event.answer("Set-Cookie: session=s3cret\r\n\r\n"),
        lambda event: event,
    ]
    for reply in wrong:
        said, seen = await exchange(reply, head)
        assert said.startswith(b"HTTP/1.1 500 ")
        for text in (error_of(seen), repr(lines), said.decode()):
            assert "s3cret" not in text
            assert token not in text


# Callbacks that fail


async def test_callback_that_raises(lines: list[Line]) -> None:
    def reply(event: WebSocketUpgrade) -> object:
        raise RuntimeError("no such user")

    said, seen = await exchange(reply)
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert said.endswith(b"\r\n\r\nthe program failed\n")
    assert story(seen) == [ASKED, ERROR]
    assert error_of(seen) == "the callback raised RuntimeError('no such user')"
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert line["id"] == seen.of(WebSocketError)[0].id
    assert isinstance(line["exc_info"], RuntimeError)


async def test_async_callback_that_raises(lines: list[Line]) -> None:
    async def reply(event: WebSocketUpgrade) -> object:
        await turns()
        raise RuntimeError("no such user")

    said, seen = await exchange(reply)
    assert said.endswith(b"\r\n\r\nthe program failed\n")
    assert story(seen) == [ASKED, ERROR]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["callback raised"]


async def test_plain_callback_that_returns_an_awaitable() -> None:
    async def later(event: WebSocketUpgrade) -> WebSocketUpgrade:
        return event.accept()

    said, seen = await exchange(lambda event: later(event))
    assert said.startswith(b"HTTP/1.1 500 ")
    assert "use `async def`" in error_of(seen)


async def test_host_goes_on_after_a_callback_that_raised() -> None:
    async with make_host() as host:
        seen = Recorder(host)

        @host.on("WebSocketUpgrade")
        def reply(event: WebSocketUpgrade) -> WebSocketUpgrade:
            if len(seen.of(WebSocketUpgrade)) == 1:
                raise RuntimeError("once")
            return event.accept()

        async with Peer.connect(host) as peer:
            assert (await peer.ask(MANUAL)).status == 500
        async with Peer.connect(host) as peer:
            assert (await peer.ask(MANUAL)).status == 101
