"""The Chromium of this machine: where it is, and what it needs on its command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

__all__ = ["MISSING", "find_chromium", "flags", "is_root"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no Chromium that runs: install chromium or google-chrome, or set CHROMIUM to the path of one"

QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Return the path of the Chromium to use: $CHROMIUM if set, else the first on PATH that runs."""
    named = os.environ.get("CHROMIUM")
    candidates = (shutil.which(name) for name in ((named,) if named else NAMES))
    return next((path for path in candidates if path and _runs(path)), None)


def flags() -> list[str]:
    """Return what Chromium needs besides what Playwright gives it; `--headless` is Playwright's."""
    return [*QUIET, "--no-sandbox"] if is_root() else [*QUIET]


def is_root() -> bool:
    """Whether the sandbox has to go, with which Chromium does not run as root."""
    return sys.platform != "win32" and os.geteuid() == 0


def _runs(path: str) -> bool:
    """Whether it is a browser; Ubuntu has a chromium-browser that only asks for a snap."""
    if sys.platform == "win32":
        return True  # There --version opens a window.
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
