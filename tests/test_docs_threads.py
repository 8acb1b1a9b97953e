"""The programs of docs/threads.md and docs/gui.md run as they stand there, and answer a client."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from .peer import PATIENCE
from .started import started
from .test_gui import OFFSCREEN, ROOT, SYSTEM_PACKAGES, SYSTEM_PYTHON, can
from .test_gui import display as display

DOCS = Path(__file__).parent.parent / "docs"
NEEDS = {"PySide6": "PySide6.QtWidgets", "tkinter": "tkinter", "gi": "gi.repository.GLib", "wx": "wx"}


def programs(page: str) -> list[str]:
    """The Python programs of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


PROGRAMS = [(page, index) for page in ("threads.md", "gui.md") for index in range(len(programs(page)))]


def test_they_are_there() -> None:
    assert [page for page, _ in PROGRAMS] == ["threads.md"] * 3 + ["gui.md"] * 5


@pytest.mark.parametrize(("page", "index"), PROGRAMS)
def test_a_program(page: str, index: int, display: dict[str, str]) -> None:
    code = programs(page)[index]
    toolkit = next((name for name in NEEDS if re.search(rf"^(from|import) .*\b{name}\b", code, re.M)), "")
    python, path = sys.executable, str(ROOT)
    if toolkit in ("gi", "wx"):
        python, path = SYSTEM_PYTHON, os.pathsep.join((path, str(SYSTEM_PACKAGES)))
    environment = {**os.environ, **display, **OFFSCREEN, "PYTHONPATH": path}
    needs = "qasync" if "import qasync" in code else "sys"
    if why := can(python, f"import {NEEDS.get(toolkit, 'sys')}, {needs}, websockets", environment):
        pytest.skip(f"{toolkit} cannot be tried: {why}; scripts/toolkits installs it")
    with started(python, "-c", code, env=environment) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        with connect(process.stdout.readline().strip()) as peer:
            for word in ("hello", "again"):
                peer.send(word)
                assert str(peer.recv(PATIENCE)).startswith(word.upper())
        if page == "threads.md" and index < 2:
            process.stdin.write("\n")  # One waits for Enter, one for the end of the socket.
            process.stdin.flush()
            assert process.wait(PATIENCE) == 0
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors, errors
