"""Runs an example with a window, and presses its buttons by lines of JSON on standard input.

    python -m tests.window_driver examples/qt_app.py [arguments of the example]

`{"press": text}` presses the button with that text once there is one, `{"shoot": path}` keeps a picture of
the window (Qt only), `{"quit": "now"}` closes it.
"""

from __future__ import annotations

import json
import queue
import runpy
import sys
import threading
from collections.abc import Callable

orders: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()


def read() -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))


def drive(press: Callable[[str], bool], shoot: Callable[[str], object], quit: Callable[[], object]) -> None:
    """Do what waits; an order that cannot be done yet is put back."""
    for _ in range(orders.qsize()):
        match order := orders.get():
            case {"press": text} if not press(text):
                orders.put(order)
            case {"shoot": path}:
                shoot(path)
            case {"quit": _}:
                quit()


def drive_qt() -> None:
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication, QPushButton

    def press(text: str) -> bool:
        found = [widget for widget in QApplication.allWidgets() if isinstance(widget, QPushButton)]
        for button in (button for button in found if button.text() == text):
            button.click()
            return True
        return False

    def shoot(path: str) -> None:
        QApplication.topLevelWidgets()[0].grab().save(path)

    run = QApplication.exec

    def exec_(*_: object) -> int:
        timer = QTimer()
        timer.timeout.connect(lambda: drive(press, shoot, QApplication.closeAllWindows))
        timer.start(10)
        return int(run())

    QApplication.exec = exec_  # type: ignore[method-assign]


def drive_tk() -> None:
    import tkinter
    from tkinter import ttk

    def buttons(widget: tkinter.Misc) -> list[ttk.Button]:
        own = [widget] if isinstance(widget, ttk.Button) else []
        return own + [button for child in widget.winfo_children() for button in buttons(child)]

    run = tkinter.Misc.mainloop

    def mainloop(root: tkinter.Misc, n: int = 0) -> None:
        def press(text: str) -> bool:
            for button in (button for button in buttons(root) if button["text"] == text):
                button.invoke()
                return True
            return False

        def poll() -> None:
            root.after(10, poll)
            drive(press, lambda path: None, root.destroy)

        poll()
        run(root, n)

    tkinter.Misc.mainloop = mainloop  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    threading.Thread(target=read, daemon=True).start()
    sys.argv = sys.argv[1:]
    drive_tk() if "tk" in sys.argv[0] else drive_qt()
    runpy.run_path(sys.argv[0], run_name="__main__")
