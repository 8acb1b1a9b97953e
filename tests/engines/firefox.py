"""Firefox, driven by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/) without a driver between."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from websockets.asyncio.client import ClientConnection, connect

from . import START, Window, call, missing, started

NAMES = ("firefox-esr", "firefox")
QUIET: dict[str, bool | int | str] = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.websocket.delay-failed-reconnects": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}
ENVIRON = {"MOZ_CRASHREPORTER_DISABLE": "1", "MOZ_REMOTE_SETTINGS_DEVTOOLS": "1"}
"""Keeps a new profile from calling home, and failed sockets from slowing down those that follow."""


class Bidi:
    """A session, and the first tab in it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._tab = ""

    async def begin(self, capabilities: Mapping[str, object]) -> None:
        """Begin a session."""
        await self.ask("session.new", capabilities={"alwaysMatch": capabilities})
        tree = await self.ask("browsingContext.getTree")
        self._tab = cast(list[dict[str, str]], tree["contexts"])[0]["context"]

    async def open(self, url: str) -> None:
        await self.ask("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    async def run(self, script: str, arg: object = None) -> object:
        expression = f"{call(script, arg)}.then(value => JSON.stringify(value ?? null))"
        target = {"context": self._tab}
        answer = await self.ask("script.evaluate", expression=expression, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(cast(dict[str, str], answer["result"])["value"])

    async def ask(self, method: str, **params: object) -> dict[str, object]:
        """Give a command, and return its result."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(START):
            while (answer := json.loads(await self._socket.recv())).get("id") != number:
                pass
        assert answer["type"] == "success", answer
        return cast(dict[str, object], answer["result"])


@asynccontextmanager
async def firefox(
    prefs: Mapping[str, bool | int | str],
    capabilities: Mapping[str, object] | None = None,
    prepare: Callable[[str], None] = lambda profile: None,
) -> AsyncIterator[Window]:
    """A headless Firefox with a profile of its own.

    Args:
        prefs: of the profile, besides those that keep it quiet.
        capabilities: of the session.
        prepare: called with the path of the profile before Firefox starts.
    """
    path = find_firefox()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        _write_prefs(profile, {**QUIET, **prefs})
        prepare(profile)
        command = (path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0")
        async with started(*command, env={**ENVIRON, "HOME": profile}) as process:
            url = await _session_url(profile, process)
            async with connect(url, max_size=None, proxy=None) as socket:
                session = Bidi(socket)
                await session.begin(capabilities or {})
                yield session


def find_firefox() -> str:
    """Path of a Firefox; skip the test, or fail it, where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing("firefox", f"none of {', '.join(NAMES)} is on PATH")
    return path


def _write_prefs(profile: str, prefs: Mapping[str, bool | int | str]) -> None:
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in prefs.items()]
    Path(profile, "user.js").write_text("\n".join(lines))


async def _session_url(profile: str, process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(START):
        while not (url := _read_url(Path(profile, "WebDriverBiDiServer.json"))):
            assert process.returncode is None, f"Firefox ended with {process.returncode}"
            await asyncio.sleep(0.01)
    return url


def _read_url(file: Path) -> str:
    """Where Firefox listens; empty until it has written that down, whole."""
    try:
        server = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):
        return ""
    return f"ws://{server['ws_host']}:{server['ws_port']}/session"
