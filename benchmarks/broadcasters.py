"""The servers of `broadcast.py`; each sends one message after another to all its sockets when it is told to.

    python -m benchmarks.broadcasters NAME [--loop asyncio|uvloop] [--core N] [--profile]

The order on standard input is `broadcast N`. Keepalive pings are off, so that nothing else is on the wire.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.deflate import POOL, json_text
from benchmarks.servers import OURS
from benchmarks.serving import ORDERS, Ready, Serve, main

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

TEXTS = [json_text(number).decode() for number in range(POOL)]


def take_orders(audience: Callable[[], Callable[[str], object]]) -> None:
    """Broadcast when told; `audience` gives what sends to all the sockets of that moment.

    Between two broadcasts the loop has its turn, as it has in a program where something happens meanwhile.
    """
    texts = itertools.cycle(TEXTS)

    async def broadcast(count: int) -> None:
        send = audience()
        for _ in range(count):
            send(next(texts))
            await asyncio.sleep(0)

    ORDERS["broadcast"] = broadcast


async def broadcast_interceptor(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """Our host."""
    from interceptor import Host, Security, Timeouts

    host = Host(
        [("*://dyalog_root/*", 1)],
        compression=deflate,
        timeouts=Timeouts(ping=None),
        security=Security(allow_no_origin=True),
    )
    take_orders(lambda: partial(host.broadcast, list(host.sockets)))
    async with host:
        ready(host.address[1])
        await stop.wait()


async def broadcast_websockets(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """The asyncio server of `websockets`, with its own broadcast()."""
    from websockets.asyncio.server import broadcast, serve

    async def listen(websocket: ServerConnection) -> None:
        await websocket.wait_closed()

    compression = "deflate" if deflate else None
    async with serve(listen, "127.0.0.1", 0, compression=compression, ping_interval=None) as server:
        take_orders(lambda: partial(broadcast, list(server.connections)))
        ready(next(iter(server.sockets)).getsockname()[1])
        await stop.wait()


DEFLATE = ", deflate"  # after the name of a server that has it
BROADCASTERS: dict[str, Serve] = {
    OURS: broadcast_interceptor,
    "websockets": broadcast_websockets,
    OURS + DEFLATE: partial(broadcast_interceptor, deflate=True),
    "websockets" + DEFLATE: partial(broadcast_websockets, deflate=True),
}

if __name__ == "__main__":
    main(BROADCASTERS)
