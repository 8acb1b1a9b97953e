"""wxPython."""

from __future__ import annotations

import wx

from interceptor.gui import wx as gui

from .conversation import Conversation

app = wx.App()
frame = wx.Frame(None, title="callbacks run here")
frame.Show()
Conversation(gui.post, frame.Close, can_be_gone=True).run(app.MainLoop)
