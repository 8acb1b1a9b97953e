"""`post` for Tk.

from interceptor.gui import tk

root = tkinter.Tk()
host = Host([("ws://myapp/*", 1)], root="myapp", post=tk.post(root))
"""

from __future__ import annotations

import socket
import sys
import tkinter
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..exceptions import InvalidState

__all__ = ["post"]

POLL = 15
"""Milliseconds between two looks where Tk cannot wait for a socket, which is on Windows."""


def post(root: tkinter.Misc) -> Callable[[Callable[[], None]], None]:
    """Return a function that runs another one soon on Tk's thread, and is callable from any thread.

    Args:
        root: the Tk object, or any widget. Call this on Tk's thread, which has made it.
    """
    return _Mailbox(root.nametowidget(".")).put


class _Mailbox:
    """Functions that wait for Tk, which no other thread may touch: it is woken by a socket."""

    def __init__(self, root: tkinter.Misc) -> None:
        self._root: tkinter.Misc | None = root
        self._functions: deque[Callable[[], None]] = deque()
        self._woken = False
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._can_wait = hasattr(root.tk, "createfilehandler")
        if self._can_wait:
            root.tk.createfilehandler(self._ear, tkinter.READABLE, self._hear)
        else:
            root.after(POLL, self._poll)
        root.bind("<Destroy>", self._destroyed, add="+")

    def put(self, function: Callable[[], None]) -> None:
        """Have a function run soon.

        Raises:
            InvalidState: the window is gone.
        """
        root = self._root
        if root is None:
            raise InvalidState("the Tk window is gone")
        self._functions.append(function)
        if not self._woken:
            self._woken = True
            with suppress(OSError):  # It was rung already, or the window is gone just now.
                self._bell.send(b"!")

    # On Tk's thread.

    def _hear(self, *_: object) -> None:
        self._woken = False
        with suppress(BlockingIOError):
            self._ear.recv(64)
        self._run()

    def _poll(self) -> None:
        if self._root is not None:
            self._root.after(POLL, self._poll)
            self._hear()

    def _run(self) -> None:
        for _ in range(len(self._functions)):
            function = self._functions.popleft()
            try:
                function()
            except Exception:
                # Tk would end mainloop() with it.
                if self._root is not None:
                    self._root._root().report_callback_exception(*sys.exc_info())  # type: ignore[attr-defined]
        if self._root is not None:
            self._root.update_idletasks()  # Tk draws when nothing else happens; under load that is never.

    def _destroyed(self, event: tkinter.Event[tkinter.Misc]) -> None:
        root = self._root
        if root is None or event.widget is not root:
            return
        self._root = None
        if self._can_wait:
            root.tk.deletefilehandler(self._ear)
        self._bell.close()
        self._ear.close()
