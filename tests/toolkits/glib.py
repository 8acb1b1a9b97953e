"""GLib, which does not tell whether its loop still runs."""

from __future__ import annotations

from gi.repository import GLib

from interceptor.gui import glib

from .conversation import Conversation

loop = GLib.MainLoop()
Conversation(glib.post, loop.quit, can_be_gone=False).run(loop.run)
