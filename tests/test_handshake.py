from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.headers import parse_extension

from interceptor.exceptions import HandshakeFailure
from interceptor.handshake import HeadReader, Offer, check_request, read_offer, read_request
from tests.peer import KEY, request

LIMIT = 16 * 1024
FIELDS = 100
HEAD = request("/chat?x=1", "myapp", origin="http://myapp")
CHROMIUM = "permessage-deflate; client_max_window_bits"
SECRETS = (
    "Cookie: session=SECRET\r\nAuthorization: Bearer SECRET\r\n"
    "Sec-WebSocket-Protocol: interceptor.token.SECRET\r\n"
)


def examine(data: bytes, limit: int = LIMIT) -> Offer | None:
    """All that happens to the bytes of a request."""
    found = HeadReader(limit).feed(data)
    if found is None:
        return None
    read = read_request(found[0], FIELDS)
    check_request(read)
    return read_offer(read)


def refused(data: bytes) -> HandshakeFailure:
    with pytest.raises(HandshakeFailure) as caught:
        examine(data)
    return caught.value


# Splitting the head from the stream


Fields = tuple[tuple[str, str], ...]
Outcome = tuple[int, str] | tuple[bytes, bytes] | None


def split(parts: Iterable[bytes], limit: int = LIMIT) -> Outcome:
    """The fault, or the head and all that follows it; None while the head goes on."""
    reader, rest = HeadReader(limit), iter(parts)
    try:
        for part in rest:
            if (found := reader.feed(part)) is not None:
                return found[0], found[1] + b"".join(rest)
    except HandshakeFailure as failure:
        return failure.status, failure.reason
    return None


def test_a_head_that_comes_whole() -> None:
    assert HeadReader(LIMIT).feed(HEAD) == (HEAD, b"")
    assert HeadReader(LIMIT).feed(HEAD + b"\x81\x80\n\r\n\r\n") == (HEAD, b"\x81\x80\n\r\n\r\n")


def test_a_head_that_comes_byte_by_byte() -> None:
    reader = HeadReader(LIMIT)
    assert [reader.feed(HEAD[i : i + 1]) for i in range(len(HEAD) - 1)] == [None] * (len(HEAD) - 1)
    assert reader.feed(HEAD[-1:]) == (HEAD, b"")


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_a_head_that_is_cut_anywhere(before: bytes) -> None:
    data = before + HEAD + b"after"
    for cut in range(len(data) + 1):
        assert split([data[:cut], b"", data[cut:]]) == (HEAD, b"after"), cut


def test_one_empty_line_before_the_request_is_ignored() -> None:
    assert split([b"\r\n" + HEAD]) == (HEAD, b"")
    assert refused(b"\r\n\r\n" + HEAD).status == 400
    assert split([b"\r\n", b"\r\n" + HEAD]) == (b"\r\n" + HEAD, b"")
    assert split([b"\r\n" * 3 + b"after"]) == (b"\r\n\r\n", b"after")
    assert refused(b"\r\n\r\n\r\n").status == 400
    assert HeadReader(len(HEAD)).feed(b"\r\n" + HEAD) == (HEAD, b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"a" * 65, 414),
        (b"a" * 64 + b"\r\n\r\n", 414),
        (b"a" * 63 + b"\r\n\r\n", 414),
        (b"a" * 62 + b"\r\n\r\n", 431),
        (b"a" * 61 + b"\r\n\r\n", 431),
        (b"a\r\n" + b"b" * 62, 431),
        (b"\r\n\r\n" + b"a" * 63, 431),
        (b"a\r\nb: c\r\n" * 8, 431),
    ],
)
def test_a_head_over_the_limit(data: bytes, status: int) -> None:
    reason = f"the request {'line' if status == 414 else 'head'} is over 64 bytes (Limits.head)"
    assert split([data], 64) == (status, reason)
    assert split([data[i : i + 1] for i in range(len(data))], 64) == (status, reason)


def test_a_head_of_just_the_limit() -> None:
    data = b"a" * 60 + b"\r\n\r\n"
    assert HeadReader(64).feed(data + b"more" * 99) == (data, b"more" * 99)
    assert HeadReader(64).feed(b"a" * 64) is None


@pytest.mark.parametrize(
    "data", [b"\n", b"\n\r\n", b"GET /\nHost", b"GET /\r\nHost: a\n\r\n\r\n", b"\r\n\n", b"a\n\r\n\r\n"]
)
def test_a_lone_line_feed_is_refused(data: bytes) -> None:
    for cut in range(len(data) + 1):
        outcome = split([data[:cut], data[cut:]])
        assert outcome == (400, "a line of the request ends with a lone LF; lines end with CRLF")


pieces = st.sampled_from(
    [b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"a", b"b: c", b"GET / HTTP/1.1", b" ", b"\x00", b"\xff" * 9]
)


@given(st.lists(pieces, max_size=12).map(b"".join), st.lists(st.integers(0, 60)), st.integers(4, 48))
@example(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", [2], 48)
@example(b"\r\n\r\n\r\nafter", [3], 48)
@example(b"a" * 30 + b"\n" + b"a" * 20, [31], 40)
def test_where_a_head_is_cut_makes_no_difference(data: bytes, cuts: list[int], limit: int) -> None:
    ends = sorted(min(cut, len(data)) for cut in cuts)
    parts = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    assert split(parts, limit) == split([data], limit)


# Reading and checking a request


def test_a_request_is_read() -> None:
    head = b"GET /a?b HTTP/1.1\r\nHost: myapp\r\nX-Way:  a\t\r\nx-way:b c\r\nEmpty:\r\nName: \xe9\r\n\r\n"
    read = read_request(head, 5)
    assert (read.head, read.method, read.target, read.version) == (head, "GET", "/a?b", (1, 1))
    assert read.fields == (("host", "myapp"), ("x-way", "a"), ("x-way", "b c"), ("empty", ""), ("name", "é"))
    assert (read.values("x-way"), read.value("x-way")) == (["a", "b c"], "a")
    assert (read.values("none"), read.value("none"), read.value("empty")) == ((), None, "")


def test_the_offer_of_a_browser_is_read() -> None:
    extra = (
        f"Sec-WebSocket-Extensions: {CHROMIUM}\r\nSec-WebSocket-Protocol: chat, log\r\nContent-Length: 0\r\n"
    )
    got = examine(request("/", "myapp", origin="http://myapp", extra=extra))
    assert got == Offer(KEY, ("chat", "log"), tuple(parse_extension(CHROMIUM)))
    assert got.token_subprotocol is None


def test_the_offer_of_a_plain_client_is_read() -> None:
    assert examine(HEAD) == Offer(KEY, (), ())


@pytest.mark.parametrize(
    "extra",
    [
        "Connection: keep-alive, UPGRADE\r\nUpgrade: WebSocket\r\n",
        "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: ,Upgrade,\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
    ],
)
def test_other_spellings_of_upgrade_and_connection(extra: str) -> None:
    assert examine(request(extra=extra, without=("Connection", "Upgrade"))) == Offer(KEY, (), ())


def test_subprotocols_and_extensions_may_come_in_several_fields() -> None:
    extra = "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, interceptor.token.T\r\n"
    extra += "Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Extensions: permessage-deflate; a=1; b\r\n"
    got = examine(request(extra=extra))
    assert got is not None
    assert got.subprotocols == ("a", "b", "interceptor.token.T")
    assert got.token_subprotocol == "interceptor.token.T"
    assert got.extensions == (("x", []), ("permessage-deflate", [("a", "1"), ("b", None)]))


WEBSOCKET = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Connection", "Upgrade"))
VERSION = (("Sec-WebSocket-Version", "13"),)
ALLOW = (("Allow", "GET"),)
EACH_FIELD = ("Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key")
OTHER_METHODS = ("CONNECT", "DELETE", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")


def first(line: str) -> bytes:
    """A right head but for its first line."""
    return line.encode("latin-1") + HEAD[HEAD.index(b"\r\n") :]


def more(*lines: str) -> list[bytes]:
    """Right heads, each but for one more line."""
    return [request(extra=f"{line}\r\n") for line in lines]


def instead(name: str, *values: str) -> list[bytes]:
    """Right heads, each but for the value of one field, and one without the field."""
    changed = [request(without=(name,), extra=f"{name}: {value}\r\n") for value in values]
    return [request(without=(name,)), *changed]


# Status, what the reason says, further fields, and requests that have the fault.
FAULTS: list[tuple[int, str, Fields, list[bytes]]] = [
    # RFC 9112 section 3: the request line
    (400, "the request line is not: method", (), [first(""), first("GET /"), first("GET  / HTTP/1.1")]),
    (400, "the request line is not: method", (), [first("GET / / HTTP/1.1"), first("GET / HTTP/1.1 ")]),
    (400, "the request line is not: method", (), [first(" GET / HTTP/1.1"), first("GET / HTTP/11")]),
    (400, "the request line is not: method", (), [first("GET / http/1.1"), first("GET / HTTP/1.1\r")]),
    (400, "the request line is not: method", (), [first("G(T / HTTP/1.1"), first("GET /\xe9 HTTP/1.1")]),
    (400, "the request line is not: method", (), [first("GET /\x00 HTTP/1.1"), first("GET /\t HTTP/1.1")]),
    (400, "the request line is not: method", (), [b"\x16\x03\x01\r\n\r\n", b" \r\n\r\n"]),
    (505, "HTTP/1.1 only", (), [first("GET / HTTP/1.0"), first("GET / HTTP/0.9"), first("PRI * HTTP/2.0")]),
    (501, "does not know the request method", (), [first("FETCH / HTTP/1.1"), first("get / HTTP/1.1")]),
    # RFC 9112 section 5: the fields
    (400, "a header line is not: name", (), more("No colon", ": no name", "A : b", "A b: c", "\xc4: a")),
    (400, "a header line is not: name", (), more(" folded: a", "A: b\r\n\tfolded", "A: b\x00c", "A: b\x7f")),
    (400, "a header line is not: name", (), more("A: b\rc", "A: b\r", "A: b\x1bc", "A:\x0b", "A: b\x08")),
    (431, "has 101 header fields, over 100", (), [request(extra="A: b\r\n" * 96)]),
    (400, "more than one origin field", (), more("Origin: http://a\r\nOrigin: http://a")),
    (400, "more than one sec-websocket-key field", (), more(f"Sec-WebSocket-Key: {KEY}")),
    (400, "more than one sec-websocket-version field", (), more("Sec-WebSocket-Version: 13")),
    (400, "more than one content-length field", (), more("Content-Length: 0\r\ncontent-length: 0")),
    # RFC 6455 section 4.2.1
    (405, "a WebSocket is opened with GET", ALLOW, [request(method=method) for method in OTHER_METHODS]),
    (405, "is opened with GET", ALLOW, [request(method="POST", extra="Content-Length: 3\r\n")]),
    (400, "has no body, so no Content-Length", (), more("Content-Length: 3", "Content-Length:")),
    (
        501,
        "has no body, so no Transfer-Encoding",
        (),
        more("Transfer-Encoding: chunked", "Transfer-Encoding:"),
    ),
    (426, "needs Upgrade: websocket", WEBSOCKET, instead("Upgrade", "h2c", "websocket/13", "web, socket")),
    (426, "this address is a WebSocket", WEBSOCKET, [request(without=EACH_FIELD)]),
    (400, "the request's Upgrade field is malformed", (), more("Upgrade: ;", "Upgrade:", "Upgrade: a b")),
    (400, "needs Connection: Upgrade", (), instead("Connection", "close", "keep-alive", "upgraded")),
    (400, "the request's Connection field is malformed", (), more("Connection: a b", "Connection: ;")),
    (426, "Version: 13", VERSION, instead("Sec-WebSocket-Version", "8", "14", "013", "13.0", "13, 8", "")),
    (400, "Sec-WebSocket-Key needs to be 16", (), instead("Sec-WebSocket-Key", "", "x", KEY[:-2], KEY[:-1])),
    (400, "needs to be 16", (), instead("Sec-WebSocket-Key", f"{KEY}=", KEY[:20], KEY[:4] + KEY, KEY * 2)),
    (
        400,
        "needs to be 16",
        (),
        instead("Sec-WebSocket-Key", f"?{KEY[1:]}", f"\xe9{KEY[1:]}", f"{KEY[:9]} {KEY[9:]}"),
    ),
    (400, "Sec-WebSocket-Protocol field is malformed", (), more("Sec-WebSocket-Protocol:")),
    (400, "Sec-WebSocket-Protocol field is malformed", (), more("Sec-WebSocket-Protocol: a b")),
    (400, "names a subprotocol twice", (), more("Sec-WebSocket-Protocol: a,b,a")),
    (400, "names a subprotocol twice", (), more("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a")),
    (400, "Sec-WebSocket-Extensions field is malformed", (), more("Sec-WebSocket-Extensions:")),
    (400, "Sec-WebSocket-Extensions field is malformed", (), more("Sec-WebSocket-Extensions: a; =b")),
    (400, "Sec-WebSocket-Extensions field is malformed", (), more('Sec-WebSocket-Extensions: a; b="c d"')),
]


@pytest.mark.parametrize(("status", "words", "further", "requests"), FAULTS)
def test_each_fault_of_a_request(status: int, words: str, further: Fields, requests: list[bytes]) -> None:
    for data in requests:
        failure = refused(data)
        assert (failure.status, failure.headers) == (status, further), data
        assert words in failure.reason, data


@pytest.mark.parametrize("data", [data for fault in FAULTS for data in fault[3]])
def test_no_fault_repeats_a_secret(data: bytes) -> None:
    line, _, rest = data.partition(b"\r\n")
    failure = refused(line.replace(b"/", b"/?token=SECRET", 1) + b"\r\n" + SECRETS.encode() + rest)
    assert "SECRET" not in str(failure)


def test_a_hundred_fields_are_not_too_many() -> None:
    assert examine(request(extra="A: b\r\n" * 95)) is not None


def test_a_line_of_blanks_costs_no_more_than_its_length() -> None:
    # Quadratic, this would take hours.
    head = b"GET / HTTP/1.1\r\na:" + b" " * 2**20 + b"\x00\r\n\r\n"
    with pytest.raises(HandshakeFailure, match="a header line is not"):
        read_request(head, FIELDS)


mutations = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 9), st.binary(max_size=6) | pieces), max_size=4
)


def mutated(data: bytes, changes: Iterable[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in changes:
        data = data[:place] + new + data[place + length :]
    return data


@given(st.binary() | st.builds(mutated, st.just(request(origin="http://a", extra=SECRETS)), mutations))
def test_no_bytes_do_worse_than_a_handshake_failure(data: bytes) -> None:
    with contextlib.suppress(HandshakeFailure):
        got = examine(data)
        assert got is None or len(got.key) == 24


def test_what_was_read_is_frozen() -> None:
    read = read_request(HEAD, FIELDS)
    for value in (read, read_offer(read)):
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)
        assert value == dataclasses.replace(value)
        assert not hasattr(value, "__dict__")
