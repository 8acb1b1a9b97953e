"""Several URLs, each with a handler of its own that lives as long as its socket.

    python examples/router.py

prints a URL for each route; `python -m websockets "<a URL>"` connects.
"""

import asyncio
import itertools
import json
import time

from interceptor import Host, Session

host = Host(root="desk")
rooms: dict[str, set[str]] = {}


@host.route("ws://desk/clock")
async def clock(socket: Session) -> None:
    """Three ticks; when the handler returns, the socket closes with 1000."""
    for tick in range(3):
        await socket.send(json.dumps({"tick": tick, "time": time.strftime("%H:%M:%S")}))


@host.route("ws://desk/sum", subprotocols=["numbers"])
async def running_sum(socket: Session) -> None:
    """Answers each number with the sum so far, and says goodbye in words to what is no number."""
    total = 0.0
    async for message in socket:
        try:
            total += float(message)
        except ValueError:
            await socket.close(4000, "not a number")
            return
        await socket.send(f"{total:g}")


@host.route("ws://desk/room/*")
async def room(socket: Session) -> None:
    """All sockets with the same path hear one another."""
    members = rooms.setdefault(socket.url, set())
    members.add(socket.id)
    try:
        for number in itertools.count(1):
            message = await socket.receive()
            host.broadcast(members, f"{number}: {message!r}")
    finally:
        members.discard(socket.id)


async def main() -> None:
    async with host:
        for path in ("/clock", "/sum", "/room/kitchen"):
            print(host.ws_url(path), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped")
