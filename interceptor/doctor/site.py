"""The doctor's page, on a port of its own, and what it reports."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import NamedTuple, Self

import h11

__all__ = ["Outcome", "Site"]

LARGEST = 64 * 1024
"""Bytes of a report."""

HTML = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")]


class Outcome(NamedTuple):
    """What the page saw of a socket.

    Attributes:
        heard: the first message, None where none came.
        code: the close code, 0 where it was not closed in time.
    """

    heard: str | None
    code: int


class Site:
    """Serves the page, to whoever knows its path, and takes its report.

    Attributes:
        origin: of the page.
    """

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self._port = port
        self._path = f"/{secrets.token_urlsafe(16)}"
        self._urls: list[str] = []
        self._report: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self.visited = False

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Listen on loopback."""
        visits: set[asyncio.Task[None]] = set()
        sites: list[Self] = []

        async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            visits.add(task)
            try:
                await sites[0]._answer(reader, writer)
            except (OSError, h11.ProtocolError):
                pass  # It matters to nobody but the visitor.
            finally:
                writer.close()
                visits.discard(task)

        server = await asyncio.start_server(visit, "127.0.0.1", 0)
        sites.append(cls(server.sockets[0].getsockname()[1]))
        try:
            yield sites[0]
        finally:
            server.close()
            for task in list(visits):
                task.cancel()
            await asyncio.gather(*visits, return_exceptions=True)

    def begin(self, urls: list[str]) -> str:
        """Return the URL of a page that opens these sockets, one after the other."""
        self._urls = urls
        self._report = asyncio.get_running_loop().create_future()
        self.visited = False
        return self.origin + self._path

    async def report(self) -> list[Outcome]:
        """Wait for what the page saw, socket by socket."""
        return await self._report

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http, body = h11.Connection(h11.SERVER), b""
        request: h11.Request | None = None
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(LARGEST))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data) and len(body) < LARGEST:
                body += event.data
            elif isinstance(event, h11.ConnectionClosed):
                return
        assert request is not None
        status, page = self._respond(request, body)
        fields = [*HTML, ("Content-Length", str(len(page))), ("Connection", "close")]
        for part in (
            h11.Response(status_code=status, headers=fields),
            h11.Data(data=page),
            h11.EndOfMessage(),
        ):
            writer.write(http.send(part) or b"")
        await writer.drain()

    def _respond(self, request: h11.Request, body: bytes) -> tuple[int, bytes]:
        if request.target.decode("ascii") != self._path:
            return 404, b"no such page\n"
        if request.method == b"GET":
            self.visited = True
            text = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
            return 200, text.replace("URLS", json.dumps(self._urls)).encode()
        if request.method == b"POST" and not self._report.done():
            self._report.set_result([Outcome(*entry) for entry in json.loads(body)])
        return 200, b"thank you\n"
