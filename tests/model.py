"""What the events of a socket must be, given what went over its wire: guarantees 1 to 4 of docs/events.md.

A test keeps an `Account` of each socket: what the far end sent and read, and what the program sent. `check`
compares the events of the socket's ID with it, at any moment and once more when all is over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from interceptor import Event, WebSocketClose, WebSocketReceive

Data = str | bytes
Outcome = Literal["none", "waiting", "opened", "denied", "failed"]

LETTERS = {
    "HTTPRequest": "H",
    "WebSocketUpgrade": "U",
    "WebSocketReceive": "R",
    "WebSocketError": "E",
    "WebSocketClose": "C",
}

WHOLE: dict[Outcome, str] = {
    "none": "",
    "waiting": "U?",
    "opened": "UR*E?C",
    "denied": "U",
    "failed": "U?E",
}
"""The events of a socket that is over."""

SO_FAR: dict[Outcome, str] = {**WHOLE, "opened": "(UR*(EC?|C)?)?", "denied": "U?", "failed": "U?E?"}
"""The events of a socket while something may still come."""


@dataclass
class Account:
    """What went over the wire of one socket.

    Attributes:
        outcome: of its upgrade.
        sent: the messages that the far end put on the wire whole, in order, before its close.
        begun: what it sent of a message that it has not finished.
        taken: the messages that WebSocketSend took before WebSocketClose.
        got: the messages that the far end read.
        codes: what the 843 may say.
        initiators: the same.
        lossy_in: whether the wire was cut such that what the far end sent may not have arrived.
        lossy_out: the same of what the program sent; also where the far end has not read to the end.
    """

    outcome: Outcome = "none"
    sent: list[Data] = field(default_factory=list)
    begun: Data | None = None
    taken: list[Data] = field(default_factory=list)
    got: list[Data] = field(default_factory=list)
    codes: set[int] = field(default_factory=set)
    initiators: set[str] = field(default_factory=lambda: {"client", "host", "fault"})
    lossy_in: bool = False
    lossy_out: bool = False

    def lost(self) -> None:
        """The wire was cut, and no close frame of the far end had gone before."""
        self.codes = self.codes or {1006}
        self.lossy_out = True


def story(events: Iterable[Event]) -> str:
    """Events as letters: U, R, E, C."""
    return "".join(LETTERS[event.event] for event in events)


def check(events: Sequence[Event], account: Account, *, over: bool) -> None:
    """Check the events of one ID.

    Args:
        events: all of them so far, in order.
        account: of the same socket.
        over: whether nothing more is to come.
    """
    letters = story(events)
    assert re.fullmatch((WHOLE if over else SO_FAR)[account.outcome], letters), (letters, account)
    _check_received(events, account, over)
    assert account.got == account.taken[: len(account.got)], "not what the program sent, or not in order"
    if account.outcome == "opened" and over:
        assert account.lossy_out or account.got == account.taken, "something that was sent is missing"
    for closed in (event for event in events if isinstance(event, WebSocketClose)):
        assert closed.code in account.codes, (closed, account)
        assert closed.initiator in account.initiators, (closed, account)
        assert closed.was_clean is ("E" not in letters) is (closed.code != 1006), (letters, closed)


def _check_received(events: Sequence[Event], account: Account, over: bool) -> None:
    whole, rest = assemble([event for event in events if isinstance(event, WebSocketReceive)])
    assert whole == account.sent[: len(whole)], "not what was sent, or not in order"
    if rest is not None:
        following = [*account.sent, account.begun][len(whole)]
        assert following is not None
        assert following[: len(rest)] == rest, "a piece that was not sent"
    if over and account.outcome == "opened":
        assert account.lossy_in or len(whole) == len(account.sent), "a message that arrived is missing"


def assemble(received: Iterable[WebSocketReceive]) -> tuple[list[Data], Data | None]:
    """Put the pieces of messages together; return the whole ones, and the rest of an unfinished one."""
    whole: list[Data] = []
    rest: Data | None = None
    for event in received:
        assert isinstance(event.data, str) is (event.datatype == 1)
        rest = event.data if rest is None else rest + event.data  # type: ignore[operator]  # of one type
        if event.fin:
            whole.append(rest)
            rest = None
    return whole, rest
