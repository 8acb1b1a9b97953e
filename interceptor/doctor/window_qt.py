"""A page in Qt WebEngine that nobody sees, for the doctor: a program of its own, given a URL."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(url: str) -> int:
    """Show a page until the process is ended."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    if sys.platform != "win32" and os.geteuid() == 0:
        os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")  # It does not run as root.
    from PySide6.QtCore import QUrl
    from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile
    from PySide6.QtWidgets import QApplication

    application = QApplication([])
    profile = QWebEngineProfile()  # Off the record.
    page = QWebEnginePage(profile)
    page.load(QUrl(url))
    return int(application.exec())  # PySide6 may be missing, and its types with it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
