"""WebSocketUpgrade: what a request says, and the answers to it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from interceptor.events import WebSocketUpgrade, upgrade_event
from interceptor.exceptions import InvalidAnswer, UnsupportedType
from tests.peer import ACCEPT, KEY, request

ID = "0123456789abcde"
HEAD = request("/chat", "myapp", origin="http://myapp", extra="X-Way: a\r\nx-way: b\r\n").decode()


class Place:
    """Something with a name, as a Host is."""

    name = "here"


def upgrade(headers: str | bytes = HEAD) -> WebSocketUpgrade:
    return WebSocketUpgrade(object=Place(), id=ID, url="ws://myapp/chat", headers=headers, type="manual")


def asking(lines: str) -> WebSocketUpgrade:
    return upgrade(f"GET / HTTP/1.1\r\n{lines}\r\n")


# What a request says


def test_the_request_is_read_from_its_text() -> None:
    event = asking(
        "Origin: http://myapp\r\nSec-WebSocket-Protocol: chat, log\r\nCookie: a=1; b=2\r\nX-Way:\t x \r\n"
    )
    assert event.origin == "http://myapp"
    assert event.subprotocols == ("chat", "log")
    assert event.cookies == {"a": "1", "b": "2"}
    assert event.header("x-way") == event.header("X-WAY") == "x"
    assert event.header("GET / HTTP/1.1") is None


def test_what_a_request_does_not_say() -> None:
    event = asking("Host: myapp\r\n")
    assert (event.origin, event.subprotocols, event.cookies, event.header("X-Way")) == (None, (), {}, None)
    raw = upgrade(b"Origin: http://myapp\r\nOrigin: b\r\n")
    assert (raw.origin, raw.subprotocols, raw.cookies) == (None, (), {})


def test_a_body_holds_no_fields() -> None:
    event = upgrade("HTTP/1.1 403 No\r\nX-Way: a\r\n\r\nOrigin: http://myapp\r\nX-Way: b\r\n")
    assert (event.origin, event.header("X-Way")) == (None, "a")


def test_several_fields_of_a_name_are_joined() -> None:
    assert upgrade().header("X-Way") == "a, b"
    event = asking("Sec-WebSocket-Protocol: a,b\r\nsec-websocket-protocol: ,c ,\r\n")
    assert event.subprotocols == ("a", "b", "c")


def test_the_token_is_no_subprotocol() -> None:
    event = asking("Sec-WebSocket-Protocol: interceptor.token.abc, chat\r\n")
    assert event.subprotocols == ("chat",)


@pytest.mark.parametrize(
    ("text", "cookies"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1; b=2;c=3 ;  d = 4", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("a=", {"a": ""}),
        ("a=x=y==", {"a": "x=y=="}),
        ('a="quoted"; b=""', {"a": "quoted", "b": ""}),
        ('json={"x": [1, 2]}; a=1', {"json": '{"x": [1, 2]}', "a": "1"}),
        ("list[0]=1; a=1", {"list[0]": "1", "a": "1"}),
        (
            "path=/; domain=d; version=1; expires=never",
            {"path": "/", "domain": "d", "version": "1", "expires": "never"},
        ),
        ("a=first; a=second", {"a": "first"}),
        ("novalue; a=1;;", {"a": "1"}),
    ],
)
def test_cookies_are_read_one_by_one(text: str, cookies: dict[str, str]) -> None:
    assert asking(f"Cookie: {text}\r\n").cookies == cookies


def test_cookies_of_two_fields_are_all_read() -> None:
    assert asking("Cookie: a=1\r\nCookie: b=2\r\n").cookies == {"a": "1", "b": "2"}


# Answers


def lines(event: WebSocketUpgrade) -> list[str]:
    assert isinstance(event.headers, str)
    assert event.headers.endswith("\r\n\r\n")
    return event.headers[:-4].split("\r\n")


def test_accept_is_the_answer_of_the_rfc() -> None:
    event = upgrade()
    answer = event.accept()
    assert f"Sec-WebSocket-Key: {KEY}\r\n" in HEAD
    assert lines(answer) == [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
    ]
    assert (answer.id, answer.url, answer.type, answer.object) == (ID, event.url, "manual", event.object)
    assert event.headers == HEAD
    assert answer.message() == ["here", "WebSocketUpgrade", ID, event.url, answer.headers, "manual"]


def test_accept_chooses_what_was_asked_for() -> None:
    event = asking(f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat, log\r\n")
    assert lines(event.accept("log"))[4:] == ["Sec-WebSocket-Protocol: log"]
    assert len(lines(event.accept())) == 4
    with pytest.raises(InvalidAnswer, match="subprotocol 'other' was not asked for; asked for: chat, log"):
        event.accept("other")
    with pytest.raises(InvalidAnswer, match="subprotocol 'chat' was not asked for; asked for: none"):
        upgrade().accept("chat")


def test_accept_gives_the_token_back_where_nothing_else_is_chosen() -> None:
    event = asking(f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat, interceptor.token.abc\r\n")
    assert "Sec-WebSocket-Protocol: interceptor.token.abc" in lines(event.accept())
    assert lines(event.accept("chat"))[4:] == ["Sec-WebSocket-Protocol: chat"]
    with pytest.raises(InvalidAnswer, match="was not asked for") as caught:
        event.accept("interceptor.token.abc")
    assert str(caught.value).endswith("; asked for: chat")


def test_accept_adds_fields() -> None:
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert lines(upgrade().accept(headers={"Set-Cookie": "a=1"}))[4:] == ["Set-Cookie: a=1"]
    for headers in (cookies, iter(cookies)):
        assert lines(upgrade().accept(headers=headers))[4:] == ["Set-Cookie: a=1", "Set-Cookie: b=2"]
    assert lines(upgrade().deny(headers=cookies))[1:] == ["Set-Cookie: a=1", "Set-Cookie: b=2"]


@pytest.mark.parametrize(
    "wrong", [{"X-Way": 5}, {5: "a"}, [("X-Way",)], [("X-Way", "a", "b")], [("X-Way", b"a")], ["ab"], 5, [5]]
)
def test_further_fields_are_text(wrong: Any) -> None:
    for answer in (upgrade().accept, upgrade().deny):
        with pytest.raises(
            UnsupportedType, match="headers are a mapping of names to values, or pairs of them"
        ):
            answer(headers=wrong)


def test_accept_compresses_as_the_host_says() -> None:
    asked = upgrade()
    header = "permessage-deflate; server_max_window_bits=12"
    event = upgrade_event(Place(), asked.id, asked.url, str(asked.headers), "manual", header)
    wanted = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12"
    assert lines(event.accept())[4:] == [wanted]
    assert len(lines(event.accept(compression=False))) == 4
    assert wanted in lines(event.answer(HEAD).accept())


@pytest.mark.parametrize("headers", ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", b"Sec-WebSocket-Key: x\r\n"])
def test_accept_needs_the_request(headers: str | bytes) -> None:
    with pytest.raises(InvalidAnswer, match="holds no request with a Sec-WebSocket-Key"):
        upgrade(headers).accept()


def test_accept_takes_any_key_that_an_event_has() -> None:
    assert lines(asking("Sec-WebSocket-Key: ☃\r\n").accept())[3].startswith("Sec-WebSocket-Accept: ")


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(200, "OK"), (403, "Forbidden"), (404, "Not Found"), (599, "Denied"), (299, "Denied")],
)
def test_deny_gives_a_final_answer(status: int, phrase: str) -> None:
    assert upgrade().deny(status).headers == f"HTTP/1.1 {status} {phrase}\r\n\r\n"
    assert upgrade().deny(status, "why", {"X-Way": "a"}).headers == (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Way: a\r\n\r\nwhy"
    )


def test_deny_is_403_unless_told_otherwise() -> None:
    assert upgrade().deny().headers == "HTTP/1.1 403 Forbidden\r\n\r\n"
    answer = upgrade().deny(body="{}", headers={"Content-Type": "application/json"})
    assert answer.headers == "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\r\n{}"


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_a_type_of_the_body_is_kept(name: str) -> None:
    answer = upgrade().deny(400, "{}", {"X-Way": "a", name: "application/json"})
    assert answer.headers == f"HTTP/1.1 400 Bad Request\r\nX-Way: a\r\n{name}: application/json\r\n\r\n{{}}"


@pytest.mark.parametrize("wrong", [b"why", 5, None, {}])
def test_the_body_of_a_denial_is_text(wrong: Any) -> None:
    with pytest.raises(UnsupportedType, match=f"is text, not {type(wrong).__name__}"):
        upgrade().deny(403, wrong)


@pytest.mark.parametrize("status", [101, 100, 199, 600, 0, -403, True, "403", 403.0, None])
def test_deny_needs_a_final_status(status: Any) -> None:
    with pytest.raises(
        InvalidAnswer, match=r"denies nothing; deny\(status, body\) takes 200 to 599"
    ) as caught:
        upgrade().deny(status)
    assert repr(status) in str(caught.value)


@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: secret=1", "a\r\n\r\nsecret", "secret\n", "\rsecret", "a\x00secret"]
)
def test_a_value_cannot_end_its_field(value: str) -> None:
    for answer in (upgrade().accept, upgrade().deny):
        with pytest.raises(InvalidAnswer, match="the value of X-Way has a control character") as caught:
            answer(headers={"X-Way": value})
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X Way", "X-Way:", "X\r\nY", "Ü"])
def test_a_name_is_a_token(name: str) -> None:
    for answer in (upgrade().accept, upgrade().deny):
        with pytest.raises(InvalidAnswer, match="is no name of a header field"):
            answer(headers={name: "a"})


def test_answers_replace_the_headers_only() -> None:
    event = upgrade()
    assert event.answer("HTTP/1.1 401 No\r\n\r\n").headers == "HTTP/1.1 401 No\r\n\r\n"
    assert event.verbatim(b"HTTP/1.1 101 Nope").headers == b"HTTP/1.1 101 Nope"
    for kind in (bytearray, memoryview):
        assert event.verbatim(cast(bytes, kind(b"any"))).headers == b"any"
    assert event.drop().headers == b""
    for answer in (event.answer("x"), event.verbatim(b"x"), event.drop(), event.deny()):
        assert answer.model_dump(exclude={"headers"}) == event.model_dump(exclude={"headers"})
        assert answer.object is event.object


@pytest.mark.parametrize("wrong", [None, 5, b"HTTP/1.1 403 No", ["HTTP"]])
def test_answer_takes_text_only(wrong: Any) -> None:
    with pytest.raises(UnsupportedType, match=f"answer.. takes text, not {type(wrong).__name__}"):
        upgrade().answer(wrong)


@pytest.mark.parametrize("wrong", [None, 5, "HTTP/1.1 403 No", [72]])
def test_verbatim_takes_bytes_only(wrong: Any) -> None:
    with pytest.raises(UnsupportedType, match=f"verbatim.. takes bytes, not {type(wrong).__name__}"):
        upgrade().verbatim(wrong)
