"""The demonstration as its user runs it: a process, its terminal, Ctrl-C, its check of itself."""

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
from pathlib import Path

import pytest
from playwright.async_api import Page

from interceptor import (
    Host,
    WebSocketUpgrade,
    __version__,
    cli,
    demo,
)
from interceptor.demo import driver, stage
from interceptor.demo.entries import Entry, Given
from interceptor.demo.program import make_host
from interceptor.demo.views import HELLO
from interceptor.doctor.chromium import MISSING

from .browser import require_chromium
from .peer import CLOSE, PATIENCE, TEXT, Frame, Peer, close_frame, frame, request, until

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, "-m", "interceptor", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}


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


async def urls_of(page: str) -> dict[str, str]:
    """The WebSocket URLs that the page at a URL opens."""
    async with Peer.dial(page) as peer:
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
        async with Peer.dial(urls["/echo"]) as echo, Peer.dial(urls["/chat"]) as chat:
            assert (await echo.ask(asks(page, urls["/echo"]))).status == 101
            line = await demonstration.line()
            assert "841 WebSocketUpgrade" in line
            assert line.endswith("auto ws://demo/echo")
            (id,) = re.findall(r"\b[0-9a-f]{15}\b", line)

            protocols = "Sec-WebSocket-Protocol: notes, chat\r\n"
            answer = await chat.ask(asks(page, urls["/chat"], extra=protocols))
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "chat")
            assert (await demonstration.line()).endswith("manual ws://demo/chat asks for notes, chat")
            assert (await demonstration.line()).endswith("101 Switching Protocols, subprotocol chat")

            async with Peer.dial(urls["/members"]) as members:
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
        async with Peer.dial(urls["/echo"]) as peer:
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
            async with Peer.dial(urls["/echo"]) as peer:
                head = asks(demonstration.url, urls["/echo"], origin=origin, extra=extra)
                assert (await peer.ask(head)).status == status
        assert "844 WebSocketError" in await demonstration.line()
        async with Peer.dial(urls["/chat"]) as peer:
            answer = await peer.ask(asks(demonstration.url, urls["/chat"]))
            assert (answer.status, answer.body) == (400, b"ask for the subprotocol chat")


@pytest.mark.parametrize("times", [1, 5])
async def test_ctrl_c_ends_it_in_order_also_with_a_page_that_does_not_answer(times: int) -> None:
    async with running("--no-browser") as demonstration:
        page = demonstration.url
        urls = await urls_of(page)
        async with Peer.dial(urls["/echo"]) as peer, Peer.dial(page) as idle:
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
        print(f"it took {seconds:.2f} s")


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
    ("display", "arguments", "opened"),
    [
        ({"DISPLAY": ":7"}, [], True),
        ({"WAYLAND_DISPLAY": "wayland-7"}, [], True),
        ({"DISPLAY": ":7"}, ["--no-browser"], False),
        ({}, [], False),
    ],
)
async def test_with_a_display_it_opens_the_browser(
    display: dict[str, str], arguments: list[str], opened: bool, tmp_path: Path
) -> None:
    program, seen = tmp_path / "browser", tmp_path / "seen"
    program.write_text(f'#!/bin/sh\necho "$1" >"{seen}.part" && mv "{seen}.part" "{seen}"\n')
    program.chmod(0o755)
    environment = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": f"{program} %s", **display}
    environment["PYTHONWARNINGS"] = ""  # The browser may outlive the demonstration, and Python warns of that.
    async with running(*arguments, **environment) as demonstration:
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
        async with Peer.dial(urls["/echo"]) as peer:
            assert (await peer.ask(asks(demonstration.url, urls["/echo"]))).status == 101
            await peer.send(frame(TEXT, "still there"))
            assert await peer.frame() == Frame(TEXT, b"still there")
            await peer.send(close_frame())
            assert await peer.close_code() == 1000
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


@pytest.mark.chromium
async def test_a_page_that_raises_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    drive = driver.drive

    async def drive_to_an_error(page: Page, journal: driver.Journal) -> list[str]:
        faults = await drive(page, journal)
        async with page.expect_event("pageerror"):
            await page.evaluate("setTimeout(() => { throw new Error('planted') })")
        return [*faults, "and another"]

    require_chromium()
    monkeypatch.setattr(driver, "drive", drive_to_an_error)
    lines: list[str] = []
    assert not await demo.check(lines.append)
    assert lines[3:] == [
        "DISAGREE  the page raised planted",
        "DISAGREE  and another",
        "page and host disagree",
    ]


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
