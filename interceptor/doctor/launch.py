"""Starting browsers: each with a profile of its own, without a window, ended by its process id."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ..client import MessageEvent, WebSocket
from ..exceptions import InvalidState
from .chromium import MISSING, find_chromium, flags

__all__ = ["Running", "chromium", "firefox", "qt"]

PATIENCE = 30.0
"""Seconds for a browser to start, and to end."""

FIREFOXES = (
    "firefox-esr",
    "firefox",
    "/Applications/Firefox.app/Contents/MacOS/firefox",
    r"C:\Program Files\Mozilla Firefox\firefox.exe",
)
NO_FIREFOX = "no Firefox: install firefox or firefox-esr, or set FIREFOX to the path of one"
NO_QT = "no Qt WebEngine in this Python: pip install PySide6"
QUIET: dict[str, bool | int | str] = {
    "app.normandy.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
}
"""Keeps a new profile of Firefox from calling home."""


class Running:
    """A browser that was started.

    Attributes:
        name: with its version if it tells it.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    async def ended(self) -> str:
        """Wait until it ends by itself; return how."""
        code = await self._process.wait()
        return f"it ended with status {code}{self.last_words()}"

    def last_words(self) -> str:
        """Return the end of what it said on standard error, for a message."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"; it said: {' / '.join(line.strip() for line in lines[-3:])[:600]}" if lines else ""


@asynccontextmanager
async def chromium(arguments: Sequence[str], url: str) -> AsyncIterator[Running]:
    """Chromium with these arguments.

    Raises:
        InvalidState: there is none.
    """
    path = await asyncio.to_thread(find_chromium)
    if path is None:
        raise InvalidState(_named_wrongly("CHROMIUM") or MISSING)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        profile = f"--user-data-dir={home}"
        command = (path, "--headless", profile, "--no-default-browser-check", *flags(), *arguments, url)
        async with _started(command, home, await _version(path)) as running:
            yield running


@asynccontextmanager
async def firefox(prefs: Mapping[str, bool | int | str], url: str) -> AsyncIterator[Running]:
    """Firefox with these preferences; WebDriver BiDi has it take the host's certificates.

    Raises:
        InvalidState: there is none, or it does not start.
    """
    named = os.environ.get("FIREFOX")
    path = next(filter(None, map(shutil.which, (named,) if named else FIREFOXES)), None)
    if path is None:
        raise InvalidState(_named_wrongly("FIREFOX") or NO_FIREFOX)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        _write_prefs(Path(home, "user.js"), {**QUIET, **prefs})
        command = (path, "--headless", "--no-remote", "--profile", home, "--remote-debugging-port", "0")
        async with (
            _started(command, home, await _version(path)) as running,
            WebSocket(await _session_url(Path(home), running)) as session,
        ):
            await _navigate(session, url)
            yield running


@asynccontextmanager
async def qt(environ: Mapping[str, str], url: str) -> AsyncIterator[Running]:
    """A window of Qt WebEngine with this environment.

    Raises:
        InvalidState: PySide6 is not installed.
    """
    check = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import PySide6.QtWebEngineWidgets", stderr=asyncio.subprocess.DEVNULL
    )
    if await check.wait():
        raise InvalidState(NO_QT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = (sys.executable, "-m", f"{__package__}.window_qt", url)
        async with _started(command, home, "Qt WebEngine", environ) as running:
            yield running


@asynccontextmanager
async def _started(
    command: Sequence[str], home: str, name: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    log = Path(home, "interceptor-log")
    with open(log, "wb") as errors:  # noqa: ASYNC230  # a new file of our own
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env={**os.environ, **(environ or {})},
        )
    try:
        yield Running(name, process, log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _named_wrongly(variable: str) -> str:
    named = os.environ.get(variable)
    return f"{variable} is {named!r}, which does not run; name another one, or install it" if named else ""


async def _version(path: str) -> str:
    """Return what a browser says of itself; on Windows that would open a window."""
    if sys.platform == "win32":
        return path
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(path, "--version", stdout=pipe, stderr=pipe)
    said, _ = await process.communicate()
    return said.decode(errors="replace").strip().partition("\n")[0] or path


async def _session_url(profile: Path, running: Running) -> str:
    """Wait until Firefox has written down where it listens."""
    ended = asyncio.ensure_future(running.ended())
    try:
        async with asyncio.timeout(PATIENCE):
            while not (url := _read_url(profile / "WebDriverBiDiServer.json")):
                if ended.done():
                    raise InvalidState(f"Firefox did not start: {ended.result()}")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise InvalidState(f"Firefox did not start in {PATIENCE:g} s{running.last_words()}") from None
    finally:
        ended.cancel()
    return url


def _write_prefs(file: Path, prefs: Mapping[str, bool | int | str]) -> None:
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in prefs.items())
    file.write_text("\n".join(lines), encoding="utf-8")


def _read_url(file: Path) -> str:
    try:
        server = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # Not yet, or not whole.
    return f"ws://{server['ws_host']}:{server['ws_port']}/session"


async def _navigate(session: WebSocket, url: str) -> None:
    """Begin a session that takes any certificate, and show a page (WebDriver BiDi)."""
    numbers = itertools.count(1)

    async def ask(method: str, **params: object) -> dict[str, list[dict[str, str]]]:
        number = next(numbers)
        session.send(json.dumps({"id": number, "method": method, "params": params}))
        async for event in session:
            if isinstance(event, MessageEvent) and isinstance(event.data, str):
                answer = json.loads(event.data)
                if answer.get("id") == number:
                    return dict(answer.get("result") or {})
        raise InvalidState("Firefox closed the session")

    async with asyncio.timeout(PATIENCE):
        await ask("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        tree = await ask("browsingContext.getTree")
        tab = tree["contexts"][0]["context"]
        await ask("browsingContext.navigate", context=tab, url=url, wait="none")
