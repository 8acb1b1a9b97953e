"""The demonstration drives itself: a headless Chromium opens the page, and both ends tell what they saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..doctor.chromium import MISSING, find_chromium, flags, is_root
from ..exceptions import InvalidState
from .entries import Entry
from .program import PATHS
from .stage import running
from .views import HELLO, PageState, compare, host_saw, of_path, page_saw, transcript

if TYPE_CHECKING:
    from playwright.async_api import Page

__all__ = ["check"]

PATIENCE = 20.0
"""Seconds to wait for the page or the host to come to the next step."""

READ_PAGE = """() => ({
    cards: [...document.querySelectorAll("article")].map((card) => ({
        path: card.querySelector("h2").textContent,
        mode: card.dataset.mode,
        state: card.querySelector(".state").textContent,
    })),
    log: [...document.querySelectorAll("#log li")].map((line) => ({
        ...line.dataset,
        text: line.querySelector(".text").textContent,
    })),
})"""


async def check(say: Callable[[str], None], *, port: int = 0) -> bool:
    """Drive the page, print the transcript of both ends; return whether they agree.

    Args:
        say: prints a line.
        port: of the page; 0 lets the system choose.

    Raises:
        InvalidState: the port cannot be had, or Playwright or Chromium, and then it says what to install.
    """
    chromium = await asyncio.to_thread(find_chromium)
    if chromium is None:
        raise InvalidState(MISSING)
    journal = Journal()
    faults: list[str] = []
    async with running(journal.note, port) as url, new_page(chromium) as page:
        page.on("pageerror", lambda error: faults.append(f"the page raised {error}"))
        await page.goto(url)
        faults += await drive(page, journal)
        state: PageState = await page.evaluate(READ_PAGE)
        entries = list(journal.entries)  # Before the browser ends, which closes sockets too.
    for path in PATHS:
        say(transcript(path, state, entries))
    saw = {path: page_saw(path, state) for path in PATHS}
    found = faults + compare(saw, {path: host_saw(path, entries) for path in PATHS})
    for line in found:
        say(f"DISAGREE  {line}")
    say("page and host disagree" if found else "page and host agree")
    return not found


class Journal:
    """Keeps the entries of a host.

    Attributes:
        entries: in order.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._changed = asyncio.Event()

    def note(self, entry: Entry) -> None:
        """Keep an entry."""
        self.entries.append(entry)
        self._changed.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is asked after each entry.

        Raises:
            TimeoutError: it does not come to hold.
        """
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def new_page(chromium: str) -> AsyncIterator[Page]:
    """Start a headless Chromium with a profile of its own; gives a page of it.

    Raises:
        InvalidState: Playwright is not installed, or the browser does not start or go on.
    """
    try:
        from playwright.async_api import Error, async_playwright
    except ImportError:
        raise InvalidState("the check needs Playwright: pip install playwright") from None
    async with _quiet_when_cancelled(), async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=flags(), chromium_sandbox=not is_root(), handle_sigint=False
            )
            try:
                yield await browser.new_page()
            finally:
                await browser.close()
        except Error as exc:
            raise InvalidState(f"{chromium} failed: {_first_line(exc)}") from exc


@asynccontextmanager
async def _quiet_when_cancelled() -> AsyncIterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        # Playwright, broken off while it starts, leaves tasks behind whose end is nobody's concern.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        raise


async def drive(page: Page, journal: Journal) -> list[str]:
    """Do on the page what a user would; return what did not come to pass."""
    from playwright.async_api import Error

    page.set_default_timeout(PATIENCE * 1000)
    try:
        await _wait_for_states(page, {"/echo": "open", "/chat": "open", "/members": "refused"})
        await _send(page, "/echo", HELLO)
        await _send(page, "/chat", HELLO)
        await _send(page, "/chat", "bye")
        await page.locator('article[data-path="/echo"] button').click()
        await _wait_for_states(page, {"/echo": "closed", "/chat": "closed"})
        await journal.wait(lambda: _ended(journal.entries, ("/echo", "/chat")))
    except (Error, TimeoutError) as exc:
        return [
            f"the page could not be driven to its end: {_first_line(exc) or 'a WebSocketClose is missing'}"
        ]
    return []


async def _wait_for_states(page: Page, states: Mapping[str, str]) -> None:
    for path, state in states.items():
        await page.wait_for_selector(f'article[data-path="{path}"][data-state="{state}"]')


async def _send(page: Page, path: str, text: str) -> None:
    """Type a message, and wait until the page shows that it came back."""
    await page.get_by_role("radio", name=path).check()
    field = page.get_by_label("Message", exact=True)
    await field.press_sequentially(text)
    await field.press("Enter")
    line = page.locator(f'#log [data-path="{path}"][data-kind="received"] .text')
    await line.get_by_text(text, exact=True).wait_for()


def _ended(entries: list[Entry], paths: tuple[str, ...]) -> bool:
    return all(
        any(getattr(entry, "event", "") == "WebSocketClose" for entry in of_path(path, entries))
        for path in paths
    )


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
