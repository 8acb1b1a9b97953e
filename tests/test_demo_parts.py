"""The parts of the demonstration: its lines of text, its page server, its two views of each socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import pytest

from interceptor import (
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.demo.driver import Journal
from interceptor.demo.entries import Entry, Given, Printer, describe
from interceptor.demo.server import PageServer
from interceptor.demo.views import HELLO, MEANT, PageState, Seen, compare, host_saw, page_saw, transcript

from .peer import Peer

ID = "0123456789abcde"


# --- entries ------------------------------------------------------------------------------------------------


def upgrade(path: str, kind: Literal["auto", "manual"] = "auto", protocols: str = "") -> WebSocketUpgrade:
    fields = f"Sec-WebSocket-Key: x\r\n{protocols and f'Sec-WebSocket-Protocol: {protocols}'}\r\n"
    return WebSocketUpgrade(
        object="h", id=ID, url=f"ws://demo{path}", headers=f"GET / HTTP/1.1\r\n{fields}", type=kind
    )


def received(data: str | bytes) -> WebSocketReceive:
    return WebSocketReceive(object="h", id=ID, data=data, datatype=1 if isinstance(data, str) else 2)


def closed(code: int = 1000, reason: str = "", **more: object) -> WebSocketClose:
    return WebSocketClose.model_validate({"object": "h", "id": ID, "code": code, "reason": reason, **more})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (upgrade("/echo"), "auto ws://demo/echo"),
        (upgrade("/chat", "manual", "a\x9b, b"), "manual ws://demo/chat asks for a\\x9b, b"),
        (
            Given.by(upgrade("/chat", "manual", "chat").accept("chat")),
            "101 Switching Protocols, subprotocol chat",
        ),
        (Given.by(upgrade("/chat", "manual").deny(403, "no")), "403 Forbidden"),
        (received("Grüße 😀"), "text 'Grüße 😀'"),
        (received("\x1b[2J\u202e"), r"text '\x1b[2J\u202e'"),
        (received("x" * 61), f"text '{'x' * 60}'... (61 characters)"),
        (received(b"\0" * 9), "binary, 9 bytes"),
        (closed(1001), "1001 '' by the client, clean"),
        (closed(1006, was_clean=False, initiator="fault"), "1006 '' by the fault, not clean"),
        (closed(1000, "\x1b"), r"1000 '\x1b' by the client, clean"),
        (WebSocketError(object="h", id=ID, text="bad\x1b ü"), r"bad\x1b ü"),
        (HTTPRequest(object="h", url="http://demo/"), ""),
    ],
)
def test_an_entry_in_a_few_words_that_no_terminal_acts_on(entry: Entry, words: str) -> None:
    assert describe(entry) == words
    lines: list[str] = []
    Printer(lines.append).note(entry)
    assert lines[0].isprintable()
    assert lines[0].endswith(words)


def test_colours_mark_time_and_name() -> None:
    lines: list[str] = []
    Printer(lines.append, colours=True).note(closed())
    assert re.fullmatch(
        rf"\x1b\[2m[\d:.]{{12}}\x1b\[0m  \x1b\[33m843 WebSocketClose +\x1b\[0m  {ID}  .*", lines[0]
    )


# --- the page's server --------------------------------------------------------------------------------------


@asynccontextmanager
async def served(urls: dict[str, str] | None = None) -> AsyncIterator[PageServer]:
    server = PageServer()
    await server.start(0)
    server.tell({"/echo": "ws://127.0.0.1:9/echo"} if urls is None else urls)
    try:
        yield server
    finally:
        server.close()


async def test_the_page_may_run_its_own_script_and_connect_to_the_host_and_nothing_else() -> None:
    nonces = set()
    async with served({"/a": "ws://127.0.0.1:9/a", "/b": "ws://127.0.0.1:9/b"}) as server:
        for _ in range(2):
            async with Peer.dial(server.url) as peer:
                answer = await peer.ask(f"GET / HTTP/1.1\r\nHost: {server.url[7:-1]}\r\n\r\n".encode())
            policy = answer.headers["content-security-policy"]
            directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
            own = directives.pop("script-src")
            nonces.add(own)
            assert directives == {
                **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
                "style-src": own,
                "img-src": "data:",
                "connect-src": "ws://127.0.0.1:9",
            }
            assert answer.body.decode().count(f'nonce="{own[7:-1]}"') == 2
    assert len(nonces) == 2
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


async def test_settings_cannot_end_their_script() -> None:
    urls = {"</script><script>alert(1)": "ws://127.0.0.1:9/</script><script>alert(1)"}
    async with served(urls) as server, Peer.dial(server.url) as peer:
        answer = await peer.ask(f"GET / HTTP/1.1\r\nHost: {server.url[7:-1]}\r\n\r\n".encode())
    found = re.search(r'<script type="application/json" id="settings">(.*?)</script>', answer.body.decode())
    assert found is not None
    assert json.loads(found[1]) == {"urls": urls}


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET / HTTP/1.1", "Host: SELF", 200),
        ("GET / HTTP/1.1", "host:localhost:PORT ", 200),
        ("GET / HTTP/1.1", "Host: evil.test", 421),
        ("GET / HTTP/1.1", "Host: evil.test:PORT", 421),
        ("GET / HTTP/1.1", "Host: 127.0.0.1", 421),
        ("GET / HTTP/1.1", "Host: SELF\r\nHost: SELF", 421),
        ("GET / HTTP/1.1", "X: y", 421),
        ("GET /favicon.ico HTTP/1.1", "Host: SELF", 404),
        ("GET /?x HTTP/1.1", "Host: SELF", 404),
        ("GET //x HTTP/1.1", "Host: SELF", 404),
        ("POST / HTTP/1.1", "Host: SELF", 404),
        ("HEAD / HTTP/1.1", "Host: SELF", 404),
        ("nonsense", "Host: SELF", 404),
    ],
)
async def test_one_page_is_served_under_its_own_address(line: str, host: str, status: int) -> None:
    async with served() as server, Peer.dial(server.url) as peer:
        own = server.url[7:-1]
        host = host.replace("SELF", own).replace("PORT", own.split(":")[1])
        answer = await peer.ask(f"{line}\r\n{host}\r\n\r\n".encode())
        assert answer.status == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert await peer.rest() == b""


@pytest.mark.parametrize("junk", [b"x" * 40_000, b"GET / HTTP/1.1\r\n", b""])
async def test_what_is_no_request_gets_no_answer(junk: bytes) -> None:
    async with served() as server, Peer.dial(server.url) as peer:
        await peer.send(junk)
        if len(junk) < 1000:
            peer.half_close()
        with contextlib.suppress(ConnectionResetError):  # What was sent is not read to its end.
            assert await peer.rest() == b""


async def test_a_server_that_closes_drops_connections_on_which_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interceptor.demo.server.PATIENCE", 1000)
    async with served() as server, Peer.dial(server.url) as silent:
        async with Peer.dial(server.url) as peer:
            await peer.ask(f"GET / HTTP/1.1\r\nHost: {server.url[7:-1]}\r\n\r\n".encode())
        server.close()  # It has heard of the silent one, which came before.
        with contextlib.suppress(ConnectionResetError):
            assert await silent.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(server.url.split(":")[2][:-1]))


# --- what page and host saw ---------------------------------------------------------------------------------

TEXTS = (HELLO, "bye")


def chat_entries(*changed: Entry) -> list[Entry]:
    asked = upgrade("/chat", "manual", "notes, chat")
    entries: list[Entry] = [asked, Given.by(asked.accept("chat")), *map(received, TEXTS)]
    return [*entries, *(changed or (closed(3000, "goodbye", initiator="host"),))]


def chat_page(**close: str) -> PageState:
    ended = {"code": "3000", "reason": "goodbye", "clean": "true", **close}
    kinds = [
        ("opening", ""),
        ("open", ""),
        *((kind, text) for text in TEXTS for kind in ("sent", "received")),
    ]
    lines = [{"path": "/chat", "kind": kind, "text": text, "protocol": "chat"} for kind, text in kinds]
    return {
        "cards": [{"path": "/chat", "mode": "manual", "state": "closed"}],
        "log": [*lines, {"path": "/chat", "kind": "close", "text": "", **ended}],
    }


def members_page(*, state: str = "refused", error: bool = True) -> PageState:
    close = {"path": "/members", "kind": "close", "text": "", "code": "1006", "reason": "", "clean": "false"}
    failed = [{"path": "/members", "kind": "error", "text": ""}] if error else []
    return {"cards": [{"path": "/members", "mode": "manual", "state": state}], "log": [*failed, close]}


def test_what_stands_on_the_page_is_what_the_page_saw() -> None:
    assert page_saw("/chat", chat_page()) == MEANT["/chat"]
    assert page_saw("/chat", chat_page(code="3001")) == replace(MEANT["/chat"], code=3001)
    assert page_saw("/members", members_page()) == MEANT["/members"]
    assert page_saw("/members", members_page(error=False)).state == "refused without an error"
    assert page_saw("/members", members_page(state="open")).state == "open with an error"
    assert page_saw("/echo", chat_page()) == Seen("", "no card")


def test_the_events_are_what_the_host_saw() -> None:
    asked = upgrade("/members", "manual")
    denied: list[Entry] = [asked, Given.by(asked.deny(403))]
    assert host_saw("/chat", chat_entries()) == MEANT["/chat"]
    assert host_saw("/members", denied) == MEANT["/members"]
    assert host_saw("/members", [asked, Given.by(asked.deny(404))]).state == "404"
    assert host_saw("/members", [*denied, closed()]).state == "403, then 843 WebSocketClose"
    assert host_saw("/echo", chat_entries()) == Seen("", "no upgrade")
    lost = WebSocketError(object="h", id=ID, text="it was lost")
    assert host_saw("/chat", chat_entries(lost, closed(1006))).state == "closed, it was lost"
    assert host_saw("/chat", chat_entries(received(b"x"))).sent == (*TEXTS, "b'x'")
    assert host_saw("/chat", chat_entries(received("x"))).state == "open"


def test_page_and_host_that_saw_what_was_meant_agree() -> None:
    assert compare(MEANT, MEANT) == []


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("/echo", {"mode": "manual"}, "/echo mode: the page saw 'manual', the host 'auto'"),
        ("/members", {"state": "open"}, "/members state: the page saw 'open', the host 'refused'"),
        ("/chat", {"subprotocol": "notes"}, "/chat subprotocol: the page saw 'notes', the host 'chat'"),
        ("/echo", {"echoed": ("?",)}, "/echo echoed: the page saw ('?',), the host"),
        ("/echo", {"sent": ()}, "/echo sent: the page saw (), the host"),
        ("/members", {"code": 1000}, "/members code: the page saw 1000, the host 1006"),
        ("/echo", {"reason": "x"}, "/echo reason: the page saw 'x', the host 'done'"),
        ("/chat", {"clean": False}, "/chat clean: the page saw False, the host True"),
    ],
)
def test_a_doctored_end_is_found_out(path: str, change: dict[str, object], words: str) -> None:
    doctored = {**MEANT, path: replace(MEANT[path], **change)}  # type: ignore[arg-type]  # of many types
    (found,) = compare(doctored, MEANT)
    assert found.startswith(words)
    assert len(compare(MEANT, doctored)) == 1
    (found,) = compare(doctored, doctored)
    assert re.match(rf"{path} \w+: both saw .* was meant", found)


def test_the_transcript_has_both_ends_side_by_side() -> None:
    title, _, _, *rows, end = transcript("/chat", chat_page(), chat_entries()).split("\n")
    assert (title, end) == ("/chat", "")
    left = ["opening", "open", "sent", "received", "sent", "received", "close"]
    right = ["841", "answer", "842", "842", "843", None, None]
    for row, kind, number in zip(rows, left, right, strict=True):
        found = re.fullmatch(r"  (\S+)(?:.*? {2}(84\d|answer) .*|.*)", row)
        assert found is not None
        assert found.groups() == (kind, number)


async def test_the_journal_wakes_who_waits_for_an_entry() -> None:
    journal = Journal()
    waiting = asyncio.ensure_future(journal.wait(lambda: len(journal.entries) == 2))
    event: Entry = received("x")
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        journal.note(event)
    await waiting
    assert journal.entries == [event, event]
