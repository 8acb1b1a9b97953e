"""Qt WebEngine and WebKitGTK: windows that are programs of their own, told by lines of JSON what to do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import cast

from ..peer import PATIENCE
from . import START, Window, call, missing, started

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
"""That of the system, which has the bindings of WebKitGTK."""

QT = "import PySide6.QtWebEngineWidgets; from PySide6.QtWidgets import QApplication; QApplication([])"
GTK = "import gi; gi.require_version('WebKit2', '4.1'); from gi.repository import WebKit2"
OFFSCREEN = {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1"}
SOFTWARE = {"WEBKIT_DISABLE_DMABUF_RENDERER": "1", "NO_AT_BRIDGE": "1", "GIO_USE_PROXY_RESOLVER": "dummy"}


class Program:
    """A window in another process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def open(self, url: str) -> None:
        await self.tell(open=url)

    async def run(self, script: str, arg: object = None) -> object:
        return await self.tell(run=call(script, arg))

    async def tell(self, **order: str) -> object:
        """Give an order, and return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.answer(PATIENCE * 1.5)

    async def answer(self, patience: float) -> object:
        """Read an answer."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise AssertionError(f"no answer; it said {self._log.read_text(errors='replace')[-3000:]}")
        answer = cast(dict[str, object], json.loads(line))
        assert "ok" in answer, answer
        return answer["ok"]


def require_qt() -> None:
    """Skip the test, or fail it, where there is no Qt WebEngine."""
    if why := _why_not(sys.executable, QT):
        missing("qt", why, excused=True)


def require_webkit() -> None:
    """Skip the test, or fail it, where there is no WebKitGTK, or no Xvfb."""
    if why := _why_not(SYSTEM_PYTHON, GTK) or _why_not("Xvfb", ""):
        missing("webkit", why, excused=True)


@asynccontextmanager
async def qt(environ: Mapping[str, str]) -> AsyncIterator[Window]:
    """Qt WebEngine without a screen."""
    require_qt()
    async with _program(sys.executable, "window_qt.py", env={**OFFSCREEN, **environ}) as window:
        yield window


@asynccontextmanager
async def webkit(proxy: str) -> AsyncIterator[Window]:
    """WebKitGTK on a screen that nobody sees."""
    require_webkit()
    async with screen() as display:
        env = {**SOFTWARE, "DISPLAY": display, "GDK_BACKEND": "x11"}
        async with _program(SYSTEM_PYTHON, "window_gtk.py", proxy, env=env) as window:
            yield window


@asynccontextmanager
async def _program(python: str, script: str, *args: str, env: Mapping[str, str]) -> AsyncIterator[Program]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        log = Path(home, "log")
        places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), home)
        async with started(python, str(HERE / script), *args, env={**places, **env}, log=str(log)) as process:
            window = Program(process, log)
            await window.answer(START)
            yield window


@asynccontextmanager
async def screen() -> AsyncIterator[str]:
    """A screen that nobody sees; gives its DISPLAY."""
    async with started(
        "Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "1024x768x24"
    ) as server:
        assert server.stdout is not None
        async with asyncio.timeout(START):
            number = await server.stdout.readline()
        assert number, "Xvfb did not start"
        yield f":{number.decode().strip()}"


@cache
def _why_not(program: str, code: str) -> str:
    """Why a program is of no use; empty if it is."""
    command = [program, "-c", code] if code else [program, "-help"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=START, text=True, env={**os.environ, **OFFSCREEN}
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return "" if done.returncode == 0 or not code else done.stderr.strip().rpartition("\n")[2] or "it failed"
