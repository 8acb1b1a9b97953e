"""The smallest host: every message comes back.

    python examples/echo.py

prints a URL; connect to it from any program on this machine, for example `python -m websockets "<the URL>"`.
"""

import asyncio

from interceptor import Host, WebSocketReceive

host = Host([("ws://myapp/*", 1)], root="myapp")


@host.on("WebSocketReceive")
def echo(event: WebSocketReceive) -> None:
    host.WebSocketSend(event.id, event.data)


@host.on("All")
def show(event: object) -> None:
    print(event, flush=True)


async def main() -> None:
    async with host:
        print(host.ws_url("/chat"), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped")
