"""The demonstration's program: written as any program would be that answers the WebSockets of a page."""

from __future__ import annotations

from collections.abc import Callable

from .. import Host, Mode, Security, Timeouts, WebSocketReceive, WebSocketUpgrade
from .entries import Entry, Given

__all__ = ["PATHS", "RULES", "make_host"]

RULES = [
    ("ws://demo/echo", Mode.AUTO),
    ("ws://demo/chat", Mode.MANUAL),
    ("ws://demo/members", Mode.MANUAL),
]
PATHS = ("/echo", "/chat", "/members")

CLOSING = 0.5
"""Seconds for a page to answer when the host closes: who pressed Ctrl-C does not want to wait for it."""


def make_host(note: Callable[[Entry], None], origins: tuple[str, ...]) -> Host:
    """Return a host that answers the three sockets of the page.

    Args:
        note: is told of every event, and of the program's answers.
        origins: of the page.
    """
    host = Host(RULES, root="demo", security=Security(origins=origins), timeouts=Timeouts(close=CLOSING))
    host.on("All")(note)

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        if event.type == "auto":
            return None  # It is open already.
        if event.url == "ws://demo/members":
            reply = event.deny(403, "members only")
        elif "chat" in event.subprotocols:
            reply = event.accept(subprotocol="chat")
        else:
            reply = event.deny(400, "ask for the subprotocol chat")
        note(Given.by(reply))
        return reply

    @host.on("WebSocketReceive")
    def echo(event: WebSocketReceive) -> None:
        host.WebSocketSend(event.id, event.data)
        if event.data == "bye":
            host.WebSocketClose(event.id, 3000, "goodbye")

    return host
