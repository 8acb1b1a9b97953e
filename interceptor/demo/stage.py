"""The demonstration as a whole: its host, its page, and for people a terminal and a browser."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .entries import Entry, Printer
from .program import PATHS, RULES, make_host
from .server import PageServer

__all__ = ["running", "show"]


async def show(
    say: Callable[[str], None], *, port: int = 0, browser: bool = True, colours: bool = False
) -> None:
    """Run the demonstration until it is cancelled.

    Args:
        say: prints a line.
        port: of the page; 0 lets the system choose.
        browser: open the page in a browser if there is a display.
        colours: mark the events with colours.

    Raises:
        InvalidState: the port cannot be had.
    """
    async with running(Printer(say, colours).note, port) as url:
        opened = browser and has_display()
        say(f"The page   {url}" + ("  (opening it in your browser)" if opened else ""))
        for pattern, mode in RULES:
            say(f"{'The rules' if pattern == RULES[0][0] else '':9}  {mode.name.lower():6}  {pattern}")
        say("Events follow as they come. Ctrl-C stops.\n")
        if opened:
            open_browser(url)
        await asyncio.Event().wait()


@asynccontextmanager
async def running(note: Callable[[Entry], None], port: int = 0) -> AsyncIterator[str]:
    """Run the host and the page's server; gives the URL of the page.

    Args:
        note: is told of every event and answer.
        port: of the page; 0 lets the system choose.

    Raises:
        InvalidState: the port cannot be had.
    """
    server = PageServer()
    await server.start(port)
    try:
        async with make_host(note, server.origins) as host:
            server.tell({path: f"ws://127.0.0.1:{host.address[1]}{path}" for path in PATHS})
            yield server.url
    finally:
        server.close()


def has_display() -> bool:
    """Whether a browser could show itself."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(url: str) -> None:
    """Open a URL in the user's browser, without waiting for it."""
    # In a process of its own: webbrowser.open waits where BROWSER names a program that stays in the
    # foreground. In a session of its own: Ctrl-C in the terminal is not meant for the browser.
    subprocess.Popen(
        [sys.executable, "-m", "webbrowser", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
