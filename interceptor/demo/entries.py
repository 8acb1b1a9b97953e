"""What there is to tell of a host: its events and the program's answers, and each in a line of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from .. import Event, WebSocketClose, WebSocketError, WebSocketReceive, WebSocketUpgrade

__all__ = ["Entry", "Given", "Printer", "describe", "title"]

SHOWN = 60
"""Characters of a message that a line shows."""


@dataclass(frozen=True, slots=True)
class Given:
    """The program's answer to a manual upgrade.

    Attributes:
        id: of the upgrade.
        status: of the answer.
        phrase: its reason phrase.
        subprotocol: the one accepted, or empty.
    """

    id: str
    status: int
    phrase: str
    subprotocol: str

    @classmethod
    def by(cls, reply: WebSocketUpgrade) -> Self:
        """Read an answer as `event.accept` and `event.deny` make it."""
        _, status, phrase = str(reply.headers).partition("\r\n")[0].split(" ", 2)
        return cls(reply.id, int(status), phrase, reply.header("Sec-WebSocket-Protocol") or "")


Entry = Event | Given
"""An event of the host, or an answer of the program."""

COLOURS: dict[type[Entry], int] = {
    WebSocketUpgrade: 36,
    Given: 2,
    WebSocketReceive: 32,
    WebSocketClose: 33,
    WebSocketError: 31,
}


class Printer:
    """Says each entry as it comes: time, number, name, ID, and the rest in a few words.

    Args:
        say: prints a line.
        colours: mark time and name with colours, as terminals have them.
    """

    def __init__(self, say: Callable[[str], None], colours: bool = False) -> None:
        self._say = say
        self._colours = colours

    def note(self, entry: Entry) -> None:
        """Say an entry."""
        time = f"{datetime.now():%H:%M:%S.%f}"[:-3]
        name = title(entry).ljust(20)
        if self._colours:
            time, name = _coloured(time, 2), _coloured(name, COLOURS.get(type(entry), 0))
        self._say(f"{time}  {name}  {getattr(entry, 'id', ''):15}  {describe(entry)}")


def title(entry: Entry) -> str:
    """Return the number and the name of an event."""
    return "    answer" if isinstance(entry, Given) else f"{entry.number} {entry.event}"


def describe(entry: Entry) -> str:
    """Return the rest of an entry, without a character that a terminal would act on."""
    match entry:
        case WebSocketUpgrade():
            asked = ", ".join(entry.subprotocols)
            return f"{entry.type} {entry.url}" + (f" asks for {_printable(asked)}" if asked else "")
        case Given():
            accepted = f", subprotocol {entry.subprotocol}" if entry.subprotocol else ""
            return f"{entry.status} {entry.phrase}{accepted}"
        case WebSocketReceive():
            return _message(entry.data)
        case WebSocketClose():
            clean = "clean" if entry.was_clean else "not clean"
            return f"{entry.code} {entry.reason!r} by the {entry.initiator}, {clean}"
        case WebSocketError():
            return _printable(entry.text)
        case _:
            return ""


def _message(data: str | bytes) -> str:
    if isinstance(data, bytes):
        return f"binary, {len(data)} bytes"
    return f"text {data[:SHOWN]!r}" + (f"... ({len(data)} characters)" if len(data) > SHOWN else "")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _coloured(text: str, colour: int) -> str:
    return f"\033[{colour}m{text}\033[0m"
