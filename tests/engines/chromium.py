"""Chromium: started by Playwright with flags or with a proxy, or by chromedriver."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from playwright.async_api import Page, ProxySettings, async_playwright

from ..browser import flags, is_root, require_chromium
from . import START, Window, call, missing, started

ATTEMPTS = 5


class Tab:
    """A page of Playwright's."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(self, url: str) -> None:
        await self.page.goto(url)

    async def run(self, script: str, arg: object = None) -> object:
        return cast(object, await self.page.evaluate(script, arg))


@asynccontextmanager
async def chromium(*args: str) -> AsyncIterator[Tab]:
    """A Chromium with flags."""
    async with playwright(*args) as tab:
        yield tab


@asynccontextmanager
async def playwright(
    *args: str,
    proxy: ProxySettings | None = None,
    context_proxy: ProxySettings | None = None,
    trusting: bool = False,
) -> AsyncIterator[Tab]:
    """A Chromium of Playwright's.

    Args:
        args: flags besides the usual ones.
        proxy: for the browser.
        context_proxy: for the context of the page.
        trusting: take any certificate.
    """
    path, sandbox = require_chromium(), not is_root()
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=path, args=[*flags(), *args], chromium_sandbox=sandbox, proxy=proxy
        )
        try:
            context = await browser.new_context(proxy=context_proxy, ignore_https_errors=trusting)
            yield Tab(await context.new_page())
        finally:
            await browser.close()


class Driven:
    """A session of WebDriver's (https://w3c.github.io/webdriver/)."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def begin(self, capabilities: Mapping[str, object]) -> None:
        """Begin the session."""
        answer = await self.ask("", capabilities={"alwaysMatch": capabilities})
        self._url += f"/{cast(dict[str, str], answer)['sessionId']}"

    async def open(self, url: str) -> None:
        await self.ask("/url", url=url)

    async def run(self, script: str, arg: object = None) -> object:
        return await self.ask("/execute/sync", script=f"return {call(script, arg)}", args=[])

    async def end(self) -> None:
        """End the browser."""
        await asyncio.to_thread(self._send, urllib.request.Request(self._url, method="DELETE"))

    async def ask(self, command: str, **parameters: object) -> object:
        """Give a command, and return its value."""
        body = json.dumps(parameters).encode()
        request = urllib.request.Request(self._url + command, body, {"Content-Type": "application/json"})
        return await asyncio.to_thread(self._send, request)

    def _send(self, request: urllib.request.Request) -> object:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=START) as answer:
                return cast(object, json.load(answer)["value"])
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:2000]) from error


@asynccontextmanager
async def chromedriver(capabilities: Mapping[str, object], *args: str) -> AsyncIterator[Window]:
    """A Chromium of chromedriver's, with capabilities and flags."""
    path, driver = require_chromium(), shutil.which("chromedriver")
    if driver is None:
        missing("chromedriver", "it is not on PATH", excused=True)
    options = {"binary": path, "args": ["--headless", *flags(), *args]}
    async with AsyncExitStack() as stack:
        session = Driven(f"http://127.0.0.1:{await _start(driver, stack)}/session")
        await session.begin({**capabilities, "goog:chromeOptions": options})
        try:
            yield session
        finally:
            await session.end()


async def _start(driver: str, stack: AsyncExitStack) -> int:
    """Start chromedriver; return its port.

    It takes a port of the system's choice in one family of addresses, and ends if another program has that
    of the other family; so it is started once more.
    """
    said = b""
    for _ in range(ATTEMPTS):
        process = await stack.enter_async_context(started(driver, "--port=0"))
        assert process.stdout is not None
        async with asyncio.timeout(START):
            while line := await process.stdout.readline():
                said += line
                if found := re.search(rb"successfully on port (\d+)", line):
                    return int(found[1])
    raise AssertionError(f"chromedriver did not start: {said.decode(errors='replace')}")
