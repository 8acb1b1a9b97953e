"""Real browsers, each behind one small interface: a window in which a page is opened and scripts are run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

START = 60.0
"""Seconds until a browser that does not start is given up."""


class Window(Protocol):
    """A browser with a profile of its own."""

    async def open(self, url: str) -> None:
        """Show a page, and wait until it is loaded."""

    async def run(self, script: str, arg: object = None) -> object:
        """Run a function in the page, wait for its promise, and return what came of it, in JSON."""


def call(script: str, arg: object) -> str:
    """An expression that calls a function with an argument; its value is a promise."""
    return f"(async () => await ({script})({json.dumps(arg)}))()"


def missing(engine: str, why: str, *, excused: bool = False) -> NoReturn:
    """Skip a test whose browser is not there; where CI=true that is a failure.

    Args:
        engine: its name in `scripts/engines`.
        why: what is missing.
        excused: skip in CI too, if `scripts/engines` could not install it, and said so.
    """
    told = Path(sys.prefix, f"no-{engine}")
    if os.environ.get("CI") != "true" or (excused and told.exists()):
        pytest.skip(f"no {engine}: {why}")
    pytest.fail(f"no {engine}: {why}", pytrace=False)


@asynccontextmanager
async def started(
    *command: str, env: Mapping[str, str] | None = None, log: str = os.devnull, cwd: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program, with pipes for its input and output, that is ended at last.

    Args:
        command: and its arguments.
        env: added to our own.
        log: file for what it says on standard error.
        cwd: folder to start it in.
    """
    with open(log, "ab") as errors:  # noqa: ASYNC230  # nothing waits for this test
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            limit=2**26,
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
