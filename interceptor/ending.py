"""How a connection ended, as its frames and its owner have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .frames import Frames

__all__ = ["End", "read_end"]

LOST = 1006
"""Close code of a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

TOO_BIG = 1009
"""Close code for a message that is over the limit."""

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
