"""Messages, seen from both ends: a page in a real Chromium, and the events of the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, Self

import pytest

from interceptor import Host, Limits, Mode, WebSocketClose, WebSocketError
from interceptor import WebSocketReceive as Receive
from interceptor import WebSocketUpgrade as Upgrade

from .pages import Seen, Tab, closes, echo, url_of
from .pages import chromium as chromium
from .pages import tab as tab
from .peer import Recorder

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]

EVERYTHING = [("*", Mode.AUTO)]
MIB = 1024 * 1024
OPENED = ["open", "", ""]


# Messages

MESSAGES: dict[str, tuple[str, str | bytes]] = {
    "text": ("'Hello'", "Hello"),
    "empty text": ("''", ""),
    "text beyond the BMP": (r"'\u{1F388}\u{10FFFF}\uD7FF\uE000'", "\U0001f388\U0010ffff\ud7ff\ue000"),
    "a lone surrogate": (r"'a\uD800b'", "a\ufffdb"),
    "control characters": (r"'\0\r\n\u{FEFF}'", "\0\r\n\ufeff"),
    "1 MiB of text": ("'0123456789abcdef'.repeat(65536)", "0123456789abcdef" * 65536),
    "1 MiB beyond ASCII": (r"'é\u{1F388}'.repeat(131072)", "é\U0001f388" * 131072),
    "binary": ("Uint8Array.from({length: 256}, (_, i) => i)", bytes(range(256))),
    "part of a buffer": ("new DataView(new ArrayBuffer(9), 3, 2)", b"\0\0"),
    "a Blob": ("new Blob(['blob ', 'of two'])", b"blob of two"),
    "empty binary": ("new Uint8Array()", b""),
    "1 MiB of binary": (
        "Uint8Array.from({length: 1048576}, (_, i) => i * i % 251)",
        bytes(i * i % 251 for i in range(251)) * (MIB // 251) + bytes(i * i % 251 for i in range(MIB % 251)),
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_echo(tab: Tab, name: str) -> None:
    script, message = MESSAGES[name]
    host = Host(EVERYTHING, security=tab.site.trusted)
    recorder = Recorder(host)
    echo(host)
    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url);
                await until("open");
                socket.send(MESSAGE);
                await until("message");
                socket.close(1000, "enough");
                return await until("close");
            }""".replace("MESSAGE", script),
            url_of(host, "/echo"),
        )
    [upgrade] = recorder.of(Upgrade)
    [received] = recorder.of(Receive)
    assert (upgrade.type, upgrade.url) == ("auto", "ws://dyalog_root/echo")
    assert (received.data, received.fin) == (message, True)
    assert received.datatype == (1 if isinstance(message, str) else 2)
    assert closes(recorder) == [(1000, "enough", True, "client")]
    assert recorder.names(upgrade.id) == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"]
    assert seen[1] == (
        ["message", "text", message]
        if isinstance(message, str)
        else ["message", "binary", message.decode("latin-1")]
    )
    assert seen[2:] == [["close", 1000, "enough", True]]


async def test_many_messages_keep_their_order(tab: Tab) -> None:
    host = Host(EVERYTHING, security=tab.site.trusted)
    recorder = Recorder(host)
    echo(host)
    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url);
                await until("open");
                for (let i = 0; i < 500; i++)
                    socket.send(i % 3 ? `${i}:`.padEnd(i * 7, "x") : Uint8Array.of(i >> 8, i & 255));
                await until("message", 500);
                socket.close(1000);
                return await until("close");
            }""",
            url_of(host),
        )
    wanted = [f"{i}:".ljust(i * 7, "x") if i % 3 else bytes(divmod(i, 256)) for i in range(500)]
    assert [event.data for event in recorder.of(Receive)] == wanted
    assert [entry[2] for entry in seen[1:-1]] == [
        data if isinstance(data, str) else data.decode("latin-1") for data in wanted
    ]


@pytest.mark.parametrize("compression", [True, False])
async def test_chunks_arrive_in_the_page_as_one_message(tab: Tab, compression: bool) -> None:
    host = Host(EVERYTHING, compression=compression, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate("url => { globalThis.mine = connect(url); }", url_of(host))
        id = (await recorder.wait_for(Upgrade)).id
        for part in ("Grü", "ße ", "\U0001f388"):
            host.WebSocketSend(id, part, fin=False)
        host.WebSocketSend(id, "", fin=True)
        host.WebSocketSend(id, b"\x01", fin=False, opcode=0)
        host.WebSocketSend(id, b"\xff", fin=True)
        host.WebSocketSend(id, "whole")
        host.WebSocketClose(id)
        seen = await tab.see("() => mine.until('close')")
    assert seen[1:] == [
        ["message", "text", "Grüße \U0001f388"],
        ["message", "binary", "\x01\xff"],
        ["message", "text", "whole"],
        ["close", 1000, "", True],
    ]


async def test_a_large_message_can_be_taken_in_chunks(tab: Tab) -> None:
    host = Host(EVERYTHING, chunks=True, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        seen = await tab.see(
            r"""async url => {
                const {socket, until} = connect(url);
                await until("open");
                socket.send("aé\u{1F388}".repeat(300000));
                socket.send(new Uint8Array(3));
                socket.close(1000);
                return await until("close");
            }""",
            url_of(host),
        )
    *parts, last, small = recorder.of(Receive)
    assert len(parts) > 1
    assert not any(part.fin for part in parts)
    assert last.fin
    assert "".join(str(part.data) for part in [*parts, last]) == "aé\U0001f388" * 300000
    assert (small.data, small.fin, small.datatype) == (bytes(3), True, 2)
    assert seen[-1] == ["close", 1000, "", True]


async def test_a_message_over_the_limit_closes_with_1009(tab: Tab) -> None:
    host = Host(EVERYTHING, limits=Limits(message=1000), security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url);
                await until("open");
                socket.send("x".repeat(1000));
                socket.send("y".repeat(1001));
                return await until("close");
            }""",
            url_of(host),
        )
        await recorder.wait_for(WebSocketClose)
    [error] = recorder.of(WebSocketError)
    assert seen[-1][:2] == ["close", 1009]
    assert [event.data for event in recorder.of(Receive)] == ["x" * 1000]
    assert "Limits.message" in error.text
    assert recorder.names()[-2:] == ["WebSocketError", "WebSocketClose"]


# permessage-deflate


class Meter:
    """A wire that counts what passes.

    Attributes:
        up: bytes from the page.
        down: bytes to the page.
    """

    def __init__(self) -> None:
        self.up = self.down = 0
        self.host: Host | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[tuple[Self, int]]:
        """Listen; give the meter and its port. `host` must be set before anybody comes."""
        meter = cls()
        async with await asyncio.start_server(meter._pass_on, "127.0.0.1", 0) as server:
            yield meter, server.sockets[0].getsockname()[1]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.host is not None
        far_reader, far_writer = await asyncio.open_connection(*self.host.address)
        with suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, far_writer, "up"), self._pump(far_reader, writer, "down"))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Literal["up", "down"]
    ) -> None:
        while data := await reader.read(65536):
            setattr(self, way, getattr(self, way) + len(data))
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.MANUAL])
@pytest.mark.parametrize("compression", [True, False])
async def test_permessage_deflate(tab: Tab, mode: Mode, compression: bool) -> None:
    async with Meter.open() as (meter, port):
        host = Host([(f"ws://127.0.0.1:{port}/*", mode)], compression=compression, security=tab.site.trusted)
        recorder = Recorder(host)
        echo(host)
        meter.host = host

        @host.on("WebSocketUpgrade")
        def accept(event: Upgrade) -> Upgrade | None:
            return event.accept() if event.type == "manual" else None

        async with host:
            seen = await tab.see(
                """async url => {
                    globalThis.mine = connect(url);
                    await mine.until("open");
                    mine.socket.send("again and ".repeat(100000));
                    return await mine.until("message");
                }""",
                f"ws://127.0.0.1:{port}/",
            )
            [session] = host.sockets.values()
            extensions = session.extensions
            await session.close()
    [upgrade] = recorder.of(Upgrade)
    assert (upgrade.header("Sec-WebSocket-Extensions") or "").startswith("permessage-deflate")
    assert seen[0] == ["open", "", extensions]
    assert seen[1] == ["message", "text", "again and " * 100000]
    if compression:
        assert extensions.startswith("permessage-deflate")
        assert max(meter.up, meter.down) < 50_000
    else:
        assert extensions == ""
        assert min(meter.up, meter.down) > 1_000_000


# Several sockets, and where they are opened


async def test_twenty_sockets_at_once(tab: Tab) -> None:
    host = Host(EVERYTHING, security=tab.site.trusted)
    recorder = Recorder(host)

    @host.on("WebSocketReceive")
    async def answer(event: Receive) -> None:
        await asyncio.sleep(0)
        host.WebSocketSend(event.id, f"{event.id} {event.data!s}")

    async with host:
        seen: list[Seen] = await tab.page.evaluate(
            """async urls => {
                const all = [];
                for (const some of [urls.slice(0, 10), urls.slice(10)]) {
                    // Where too many wait to be opened at once, Chromium holds some back for seconds.
                    all.push(...some.map(url => connect(url)));
                    await Promise.all(all.map(one => one.until("open")));
                }
                for (let round = 0; round < 5; round++)
                    all.forEach((one, i) => one.socket.send(`${i}.${round}`));
                await Promise.all(all.map(one => one.until("message", 5)));
                all.forEach((one, i) => one.socket.close(3000 + i));
                return await Promise.all(all.map(one => one.until("close")));
            }""",
            [url_of(host, f"/{n}") for n in range(20)],
        )
    ids = {int(event.url.rpartition("/")[2]): event.id for event in recorder.of(Upgrade)}
    assert len(recorder.of(Upgrade)) == len(ids) == len(set(ids.values())) == 20
    for n, id in ids.items():
        texts = [f"{n}.{turn}" for turn in range(5)]
        assert [event.data for event in recorder.of(Receive, id)] == texts
        assert [event.code for event in recorder.of(WebSocketClose, id)] == [3000 + n]
        assert seen[n][1:] == [
            *(["message", "text", f"{id} {text}"] for text in texts),
            ["close", 3000 + n, "", True],
        ]


async def test_a_socket_of_a_worker(tab: Tab) -> None:
    host = Host(EVERYTHING, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    echo(host)
    async with host:
        seen = await tab.see(
            """url => new Promise((resolve, reject) => {
                const worker = new Worker("/worker.js");
                worker.onmessage = event => resolve(event.data);
                worker.onerror = event => reject(new Error(event.message));
                worker.postMessage(url);
            })""",
            url_of(host, "/worker"),
        )
    [upgrade] = recorder.of(Upgrade)
    assert (upgrade.url, upgrade.origin) == ("ws://dyalog_root/worker", tab.site.origin)
    assert [event.data for event in recorder.of(Receive)] == ["from a worker"]
    assert seen == [OPENED, ["message", "text", "from a worker"], ["close", 3000, "", True]]
    assert closes(recorder) == [(3000, "", True, "client")]


@pytest.mark.parametrize("frame", ['src="/frame"', 'srcdoc="<p>of the page</p>"'])
async def test_a_socket_of_a_frame(tab: Tab, frame: str) -> None:
    host = Host(EVERYTHING, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    echo(host)
    async with host:
        seen = await tab.see(
            """async ([frame, url]) => {
                document.body.innerHTML = `<iframe ${frame}></iframe>`;
                const inner = document.querySelector("iframe");
                await new Promise(resolve => inner.onload = resolve);
                const {socket, until} = inner.contentWindow.connect(url);
                await until("open");
                socket.send("from a frame");
                await until("message");
                socket.close(3000);
                return await until("close");
            }""",
            [frame, url_of(host, "/frame")],
        )
    [upgrade] = recorder.of(Upgrade)
    assert (upgrade.url, upgrade.origin) == ("ws://dyalog_root/frame", tab.site.origin)
    assert [event.data for event in recorder.of(Receive)] == ["from a frame"]
    assert seen == [OPENED, ["message", "text", "from a frame"], ["close", 3000, "", True]]
