"""The examination itself: each way in turn, four sockets by each, and what both ends saw of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from ..events import WebSocketUpgrade
from ..exceptions import InvalidArgument
from . import launch
from .diagnosis import SOCKETS, Diagnosis, Finding, Socket
from .launch import Running
from .server import serving
from .site import Outcome, Site

__all__ = ["BROWSERS", "Browser", "diagnose"]

Browser = Literal["chromium", "firefox", "qt"]
Via = Literal["pac", "proxy", "resolver"]

SETTINGS: Mapping[Browser, str] = {
    "chromium": "chromium_args",
    "firefox": "firefox_prefs",
    "qt": "qt_environ",
}
BROWSERS: Mapping[Browser, tuple[Via, ...]] = {
    "chromium": ("pac", "proxy", "resolver"),
    "firefox": ("pac", "proxy"),
    "qt": ("proxy", "pac", "resolver"),
}
NAME = "doctor.interceptor.test"
"""A host name that no DNS knows (RFC 6761), for the sockets that the program is to answer."""

PROGRAM, SERVER = "from the program", "from the real server"
PATIENCE = 60.0
"""Seconds for the page to open all its sockets."""


UNTRUSTED = (
    "the browser gave up before its request: most likely it does not take the certificate of the host. "
    "Chromium and Qt take it by the pin in the settings (Chromium only with --user-data-dir), Firefox with "
    "acceptInsecureCerts, or with host.ca_pem in its profile"
)
UNHEARD = (
    "it never came to the program: the browser does not follow the settings. A policy of the machine "
    "(chrome://policy, about:policies), an extension, or a second proxy setting may overrule them; a "
    "browser that runs already ignores new arguments, so give it a --user-data-dir or --profile of its own"
)
ASTRAY = (
    "it did not come through to the real server; a firewall or another proxy of the machine may stand between"
)


class Probe(Protocol):
    """A host that is to be reached."""

    async def __aenter__(self) -> object:
        """Listen."""

    async def __aexit__(self, *exc_info: Any) -> None:
        """Stop."""

    def on(
        self, which: Literal["WebSocketUpgrade", "WebSocketError"]
    ) -> Callable[[Callable[[Any], None]], object]:
        """Have a function called for an event."""

    def WebSocketSend(self, id: str, data: str) -> int:
        """Send a message."""

    def chromium_args(self, via: Via = "pac") -> list[str]:
        """Settings for Chromium."""

    def firefox_prefs(self, via: Literal["pac", "proxy"] = "pac") -> dict[str, bool | int | str]:
        """Settings for Firefox."""

    def qt_environ(self, via: Via = "proxy") -> dict[str, str]:
        """Settings for Qt."""


Make = Callable[[Sequence[tuple[str, int]], str], tuple[Probe, ssl.SSLContext]]
"""Makes a host with these rules that trusts an origin, and what ends TLS for `localhost` by its authority."""


async def diagnose(make: Make, browser: Browser, say: Callable[[str], None]) -> Diagnosis:
    """Start a browser with the settings of each way to a new host, and see where its sockets come out.

    Raises:
        InvalidArgument: there is no such browser here.
        InvalidState: it is not installed.
    """
    saw: list[str] = []
    async with Site.open() as site:
        probe, context = make([(f"ws://{NAME}/*", 1), (f"wss://{NAME}/*", 1)], site.origin)

        @probe.on("WebSocketUpgrade")
        def greet(event: WebSocketUpgrade) -> None:
            probe.WebSocketSend(event.id, PROGRAM)

        probe.on("WebSocketError")(lambda event: saw.append(f"{event.url}: {event.text}"))
        async with probe:
            return await examine(probe, saw, site, context, browser, say)


async def examine(
    probe: Probe,
    saw: list[str],
    site: Site,
    context: ssl.SSLContext,
    browser: Browser,
    say: Callable[[str], None],
) -> Diagnosis:
    """Start a browser with the settings of each way, and see where its sockets come out.

    Args:
        probe: running; answers NAME with PROGRAM.
        saw: what the probe reports, a line each; it is cleared before each way.
        site: has the page; its origin may connect to the probe.
        context: ends TLS for `localhost` with a certificate that the browser is told to take.
        browser: which one.
        say: is told what is being tried.

    Raises:
        InvalidArgument: there is no such browser here.
        InvalidState: it is not installed.
    """
    if browser not in BROWSERS:
        raise InvalidArgument(f"browser is {browser!r}; it is {', '.join(map(repr, BROWSERS))}")
    name, findings = str(browser), list[Finding]()
    async with serving(SERVER) as plain, serving(SERVER, context) as secure:
        urls = [_url(socket, plain, secure) for socket in SOCKETS]
        for via in BROWSERS[browser]:
            say(f"{browser}, by {via} ...")
            saw.clear()
            async with _start(probe, browser, via, site.begin(urls)) as running:
                name = running.name
                outcomes, fault = await _wait(running, site)
            findings += [
                Finding(via, socket, fault or _judge(socket, outcome, saw))
                for socket, outcome in zip(SOCKETS, outcomes, strict=True)
            ]
    return Diagnosis(name, SETTINGS[browser], tuple(findings))


def _url(socket: Socket, plain: int, secure: int) -> str:
    if socket.ours:
        return f"{socket.scheme}://{NAME}/{socket.scheme}"
    return f"{socket.scheme}://localhost:{secure if socket.scheme == 'wss' else plain}/"


def _start(probe: Probe, browser: Browser, via: Via, url: str) -> AbstractAsyncContextManager[Running]:
    if browser == "chromium":
        return launch.chromium(probe.chromium_args(via), url)
    if browser == "firefox":
        assert via != "resolver"
        return launch.firefox(probe.firefox_prefs(via), url)
    return launch.qt(probe.qt_environ(via), url)


async def _wait(running: Running, site: Site) -> tuple[Sequence[Outcome], str]:
    """Wait for the report of the page; return it, or why there is none."""
    report = asyncio.ensure_future(site.report())
    ended = asyncio.ensure_future(running.ended())
    try:
        await asyncio.wait((report, ended), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if report.done():
            return report.result(), ""
        nothing = [Outcome(None, 0)] * len(SOCKETS)
        if ended.done():
            return nothing, f"the browser did not stay: {ended.result()}"
        came = "came, but the page did not report" if site.visited else "did not come to the page"
        return nothing, f"the browser {came} within {PATIENCE:g} s{running.last_words()}"
    finally:
        report.cancel()
        ended.cancel()


def _judge(socket: Socket, outcome: Outcome, saw: list[str]) -> str:
    """Say what is wrong with a socket; nothing if it came out where it belongs."""
    expected = PROGRAM if socket.ours else SERVER
    if outcome.heard == expected:
        return ""
    if outcome.heard is not None:
        return f"it was answered {outcome.heard}, and not {expected}"
    if not socket.ours:
        return ASTRAY
    told = [line for line in saw if f"{socket.scheme}://{NAME}" in line or "TLS" in line]
    if told:
        return f"it came to the program, which refused it: {told[-1]}"
    return UNTRUSTED if socket.scheme == "wss" else UNHEARD
