"""HTTPRequest over real TCP: which requests come to the program, and what its answers become on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from interceptor import Host, HTTPRequest, Limits, Security, Timeouts, WebSocketUpgrade

from .peer import PATIENCE, Answer, Peer, Recorder, until
from .proxied import begin_tls, trusting, tunnel
from .wire import HEAD, Line, lines, quiet_loop, switched

__all__ = ["lines", "quiet_loop"]

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))

ROWS = [("http://myapp/*", 1), ("http://gate/*", 2), ("ws://myapp/*", 1), ("*://safe.test/*", 1)]
OWN = "http://127.0.0.1:{port}"


def ask(
    path: str = "/", host: str = "myapp", *extra: str, method: str = "GET", body: bytes | None = None
) -> bytes:
    """The bytes of a request."""
    fields = [f"Host: {host}", *extra]
    if body is not None:
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode("latin-1") + (body or b"")


def host_of(rows: list[tuple[str, int]] | None = None, **more: object) -> Host:
    """A host whose program answers with what it was asked, as JSON."""
    host = Host(ROWS if rows is None else rows, root="myapp", **more)  # type: ignore[arg-type]

    @host.on("HTTPRequest")
    def echo(event: HTTPRequest) -> HTTPRequest:
        body = event.body if isinstance(event.body, str) else f"bytes {event.body!r}"
        return event.respond(json.dumps([event.method, event.url, body]), mime="application/json")

    return host


async def get(host: Host, *requests: bytes) -> list[Answer]:
    """Make requests on one connection; the answers in order."""
    async with Peer.connect(host) as peer:
        return [await peer.ask(request) for request in requests]


async def one(host: Host, request: bytes) -> Answer:
    """Make a request on a connection of its own."""
    return (await get(host, request))[0]


def origin(host: Host) -> str:
    """The Origin field of a page of the host's own."""
    return f"Origin: {host.http_url('').rstrip('/')}"


# What comes to the program


@pytest.mark.parametrize(
    ("path", "name", "url"),
    [
        ("/", "myapp", "http://myapp/"),
        ("/a/../b?c=d", "myapp", "http://myapp/b?c=d"),
        ("/b?c=d&e", "MyApp:80", "http://myapp/b?c=d&e"),
        ("/b", "{own}", "http://myapp/b"),
        ("/b", "localhost:{port}", "http://myapp/b"),
        ("/%7Eme/x", "gate", "http://gate/%7Eme/x"),
        ("http://gate/in", "gate", "http://gate/in"),
        ("http://{own}/in", "{own}", "http://myapp/in"),
    ],
)
async def test_url(path: str, name: str, url: str) -> None:
    async with host_of() as host:
        own, port = Peer.authority(host), host.address[1]
        path, name = (text.format(own=own, port=port) for text in (path, name))
        answer = await one(host, ask(path, name))
    assert (answer.status, json.loads(answer.body)) == (200, ["GET", url, ""])


async def test_the_event_has_the_published_elements() -> None:
    """Mode 2 goes to the callback as mode 1 does, and the vector is an answer too."""
    seen: list[list[object]] = []
    host = Host(ROWS, root="myapp", name="hr")

    @host.on(840)
    def answer(event: HTTPRequest) -> list[object]:
        message = event.message()
        seen.append(list(message))
        message[3:7] = [1, 201, "Made", "text/plain"]
        message[8:10] = ["X-One: 1\r\nSet-Cookie: a=b\r\n", "done"]
        return message

    head = ask("/in?a=b", "gate", "X-Mine: yes", "Content-Type: application/x-www-form-urlencoded")
    request = ask("/in?a=b", "gate", "Content-Type: application/x-www-form-urlencoded", "Origin: http://gate",
                  method="POST", body="näme=1".encode())  # fmt: skip
    async with host:
        first, second = await get(host, head, request)
    assert seen[0] == [
        "hr", "HTTPRequest", "ProcessRequest", 0, 0, "", "", "http://gate/in?a=b",
        head.decode(), "", "GET",
    ]  # fmt: skip
    assert seen[1][8] == request.partition(b"\r\n\r\n")[0].decode() + "\r\n\r\n"
    assert seen[1][9:] == ["näme=1", "POST"]
    for answered in (first, second):
        assert answered.head.startswith(b"HTTP/1.1 201 Made\r\n")
        assert answered.body == b"done"
        assert answered.headers["content-type"] == "text/plain; charset=utf-8"
        assert answered.headers["x-one"] == "1"
        assert answered.headers["set-cookie"] == "a=b"
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert answered.headers["cache-control"] == "no-store"
        assert answered.headers["content-length"] == "4"


async def test_what_the_event_reads_from_its_head() -> None:
    event = HTTPRequest(
        object="h", url="http://myapp/", headers="GET / HTTP/1.1\r\nA: 1\r\na: 2\r\nCookie: b=c\r\n\r\n"
    )
    assert (event.header("A"), event.header("b"), event.cookies) == ("1, 2", None, {"b": "c"})
    assert "Cookie" not in repr(event)


async def test_bodies() -> None:
    text = ("Content-Type: text/plain",)
    async with host_of(security=Security(allow_no_origin=True)) as host:
        answers = await get(
            host,
            ask("/", "myapp", *text, method="POST", body="é".encode()),
            ask("/", "myapp", *text, method="POST", body=b"\xff"),
            ask("/", "myapp", method="PUT", body=b"ab"),
            ask("/", "myapp", method="POST", body=b""),
            ask("/", "myapp", *text, "Transfer-Encoding: chunked", method="POST")
            + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            ask("/", method="DELETE"),
        )
    bodies = [json.loads(answer.body)[::2] for answer in answers]
    assert bodies == [
        ["POST", "é"], ["POST", "bytes b'\\xff'"], ["PUT", "bytes b'ab'"], ["POST", ""], ["POST", "abc"],
        ["DELETE", ""],
    ]  # fmt: skip


async def test_body_that_comes_bit_by_bit_and_is_asked_for() -> None:
    async with host_of(security=Security(allow_no_origin=True)) as host, Peer.connect(host) as peer:
        await peer.send(ask("/", "myapp", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        async with asyncio.timeout(PATIENCE):
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await peer.send_slowly(b"abc" + ask("/next"))
        assert b"b'abc'" in (await peer.answer()).body
        assert b"/next" in (await peer.answer()).body


async def test_head_has_no_body_and_the_same_head() -> None:
    async with host_of() as host, Peer.connect(host) as peer:
        whole = await peer.ask(ask("/a"))
        await peer.send(ask("/a", method="HEAD"))
        async with asyncio.timeout(PATIENCE):
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {len(whole.body) + 1}\r\n".encode() in head
        assert b"/b" in (await peer.ask(ask("/b"))).body


async def test_keep_alive_pipelining_and_the_end() -> None:
    async with host_of() as host, Peer.connect(host) as peer:
        await peer.send(
            b"".join(ask(f"/{number}") for number in range(20)) + ask("/last", "myapp", "Connection: close")
        )
        for number in range(20):
            assert json.loads((await peer.answer()).body)[1] == f"http://myapp/{number}"
        last = await peer.answer()
        assert last.headers["connection"] == "close"
        assert b"/last" in last.body
        assert await peer.rest() == b""


async def test_a_socket_on_the_connection_of_a_page() -> None:
    host = host_of()
    seen = Recorder(host)
    async with host, Peer.connect(host) as peer:
        assert (await peer.ask(ask("/page"))).status == 200
        await peer.send(
            HEAD.replace(b"Sec-WebSocket-Version", b"Origin: http://myapp\r\nSec-WebSocket-Version")
        )
        await switched(peer)
        await seen.wait_for(WebSocketUpgrade)


# By which way


async def test_through_the_proxy() -> None:
    """A whole URL, a tunnel, SOCKS is the tunnel's; and TLS within, also for who could speak HTTP/2."""
    async with host_of() as host:
        whole = await one(host, ask("http://gate:80/whole?x", "gate"))
        assert json.loads(whole.body)[1] == "http://gate/whole?x"
        async with Peer.connect(host) as peer:
            await tunnel(peer, "gate:80")
            for path in ("/one", "/two"):
                assert json.loads((await peer.ask(ask(path, "gate"))).body)[1] == f"http://gate{path}"
        for alpn in ((), ("h2", "http/1.1")):
            async with Peer.connect(host) as peer:
                await tunnel(peer, "safe.test:443")
                await begin_tls(peer, trusting(host, *alpn), "safe.test")
                answer = await peer.ask(ask("/in", "safe.test"))
                assert json.loads(answer.body)[1] == "https://safe.test/in"
                assert "set-cookie" not in answer.headers


async def test_in_tls_at_its_own_address() -> None:
    async with host_of([("https://myapp/*", 1)]) as host:
        context = trusting(host)
        reader, writer = await asyncio.open_connection(
            *host.address, ssl=context, server_hostname="127.0.0.1"
        )
        peer = Peer(reader, writer)
        answer = await peer.ask(ask("/in", Peer.authority(host)))
        writer.transport.abort()
    assert json.loads(answer.body)[1] == "https://myapp/in"


async def test_a_rule_that_is_no_string_opens_no_pages_in_tls() -> None:
    """Else one regular expression would have all that a user reads go through here in clear."""
    async with Host([(lambda url: True, 1)], root="myapp") as host:
        table = host.intercepted_urls
        assert table.could_match("bank.test:443", "https")
        assert not table.could_match("bank.test:443", "https", by_text=True)
        assert "https://*" not in host.pac()
        assert "wss://*" in host.pac()


# Answers


ANSWERS: list[tuple[Callable[[HTTPRequest], Any], int, bytes, str | None]] = [
    (lambda e: e.respond("<p>é"), 200, "<p>é".encode(), "text/html; charset=utf-8"),
    (lambda e: e.respond(b"\0"), 200, b"\0", "application/octet-stream"),
    (lambda e: e.respond("x", 404, mime="text/css"), 404, b"x", "text/css; charset=utf-8"),
    (lambda e: e.respond("x", 299, headers={"Content-Type": "a/b"}), 299, b"x", "a/b"),
    (lambda e: e.respond(), 200, b"", None),
    (lambda e: e.respond("", 302, headers=[("Location", "/x")]), 302, b"", None),
    (lambda e: e.respond("x", mime=" text/css "), 200, b"x", "text/css"),
    (lambda e: None, 404, b"nobody here answers this URL\n", "text/plain; charset=utf-8"),
    (lambda e: e, 404, b"nobody here answers this URL\n", "text/plain; charset=utf-8"),
    (lambda e: [*e.message()[:3], 1, *e.message()[4:]], 200, b"", None),
]  # fmt: skip


@pytest.mark.parametrize("which", range(len(ANSWERS)))
@pytest.mark.parametrize("is_async", [False, True])
async def test_answer(which: int, is_async: bool) -> None:
    reply, status, body, mime = ANSWERS[which]
    host = Host(ROWS, root="myapp")

    async def later(event: HTTPRequest) -> Any:
        await asyncio.sleep(0)
        return reply(event)

    host.on("HTTPRequest")(later if is_async else reply)
    async with host:
        answer = await one(host, ask("/"))
    assert (answer.status, answer.body, answer.headers.get("content-type")) == (status, body, mime)


@pytest.mark.parametrize("proxied", [False, True])
async def test_answers_are_kept_from_pages_of_others_unless_the_program_says_otherwise(proxied: bool) -> None:
    """A page may include scripts of any name, and frame any page, without the host's being able to tell."""
    policies = {"Cross-Origin-Resource-Policy": "cross-origin", "Content-Security-Policy": "default-src *"}
    for security, fields, expected in (
        (Security(), {}, ("same-origin", "frame-ancestors 'self'")),
        (Security(), policies, ("cross-origin", "default-src *")),
        (Security(origins=["*"]), {}, (None, None)),
    ):
        host = Host(ROWS, root="myapp", security=security)
        host.on("HTTPRequest")(partial(HTTPRequest.respond, body="x", headers=fields))
        async with host:
            path = "http://gate/" if proxied else "/"
            answer = await one(host, ask(path, "gate" if proxied else Peer.authority(host)))
        names = ("cross-origin-resource-policy", "content-security-policy")
        assert tuple(answer.headers.get(name) for name in names) == expected


UPGRADE = WebSocketUpgrade(object="h", id="0" * 15, url="u", headers="", type="auto")
WRONG: list[tuple[Callable[[HTTPRequest], Any], str]] = [
    (lambda e: "<p>", "the callback returned str"),
    (lambda e: 1, "the callback returned int"),
    (lambda e: [], "no event message"),
    (lambda e: UPGRADE, "returned WebSocketUpgrade"),
    (lambda e: ["h", 841, "0" * 15, "u", "", "auto"], "not a HTTPRequest"),
    (lambda e: e.model_copy(update={"handle": 1, "status": 101}), "Status is 101"),
    (lambda e: e.respond("x", 204), "has no body"),
    (lambda e: e.model_copy(update={"handle": 1, "headers": "X: a\x00b"}), "control character"),
    (lambda e: e.model_copy(update={"handle": 1, "headers": "no colon"}), "each is: name, colon"),
    (lambda e: e.respond(headers={"Content-Length": "3"}), "which the host writes itself"),
    (lambda e: e.respond(headers={"transfer-encoding": "chunked"}), "which the host writes itself"),
    (lambda e: e.model_copy(update={"handle": 1, "status_text": "a\r\nb"}), "one line of ASCII"),
    (lambda e: e.respond("x", mime="text/html\r\nX: y"), "control character"),
    (lambda e: e.respond("x", mime="text/plä"), "the value of Content-Type is not ASCII"),
    (lambda e: e.model_copy(update={"handle": 1, "headers": "X: caf\xe9"}), "the value of X is not ASCII"),
    (lambda e: e.model_copy(update={"handle": 1, "headers": "X: a\x85b"}), "is not ASCII"),
    (lambda e: e.model_copy(update={"handle": 1, "headers": "X: \ud800"}), "is not ASCII"),
    (lambda e: e.respond("ab\ud800c"), "half a surrogate pair at 2, '\\ud800'"),
]  # fmt: skip


@pytest.mark.parametrize("which", range(len(WRONG)))
async def test_an_answer_that_is_not_valid_is_500_and_logged(which: int, lines: list[Line]) -> None:
    reply, why = WRONG[which]
    host = Host(ROWS, root="myapp")
    host.on("HTTPRequest")(reply)
    async with host:
        answer = await one(host, ask("/"))
    assert (answer.status, answer.body) == (500, b"the program's answer is not valid\n")
    (line,) = [line for line in lines if line["event"] == "the answer to an HTTPRequest is not valid"]
    assert why in line["why"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 99},
        {"status": True},
        {"body": 1},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "é"}},
        {"headers": "x"},
    ],
)
async def test_respond_refuses_at_once(wrong: dict[str, object]) -> None:
    event = HTTPRequest(object="h", url="http://myapp/")
    with pytest.raises((ValueError, TypeError)):
        event.respond(**wrong)  # type: ignore[arg-type]


async def test_a_callback_that_raises_is_500_and_logged(lines: list[Line]) -> None:
    host = Host(ROWS, root="myapp")

    @host.on("HTTPRequest")
    def fail(event: HTTPRequest) -> None:
        raise RuntimeError("secret")

    async with host:
        answer = await one(host, ask("/"))
        assert (answer.status, answer.body) == (500, b"the program failed\n")
        assert (await one(host, ask("/"))).status == 500
    assert [line["event"] for line in lines].count("callback raised") == 2


async def test_no_callback_is_404_and_says_what_to_do(lines: list[Line]) -> None:
    async with Host(ROWS, root="myapp") as host:
        assert (await one(host, ask("/"))).status == 404
    (line,) = [line for line in lines if line["event"] == "no callback for HTTPRequest"]
    assert 'host.on("HTTPRequest")' in line["remedy"]


async def test_events_without_a_callback_come_in_the_stream() -> None:
    async with Host(ROWS, root="myapp") as host:
        events = host.events()
        asked = asyncio.create_task(one(host, ask("/x")))
        async with asyncio.timeout(PATIENCE):
            event = await anext(events)
        assert isinstance(event, HTTPRequest)
        assert event.url == "http://myapp/x"
        assert (await asked).status == 404
        await events.aclose()


async def test_an_answer_that_takes_too_long_is_504_and_delays_nobody(lines: list[Line]) -> None:
    cancelled = asyncio.Event()
    host = Host(ROWS, root="myapp", timeouts=Timeouts(answer=0.05))

    @host.on("HTTPRequest")
    async def slow(event: HTTPRequest) -> HTTPRequest:
        if event.url.endswith("/quick"):
            return event.respond("quick")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with host, Peer.connect(host) as peer:
        await peer.send(ask("/slow"))
        assert (await one(host, ask("/quick"))).body == b"quick"
        assert (await peer.answer()).status == 504
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()
    assert any(line["event"] == "no answer to an HTTPRequest in time" for line in lines)


async def test_requests_that_the_program_does_not_take_are_bounded() -> None:
    async with Host(ROWS, root="myapp", limits=Limits(pending=2)) as host, Peer.connect(host) as peer:
        events = host.events()
        async with Peer.connect(host) as other:
            await peer.send(ask("/1"))
            await other.send(ask("/2"))
            await until(lambda: len(host._dispatcher.outbox._waiting) == 2)
            assert (await one(host, ask("/3"))).status == 503
            await anext(events)
            await anext(events)
            assert (await peer.answer()).status == 404
        await events.aclose()


# Limits


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(chunked: bool) -> None:
    security = Security(allow_no_origin=True)
    async with host_of(limits=Limits(body=10), security=security) as host:
        extra, body = (
            ("Content-Length: 11", b"")
            if not chunked
            else ("Transfer-Encoding: chunked", b"b\r\n" + b"x" * 11)
        )
        answer = await one(host, ask("/", "myapp", extra, method="POST") + body)
        assert answer.status == 413
        assert b"Limits.body" in answer.body
        assert (await one(host, ask("/", method="POST", body=b"x" * 10))).status == 200


@pytest.mark.parametrize("by_stream", [False, True])
async def test_bodies_are_bounded_in_all_and_not_kept_for_clients_that_left(by_stream: bool) -> None:
    """The program does not take what waits; four of the largest bodies have room."""
    host = Host(ROWS, root="myapp", limits=Limits(body=1000))
    called: list[str] = []
    if not by_stream:
        host.on("HTTPRequest")(lambda event: called.append(event.url))

    def waiting() -> int:
        crossing = host._dispatcher.crossing
        return len(host._dispatcher.outbox._waiting) if crossing is None else len(crossing)

    async with AsyncExitStack() as stack:
        if by_stream:
            await stack.enter_async_context(host)
            stack.push_async_callback(host.events().aclose)
        else:
            stack.enter_context(host.in_thread(dq=True))
        full = ask("/kept", "myapp", origin(host), method="POST", body=b"x" * 1000)
        peers = [await stack.enter_async_context(Peer.connect(host)) for _ in range(4)]
        for peer in peers:
            await peer.send(full)
        await until(lambda: waiting() == 4)
        refused = await one(host, full)
        assert refused.status == 503
        assert b"may have 4000 bytes at once (four times Limits.body)" in refused.body
        for peer in peers:
            peer.reset()
        await until(lambda: waiting() == 0)
        again = await stack.enter_async_context(Peer.connect(host))
        await again.send(full.replace(b"/kept", b"/again"))
        await until(lambda: waiting() == 1)
        if not by_stream:
            await asyncio.to_thread(host.dq, 0)
            assert called == ["http://myapp/again"]
            assert (await again.answer()).status == 404


async def test_a_request_that_got_504_is_not_kept_for_the_program(lines: list[Line]) -> None:
    host = Host(ROWS, root="myapp", timeouts=Timeouts(answer=0.05), limits=Limits(pending=1))
    called: list[str] = []
    host.on("HTTPRequest")(lambda event: called.append(event.url))
    with host.in_thread(dq=True):
        for _ in range(3):  # Each has the one place among those that wait.
            assert (await one(host, ask("/"))).status == 504
        assert await asyncio.to_thread(host.dq, 0) is None
    assert called == []


async def test_bodies_that_come_before_the_first_dq_are_bounded(lines: list[Line]) -> None:
    host = Host(ROWS, root="myapp", limits=Limits(read_buffer=10_000))
    with host.in_thread():
        for size in (20_000, 5_000):
            answer = await one(host, ask(f"/{size}", "myapp", origin(host), method="POST", body=b"x" * size))
            assert answer.status == 404
        assert await asyncio.to_thread(host.dq, 0) is None
    (line,) = [line for line in lines if line["event"].startswith("events came before the first dq()")]
    assert line["count"] == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_program_without_the_token_sends_no_body(method: str) -> None:
    async with host_of() as host:
        chunked = ask("/", "myapp", "Transfer-Encoding: chunked", method=method) + b"1\r\na\r\n0\r\n\r\n"
        for head in (ask("/", method=method, body=b"x"), chunked):
            answer = await one(host, head)
            assert answer.status == 403
            if method == "GET":
                assert b"needs the token" in answer.body
        assert (await one(host, ask("/", "myapp", "Content-Length: 0"))).status == 200
        for target, extra in ((Peer.with_token(host), ()), ("/", (origin(host),))):
            assert (await one(host, ask(target, "myapp", *extra, body=b"x"))).status == 200


async def test_a_body_that_does_not_come_is_408() -> None:
    security, timeouts = Security(allow_no_origin=True), Timeouts(answer=0.05)
    async with host_of(security=security, timeouts=timeouts) as host:
        assert (await one(host, ask("/", "myapp", "Content-Length: 1", method="POST"))).status == 408


@pytest.mark.parametrize(
    "extra",
    [
        ("Content-Length: x",),
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: 1, 1",),
        ("Content-Length: +1",),
        ("Content-Length: " + "9" * 30,),
        ("Transfer-Encoding: gzip",),
    ],
)
async def test_malformed(extra: tuple[str, ...]) -> None:
    async with host_of(security=Security(allow_no_origin=True)) as host:
        assert (await one(host, ask("/", "myapp", *extra, method="POST"))).status in (400, 501)


@pytest.mark.parametrize("fields", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["myapp", "{own}"])
async def test_a_body_of_two_lengths_is_refused_and_the_connection_ends(
    fields: tuple[int, int], name: str
) -> None:
    """A proxy before the host may end the request elsewhere, and take the rest for somebody else's."""
    both = ("Content-Length: 4", "Transfer-Encoding: chunked")
    async with host_of() as host:
        name = name.format(own=Peer.authority(host))
        for method in ("GET", "POST"):
            async with Peer.connect(host) as peer:
                head = ask("/", name, *(both[field] for field in fields), origin(host), method=method)
                answer = await peer.ask(head + b"0\r\n\r\n" + ask("/smuggled"))
                assert (answer.status, answer.headers["connection"]) == (400, "close")
                assert await peer.rest() == b""


async def test_http_1_0_is_refused() -> None:
    async with host_of() as host:
        assert (await one(host, ask().replace(b"HTTP/1.1", b"HTTP/1.0"))).status == 505


async def test_a_client_that_leaves_is_nobodys_failure(lines: list[Line]) -> None:
    host, begun = Host(ROWS, root="myapp"), asyncio.Event()
    go = asyncio.Event()

    @host.on("HTTPRequest")
    async def answer(event: HTTPRequest) -> HTTPRequest:
        begun.set()
        await go.wait()
        return event.respond("x" * 10_000_000)

    async with host:
        async with Peer.connect(host) as peer:
            await peer.send(ask("/"))
            async with asyncio.timeout(PATIENCE):
                await begun.wait()
        go.set()
        async with Peer.connect(host) as peer:
            await peer.send(ask("/", "myapp", "Content-Length: 9", method="POST"))
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_stop_with_a_request_under_way_leaves_nothing(lines: list[Line]) -> None:
    host, begun = Host(ROWS, root="myapp", timeouts=Timeouts(close=0.1)), asyncio.Event()

    @host.on("HTTPRequest")
    async def never(event: HTTPRequest) -> None:
        begun.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    await host.start()
    async with Peer.connect(host) as peer, Peer.connect(host) as idle:
        await idle.send(ask("/", "gate", "Content-Length: 9", "Origin: http://gate", method="POST"))
        await peer.send(ask("/"))
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            await host.stop()
    await until(lambda: asyncio.all_tasks() == before)
    assert not [line for line in lines if line["log_level"] == "error"]


# In dq()


async def test_dq_answers_and_gives_out_what_has_no_callback() -> None:
    host = Host(ROWS, root="myapp")
    with host.in_thread(dq=True):
        asked = asyncio.create_task(one(host, ask("/a")))
        event = await asyncio.to_thread(host.dq, PATIENCE)
        assert isinstance(event, HTTPRequest)
        assert (await asked).status == 404
        host.on("HTTPRequest")(lambda event: event.respond("by dq"))
        asked = asyncio.create_task(one(host, ask("/b")))
        while not asked.done():
            assert await asyncio.to_thread(host.dq, 0.01) is None
        assert asked.result().body == b"by dq"


async def test_a_body_that_is_a_dict_is_told_of_json(lines: list[Line]) -> None:
    wrong: Any = {"a": 1}
    host = Host(ROWS, root="myapp")
    host.on("HTTPRequest")(lambda event: event.respond(wrong))
    async with host:
        assert (await one(host, ask("/"))).status == 500
    assert any("not dict; for JSON write event.respond(json.dumps(value)" in str(line) for line in lines)
