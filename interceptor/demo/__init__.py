"""The demonstration: a page whose three WebSockets are answered here, each in another way.

    server ──► the page in a browser ──► the program's host ──► entries: events and answers as they come

`show` runs it and prints every entry until Ctrl-C. `check` drives the same page in a headless Chromium, then
compares what the page saw with what the host saw.
"""

from .driver import check
from .stage import show

__all__ = ["check", "show"]
