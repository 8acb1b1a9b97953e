"""The direct way in: which URL a request means, which rule decides, and every refusal with its status."""

from __future__ import annotations

import re

import pytest

from interceptor import (
    Host,
    InvalidArgument,
    InvalidRule,
    Mode,
    Rule,
    Session,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.patterns import Row

from .peer import TEXT, Peer, Recorder, close_frame, frame, request
from .wire import ANYONE, HEAD, Line, error_of, make_host, opened, switched
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

TABLE = [
    ("ws://myapp/none/*", 0),
    ("*://myapp/*", 1),
    ("ws://gate/*", 1),
    ("ws://a.shop.test:81/*", 1),
    ("wss://safe/*", 1),
    ("ws://[::2]/*", 1),
    ("ws://bücher.test/*", 1),
]


async def upgrade(host: Host, head: bytes) -> WebSocketUpgrade:
    """The event of a request that is accepted."""
    seen = Recorder(host)
    async with Peer.connect(host) as peer:
        await peer.send(head)
        await switched(peer)
        event = await seen.wait_for(WebSocketUpgrade)
        await peer.send(close_frame())
        assert await peer.close_code() == 1000
    for kind in ("HTTPRequest", "WebSocketUpgrade", "WebSocketReceive", "WebSocketClose", "WebSocketError"):
        host.off(kind)
    return event


# Which URL is meant

MEANT = [
    ("{own}", "/", "ws://myapp/"),
    ("{own}", "/chat?a=1&b=2", "ws://myapp/chat?a=1&b=2"),
    ("localhost:{port}", "/chat", "ws://myapp/chat"),
    ("LocalHost:{port}", "/chat", "ws://myapp/chat"),
    ("[::1]:{port}", "/chat", "ws://myapp/chat"),
    ("127.1:{port}", "/chat", "ws://myapp/chat"),
    ("myapp:{port}", "/chat", "ws://myapp/chat"),
    ("myapp", "/chat", "ws://myapp/chat"),
    ("MyApp:80", "/chat", "ws://myapp/chat"),
    ("gate", "/in", "ws://gate/in"),
    ("a.shop.test:81", "/in", "ws://a.shop.test:81/in"),
    ("[0:0::2]", "/in", "ws://[::2]/in"),
    ("xn--bcher-kva.test", "/in", "ws://xn--bcher-kva.test/in"),
    ("gate", "/a/../b/./c%20d", "ws://gate/b/c%20d"),
    ("gate", "//other/in", "ws://gate//other/in"),
    ("gate", "/in?", "ws://gate/in?"),
    ("gate", "/In?Q=%C3%A9", "ws://gate/In?Q=%C3%A9"),
    ("gate", "/in?token=of-the-page", "ws://gate/in?token=of-the-page"),
    ("gate", "/in?next=ws://none/", "ws://gate/in?next=ws://none/"),
    # Absolute form: the target counts, and Host does not.
    ("other", "ws://gate/in", "ws://gate/in"),
    ("other", "WS://Gate:80/in", "ws://gate/in"),
    ("other", "http://gate/in", "ws://gate/in"),
    ("other", "ws://gate", "ws://gate/"),
    ("other", "wss://safe:443/in", "wss://safe/in"),
    ("other", "https://safe/in", "wss://safe/in"),
    ("other", "ws://{own}/chat", "ws://myapp/chat"),
    ("other", "wss://localhost:{port}/chat", "wss://myapp/chat"),
]


@pytest.mark.parametrize(("name", "target", "url"), MEANT)
async def test_url(name: str, target: str, url: str) -> None:
    async with Host(TABLE, root="myapp", security=ANYONE) as host:
        own, port = Peer.authority(host), host.address[1]
        name, target = (text.format(own=own, port=port) for text in (name, target))
        head = request(target, name)
        event = await upgrade(host, head)
        assert event.url == url
        assert event.headers == head.decode("latin-1")


TOKENS = [
    ("/chat?token={token}", "/chat", "ws://myapp/chat"),
    ("/chat?token={token}&a=1", "/chat?a=1", "ws://myapp/chat?a=1"),
    ("/chat?a=1&token={token}&b=2", "/chat?a=1&b=2", "ws://myapp/chat?a=1&b=2"),
    ("/chat?token=mine&token={token}", "/chat?token=mine", "ws://myapp/chat?token=mine"),
    ("/.interceptor/ws/gate/in?token={token}", "/.interceptor/ws/gate/in", "ws://gate/in"),
    ("/.interceptor/ws/gate/in?a&token={token}", "/.interceptor/ws/gate/in?a", "ws://gate/in?a"),
    ("/.interceptor/wss/safe/?token={token}", "/.interceptor/wss/safe/", "wss://safe/"),
    ("/.interceptor/https/safe?token={token}", "/.interceptor/https/safe", "wss://safe/"),
    ("/.interceptor/ws/a.shop.test:81/x?token={token}", "/.interceptor/ws/a.shop.test:81/x", None),
    ("/.interceptor/ws/gate/../../x?token={token}", "/.interceptor/ws/gate/../../x", "ws://gate/x"),
]


@pytest.mark.parametrize(("target", "without", "url"), TOKENS)
async def test_token_is_taken_out_of_the_url(target: str, without: str, url: str | None) -> None:
    async with Host(TABLE, root="myapp") as host:
        token = host.ws_url().partition("=")[2]
        own = Peer.authority(host)
        event = await upgrade(host, request(target.format(token=token), own))
        assert event.url == (url or "ws://a.shop.test:81/x")
        assert event.headers == request(without, own).decode("latin-1")
        assert token not in event.model_dump_json()


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/", "ws://myapp/"),
        ("/chat?x=1", "ws://myapp/chat?x=1"),
        ("ws://gate/in?q=1", "ws://gate/in?q=1"),
        ("wss://safe/in", "wss://safe/in"),
        ("ws://myapp/chat", "ws://myapp/chat"),
        ("ws://bücher.test/é", "ws://xn--bcher-kva.test/%C3%A9"),
    ],
)
async def test_ws_url_leads_to_the_url(target: str, url: str) -> None:
    async with Host(TABLE, root="myapp") as host:
        _, _, authority, path = host.ws_url(target).split("/", 3)
        assert authority == Peer.authority(host)
        assert (await upgrade(host, request(f"/{path}", authority))).url == url


@pytest.mark.parametrize(
    ("root", "url"),
    [
        ("dyalog_root", "ws://dyalog_root/chat"),
        ("MyApp", "ws://myapp/chat"),
        ("a.b-c.test", "ws://a.b-c.test/chat"),
        ("bücher.test", "ws://xn--bcher-kva.test/chat"),
    ],
)
async def test_root_stands_for_the_own_address(root: str, url: str) -> None:
    async with Host(root=root, security=ANYONE) as host:
        assert (await upgrade(host, request("/chat", Peer.authority(host)))).url == url
        assert (await upgrade(host, request("/chat", url.split("/")[2]))).url == url


@pytest.mark.parametrize("root", ["myapp:80", "myapp:8080", "ws://myapp", "my app", ""])
async def test_root_is_a_name_and_nothing_else(root: str) -> None:
    with pytest.raises(InvalidArgument, match="root"):
        Host(root=root)


# Which rule decides


async def test_first_row_wins() -> None:
    rows = [Rule("ws://myapp/a*", subprotocols=["first"]), Rule("ws://myapp/*", subprotocols=["second"])]
    async with Host(rows, root="myapp", security=ANYONE, subprotocols=["third"]) as host:
        for target, chosen in (("/a", "first"), ("/b", "second")):
            async with Peer.connect(host) as peer:
                asked = "Sec-WebSocket-Protocol: third, second, first\r\n"
                answer = await peer.ask(request(target, "myapp", extra=asked))
                assert answer.headers["sec-websocket-protocol"] == chosen


async def test_pass_row_hides_what_follows() -> None:
    async with make_host() as host:
        host.intercepted_urls = [("ws://myapp/none*", 0), ("*", 1)]
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/none", "myapp"))).status == 404
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/some", "myapp"))).status == 101


async def test_rules_can_be_replaced_while_sockets_are_open() -> None:
    async with make_host() as host:
        seen = Recorder(host)
        async with opened(host) as peer:
            id = (await seen.wait_for(WebSocketUpgrade)).id
            host.intercepted_urls = [("ws://elsewhere/*", 1), ("ws://myapp/new", Mode.MANUAL)]
            assert [rule.pattern for rule in host.intercepted_urls] == ["ws://elsewhere/*", "ws://myapp/new"]
            async with Peer.connect(host) as late:
                assert (await late.ask(HEAD)).status == 404
            async with opened(host, request("/", "elsewhere")):
                pass
            async with Peer.connect(host) as asking:
                await asking.send(request("/new", "myapp"))
                assert (await seen.wait_for(WebSocketUpgrade, 3)).type == "manual"
            await peer.send(frame(TEXT, "still here"))
            assert (await seen.wait_for(WebSocketReceive)).id == id
            host.WebSocketSend(id, "so am I")
            assert (await peer.frame()).payload == b"so am I"


async def test_rows_that_cannot_be_used_leave_the_table_as_it_is() -> None:
    async with make_host() as host:
        before = host.intercepted_urls
        with pytest.raises(InvalidRule, match="row 1"):
            host.intercepted_urls = [("*", 1), ("ftp://x/", 1)]
        assert host.intercepted_urls == before
        async with opened(host):
            pass


async def test_empty_table_is_the_root() -> None:
    async with make_host() as host:
        host.intercepted_urls = []
        async with opened(host):
            pass
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/", "gate"))).status == 421


async def test_routes_come_first_and_survive_another_table() -> None:
    async with make_host() as host:

        async def greet(socket: Session) -> None:
            await socket.send(f"hello {socket.url}")

        for rows in (None, [("ws://myapp/chat", 0)], [("ws://myapp/chat", 2)]):
            if rows is None:
                host.route("ws://myapp/chat")(greet)
            else:
                host.intercepted_urls = rows
            async with opened(host) as peer:
                assert (await peer.frame()).payload == b"hello ws://myapp/chat"
                assert await peer.close_code() == 1000
        assert len(host.intercepted_urls) == 1


async def test_first_route_wins() -> None:
    async with make_host() as host:

        @host.route("ws://myapp/chat")
        async def first(socket: Session) -> None:
            await socket.send("first")

        @host.route("ws://myapp/*")
        async def second(socket: Session) -> None:
            await socket.send("second")

        for head, said in ((HEAD, b"first"), (request("/manual", "myapp"), b"second")):
            async with opened(host, head) as peer:
                assert (await peer.frame()).payload == said


async def test_patterns_that_are_no_strings() -> None:
    rows: list[Row] = [(re.compile(r"ws://[a-z]+/re/\d+"), 1), (lambda url: url.endswith("/callable"), 1)]
    async with Host(rows, root="myapp", security=ANYONE) as host:
        for target, status in (("/re/12", 101), ("/re/12/", 404), ("/callable", 101), ("/call", 404)):
            async with Peer.connect(host) as peer:
                assert (await peer.ask(request(target, "anything"))).status == status


async def test_pattern_that_raises_is_the_programs_fault(lines: list[Line]) -> None:
    def broken(url: str) -> bool:
        if "bad" in url:
            raise RuntimeError("no such table")
        return True

    async with Host([(broken, 1)], root="myapp", security=ANYONE) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/bad", "myapp"))).status == 500
        assert seen.events == []
        async with opened(host):
            pass
    assert [line["log_level"] for line in lines].count("error") == 1


# Refusals: no rule had matched, so no event

KEYLESS = request("/chat", "myapp", without=("Sec-WebSocket-Key",))
NO_RULE = [
    ("no request line", b"nonsense\r\n\r\n", 400, "the request line is not"),
    ("two blanks", HEAD.replace(b"GET ", b"GET  ", 1), 400, "the request line is not"),
    ("HTTP/1", HEAD.replace(b"HTTP/1.1", b"HTTP/1"), 400, "the request line is not"),
    ("target not ASCII", HEAD.replace(b"/chat", b"/ch\xe4t"), 400, "the request line is not"),
    ("lone LF", HEAD.replace(b"\r\nUpgrade", b"\nUpgrade"), 400, "lone LF"),
    ("all LF", HEAD.replace(b"\r\n", b"\n"), 400, "lone LF"),
    ("no colon", HEAD.replace(b"Upgrade: ", b"Upgrade "), 400, "a header line is not"),
    ("blank before the colon", HEAD.replace(b"Upgrade: ", b"Upgrade : "), 400, "a header line is not"),
    ("folded", HEAD.replace(b"\r\nUpgrade", b"\r\n Upgrade"), 400, "a header line is not"),
    ("no name", HEAD.replace(b"Upgrade: ", b": "), 400, "a header line is not"),
    ("NUL", HEAD.replace(b"websocket", b"web\x00socket"), 400, "control characters"),
    ("lone CR", HEAD.replace(b"websocket", b"web\rsocket"), 400, "control characters"),
    ("no Host", request("/chat", without=("Host",)), 400, "0 Host fields"),
    ("two Hosts", request("/chat", "myapp", extra="Host: myapp\r\n"), 400, "2 Host fields"),
    ("empty Host", request("/chat", ""), 400, "host"),
    ("Host with a path", request("/chat", "myapp/x"), 400, "Host field"),
    ("Host with a user", request("/chat", "a@myapp"), 400, "Host field"),
    ("Host with a query", request("/chat", "myapp?"), 400, "Host field"),
    ("Host with a bad port", request("/chat", "myapp:99999"), 400, "no valid host"),
    ("Host with a blank", request("/chat", "my app"), 400, "no valid host"),
    ("target is no path", request("chat", "myapp"), 400, "the request target is neither"),
    ("asterisk", request("*", "myapp", method="OPTIONS"), 400, "the request target is neither"),
    ("another scheme", request("ftp://myapp/", "myapp"), 400, "the request target is neither"),
    ("absolute without a host", request("ws:///chat", "myapp"), 400, "host"),
    ("absolute with a user", request("ws://a@myapp/", "myapp"), 400, "Host field"),
    ("spelled out, no host", request("/.interceptor/ws", "myapp"), 400, "scheme/host/path"),
    ("spelled out, no scheme", request("/.interceptor/x/gate/", "myapp"), 400, "scheme/host/path"),
    ("spelled out, no host name", request("/.interceptor/ws//gate/", "myapp"), 400, "scheme/host/path"),
    (
        "spelled out, bad host",
        request("/.interceptor/ws/a b/".replace(" ", "%20"), "myapp"),
        400,
        "valid host",
    ),
    ("no rule", request("/", "[::2]:99"), 421, "no rule has it"),
    ("PASS rule", request("/none/x", "myapp"), 404, "no rule of this host intercepts this URL"),
    ("no rule for the path", request("/", "only"), 404, "no rule of this host intercepts this URL"),
    ("no rule for the scheme", request("/", "safe"), 404, "no rule of this host intercepts this URL"),
    ("no rule for what is spelled out", request("/.interceptor/ws/x/", "myapp"), 404, "no rule of this host"),
    ("name that no rule has", request("/chat", "rebound.evil"), 421, "no rule has it"),
    ("own name, another port", request("/chat", "127.0.0.1:1"), 421, "no rule has it"),
    ("own name without port", request("/chat", "127.0.0.1"), 421, "no rule has it"),
    ("absolute, no rule has it", request("ws://rebound.evil/", "myapp"), 421, "names another host"),
    ("spelled out to a name", request("/.interceptor/ws/gate/", "rebound.evil"), 421, "no rule has it"),
]


@pytest.mark.parametrize(("head", "status", "text"), [n[1:] for n in NO_RULE], ids=[n[0] for n in NO_RULE])
async def test_refusal_without_event(head: bytes, status: int, text: str) -> None:
    async with Host([*TABLE, ("ws://only/one", 1)], root="myapp", security=ANYONE) as host:
        seen = Recorder(host)
        async with Peer.connect(host) as peer:
            answer = await peer.ask(head)
            assert answer.status == status
            assert text in answer.body.decode()
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["connection"] == "close"
            assert await peer.rest() == b""
    assert seen.events == []


# Refusals after a rule had matched: one WebSocketError, and no callback was asked


def changed(old: str, new: str) -> bytes:
    """The usual head with something replaced."""
    assert old.encode() in HEAD
    return HEAD.replace(old.encode(), new.encode())


def extra(fields: str) -> bytes:
    """The usual head with more fields."""
    return request("/chat", "myapp", extra=f"{fields}\r\n")


MATCHED = [
    ("no key", KEYLESS, 400, "Sec-WebSocket-Key needs to be 16 bytes in base64"),
    ("short key", changed("IHNh", ""), 400, "Sec-WebSocket-Key"),
    ("key not base64", changed("IHNh", "IHN-"), 400, "Sec-WebSocket-Key"),
    (
        "two keys",
        extra("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        400,
        "more than one sec-websocket-key",
    ),
    ("two versions", extra("Sec-WebSocket-Version: 13"), 400, "more than one sec-websocket-version"),
    ("two origins", extra("Origin: http://a\r\nOrigin: http://a"), 400, "more than one origin"),
    (
        "Connection without Upgrade",
        changed("Connection: Upgrade", "Connection: close"),
        400,
        "Connection: Upgrade",
    ),
    ("no Connection", request("/chat", "myapp", without=("Connection",)), 400, "Connection: Upgrade"),
    ("malformed Upgrade", changed("Upgrade: websocket", "Upgrade: a b"), 400, "Upgrade field is malformed"),
    (
        "malformed Connection",
        changed("Connection: Upgrade", "Connection: (;"),
        400,
        "Connection field is malformed",
    ),
    ("malformed subprotocol", extra("Sec-WebSocket-Protocol: a b"), 400, "Sec-WebSocket-Protocol field"),
    ("subprotocol twice", extra("Sec-WebSocket-Protocol: a, b, a"), 400, "names a subprotocol twice"),
    ("malformed extension", extra("Sec-WebSocket-Extensions: ;"), 400, "Sec-WebSocket-Extensions field"),
    ("body", extra("Content-Length: 5"), 400, "no body"),
    ("chunked body", extra("Transfer-Encoding: chunked"), 501, "no body"),
    ("POST", request("/chat", "myapp", method="POST"), 405, "opened with GET"),
    ("HEAD", request("/chat", "myapp", method="HEAD"), 405, "opened with GET"),
    ("unknown method", request("/chat", "myapp", method="BREW"), 501, "does not know the request method"),
    ("get", request("/chat", "myapp", method="get"), 501, "does not know the request method"),
    ("HTTP/1.0", request("/chat", "myapp", version="HTTP/1.0"), 505, "HTTP/1.1 only"),
    ("HTTP/2.0", request("/chat", "myapp", version="HTTP/2.0"), 505, "HTTP/1.1 only"),
    ("no Upgrade", request("/chat", "myapp", without=("Upgrade", "Connection")), 426, "new WebSocket("),
    ("Upgrade to another", changed("Upgrade: websocket", "Upgrade: h2c"), 426, "Upgrade: websocket"),
    ("version 8", changed("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version: 13"),
    (
        "no version",
        request("/chat", "myapp", without=("Sec-WebSocket-Version",)),
        426,
        "Sec-WebSocket-Version: 13",
    ),
    ("foreign origin", request("/chat", "myapp", origin="http://evil.test"), 403, "Security(origins="),
]


@pytest.mark.parametrize("path", ["/chat", "/manual"])
@pytest.mark.parametrize(("head", "status", "text"), [m[1:] for m in MATCHED], ids=[m[0] for m in MATCHED])
async def test_refusal_with_one_error(
    head: bytes, status: int, text: str, path: str, lines: list[Line]
) -> None:
    host = make_host()
    seen = Recorder(host)
    host.on("WebSocketUpgrade")(lambda event: event.accept())
    async with host, Peer.connect(host) as peer:
        answer = await peer.ask(head.replace(b"/chat", path.encode(), 1))
        assert answer.status == status
        assert text in answer.body.decode()
        assert await peer.rest() == b""
    assert seen.names() == ["WebSocketError"]
    assert error_of(seen) == answer.body.decode().removesuffix("\n")
    (line,) = [line for line in lines if line["log_level"] in ("warning", "error")]
    assert (line["status"], line["why"]) == (status, error_of(seen))
    assert (line["id"], line["url"]) == (seen.of(WebSocketError)[0].id, f"ws://myapp{path}")


async def test_426_and_405_say_what_would_do() -> None:
    async with make_host() as host:
        async with Peer.connect(host) as peer:
            answer = await peer.ask(changed("Version: 13", "Version: 8"))
            assert answer.headers["sec-websocket-version"] == "13"
        async with Peer.connect(host) as peer:
            answer = await peer.ask(b"GET /chat HTTP/1.1\r\nHost: myapp\r\n\r\n")
            assert answer.status == 426
            assert answer.headers["upgrade"] == "websocket"
            assert answer.headers["connection"] == "Upgrade"
            assert answer.headers["sec-websocket-version"] == "13"
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/chat", "myapp", method="PUT"))).headers["allow"] == "GET"


TAKEN = [
    changed("Upgrade: websocket", "upgrade: h2c, WebSocket"),
    changed("Connection: Upgrade", "CONNECTION: keep-alive, upgrade"),
    changed("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
    changed("Sec-WebSocket-Key: ", "sec-websocket-KEY:\t  "),
    extra("Content-Length: 0"),
    extra("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b"),
    extra("Sec-WebSocket-Extensions: x-unknown; a=1, permessage-deflate; server_max_window_bits=99"),
    extra("X-Latin: \xe9\xff"),
    extra("X-Empty:"),
]


@pytest.mark.parametrize("head", TAKEN)
async def test_unusual_but_right_requests_are_taken(head: bytes) -> None:
    async with make_host() as host:
        await upgrade(host, head)


# What an automatic handshake agrees to


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("b, a", "a"),
        ("c", "c"),
        ("c, b", "b"),
        ("x", None),
        ("A", None),
    ],
)
async def test_subprotocol_of_an_automatic_handshake(asked: str, chosen: str | None) -> None:
    rows = [Rule("ws://myapp/*", subprotocols=["a", "b"])]
    host = Host(rows, root="myapp", subprotocols=["c"], security=ANYONE)
    async with host, Peer.connect(host) as peer:
        head = request("/", "myapp", extra=f"Sec-WebSocket-Protocol: {asked}\r\n")
        assert (await peer.ask(head)).headers.get("sec-websocket-protocol") == chosen
        ((_, socket),) = host.sockets.items()
        assert socket.subprotocol == chosen


async def test_compression_only_where_both_can() -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    head = request("/", "myapp", extra=offer)
    for compression in (True, False):
        host = Host(root="myapp", compression=compression, security=ANYONE)
        async with host, Peer.connect(host) as peer:
            answer = await peer.ask(head)
            assert ("sec-websocket-extensions" in answer.headers) is compression
            ((_, socket),) = host.sockets.items()
            assert socket.extensions == answer.headers.get("sec-websocket-extensions", "")
