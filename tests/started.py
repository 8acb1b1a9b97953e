"""Programs of their own: processes that are gone at the end of a test, whatever becomes of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from .peer import PATIENCE

ROOT = Path(__file__).parent.parent


@contextmanager
def started(*command: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process with text pipes, in the folder of the project; it ends with the test, or after PATIENCE."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    killer = threading.Timer(PATIENCE, process.kill)
    killer.start()
    try:
        yield process
    finally:
        killer.cancel()
        killer.join()
        process.kill()
        process.communicate()


def program(code: str, *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A Python program, in development mode or with these options."""
    return started(sys.executable, *(options or ("-X", "dev")), "-c", code)
