"""A Qt window with a page in it: a Qt button sends to the page, the page moves a Qt progress bar.

    pip install -e ".[ui]" PySide6
    python examples/qt_app.py

`post=qt.post` has the callbacks run on the GUI's thread, so that they may touch widgets.
"""

import signal
from pathlib import Path

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication, QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from interceptor import Host, WebSocketReceive
from interceptor.gui import qt

host = Host([("ws://myapp/progress", 1)], root="myapp", ui=Path(__file__).with_name("ui"), post=qt.post)


class Window(QWidget):
    """The page, and below it a bar and a button."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.setWindowTitle("Progress")
        self.resize(640, 460)
        self.page = QWebEngineView()
        self.bar = QProgressBar()
        self.button = QPushButton("Greet the page")
        self.button.clicked.connect(self.greet)
        below = QHBoxLayout()
        below.setContentsMargins(16, 8, 16, 16)
        below.addWidget(self.bar)
        below.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.page, stretch=1)
        layout.addLayout(below)
        self.page.load(QUrl(url))

    def greet(self) -> None:
        host.broadcast(host.sockets, f"Hello, the bar is at {self.bar.value()} %.")


def main() -> None:
    app = QApplication([])
    signal.signal(signal.SIGINT, lambda *_: app.closeAllWindows())
    timer = QTimer(interval=200)
    timer.timeout.connect(lambda: None)  # Python sees Ctrl-C only when something of Python's runs.
    timer.start()
    with host.in_thread():
        window = Window(host.http_url("/progress.html"))

        @host.on("WebSocketReceive")
        def moved(event: WebSocketReceive) -> None:
            window.bar.setValue(int(event.data))

        window.show()
        app.exec()
        window.page.page().deleteLater()  # Before the profile that it belongs to.
    print("stopped")


if __name__ == "__main__":
    main()
