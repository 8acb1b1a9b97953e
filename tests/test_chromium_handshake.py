"""The handshake, seen from both ends: what a page in a real Chromium gets, and what the host reports."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Browser

from interceptor import Host, Mode, Timeouts, WebSocketClose, WebSocketError
from interceptor import WebSocketReceive as Receive
from interceptor import WebSocketUpgrade as Upgrade

from .pages import CLEAN, FAILED, UNEXPECTED, Tab, url_of
from .pages import chromium as chromium
from .pages import tab as tab
from .peer import Recorder

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]

EVERYTHING = [("*", Mode.AUTO)]
MANUAL = [("*", Mode.MANUAL)]


# Subprotocols

ASKED = {
    "the host's first choice": (["b", "a"], ["x", "a", "b"], "a"),
    "its only choice": (["b", "chat.v2"], ["chat.v2"], "chat.v2"),
    "nothing asked for": ([], ["a"], ""),
}


@pytest.mark.parametrize("name", ASKED)
async def test_an_automatic_subprotocol(tab: Tab, name: str) -> None:
    asked, listed, chosen = ASKED[name]
    host = Host(EVERYTHING, subprotocols=listed, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        seen = await tab.visit(url_of(host), asked)
    [upgrade] = recorder.of(Upgrade)
    assert upgrade.subprotocols == tuple(asked)
    assert seen == [["open", chosen, ""], CLEAN]


async def test_a_page_fails_where_no_subprotocol_is_chosen(tab: Tab) -> None:
    host = Host(EVERYTHING, subprotocols=["a"], security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        seen = await tab.visit(url_of(host), ["b"])
        await recorder.wait_for(WebSocketClose)
    assert seen == FAILED
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketError", "WebSocketClose"]
    assert recorder.of(WebSocketClose)[0].code == 1006


# Manual: what opens a socket


def raw(event: Upgrade) -> str:
    """The text of a right 101."""
    text = event.accept(compression=False).headers
    assert isinstance(text, str)
    return text


def as_vector(event: Upgrade) -> object:
    message = event.message()
    message[4] = raw(event).replace("\r\n", "\n")
    return message


OPENS: dict[str, tuple[Callable[[Upgrade], Any], str]] = {
    "accept": (lambda event: event.accept(compression=False), ""),
    "accept a subprotocol": (lambda event: event.accept("chat", compression=False), "chat"),
    "raw text": (lambda event: event.answer(raw(event)), ""),
    "the vector": (as_vector, ""),
    "verbatim": (lambda event: event.verbatim(raw(event).encode()), ""),
}


@pytest.mark.parametrize("name", OPENS)
async def test_a_manual_101(tab: Tab, name: str) -> None:
    answer, subprotocol = OPENS[name]
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    host.on("WebSocketUpgrade")(lambda event: answer(event))

    @host.on("WebSocketReceive")
    def echo(event: Receive) -> None:
        host.WebSocketSend(event.id, event.data)

    async with host:
        seen = await tab.see(
            """async ([url, protocols]) => {
                const {socket, until} = connect(url, protocols);
                socket.onopen = () => socket.send("first");
                await until("message");
                socket.close(1000);
                return await until("close");
            }""",
            [url_of(host, "/in"), ["other", "chat"] if subprotocol else []],
        )
    assert seen == [["open", subprotocol, ""], ["message", "text", "first"], CLEAN]
    [upgrade] = recorder.of(Upgrade)
    assert (upgrade.type, upgrade.url, upgrade.origin) == ("manual", "ws://dyalog_root/in", tab.site.origin)
    assert recorder.names(upgrade.id) == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"]


async def test_the_page_sends_while_a_slow_answer_is_on_its_way(tab: Tab) -> None:
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    connecting = asyncio.Event()

    @host.on("WebSocketUpgrade")
    async def answer(event: Upgrade) -> Upgrade:
        await connecting.wait()
        return event.accept()

    async with host:
        await tab.page.evaluate(
            """url => {
                globalThis.slow = connect(url);
                slow.socket.onopen = () => {
                    for (let i = 0; i < 50; i++) slow.socket.send(`${i}`);
                    slow.socket.close(3000, "all said");
                };
            }""",
            url_of(host),
        )
        await recorder.wait_for(Upgrade)
        assert await tab.page.evaluate("() => slow.socket.readyState") == 0
        connecting.set()
        seen = await tab.see("() => slow.until('close')")
    assert seen[1:] == [["close", 3000, "all said", True]]
    assert [event.data for event in recorder.of(Receive)] == [str(i) for i in range(50)]
    [close] = recorder.of(WebSocketClose)
    assert (close.code, close.reason, recorder.events[-1]) == (3000, "all said", close)


async def test_one_slow_answer_does_not_delay_another_socket(chromium: Browser, tab: Tab) -> None:
    host = Host([("*/slow", Mode.MANUAL), ("*", Mode.AUTO)], security=tab.site.trusted)
    recorder = Recorder(host)
    other_is_done = asyncio.Event()

    @host.on("WebSocketUpgrade")
    async def answer(event: Upgrade) -> Upgrade | None:
        if event.type == "auto":
            return None
        await other_is_done.wait()
        return event.deny(404)

    async with host:
        await tab.page.evaluate("url => { globalThis.slow = connect(url); }", url_of(host, "/slow"))
        await recorder.wait_for(Upgrade)
        # Within one profile Chromium itself opens one socket at a time to an address and port.
        async with Tab.open(chromium, tab.site.origin) as other:
            quick = await other.visit(url_of(host, "/quick"))
        other_is_done.set()
        seen = await tab.see("() => slow.until('close')")
    assert [entry[0] for entry in quick] == ["open", "close"]
    assert seen == FAILED


@pytest.mark.parametrize("admit", [True, False])
async def test_an_answer_that_comes_late(tab: Tab, admit: bool) -> None:
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate("url => { globalThis.late = connect(url, ['chat']); }", url_of(host))
        upgrade = await recorder.wait_for(Upgrade)
        assert await tab.page.evaluate("() => late.socket.readyState") == 0
        assert not host.sockets
        if admit:
            assert host.answer(upgrade.id, upgrade.accept("chat", compression=False)) == 0
            await tab.page.evaluate("() => late.until('open')")
            host.WebSocketClose(upgrade.id)
        else:
            assert host.answer(upgrade.id, upgrade.deny(403)) == 0
        seen = await tab.see("() => late.until('close')")
    assert seen == ([["open", "chat", ""], CLEAN] if admit else FAILED)
    assert recorder.names() == ["WebSocketUpgrade"] + ["WebSocketClose"] * admit


async def test_a_cookie_set_by_a_101_comes_back(tab: Tab) -> None:
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    host.on("WebSocketUpgrade")(
        lambda event: event.accept(headers={"Set-Cookie": "sid=abc; HttpOnly; Path=/"})
    )
    async with host:
        for _ in range(2):
            await tab.visit(url_of(host))
    assert [event.cookies for event in recorder.of(Upgrade)] == [{}, {"sid": "abc"}]


async def test_verbatim_may_bring_a_message_with_the_101(tab: Tab) -> None:
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    host.on("WebSocketUpgrade")(lambda event: event.verbatim(raw(event).encode() + b"\x81\x05hello"))
    async with host:
        seen = await tab.see(
            """async url => {
                const {socket, until} = connect(url);
                await until("message");
                socket.close(1000);
                return await until("close");
            }""",
            url_of(host),
        )
    assert seen == [["open", "", ""], ["message", "text", "hello"], CLEAN]
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketClose"]


# Manual: what denies it

MOVED = "HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n"
WWW_AUTHENTICATE = {"WWW-Authenticate": 'Basic realm="members"'}


def not_found(event: Upgrade) -> object:
    message = event.message(numeric=True)
    message[4] = "HTTP/1.1 404 Not Found\r\n\r\n"
    return message


DENIALS: dict[str, tuple[Callable[[Upgrade], Any], str]] = {
    "200": (lambda event: event.deny(200, body="<p>no socket"), UNEXPECTED.format(200)),
    "302": (lambda event: event.answer(MOVED), UNEXPECTED.format(302)),
    "401": (lambda event: event.deny(401, "who?", WWW_AUTHENTICATE), "HTTP Authentication failed"),
    "403": (lambda event: event.deny(403, body="members only"), UNEXPECTED.format(403)),
    "404": (not_found, UNEXPECTED.format(404)),
    "426": (lambda event: event.deny(426, headers={"Upgrade": "other"}), UNEXPECTED.format(426)),
    "503": (lambda event: event.deny(503, headers={"Retry-After": "0"}), UNEXPECTED.format(503)),
    "drop": (lambda event: event.drop(), "closed before receiving a handshake response"),
}


@pytest.mark.parametrize("name", DENIALS)
async def test_a_denial(tab: Tab, name: str) -> None:
    answer, complaint = DENIALS[name]
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    host.on("WebSocketUpgrade")(lambda event: answer(event))
    async with host:
        seen = await tab.visit(url_of(host))
    assert seen == FAILED
    assert await tab.complaint(complaint)
    assert recorder.names() == ["WebSocketUpgrade"]


async def test_a_browser_that_knows_the_password_asks_again(tab: Tab) -> None:
    host = Host(MANUAL, compression=False, security=tab.site.trusted)
    recorder = Recorder(host)

    @host.on("WebSocketUpgrade")
    def answer(event: Upgrade) -> Upgrade:
        if event.header("Authorization") == "Basic bWU6c2VjcmV0":
            return event.accept()
        return event.deny(401, headers=WWW_AUTHENTICATE)

    async with host:
        seen = await tab.visit(url_of(host).replace("//", "//me:secret@"))
    assert seen == [["open", "", ""], CLEAN]
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketUpgrade", "WebSocketClose"]
    denied, opened = recorder.of(Upgrade)
    assert denied.id != opened.id == recorder.of(WebSocketClose)[0].id


VERBATIM: dict[str, tuple[Callable[[Upgrade], bytes], str]] = {
    "a wrong Accept": (
        lambda event: re.sub("Accept: .*?\r", "Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r", raw(event)).encode(),
        "Incorrect 'Sec-WebSocket-Accept' header value",
    ),
    "an unasked subprotocol": (
        lambda event: raw(event).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: other\r\n\r\n").encode(),
        "Response must not include 'Sec-WebSocket-Protocol'",
    ),
    "an unknown extension": (
        lambda event: (
            raw(event).replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-other\r\n\r\n").encode()
        ),
        "unsupported extension 'x-other'",
    ),
    "no Upgrade": (
        lambda event: raw(event).replace("Upgrade: websocket\r\n", "").encode(),
        "'Upgrade' header is missing",
    ),
    "half a head": (
        lambda event: raw(event).encode()[:40],
        "",
    ),
    "no HTTP at all": (lambda event: b"\x00\x01\x02 220 ready\r\n", ""),
}


@pytest.mark.parametrize("name", VERBATIM)
async def test_a_verbatim_answer_that_no_page_takes(tab: Tab, name: str) -> None:
    answer, complaint = VERBATIM[name]
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    host.on("WebSocketUpgrade")(lambda event: event.verbatim(answer(event)))
    async with host:
        seen = await tab.visit(url_of(host))
        assert not host.sockets
    assert seen == FAILED
    assert await tab.complaint(complaint or "WebSocket connection to")
    assert recorder.names() == ["WebSocketUpgrade"]


# Manual: what goes wrong


def unasked(event: Upgrade) -> Upgrade:
    return event.answer(raw(event).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: other\r\n\r\n"))


def broken(event: Upgrade) -> None:
    raise RuntimeError("broken")


FAULTS: dict[str, tuple[Callable[[Upgrade], Any], int, str]] = {
    "not valid": (unasked, 500, "'other' was not asked for"),
    "the request itself": (lambda event: event, 500, "Headers still holds the request"),
    "an exception": (broken, 500, "broken"),
    "no answer": (lambda event: None, 504, "timed out"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_manual_upgrade_that_fails(tab: Tab, name: str) -> None:
    answer, status, text = FAULTS[name]
    patience = Timeouts(answer=0.2 if status == 504 else 30)
    host = Host(MANUAL, security=tab.site.trusted, timeouts=patience)
    recorder = Recorder(host)
    host.on("WebSocketUpgrade")(lambda event: answer(event))
    async with host:
        seen = await tab.visit(url_of(host))
    assert seen == FAILED
    assert await tab.complaint(UNEXPECTED.format(status))
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketError"]
    assert text in recorder.of(WebSocketError)[0].text


async def test_a_manual_rule_without_a_callback(tab: Tab) -> None:
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    host.off("WebSocketUpgrade")
    async with host:
        seen = await tab.visit(url_of(host))
    assert seen == FAILED
    assert await tab.complaint(UNEXPECTED.format(500))
    assert recorder.names() == ["WebSocketError"]
    assert 'host.on("WebSocketUpgrade")' in recorder.of(WebSocketError)[0].text


async def test_the_page_gives_up_before_the_answer(tab: Tab) -> None:
    host = Host(MANUAL, security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        await tab.page.evaluate("url => { globalThis.early = connect(url); }", url_of(host))
        upgrade = await recorder.wait_for(Upgrade)
        seen = await tab.see("() => { early.socket.close(); return early.until('close'); }")
        error = await recorder.wait_for(WebSocketError)
        assert not host.sockets
    assert seen == FAILED
    assert error.id == upgrade.id
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketError"]


async def test_a_url_that_no_rule_has(tab: Tab) -> None:
    host = Host([("*/no/*", Mode.PASS), ("*/yes/*", Mode.AUTO)], security=tab.site.trusted)
    recorder = Recorder(host)
    async with host:
        passed = await tab.visit(url_of(host, "/no/yes/"))
        unknown = await tab.visit(url_of(host, "/other"))
        opened = await tab.visit(url_of(host, "/yes/?a=b"))
    assert passed == unknown == FAILED
    assert len([line for line in tab.console if UNEXPECTED.format(404) in line]) == 2
    assert opened[-1] == CLEAN
    assert [event.url for event in recorder.of(Upgrade)] == ["ws://dyalog_root/yes/?a=b"]
    assert recorder.names() == ["WebSocketUpgrade", "WebSocketClose"]
