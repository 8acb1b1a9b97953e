"""Every example runs as it stands, in a process of its own, and a client of another library talks to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from .peer import PATIENCE

EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {
    "asyncio_app.py",
    "echo.py",
    "html_renderer.py",
    "login.py",
    "pywebview_app.py",
    "qt_app.py",
    "router.py",
    "tk_app.py",
}


def test_no_page_has_the_browser_ask_for_an_icon_that_is_not_there() -> None:
    texts = [
        path.read_text(encoding="utf-8") for path in EXAMPLES.rglob("*.*") if path.suffix in (".html", ".py")
    ]
    pages = [text for text in texts if "<!doctype" in text]
    assert len(pages) == 5
    assert all('<link rel="icon"' in page for page in pages)


@asynccontextmanager
async def running(name: str, urls: int = 1) -> AsyncIterator[list[str]]:
    """Run an example; give the URLs that it prints first. It must end by Ctrl-C without a traceback."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "PYTHONWARNINGS": "error"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            yield [(await process.stdout.readline()).decode().strip() for _ in range(urls)]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert b"Traceback" not in err, err.decode()
        assert out.decode().strip().endswith("stopped")
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


async def test_echo() -> None:
    async with running("echo.py") as [url], connect(url) as socket:
        for message in ("Grüße 🎈", b"\x00\xff", ""):
            await socket.send(message)
            assert await socket.recv() == message


async def test_login() -> None:
    async with running("login.py") as [url]:
        async with connect(url) as socket:
            await socket.send("hello")
            assert await socket.recv() == "ann wrote: 'hello'"
        with pytest.raises(InvalidStatus) as nobody:
            await connect(url.replace("ann:correct%20horse@", ""))
        assert nobody.value.response.status_code == 401
        assert nobody.value.response.headers["WWW-Authenticate"] == "Basic realm=notes"
        for wrong in ("ann:wrong@", "bob:@"):
            with pytest.raises(InvalidStatus) as denied:
                await connect(url.replace("ann:correct%20horse@", wrong))
            assert denied.value.response.status_code == 403
            assert denied.value.response.body == b"This is not your password."


async def test_router() -> None:
    async with running("router.py", 3) as [clock, total, room]:
        async with connect(clock) as socket:
            ticks = [message async for message in socket]
            assert len(ticks) == 3
            assert socket.close_code == 1000
        async with connect(total, subprotocols=[Subprotocol("numbers")]) as socket:
            assert socket.subprotocol == "numbers"
            for number, answer in (("1.5", "1.5"), ("2", "3.5")):
                await socket.send(number)
                assert await socket.recv() == answer
            await socket.send("three")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (4000, "not a number")
        async with connect(room) as ann, connect(room) as bob:
            await ann.send("is there tea?")
            while "tea" not in str(await ann.recv()):
                pass
            # Bob may have come in after the first word; Ann asks until he hears it.
            heard = asyncio.create_task(bob.recv())
            while not heard.done():
                await ann.send("is there tea?")
                await ann.recv()
            assert "tea" in str(await heard)
