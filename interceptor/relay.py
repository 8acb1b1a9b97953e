"""Pass-through: two TCP connections made one, byte for byte.

What arrives on one side leaves on the other. A side that cannot take more stops the reading of the other, so
that nothing piles up here; the end of one direction is passed on and leaves the other direction open. Who is
cut off is reset, and so never takes half of something for the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable
from typing import cast

from .backlog import fit_writes

__all__ = ["Relay"]

RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""The linger that makes the system close a connection with a reset (SO_LINGER on, 0 seconds)."""


class Relay:
    """A tunnel. The far end is made first; nothing is read from it before the near end is there.

    Args:
        done: called once when both transports are gone.
        patience: seconds without progress after which an end whose other end is gone is dropped.

    Attributes:
        near: the end towards the browser.
        far: the end towards the real server; hand it to `create_connection`.
    """

    def __init__(self, done: Callable[[Relay], None], patience: float) -> None:
        self._done = done
        self._open = 0
        self.near = Side(self, patience)
        self.far = Side(self, patience)
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
            self.near.finish()
        else:
            far.resume_reading()

    def close(self) -> None:
        """Drop both connections."""
        self.near.drop()
        self.far.drop()

    def made(self) -> None:
        """One more of the two transports is there."""
        self._open += 1

    def lost(self) -> None:
        """One of the transports is gone."""
        self._open -= 1
        if not self._open:
            self._done(self)


class Side(asyncio.Protocol):
    """One end of a relay.

    Attributes:
        other: the other end.
        transport: where this end reads and writes; None before it is made.
        lost: called once when the transport is gone.
    """

    other: Side

    def __init__(self, relay: Relay, patience: float) -> None:
        self._relay = relay
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._gone = False
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
        fit_writes(self.transport)
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
            self.other.finish()
            self.finish()
            return False
        try:
            other.write_eof()
        except OSError:  # Its peer has cut it off, of which the loop has yet to tell.
            self.other.drop()
            self.finish(reset=True)
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the other end down too, as this one went."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self.other.transport is not None and not self.other._gone:
                self.other.finish(reset=exc is not None)
        finally:
            self.lost()
            self._relay.lost()

    def finish(self, *, reset: bool = False) -> None:
        """Close this end when what is left has gone out; drop it if its peer takes nothing of that.

        Args:
            reset: close it as one that was cut off.
        """
        assert self.transport is not None
        if reset and self.transport.get_extra_info("ssl_object") is not None:
            self.drop()  # What is left could not go out without an orderly end of TLS after it.
            return
        if reset:
            self._set_reset()
        if not self.transport.is_closing():  # asyncio's TLS does not bear a second close.
            self.transport.close()
        self._wait(self.transport.get_write_buffer_size())

    def drop(self) -> None:
        """Cut this end off at once."""
        if self.transport is not None and not self._gone:
            self._set_reset()
            self.transport.abort()

    def _wait(self, left: int) -> None:
        if left and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._check, left)

    def _check(self, left: int) -> None:
        assert self.transport is not None
        self._timer = None
        now = self.transport.get_write_buffer_size()
        if now < left:
            self._wait(now)
        else:
            self.drop()

    def _set_reset(self) -> None:
        assert self.transport is not None
        sock = self.transport.get_extra_info("socket")  # None inside TLS whose connection is gone.
        if sock is not None:
            # Not every system takes it of a socket that was cut off; uvloop has none then (ValueError).
            with contextlib.suppress(OSError, ValueError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _open_other(self) -> asyncio.Transport | None:
        other = self.other.transport
        return None if other is None or other.is_closing() else other
