"""A Tk window beside the browser: who opens ws://gate/in waits until the user has allowed it here.

    pip install -e ".[ui]"
    python examples/tk_app.py

shows its page in Chromium, Chrome or Edge in app mode; what follows on the command line goes to the browser.
The handshake is a manual one: the callback returns nothing, and the answer follows when a button is pressed.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import tkinter as tk
from pathlib import Path
from tkinter import ttk

from interceptor import Host, UnknownSocket, WebSocketError, WebSocketUpgrade
from interceptor.gui import tk as gui

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge")


class App:
    """The window, with one question for each page that waits."""

    def __init__(self) -> None:
        self.root = tk.Tk()
        self.root.title("Gatekeeper")
        self.root.minsize(340, 200)
        self.status = tk.StringVar(value="Nobody asks.")
        ttk.Label(self.root, textvariable=self.status, padding=16).pack(anchor="w")
        self.questions: dict[str, ttk.Frame] = {}
        self.host = Host(
            [("ws://gate/in", 2)], root="myapp", ui=Path(__file__).with_name("ui"), post=gui.post(self.root)
        )
        self.host.on("WebSocketUpgrade")(self.ask)
        self.host.on("WebSocketError")(self.forget)

    def ask(self, event: WebSocketUpgrade) -> None:
        question = ttk.Frame(self.root, padding=(16, 0, 16, 16))
        ttk.Label(question, text=f"Let in {event.origin}?").pack(anchor="w", pady=(0, 8))
        ttk.Button(question, text="Allow", command=lambda: self.answer(event, True)).pack(side="left")
        ttk.Button(question, text="Deny", command=lambda: self.answer(event, False)).pack(side="left", padx=8)
        question.pack(fill="x")
        self.questions[event.id] = question
        self.status.set(f"{len(self.questions)} waiting.")

    def answer(self, event: WebSocketUpgrade, allowed: bool) -> None:
        self.close(event.id)
        try:
            if allowed:
                self.host.answer(event.id, event.accept())
                self.host.WebSocketSend(event.id, "The gatekeeper says hello.")
            else:
                self.host.answer(event.id, event.deny(403, "not today"))
        except UnknownSocket:
            self.status.set("Too late, the page has gone.")

    def forget(self, event: WebSocketError) -> None:
        self.close(event.id)

    def close(self, id: str) -> None:
        question = self.questions.pop(id, None)
        if question is not None:
            question.destroy()
        self.status.set(f"{len(self.questions)} waiting." if self.questions else "Nobody asks.")

    def run(self) -> None:
        signal.signal(signal.SIGINT, lambda *_: self.root.destroy())
        with self.host.in_thread(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = show(self.host.http_url("/gate.html"), profile)
            self.watch(browser)
            self.root.mainloop()
            browser.terminate()
            browser.wait()

    def watch(self, browser: subprocess.Popen[bytes]) -> None:
        """End with the browser, and by Ctrl-C: Python sees that only when something of Python's runs."""
        if browser.poll() is None:
            self.root.after(200, self.watch, browser)
        else:
            self.root.destroy()


def show(url: str, profile: str) -> subprocess.Popen[bytes]:
    """Open a page in a browser window without tabs and address bar."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is on PATH")
    return subprocess.Popen(
        [
            path,
            f"--app={url}",
            f"--user-data-dir={profile}",
            "--no-first-run",
            "--window-size=560,560",
            "--window-position=400,40",
            *sys.argv[1:],
        ]
    )


if __name__ == "__main__":
    App().run()
    print("stopped")
