"""The client's side of the handshake, without I/O: the bytes of the request, and each reason to fail."""

from __future__ import annotations

import base64

import h11
import pytest

from interceptor.events import TOKEN_PREFIX
from interceptor.exceptions import ConnectFailure
from interceptor.handshake import read_offer, read_request
from interceptor.handshake.client import (
    MAX_HEAD,
    Opening,
    Response,
    ResponseReader,
    check_response,
    new_key,
    write_connect,
    write_request,
)

from .answers import CASES
from .peer import ACCEPT, KEY


def opening(*protocols: str, **more: object) -> Opening:
    return Opening("example.com:81", "/chat?x=1", KEY, protocols, **more)  # type: ignore[arg-type]


def read(answer: str | bytes) -> Response:
    got = ResponseReader().feed(answer if isinstance(answer, bytes) else answer.encode("latin-1"))
    assert got is not None
    return got[0]


def test_the_request_is_that_of_the_standard() -> None:
    assert write_request(opening("chat", "v2", origin="http://page.test")) == (
        b"GET /chat?x=1 HTTP/1.1\r\n"
        b"Host: example.com:81\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: chat, v2\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        b"Accept: */*\r\n"
        b"Origin: http://page.test\r\n"
        b"User-Agent: interceptor\r\n"
        b"Pragma: no-cache\r\n"
        b"Cache-Control: no-cache\r\n"
        b"\r\n"
    )


def test_what_is_not_asked_for_is_not_in_the_request() -> None:
    head = write_request(opening(compression=False))
    for name in (b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions", b"Origin"):
        assert name not in head


def test_extra_fields_come_last_and_replace_what_fetch_adds() -> None:
    head = write_request(
        opening(headers=(("user-agent", "me"), ("Host", "other.test"), ("X-A", "1"), ("X-A", "2")))
    )
    assert head.endswith(
        b"Cache-Control: no-cache\r\nuser-agent: me\r\nHost: other.test\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
    )
    assert head.lower().count(b"user-agent") == head.lower().count(b"host:") == 1


def test_our_own_server_takes_the_request() -> None:
    offer = read_offer(read_request(write_request(opening("chat")), 100))
    assert (offer.subprotocols, offer.extensions[0][0]) == (("chat",), "permessage-deflate")


def test_h11_takes_the_request() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(write_request(opening("chat")))
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert event.target == b"/chat?x=1"


def test_a_key_is_16_random_bytes() -> None:
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


@pytest.mark.parametrize("name", CASES)
def test_each_answer_is_judged_by_its_rule(name: str) -> None:
    case = CASES[name]
    text = case.answer.replace("SWAPPED", ACCEPT.swapcase()).replace("CUT", ACCEPT[:-2])
    if name == "wrong Accept":  # It happens to be right for this key.
        text = text.replace(ACCEPT, ACCEPT[::-1])
    assert judge(text.replace("ACCEPT", ACCEPT).encode("latin-1"), opening(*case.asked)) == case.rule


def judge(answer: bytes, asked: Opening) -> str:
    reader = ResponseReader()
    try:
        got = reader.feed(answer)
        if got is None:
            return "network"
        check_response(got[0], asked)
    except ConnectFailure as failure:
        return failure.rule
    return "odd" if got[0].oddities else "interim" if reader.interim else "open"


def test_what_a_right_answer_agreed_to() -> None:
    text = CASES["deflate with parameters"].answer.replace("ACCEPT", ACCEPT)
    text = text.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
    accepted = check_response(read(text), opening("chat"))
    assert accepted.subprotocol == "chat"
    assert accepted.header == "permessage-deflate; server_no_context_takeover; client_max_window_bits=10"
    [extension] = accepted.extensions
    assert (extension.remote_no_context_takeover, extension.local_max_window_bits) == (True, 10)  # type: ignore[attr-defined]


def test_a_token_among_the_subprotocols_stays_secret() -> None:
    token = TOKEN_PREFIX + "secret"
    for name in ("asked, none", "asked, another"):
        answer = read(CASES[name].answer.replace("ACCEPT", ACCEPT))
        with pytest.raises(ConnectFailure, match=r"asked for.* ?chat") as failure:
            check_response(answer, opening("chat", token))
        assert "secret" not in failure.value.reason


def test_deflate_that_was_not_offered_fails() -> None:
    answer = read(CASES["deflate"].answer.replace("ACCEPT", ACCEPT))
    with pytest.raises(ConnectFailure, match="permessage-deflate was not offered"):
        check_response(answer, opening(compression=False))


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_head_may_come_in_pieces(size: int) -> None:
    text = (CASES["early hints before"].answer.replace("ACCEPT", ACCEPT) + "rest").encode()
    reader, rest = ResponseReader(), b""
    for start in range(0, len(text), size):
        if got := reader.feed(text[start : start + size]):
            rest = got[1] + text[start + size :]
            break
    assert got is not None
    assert (got[0].status, rest, reader.interim) == (101, b"rest", [103])
    assert got[0].head.startswith(b"HTTP/1.1 101 ")
    assert got[0].head.endswith(b"\r\n\r\n")


def test_a_head_without_an_end_is_given_up() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 101 \r\nX: ")
    with pytest.raises(ConnectFailure, match=f"over {MAX_HEAD} bytes"):
        reader.feed(b"x" * MAX_HEAD)


def test_interim_answers_without_an_end_are_given_up() -> None:
    reader = ResponseReader()
    with pytest.raises(ConnectFailure, match=f"over {MAX_HEAD} bytes"):
        reader.feed(b"HTTP/1.1 100 \r\n\r\n" * (MAX_HEAD // 10))


def test_what_is_no_http_is_known_by_its_first_bytes() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTT") is None
    with pytest.raises(ConnectFailure, match="no HTTP server"):
        reader.feed(b"Z")


def test_a_tunnel_is_asked_for() -> None:
    assert write_connect("e.test:80", None) == b"CONNECT e.test:80 HTTP/1.1\r\nHost: e.test:80\r\n\r\n"
    assert b"\r\nProxy-Authorization: Basic eA==\r\n" in write_connect("e.test:80", "Basic eA==")
