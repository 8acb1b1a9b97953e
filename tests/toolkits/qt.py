"""Qt; the binding is the first argument."""

from __future__ import annotations

import importlib
import sys

binding = sys.argv[1]
QtWidgets = importlib.import_module(f"{binding}.QtWidgets")

from interceptor.gui import qt  # noqa: E402  # after the binding, which it is to find

from .conversation import Conversation  # noqa: E402

app = QtWidgets.QApplication([])
assert qt.QtCore.__name__ == f"{binding}.QtCore"
Conversation(qt.post, app.quit, can_be_gone=True).run(app.exec)
