"""The settings for each engine, in that engine: what the rules match, and what goes on to a real server."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import pytest_asyncio

from interceptor import (
    Host,
    Mode,
    Security,
    Tls,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.ways.browsers import QT_VARIABLE
from interceptor.ways.certs import Authority

from .engines import Window
from .engines.chromium import chromedriver, chromium, playwright
from .engines.firefox import firefox
from .engines.windows import qt, webkit
from .pages import CLEAN, FAILED, PROBE, VISIT, Seen, Site
from .peer import Recorder
from .real import Leg, Sent, read_sent, real_server

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

REAL = "real.test"
"""A name of the real server. No DNS knows it; the browsers and the host are told, each in its way."""

RESOLVED = {"network.dns.localDomains": REAL}
"""How Firefox is told."""


@cache
def authority() -> Authority:
    """Signs the certificates of the real server."""
    return Authority(Tls())


def own_flags() -> list[str]:
    """How Chromium is told of the real server: where it is, and whom to believe."""
    trust = f"--ignore-certificate-errors-spki-list={authority().pin}"
    return [f"--host-resolver-rules=MAP {REAL} 127.0.0.1", trust]


def also(args: list[str]) -> list[str]:
    """Join our flags with those of the host, as a program that has some of its own would."""
    joined: dict[str, list[str]] = {}
    for name, _, value in (arg.partition("=") for arg in [*args, *own_flags()]):
        joined.setdefault(name, []).append(value)
    return [f"{name}={','.join(values)}" for name, values in joined.items()]


Start = Callable[[Host], AbstractAsyncContextManager[Window]]

INSECURE = {"acceptInsecureCerts": True}
"""What WebDriver calls it to take certificates of authorities that nobody has heard of."""

WAYS: dict[str, Start] = {
    "chromium pac": lambda host: chromium(*also(host.chromium_args())),
    "chromium proxy": lambda host: chromium(*also(host.chromium_args("proxy"))),
    "chromium resolver": lambda host: chromium(*also(host.chromium_args("resolver"))),
    "playwright launch": lambda host: playwright(proxy=host.playwright_proxy(), trusting=True),
    "playwright context": lambda host: playwright(context_proxy=host.playwright_proxy(), trusting=True),
    "chromedriver proxy": lambda host: chromedriver(host.webdriver_capabilities("chrome")),
    "chromedriver pac": lambda host: chromedriver(host.webdriver_capabilities("chrome", "pac"), *also([])),
    "firefox pac": lambda host: firefox({**host.firefox_prefs(), **RESOLVED}, INSECURE),
    "firefox proxy": lambda host: firefox(host.firefox_prefs("proxy"), INSECURE),
    "firefox capabilities": lambda host: firefox({}, host.webdriver_capabilities("firefox")),
    "qt proxy": lambda host: qt(host.qt_environ()),
    "qt pac": lambda host: qt(host.qt_environ("pac")),
    "qt resolver": lambda host: qt(host.qt_environ("resolver")),
    "webkit proxy": lambda host: webkit(host.webkit_proxy_uri),
}
PLAIN: dict[str, Callable[[], AbstractAsyncContextManager[Window]]] = {
    "chromium": lambda: chromium(*also([])),
    "playwright": lambda: playwright(*also([]), trusting=True),
    "chromedriver": lambda: chromedriver(INSECURE, *also([])),
    "firefox": lambda: firefox(RESOLVED, INSECURE),
    "qt": lambda: qt({QT_VARIABLE: os.environ[QT_VARIABLE]}),
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
WORK = """async ([url]) => {
    const worker = new Worker("/worker.js");
    return await new Promise((resolve, reject) => {
        worker.onmessage = ({data}) => resolve(data);
        worker.onerror = event => reject(new Error(event.message));
        worker.postMessage(url);
    });
}"""
SAID: Seen = [
    ["message", "text", "héllo"],
    ["message", "binary", "\0\xff\x80"],
    ["message", "text", "x" * 1000],
]
ENOUGH = ["close", 1000, "enough", True]


class Real(NamedTuple):
    """A real server.

    Attributes:
        legs: the recorders before it, for ws and for wss.
        trust: file with the certificate of its authority.
    """

    legs: dict[str, Leg]
    trust: Path

    def url(self, scheme: str, name: str, path: str) -> str:
        return f"{scheme}://{name}:{self.legs[scheme].port}{path}"


class Rig(NamedTuple):
    """A window that was told of a host.

    Attributes:
        way: its name.
        window: shows a page of a server on this machine.
        seen: the events of the host.
        front: what the browser sent to the host.
    """

    way: str
    window: Window
    seen: Recorder
    front: Leg

    @property
    def engine(self) -> str:
        return self.way.partition(" ")[0]

    @property
    def takes_loopback(self) -> bool:
        """Whether the addresses of this machine come to the host too."""
        return self.way.endswith(("proxy", "launch", "context"))

    def path(self, name: str) -> str:
        """A path that is asked for by this way alone."""
        return f"/{name}-{self.way.replace(' ', '-')}"


class Plain:
    """What each engine sends to the real server where nobody told it of us.

    Args:
        real: the server.
        site: its page is where the sockets are opened.
    """

    def __init__(self, real: Real, site: Site) -> None:
        self._real = real
        self._site = site
        self._sent: dict[str, Sent] = {}

    async def sent(self, engine: str, url: str) -> Sent:
        """What it sends for a URL; it is asked once for all paths of a server."""
        server, _, path = url.rpartition("/")
        if f"{engine} {server}" not in self._sent:
            await self._ask(engine)
        head, frames = self._sent[f"{engine} {server}"]
        return Sent(head.replace(b"GET /plain ", f"GET /{path} ".encode(), 1), frames)

    async def _ask(self, engine: str) -> None:
        names = ["127.0.0.1", "localhost", *([REAL] if engine != "webkit" else [])]
        async with PLAIN[engine]() as window:
            await show(window, self._site.origin)
            for scheme, leg in self._real.legs.items():
                for name in names:
                    url = self._real.url(scheme, name, "")
                    await see(window, TALK, f"{url}/plain", ("chat",))
                    self._sent[f"{engine} {url}"] = read_sent(await leg.take_with("GET /plain "))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    trust = tmp_path_factory.mktemp("real") / "authority.pem"
    trust.write_text(authority().pem)
    context = authority().context("127.0.0.1")
    context.sni_callback = lambda tls, name, _: setattr(
        tls, "context", authority().context(name or "127.0.0.1")
    )
    with pytest.MonkeyPatch.context() as patch:
        resolve = socket.getaddrinfo
        patch.setattr(
            socket,
            "getaddrinfo",
            lambda name, *args, **more: resolve("127.0.0.1" if name == REAL else name, *args, **more),
        )
        patch.setenv(QT_VARIABLE, " ".join(f'"{flag}"' for flag in own_flags()))
        async with real_server() as plain, real_server(context) as secure:
            yield Real({"ws": plain, "wss": secure}, trust)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with Site.open() as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(real: Real, site: Site) -> Plain:
    return Plain(real, site)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS)
async def rig(request: pytest.FixtureRequest, real: Real, site: Site) -> AsyncIterator[Rig]:
    async with started(request.param, real, site) as rig:
        yield rig


@asynccontextmanager
async def started(way: str, real: Real, site: Site) -> AsyncIterator[Rig]:
    """A host and a window that was told of it, by a way that a recorder stands in."""
    rows = [
        *((f"{scheme}://{name}/*", Mode.AUTO) for scheme in ("ws", "wss") for name in ("auto.test", "myapp")),
        ("*://gate.test/*", Mode.MANUAL),
        # With a wildcard in the name, or all that is asked of it would come by the resolver.
        *((real.url(scheme, "*.0.0.1", "/ours/*"), Mode.AUTO) for scheme in ("ws", "wss")),
        *((real.url(scheme, "real.t*", "/ours/*"), Mode.AUTO) for scheme in ("ws", "wss")),
        (f"ws://real.t*:{site.port}/*", Mode.AUTO),
    ]
    host = Host(rows, security=Security(origins=[site.origin]), tls=Tls(trust=real.trust))
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
        yield Rig(way, window, seen, front)


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


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("name", ["auto.test", "myapp"])
async def test_automatic(rig: Rig, scheme: str, name: str) -> None:
    url = f"{scheme}://{name}/chat?x=1"
    seen = await see(rig.window, TALK, url)
    assert seen[0][:2] == ["open", ""]
    assert seen[1:] == [*SAID, ENOUGH]
    [upgrade] = [event for event in rig.seen.of(WebSocketUpgrade) if event.url == url]
    [close] = rig.seen.of(WebSocketClose, upgrade.id)
    assert upgrade.type == "auto"
    assert rig.seen.names(upgrade.id) == ["WebSocketUpgrade", *["WebSocketReceive"] * 3, "WebSocketClose"]
    assert (close.code, close.reason, close.was_clean, close.initiator) == (1000, "enough", True, "client")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_manual_101(rig: Rig, scheme: str) -> None:
    seen = await see(rig.window, VISIT, f"{scheme}://gate.test/in", ("other", "chat"))
    assert seen[0][:2] == ["open", "chat"]
    assert seen[-1] == CLEAN


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_manual_403(rig: Rig, scheme: str) -> None:
    url = f"{scheme}://gate.test/out"
    assert await see(rig.window, VISIT, url, ("chat",)) == FAILED
    [upgrade] = [event for event in rig.seen.of(WebSocketUpgrade) if event.url == url]
    assert rig.seen.names(upgrade.id) == ["WebSocketUpgrade"]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1"]
)  # No rule could match the one; one could the other.
async def test_what_no_rule_matches_reaches_the_real_server(
    rig: Rig, real: Real, plain: Plain, scheme: str, name: str
) -> None:
    """Its bytes are those that the browser sent us, and those that it sends where nobody told it of us."""
    leg = real.legs[scheme]
    url = real.url(scheme, name, rig.path(name))
    came = await pass_on(rig, plain, leg, url)
    assert rig.front.has_seen(f"{name}:{leg.port}") == rig.takes_loopback
    if rig.takes_loopback and scheme == "ws":
        sent = await rig.front.take_with(rig.path(name))
        if rig.engine == "webkit":  # It asks for no tunnel, but for the whole URL.
            assert came == sent.replace(f"GET ws://{name}:{leg.port}".encode(), b"GET ", 1)
        else:
            assert came == sent.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("rig", [way for way in WAYS if way.endswith("pac")], indirect=True)
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_what_a_script_sends_here_on_suspicion(rig: Rig, real: Real, plain: Plain, scheme: str) -> None:
    """A script that is not shown the path sends all of a name here that a rule could match."""
    leg = real.legs[scheme]
    await pass_on(rig, plain, leg, real.url(scheme, REAL, rig.path(REAL)))
    shown = scheme == "ws" and rig.engine != "firefox"
    assert rig.front.has_seen(f"CONNECT {REAL}:{leg.port}") == (not shown)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_addresses_of_this_machine(rig: Rig, real: Real, scheme: str) -> None:
    """Where they do not come to the host, a rule for them does nothing."""
    leg = real.legs[scheme]
    url = real.url(scheme, "127.0.0.1", f"/ours{rig.path('loopback')}")
    assert (await see(rig.window, TALK, url))[1:] == [*SAID, ENOUGH]
    ours = url in [event.url for event in rig.seen.of(WebSocketUpgrade)]
    assert (ours, leg.has_seen(rig.path("loopback"))) == (rig.takes_loopback, not rig.takes_loopback)


NAMED = [way for way in WAYS if not way.endswith("resolver")]  # It has no wildcards.


@pytest.mark.parametrize("rig", NAMED, indirect=True)
async def test_a_page_of_a_name_and_its_worker(rig: Rig, site: Site) -> None:
    """They may connect to their own name; the host is told of no origin."""
    page = f"{REAL}:{site.port}"
    await show(rig.window, f"http://{page}/")
    try:
        assert (await see(rig.window, TALK, f"ws://{page}/page"))[1:] == [*SAID, ENOUGH]
        seen = await see(rig.window, WORK, f"ws://{page}/worker")
        assert seen[1:] == [["message", "text", "from a worker"], ["close", 3000, "", True]]
        assert await rig.window.run("() => isSecureContext") is False
    finally:
        await show(rig.window, site.origin)
    upgrades = [event for event in rig.seen.of(WebSocketUpgrade) if page in event.url]
    assert [event.url for event in upgrades] == [f"ws://{page}/page", f"ws://{page}/worker"]
    assert [event.origin for event in upgrades] == [f"http://{page}"] * 2


async def pass_on(rig: Rig, plain: Plain, leg: Leg, url: str) -> bytes:
    """Talk to the real server; return what came to it, which is what comes to it without us."""
    seen = await see(rig.window, TALK, url, ("chat",))
    assert seen[0][:2] == ["open", "chat"]
    assert seen[1:] == [*SAID, ENOUGH]
    came = await leg.take_with(f"GET /{url.rpartition('/')[2]} ")
    assert read_sent(came) == await plain.sent(rig.engine, url)
    return came
