"""How a socket ends, seen from both ends: a page in a real Chromium, and the events of the host."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Dialog

from interceptor import Host, Limits, Mode, Session, WebSocketClose, WebSocketError
from interceptor import WebSocketReceive as Receive
from interceptor import WebSocketUpgrade as Upgrade

from .pages import Tab, closes, echo, url_of
from .pages import chromium as chromium
from .pages import tab as tab
from .peer import Recorder

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]

EVERYTHING = [("*", Mode.AUTO)]
MIB = 1024 * 1024
OPENED = ["open", "", ""]


# The one or the other closes

REASON = "é" * 61 + "!"  # 123 bytes

PAGE_CLOSES = {
    "without a code": ("socket.close()", (1005, "", True)),
    "1000": ("socket.close(1000)", (1000, "", True)),
    "3000": ("socket.close(3000, 'ok')", (3000, "ok", True)),
    "3999 with 123 bytes": (f"socket.close(3999, {REASON!r})", (3999, REASON, True)),
    "4999": (r"socket.close(4999, '\u{1F388}')", (4999, "\U0001f388", True)),
}


@pytest.mark.parametrize("name", PAGE_CLOSES)
async def test_the_page_closes(tab: Tab, name: str) -> None:
    script, wanted = PAGE_CLOSES[name]
    host = Host(EVERYTHING, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url);
                await until("open");
                socket.send("last words");
                CLOSE;
                return await until("close");
            }""".replace("CLOSE", script),
            url_of(host),
        )
    assert seen == [OPENED, ["close", *wanted]]
    assert closes(recorder) == [(*wanted, "client")]
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"]


HOST_CLOSES = [(1000, ""), (3001, "bye"), (3999, REASON), (4999, "\U0001f388")]


@pytest.mark.parametrize(("code", "reason"), HOST_CLOSES)
async def test_the_host_closes(tab: Tab, code: int, reason: str) -> None:
    host = Host(EVERYTHING, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate("url => { globalThis.mine = connect(url); }", url_of(host))
        id = (await recorder.wait_for(Upgrade)).id
        assert host.WebSocketSend(id, "last words") == 0
        assert host.WebSocketClose(id, code, reason) == 0
        seen = await tab.see("() => mine.until('close')")
        await recorder.wait_for(WebSocketClose)
        assert not host.sockets
    assert seen == [OPENED, ["message", "text", "last words"], ["close", code, reason, True]]
    assert closes(recorder) == [(code, reason, True, "host")]


async def test_stop_is_seen_as_1001(tab: Tab) -> None:
    host = Host(EVERYTHING, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate(
            "urls => { globalThis.mine = urls.map(url => connect(url)); }",
            [url_of(host, "/one"), url_of(host, "/two")],
        )
        await recorder.wait_for(Upgrade, 2)
        await tab.page.evaluate("() => Promise.all(mine.map(one => one.until('open')))")
    seen = await tab.page.evaluate("() => Promise.all(mine.map(one => one.until('close')))")
    assert seen == [[OPENED, ["close", 1001, "", True]]] * 2
    assert closes(recorder) == [(1001, "", True, "host")] * 2


@pytest.mark.parametrize("leave", ["reload", "another page", "the tab is closed", "the frame is removed"])
async def test_the_page_goes_away(tab: Tab, leave: str) -> None:
    host = Host(EVERYTHING, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate(
            """async url => {
                const frame = document.body.appendChild(document.createElement("iframe"));
                frame.src = "/frame";
                await new Promise(resolve => frame.onload = resolve);
                await frame.contentWindow.connect(url).until("open");
            }""",
            url_of(host),
        )
        if leave == "reload":
            await tab.page.reload()
        elif leave == "another page":
            await tab.page.goto(tab.site.origin + "/other")
        elif leave == "the tab is closed":
            await tab.page.close()
        else:
            await tab.page.evaluate("() => document.querySelector('iframe').remove()")
        event = await recorder.wait_for(WebSocketClose)
    assert event.code in (1001, 1006)
    assert recorder.names().count("WebSocketClose") == 1
    assert recorder.names()[-1] == "WebSocketClose"


async def test_a_reload_in_mid_message(tab: Tab) -> None:
    """Two sockets are in the middle of a message that the host does not read on, two are idle."""
    size = 16 * MIB
    host = Host(
        EVERYTHING,
        chunks=True,
        compression=False,
        limits=Limits(message=2 * size, read_buffer=1024),
        security=tab.site.trusted,
    )
    recorder = Recorder(host)
    reloaded = asyncio.Event()

    @host.on("WebSocketReceive")
    async def take_your_time(event: Receive) -> None:
        await reloaded.wait()

    async with host:
        await tab.page.evaluate(
            """async ([urls, size]) => {
                const all = urls.map(url => connect(url));
                await Promise.all(all.map(one => one.until("open")));
                all.slice(2).forEach(one => one.socket.send(new Uint8Array(size)));
            }""",
            [[url_of(host, f"/{n}") for n in range(4)], size],
        )
        await recorder.wait(lambda: len({event.id for event in recorder.of(Receive)}) == 2)
        await tab.page.reload()
        reloaded.set()
        await recorder.wait_for(WebSocketClose, 4)
    assert all(event.code in (1001, 1006) for event in recorder.of(WebSocketClose))
    for upgrade in recorder.of(Upgrade):
        names = recorder.names(upgrade.id)
        assert names.count("WebSocketClose") == 1
        assert names[-1] == "WebSocketClose"
        chunks = recorder.of(Receive, upgrade.id)
        assert not any(chunk.fin for chunk in chunks)
        assert sum(len(chunk.data) for chunk in chunks) < size
        assert bool(chunks) is (upgrade.url[-1] in "23")


async def test_a_reload_while_both_talk(tab: Tab) -> None:
    host = Host(EVERYTHING, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    echo(host)
    async with host:
        await tab.page.evaluate(
            """async url => {
                const {socket, until} = connect(url);
                socket.onmessage = () => socket.send("x".repeat(50000));
                socket.onopen = () => ["1", "2", "3", "4"].forEach(data => socket.send(data));
                await until("message", 20);
            }""",
            url_of(host),
        )
        await tab.page.reload()
        event = await recorder.wait_for(WebSocketClose)
    assert event.code in (1001, 1006)
    assert recorder.names().count("WebSocketClose") == 1
    assert recorder.names()[-1] == "WebSocketClose"
    assert {len(received.data) for received in recorder.of(Receive)} == {1, 50000}


async def test_a_page_that_reads_no_more_is_closed(tab: Tab) -> None:
    host = Host(EVERYTHING, compression=False, limits=Limits(write_buffer=MIB), security=tab.site.trusted)
    recorder = Recorder(host)
    dialogs: asyncio.Queue[Dialog] = asyncio.Queue()
    tab.page.on("dialog", dialogs.put_nowait)
    async with host:
        await tab.page.evaluate(
            """url => {
                globalThis.stuck = connect(url);
                stuck.socket.addEventListener("message", () => alert("wait"), {once: true});
            }""",
            url_of(host),
        )
        id = (await recorder.wait_for(Upgrade)).id
        host.WebSocketSend(id, "")
        # The page stands still while its dialog is open.
        dialog = await dialogs.get()
        sent = 0
        while not recorder.of(WebSocketClose) and sent < 256 * MIB:
            host.WebSocketSend(id, bytes(65536))
            sent += 65536
            await asyncio.sleep(0)
        await dialog.accept()
        seen = await tab.see("() => stuck.until('close').then(seen => [seen[0], seen.at(-1)])")
    assert seen == [OPENED, ["close", 1006, "", False]]
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketError", "WebSocketClose"]
    assert "Limits.write_buffer" in recorder.of(WebSocketError)[0].text
    assert closes(recorder) == [(1006, "", False, "fault")]


# By a handler that owns the socket


async def test_a_route_lives_as_long_as_the_socket(tab: Tab) -> None:
    host = Host(security=tab.site.trusted, compression=False)
    recorder = Recorder(host)

    @host.route("*://dyalog_root/count", subprotocols=["count"])
    async def count(socket: Session) -> None:
        async for message in socket:
            await socket.send(str(len(message)))
            if not message:
                return

    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url, ["other", "count"]);
                await until("open");
                ["three", new Uint8Array(2), ""].forEach(data => socket.send(data));
                return await until("close");
            }""",
            url_of(host, "/count"),
        )
        await recorder.wait_for(WebSocketClose)
    assert seen == [
        ["open", "count", ""],
        *(["message", "text", length] for length in "520"),
        ["close", 1000, "", True],
    ]
    assert closes(recorder) == [(1000, "", True, "host")]


async def test_a_route_that_raises_is_seen_as_1011(tab: Tab) -> None:
    host = Host(security=tab.site.trusted, compression=False)
    recorder = Recorder(host)

    @host.route("*://dyalog_root/*")
    async def fail(socket: Session) -> None:
        raise RuntimeError(await socket.receive())

    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url);
                socket.onopen = () => socket.send("boom");
                return await until("close");
            }""",
            url_of(host),
        )
        await recorder.wait_for(WebSocketClose)
    assert seen == [OPENED, ["close", 1011, "", True]]
    assert closes(recorder) == [(1011, "", True, "host")]


async def test_the_browser_answers_a_ping(tab: Tab) -> None:
    host = Host(EVERYTHING, security=tab.site.trusted, compression=False)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate("url => { globalThis.mine = connect(url); }", url_of(host))
        await recorder.wait_for(Upgrade)
        [session] = host.sockets.values()
        assert await session.ping() > 0
        await session.close(1000)
        seen = await tab.see("() => mine.until('close')")
    assert seen == [OPENED, ["close", 1000, "", True]]
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketClose"]
