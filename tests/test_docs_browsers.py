"""The programs in the documentation of each engine run as they are written there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from .browser import flags, require_chromium
from .engines import START
from .engines.firefox import find_firefox
from .engines.windows import OFFSCREEN, SOFTWARE, require_qt, require_webkit, screen
from .peer import until

DOCS = Path(__file__).parent.parent / "docs"
PROGRAM = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEARD = b"Python heard hello\n"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform == "win32", reason="the wrappers around browsers are shell scripts"),
]


def write_programs(page: str, folder: Path) -> None:
    """Write the programs of a page to files of their names."""
    for name, text in PROGRAM.findall((DOCS / page).read_text(encoding="utf-8")):
        (folder / name).write_text(text, encoding="utf-8")


def write_wrapper(folder: Path, name: str, *command: str) -> None:
    """Have a command on PATH that runs another one, without a screen."""
    wrapper = folder / name
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)


@asynccontextmanager
async def running(folder: Path, env: dict[str, str]) -> AsyncIterator[asyncio.StreamReader]:
    """Run chat.py as a group of its own, which is ended as Ctrl-C would."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "chat.py",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent), "PATH": path, "HOME": str(folder), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        await end_group(process)


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End a program by Ctrl-C, and what it started if that goes on."""
    process.send_signal(signal.SIGINT)
    with suppress(TimeoutError):
        await until(lambda: process.returncode is not None)  # wait() would wait for what it started, too
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


async def listen(folder: Path, **env: str) -> None:
    """Run chat.py until it has heard of the page."""
    async with running(folder, env) as out, asyncio.timeout(START):
        while (line := await out.readline()) != HEARD:
            assert line, "the program ended, and had heard nothing"


async def test_chromium(tmp_path: Path) -> None:
    write_wrapper(tmp_path, "chromium", require_chromium(), "--headless", *flags())
    write_programs("chromium.md", tmp_path)
    await listen(tmp_path)


async def test_firefox(tmp_path: Path) -> None:
    write_wrapper(tmp_path, "firefox", find_firefox(), "--headless")
    write_programs("firefox.md", tmp_path)
    await listen(tmp_path)


async def test_qt(tmp_path: Path) -> None:
    require_qt()
    write_programs("qt.md", tmp_path)
    await listen(tmp_path, **OFFSCREEN)


async def test_webkitgtk(tmp_path: Path) -> None:
    require_webkit()
    write_programs("webkitgtk.md", tmp_path)
    async with screen() as display:
        await listen(tmp_path, **SOFTWARE, DISPLAY=display)


async def test_playwright(tmp_path: Path) -> None:
    path = require_chromium()
    if shutil.which("chromium") != path:
        write_wrapper(tmp_path, "chromium", path)
    write_programs("playwright-selenium.md", tmp_path)
    await listen(tmp_path)
