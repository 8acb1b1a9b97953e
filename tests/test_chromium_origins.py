"""Who may come in, and by which names: pages of many origins in a real Chromium, and what the host says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from interceptor import Host, Mode, Security, WebSocketError
from interceptor import WebSocketUpgrade as Upgrade
from interceptor.events import TOKEN_PREFIX

from .browser import launched
from .pages import CLEAN, FAILED, LOCAL_NETWORK, UNEXPECTED, VISIT, Seen, Site, Tab, url_of
from .pages import tab as tab
from .peer import Recorder

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]

EVERYTHING = [("*", Mode.AUTO)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with launched(LOCAL_NETWORK) as browser:
        yield browser


# Who may come in


def token_of(host: Host) -> str:
    """The secret of a host."""
    return host.ws_url("/").rpartition("token=")[2]


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.MANUAL])
@pytest.mark.parametrize("token", [True, False])
async def test_a_page_of_another_origin_is_refused(tab: Tab, mode: Mode, token: bool) -> None:
    host = Host([("*", mode)], security=Security(origins=("http://127.0.0.1:1", "https://127.0.0.1")))
    recorder = Recorder(host)
    async with host:
        seen = await tab.visit(host.ws_url("/chat") if token else url_of(host, "/chat"))
        secret = token_of(host)
    assert seen == FAILED
    assert await tab.complaint(UNEXPECTED.format(403))
    assert recorder.names() == ["WebSocketError"]
    [error] = recorder.of(WebSocketError)
    assert f"Security(origins=['{tab.site.origin}'])" in error.text
    assert secret not in error.text


async def test_the_token_is_taken_out_of_the_url(tab: Tab) -> None:
    host = Host(EVERYTHING, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        for target in ("/chat", "/chat?a=1&token=mine"):
            assert (await tab.visit(host.ws_url(target)))[-1] == CLEAN
        secret = token_of(host)
    assert [event.url for event in recorder.of(Upgrade)] == [
        "ws://dyalog_root/chat",
        "ws://dyalog_root/chat?a=1&token=mine",
    ]
    assert not any(secret in str(event.headers) for event in recorder.of(Upgrade))


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.MANUAL])
@pytest.mark.parametrize("chat", [True, False])
async def test_the_token_as_a_subprotocol(tab: Tab, mode: Mode, chat: bool) -> None:
    host = Host([("*", mode)], subprotocols=["chat"], compression=False, security=tab.site.trusted)
    recorder = Recorder(host)

    @host.on("WebSocketUpgrade")
    def accept(event: Upgrade) -> Upgrade | None:
        return event.accept("chat" if chat else None) if event.type == "manual" else None

    async with host:
        token = TOKEN_PREFIX + token_of(host)
        seen = await tab.visit(url_of(host), [token, "chat"] if chat else [token])
    assert seen == [["open", "chat" if chat else token, ""], CLEAN]
    assert recorder.of(Upgrade)[0].subprotocols == (("chat",) if chat else ())


SANDBOX = """() => new Promise(resolve => {
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.src = "/in";
    frame.onload = resolve;
    document.body.append(frame);
})"""


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("page", ["data", "file", "sandbox"])
async def test_a_page_without_an_origin(chromium: Browser, tmp_path: Path, page: str, listed: bool) -> None:
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><title>a file</title>")
    where = {"data": "data:text/html,x", "file": file.as_uri(), "sandbox": None}[page]
    host = Host(EVERYTHING, security=Security(origins=("null",) if listed else ("http://null",)))
    recorder = Recorder(host)
    async with host, Tab.open(chromium, where) as tab:
        if page == "sandbox":
            await tab.page.evaluate(SANDBOX)
        frame = tab.page.frames[-1]
        assert await frame.evaluate("origin") == "null" or page == "file"
        seen: Seen = await frame.evaluate(VISIT, [host.ws_url("/"), []])
    if listed:
        assert seen[-1] == CLEAN
        assert recorder.of(Upgrade)[0].origin == "null"
    else:
        assert seen == FAILED
        assert recorder.names() == ["WebSocketError"]
        assert "Security(origins=['null'])" in recorder.of(WebSocketError)[0].text


# Names: the browser takes them for this host, without a proxy


def mapped(*pairs: tuple[str, int]) -> str:
    """The flag that leads names to ports of this machine."""
    rules = ",".join(f"MAP {name} 127.0.0.1:{port}" for name, port in pairs)
    return f"--host-resolver-rules={rules}"


URLS = [
    "ws://myapp.test/chat",
    "ws://MyApp.test:80/a/../chat?q=a b&ä='x'",
    "ws://myapp.test:8080/%7Euser/{x}|y^z`?",
    "http://myapp.test",
    "ws://bücher.test/Ä/\U0001f388",
]


async def test_names_that_lead_to_the_host() -> None:
    security = Security(origins=("http://pages.test",))
    host = Host([("*://myapp.test*", 1), ("ws://bücher.test/*", 1)], security=security)
    recorder = Recorder(host)
    async with host, Site.open() as site:
        names = [(name, host.address[1]) for name in ("myapp.test", "xn--bcher-kva.test", "stranger.test")]
        flag = mapped(("pages.test", site.port), *names)
        async with launched(flag) as browser, Tab.open(browser, "http://pages.test/") as tab:
            shown = [await tab.page.evaluate("url => new URL(url).href", url) for url in URLS]
            seen = [await tab.visit(url) for url in URLS]
            stranger = await tab.visit("ws://stranger.test/chat")
            assert await tab.complaint(UNEXPECTED.format(421))
    assert [entries[-1] for entries in seen] == [CLEAN] * len(URLS)
    assert stranger == FAILED
    upgrades = recorder.of(Upgrade)
    assert [event.url for event in upgrades] == [url.replace("http", "ws") for url in shown]
    assert upgrades[0].url == "ws://myapp.test/chat"
    assert {event.origin for event in upgrades} == {"http://pages.test"}
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketClose"] * len(URLS)


REBINDING = {
    "a rule names it": ("ws://myapp.test/*", False, True),
    "a rule only covers it": ("*", False, False),
    "a rule covers it, the page has the token": ("*", True, True),
}


@pytest.mark.parametrize("name", REBINDING)
async def test_a_page_of_the_very_name_that_leads_to_the_host(name: str) -> None:
    """What a page on a name of its own, which it then had resolved to this machine, can and cannot do."""
    pattern, token, opens = REBINDING[name]
    host = Host([(pattern, 1)])
    recorder = Recorder(host)
    async with host:
        flag = mapped(("myapp.test", host.address[1]))
        async with launched(flag, LOCAL_NETWORK) as browser, Tab.open(browser, "about:blank") as tab:
            await tab.page.route("http://myapp.test/page", lambda route: route.fulfill(body="the page"))
            await tab.page.goto("http://myapp.test/page")
            query = f"?token={token_of(host)}" if token else ""
            seen = await tab.visit(f"ws://myapp.test/chat{query}")
    if opens:
        assert seen[-1] == CLEAN
        [upgrade] = recorder.of(Upgrade)
        assert (upgrade.url, upgrade.origin) == ("ws://myapp.test/chat", "http://myapp.test")
    else:
        assert seen == FAILED
        assert recorder.names() == ["WebSocketError"]
