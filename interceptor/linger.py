"""How a transport is ended so that the peer gets the last word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Linger", "half_close"]


def half_close(transport: asyncio.WriteTransport) -> None:
    """End what is sent, keep what comes; for a transport that can write EOF and is not closing.

    While the transport still has bytes to send, nothing is ended yet: it calls the protocol's
    `resume_writing` once they are out, and then this is to be called again, in a turn of its own.
    """
    if transport.get_write_buffer_size():
        # Left to asyncio's transport, the half-close raises in the loop where the peer was faster.
        transport.set_write_buffer_limits(0)
        return
    try:
        transport.write_eof()
    except (OSError, RuntimeError):  # The peer was faster.
        asyncio.get_running_loop().call_soon(transport.abort)


class Linger(asyncio.Protocol):
    """Says the last word on a transport and closes it politely.

    The transport is half-closed once the word is out, and what still comes is thrown away until the peer
    ends too: a plain close with unread bytes would reset the connection, and the peer might lose the answer.

    Args:
        transport: open; its protocol is set to this one.
        data: the last bytes to send.
        timeout: seconds after which the transport is dropped.
        lost: called once when the transport is gone.
        ended: whether the peer has ended its side already: nothing would tell of it again.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        data: bytes,
        timeout: float,
        lost: Callable[[], None],
        *,
        ended: bool = False,
    ) -> None:
        self._transport = transport
        self._lost = lost
        self._timer = asyncio.get_running_loop().call_later(timeout, transport.abort)
        transport.set_protocol(self)
        transport.write(data)
        if transport.can_write_eof() and not ended:
            transport.resume_reading()
            self._end()
        else:
            transport.close()

    def resume_writing(self) -> None:
        """The last word is out."""
        # Soon, not now: within resume_writing() asyncio's transport would do it once more.
        asyncio.get_running_loop().call_soon(self._end)

    def data_received(self, data: bytes) -> None:
        """Throw away what still comes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._timer.cancel()
        self._lost()

    def _end(self) -> None:
        if not self._transport.is_closing():
            half_close(self._transport)
