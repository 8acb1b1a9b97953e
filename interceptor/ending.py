"""How a connection ended, as its frames and its owner have it, and how long its end may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .frames import Frames

__all__ = ["End", "Patience", "read_end"]

LOST = 1006
"""Close code of a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

TOO_BIG = 1009
"""Close code for a message that is over the limit."""

COARSE = 0.01
"""Seconds by which clocks may differ."""

PERIODS = 10
"""How often the patience lasts at most, however slow the program is: a peer may have no end."""

NO_HANDSHAKE = "the connection was lost without a closing handshake"


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended.

    Attributes:
        code: the peer's close code, 1005 if it gave none, 1006 if there was no close frame.
        reason: the peer's reason.
        was_clean: whether close frames went both ways.
        initiator: `client` the peer, `host` this end, `fault` neither meant to.
        fault: what went wrong, in plain words; empty if nothing did.
    """

    code: int
    reason: str
    was_clean: bool
    initiator: Literal["client", "host", "fault"]
    fault: str = ""


class Patience:
    """How long a peer may take for its close frame, while a slow program may keep the host from reading it.

    Args:
        seconds: that the close frame could have been read in; ten times as many pass at most.
        now: the loop's time, here and below.
        held: whether nothing is read from now on, here and below.
    """

    __slots__ = ("_periods", "_seconds", "_since", "_waited")

    def __init__(self, seconds: float, now: float, held: bool) -> None:
        self._seconds = seconds
        self._since = None if held else now
        self._waited = 0.0
        self._periods = 0

    def count(self, now: float, held: bool) -> None:
        """Count the time since the last call."""
        if self._since is not None:
            self._waited += now - self._since
        self._since = None if held else now

    def ran_out(self, now: float, held: bool) -> bool:
        """Count, and tell whether it is over; called once after each `seconds`."""
        self.count(now, held)
        self._periods += 1
        return self._waited >= self._seconds - COARSE or self._periods >= PERIODS


def read_end(frames: Frames, *, closed: bool, fault: str, limit: int) -> End:
    """Tell how a connection ended whose frames are over.

    Args:
        frames: of the connection.
        closed: whether this end began the closing handshake.
        fault: what is known to have gone wrong, beyond what the frames know.
        limit: bytes that a message may have (`Limits.message`), for the words.
    """
    received, exc = frames.core.close_rcvd, frames.core.parser_exc
    code, reason = (LOST, "") if received is None else (int(received.code), received.reason)
    fault = fault or _describe(frames, exc, limit)
    if received is not None and not fault:
        return End(code, reason, True, "client" if frames.core.close_rcvd_then_sent else "host")
    by_host = closed and (exc is None or isinstance(exc, EOFError))
    return End(code, reason, False, "host" if by_host else "fault", fault or NO_HANDSHAKE)


def _describe(frames: Frames, exc: Exception | None, limit: int) -> str:
    if exc is None:
        return ""
    if isinstance(exc, EOFError):
        return NO_HANDSHAKE
    sent = frames.core.close_sent
    code = LOST if sent is None else int(sent.code)
    if code == TOO_BIG:
        return f"a message is over Limits.message ({limit} bytes); closed with {code}"
    return f"{sent.reason if sent and sent.reason else exc}; closed with {code}"
