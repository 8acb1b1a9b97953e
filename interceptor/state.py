"""The four states of a socket, and the moves between them."""

from __future__ import annotations

import enum

__all__ = ["MOVES", "State"]


class State(enum.Enum):
    """Where a socket stands; the names are WHATWG's."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


MOVES = {
    State.CONNECTING: (State.OPEN, State.CLOSED),  # accepted; denied or failed
    State.OPEN: (State.CLOSING, State.CLOSED),  # the program closes; the peer closed or was lost
    State.CLOSING: (State.CLOSED,),
    State.CLOSED: (),
}
