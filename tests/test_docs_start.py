"""The README and the pages that other tests do not run: their programs run, their links lead somewhere.

The pages about browsers, GUIs, threads and served pages have tests of their own (`test_docs_*.py`).
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from interceptor import Host, Security, WebSocketReceive, WebSocketUpgrade
from interceptor.client import Explanation

from .browser import launched
from .peer import PATIENCE, Recorder, until

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [
    README,
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "fuzz" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def snippets(path: Path, languages: tuple[str, ...] = ("python",)) -> list[str]:
    """The code of a text."""
    return [code for language, code in FENCED.findall(read(path)) if language in languages]


def anchors(path: Path) -> set[str]:
    """What a link may name in a text, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", read(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCED.sub("", read(path))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_each_page() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(read(README))}
    assert {f"docs/{page.name}" for page in PAGES} <= linked


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.name)
def test_code_is_python(path: Path) -> None:
    for code in snippets(path, ("python", "py")):
        compile(code, path.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


# Programs as they stand, in a process of their own.


@asynccontextmanager
async def running(code: str, *, stop: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """Run a program; it must end in order by what is typed, or by Ctrl-C."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            yield process.stdout
            process.stdin.write(stop) if stop else process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def line(stream: asyncio.StreamReader) -> str:
    return (await stream.readline()).decode().strip()


@pytest.mark.chromium
async def test_readme() -> None:
    [code] = snippets(README)
    async with running(code) as said, launched() as browser:
        page_url, url = await line(said), await line(said)
        page = await browser.new_page()
        await page.goto(page_url)
        await page.get_by_text("Python heard 'hello'").wait_for()
        async with connect(url) as socket:
            await socket.send("there")
            assert await socket.recv() == "Python heard 'there'"


START = snippets(ROOT / "docs" / "getting-started.md")
RECEIVED = re.compile(r"^@host\.on\(\"WebSocketReceive\"\)\n(.+\n)+", re.MULTILINE)


async def test_the_first_program() -> None:
    async with running(START[0]) as said:
        url = await line(said)
        async with connect(url) as socket:
            assert await line(said) == "opened ws://myapp/chat by None"
            await socket.send("hello")
            assert await socket.recv() == "HELLO"
            await socket.close(3000, "bye")
        assert await line(said) == "closed 3000 bye"


async def test_one_handler_per_url() -> None:
    assert "from interceptor import Session" in START[1]  # The type is named, and where it comes from.
    async with running(RECEIVED.sub(START[1], START[0])) as said:
        url = (await line(said)).replace("/chat", "/sum")
        async with connect(url) as socket:
            for number, total in (("1.5", "1.5"), ("2", "3.5")):
                await socket.send(number)
                assert await socket.recv() == total


async def test_without_asyncio() -> None:
    before, main, _ = START[0].partition("async def main")
    assert main
    async with running(before + START[2], stop=b"\n") as said, connect(await line(said)) as socket:
        await socket.send("hello")
        assert await socket.recv() == "HELLO"


async def test_structlog_shows_everything() -> None:
    async with running(START[3] + START[0]) as said, connect(await line(said)):
        lines = [await line(said), await line(said)]
        assert [text for text in lines if re.search(r"\[.*info.*\].*opened.*id.*=.*url.*=", text)]


# Parts of programs, here.


async def run(code: str, **names: Any) -> dict[str, Any]:
    """Run code as a program would, with `await` at its top; return its names."""
    made = compile(code, "docs", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if (waits := eval(made, names)) is not None:
        await waits
    return names


async def test_events() -> None:
    vectors, on, _ = snippets(ROOT / "docs" / "events.md")
    host = Host([("ws://myapp/*", 1)], root="myapp")
    await run(on, host=host)
    found: list[WebSocketReceive] = []

    async def take() -> None:
        async for event in host.events():
            if event.event == "WebSocketReceive":
                found.append(event)

    async with host:
        task = asyncio.create_task(take())
        async with connect(host.ws_url("/chat")) as socket:
            await socket.send("Hello")
        await until(lambda: found)
        await run(vectors, event=found[0], vector=found[0].message())
    await task


async def test_the_handshake() -> None:
    table, answer, greet = snippets(ROOT / "docs" / "handshake.md")
    host = (await run(table + answer, sessions=["s1"]))["host"]
    host.intercepted_urls = [("ws://dyalog_root/admin/*", 2), *host.intercepted_urls]
    async with host:
        url = host.ws_url("/admin/x")
        async with connect(url, additional_headers={"Cookie": "session=s1"}, subprotocols=["chat"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "chat"
        with pytest.raises(InvalidStatus) as denied:
            await connect(url)
        assert denied.value.response.body == b"members only"
    host = Host([("ws://myapp/*", 2)], root="myapp")
    await run(greet, host=host)
    async with host:
        for path, words in (("/other", ["welcome"]), ("/chat", ["welcome", "welcome"])):
            async with connect(host.ws_url(path)) as socket:
                assert [await socket.recv() for _ in words] == words


@asynccontextmanager
async def echo(rule: str = "ws://myapp/*") -> AsyncIterator[Host]:
    host = (await run(snippets(ROOT / "docs" / "htmlrenderer.md")[0]))["hr"]
    host.intercepted_urls = [(rule, 1)]
    async with host:
        yield host


async def test_htmlrenderer() -> None:
    async with echo() as host, connect(host.ws_url("/chat")) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"


async def test_client() -> None:
    program, handlers = snippets(ROOT / "docs" / "client.md")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert re.fullmatch(rb"hello from ws://127\.0\.0\.1:\d+\s+", out)
    async with Host([("ws://myapp/*", 1)], root="myapp", subprotocols=["v1"]) as host:
        host.on("WebSocketReceive")(lambda event: host.WebSocketClose(event.id, 3000))
        imports = "from interceptor.client import WebSocket\n"
        names = await run(imports + handlers.replace("wss://example.com/feed", host.ws_url("/feed")))
        assert (names["socket"].protocol, names["socket"].readyState) == ("v1", 3)


async def test_client_4d(capfd: pytest.CaptureFixture[str]) -> None:
    [code] = snippets(ROOT / "docs" / "client-4d.md")
    async with echo() as host:
        code = code.replace("wss://example.com/chat", host.ws_url("/chat"))
        await asyncio.to_thread(exec, code, {})
    assert capfd.readouterr().out == "{'say': 'hello'}\n1000  True\n"


async def test_explain() -> None:
    [code] = snippets(ROOT / "docs" / "explain.md")
    allowed = Security(origins=["https://example.com"])
    async with Host([("ws://myapp/*", 1)], root="myapp", security=allowed) as host:
        seen = Recorder(host)
        names = await run(code.replace("wss://example.com/feed", host.ws_url("/feed")))
        await seen.wait_for(WebSocketUpgrade)
    explanation: Explanation = names["explanation"]
    assert "Chromium  does not open it" in str(explanation)
    assert not explanation.chromium.opens
