"""Pass-through: two TCP connections made one, byte for byte.

What arrives on one side leaves on the other. A side that cannot take more stops the reading of the other, so
that nothing piles up here; the end of one direction is passed on and leaves the other direction open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["Relay"]


class Relay:
    """A tunnel. The far end is made first; nothing is read from it before the near end is there.

    Args:
        done: called once when both transports are gone.
        patience: seconds that one end is given to take what is left once the other is gone.

    Attributes:
        near: the end towards the browser.
        far: the end towards the real server; hand it to `create_connection`.
    """

    def __init__(self, done: Callable[[Relay], None], patience: float) -> None:
        self._done = done
        self._patience = patience
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None
        self.near = Side(self)
        self.far = Side(self)
        self.near.other, self.far.other = self.far, self.near

    def attach(self, transport: asyncio.Transport, lost: Callable[[], None]) -> None:
        """Take the near transport over.

        Args:
            transport: open; its protocol is set.
            lost: called once when it is gone.
        """
        self.near.lost = lost
        self.near.take(transport)
        self.near.give(self.far.take_early())
        far = self.far.transport
        if far is None or far.is_closing():
            transport.close()
        else:
            far.resume_reading()

    def close(self) -> None:
        """Drop both connections."""
        for side in (self.near, self.far):
            if side.transport is not None:
                side.transport.abort()

    def hurry(self, transport: asyncio.Transport) -> None:
        """Drop a transport that is closing but whose peer takes nothing."""
        self._timer = asyncio.get_running_loop().call_later(self._patience, transport.abort)

    def made(self) -> None:
        """One more of the two transports is there."""
        self._open += 1

    def lost(self) -> None:
        """One of the transports is gone."""
        self._open -= 1
        if not self._open:
            if self._timer is not None:
                self._timer.cancel()
            self._done(self)


class Side(asyncio.Protocol):
    """One end of a relay.

    Attributes:
        other: the other end.
        transport: where this end reads and writes; None before it is made.
        lost: called once when the transport is gone.
    """

    other: Side

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._ended = False
        self._early = b""
        self.lost: Callable[[], None] = lambda: None
        self.transport: asyncio.Transport | None = None

    def take(self, transport: asyncio.Transport) -> None:
        """Take a transport from another protocol."""
        transport.set_protocol(self)
        self.connection_made(transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; do not read it while there is nobody to hand bytes to."""
        # Not to be asked with isinstance: uvloop's transports do not descend from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self._relay.made()
        if self.other.transport is None:
            self.transport.pause_reading()

    def give(self, data: bytes) -> None:
        """Send bytes on this end."""
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def take_early(self) -> bytes:
        """Return what came before there was another end, once."""
        early, self._early = self._early, b""
        return early

    def data_received(self, data: bytes) -> None:
        """Hand bytes over."""
        other = self._open_other()
        if other is not None:
            other.write(data)
        elif self.other.transport is None:
            self._early += data

    def pause_writing(self) -> None:
        """This end is full: the other one is not read."""
        other = self._open_other()
        if other is not None:
            other.pause_reading()

    def resume_writing(self) -> None:
        """This end has room: the other one is read again."""
        other = self._open_other()
        if other is not None:
            other.resume_reading()

    def eof_received(self) -> bool:
        """Pass the end of one direction on; keep the transport while the other direction is open."""
        self._ended = True
        other = self._open_other()
        if other is None:
            return False
        if self.other._ended or not other.can_write_eof():
            other.close()
            return False
        other.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the other end down too, as this one went: politely or at once."""
        other = self._open_other()
        if other is not None and exc is None:
            other.close()
            self._relay.hurry(other)
        elif other is not None:
            other.abort()
        self.lost()
        self._relay.lost()

    def _open_other(self) -> asyncio.Transport | None:
        other = self.other.transport
        return None if other is None or other.is_closing() else other
