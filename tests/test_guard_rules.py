"""Guard by itself: what is its own address, whose Origin is let in, where the token may be."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interceptor.config import TOKEN_CHARACTERS, Security
from interceptor.events import TOKEN_PREFIX
from interceptor.exceptions import HandshakeFailure
from interceptor.handshake import Request, read_request
from interceptor.urls import URL
from interceptor.ways.guard import TOKEN_COOKIE, TOKEN_PARAMETER, Guard
from tests.peer import request

TOKEN = "correct-horse_battery.staple~0"
ROOT = URL("ws://myapp/chat")
GATE = URL("wss://gate.test:8443/in?x=http://evil.test/")
OWN = ["127.0.0.1:4000", "localhost:4000", "[::1]:4000", "myapp:4000"]
WRONG = [
    "",
    "x",
    TOKEN[:-1],
    TOKEN + "0",
    TOKEN[:-1] + "1",
    TOKEN.upper(),
    TOKEN[::-1],
    TOKEN + " ",
    "*",
    "None",
]


def made(
    security: Security | None = None, hosts: tuple[str, ...] = ("127.0.0.1",), port: int = 4000
) -> Guard:
    guard = Guard(security or Security(token=TOKEN), "myapp")
    guard.bind(hosts, port)
    return guard


def asking(origin: str | None = None, extra: str = "") -> Request:
    return read_request(request("/chat", "myapp", origin=origin, extra=extra), 100)


def lets_in(
    guard: Guard, origin: str | None, url: URL = ROOT, *, named: bool = False, token: bool = False
) -> bool:
    """Whether a request is let in; a refusal must be a 403 that says how to allow it, and no more."""
    try:
        guard.check(asking(origin), url, named=named, token=token)
    except HandshakeFailure as failure:
        assert_refusal(failure, origin)
        return False
    return True


def assert_refusal(failure: HandshakeFailure, origin: str | None) -> None:
    assert (failure.status, failure.headers) == (403, ())
    assert TOKEN not in str(failure)
    if origin is None:
        assert "host.ws_url(...)" in failure.reason
        assert "Security(allow_no_origin=True)" in failure.reason
    else:
        assert f"pages of origin {origin!r} may not connect" in failure.reason
        assert f"Security(origins=[{origin!r}])" in failure.reason


# The host's own address


def test_the_own_address_has_these_names() -> None:
    guard = made()
    assert all(guard.is_own(authority) for authority in OWN)
    for other in (
        "127.0.0.1",
        "127.0.0.1:4001",
        "myapp",
        "localhost",
        "::1:4000",
        "[::1]",
        "127.0.0.2:4000",
        "",
    ):
        assert not guard.is_own(other)


def test_nothing_is_own_before_the_port_is_known() -> None:
    guard = Guard(Security(), "myapp")
    assert not any(guard.is_own(authority) for authority in [*OWN, "myapp", "127.0.0.1", ""])


def test_further_addresses_are_own_too() -> None:
    guard = made(hosts=("192.168.0.7", "fe80::1"))
    assert all(guard.is_own(authority) for authority in [*OWN, "192.168.0.7:4000", "[fe80::1]:4000"])
    for other in ("fe80::1:4000", "192.168.0.8:4000", "[fe80::2]:4000"):
        assert not guard.is_own(other)


@pytest.mark.parametrize("everywhere", [("0.0.0.0",), ("::",), ("127.0.0.1", "::")])
def test_listening_on_all_addresses_each_literal_one_is_own(everywhere: tuple[str, ...]) -> None:
    guard = made(hosts=everywhere)
    assert all(guard.is_own(authority) for authority in [*OWN, "192.168.0.7:4000", "[fe80::1]:4000"])
    for other in ("192.168.0.7", "192.168.0.7:4001", "evil.test:4000", "192.168.0.7.evil.test:4000", ":4000"):
        assert not guard.is_own(other)
    # A literal address in Host led here; one in Origin may be anybody's.
    for origin in ("http://192.168.0.7:4000", "http://203.0.113.66:4000", "http://evil.test:4000"):
        assert not lets_in(guard, origin)
    assert lets_in(guard, "http://127.0.0.1:4000") is ("::" not in everywhere or len(everywhere) == 2)
    assert lets_in(guard, "http://[::1]:4000") is ("::" in everywhere)
    at_80 = made(hosts=everywhere, port=80)
    assert at_80.is_own("192.168.0.7")
    assert not at_80.is_own("evil.test")


def test_port_80_is_not_written() -> None:
    guard = made(hosts=("::1",), port=80)
    assert all(guard.is_own(name) for name in ("127.0.0.1", "localhost", "[::1]", "myapp"))
    assert not guard.is_own("127.0.0.1:80")
    assert lets_in(guard, "http://localhost")
    assert not lets_in(guard, "http://localhost:80")


def test_the_own_port() -> None:
    guard = made()
    assert guard.is_port(4000)
    assert not guard.is_port(4001)
    assert not Guard(Security(), "myapp").is_port(4000)


# Origins


def test_a_page_at_an_address_that_is_not_bound_is_anothers() -> None:
    """Another program may serve the same port of the other loopback address."""
    assert not lets_in(made(), "http://[::1]:4000")
    assert lets_in(made(hosts=("::1",)), "http://[::1]:4000")
    assert not lets_in(made(hosts=("::1",)), "http://127.0.0.1:4000")
    guard = Guard(Security(token=TOKEN), "myapp")
    guard.bind(("127.0.0.1",), 4000, localhost=False)
    assert not lets_in(guard, "http://localhost:4000")
    assert guard.is_own("localhost:4000")


@pytest.mark.parametrize("authority", ["127.0.0.1:4000", "localhost:4000", "myapp:4000", "myapp"])
def test_own_pages_are_let_in(authority: str) -> None:
    assert lets_in(made(), f"http://{authority}")
    assert lets_in(made(), f"HTTP://{authority.upper()}")
    assert lets_in(made(), f"http://{authority}", GATE)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "https://127.0.0.1:4000",
        "https://myapp",
        "ws://myapp",
        "http://127.0.0.1",
        "http://127.0.0.1:4001",
        "http://localhost",
        "http://myapp:4001",
        "http://myapp.evil.test",
        "http://evil.test/http://myapp",
        "http://myapp/",
        "http://myapp@evil.test",
        "http://evil.test@myapp",
        "http://",
        "http",
        "myapp",
        "//myapp",
        "://myapp",
        "",
        "null",
        "file://",
        "*",
        "http://myapp, http://evil.test",
        "http://myapp http://evil.test",
        "http://m\xffapp",
    ],
)
@pytest.mark.parametrize("security", [Security(token=TOKEN), Security(token=TOKEN, allow_no_origin=True)])
def test_strange_pages_are_not(origin: str, security: Security) -> None:
    for named in (True, False):
        for token in (True, False):
            assert not lets_in(made(security), origin, GATE, named=named, token=token)


def test_a_long_origin_is_not_repeated_whole() -> None:
    with pytest.raises(HandshakeFailure) as caught:
        made().check(asking("http://" + "x" * 5000), ROOT, named=True, token=True)
    assert len(caught.value.reason) < 600


def test_the_token_in_an_origin_is_not_repeated() -> None:
    """A program has put its URL there."""
    with pytest.raises(HandshakeFailure, match="may not connect") as caught:
        made().check(asking(f"http://evil.test/?token={TOKEN}"), ROOT, named=True, token=True)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "origin", "let_in"),
    [
        ("https://app.test", "https://app.test", True),
        ("https://App.test", "HTTPS://app.TEST", True),
        ("https://app.test:443", "https://app.test", True),
        ("https://app.test", "https://app.test:444", False),
        ("https://app.test", "http://app.test", False),
        ("https://app.test", "https://sub.app.test", False),
        ("https://app.test", "null", False),
        ("null", "null", True),
        ("null", "http://evil.test", False),
        ("null", "", False),
        ("*", "http://evil.test", True),
        ("*", "null", True),
        ("*", "", True),
    ],
)
def test_listed_pages_are_let_in(listed: str, origin: str, let_in: bool) -> None:
    security = Security(token=TOKEN, origins=("http://first.test", listed))
    assert lets_in(made(security), origin) is let_in
    assert lets_in(made(security), "http://myapp")
    assert not lets_in(made(security), None)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("ws://gate.test/in", "http://gate.test"),
        ("ws://gate.test:8080/", "http://gate.test:8080"),
        ("wss://gate.test/", "https://gate.test"),
        (GATE, "https://gate.test:8443"),
        ("http://gate.test/", "http://gate.test"),
        ("https://gate.test/", "https://GATE.test"),
        ("ws://[::2]:1/", "http://[::2]:1"),
    ],
)
def test_pages_of_the_url_itself_are_let_in_where_that_can_be_trusted(url: URL, origin: str) -> None:
    assert lets_in(made(), origin, url, named=True)
    assert lets_in(made(), origin, url, token=True)
    assert lets_in(made(), origin, url, named=True, token=True)
    assert not lets_in(made(), origin, url)
    secure = origin.startswith("https")
    other = origin.replace("https", "http") if secure else origin.replace("http", "https")
    assert not lets_in(made(), other, url, named=True, token=True)
    assert not lets_in(made(), f"{origin}9", url, named=True, token=True)


def test_programs_need_the_token_or_leave() -> None:
    assert lets_in(made(), None, token=True)
    assert not lets_in(made(), None)
    assert not lets_in(made(), None, named=True)
    assert lets_in(made(Security(allow_no_origin=True)), None)
    assert not lets_in(made(Security(origins=("*",))), None)


# The token


def test_the_published_names_of_the_token() -> None:
    assert (TOKEN_PARAMETER, TOKEN_COOKIE, TOKEN_PREFIX) == (
        "token",
        "interceptor_token",
        "interceptor.token.",
    )


def test_each_host_has_a_token_of_its_own() -> None:
    tokens = {Guard(Security(), "myapp").token for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) >= 32 and set(token) <= TOKEN_CHARACTERS for token in tokens)
    assert made().token == TOKEN


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return False

    monkeypatch.setattr(secrets, "compare_digest", compare)
    assert made().take_token(f"/?token=guess&token={TOKEN}") == (f"/?token=guess&token={TOKEN}", False)
    assert not made().holds_token(asking(extra=f"Cookie: {TOKEN_COOKIE}=cake\r\n"))
    assert (b"guess", TOKEN.encode()) in compared
    assert (b"cake", TOKEN.encode()) in compared


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/?token=T", "/"),
        ("/chat?token=T", "/chat"),
        ("/chat?token=T&a=1", "/chat?a=1"),
        ("/chat?a=1&token=T", "/chat?a=1"),
        ("/chat?a=1&token=T&b=2", "/chat?a=1&b=2"),
        ("/chat?a&token=T&token=T&b", "/chat?a&b"),
        ("/chat?token=T&token=other", "/chat?token=other"),
        ("/chat?token=other&token=T", "/chat?token=other"),
        ("/chat?&token=T&", "/chat?&"),
        ("/chat?a=?&token=T&b=/?c", "/chat?a=?&b=/?c"),
        ("ws://gate.test/in?token=T&a=1", "ws://gate.test/in?a=1"),
    ],
)
def test_the_token_is_taken_out_of_the_query(target: str, left: str) -> None:
    assert made().take_token(target.replace("T", TOKEN)) == (left, True)


def test_a_client_may_encode_more_than_it_must() -> None:
    encoded = TOKEN.replace("-", "%2D").replace("c", "%63")
    assert made().take_token(f"/?a=%2D&%74oken={encoded}&b") == ("/?a=%2D&b", True)
    assert made().take_token("/?token=%FF%E2%82") == ("/?token=%FF%E2%82", False)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?",
        "/chat?a=1&b",
        "/chat?token",
        "/chat?token=",
        f"/chat?Token={TOKEN}",
        f"/chat?my_token={TOKEN}",
        f"/chat?token={TOKEN}=",
        f"/chat?token=={TOKEN}",
        f"/chat?token%3D{TOKEN}",
        f"/chat?a={TOKEN}",
        f"/chat?{TOKEN}",
        f"/token={TOKEN}",
        f"/?a?token={TOKEN}",
        f"/?token={TOKEN};a",
        "/?token=\xe9\xff",
        f"/?token={TOKEN}\u20ac",
    ],
)
def test_a_query_of_the_page_itself_stays(target: str) -> None:
    assert made().take_token(target) == (target, False)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_token_is_none(wrong: str) -> None:
    guard = made()
    assert guard.take_token(f"/?a&token={wrong}&b") == (f"/?a&token={wrong}&b", False)
    if wrong.strip() != TOKEN:
        assert not guard.holds_token(asking(extra=f"Cookie: a=1; {TOKEN_COOKIE}={wrong}; b=2\r\n"))
        assert not guard.holds_token(asking(extra=f"Sec-WebSocket-Protocol: chat, {TOKEN_PREFIX}{wrong}\r\n"))


parameters = st.lists(
    st.text("abt=?/%;token", max_size=8) | st.just(f"{TOKEN_PARAMETER}={TOKEN}"), max_size=6
)


@given(st.sampled_from(["/", "/chat", ""]), parameters)
def test_the_token_is_taken_out_wherever_it_is(path: str, query: list[str]) -> None:
    target = path + ("?" + "&".join(query) if query else "")
    kept = [parameter for parameter in query if parameter != f"{TOKEN_PARAMETER}={TOKEN}"]
    left = path + ("?" + "&".join(kept) if kept else "")
    assert made().take_token(target) == (left, kept != query)


@pytest.mark.parametrize(
    "line",
    [
        f"Cookie: {TOKEN_COOKIE}={TOKEN}",
        f"Cookie: a=1;{TOKEN_COOKIE}={TOKEN};b=2",
        f'Cookie: {TOKEN_COOKIE}="{TOKEN}"',
        f'Cookie: json={{"a": [1, 2]}}; {TOKEN_COOKIE}={TOKEN}',
        f"Cookie: list[0]=\xe9; path=/; =; {TOKEN_COOKIE}={TOKEN}; x",
        f"Cookie: a=1\r\nCookie: {TOKEN_COOKIE}={TOKEN}",
        f"Sec-WebSocket-Protocol: {TOKEN_PREFIX}{TOKEN}",
        f"Sec-WebSocket-Protocol: chat ,\t{TOKEN_PREFIX}{TOKEN} , log",
        f"Sec-WebSocket-Protocol: {TOKEN_PREFIX}stale, {TOKEN_PREFIX}{TOKEN}",
        f"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: {TOKEN_PREFIX}{TOKEN}",
    ],
)
def test_a_cookie_or_a_subprotocol_carries_the_token(line: str) -> None:
    assert made().holds_token(asking(extra=f"{line}\r\n"))


@pytest.mark.parametrize(
    "line",
    [
        f"X-Token: {TOKEN}",
        f"Authorization: Bearer {TOKEN}",
        f"Cookie: token={TOKEN}",
        f"Cookie: {TOKEN}",
        f"Cookie: {TOKEN_COOKIE}",
        f"Cookie: {TOKEN_COOKIE}={TOKEN} x",
        f"Cookie: {TOKEN_COOKIE}=\xe9\xff",
        f"Sec-WebSocket-Protocol: {TOKEN}",
        f"Sec-WebSocket-Protocol: {TOKEN_PREFIX.upper()}{TOKEN}",
        f"Sec-WebSocket-Protocol: {TOKEN_PREFIX}\xe9\xff",
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Protocol:",
    ],
)
def test_nothing_else_does(line: str) -> None:
    assert not made().holds_token(asking(extra=f"{line}\r\n"))
    assert not made().holds_token(asking())
