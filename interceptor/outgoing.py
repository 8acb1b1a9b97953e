"""What the program sends on one socket, from the call to the loop."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from .exceptions import InvalidArgument
from .payload import Data, to_payload

__all__ = ["Outgoing"]

CALL_COST = 256
"""Bytes that a message is counted for besides its payload, so that empty ones are not free."""


class Outgoing:
    """Checks and encodes messages in the order of the calls, and counts those that other threads sent.

    Args:
        high: bytes on their way from other threads to the loop above which nothing more is taken.
        lock: held while they are counted.
    """

    __slots__ = ("_arrived", "_full", "_high", "_left", "_lock", "_unfinished")

    def __init__(self, high: int, lock: AbstractContextManager[object]) -> None:
        self._high = high
        self._lock = lock
        self._unfinished: Literal[1, 2] | None = None
        self._left = 0
        self._arrived = 0
        self._full = False

    def prepare(self, data: Data, fin: bool, opcode: int | None) -> tuple[bytes, Literal[0, 1, 2], bool]:
        """Check and encode a message, or a piece of one; return payload, opcode and FIN of its frame.

        Raises:
            InvalidArgument, UnsupportedType: the data cannot be sent.
        """
        if self._unfinished is None and fin is True and opcode is None:
            if isinstance(data, bytes):  # The usual case, first.
                return data, 2, True
            return *to_payload(data, None), True
        return self._prepare_piece(data, fin, opcode)

    def leave(self, payload: bytes) -> bool:
        """Count a message that another thread hands to the loop; False if too much is on its way already."""
        with self._lock:
            if self._left - self._arrived > self._high:
                return False
            self._left += len(payload) + CALL_COST
            return True

    def arrive(self, payload: bytes) -> None:
        """Count a message that the loop has got."""
        self._arrived += len(payload) + CALL_COST

    def overflows(self) -> bool:
        """Note that a message was not taken; return whether it is the first."""
        first, self._full = not self._full, True
        return first

    def _prepare_piece(
        self, data: Data, fin: bool, opcode: int | None
    ) -> tuple[bytes, Literal[0, 1, 2], bool]:
        if fin not in (True, False):
            raise InvalidArgument(f"fin is {fin!r}; it is True (the message ends here) or False")
        unfinished = self._unfinished
        # HTMLRenderer has opcode 0 with every piece that is not the last: of what kind, the first piece says.
        payload, datatype = to_payload(data, unfinished if opcode == 0 else opcode)
        if unfinished not in (None, datatype):
            kind = "text" if unfinished == 1 else "binary"
            raise InvalidArgument(f"a {kind} message is unfinished; send its last piece (fin=True) first")
        self._unfinished = None if fin else datatype
        return payload, datatype if unfinished is None else 0, bool(fin)
