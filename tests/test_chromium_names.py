"""Names of a program's own in Chromium: pages at them, and names that Chromium has views of its own on."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.async_api import Route

from interceptor import Host, Mode, Security, WebSocketReceive, WebSocketUpgrade

from .engines.chromium import Tab, chromium
from .pages import BLANK, CLEAN, FAILED, FILES, PROBE, VISIT
from .peer import Recorder

pytestmark = pytest.mark.chromium

TREATED = "--unsafely-treat-insecure-origin-as-secure="
NO_ORIGIN = "data:text/html,<title>none</title>"
WORK = """async url => {
    const worker = new Worker("/worker.js");
    return await new Promise(resolve => {
        worker.onmessage = ({data}) => resolve(data);
        worker.postMessage(url);
    });
}"""


async def serve(route: Route) -> None:
    """Answer in the place of a server that is nowhere."""
    path = "/" + route.request.url.split("/", 3)[3]
    mime, text = FILES.get(path, BLANK)
    await route.fulfill(content_type=mime, body=text)


async def show(tab: Tab, url: str) -> None:
    """Show a page that can be asked to open sockets; those at names below `.test` come from here."""
    await tab.page.context.route("*://*.test/**", serve)
    await tab.open(url)
    await tab.run(f"() => {{ {PROBE} }}")


async def visit(tab: Tab, url: str) -> object:
    """Open a socket and close it; how it ended, as the page saw it."""
    return (await tab.page.evaluate(VISIT, [url, []]))[-1]


@pytest.mark.parametrize("via", ["proxy", "resolver"])
async def test_a_page_at_port_80_and_its_worker(via: Literal["proxy", "resolver"]) -> None:
    host = Host([("ws://myapp.test/*", Mode.AUTO)])
    recorder = Recorder(host)

    @host.on("WebSocketReceive")
    def send_back(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    async with host, chromium(*host.chromium_args(via)) as tab:
        await show(tab, "http://myapp.test/")
        assert await visit(tab, "ws://myapp.test/page") == CLEAN
        seen = await tab.page.evaluate(WORK, "ws://myapp.test/worker")
        assert seen[1:] == [["message", "text", "from a worker"], ["close", 3000, "", True]]
    assert [(event.url, event.origin) for event in recorder.of(WebSocketUpgrade)] == [
        ("ws://myapp.test/page", "http://myapp.test"),
        ("ws://myapp.test/worker", "http://myapp.test"),
    ]


@pytest.mark.parametrize("end", ["dev", "app"])
async def test_names_that_are_secure_by_their_end(end: str) -> None:
    """Chromium goes there by wss alone, and hides the page."""
    host = Host([(f"*://myapp.{end}/*", Mode.AUTO)], security=Security(origins=["null"]))
    recorder = Recorder(host)
    async with host, chromium(*host.chromium_args()) as tab:
        await show(tab, "http://page.test/")
        assert await visit(tab, f"ws://myapp.{end}/chat") == CLEAN
    [upgrade] = recorder.of(WebSocketUpgrade)
    assert (upgrade.url, upgrade.origin) == (f"wss://myapp.{end}/chat", "null")


@pytest.mark.parametrize(
    ("page", "flags", "secure"),
    [
        ("http://myapp.test/", [], False),
        ("http://myapp.test/", [f"{TREATED}http://myapp.test"], True),
        ("https://myapp.test/", [], True),
    ],
)
async def test_secure_contexts(page: str, flags: list[str], secure: bool) -> None:
    async with Host([("ws://myapp.test/*", 1)]) as host, chromium(*host.chromium_args(), *flags) as tab:
        await show(tab, page)
        assert await tab.run("() => isSecureContext") is secure


@pytest.mark.parametrize("flags", [[], [f"{TREATED}ws://myapp.test"]])
async def test_a_secure_page_and_an_insecure_socket(flags: list[str]) -> None:
    """It may open one only if Chromium was told to take it for secure; wss needs no word."""
    host = Host([("*://myapp.test/*", 1)], security=Security(origins=["https://page.test"]))
    async with host, chromium(*host.chromium_args(), *flags) as tab:
        await show(tab, "https://page.test/")
        assert await visit(tab, "wss://myapp.test/") == CLEAN
        if flags:
            assert await visit(tab, "ws://myapp.test/") == CLEAN
        else:
            with pytest.raises(Exception, match="insecure WebSocket connection may not be initiated"):
                await visit(tab, "ws://myapp.test/")


@pytest.mark.parametrize("lifted", [True, False])
async def test_local_network_access_and_the_resolver(lifted: bool) -> None:
    """Without the flag that comes along, a page without an address may not connect to this machine."""
    host = Host([("ws://myapp.test/*", 1)], security=Security(origins=["null"]))
    async with host:
        args = [arg for arg in host.chromium_args("resolver") if lifted or "LocalNetwork" not in arg]
        async with chromium(*args) as tab:
            await show(tab, NO_ORIGIN)
            assert await visit(tab, "ws://myapp.test/") == (CLEAN if lifted else FAILED[-1])


async def test_a_certificate_is_taken_for_its_pin_alone() -> None:
    """Chromium believes the host's authority, and no other that it never heard of."""
    host, other = Host([("wss://myapp.test/*", 1)]), Host([("wss://myapp.test/*", 1)])
    async with host, other:
        args = [*other.chromium_args()[:1], *host.chromium_args()[1:]]
        for its, seen in ((other.chromium_args(), CLEAN), (args, FAILED[-1])):
            async with chromium(*its) as tab:
                await show(tab, "https://myapp.test/")
                assert await visit(tab, "wss://myapp.test/") == seen
