"""`post` for GLib's default main loop: GTK, and any program that runs a GLib.MainLoop.

from interceptor.gui import glib

host = Host([("ws://myapp/*", 1)], root="myapp", post=glib.post)
"""

from __future__ import annotations

from collections.abc import Callable

from gi.repository import GLib

__all__ = ["post"]


def post(function: Callable[[], None]) -> None:
    """Run a function soon on the thread of GLib's default main loop; callable from any thread.

    What GTK has to draw and to hear comes first. Whether the loop still runs GLib does not tell: what is
    posted to a loop that has ended waits for ever.
    """
    GLib.idle_add(_once, function)


def _once(function: Callable[[], None]) -> bool:
    function()
    return False  # GLib.SOURCE_REMOVE
