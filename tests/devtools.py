"""The page of a browser that somebody else started, by the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import socket
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from websockets.asyncio.client import ClientConnection, connect

from .engines import START, call
from .peer import PATIENCE

LISTENING = re.compile(r"(?:DevTools listening on ws|Chromium-based browser to http)://(127\.0\.0\.1:\d+)")
FLAGS = ("--remote-debugging-port=0",)


def free_port() -> str:
    """A port that is free now: Qt takes no 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Devtools:
    """A page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._events: list[dict[str, object]] = []

    @classmethod
    @asynccontextmanager
    async def find(cls, log: Path, url: str) -> AsyncIterator[Devtools]:
        """Wait for a browser that says in a log where it listens, and for its page at such a URL."""
        async with asyncio.timeout(START):
            while not (found := await asyncio.to_thread(_page_of, log, url)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with connect(found, max_size=None, proxy=None) as connection:
            yield cls(connection)

    async def run(self, script: str, arg: object = None) -> object:
        """Run a function in the page, and return what came of it."""
        params = {"expression": call(script, arg), "awaitPromise": True, "returnByValue": True}
        answer = await self.ask("Runtime.evaluate", **params)
        assert "exceptionDetails" not in answer, answer
        return cast(dict[str, object], answer["result"]).get("value")

    async def until(self, script: str, arg: object = None) -> object:
        """Run a function until its result is true, and return that."""
        async with asyncio.timeout(PATIENCE):
            while not (found := await self.run(script, arg)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found

    async def text(self, words: str) -> None:
        """Wait until the page shows some words."""
        await self.until("words => document.body?.innerText.includes(words)", words)

    async def shoot(self, path: Path, scheme: str) -> None:
        """Keep a picture of the page in light or dark."""
        await self.ask(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        shot = await self.ask("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(cast(str, shot["data"])))

    async def log(self) -> list[str]:
        """What the browser itself has written to the page's console so far."""
        self._events.clear()
        await self.ask("Log.enable")
        await self.ask("Log.disable")
        added = [event["params"] for event in self._events if event["method"] == "Log.entryAdded"]
        return [
            cast(str, entry["entry"]["text"]) for entry in cast(list[dict[str, dict[str, object]]], added)
        ]

    async def ask(self, method: str, **params: object) -> dict[str, object]:
        """Give a command, and return its result."""
        number = next(self._ids)
        await self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(PATIENCE):
            while (answer := json.loads(await self._connection.recv())).get("id") != number:
                self._events.append(answer)
        assert "result" in answer, answer
        return cast(dict[str, object], answer["result"])


def _page_of(log: Path, url: str) -> str:
    match = LISTENING.search(log.read_text(errors="replace"))
    if match is None:
        return ""
    with urllib.request.urlopen(f"http://{match[1]}/json", timeout=PATIENCE) as answer:
        pages = json.load(answer)
    return next((page["webSocketDebuggerUrl"] for page in pages if url in page["url"]), "")
