"""The settings for each engine, in that engine: what the rules match, and what goes on to a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple, cast

import pytest
import pytest_asyncio

from interceptor import (
    Host,
    Mode,
    Security,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .engines import Window
from .engines.chromium import chromedriver, chromium, playwright
from .engines.firefox import firefox
from .engines.windows import qt, webkit
from .pages import CLEAN, FAILED, PROBE, VISIT, Seen, Site
from .peer import Recorder
from .real import Leg, Sent, read_sent, real_server

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

Start = Callable[[Host], AbstractAsyncContextManager[Window]]

WAYS: dict[str, Start] = {
    "chromium pac": lambda host: chromium(*host.chromium_args()),
    "chromium proxy": lambda host: chromium(*host.chromium_args("proxy")),
    "chromium resolver": lambda host: chromium(*host.chromium_args("resolver")),
    "playwright launch": lambda host: playwright(proxy=host.playwright_proxy()),
    "playwright context": lambda host: playwright(context_proxy=host.playwright_proxy()),
    "chromedriver proxy": lambda host: chromedriver(host.webdriver_capabilities("chrome")),
    "chromedriver pac": lambda host: chromedriver(host.webdriver_capabilities("chrome", via="pac")),
    "firefox pac": lambda host: firefox(host.firefox_prefs()),
    "firefox proxy": lambda host: firefox(host.firefox_prefs("proxy")),
    "firefox capabilities": lambda host: firefox({}, host.webdriver_capabilities("firefox")),
    "qt proxy": lambda host: qt(host.qt_environ()),
    "qt pac": lambda host: qt(host.qt_environ("pac")),
    "qt resolver": lambda host: qt(host.qt_environ("resolver")),
    "webkit proxy": lambda host: webkit(host.webkit_proxy_uri),
}
PLAIN: dict[str, Callable[[], AbstractAsyncContextManager[Window]]] = {
    "chromium": chromium,
    "playwright": chromium,
    "chromedriver": lambda: chromedriver({}),
    "firefox": lambda: firefox({}),
    "qt": lambda: qt({}),
    "webkit": lambda: webkit(""),
}
"""The same engines, told nothing of us."""

TALK = """async ([url, protocols]) => {
    const {socket, until} = connect(url, protocols);
    await until("open");
    socket.send("h\\u00e9llo");
    socket.send(Uint8Array.of(0, 255, 128));
    socket.send("x".repeat(1000));
    await until("message", 3);
    socket.close(1000, "enough");
    return await until("close");
}"""
SAID: Seen = [
    ["message", "text", "héllo"],
    ["message", "binary", "\0\xff\x80"],
    ["message", "text", "x" * 1000],
]
ENOUGH = ["close", 1000, "enough", True]


class Rig(NamedTuple):
    """A window that was told of a host.

    Attributes:
        way: its name.
        window: shows a page of a server on this machine.
        seen: the events of the host.
        front: what the browser sent to the host.
        real: what came to the real server.
    """

    way: str
    window: Window
    seen: Recorder
    front: Leg
    real: Leg

    @property
    def engine(self) -> str:
        return self.way.partition(" ")[0]

    @property
    def takes_loopback(self) -> bool:
        """Whether the addresses of this machine come to the host too."""
        return self.way.endswith(("proxy", "launch", "context"))


class Plain:
    """What each engine sends to the real server where nobody told it of us."""

    def __init__(self, real: Leg, site: Site) -> None:
        self._real = real
        self._site = site
        self._sent: dict[str, Sent] = {}

    async def sent(self, engine: str, name: str) -> Sent:
        """What it sends for a path; it is asked once, with another path of the same length."""
        if engine not in self._sent:
            async with PLAIN[engine]() as window:
                await show(window, self._site.origin)
                await see(window, TALK, f"ws://127.0.0.1:{self._real.port}/{engine}", ("chat",))
            self._sent[engine] = read_sent(await self._real.sent_with(f"GET /{engine} "))
        head, frames = self._sent[engine]
        return Sent(head.replace(f"/{engine} ".encode(), f"{name} ".encode(), 1), frames)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real() -> AsyncIterator[Leg]:
    async with real_server() as leg:
        yield leg


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with Site.open() as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(real: Leg, site: Site) -> Plain:
    return Plain(real, site)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS)
async def rig(request: pytest.FixtureRequest, real: Leg, site: Site) -> AsyncIterator[Rig]:
    async with started(request.param, real, site) as rig:
        yield rig


@asynccontextmanager
async def started(way: str, real: Leg, site: Site) -> AsyncIterator[Rig]:
    """A host and a window that was told of it, by a way that a recorder stands in."""
    rows = [
        ("ws://auto.test/*", Mode.AUTO),
        ("ws://myapp/*", Mode.AUTO),
        ("ws://gate.test/*", Mode.MANUAL),
        (f"ws://*.0.0.1:{real.port}/ours/*", Mode.AUTO),  # What is spelled out would go to the resolver.
    ]
    host = Host(rows, security=Security(origins=["*"]))
    host.on("WebSocketUpgrade")(answer)
    seen = Recorder(host)

    @host.on("WebSocketReceive")
    def send_back(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host)
        front = await stack.enter_async_context(Leg.to(host.address[1]))
        host._authority = lambda: f"127.0.0.1:{front.port}"  # type: ignore[method-assign]
        window = await stack.enter_async_context(WAYS[way](host))
        await show(window, site.origin)
        yield Rig(way, window, seen, front, real)


def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
    """Let the one in and not the other."""
    if event.type == "auto":
        return None
    return event.accept("chat") if event.url.endswith("/in") else event.deny(403, body="members only")


async def show(window: Window, url: str) -> None:
    """Show a page that can be asked to open sockets."""
    await window.open(url)
    await window.run(f"async () => {{ {PROBE} }}")


async def see(window: Window, script: str, url: str, protocols: tuple[str, ...] = ()) -> Seen:
    """Run a function in the page that returns what it saw of a socket."""
    return cast(Seen, await window.run(script, [url, protocols]))


@pytest.mark.parametrize("name", ["auto.test", "myapp"])
async def test_automatic(rig: Rig, name: str) -> None:
    url = f"ws://{name}/chat?way={rig.way.replace(' ', '-')}"
    seen = await see(rig.window, TALK, url)
    assert seen[0][:2] == ["open", ""]
    assert seen[1:] == [*SAID, ENOUGH]
    upgrade = next(event for event in rig.seen.of(WebSocketUpgrade) if event.url == url)
    [close] = rig.seen.of(WebSocketClose, upgrade.id)
    assert upgrade.type == "auto"
    assert rig.seen.names(upgrade.id) == ["WebSocketUpgrade", *["WebSocketReceive"] * 3, "WebSocketClose"]
    assert (close.code, close.reason, close.was_clean, close.initiator) == (1000, "enough", True, "client")


async def test_manual_101(rig: Rig) -> None:
    seen = await see(rig.window, VISIT, "ws://gate.test/in", ("other", "chat"))
    assert seen[0][:2] == ["open", "chat"]
    assert seen[-1] == CLEAN


async def test_manual_403(rig: Rig) -> None:
    assert await see(rig.window, VISIT, "ws://gate.test/out", ("chat",)) == FAILED
    upgrade = next(event for event in rig.seen.of(WebSocketUpgrade) if event.url == "ws://gate.test/out")
    assert rig.seen.names(upgrade.id) == ["WebSocketUpgrade"]


@pytest.mark.parametrize("path", ["/theirs", "/ours"])  # But for a slash: the host has to look at the latter.
async def test_what_no_rule_matches_reaches_the_real_server(rig: Rig, plain: Plain, path: str) -> None:
    """Its bytes are those that the browser sent us, and those that it sends where nobody told it of us."""
    name = f"{path}?way={rig.way.replace(' ', '-')}"
    seen = await see(rig.window, TALK, f"ws://127.0.0.1:{rig.real.port}{name}", ("chat",))
    assert seen[0][:2] == ["open", "chat"]
    assert seen[1:] == [*SAID, ENOUGH]
    came = await rig.real.sent_with(name)
    assert read_sent(came) == await plain.sent(rig.engine, name)
    assert rig.front.has_seen(name) == rig.takes_loopback
    if rig.takes_loopback:
        assert came == (await rig.front.sent_with(name)).partition(b"\r\n\r\n")[2]
