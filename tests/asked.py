"""Requests for pages, and hosts whose program answers them."""

from __future__ import annotations

import json

from interceptor import Host, HTTPRequest

from .peer import Answer, Peer

ROWS = [("http://myapp/*", 1), ("http://gate/*", 2), ("ws://myapp/*", 1), ("*://safe.test/*", 1)]


def ask(
    path: str = "/", host: str = "myapp", *extra: str, method: str = "GET", body: bytes | None = None
) -> bytes:
    """The bytes of a request."""
    fields = [f"Host: {host}", *extra]
    if body is not None:
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode("latin-1") + (body or b"")


def host_of(rows: list[tuple[str, int]] | None = None, **more: object) -> Host:
    """A host whose program answers with what it was asked, as JSON."""
    host = Host(ROWS if rows is None else rows, root="myapp", **more)  # type: ignore[arg-type]

    @host.on("HTTPRequest")
    def echo(event: HTTPRequest) -> HTTPRequest:
        body = event.body if isinstance(event.body, str) else f"bytes {event.body!r}"
        return event.respond(json.dumps([event.method, event.url, body]), mime="application/json")

    return host


async def get(host: Host, *requests: bytes) -> list[Answer]:
    """Make requests on one connection; the answers in order."""
    async with Peer.connect(host) as peer:
        return [await peer.ask(request) for request in requests]


async def one(host: Host, request: bytes) -> Answer:
    """Make a request on a connection of its own."""
    return (await get(host, request))[0]


def origin(host: Host) -> str:
    """The Origin field of a page of the host's own."""
    return f"Origin: {host.http_url('').rstrip('/')}"
