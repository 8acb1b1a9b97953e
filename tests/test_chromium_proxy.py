"""A real Chromium that was told nothing but a proxy auto-configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from interceptor import Host, HTTPRequest, Mode, Security, WebSocketUpgrade

from .browser import launched
from .pages import CLEAN, FAILED, Site, Tab
from .peer import Recorder

pytestmark = pytest.mark.chromium


def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
    """Let the one in and not the other."""
    if event.type == "auto":
        return None
    return event.accept("chat") if event.url.endswith("/in") else event.deny(403)


async def test_names_that_no_dns_knows() -> None:
    """Also for a page without an origin, which Chromium keeps from this machine's addresses."""
    rows = [("ws://gate.test/*", Mode.MANUAL), ("ws://*.feed.test/*", Mode.AUTO)]
    host = Host(rows, security=Security(origins=["*"]))
    host.on("WebSocketUpgrade")(answer)
    recorder = Recorder(host)
    async with host, launched(*host.chromium_args()) as browser, Site.open():
        for page in (None, "data:text/html,<title>none</title>"):
            async with Tab.open(browser, page) as tab:
                assert (await tab.visit("ws://a.feed.test/prices"))[-1] == CLEAN
                accepted = await tab.visit("ws://gate.test/in", ["chat"])
                assert accepted[0][:2] == ["open", "chat"]
                assert await tab.visit("ws://gate.test/out") == FAILED
                # A name that no rule has goes its own way, which ends in the DNS.
                assert await tab.visit("ws://elsewhere.test/") == FAILED
    urls = [event.url for event in recorder.of(WebSocketUpgrade)]
    assert urls == ["ws://a.feed.test/prices", "ws://gate.test/in", "ws://gate.test/out"] * 2
    assert [event.origin for event in recorder.of(WebSocketUpgrade)][3:] == ["null"] * 3


INCLUDE = """async () => {
    const load = (tag, src) => new Promise(resolve => {
        const element = document.createElement(tag);
        element.onload = () => resolve(element.contentDocument ? "own" : "loaded");
        element.onerror = () => resolve("error");
        element.src = src;
        document.body.append(element);
    });
    const found = [];
    for (const path of ["/file.js", "/answer.js"]) found.push(await load("script", `http://myapp.test${path}`));
    await load("iframe", "http://myapp.test/page");
    return [...found, window.read];
}"""
FRAMES = "document.querySelector('#mine') ? 'framed' : 'refused'"


async def test_pages_of_others_use_nothing_of_a_page_that_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Chromium says of no page that asks for a name without TLS whose it is."""
    (tmp_path / "file.js").write_text("window.read = 'a file';")
    host = Host([("http://myapp.test/*", Mode.AUTO)], root="myapp.test", ui=tmp_path)

    @host.on("HTTPRequest")
    def respond(event: HTTPRequest) -> HTTPRequest | None:
        if event.url.endswith("/answer.js"):
            return event.respond("window.read = 'an answer';", mime="text/javascript")
        return event.respond("<p id=mine>mine") if event.url.endswith("/page") else None

    async with host, launched(*host.chromium_args()) as browser:
        async with Tab.open(browser) as tab:
            assert await tab.page.evaluate(INCLUDE) == ["error", "error", None]
            (frame,) = tab.page.frames[1:]
            assert await frame.evaluate(FRAMES) == "refused"
        async with Tab.open(browser, "http://myapp.test/page") as tab:
            assert await tab.page.evaluate(INCLUDE) == ["loaded", "loaded", "an answer"]
            (frame,) = tab.page.frames[1:]
            assert await frame.evaluate(FRAMES) == "framed"


ROWS = [
    ("ws://pass.test/*", Mode.PASS),
    ("ws://both.test/no/*", Mode.PASS),
    ("ws://both.test/*", Mode.AUTO),
    ("*://any.test:8080/*", Mode.MANUAL),
    ("ws://*.feed.test/*", Mode.AUTO),
    ("*/everywhere/*/end", Mode.AUTO),
    ("ws://one.test/only?x=1", Mode.AUTO),
    ("wss://tls.test/*", Mode.AUTO),
]
URLS = [
    f"ws://{host}{path}"
    for host in (
        "pass.test",
        "both.test",
        "any.test:8080",
        "any.test",
        "a.feed.test",
        "feed.test",
        "one.test",
        "tls.test",
    )
    for path in (
        "/",
        "/no/x",
        "/only?x=1",
        "/only",
        "/everywhere/end",
        "/everywhere//end",
        "/everywhere/a/end/end",
    )
]


async def test_the_script_decides_as_the_rules_do() -> None:
    """Run in the browser's own engine; a URL whose path the browser hides is decided by its host."""
    host = Host(ROWS)
    async with host, launched() as browser:
        page = await browser.new_page()
        found = await page.evaluate(
            "([script, urls]) => { (0, eval)(script); return urls.map(url => FindProxyForURL(url, '')); }",
            [
                host.pac(),
                [*URLS, "wss://both.test/", "http://both.test/", "http://any.test:8080/x", "ws://ANY.test"],
            ],
        )
        ours = f"PROXY 127.0.0.1:{host.address[1]}"
    for url, decision in zip(URLS, found, strict=False):
        rule = host.intercepted_urls.match(url)
        matched = rule is not None and rule.mode is not Mode.PASS
        hidden = url.endswith("test/") or url.endswith("8080/")
        if matched or not hidden:
            assert decision == (ours if matched else "DIRECT"), url
    assert found[len(URLS) :] == ["DIRECT", "DIRECT", ours, "DIRECT"]
