"""Answers that refuse: the host's, and those that a program writes."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from websockets.headers import parse_extension

from interceptor.exceptions import InvalidAnswer
from interceptor.handshake import Answer, Offer, read_answer, refusal
from tests.peer import ACCEPT, KEY, request

HEAD = request("/chat?x=1", "myapp", origin="http://myapp").decode()
FINAL = "HTTP/1.1 403 No\r\n"
RIGHT_101 = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
)
OFFER = Offer(KEY, ("chat",), tuple(parse_extension("permessage-deflate; client_max_window_bits")))


def wrong(text: str) -> str:
    with pytest.raises(InvalidAnswer) as caught:
        read_answer(text, OFFER)
    return str(caught.value)


def by_http_client(data: bytes) -> tuple[int, bytes, list[tuple[str, str]]]:
    class Wire:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(data)

    response = http.client.HTTPResponse(cast(socket.socket, Wire()))
    response.begin()
    return response.status, response.read(), response.getheaders()


def test_a_refusal_says_why_in_its_body() -> None:
    head = (
        "HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Length: 3\r\nX-Content-Type-Options: nosniff\r\nX-Way: a\r\nConnection: close\r\n\r\n"
    )
    assert refusal(421, "é", (("X-Way", "a"),)) == f"{head}é\n".encode()
    assert refusal(426, "x", (("Connection", "Upgrade"),)).count(b"Connection: ") == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 408, 414, 421, 426, 431, 500, 501, 503, 504, 505])
def test_a_refusal_is_read_by_others(status: int) -> None:
    got, body, headers = by_http_client(refusal(status, "that is why", (("Allow", "GET"),)))
    assert (got, body) == (status, b"that is why\n")
    assert {("Allow", "GET"), ("Connection", "close"), ("Content-Length", "12")} <= set(headers)


# Answers written by the program


@pytest.mark.parametrize("status", [200, 204, 302, 304, 401, 403, 404, 500, 599])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_final_answer_without_a_body_goes_as_it_is(status: int, end: str) -> None:
    text = f"HTTP/1.1 {status} No way{end}WWW-Authenticate: Basic{end}X-Way:{end}{end}"
    right = f"HTTP/1.1 {status} No way\r\nWWW-Authenticate: Basic\r\nX-Way:\r\n\r\n".encode()
    assert read_answer(text, OFFER) == Answer(right, status, None)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_status_line_keeps_its_space_where_it_has_no_reason(end: str) -> None:
    for text in (f"HTTP/1.1 403{end}{end}", f"HTTP/1.1 403 {end}{end}"):
        assert read_answer(text, OFFER).data == b"HTTP/1.1 403 \r\n\r\n"


@pytest.mark.parametrize("status", [200, 403, 599])
@pytest.mark.parametrize("body", ["members only", "é\n\n\r\n", "{}", "\r\n", " HTTP/1.1 200 OK"])
def test_the_length_of_a_body_is_added(status: int, body: str) -> None:
    answer = read_answer(f"HTTP/1.1 {status}\nX-Way: a\n\n{body}", OFFER)
    content = body.encode()
    head = f"HTTP/1.1 {status} \r\nX-Way: a\r\nContent-Length: {len(content)}\r\n\r\n"
    assert answer.data == head.encode() + content
    assert (answer.status, answer.accepted) == (status, None)


@pytest.mark.parametrize(("length", "body"), [("0", ""), ("3", "abc"), (" 2\t", "é")])
def test_a_right_length_is_kept(length: str, body: str) -> None:
    text = f"HTTP/1.1 403 No\r\ncontent-length:{length}\r\n\r\n{body}"
    assert read_answer(text, OFFER).data == text.encode()


NOT_STATUS = "; it starts with HTTP/1.1 and a status"
NO_END = "the answer's head does not end; an empty line (\\r\\n\\r\\n) ends it"
NOT_FIELD = " is not: name, colon, value without control characters"
NOT_ASCII = "the answer's head holds text that is not ASCII; encode it"


def status_lines(*lines: str) -> list[str]:
    return [f"{line}\r\n\r\n" for line in lines]


def final(*lines: str) -> list[str]:
    return [f"{FINAL}{line}\r\n\r\n" for line in lines]


# What the error says, and answers that have the fault.
ANSWER_FAULTS: list[tuple[str, list[str]]] = [
    (NO_END, ["", "HTTP/1.1 403 No", FINAL, f"{FINAL}X-Way: a\r\n", f"{FINAL}X-Way: a\r\r"]),
    (f"the answer starts with ''{NOT_STATUS}", ["\r\n\r\n", f"\r\n{FINAL}\r\n"]),
    ("the answer starts with 'HTTP", status_lines("HTTP/1.0 403 No")),
    (
        NOT_STATUS,
        status_lines("HTTP/2 403", "http/1.1 403 No", "403 No", "HTTP/1.1 403No", "HTTP/1.1  403 No"),
    ),
    (NOT_STATUS, status_lines("HTTP/1.1 abc No", "HTTP/1.1 40 No", "HTTP/1.1 4030 No", " HTTP/1.1 403 No")),
    (
        NOT_STATUS,
        status_lines("HTTP/1.1 403 N\x00o", "HTTP/1.1 403 N\x7fo", "HTTP/1.1 403 N\ro", "HTTP/1.1 403 \x0b"),
    ),
    *(
        (f"status {n} ends no handshake", [f"HTTP/1.1 {n:03} X\r\n\r\n"])
        for n in (0, 100, 102, 103, 199, 600, 999)
    ),
    ("Headers still holds the request; replace it", [HEAD, HEAD.replace("\r\n", "\n")]),
    ("the header line 'No", final("No colon")),
    ("the head has a folded line", final("X-Way: a\r\n folded", "X-Way: a\r\n\tfolded: b")),
    ("the header line 'X-Way", final("X-Way : a")),
    (
        f"the header line 'X-Way'{NOT_FIELD}",
        final("X-Way: a\x00", "X-Way: a\rb", "X-Way: a\r", "X-Way:\x0bb"),
    ),
    (
        NOT_FIELD,
        final(": a", "X Way: a", "X-Way: a\x7f", "X-Way: \x1ba", "(X): a"),
    ),
    (NOT_ASCII, final("X-Way: é", "X-Way: \x85", "X-Way: \ud800", "É: a") + status_lines("HTTP/1.1 ٤٠٣ No")),
    ("Content-Length is 4; the body has 3 bytes", [f"{FINAL}Content-Length: 4\r\n\r\nabc"]),
    ("Content-Length is 1; the body has 2 bytes", [f"{FINAL}Content-Length: 1\r\n\r\né"]),
    ("Content-Length is 03; the body has 3 bytes", [f"{FINAL}Content-Length: 03\r\n\r\nabc"]),
    ("Content-Length is +3; the body has 3 bytes", [f"{FINAL}Content-Length: +3\r\n\r\nabc"]),
    ("Content-Length is ; the body has 0 bytes", final("Content-Length:")),
    ("Content-Length is 0, 0; the body has 0 bytes", final("Content-Length: 0\r\nContent-Length: 0")),
    ("the answer has Transfer-Encoding; give the body whole", final("Transfer-Encoding: chunked")),
    ("the answer holds a second head; one upgrade has one answer", [f"{FINAL}\r\n{FINAL}\r\n"]),
    ("the answer holds a second head; one upgrade has one answer", [f"{FINAL}\r\n{RIGHT_101}"]),
    ("the answer's body cannot be UTF-8", [f"{FINAL}\r\n\ud800"]),
    *((f"status {n} has no body (RFC 9110)", [f"HTTP/1.1 {n} X\r\n\r\nabc"]) for n in (204, 205, 304)),
]


@pytest.mark.parametrize(("words", "texts"), ANSWER_FAULTS)
def test_each_fault_of_an_answer(words: str, texts: list[str]) -> None:
    for text in texts:
        assert words in wrong(text), text


@pytest.mark.parametrize(
    "text",
    [
        FINAL + "Set-Cookie: session=SECRET\x00\r\n\r\n",
        FINAL + "Set-Cookie : session=SECRET\r\n\r\n",
        FINAL + "Set-Cookie: é=SECRET\r\n\r\n",
        "Set-Cookie: session=SECRET\r\n" + FINAL + "\r\n",
        RIGHT_101.replace("Upgrade: ", "Set-Cookie: session=SECRET\x00\r\nUpgrade: ", 1),
        RIGHT_101.replace("Upgrade: ", "Set-Cookie: session=SECRET\r\nX: ", 1),
        HEAD.replace("\r\n", "\r\nCookie: session=SECRET\r\n", 1),
        FINAL + "Set-Cookie: session=SECRET",
        FINAL + "Content-Length: 1\r\nSet-Cookie: session=SECRET\r\n\r\nSECRET",
        FINAL + "\r\n" + FINAL + "Set-Cookie: session=SECRET\r\n\r\n",
    ],
)
def test_no_fault_of_an_answer_repeats_a_secret(text: str) -> None:
    assert "SECRET" not in wrong(text)


def test_a_long_line_is_not_repeated_whole() -> None:
    assert len(wrong(FINAL + "x" * 9999 + "\r\n\r\n")) < 200
    assert len(wrong("x" * 9999 + "\r\n\r\n")) < 200


ends = st.sampled_from(["\r\n", "\r\n", "\n"])
names = st.sampled_from(
    ["X-Way", "set-cookie", "Content-Type", "From", "!#$%&'*+.^_`|~", "0", "Content-Length", "Upgrade"]
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\t"), max_size=8)
odd = st.sampled_from(
    ["", ":", " a", "a b: c", "A:\r", "A: \x00", "A: é", "HTTP/1.1 200 OK", "Transfer-Encoding: chunked"]
)
fields = st.lists(
    st.builds("{}:{}".format, names, values) | st.builds("{}: {}".format, names, values), max_size=4
)
bodies = st.text(max_size=9) | st.sampled_from(
    ["", "\r\n", "HTTP/1.1 200 OK\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "é"]
)


@st.composite
def answers(draw: st.DrawFn, oddities: bool = False) -> str:
    status = draw(st.integers(200, 599) | st.sampled_from([101, 100, 204, 304, 600]))
    lines: list[str] = [
        f"HTTP/1.1 {status}" + draw(st.sampled_from(["", " ", " No way", "\t"])),
        *draw(fields),
    ]
    if oddities:
        lines += draw(st.lists(odd, max_size=2))
    return "".join(line + draw(ends) for line in [*lines, ""]) + draw(bodies)


@given(answers())
@example(FINAL + "Content-Length: 5\r\n\r\nhello")
@example("HTTP/1.1 304\n\n")
def test_what_is_let_through_reads_the_same_elsewhere(text: str) -> None:
    try:
        answer = read_answer(text, OFFER)
    except InvalidAnswer:
        assume(False)
    head, _, body = answer.data.partition(b"\r\n\r\n")
    status, content, headers = by_http_client(answer.data)
    assert (status, content) == (answer.status, body)
    assert body == text[len(text) - len(body.decode()) :].encode()
    lines = [line.partition(":") for line in head.decode().split("\r\n")[1:]]
    stripped = [(name, value.strip(" \t")) for name, value in headers]
    assert stripped == [(name, value.strip(" \t")) for name, _, value in lines]
    assert read_answer(answer.data.decode(), OFFER) == answer


@given(answers())
def test_h11_reads_it_so_too(text: str) -> None:
    h11 = pytest.importorskip("h11")
    try:
        answer = read_answer(text, OFFER)
    except InvalidAnswer:
        assume(False)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "myapp")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer.data)
    client.receive_data(b"")
    response = client.next_event()
    got = b""
    while type(event := client.next_event()) is h11.Data:
        got += event.data
    assert type(event) is h11.EndOfMessage
    assert (response.status_code, bytes(got)) == (answer.status, answer.data.partition(b"\r\n\r\n")[2])


right_text = st.just(
    f"{RIGHT_101[:-2]}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
changes = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9), st.text(max_size=5) | odd), max_size=3)


def altered(text: str, changes: Sequence[tuple[int, int, str]]) -> str:
    for place, length, new in changes:
        text = text[:place] + new + text[place + length :]
    return text


@given(
    st.text(st.characters() | st.sampled_from("\r\n\ud800"))
    | answers(True)
    | st.builds(altered, right_text | answers(), changes)
)
def test_no_text_does_worse_than_an_invalid_answer(text: str) -> None:
    try:
        answer = read_answer(text, OFFER)
    except InvalidAnswer:
        return
    assert b"\n" not in answer.data.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"")
    assert (answer.status == 101) == (answer.accepted is not None)
