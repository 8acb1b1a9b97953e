"""Any bytes, cut at any place, come to the same; and whatever a program answers, a client gets one answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from .illegal import CLIENT, ILLEGAL
from .peer import ACCEPT, BINARY, CLOSE, CONT, PING, PONG, TEXT, request
from .streams import Desk, examine_answer, examine_frames, examine_head, packed
from .wire import lines as lines

pytestmark = pytest.mark.usefixtures("lines")

ANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
places = st.lists(st.integers(0, 100_000), max_size=8)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop for all examples of a test."""
    with asyncio.Runner() as made:
        made.get_loop().set_debug(False)
        yield made


@pytest.fixture
def desk(runner: asyncio.Runner) -> Iterator[Desk]:
    """A host for all examples of a test."""
    opening = Desk.open()
    yield runner.run(opening.__aenter__())
    runner.run(opening.__aexit__(None, None, None))


# Frames

datas = st.binary(max_size=40) | st.sampled_from([b"", bytes(200), b"x" * 5000])
texts = st.text(max_size=20).map(str.encode)


def client(opcode: int, data: bytes) -> bytes:
    """A frame."""
    return CLIENT(opcode, data)


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    """A message in pieces, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    parts = [draw(texts if opcode == TEXT else datas) for _ in range(draw(st.integers(1, 4)))]
    made = b""
    for index, part in enumerate(parts):
        made += CLIENT(CONT if index else opcode, part, fin=index == len(parts) - 1)
        made += draw(st.just(b"") | st.builds(client, st.sampled_from([PING, PONG]), st.binary(max_size=9)))
    return made


closes = st.just(b"") | st.builds(
    lambda code, reason: struct.pack("!H", code) + reason.encode(),
    st.sampled_from([1000, 1001, 1011, 3000, 4999]),
    st.text(max_size=20),
)
frames = (
    st.builds(client, st.just(TEXT), texts)
    | st.builds(client, st.just(BINARY), datas)
    | st.builds(client, st.sampled_from([PING, PONG]), st.binary(max_size=125))
    | st.builds(lambda data: CLIENT(BINARY, packed(data), rsv=4), datas)
    | st.builds(lambda data: CLIENT(TEXT, packed(data), rsv=4), texts)
    | fragmented()
)
bad = (
    st.binary(max_size=12)
    | st.sampled_from(sorted(ILLEGAL)).map(lambda name: ILLEGAL[name].write(CLIENT))
    | st.builds(client, st.just(CLOSE), closes)
    | st.builds(lambda data: CLIENT(TEXT, data, rsv=4), datas)
)
streams = st.lists(frames, max_size=6).map(b"".join)


@given(
    data=st.builds(
        lambda stream, times, end, more: stream * times + end + more,
        streams,
        st.sampled_from([1, 1, 1, 2000]),  # Large reads are handled in slices.
        st.just(b"") | bad,
        st.just(b"") | streams,
    ),
    places=places,
    chunks=st.booleans(),
    deflate=st.booleans(),
    held=st.booleans(),
    eof=st.booleans(),
)
@settings(ANY, max_examples=200)
def test_frames_cut_anywhere(runner: asyncio.Runner, data: bytes, places: list[int], **options: Any) -> None:
    read = runner.run(examine_frames(data, places, **options))
    event(f"{min(len(read.messages), 3)} messages, ended {bool(read.ends)}")


# Heads

lines_of_heads = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\0", b"X: y\r\n", b"Host: a\r\n", b": ", b"\xff", b"GET / HTTP/1.1\r\n"]
)
changes = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 9), st.binary(max_size=6) | lines_of_heads), max_size=3
)


def changed(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in edits:
        data = data[:place] + new + data[place + length :]
    return data


OWN = "127.0.0.1:49152"
heads = st.sampled_from(
    [
        request("/chat", OWN),
        request("/manual", OWN),
        request("ws://myapp/chat", "myapp"),
        request("/", OWN, method="POST", extra="Content-Length: 3\r\n"),
        b"CONNECT myapp:80 HTTP/1.1\r\nHost: myapp:80\r\n\r\n" + request("/chat", "myapp"),
        b"\x05\x01\x00\x05\x01\x00\x03\x05myapp\x00\x50" + request("/chat", "myapp"),
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ]
)
after = st.just(b"") | streams | bad


@given(
    data=st.binary(max_size=60) | st.builds(lambda h, e, a: changed(h, e) + a, heads, changes, after),
    places=places,
)
@example(request("/chat", OWN), list(range(300)))
@settings(ANY, max_examples=200)
def test_heads_cut_anywhere(runner: asyncio.Runner, desk: Desk, data: bytes, places: list[int]) -> None:
    made = runner.run(examine_head(desk, data, places))
    event(f"{made.answer[:12]!r} {made.story}")


# Answers

RIGHT = (
    f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
)
"""Right but for the key, which is the client's own: `right` puts the right one in."""

answer_lines = st.sampled_from(
    [
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Protocol: other",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
        "Set-Cookie: a=b",
        "Content-Length: 3",
        "Content-Length: x",
        "Transfer-Encoding: chunked",
        "X: é",
        "X: \x00",
        " folded",
        "no colon",
        "",
    ]
)
answers = (
    st.text(max_size=60)
    | st.builds(
        lambda status, lines, end, body: (
            f"HTTP/1.1 {status}{end}" + "".join(f"{x}{end}" for x in lines) + end + body
        ),
        st.integers(99, 610).map(str) | st.just("101 Switching Protocols") | st.just("403 Forbidden"),
        st.lists(answer_lines, max_size=3),
        st.sampled_from(["\r\n", "\n"]),
        st.text(max_size=12) | st.just("HTTP/1.1 200 OK\r\n\r\n"),
    )
    | st.builds(lambda edits: changed(RIGHT.encode(), edits).decode("latin-1"), changes)
)


def right(text: str, key: str) -> str:
    """The text with the accept key that a request asks for."""
    return text.replace(ACCEPT, key)


@given(text=answers, vector=st.booleans(), more=st.lists(answer_lines.filter(bool), max_size=2))
@example(RIGHT, False, [])
@example(RIGHT, True, ["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate"])
@settings(ANY, max_examples=200)
def test_any_answer(runner: asyncio.Runner, desk: Desk, text: str, vector: bool, more: list[str]) -> None:
    def reply(upgrade: Any) -> object:
        accept = upgrade.accept().headers.split("Sec-WebSocket-Accept: ")[1].split("\r\n")[0]
        said = right(text, accept)
        if said.startswith("HTTP/1.1 101"):
            said = said.replace("\r\n\r\n", "".join(f"\r\n{line}" for line in more) + "\r\n\r\n", 1)
        if not vector:
            return upgrade.answer(said)
        message = upgrade.message()
        message[4] = said
        return message

    made = runner.run(examine_answer(desk, reply))
    event(f"{made.answer[:12]!r} {made.story}")


vectors = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(value=vectors.filter(lambda value: value is not None), place=st.integers(0, 6))
@settings(ANY, max_examples=100)
def test_any_object_for_an_answer(runner: asyncio.Runner, desk: Desk, value: object, place: int) -> None:
    def replaced(upgrade: Any) -> object:
        message = upgrade.message()
        message[place : place + 1] = [value]
        return message

    runner.run(examine_answer(desk, lambda upgrade: value))
    verbatim = value if place == 4 and isinstance(value, bytes) else None
    made = runner.run(examine_answer(desk, replaced, verbatim=verbatim))
    event(f"{made.answer[:12]!r} {made.story}")


@given(data=st.binary(max_size=60) | answers.map(lambda text: text.encode("utf-8", "replace")))
@settings(ANY, max_examples=100)
def test_verbatim_bytes_go_out_as_they_are(runner: asyncio.Runner, desk: Desk, data: bytes) -> None:
    runner.run(examine_answer(desk, lambda upgrade: upgrade.verbatim(data), verbatim=data))
