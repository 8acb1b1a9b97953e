"""`post` for wxPython.

from interceptor.gui import wx

host = Host([("ws://myapp/*", 1)], root="myapp", post=wx.post)
"""

from __future__ import annotations

from collections.abc import Callable

import wx

from ..exceptions import InvalidState

__all__ = ["post"]

PAUSE = 1
"""Milliseconds in which wx does what the user asks for, where a function of its own thread posts another."""

_has_run: set[int] = set()
"""Which wx.App, by its identity, has a main loop that has run what was posted."""


def post(function: Callable[[], None]) -> None:
    """Run a function soon on the thread of the wx.App; callable from any thread.

    Raises:
        InvalidState: there is no wx.App, or its main loop has ended.
    """
    app = wx.GetApp()
    if app is None:
        raise InvalidState("there is no wx.App; make it before pages connect")
    if id(app) in _has_run and not app.IsMainLoopRunning():
        raise InvalidState("the main loop of the wx.App has ended")
    if wx.IsMainThread():
        wx.CallLater(PAUSE, _run, function, app)
    else:
        wx.CallAfter(_run, function, app)


def _run(function: Callable[[], None], app: object) -> None:
    _has_run.clear()
    _has_run.add(id(app))
    function()
