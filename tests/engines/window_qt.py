"""A window of Qt WebEngine, driven by lines of JSON: a program of its own, started by `tests.engines`.

Each line on standard input is `{"open": url}` or `{"run": script}`, and is answered by a line `{"ok": value}`
or `{"error": text}`. A script is an expression whose value is a promise.
"""

from __future__ import annotations

import json
import sys
import threading

from PySide6.QtCore import QObject, QUrl, Signal
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

MARK = "answer:"
SAY = """(async () => {
    try { return {ok: await (SCRIPT) ?? null}; } catch (error) { return {error: String(error)}; }
})().then(answer => console.info("MARK" + JSON.stringify(answer)));"""


def say(answer: object) -> None:
    print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)


class Page(QWebEnginePage):
    """Says what its scripts say with the mark."""

    def javaScriptConsoleMessage(self, level: object, message: str, line: int, source: str) -> None:
        if message.startswith(MARK):
            say(message.removeprefix(MARK))
        else:
            print("console:", message, file=sys.stderr, flush=True)


class Orders(QObject):
    """Brings the lines of standard input to the thread of the window."""

    given = Signal(str)

    def read(self) -> None:
        for line in sys.stdin:
            self.given.emit(line)
        self.given.emit("")


class Window:
    """The window, and what it is told."""

    def __init__(self) -> None:
        self.profile = QWebEngineProfile()
        self.view = QWebEngineView()
        self.view.resize(800, 500)
        self.page = Page(self.profile, self.view)
        self.view.setPage(self.page)
        self.page.loadFinished.connect(lambda well: say({"ok": True} if well else {"error": "not loaded"}))
        self.view.show()

    def obey(self, line: str) -> None:
        order = json.loads(line or '{"quit": true}')
        match order:
            case {"open": str(url)}:
                self.page.load(QUrl(url))
            case {"run": str(script)}:
                self.page.runJavaScript(SAY.replace("MARK", MARK).replace("SCRIPT", script))
            case _:
                self.view.close()
                self.page.deleteLater()
                QApplication.quit()


def main() -> None:
    """Run until standard input ends."""
    application = QApplication(sys.argv)
    window, orders = Window(), Orders()
    orders.given.connect(window.obey)
    threading.Thread(target=orders.read, daemon=True).start()
    say({"ok": "ready"})
    application.exec()


if __name__ == "__main__":
    main()
