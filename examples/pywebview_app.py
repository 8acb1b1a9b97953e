"""A to-do list in a window of its own: the page talks to Python by ws://myapp/tasks.

    pip install -e ".[ui]" "pywebview[pyside6]"
    python examples/pywebview_app.py

The page and its files come from the folder `ui` beside this program. The list is kept here, so two windows
would show the same one. pywebview takes the web view of the system; `PYWEBVIEW_GUI=qt` names another.
"""

import itertools
import json
from pathlib import Path

import webview

from interceptor import Host, WebSocketReceive, WebSocketUpgrade

host = Host([("ws://myapp/tasks", 1)], root="myapp", ui=Path(__file__).with_name("ui"))
ids = itertools.count(1)
tasks: dict[int, dict[str, object]] = {}


def add(text: str) -> None:
    id = next(ids)
    tasks[id] = {"id": id, "text": text, "done": False}


def show() -> None:
    host.broadcast(host.sockets, json.dumps(list(tasks.values())))


@host.on("WebSocketUpgrade")
def opened(event: WebSocketUpgrade) -> None:
    show()


@host.on("WebSocketReceive")
def changed(event: WebSocketReceive) -> None:
    match json.loads(event.data):
        case {"add": str(text)} if text.strip():
            add(text.strip())
        case {"toggle": int(id)} if id in tasks:
            tasks[id]["done"] = not tasks[id]["done"]
    show()


if __name__ == "__main__":
    add("Read the page on pywebview")
    add("Write a program of my own")
    with host.in_thread():
        # Without text_select pywebview writes a style into the page, which the page's policy refuses.
        url = host.http_url("/tasks.html")
        webview.create_window("Tasks", url, width=560, height=620, text_select=True)
        webview.start()
    print("stopped")
