"""qasync: asyncio's loop is Qt's, and the host lives on it like on any other."""

from __future__ import annotations

import asyncio
import threading

import qasync
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
from websockets.sync.client import connect

from interceptor import Host, WebSocketReceive

heard: list[str | bytes] = []
ticks: list[int] = []
host = Host([("ws://myapp/*", 1)], root="myapp")


@host.on("WebSocketReceive")
def echo(event: WebSocketReceive) -> None:
    assert threading.current_thread() is threading.main_thread()
    heard.append(event.data)
    host.WebSocketSend(event.id, event.data)


def talk(url: str) -> None:
    with connect(url) as socket:
        for index in range(100):
            socket.send(str(index))
        assert [socket.recv(20) for _ in range(100)] == [str(index) for index in range(100)]


async def main() -> None:
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(1)
    async with host:
        await asyncio.to_thread(talk, host.ws_url("/"))
        while not ticks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    timer.stop()


app = QApplication([])
qasync.run(main())
print("ok", len(heard))
