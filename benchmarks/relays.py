"""The proxies of `relay.py`; each runs in a process of its own and reports its port, as serving.py has it.

    python -m benchmarks.relays NAME [--loop asyncio|uvloop] [--core N] [--profile]

All of them open tunnels for CONNECT. This file also runs in an environment that has mitmproxy and not us.
"""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks.serving import Ready, Serve, main

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def serve_host(ready: Ready, stop: asyncio.Event, rule: str) -> None:
    """Our host, which passes everything on that this benchmark sends."""
    from interceptor import Host

    async with Host([(rule, 1)]) as host:
        ready(host.address[1])
        await stop.wait()


async def serve_blind(ready: Ready, stop: asyncio.Event) -> None:
    """Our host with a rule for another name: nothing of a tunnel is read."""
    await serve_host(ready, stop, "ws://myapp.test/*")


async def serve_looked(ready: Ready, stop: asyncio.Event) -> None:
    """Our host with a rule for the server's address, but another path: the request is read and goes on."""
    await serve_host(ready, stop, "ws://127.0.0.1:*/ours")


class Half(asyncio.Protocol):
    """One end of the plain relay: the least that hands bytes over and holds a fast sender back."""

    other: Half
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()


class Caller(asyncio.Protocol):
    """A connection to the plain relay until its CONNECT is answered; the head comes in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.pause_reading()
        self.task = asyncio.create_task(self.join(int(data.split(b" ")[1].split(b":")[1])))

    async def join(self, port: int) -> None:
        """Reach the server, then step aside."""
        near = Half()
        _, far = await asyncio.get_running_loop().create_connection(Half, "127.0.0.1", port)
        near.other, far.other, near.transport = far, near, self.transport
        self.transport.set_protocol(near)
        self.transport.write(ESTABLISHED)
        self.transport.resume_reading()


async def serve_plain(ready: Ready, stop: asyncio.Event) -> None:
    """A plain TCP relay on asyncio's protocols, with flow control: what there is to pay at the least."""
    server = await asyncio.get_running_loop().create_server(Caller, "127.0.0.1", 0)
    async with server:
        ready(server.sockets[0].getsockname()[1])
        await stop.wait()


async def serve_mitmproxy(ready: Ready, stop: asyncio.Event) -> None:
    """mitmproxy as `mitmdump -q` runs it: regular mode, WebSockets taken apart, nothing printed."""
    from mitmproxy.addons.proxyserver import Proxyserver
    from mitmproxy.options import Options
    from mitmproxy.tools.dump import DumpMaster

    options = Options(listen_host="127.0.0.1", listen_port=0, mode=["regular"])
    master = DumpMaster(options, with_termlog=False, with_dumper=False)
    running = asyncio.create_task(master.run())
    server: Proxyserver = master.addons.get("proxyserver")
    while not server.listen_addrs():  # noqa: ASYNC110  # it has no event for this
        await asyncio.sleep(0.01)
    ready(server.listen_addrs()[0][1])
    await stop.wait()
    master.shutdown()
    await running


OURS = "interceptor"
LOOKED = "interceptor, looked into"
PLAIN = "plain relay"
MITMPROXY = "mitmproxy"
RELAYS: dict[str, Serve] = {
    OURS: serve_blind,
    LOOKED: serve_looked,
    PLAIN: serve_plain,
    MITMPROXY: serve_mitmproxy,
}

if __name__ == "__main__":
    main(RELAYS)
