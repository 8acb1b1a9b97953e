"""The server of `growth.py`: our host, of which more and more is asked.

    python -m benchmarks.growing interceptor [--loop asyncio|uvloop] [--core N] [--profile]

The orders on standard input are `handlers N` and `rows N`. Keepalive pings are off, so that nothing else is
on the wire, and the limits let in whatever the benchmark sends.
"""

from __future__ import annotations

import asyncio

from benchmarks.patterns import made_rows
from benchmarks.servers import OURS
from benchmarks.serving import ORDERS, Ready, main
from interceptor import Host, Limits, Security, Timeouts, WebSocketReceive

MIB = 1024 * 1024
OWN_ROW = ("*://dyalog_root/*", 1)
WILD = 0  # per cent of the rows that name no host; the others are what a look-up need not go through
LIMITS = Limits(sockets=100_000, message=32 * MIB, write_buffer=64 * MIB)


async def serve_growing(ready: Ready, stop: asyncio.Event) -> None:
    """Our host: one handler sends each message back, and as many more as it is told look at it."""
    host = Host(
        [OWN_ROW],
        compression=False,
        limits=LIMITS,
        timeouts=Timeouts(ping=None),
        security=Security(allow_no_origin=True),
    )

    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    async def handlers(count: int) -> None:
        host.off("WebSocketReceive")
        host.on("WebSocketReceive")(echo)
        for _ in range(count - 1):
            host.on("WebSocketReceive")(lambda event: None)

    async def rows(count: int) -> None:
        host.intercepted_urls = [*made_rows(count - 1, WILD), OWN_ROW]  # type: ignore[assignment]

    host.on("WebSocketReceive")(echo)
    ORDERS.update(handlers=handlers, rows=rows)
    async with host:
        ready(host.address[1])
        await stop.wait()


if __name__ == "__main__":
    main({OURS: serve_growing})
