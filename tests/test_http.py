"""HTTPRequest over real TCP: which requests come to the program, and what its answers become on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from interceptor import Host, HTTPRequest, Security, WebSocketUpgrade

from .asked import ROWS, ask, get, host_of, one
from .peer import PATIENCE, Peer, Recorder
from .proxied import begin_tls, trusting, tunnel
from .wire import BOTH_LOOPS, HEAD, Line, switched
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = BOTH_LOOPS


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
    (lambda e: ("x", 404), "tuple is read as an event message: 404 is no event"),
    (lambda e: ("x", 404), "return event.respond(body, status)"),
    (lambda e: UPGRADE, "returned WebSocketUpgrade"),
    (lambda e: ["h", 841, "0" * 15, "u", "", "auto"], "not of HTTPRequest"),
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


async def test_a_body_that_is_a_dict_is_told_of_json(lines: list[Line]) -> None:
    wrong: Any = {"a": 1}
    host = Host(ROWS, root="myapp")
    host.on("HTTPRequest")(lambda event: event.respond(wrong))
    async with host:
        assert (await one(host, ask("/"))).status == 500
    assert any("not dict; for JSON write event.respond(json.dumps(value)" in str(line) for line in lines)


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


async def test_a_forgotten_return_is_404_and_says_what_to_do(lines: list[Line]) -> None:
    host = Host(ROWS, root="myapp")

    @host.on("HTTPRequest")
    def forget(event: HTTPRequest) -> None:
        event.respond("hi")

    async with host:
        assert (await one(host, ask("/"))).status == 404
        (line,) = [line for line in lines if line["log_level"] == "warning"]
        assert line["event"] == "no callback for HTTPRequest returned an answer"
        assert line["url"] == "http://myapp/"
        assert line["remedy"] == "return event.respond(...), or the event itself where 404 is meant"
        lines.clear()
        for answer, status in ((lambda event: event, 404), (lambda event: event.respond("hi"), 200)):
            host.on("HTTPRequest")(answer)
            assert (await one(host, ask("/"))).status == status
            host.off("HTTPRequest", answer)
    assert [line for line in lines if line["log_level"] == "warning"] == []


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
