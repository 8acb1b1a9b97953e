"""Tk; with the argument `poll` as on Windows, where Tk cannot wait for a socket."""

from __future__ import annotations

import sys
import tkinter

from interceptor.gui import tk

from .conversation import Conversation


class Interpreter:
    """Tcl without the one command that Windows lacks."""

    def __init__(self, inner: object) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        if name == "createfilehandler":
            raise AttributeError(name)
        return getattr(self.inner, name)


root = tkinter.Tk()
if sys.argv[1:] == ["poll"]:
    root.tk = Interpreter(root.tk)  # type: ignore[assignment]
tkinter.Label(root, text="callbacks run here").pack()
Conversation(tk.post(root), root.destroy, can_be_gone=True).run(root.mainloop)
