"""Pages for a real browser: a server of blank ones, and what a script in them saw of its WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self, cast

import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page

from interceptor import Host, Security, WebSocketClose, WebSocketReceive

from .browser import launched
from .peer import PATIENCE, Recorder

Seen = list[list[object]]
"""What a page saw of a socket, in order: open, message, error, close, each with what came with it."""

FAILED: Seen = [["error"], ["close", 1006, "", False]]
"""What a page sees of a handshake that came to nothing, whatever the reason."""

CLEAN = ["close", 1000, "", True]
"""The end of a socket that was opened and closed in order, as a page sees it."""

UNEXPECTED = "Unexpected response code: {}"
"""What Chromium's console says of a handshake that was answered by another status than 101."""

LOCAL_NETWORK = "--disable-features=LocalNetworkAccessChecksWebSockets"
"""Lets pages without a server of their own (data:, or answered by the test) connect to this machine."""

PROBE = """
globalThis.connect = (url, protocols = []) => {
    const socket = new WebSocket(url, protocols);
    const seen = [], checks = new Set();
    const note = (...entry) => { seen.push(entry); checks.forEach(check => check()); };
    const bytes = data => Array.from(new Uint8Array(data), byte => String.fromCharCode(byte)).join("");
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => note("open", socket.protocol, socket.extensions));
    socket.addEventListener("message", ({data}) => typeof data === "string"
        ? note("message", "text", data) : note("message", "binary", bytes(data)));
    socket.addEventListener("error", () => note("error"));
    socket.addEventListener("close", event => note("close", event.code, event.reason, event.wasClean));
    const until = (kind, times = 1) => new Promise((resolve, reject) => {
        const missing = () => `waited for ${times} x ${kind}, saw ${JSON.stringify(seen).slice(0, 1000)}`;
        const timer = setTimeout(() => reject(new Error(missing())), PATIENCE);
        const check = () => {
            const enough = seen.filter(entry => entry[0] === kind).length >= times;
            if (!enough && seen.at(-1)?.[0] !== "close") return;
            clearTimeout(timer);
            checks.delete(check);
            enough ? resolve(seen) : reject(new Error(missing()));
        };
        checks.add(check);
        check();
    });
    return {socket, seen, until};
};
""".replace("PATIENCE", str(PATIENCE * 1000))
"""`connect(url, protocols)` gives the socket, what was `seen` of it, and `until(kind, times)` to wait."""

VISIT = """async ([url, protocols]) => {
    const {socket, until} = connect(url, protocols);
    socket.onopen = () => socket.close(1000);
    return await until("close");
}"""

WORKER = """
onmessage = async ({data: url}) => {
    const {socket, until} = connect(url);
    await until("open");
    socket.send("from a worker");
    await until("message");
    socket.close(3000);
    postMessage(await until("close"));
};
"""

HTML = "text/html; charset=utf-8"
BLANK = (HTML, "<!doctype html><title>blank</title>")
FILES = {"/worker.js": ("text/javascript", PROBE + WORKER)}


class Site:
    """A server of pages on a port of its own, and so of an origin of its own.

    Attributes:
        port: where it listens, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Serve a blank page at every path but those of `FILES`."""
        visits: set[asyncio.Transport] = set()
        server = await asyncio.get_running_loop().create_server(lambda: Visit(visits), "127.0.0.1", 0)
        try:
            yield cls(server.sockets[0].getsockname()[1])
        finally:
            # A browser opens connections to spare. One that is accepted, but has no transport yet when the
            # server closes, is left open by asyncio. What a timer wakes runs after those are made.
            await asyncio.sleep(0.001)
            server.close()
            for transport in visits:
                transport.abort()
            await server.wait_closed()

    @property
    def origin(self) -> str:
        """The origin of its pages."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def trusted(self) -> Security:
        """The word to a host that these pages may connect."""
        return Security(origins=(self.origin,))


class Visit(asyncio.Protocol):
    """One request to a site."""

    def __init__(self, visits: set[asyncio.Transport]) -> None:
        self._visits = visits
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._visits.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._visits.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        mime, text = FILES.get(self._head.split(b" ")[1].decode(), BLANK)
        fields = f"Content-Type: {mime}\r\nContent-Length: {len(text.encode())}\r\nConnection: close\r\n"
        self._transport.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n{text}".encode())
        self._transport.close()


class Tab:
    """A page in a browsing context of its own (cookies, connections), and what its console says.

    Attributes:
        page: to drive it.
        site: where its page came from, unless another URL was given.
        console: what its console said so far.
    """

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.console: list[str] = []
        self._said = asyncio.Event()
        page.on("console", self._note)

    @classmethod
    @asynccontextmanager
    async def open(cls, browser: Browser, url: str | None = None) -> AsyncIterator[Self]:
        """Show a page of a site of its own, or the one at `url`."""
        context = await browser.new_context()
        try:
            await context.add_init_script(PROBE)
            async with Site.open() as site:
                tab = cls(await context.new_page(), site)
                await tab.page.goto(url or site.origin)
                yield tab
        finally:
            await context.close()

    async def see(self, script: str, arg: object = None) -> Seen:
        """Run a function in the page that returns what it saw of a socket."""
        return cast(Seen, await self.page.evaluate(script, arg))

    async def visit(self, url: str, protocols: list[str] | None = None) -> Seen:
        """Open a socket, close it with 1000 once it is open, and return all that the page saw."""
        return await self.see(VISIT, [url, protocols or []])

    async def complaint(self, text: str) -> str:
        """Wait until the console says something with `text` in it, and return that."""
        async with asyncio.timeout(PATIENCE):
            while not (found := [line for line in self.console if text in line]):
                self._said.clear()
                await self._said.wait()
        return found[0]

    def _note(self, message: ConsoleMessage) -> None:
        self.console.append(message.text)
        self._said.set()


def url_of(host: Host, path: str = "/") -> str:
    """The URL of a path at a host's own address, without the token: for pages that are known by origin."""
    return host.http_url(path).replace("http", "ws", 1)


def echo(host: Host) -> None:
    """Have a host send back whatever it gets."""

    @host.on("WebSocketReceive")
    def send_back(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)


def closes(recorder: Recorder) -> list[tuple[int, str, bool, str]]:
    """How the sockets of a host ended, as the host has it."""
    return [(e.code, e.reason, e.was_clean, e.initiator) for e in recorder.of(WebSocketClose)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium for all tests of a module; one with flags of its own has a fixture of this name."""
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def tab(chromium: Browser) -> AsyncIterator[Tab]:
    """A tab of that Chromium, new for each test."""
    async with Tab.open(chromium) as tab:
        yield tab
