"""Serves the demonstration's one page, on loopback."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from importlib import resources

from ..exceptions import InvalidState

__all__ = ["PageServer"]

NAMES = ("127.0.0.1", "localhost")
HEAD = 16 * 1024
"""Most bytes of a request head."""

PATIENCE = 10.0
"""Seconds for a request and its answer."""

STRICTEST = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class PageServer:
    """Answers `GET /` with the page, and only requests that mean its own address.

    Attributes:
        origins: what the page may have as its origin.
        url: of the page.
    """

    def __init__(self) -> None:
        self.origins: tuple[str, ...] = ()
        self.url = ""
        self._template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        self._settings = "{}"
        self._hosts = "'none'"
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self, port: int) -> None:
        """Listen.

        Args:
            port: 0 lets the system choose.

        Raises:
            InvalidState: the port cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self._connected, NAMES[0], port, limit=HEAD)
        except OSError as exc:
            why = str(exc).rpartition(": ")[2]
            raise InvalidState(f"cannot listen on port {port}: {why}; --port 0 takes any free one") from exc
        port = self._server.sockets[0].getsockname()[1]
        self.origins = tuple(f"http://{name}" + (f":{port}" if port != 80 else "") for name in NAMES)
        self.url = f"{self.origins[0]}/"

    def tell(self, urls: Mapping[str, str]) -> None:
        """Tell the page the WebSocket URL of each path."""
        # A script element ends at the next "</script", whatever JSON thinks of it.
        self._settings = json.dumps({"urls": dict(urls)}).replace("<", "\\u003c")
        self._hosts = " ".join({url.removesuffix(path) for path, url in urls.items()})

    def close(self) -> None:
        """Stop at once; browsers keep connections open on which they ask nothing."""
        if self._server is not None:
            self._server.close()
        for task, writer in self._connections.items():
            writer.transport.abort()
            task.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: of one that asyncio makes, some versions log that it was cancelled.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.decode("latin-1").split("\r\n")))
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # No request, or nobody there to take the answer. TimeoutError is an OSError.
        finally:
            writer.close()

    def _answer(self, lines: list[str]) -> bytes:
        hosts = [line[5:].strip().lower() for line in lines if line.lower().startswith("host:")]
        if len(hosts) != 1 or f"http://{hosts[0]}" not in self.origins:
            # A page of another name may have had its name resolved to this machine (DNS rebinding).
            return _response("421 Misdirected Request", "This server has another name.\n")
        if lines[0].split(" ")[:2] != ["GET", "/"]:
            return _response("404 Not Found", "There is one page here: /\n")
        nonce = secrets.token_urlsafe(16)
        page = self._template.replace("{{nonce}}", nonce).replace("{{settings}}", self._settings)
        inline = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:"
        return _response("200 OK", page, "text/html", f"{STRICTEST}; {inline}; connect-src {self._hosts}")


def _response(status: str, body: str, kind: str = "text/plain", policy: str = STRICTEST) -> bytes:
    data = body.encode()
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}; charset=utf-8",
        f"Content-Length: {len(data)}",
        f"Content-Security-Policy: {policy}",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cross-Origin-Opener-Policy: same-origin",
        "Cross-Origin-Resource-Policy: same-origin",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("latin-1") + data
