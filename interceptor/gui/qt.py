"""`post` for Qt, by PySide6 or PyQt6.

from interceptor.gui import qt

host = Host([("ws://myapp/*", 1)], root="myapp", post=qt.post)
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

from ..exceptions import InvalidState

__all__ = ["post"]

BINDINGS = ("PySide6", "PyQt6")


def _core() -> ModuleType:
    """Return QtCore of the binding that the program has imported, or else of one that is installed."""
    names = sorted(BINDINGS, key=lambda name: name not in sys.modules)
    for name in names:
        try:
            return importlib.import_module(f"{name}.QtCore")
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(
        "interceptor.gui.qt needs PySide6 or PyQt6: pip install PySide6", name="PySide6"
    )


QtCore = _core()
_Signal = getattr(QtCore, "Signal", None) or QtCore.pyqtSignal
_Slot = getattr(QtCore, "Slot", None) or QtCore.pyqtSlot


class _Receiver(QtCore.QObject):  # type: ignore[misc, name-defined]  # which Qt it is shows when it runs
    """Lives on the application's thread, and calls there what is posted."""

    posted = _Signal(object)

    def __init__(self, app: QtCore.QCoreApplication) -> None:  # type: ignore[name-defined]
        super().__init__()
        self.has_quit = False
        self.posted.connect(self._run, QtCore.Qt.ConnectionType.QueuedConnection)
        self.moveToThread(app.thread())
        app.aboutToQuit.connect(self._quit)

    @_Slot(object)  # type: ignore[untyped-decorator]
    def _run(self, function: Callable[[], None]) -> None:
        function()

    @_Slot()  # type: ignore[untyped-decorator]
    def _quit(self) -> None:
        self.has_quit = True
        self.posted.emit(self._revive)  # Called if the program runs the application once more.

    def _revive(self) -> None:
        self.has_quit = False


_receivers: dict[object, _Receiver] = {}
"""By application; most programs have one in their life."""


def post(function: Callable[[], None]) -> None:
    """Run a function soon on the thread of the QApplication; callable from any thread.

    Raises:
        InvalidState: there is no QApplication, or it has quit.
    """
    app = QtCore.QCoreApplication.instance()
    if app is None:
        raise InvalidState("there is no QApplication; make it before pages connect")
    receiver = _receivers.get(app)
    if receiver is None:
        receiver = _receivers.setdefault(app, _Receiver(app))
    if receiver.has_quit:
        raise InvalidState("the QApplication has quit")
    if QtCore.QThread.currentThread() == app.thread():
        QtCore.QTimer.singleShot(0, function)  # A signal would be ahead of what the user does.
    else:
        receiver.posted.emit(function)
