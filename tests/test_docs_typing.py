"""What a type checker knows of events: in the documented loops, and in callbacks by the name they have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THREADS = (ROOT / "docs" / "threads.md").read_text(encoding="utf-8")
EVENTS = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
SNIPPET = r"```py\n(.*?)```"
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


CALLBACKS = """
from interceptor import (
    AnyEvent, Event, EventName, Host, HTTPRequest, Session,
    WebSocketClose, WebSocketError, WebSocketReceive, WebSocketUpgrade,
)

host = Host([("ws://myapp/*", 1), ["*", 0]], proxy=["connect"])

@host.on("WebSocketReceive")
@host.on(842)
@host.on(WebSocketReceive)
def received(event: WebSocketReceive) -> int:
    return host.WebSocketSend(event.id, event.data)

@host.on("HTTPRequest")
def asked(event: HTTPRequest) -> HTTPRequest | None:
    return event.respond("here") if event.method == "GET" else None

@host.on(841)
async def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | list[object] | None:
    return event.message() if event.cookies else event.accept()

@host.on("WebSocketClose")
@host.on(844)
def ended(event: WebSocketClose | WebSocketError) -> None:
    print(event.id)

@host.on("All")
def note(event: AnyEvent) -> None:
    print(event.event)

def watch(which: EventName) -> None:
    def any_of_them(event: Event) -> None:
        print(event.message())

    host.on(which)(any_of_them)
    host.off(which, any_of_them)

@host.route("ws://myapp/chat/*", mode=2)
async def chat(socket: Session) -> None:
    await socket.send(socket.url)

host.on(840)(lambda event: None)
reveal_type(received)
"""
WRONG_CALLBACKS = """
from interceptor import Host, HTTPRequest, Mode, WebSocketClose, WebSocketReceive, WebSocketUpgrade

host = Host()
host.on("WebSocketRecieve")  # call-overload
host.on(845)  # call-overload
host.off("receive")  # arg-type

@host.on("WebSocketReceive")  # type-var
def received(event: WebSocketClose) -> None: ...

@host.on(843)  # type-var
def closed(event: WebSocketReceive) -> None: ...

@host.on("WebSocketUpgrade")  # type-var
def answer(event: WebSocketUpgrade) -> str:
    return "HTTP/1.1 404 Not Found"

@host.on("HTTPRequest")  # type-var
async def asked(event: HTTPRequest) -> str:
    return "a page"

@host.route("ws://myapp/*")  # type-var
def chat(socket: WebSocketReceive) -> None: ...

host.route("ws://myapp/*", mode=Mode.PASS)  # arg-type
host.answer("0123456789abcde", "HTTP/1.1 404 Not Found")  # arg-type
host.WebSocketSend("0123456789abcde", "text", True, 8)  # arg-type
Host(["ws://myapp/*"])  # list-item
Host(proxy=["tunnel"])  # list-item
"""


RECEIVED = 'note: Revealed type is "def (event: interceptor.events.WebSocketReceive) -> int"'


def wrong_lines(text: str) -> list[tuple[int, str]]:
    """The lines of a program that a checker is to refuse, each with the name of its error."""
    lines = enumerate(text.splitlines(), 1)
    return [(number, line.partition("  # ")[2]) for number, line in lines if "  # " in line]


@pytest.mark.timeout(180)  # It may have all to read for the first time.
def test_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the dev extra")
    typed = [
        text
        for page in (THREADS, EVENTS)
        for text in re.findall(SNIPPET, page, re.DOTALL)
        if "event: " in text
    ]
    loops = [text for text in re.findall(r"```python\n(.*?)```", THREADS, re.DOTALL) if "host.dq()" in text]
    assert (len(typed), len(loops)) == (2, 1)
    assert "(socket: Session)" in typed[1]
    files = {
        "typed": typed[0],
        "handlers": typed[1],
        "loop": UNTYPED + loops[0],
        "events": LOOP,
        "exhaustive": EXHAUSTIVE,
        "wrong": WRONG,
        "callbacks": CALLBACKS,
        "wrong_callbacks": WRONG_CALLBACKS,
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
    whole = checked.stdout + checked.stderr
    right = [line for line in lines if "wrong" not in line]
    assert [line.partition(": ")[2] for line in right] == [RECEIVED], whole
    assert any('"code"' in line and "[union-attr]" in line for line in lines), whole
    errors = re.findall(r"wrong_callbacks\.py:(\d+): error: .*\[([\w-]+)\]$", checked.stdout, re.MULTILINE)
    assert [(int(number), code) for number, code in errors] == wrong_lines(WRONG_CALLBACKS), whole
