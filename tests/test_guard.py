"""Who may come in: Origin, token and Host over the wire, refused before the program is asked."""

from __future__ import annotations

import socket

import pytest

from interceptor import (
    Host,
    InvalidArgument,
    Security,
    WebSocketClose,
    WebSocketError,
    WebSocketUpgrade,
)

from .peer import ACCEPT, Answer, Peer, Recorder, close_frame, request
from .wire import Line, error_of, needs_ipv6
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

TABLE = [("*://myapp/*", 1), ("ws://gate/*", 1), ("ws://*.apps.test:81/*", 1), ("wss://safe/*", 1), ("*", 1)]
TOKEN = "0123456789-abcdef_.~"


async def ask(
    host: Host, target: str = "/", name: str = "{own}", origin: str = "", extra: str = ""
) -> Answer:
    """Ask a host; `{own}`, `{port}` and `{token}` stand for what they are."""
    words = {"own": Peer.authority(host), "port": host.address[1], "token": TOKEN}
    target, name, origin, extra = (text.format(**words) for text in (target, name, origin, extra))
    async with Peer.connect(host) as peer:
        answer = await peer.ask(request(target, name, origin=origin or None, extra=extra))
        if answer.status == 101:
            await peer.send(close_frame())
            assert await peer.close_code() == 1000
        else:
            assert await peer.rest() == b""
    return answer


async def judged(
    security: Security, target: str = "/", name: str = "{own}", origin: str = "", extra: str = ""
) -> str:
    """Ask a host of this security; empty if it opened the socket, else what the only event said."""
    host = Host(TABLE, root="myapp", security=security)
    seen = Recorder(host)
    async with host:
        answer = await ask(host, target, name, origin, extra)
    if answer.status == 101:
        assert seen.names() == ["WebSocketUpgrade", "WebSocketClose"]
        return ""
    assert answer.status == 403
    assert seen.names() == ["WebSocketError"]
    assert error_of(seen) == answer.body.decode().removesuffix("\n")
    return error_of(seen)


def secure(*origins: str, allow_no_origin: bool = False) -> Security:
    """A security with a token that the tests know."""
    return Security(origins=origins, allow_no_origin=allow_no_origin, token=TOKEN)


# Origin

ALLOWED = [
    ("own address", "{own}", "http://{own}", ()),
    ("own address by name", "{own}", "http://localhost:{port}", ()),
    ("the root", "{own}", "http://myapp", ()),
    ("the root with the port", "myapp", "http://myapp:{port}", ()),
    ("own address, for another name", "gate", "http://{own}", ()),
    ("origin of the URL", "gate", "http://gate", ()),
    ("origin of the URL, by a wildcard nobody can own", "a.apps.test:81", "http://a.apps.test:81", ()),
    ("listed", "{own}", "https://app.example", ("https://app.example",)),
    ("listed with a port", "{own}", "http://127.0.0.1:8000", ("http://127.0.0.1:8000",)),
    ("listed in capitals", "{own}", "https://app.example", ("HTTPS://App.Example",)),
    ("listed, for a name of a wildcard", "anything", "https://app.example", ("https://app.example",)),
    ("null is listed", "{own}", "null", ("null",)),
    ("all are listed", "{own}", "https://evil.test", ("*",)),
    ("all are listed, null too", "{own}", "null", ("*",)),
]


@pytest.mark.parametrize(("name", "origin", "origins"), [a[1:] for a in ALLOWED], ids=[a[0] for a in ALLOWED])
async def test_origin_that_may_connect(name: str, origin: str, origins: tuple[str, ...]) -> None:
    assert await judged(secure(*origins), "/", name, origin) == ""


FOREIGN = [
    ("foreign", "{own}", "https://evil.test", ()),
    ("another port of this machine", "{own}", "http://127.0.0.1:1", ()),
    ("own address without a port", "{own}", "http://127.0.0.1", ()),
    ("own address by https", "{own}", "https://{own}", ()),
    ("own address as the start of a name", "{own}", "http://{own}.evil.test", ()),
    ("root as the end of a name", "{own}", "http://evil-myapp", ()),
    ("null", "{own}", "null", ()),
    ("origin of another URL", "{own}", "http://gate", ()),
    ("origin of the URL, by https", "gate", "https://gate", ()),
    ("origin of the URL, another port", "gate", "http://gate:8080", ()),
    ("a name that only a wildcard covers", "rebound.evil", "http://rebound.evil", ()),
    ("part of a listed one", "{own}", "https://app.example.evil.test", ("https://app.example",)),
    ("listed with another scheme", "{own}", "http://app.example", ("https://app.example",)),
    ("listed without the port", "{own}", "http://127.0.0.1:8001", ("http://127.0.0.1:8000",)),
    ("null is not all", "{own}", "https://evil.test", ("null",)),
    ("a list in Origin", "{own}", "http://{own} http://evil.test", ()),
]


@pytest.mark.parametrize(("name", "origin", "origins"), [f[1:] for f in FOREIGN], ids=[f[0] for f in FOREIGN])
@pytest.mark.parametrize("allow_no_origin", [False, True])
async def test_origin_that_may_not_connect(
    name: str, origin: str, origins: tuple[str, ...], allow_no_origin: bool
) -> None:
    text = await judged(secure(*origins, allow_no_origin=allow_no_origin), "/", name, origin)
    assert "may not connect" in text
    assert "set Security(origins=[" in text


@needs_ipv6
@pytest.mark.parametrize(("listen", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_no_other_program_can_be_at_localhost(listen: str, other: str) -> None:
    """Else its pages would be taken for the host's own."""
    async with Host(root="myapp", listen=(listen, 0)) as host:
        port = host.address[1]
        with pytest.raises(OSError, match="attempting to bind"):
            taking(other, port)
        name = f"localhost:{port}"
        async with Peer.connect(host) as peer:
            assert (await peer.ask(request("/", name, origin=f"http://{name}"))).status == 101
    taking(other, port).close()


@needs_ipv6
@pytest.mark.parametrize(("listen", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_where_another_program_is_at_localhost_its_pages_are_foreign(
    listen: str, other: str, lines: list[Line]
) -> None:
    with taking(other, 0) as taken:
        port = taken.getsockname()[1]
        async with Host(root="myapp", listen=(listen, port)) as host:
            for name in (f"localhost:{port}", f"[::1]:{port}" if ":" in other else f"{other}:{port}"):
                async with Peer.connect(host) as peer:
                    assert (await peer.ask(request("/", name, origin=f"http://{name}"))).status == 403
    (line,) = [line for line in lines if line["event"].startswith("another program has the port")]
    assert (line["address"], line["port"]) == (other, port)


def taking(host: str, port: int) -> socket.socket:
    """Listen as another program."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


async def test_empty_origin_is_foreign() -> None:
    assert "may not connect" in await judged(secure(), extra="Origin:\r\n")


async def test_origin_of_a_wss_url() -> None:
    assert await judged(secure(), "wss://safe/in", "x", "https://safe") == ""
    assert "may not connect" in await judged(secure(), "wss://safe/in", "x", "http://safe")


async def test_remedy_in_the_error_is_one_that_works() -> None:
    origin = "https://page.example:8443"
    text = await judged(secure(), origin=origin)
    assert f"Security(origins=['{origin}'])" in text
    assert await judged(Security(origins=[origin]), origin=origin) == ""


# No Origin, and the token

HOLDERS = [
    ("query", "/?token={token}", ""),
    ("query among others", "/?a=1&token={token}&b", ""),
    ("cookie", "/", "Cookie: a=1; interceptor_token={token}; b=2\r\n"),
    ("second Cookie field", "/", "Cookie: a=1\r\nCookie: interceptor_token={token}\r\n"),
    ("cookie after one that is odd", "/", 'Cookie: a={{"x": [1]}}; interceptor_token={token}\r\n'),
    ("subprotocol", "/", "Sec-WebSocket-Protocol: interceptor.token.{token}\r\n"),
    ("subprotocol among others", "/", "Sec-WebSocket-Protocol: chat, interceptor.token.{token}\r\n"),
]


@pytest.mark.parametrize(("target", "extra"), [h[1:] for h in HOLDERS], ids=[h[0] for h in HOLDERS])
async def test_program_with_the_token(target: str, extra: str) -> None:
    assert await judged(secure(), target, extra=extra) == ""


STRANGERS = [
    ("nothing", "/", ""),
    ("empty query", "/?token=", ""),
    ("wrong query", "/?token=0123456789-abcdef_.-", ""),
    ("token as a start", "/?token={token}x", ""),
    ("start of the token", "/?token=0123456789", ""),
    ("capitals", "/?token=0123456789-ABCDEF_.~", ""),
    ("another parameter", "/?Token={token}", ""),
    ("token in the path", "/token={token}", ""),
    ("wrong cookie", "/", "Cookie: interceptor_token=0123456789-abcdef_.-\r\n"),
    ("empty cookie", "/", "Cookie: interceptor_token=\r\n"),
    ("another cookie", "/", "Cookie: token={token}\r\n"),
    ("not ASCII", "/", "Cookie: interceptor_token=\xff\xfe\r\n"),
    ("wrong subprotocol", "/", "Sec-WebSocket-Protocol: interceptor.token.0123456789-abcdef_.-\r\n"),
    ("empty subprotocol", "/", "Sec-WebSocket-Protocol: interceptor.token.\r\n"),
    ("another field", "/", "Authorization: Bearer {token}\r\n"),
]


@pytest.mark.parametrize(("target", "extra"), [s[1:] for s in STRANGERS], ids=[s[0] for s in STRANGERS])
async def test_program_without_the_token(target: str, extra: str) -> None:
    text = await judged(secure(), target, extra=extra)
    assert "needs the token" in text
    assert "host.ws_url(...)" in text
    assert "Security(allow_no_origin=True)" in text


async def test_programs_can_be_let_in_without_the_token() -> None:
    assert await judged(secure(allow_no_origin=True)) == ""
    assert "needs the token" in await judged(secure("*"))


async def test_token_does_not_let_a_foreign_page_in() -> None:
    assert "may not connect" in await judged(secure(), "/?token={token}", origin="https://evil.test")


async def test_token_lets_in_the_page_of_a_name_that_only_a_wildcard_covers() -> None:
    assert await judged(secure(), "/?token={token}", "some.name", "http://some.name") == ""


async def test_each_host_has_a_token_of_its_own() -> None:
    async with Host(root="myapp") as one, Host(root="myapp") as other:
        tokens = {host.ws_url().partition("?token=")[2] for host in (one, other)}
        assert len(tokens) == 2
        assert min(map(len, tokens)) >= 32
        target = Peer.with_token(one)
        assert (await ask(one, target)).status == 101
        assert (await ask(other, target)).status == 403


async def test_token_subprotocol_is_agreed_to_only_where_no_other_is() -> None:
    token = f"interceptor.token.{TOKEN}"
    host = Host(root="myapp", subprotocols=["chat"], security=secure())
    async with host:
        for asked, chosen in ((token, token), (f"{token}, chat", "chat"), (f"other, {token}", token)):
            answer = await ask(host, extra=f"Sec-WebSocket-Protocol: {asked}\r\n")
            assert answer.headers["sec-websocket-protocol"] == chosen


async def test_token_subprotocol_in_a_manual_handshake() -> None:
    token = f"interceptor.token.{TOKEN}"
    async with Host([("*", 2)], root="myapp", security=secure()) as host:
        asked: list[tuple[str, ...]] = []

        @host.on("WebSocketUpgrade")
        def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
            asked.append(event.subprotocols)
            return event.accept("chat" if "chat" in event.subprotocols else None)

        for extra, chosen in ((token, token), (f"chat, {token}", "chat")):
            response = await ask(host, extra=f"Sec-WebSocket-Protocol: {extra}\r\n")
            assert response.headers["sec-websocket-protocol"] == chosen
            assert response.headers["sec-websocket-accept"] == ACCEPT
    assert asked == [(), ("chat",)]


# URLs spelled out in the path


async def test_spelled_out_url_needs_the_token() -> None:
    path = "/.interceptor/ws/gate/in"
    for origin in ("", "http://gate", "http://{own}", "http://myapp"):
        for security in (secure(), secure("*"), secure(allow_no_origin=True)):
            assert "needs the token: use host.ws_url(url)" in await judged(security, path, origin=origin)
            wrong = f"{path}?token=0123456789-abcdef_.-"
            assert "needs the token: use host.ws_url(url)" in await judged(security, wrong, origin=origin)
        assert await judged(secure(), path + "?token={token}", origin=origin) == ""


async def test_page_of_another_origin_cannot_spell_out_a_url_even_with_the_token() -> None:
    path = "/.interceptor/ws/gate/in?token={token}"
    assert "may not connect" in await judged(secure(), path, origin="https://evil.test")


async def test_other_spellings_of_the_prefix_are_a_path_of_the_root() -> None:
    host = Host(TABLE, root="myapp", security=secure(allow_no_origin=True))
    seen = Recorder(host)
    async with host:
        for path in ("/./.interceptor/ws/gate/in", "/%2Einterceptor/ws/gate/in", "//.interceptor/ws/gate/in"):
            assert (await ask(host, path)).status == 101
    assert {event.url.split("/")[2] for event in seen.of(WebSocketUpgrade)} == {"myapp"}


# Host


async def test_name_that_was_bound_to_this_machine_by_a_stranger() -> None:
    host = Host([("ws://gate/*", 1), ("*", 0)], root="myapp", security=secure("*", allow_no_origin=True))
    seen = Recorder(host)
    async with host:
        for name in ("rebound.evil", "gate.evil", "127.0.0.1", "127.0.0.1:1", "gate:81", "localhost"):
            for target in ("/", "/?token={token}", "/.interceptor/ws/gate/?token={token}"):
                for origin in ("", f"http://{name}"):
                    answer = await ask(host, target, name, origin)
                    assert answer.status == 421
                    assert b"does not answer for the name in the Host field" in answer.body
    assert seen.events == []


# Secrets


async def test_secrets_are_in_no_log_line_and_no_url(lines: list[Line]) -> None:
    host = Host([("ws://*/manual*", 2), *TABLE], root="myapp", security=secure())
    seen = Recorder(host)

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        if event.url.endswith("raise"):
            raise RuntimeError("no")
        return event.deny(403) if event.url.endswith("deny") else event

    async with host:
        for path in (
            "/",
            "/manual/raise",
            "/manual/deny",
            "/manual",
            "/.interceptor/ws/gate/in",
            "/.interceptor/",
        ):
            for name in ("{own}", "rebound.evil", "a@b", "gate"):
                for origin in ("", "http://{own}", "https://evil.test"):
                    for extra in ("", "Sec-WebSocket-Key: x\r\n", "Sec-WebSocket-Protocol: a;\r\n"):
                        secrets = "Cookie: session=s3cret\r\nAuthorization: Basic s3cret\r\n"
                        await ask(host, f"{path}?token={{token}}", name, origin, secrets + extra)
    assert {line["event"] for line in lines} >= {
        "opened",
        "closed",
        "denied",
        "handshake failed",
        "callback raised",
    }
    assert "s3cret" not in repr(lines)
    assert TOKEN not in repr(lines)
    assert all(TOKEN not in event.model_dump_json() for event in seen.events)
    assert all("s3cret" not in event.text for event in seen.of(WebSocketError))
    assert len(seen.of(WebSocketClose)) > 0


async def test_token_by_cookie_or_subprotocol_is_in_no_log_line_and_no_url(lines: list[Line]) -> None:
    for _, target, extra in HOLDERS:
        host = Host(TABLE, root="myapp", security=secure())
        seen = Recorder(host)
        async with host:
            assert (await ask(host, target, extra=extra)).status == 101
        assert TOKEN not in repr(lines)
        (event,) = seen.of(WebSocketUpgrade)
        assert TOKEN not in event.url
        assert isinstance(event.headers, str)
        assert TOKEN not in event.headers.split("\r\n")[0]


# Where the host listens


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
async def test_address_that_others_can_reach_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="allow_remote=True"):
        Host(listen=(address, 0))


async def test_address_that_others_can_reach_is_taken_where_it_is_meant() -> None:
    security = Security(allow_remote=True, allow_no_origin=True)
    host = Host(root="myapp", listen=("0.0.0.0", 0), security=security)
    seen = Recorder(host)
    async with host:
        assert (await ask(host, "/chat", "127.0.0.1:{port}")).status == 101
    assert [event.url for event in seen.of(WebSocketUpgrade)] == ["ws://myapp/chat"]


async def test_host_listens_on_loopback_by_default() -> None:
    async with Host() as host:
        address, port = host.address
        assert address == "127.0.0.1"
        assert port > 0
    async with Host(listen=("localhost", 0)) as host:
        assert host.address[0] == "127.0.0.1"
