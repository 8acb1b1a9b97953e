"""What became of each socket, as its page and as its host saw it; and whether the two agree."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import TypedDict

from .. import WebSocketClose, WebSocketError, WebSocketReceive, WebSocketUpgrade
from .entries import Entry, Given, describe, title

__all__ = [
    "HELLO",
    "MEANT",
    "PageState",
    "Seen",
    "compare",
    "host_saw",
    "of_path",
    "page_saw",
    "transcript",
]

HELLO = "Grüße, 你好, 😀𝄞"
COLUMN = 54
"""Width of the page's column in the transcript."""


class PageState(TypedDict):
    """What stands on the page: its cards, and the lines of its log in order."""

    cards: list[dict[str, str]]
    log: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a socket.

    Attributes:
        mode: `auto` or `manual`.
        state: `open`, `closed` or `refused`; anything else is a fault, in words.
        subprotocol: the one agreed on, or empty.
        sent: messages from the page.
        echoed: messages to the page.
        code: close code, as a page sees it: 1006 where the socket never opened.
        reason: close reason.
        clean: whether close frames went both ways.
    """

    mode: str
    state: str
    subprotocol: str = ""
    sent: tuple[str, ...] = ()
    echoed: tuple[str, ...] = ()
    code: int = 0
    reason: str = ""
    clean: bool = False


MEANT = {
    "/echo": Seen("auto", "closed", "", (HELLO,), (HELLO,), 1000, "done", True),
    "/chat": Seen("manual", "closed", "chat", (HELLO, "bye"), (HELLO, "bye"), 3000, "goodbye", True),
    "/members": Seen("manual", "refused", code=1006),
}
"""What should become of the sockets when `check` has driven the page."""


def compare(
    page: Mapping[str, Seen], host: Mapping[str, Seen], meant: Mapping[str, Seen] = MEANT
) -> list[str]:
    """Return what differs between page and host, or from what was meant; a line each."""
    found = []
    for path, wanted in meant.items():
        for field in fields(Seen):
            left, right = getattr(page[path], field.name), getattr(host[path], field.name)
            if left != right:
                found.append(f"{path} {field.name}: the page saw {left!r}, the host {right!r}")
            elif left != getattr(wanted, field.name):
                found.append(
                    f"{path} {field.name}: both saw {left!r}, {getattr(wanted, field.name)!r} was meant"
                )
    return found


def page_saw(path: str, page: PageState) -> Seen:
    """Return what became of a socket by what stands on the page."""
    lines = [line for line in page["log"] if line["path"] == path]
    card = next((card for card in page["cards"] if card["path"] == path), {})
    opened = next((line for line in lines if line["kind"] == "open"), {})
    close = next((line for line in lines if line["kind"] == "close"), {})
    state = card.get("state", "no card")
    # An error event belongs to a refused socket and to no other.
    if (state == "refused") is not any(line["kind"] == "error" for line in lines):
        state += " without an error" if state == "refused" else " with an error"
    return Seen(
        mode=card.get("mode", ""),
        state=state,
        subprotocol=opened.get("protocol", ""),
        sent=tuple(line["text"] for line in lines if line["kind"] == "sent"),
        echoed=tuple(line["text"] for line in lines if line["kind"] == "received"),
        code=int(close.get("code", 0)),
        reason=close.get("reason", ""),
        clean=close.get("clean") == "true",
    )


def host_saw(path: str, entries: Sequence[Entry]) -> Seen:
    """Return what became of a socket by the events of the host and the program's answers."""
    upgrade = next((entry for entry in of_path(path, entries) if isinstance(entry, WebSocketUpgrade)), None)
    if upgrade is None:
        return Seen("", "no upgrade")
    rest = of_path(path, entries)[1:]
    given = next((entry for entry in rest if isinstance(entry, Given)), None)
    if given is not None and given.status != 101:
        return _denied(upgrade, given, rest)
    close = next((entry for entry in rest if isinstance(entry, WebSocketClose)), None)
    errors = [entry.text for entry in rest if isinstance(entry, WebSocketError)]
    messages = tuple(entry.data for entry in rest if isinstance(entry, WebSocketReceive))
    texts = tuple(data if isinstance(data, str) else repr(data) for data in messages)
    return Seen(
        mode=upgrade.type,
        state=", ".join(["open" if close is None else "closed", *errors]),
        subprotocol="" if given is None else given.subprotocol,
        sent=texts,
        echoed=texts,  # The program sends back what it gets.
        code=0 if close is None else close.code,
        reason="" if close is None else close.reason,
        clean=close is not None and close.was_clean,
    )


def _denied(upgrade: WebSocketUpgrade, given: Given, rest: Sequence[Entry]) -> Seen:
    """What a page may see of a denial is always the same: an error, then 1006 (WHATWG WebSockets, 2.2)."""
    fault = "".join(f", then {title(entry).strip()}" for entry in rest if entry is not given)
    as_meant = given.status == 403 and not fault
    return Seen(upgrade.type, "refused" if as_meant else f"{given.status}{fault}", code=1006)


def of_path(path: str, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries of the first socket that was asked for with this path, from its upgrade on."""
    upgrades = (entry for entry in entries if isinstance(entry, WebSocketUpgrade))
    first = next((upgrade.id for upgrade in upgrades if upgrade.url.endswith(path)), "")
    return [entry for entry in entries if getattr(entry, "id", None) == first]


def transcript(path: str, page: PageState, entries: Sequence[Entry]) -> str:
    """Return what both ends saw of a socket, side by side, each in its own order."""
    left = [f"{line['kind']:8}  {line['text']}" for line in page["log"] if line["path"] == path]
    right = [f"{title(entry):20}  {describe(entry)}" for entry in of_path(path, entries)]
    rows = [("page", "host"), ("----", "----"), *zip_longest(left, right, fillvalue="")]
    return "\n".join([path, *(f"  {_padded(one)}  {other}".rstrip() for one, other in rows), ""])


def _padded(text: str) -> str:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return text + " " * (COLUMN - len(text) - wide)
