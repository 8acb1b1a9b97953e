"""A type checker takes the documented loops over events as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THREADS = (ROOT / "docs" / "threads.md").read_text(encoding="utf-8")
UNTYPED = "# mypy: allow-untyped-defs, allow-untyped-calls, check-untyped-defs\n"
"""Callbacks in the documentation have no annotations, for they read better so; what is in them counts."""

LOOP = """
from interceptor import Host

async def program(host: Host) -> None:
    async for event in host.events():
        if event.event == "WebSocketUpgrade":
            print(event.cookies)
"""
EXHAUSTIVE = """
from typing import assert_never
from interceptor import Host, HTTPRequest, WebSocketClose, WebSocketError, WebSocketReceive, WebSocketUpgrade

match Host().dq():
    case HTTPRequest() | WebSocketUpgrade() | WebSocketReceive() | WebSocketClose() | WebSocketError() | None:
        pass
    case other:
        assert_never(other)
"""
WRONG = """
from interceptor import Host

event = Host().dq()
assert event is not None
print(event.code)
"""


@pytest.mark.timeout(180)  # It may have all to read for the first time.
def test_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the dev extra")
    typed = [text for text in re.findall(r"```py\n(.*?)```", THREADS, re.DOTALL) if "event: " in text]
    loops = [text for text in re.findall(r"```python\n(.*?)```", THREADS, re.DOTALL) if "host.dq()" in text]
    assert (len(typed), len(loops)) == (1, 1)
    files = {
        "typed": typed[0],
        "loop": UNTYPED + loops[0],
        "events": LOOP,
        "exhaustive": EXHAUSTIVE,
        "wrong": WRONG,
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    cache = (
        f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}"  # Other options would put out that of `make check`.
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", cache]
    paths = [str(tmp_path / f"{name}.py") for name in files]
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    checked = subprocess.run([*command, *paths], cwd=ROOT, env=env, capture_output=True, text=True)
    lines = checked.stdout.splitlines()
    assert [line for line in lines if "wrong.py" not in line] == [], checked.stdout + checked.stderr
    assert any('"code"' in line and "[union-attr]" in line for line in lines), checked.stdout + checked.stderr
