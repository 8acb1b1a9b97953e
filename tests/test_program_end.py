"""However a program ends, with a host in a thread it ends: no thread, no warning, and the pages get 1001."""

from __future__ import annotations

import os
import signal

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from .peer import PATIENCE
from .started import program

PROGRAM = """
import sys, threading, time
from interceptor import Host
host = Host([("ws://myapp/*", 1)], root="myapp")
opened = threading.Event()
host.on("WebSocketUpgrade")(lambda event: opened.set())
"""
ENDINGS = {
    "the end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ZeroDivisionError", 1),
    "Ctrl-C in dq": ("host.dq()", -signal.SIGINT),
    "Ctrl-C in a wait": ("threading.Event().wait()", -signal.SIGINT),
}
SHOW = "print(host.ws_url('/'), flush=True); opened.wait(); print('open', flush=True)"
STARTS = {
    "block": f"with host.in_thread():\n    {SHOW}\n    {{}}",
    "start": f"host.in_thread().start()\n{SHOW}\n{{}}",
    "worker": f"host.in_thread().start()\n{SHOW}\n"
    "threading.Thread(target=lambda: time.sleep(0.1)).start()\n{}",
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_ends(start: str, ending: str) -> None:
    statement, status = ENDINGS[ending]
    if status < 0 and os.name == "nt":
        pytest.skip("Ctrl-C is sent to another process in another way on Windows")
    code = PROGRAM + STARTS[start].format(statement)
    # In development mode asyncio walks the stack for each call; what a signal raises meanwhile is lost.
    with program(code, *(("-W", "default") if status < 0 else ())) as process:
        assert process.stdout is not None
        with connect(process.stdout.readline().strip()) as peer:
            assert process.stdout.readline() == "open\n"
            if status < 0:
                process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)
            assert peer.close_code == 1001
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, errors
    for trouble in ("ResourceWarning", "was destroyed", "never awaited", "Exception ignored", "Fatal"):
        assert trouble not in errors, errors
    assert errors.count("Traceback") == (status not in (0, 3))
