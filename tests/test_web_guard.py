"""Who may ask for pages: forged requests of other sites, rebound names, other ports, programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from interceptor import Host, Security

from .asked import ask, host_of, one
from .peer import Peer, request
from .wire import quiet_loop

__all__ = ["quiet_loop"]

ROWS = [("*://myapp/*", 1), ("*://gate/*", 1), ("http://*.wild.test/*", 1), ("http://*/any", 1)]
ALLOWED, REFUSED = 200, 403
NAVIGATION = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")

Row = tuple[str, str, tuple[str, ...], *tuple[int, ...]]
WHO: list[Row] = [
    # What is asked how, by whom; whether without the token; and with it, where that is not as without.
    # Pages of the host's own, as browsers send them.
    ("GET", "{own}", (), ALLOWED),
    ("GET", "{own}", ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"), ALLOWED),
    ("GET", "{own}", ("Sec-Fetch-Site: same-origin",), ALLOWED),
    ("POST", "{own}", ("Origin: http://{own}", "Sec-Fetch-Site: same-origin"), ALLOWED),
    ("POST", "{own}", ("Origin: http://myapp",), ALLOWED),
    ("POST", "gate", ("Origin: http://gate",), ALLOWED),
    ("GET", "gate", (), ALLOWED),
    ("GET", "a.wild.test", (), ALLOWED),
    # Pages of others: forms, images, scripts, frames, links, other ports of this machine.
    ("POST", "{own}", ("Origin: http://evil.example",), REFUSED),
    ("POST", "{own}", ("Origin: null",), REFUSED),
    ("POST", "{own}", ("Origin: http://127.0.0.1:1",), REFUSED),
    ("POST", "{own}", ("Origin: https://{own}",), REFUSED),
    ("POST", "{own}", ("Origin: http://{own}.evil.example",), REFUSED),
    ("GET", "{own}", ("Origin: http://evil.example",), REFUSED),
    ("OPTIONS", "{own}", ("Origin: http://evil.example", "Access-Control-Request-Method: PUT"), REFUSED),
    ("GET", "{own}", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), REFUSED),
    ("GET", "{own}", ("Sec-Fetch-Site: cross-site", *NAVIGATION), REFUSED, ALLOWED),
    ("GET", "{own}", ("Sec-Fetch-Site: same-site", *NAVIGATION, "Cookie: {cookie}"), REFUSED, ALLOWED),
    ("GET", "{own}", ("Sec-Fetch-Site: same-site", NAVIGATION[0], "Sec-Fetch-Dest: iframe"), REFUSED),
    ("GET", "{own}", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", NAVIGATION[1]), REFUSED),
    ("POST", "{own}", ("Sec-Fetch-Site: cross-site", *NAVIGATION), REFUSED),
    ("POST", "{own}", ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site", *NAVIGATION), REFUSED),
    ("GET", "{own}", ("Origin: http://127.0.0.1:1", "Sec-Fetch-Site: same-site", *NAVIGATION), REFUSED),
    ("GET", "{own}", ("Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: script"), REFUSED),
    ("GET", "{own}", ("Sec-Fetch-Site: same-site", "Cookie: {cookie}"), REFUSED),
    ("POST", "{own}", ("Origin: http://127.0.0.1:1", "Cookie: {cookie}"), REFUSED),
    # A name that a stranger had resolved to this machine (DNS rebinding).
    ("GET", "evil.example", (), REFUSED, ALLOWED),
    ("GET", "evil.example:{port}", ("Sec-Fetch-Site: same-origin",), REFUSED, ALLOWED),
    ("POST", "evil.example", ("Origin: http://evil.example",), REFUSED, ALLOWED),
    # Programs.
    ("POST", "{own}", (), REFUSED, ALLOWED),
    ("POST", "{own}", ("Cookie: {cookie}",), REFUSED, ALLOWED),
    ("DELETE", "{own}", (), REFUSED, ALLOWED),
]  # fmt: skip


@pytest.mark.parametrize("row", WHO)
async def test_who(row: Row) -> None:
    (method, name, extra), status = row[:3], row[3:][0]
    async with host_of(ROWS) as host:
        token = host.ws_url("/").partition("token=")[2]
        values = {
            "own": Peer.authority(host),
            "port": host.address[1],
            "cookie": host._guard.cookie.partition(";")[0],
        }
        fields = [field.format(**values) for field in extra]
        answer = await one(host, ask("/any", name.format(**values), *fields, method=method))
        assert answer.status == status
        # The token lets in programs, and links; a page of others that knows it is let in no more than before.
        target = f"/any?token={token}"
        answer = await one(host, ask(target, name.format(**values), *fields, method=method))
        assert answer.status == row[-1]
        assert token.encode() not in answer.body


async def test_a_name_that_no_rule_has_is_421() -> None:
    async with host_of([("http://gate/*", 1)]) as host:
        assert (await one(host, ask("/", "evil.example"))).status == 421


@pytest.mark.parametrize(
    ("security", "extra", "status"),
    [
        (Security(origins=["http://evil.example"]), ("Origin: http://evil.example",), 200),
        (Security(origins=["http://evil.example"]), ("Origin: http://other.example",), 403),
        (Security(origins=["*"]), ("Origin: http://other.example",), 200),
        (Security(origins=["*"]), ("Sec-Fetch-Site: cross-site",), 200),
        (Security(allow_no_origin=True), (), 200),
        (Security(allow_no_origin=True), ("Sec-Fetch-Site: cross-site",), 403),
        (Security(allow_no_origin=True), ("Origin: http://evil.example",), 403),
    ],
)
async def test_what_the_program_allows(security: Security, extra: tuple[str, ...], status: int) -> None:
    async with host_of(ROWS, security=security) as host:
        assert (await one(host, ask("/x", Peer.authority(host), *extra, method="POST"))).status == status


# The cookie


@pytest.fixture
def ui(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<!doctype html><p>hello")
    (tmp_path / "a.js").write_text("1")
    return tmp_path


async def cookie_of(host: Host) -> str:
    """The cookie that a page of the host is given."""
    answer = await one(host, ask("/", Peer.authority(host)))
    name_value, *attributes = answer.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/.interceptor/", "SameSite=Strict"]
    assert name_value.startswith(f"interceptor_page_{host.address[1]}=")
    return name_value


async def test_a_page_gets_the_cookie_and_nothing_else_does(ui: Path) -> None:
    async with Host([("ws://gate/*", 1)], root="myapp", ui=ui) as host:
        own = Peer.authority(host)
        await cookie_of(host)
        assert "set-cookie" not in (await one(host, ask("/a.js", own))).headers
        assert "set-cookie" not in (await one(host, ask("/none", own))).headers
        assert "set-cookie" not in (await one(host, ask("http://myapp/", "myapp"))).headers
        assert "set-cookie" not in (await one(host, ask("/", own, "Sec-Fetch-Site: cross-site"))).headers
        assert (await one(host, ask("/", own))).headers["cross-origin-resource-policy"] == "same-origin"


async def test_the_cookie_is_not_the_token_and_no_secret_of_programs(ui: Path) -> None:
    """Whoever asks for a page is given it, and servers of other ports are sent it."""
    security = Security(allow_no_origin=False)
    async with Host([("*", 1)], root="myapp", ui=ui, security=security) as host:
        cookie, own = await cookie_of(host), Peer.authority(host)
        secret = cookie.partition("=")[2]
        assert host.ws_url("/").partition("token=")[2] not in (await one(host, ask("/", own))).head.decode()
        for target, extra in (
            ("/", f"Cookie: {cookie}\r\n"),
            ("/", f"Cookie: interceptor_token={secret}\r\n"),
            ("/", f"Sec-WebSocket-Protocol: interceptor.token.{secret}\r\n"),
            (f"/?token={secret}", ""),
            (SPELLED, f"Cookie: {cookie}\r\n"),
            (f"{SPELLED}?token={secret}", ""),
        ):
            assert (await one(host, request(target, own, extra=extra))).status == 403
        for path in ("/", "/.interceptor/proxy.pac", "/.interceptor/shim.js"):
            asked = ask(f"{path}?token={secret}", own, "Sec-Fetch-Site: same-site", *NAVIGATION)
            assert (await one(host, asked)).status == 403


async def test_the_cookie_is_nothing_to_programs_where_they_need_no_token(ui: Path) -> None:
    async with Host([("*", 1)], root="myapp", ui=ui, security=Security(allow_no_origin=True)) as host:
        extra = f"Cookie: {await cookie_of(host)}\r\n"
        assert (await one(host, request(SPELLED, Peer.authority(host), extra=extra))).status == 403


async def test_a_cookie_of_the_same_name_from_another_port_hides_nothing(ui: Path) -> None:
    """Browsers send the one of the longer path first, and any port can set that."""
    async with Host([("ws://gate/*", 1)], root="myapp", ui=ui) as host:
        own, cookie = Peer.authority(host), await cookie_of(host)
        tossed = f"Cookie: {cookie.partition('=')[0]}=x; {cookie}"
        head = request(SPELLED, own, origin=f"http://{own}", extra=f"{tossed}\r\n")
        assert (await one(host, head)).status == 101
        assert (await one(host, ask("/.interceptor/shim.js", own, tossed))).status == 200


SPELLED = "/.interceptor/ws/gate/in"


@pytest.mark.parametrize(
    ("origin", "has_cookie", "status"),
    [
        ("http://{own}", True, 101),
        ("http://{own}", False, 403),
        ("http://127.0.0.1:1", True, 403),
        (None, True, 403),
    ],
)
async def test_the_cookie_opens_spelled_out_urls_to_the_host_s_own_pages(
    ui: Path, origin: str | None, has_cookie: bool, status: int
) -> None:
    """Another server of this machine has the cookie too: cookies know no ports."""
    async with Host([("ws://gate/*", 1)], root="myapp", ui=ui) as host:
        own = Peer.authority(host)
        extra = f"Cookie: {await cookie_of(host)}\r\n" if has_cookie else ""
        head = request(SPELLED, own, origin=origin and origin.format(own=own), extra=extra)
        assert (await one(host, head)).status == status


async def test_with_the_cookie_no_page_is_its_own_reference(ui: Path) -> None:
    """A page of another port spells out a URL at its own address, which a wide rule matches."""
    async with Host([("*", 1)], root="myapp", ui=ui) as host:
        extra = f"Cookie: {await cookie_of(host)}\r\n"
        head = request(
            "/.interceptor/ws/127.0.0.1:1/x", Peer.authority(host), origin="http://127.0.0.1:1", extra=extra
        )
        assert (await one(host, head)).status == 403


@pytest.mark.parametrize("path", ["/.interceptor/shim.js", "/.interceptor/proxy.pac"])
async def test_scripts_of_the_host_are_for_its_pages_only(ui: Path, path: str) -> None:
    """They have the names of the rules in them, and a page of any site can have a script loaded."""
    async with Host([("ws://gate/*", 1)], root="myapp", ui=ui) as host:
        own, cookie = Peer.authority(host), f"Cookie: {await cookie_of(host)}"
        token = host.pac_url.partition("token=")[2]
        given = 200 if path.endswith(".js") else 403
        for fields, status in (
            ([cookie, "Sec-Fetch-Site: same-origin"], given),
            ([cookie], given),
            ([cookie, "Origin: http://127.0.0.1:1"], 403),
            ([cookie, "Sec-Fetch-Site: same-site"], 403),
            ([cookie, "Sec-Fetch-Site: cross-site"], 403),
            ([], 403),
        ):
            answer = await one(host, ask(path, own, *fields))
            assert answer.status == status
            assert (b"ws://gate" in answer.body) is (status == 200)
        answer = await one(host, ask(f"{path}?token={token}", own))
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert token.encode() not in answer.body
        for field in ("Sec-Fetch-Site: same-site", "Origin: http://127.0.0.1:1"):
            assert (await one(host, ask(f"{path}?token={token}", own, field))).status == 403


async def test_http_url_with_the_token() -> None:
    async with host_of() as host:
        assert "token" not in host.http_url("/a")
        assert host.http_url("/a", token=True).startswith(f"http://{Peer.authority(host)}/a?token=")
        assert "?b&token=" in host.http_url("/a?b", token=True)
