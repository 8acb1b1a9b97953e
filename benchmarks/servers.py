"""The servers of the benchmarks; each echoes what it gets and runs as serving.py has it.

    python -m benchmarks.servers NAME [--loop asyncio|uvloop] [--core N] [--profile]

DEFLATING has those that can agree to permessage-deflate, with it; deflating.py runs them.
"""

from __future__ import annotations

import asyncio
import queue
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from benchmarks.load import accept_key
from benchmarks.serving import Ready, Serve, main

if TYPE_CHECKING:
    import aiohttp.web
    import picows
    from websockets.asyncio.server import ServerConnection

    from interceptor import WebSocketReceive, WebSocketUpgrade

LARGEST = 4 * 1024 * 1024  # bytes of a message that a server must take, where it has to be told


async def serve_interceptor(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """Our host: a plain handler that sends each message back."""
    from interceptor import Host, Security

    host = Host([("*://dyalog_root/*", 1)], compression=deflate, security=Security(allow_no_origin=True))

    @host.on("WebSocketReceive")
    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    async with host:
        ready(host.address[1])
        await stop.wait()


async def serve_interceptor_manual(ready: Ready, stop: asyncio.Event) -> None:
    """Our host, whose program accepts each upgrade itself."""
    from interceptor import Host, Security

    host = Host([("*://dyalog_root/*", 2)], compression=False, security=Security(allow_no_origin=True))

    @host.on("WebSocketUpgrade")
    def accept(event: WebSocketUpgrade) -> WebSocketUpgrade:
        return event.accept()

    @host.on("WebSocketReceive")
    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    async with host:
        ready(host.address[1])
        await stop.wait()


async def serve_elsewhere(ready: Ready, stop: asyncio.Event, style: str) -> None:
    """Our host with its callbacks on another thread: one that runs what is posted to it, or is in `dq()`."""
    from interceptor import Host, Security

    posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    host = Host(
        [("*://dyalog_root/*", 1)],
        compression=False,
        post=posted.put if style == "post" else None,
        security=Security(allow_no_origin=True),
    )

    @host.on("WebSocketReceive")
    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)

    def work() -> None:
        while not stop.is_set():
            if style == "post":
                posted.get()()
            else:
                host.dq()

    async with host:
        worker = asyncio.get_running_loop().run_in_executor(None, work)
        ready(host.address[1])
        await stop.wait()
        posted.put(lambda: None)
    await worker


async def serve_interceptor_post(ready: Ready, stop: asyncio.Event) -> None:
    """Our host, with callbacks that are posted to another thread."""
    await serve_elsewhere(ready, stop, "post")


async def serve_interceptor_dq(ready: Ready, stop: asyncio.Event) -> None:
    """Our host, with callbacks in a thread that is in `dq()`."""
    await serve_elsewhere(ready, stop, "dq")


async def serve_websockets(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """The asyncio server of `websockets`, in the form that its own documentation gives for an echo."""
    from websockets.asyncio.server import serve

    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    compression = "deflate" if deflate else None
    async with serve(echo, "127.0.0.1", 0, compression=compression, max_size=LARGEST) as server:
        ready(next(iter(server.sockets)).getsockname()[1])
        await stop.wait()


async def serve_aiohttp(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """aiohttp's server without an access log."""
    from aiohttp import WSMsgType, web

    async def echo(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=deflate, max_msg_size=LARGEST)
        await websocket.prepare(request)
        async for message in websocket:
            if message.type == WSMsgType.TEXT:
                await websocket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await websocket.send_bytes(message.data)
        return websocket

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready(runner.addresses[0][1])
        await stop.wait()
    finally:
        await runner.cleanup()


async def asgi_echo(scope: Any, receive: Any, send: Any) -> None:
    """The smallest ASGI application that echoes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        event["type"] = "websocket.send"
        await send(event)


async def serve_uvicorn(ready: Ready, stop: asyncio.Event, implementation: str, deflate: bool) -> None:
    """uvicorn with one of its WebSocket implementations, no lifespan, no access log."""
    import uvicorn

    config = uvicorn.Config(
        asgi_echo,
        ws=implementation,
        ws_per_message_deflate=deflate,
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        ready(listening.getsockname()[1])
        await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving


async def serve_uvicorn_sansio(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """uvicorn on the sans-I/O core of `websockets`."""
    import websockets.server  # noqa: F401  (so that a missing package is found before the port is reported)

    await serve_uvicorn(ready, stop, "websockets-sansio", deflate)


async def serve_uvicorn_wsproto(ready: Ready, stop: asyncio.Event, deflate: bool = False) -> None:
    """uvicorn on wsproto."""
    import wsproto  # noqa: F401  (so that a missing package is found before the port is reported)

    await serve_uvicorn(ready, stop, "wsproto", deflate)


async def serve_picows(ready: Ready, stop: asyncio.Event) -> None:
    """picows, which is compiled and calls back from the read; on aiofastnet's transports, its default."""
    from picows import WSCloseCode, WSListener, WSMsgType, ws_create_server

    class Echo(WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(WSCloseCode.OK)
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    server = await ws_create_server(lambda request: Echo(), "127.0.0.1", 0)
    async with server:
        ready(server.sockets[0].getsockname()[1])
        await stop.wait()


class Counter(asyncio.Protocol):
    """Answers whole frames with as many frames of the same size; reads only the head of the first."""

    transport: asyncio.Transport
    handshaken = False
    frame_size = 0
    pending = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Count; the close frame is taken to come alone, as the client sends it."""
        if not self.handshaken:
            self.shake_hands(data)
        elif data[0] == 0x88 and len(data) == 8 and not self.pending:
            self.transport.write(b"\x88\x02\x03\xe8")
            self.transport.close()
        else:
            self.count(data)

    def shake_hands(self, head: bytes) -> None:
        """Accept whoever asks; the client sends its head in one piece."""
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(answer + b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n")
        self.handshaken = True

    def count(self, data: bytes) -> None:
        """Answer each frame that is now complete."""
        if not self.frame_size:
            self.learn(data)
        whole, self.pending = divmod(self.pending + len(data), self.frame_size)
        if whole:
            self.transport.write(self.reply if whole == 1 else self.reply * whole)

    def learn(self, data: bytes) -> None:
        """Read the size of all frames to come from the first."""
        width = {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
        size = int.from_bytes(data[2 : 2 + width], "big") if width else data[1] & 0x7F
        self.frame_size = 2 + width + 4 + size
        self.reply = bytes([data[0], data[1] & 0x7F]) + data[2 : 2 + width] + bytes(size)


async def serve_bare(ready: Ready, stop: asyncio.Event) -> None:
    """No WebSocket server at all: the least that asyncio can do, which shows what the client can reach."""
    server = await asyncio.get_running_loop().create_server(Counter, "127.0.0.1", 0)
    async with server:
        ready(server.sockets[0].getsockname()[1])
        await stop.wait()


OURS = "interceptor"
BARE = "bare asyncio"
ELSEWHERE: dict[str, Serve] = {
    "interceptor-post": serve_interceptor_post,
    "interceptor-dq": serve_interceptor_dq,
}
SERVERS: dict[str, Serve] = {
    OURS: serve_interceptor,
    **ELSEWHERE,
    "websockets": serve_websockets,
    "aiohttp": serve_aiohttp,
    "uvicorn-sansio": serve_uvicorn_sansio,
    "uvicorn-wsproto": serve_uvicorn_wsproto,
    "picows": serve_picows,
    BARE: serve_bare,
}
MANUAL = "interceptor-manual"
DEFLATING: dict[str, Serve] = {
    OURS: partial(serve_interceptor, deflate=True),
    "websockets": partial(serve_websockets, deflate=True),
    "aiohttp": partial(serve_aiohttp, deflate=True),
    "uvicorn-sansio": partial(serve_uvicorn_sansio, deflate=True),
    "uvicorn-wsproto": partial(serve_uvicorn_wsproto, deflate=True),
}

if __name__ == "__main__":
    main({**SERVERS, MANUAL: serve_interceptor_manual})
