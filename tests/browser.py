"""The Chromium of this machine, for tests that drive a real browser.

A module that uses it imports the fixture and marks its tests: `pytestmark = pytest.mark.chromium`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from interceptor.doctor import chromium as installed
from interceptor.doctor.chromium import MISSING, flags, is_root

__all__ = ["chromium", "find_chromium", "flags", "is_root", "launched", "require_chromium"]


@cache
def find_chromium() -> str | None:
    """Path of the Chromium to use: $CHROMIUM if set, else the first on PATH that runs."""
    return installed.find_chromium()


def require_chromium() -> str:
    """Path of the Chromium to use; without one the test is skipped, where CI=true it fails."""
    path = find_chromium()
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(MISSING, pytrace=False)
    pytest.skip(MISSING)


@asynccontextmanager
async def launched(*args: str) -> AsyncIterator[Browser]:
    """A headless Chromium with a profile of its own.

    Args:
        args: flags of its command line besides the usual ones.
    """
    path = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=[*flags(), *args], chromium_sandbox=not is_root()
        )
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(loop_scope="function")
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium with a profile of its own, new for each test."""
    async with launched() as browser:
        yield browser
