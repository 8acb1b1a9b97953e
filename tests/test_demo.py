"""The demonstration as its user runs it: a process, its page, its terminal, Ctrl-C; and its check of itself."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from interceptor import (
    Event,
    Host,
    HTTPRequest,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
    __version__,
    cli,
    demo,
)
from interceptor.demo import show as stage
from interceptor.demo.check import Journal
from interceptor.demo.chromium import MISSING
from interceptor.demo.entries import Entry, Given, Printer, describe
from interceptor.demo.program import make_host
from interceptor.demo.server import PageServer
from interceptor.demo.views import HELLO, MEANT, PageState, Seen, compare, host_saw, page_saw, transcript

from .browser import require_chromium
from .peer import CLOSE, PATIENCE, TEXT, Frame, Peer, close_frame, frame, request, until

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, "-m", "interceptor", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
ID = "0123456789abcde"


# --- the process --------------------------------------------------------------------------------------------


class Running:
    """A demonstration in a process of its own, and the URL of its page."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.intro: list[str] = []
        self.url = ""

    async def start(self) -> None:
        while not self.intro or self.intro[-1]:
            self.intro.append(await self.line())
        self.url = re.findall(r"http://127\.0\.0\.1:\d+/", self.intro[0])[0]

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            data = await self.process.stdout.readline()
        assert data, "the demonstration has ended"
        return data.decode().rstrip("\r\n")

    async def interrupt(self, times: int = 1) -> tuple[str, str, float]:
        """Press Ctrl-C; what was printed after that, the errors, and the seconds until the end."""
        before = time.perf_counter()
        for _ in range(times):
            self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            out, err = await self.process.communicate()
        return out.decode(), err.decode(), time.perf_counter() - before


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *DEMO, *arguments, stdout=-1, stderr=-1, env={**ENVIRONMENT, **environment}
    )
    try:
        running = Running(process)
        await running.start()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[Peer]:
    """A TCP connection to the server of a URL."""
    host, port = url.split("/")[2].split(":")
    peer = Peer(*await asyncio.open_connection(host, int(port)))
    try:
        yield peer
    finally:
        peer.writer.transport.abort()


async def urls_of(page: str) -> dict[str, str]:
    """The WebSocket URLs that the page at a URL opens."""
    async with dialled(page) as peer:
        answer = await peer.ask(f"GET / HTTP/1.1\r\nHost: {page.split('/')[2]}\r\n\r\n".encode())
    found = re.search(r'<script type="application/json" id="settings">(.*?)</script>', answer.body.decode())
    assert found is not None
    urls: dict[str, str] = json.loads(found[1])["urls"]
    return urls


def asks(page: str, url: str, *, extra: str = "", origin: str = "") -> bytes:
    """The request that the page makes for one of its sockets."""
    _, _, authority, path = url.split("/")
    return request(f"/{path}", authority, origin=origin or page.rstrip("/"), extra=extra)


async def test_each_socket_is_answered_and_each_event_printed_as_it_comes() -> None:
    async with running("--no-browser") as demonstration:
        page = demonstration.url
        urls = await urls_of(page)
        async with dialled(urls["/echo"]) as echo, dialled(urls["/chat"]) as chat:
            assert (await echo.ask(asks(page, urls["/echo"]))).status == 101
            assert "841 WebSocketUpgrade" in (line := await demonstration.line())
            assert line.endswith("auto ws://demo/echo")
            (id,) = re.findall(r"\b[0-9a-f]{15}\b", line)

            protocols = "Sec-WebSocket-Protocol: notes, chat\r\n"
            answer = await chat.ask(asks(page, urls["/chat"], extra=protocols))
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "chat")
            assert (await demonstration.line()).endswith("manual ws://demo/chat asks for notes, chat")
            assert (await demonstration.line()).endswith("101 Switching Protocols, subprotocol chat")

            async with dialled(urls["/members"]) as members:
                answer = await members.ask(asks(page, urls["/members"]))
            assert (answer.status, answer.body) == (403, b"members only")
            assert (await demonstration.line()).endswith("manual ws://demo/members")
            assert (await demonstration.line()).endswith("403 Forbidden")

            await echo.send(frame(TEXT, HELLO))
            assert await echo.frame() == Frame(TEXT, HELLO.encode())
            assert re.fullmatch(
                rf"\d\d:\d\d:\d\d\.\d{{3}}  842 WebSocketReceive  {id}  text '{HELLO}'",
                await demonstration.line(),
            )
            await echo.send(close_frame(1000, "done"))
            assert (await echo.frame()).opcode == CLOSE
            assert (await demonstration.line()).endswith(f"{id}  1000 'done' by the client, clean")


async def test_after_bye_the_program_closes() -> None:
    async with running("--no-browser") as demonstration:
        urls = await urls_of(demonstration.url)
        async with dialled(urls["/echo"]) as peer:
            assert (await peer.ask(asks(demonstration.url, urls["/echo"]))).status == 101
            await peer.send(frame(TEXT, "bye"))
            assert await peer.frame() == Frame(TEXT, b"bye")
            assert await peer.frame() == Frame(CLOSE, (3000).to_bytes(2, "big") + b"goodbye")


async def test_only_the_page_may_open_the_sockets() -> None:
    async with running("--no-browser") as demonstration:
        urls = await urls_of(demonstration.url)
        for origin, extra, status in (
            ("http://evil.test", "", 403),
            (demonstration.url.rstrip("/").replace("127.0.0.1", "localhost"), "", 101),
        ):
            async with dialled(urls["/echo"]) as peer:
                head = asks(demonstration.url, urls["/echo"], origin=origin, extra=extra)
                assert (await peer.ask(head)).status == status
        assert "844 WebSocketError" in await demonstration.line()
        async with dialled(urls["/chat"]) as peer:
            answer = await peer.ask(asks(demonstration.url, urls["/chat"]))
            assert (answer.status, answer.body) == (400, b"ask for the subprotocol chat")


@pytest.mark.parametrize("times", [1, 5])
async def test_ctrl_c_ends_it_in_order_also_with_a_page_that_does_not_answer(
    times: int, record_property: Callable[[str, object], None]
) -> None:
    async with running("--no-browser") as demonstration:
        page = demonstration.url
        urls = await urls_of(page)
        async with dialled(urls["/echo"]) as peer, dialled(page) as idle:
            assert (await peer.ask(asks(page, urls["/echo"]))).status == 101
            await demonstration.line()
            out, err, seconds = await demonstration.interrupt(times)
            assert await peer.close_code() == 1001
            assert await peer.rest() == b""
            assert await idle.rest() == b""
        assert "843 WebSocketClose" in out
        assert out.endswith("Stopped.\n")
        assert "Traceback" not in err
        assert demonstration.process.returncode == 0
        record_property("seconds", seconds)


async def test_the_intro_names_page_and_rules() -> None:
    async with running("--no-browser") as demonstration:
        _, err, _ = await demonstration.interrupt()
    assert err == ""
    intro = "\n".join(demonstration.intro)
    assert "opening it" not in intro
    for words in ("auto    ws://demo/echo", "manual  ws://demo/chat", "manual  ws://demo/members", "Ctrl-C"):
        assert words in intro


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a display")
@pytest.mark.parametrize(
    ("display", "opened"), [({"DISPLAY": ":7"}, True), ({"WAYLAND_DISPLAY": "wayland-7"}, True), ({}, False)]
)
async def test_with_a_display_it_opens_the_browser(
    display: dict[str, str], opened: bool, tmp_path: Path
) -> None:
    program, seen = tmp_path / "browser", tmp_path / "seen"
    program.write_text(f'#!/bin/sh\necho "$1" >"{seen}.part" && mv "{seen}.part" "{seen}"\n')
    program.chmod(0o755)
    environment = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": f"{program} %s", **display}
    async with running(**environment) as demonstration:
        assert ("opening it in your browser" in demonstration.intro[0]) is opened
        if opened:
            await until(seen.exists)
            assert seen.read_text().strip() == demonstration.url
        _, err, _ = await demonstration.interrupt()
    assert err == ""
    assert seen.exists() is opened


async def test_a_reader_that_leaves_does_no_harm() -> None:
    async with running("--no-browser") as demonstration:
        assert demonstration.process.stdout is not None
        urls = await urls_of(demonstration.url)
        transport = demonstration.process._transport  # type: ignore[attr-defined]  # nothing else closes it
        transport.get_pipe_transport(1).close()
        async with dialled(urls["/echo"]) as peer:
            assert (await peer.ask(asks(demonstration.url, urls["/echo"]))).status == 101
            await peer.send(frame(TEXT, "still there"))
            assert await peer.frame() == Frame(TEXT, b"still there")
        _, err, _ = await demonstration.interrupt()
        assert (err, demonstration.process.returncode) == ("", 0)


# --- the command line ---------------------------------------------------------------------------------------


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **environment}
    return subprocess.run(command, capture_output=True, env=environment, encoding="utf-8", timeout=50)


def test_without_a_command_there_is_help() -> None:
    done = run(*DEMO[:3])
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo" in done.stdout


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"interceptor {__version__}\n")


@pytest.mark.parametrize("port", ["-1", "65536", "x", "1.5", ""])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", f"--port={port}"])
    assert caught.value.code == 2
    assert f"{port!r} is not a port" in capsys.readouterr().err


async def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    async with running("--no-browser") as demonstration:
        port = demonstration.url.split(":")[2].rstrip("/")
        done = await asyncio.to_thread(run, *DEMO, "--no-browser", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"interceptor: cannot listen on port {port}: .*; --port 0 .*\n", done.stderr)


async def test_the_port_is_the_one_asked_for() -> None:
    async with running("--no-browser") as first:
        await first.interrupt()
    async with running("--no-browser", "--port", first.url.split(":")[2].rstrip("/")) as second:
        assert second.url == first.url


@pytest.mark.parametrize(
    ("environment", "terminal", "colours"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there the kind of terminal decides")
def test_colours_are_for_terminals(
    environment: dict[str, str], terminal: bool, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output = io.StringIO()
    monkeypatch.setattr(output, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", output)
    assert cli._has_colours() is colours


# --- entries ------------------------------------------------------------------------------------------------


def upgrade(path: str, kind: str = "auto", protocols: str = "") -> WebSocketUpgrade:
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
    async with served({"/a": "ws://127.0.0.1:9/a", "/b": "ws://127.0.0.1:9/b"}) as server:
        heads = []
        for _ in range(2):
            async with dialled(server.url) as peer:
                answer = await peer.ask(f"GET / HTTP/1.1\r\nHost: {server.url[7:-1]}\r\n\r\n".encode())
            heads.append(answer.headers)
            policy = dict(
                part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
            )
            nonce = policy["script-src"].removeprefix("'nonce-").removesuffix("'")
            assert answer.body.decode().count(f'nonce="{nonce}"') == 2
            assert policy["style-src"] == policy["script-src"]
            assert policy["connect-src"] == "ws://127.0.0.1:9"
            assert {
                policy[name] for name in ("default-src", "base-uri", "form-action", "frame-ancestors")
            } == {"'none'"}
        assert heads[0]["content-security-policy"] != heads[1]["content-security-policy"]
        assert heads[0]["content-type"] == "text/html; charset=utf-8"
        assert heads[0]["x-content-type-options"] == "nosniff"
        assert heads[0]["cache-control"] == "no-store"


async def test_settings_cannot_end_their_script() -> None:
    async with served({"</script><script>alert(1)": "ws://127.0.0.1:9/</script><script>alert(1)"}) as server:
        assert list(await urls_of(server.url)) == ["</script><script>alert(1)"]


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
    async with served() as server, dialled(server.url) as peer:
        own = server.url[7:-1]
        host = host.replace("SELF", own).replace("PORT", own.split(":")[1])
        answer = await peer.ask(f"{line}\r\n{host}\r\n\r\n".encode())
        assert answer.status == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert await peer.rest() == b""


@pytest.mark.parametrize("junk", [b"x" * 40_000, b"GET / HTTP/1.1\r\n", b""])
async def test_what_is_no_request_gets_no_answer(junk: bytes) -> None:
    async with served() as server, dialled(server.url) as peer:
        await peer.send(junk)
        if len(junk) < 1000:
            peer.half_close()
        try:
            assert await peer.rest() == b""
        except ConnectionResetError:
            pass  # It was not read to its end.


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
    lines = transcript("/chat", chat_page(), chat_entries()).split("\n")
    assert lines[0] == "/chat"
    assert [line[56:].strip().split("  ")[0] for line in lines[3:8]] == [
        "841 WebSocketUpgrade",
        "answer",
        "842 WebSocketReceive",
        "842 WebSocketReceive",
        "843 WebSocketClose",
    ]
    assert [line.split()[0] for line in lines[3:6]] == ["opening", "open", "sent"]


# --- the check ----------------------------------------------------------------------------------------------


@pytest.mark.chromium
def test_the_check_agrees_and_prints_the_transcript() -> None:
    done = run(*DEMO, "--check", CHROMIUM=require_chromium())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("page and host agree\n")
    for words in (
        "841 WebSocketUpgrade  auto ws://demo/echo",
        "answer            101 Switching Protocols, subprotocol chat",
        "answer            403 Forbidden",
        f"received  {HELLO}",
        f"842 WebSocketReceive  text '{HELLO}'",
        "close     1000, “done”, clean",
        "843 WebSocketClose    1000 'done' by the client, clean",
        "close     3000, “goodbye”, clean",
        "843 WebSocketClose    3000 'goodbye' by the host, clean",
        "error     the handshake failed",
        "close     1006, not clean",
    ):
        assert words in done.stdout


@pytest.mark.chromium
async def test_the_check_of_a_program_that_does_something_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_host(note: Callable[[Entry], None], origins: tuple[str, ...]) -> Host:
        host = make_host(note, origins)
        host.off("WebSocketUpgrade")

        @host.on("WebSocketUpgrade")
        def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
            chat = event.url.endswith("/chat")
            reply = event.accept(subprotocol="notes") if chat else event.deny(404)
            if event.type == "manual":
                note(Given.by(reply))
            return reply

        return host

    require_chromium()
    monkeypatch.setattr(stage, "make_host", other_host)
    lines: list[str] = []
    assert not await demo.check(lines.append)
    assert "DISAGREE  /chat subprotocol: both saw 'notes', 'chat' was meant" in lines
    assert "DISAGREE  /members state: the page saw 'refused', the host '404'" in lines
    assert lines[-1] == "page and host disagree"


@pytest.mark.parametrize(("agree", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_tells_whether_they_agree(
    agree: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(say: Callable[[str], None], *, port: int) -> bool:
        return agree

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(demo, "check", check)
    try:
        assert cli.main(["demo", "--check"]) == status
    finally:
        signal.signal(signal.SIGINT, handler)


def test_without_chromium_the_check_says_what_to_install(tmp_path: Path) -> None:
    for named in (str(tmp_path / "none"), str(tmp_path)):
        done = run(*DEMO, "--check", CHROMIUM=named)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"interceptor: {MISSING}\n"


def test_without_playwright_the_check_says_what_to_install() -> None:
    program = "import sys; sys.modules['playwright.async_api'] = None; from interceptor.cli import main; "
    done = run(sys.executable, "-c", program + "sys.exit(main(['demo', '--check']))", CHROMIUM=sys.executable)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "interceptor: the check needs Playwright: pip install playwright\n"


async def test_a_browser_that_is_none_is_named() -> None:
    done = await asyncio.to_thread(run, *DEMO, "--check", CHROMIUM=sys.executable)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"interceptor: {re.escape(sys.executable)} failed: .*\n", done.stderr)


async def test_the_journal_wakes_who_waits_for_an_entry() -> None:
    journal = Journal()
    waiting = asyncio.ensure_future(journal.wait(lambda: len(journal.entries) == 2))
    event: Event = received("x")
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        journal.note(event)
    await waiting
    assert journal.entries == [event, event]
