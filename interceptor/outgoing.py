"""What the program sends on one socket, from the call, on whichever thread, to the connection."""

from __future__ import annotations

import asyncio
from typing import Literal

from .connection import Connection
from .dispatch import Dispatcher
from .exceptions import InvalidArgument
from .frames import Shared
from .payload import Data, to_payload

__all__ = ["FULL", "Outgoing"]

CALL_COST = 256
"""Bytes that a message is counted for besides its payload, so that empty ones are not free."""

FULL = (
    "other threads sent faster than the host could write, over Limits.write_buffer; the socket was closed "
    "(a thread that sends much waits while host.sockets[id].buffered_amount is high)"
)


class Outgoing:
    """Encodes messages in the order of the calls, and hands them to the connection on the loop's thread.

    What other threads send is counted until the loop has it. Of too much, nothing more is taken, and the
    connection is dropped.

    Args:
        dispatcher: takes the calls of other threads to the loop.
        high: bytes on their way from other threads to the loop above which nothing more is taken.

    Attributes:
        connection: where it all goes; None before the handshake and after the end, when all is dropped.
    """

    __slots__ = ("_arrived", "_dispatcher", "_full", "_high", "_left", "_unfinished", "connection")

    def __init__(self, dispatcher: Dispatcher, high: int) -> None:
        self.connection: Connection | None = None
        self._dispatcher = dispatcher
        self._high = high
        self._unfinished: Literal[1, 2] | None = None
        self._left = 0
        self._arrived = 0
        self._full = False

    def send(self, data: Data, fin: bool, opcode: int | None) -> None:
        """Send a message, or a piece of one; callable from any thread.

        Raises:
            InvalidArgument, UnsupportedType: the data cannot be sent.
        """
        kind: Literal[0, 1, 2]
        if self._unfinished is None and fin is True and opcode is None:
            payload, kind = (data, 2) if isinstance(data, bytes) else to_payload(data, None)
        else:
            payload, kind, fin = self._encode_piece(data, fin, opcode)
        dispatcher = self._dispatcher
        if dispatcher.may_act():
            self._write(payload, kind, fin)
        elif self._leave(payload):
            dispatcher.run(self._arrive, payload, kind, fin)

    @property
    def crossing_bytes(self) -> int:
        """Bytes on their way from other threads to the loop, `CALL_COST` for each message included."""
        return self._left - self._arrived

    async def arrived(self) -> None:
        """Wait until the connection has what was sent so far: calls of other threads may come before it."""
        mark = self._left
        while self._arrived < mark:  # noqa: ASYNC110  # for some turns at most, and seldom at all
            await asyncio.sleep(0)

    # A message that goes to many sockets, made once for all of them.

    def send_shared(self, message: Shared) -> None:
        """Send it; on the loop's thread."""
        connection, flushes = self.connection, self._dispatcher.flushes
        if connection is not None:
            if flushes is not None and connection.batch():
                flushes.append(connection.flush)
            connection.send_shared(message)

    def leave_shared(self, message: Shared) -> bool:
        """Count it, on another thread, which is to have `arrive_shared` called; False if it is not taken."""
        return self._leave(message.payload)

    def arrive_shared(self, message: Shared) -> None:
        """Send what another thread counted; on the loop's thread."""
        self._arrived += len(message.payload) + CALL_COST
        self.send_shared(message)

    # Inside.

    def _leave(self, payload: bytes) -> bool:
        with self._dispatcher.changing:
            if self.crossing_bytes <= self._high:
                self._left += len(payload) + CALL_COST
                return True
            told, self._full = self._full, True
        if not told:
            self._dispatcher.run(self._abort)
        return False

    def _arrive(self, payload: bytes, kind: Literal[0, 1, 2], fin: bool) -> None:
        self._arrived += len(payload) + CALL_COST
        self._write(payload, kind, fin)

    def _write(self, payload: bytes, kind: Literal[0, 1, 2], fin: bool) -> None:
        connection, flushes = self.connection, self._dispatcher.flushes
        if connection is not None:
            if flushes is not None and connection.batch():
                flushes.append(connection.flush)
            connection.send(payload, kind, fin)

    def _abort(self) -> None:
        if self.connection is not None:
            self.connection.abort(FULL)

    def _encode_piece(
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
