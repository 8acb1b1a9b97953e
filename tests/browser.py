"""The Chromium of this machine, for tests that drive a real browser.

A module that uses it imports the fixture and marks its tests: `pytestmark = pytest.mark.chromium`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import cache

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no Chromium: install chromium or google-chrome, or set CHROMIUM to the path of one"


@cache
def find_chromium() -> str | None:
    """Path of the Chromium to use: $CHROMIUM if set, else the first on PATH that runs."""
    named = os.environ.get("CHROMIUM")
    candidates = (shutil.which(name) for name in ((named,) if named else NAMES))
    return next((path for path in candidates if path and _runs(path)), None)


def flags() -> list[str]:
    """What Chromium needs on its command line besides what Playwright gives it; headless is Playwright's."""
    quiet = ["no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"]
    sandbox = ["no-sandbox"] if is_root() else []
    return [f"--{name}" for name in ("disable-gpu", "disable-quic", *quiet, *sandbox)]


def is_root() -> bool:
    """Whether the sandbox, which Chromium refuses to root, has to go."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def require_chromium() -> str:
    """Path of the Chromium to use; without one the test is skipped, where CI=true it fails."""
    path = find_chromium()
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(MISSING, pytrace=False)
    pytest.skip(MISSING)


@pytest_asyncio.fixture(loop_scope="function")
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium with a profile of its own, new for each test."""
    path = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=flags(), chromium_sandbox=not is_root()
        )
        try:
            yield browser
        finally:
            await browser.close()


def _runs(path: str) -> bool:
    # Ubuntu has a chromium-browser that only asks for a snap.
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
