"""The listening port: it collects each connection's request head, then hands the connection over."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Protocol, cast

from .. import log
from ..config import Limits, Timeouts
from ..connection import Linger
from ..exceptions import HandshakeFailure
from ..handshake import HeadReader, Request, read_request, refusal
from ..session import Wire

__all__ = ["Holder", "Listener", "Receiver", "Tunnel"]


TICK = 0.001
"""Any delay above 0: it is about the order of things, not about time."""

ACCEPTING = 5
"""Turns of the loop within which a connection that was accepted before the port closed shows up."""


class Holder(Protocol):
    """Who holds a wire whose request is not settled yet."""

    def client_gone(self) -> None:
        """Learn that the client left."""


class Receiver(Protocol):
    """Takes what comes on a connection."""

    def look(self, data: bytes, wire: Tunnel) -> Holder | None:
        """Look at the first bytes; take the connection, or return None to have a request head read.

        Raises:
            HandshakeFailure: they are refused.
        """

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a complete request head and the connection that it came on.

        Raises:
            HandshakeFailure: the request is refused.
        """


class Tunnel(Wire, Protocol):
    """A wire that can be read on after its first answer."""

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine."""

    def look_inside(self, answer: bytes, receiver: Receiver) -> None:
        """Send the answer, and read what comes after it as a connection of its own."""


class Listener:
    """A TCP port.

    Args:
        receiver: gets each request.
        limits: `head`, `fields`, `read_buffer`, and for all connections `sockets` + `pending`.
        timeouts: `head` and `close`.

    Attributes:
        transports: the connections that are open.
    """

    def __init__(self, receiver: Receiver, limits: Limits, timeouts: Timeouts) -> None:
        self.receiver = receiver
        self.limits = limits
        self.timeouts = timeouts
        self.transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int) -> list[tuple[str, int]]:
        """Listen; return the addresses, with the port that the system chose where 0 was asked for.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Incoming(self, self.receiver), host, port, backlog=1024
        )
        return [listening.getsockname()[:2] for listening in self._server.sockets]

    async def close(self) -> None:
        """Listen no longer; of the connections stay those that have made their request."""
        # asyncio trips over a connection that was accepted but has no transport yet when the server closes
        # (an assertion in Server._attach). A timer's callback runs after the accepts of its turn of the loop,
        # and what it wakes runs after their transports are made and before the next accepts.
        await asyncio.sleep(TICK)
        self._closed = True
        if self._server is not None:
            self._server.close()
        for transport in list(self.transports):
            waiting = transport.get_protocol()
            if isinstance(waiting, Incoming):
                waiting.give_up()

    async def wait_empty(self, timeout: float) -> None:
        """Wait until every connection is gone; drop those that are not after `timeout` seconds."""
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        self._emptied = asyncio.get_running_loop().create_future()
        if self.transports:
            await asyncio.wait([self._emptied], timeout=timeout)
        for transport in list(self.transports):
            transport.abort()
        if self.transports:
            await self._emptied

    def made(self, transport: asyncio.Transport) -> bool:
        """Count a connection in; False if it is one too many."""
        self.transports.add(transport)
        if self._closed:
            transport.abort()
        return len(self.transports) <= self.limits.sockets + self.limits.pending

    def lost(self, transport: asyncio.Transport) -> None:
        """Count a connection out."""
        self.transports.discard(transport)
        if not self.transports and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)


class Incoming(asyncio.Protocol):
    """One connection until its request is answered; the Wire of its session."""

    def __init__(
        self, listener: Listener, receiver: Receiver, transport: asyncio.Transport | None = None
    ) -> None:
        self._listener = listener
        self._receiver = receiver
        self._reader = HeadReader(listener.limits.head)
        self._begun = False
        self._holder: Holder | None = None
        self._finished = False
        self._rest = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        if transport is not None:
            self._transport = transport
            self._start_timer()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request head."""
        self._transport = cast(asyncio.Transport, transport)
        if not self._listener.made(self._transport):
            # No lingering: whoever is one too many must not stay.
            self._finished = True
            self._transport.write(refusal(503, "this host has too many connections; try again later"))
            self._transport.close()
            return
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Collect the head; what follows it is kept for the socket."""
        if self._finished:
            return
        if self._holder is not None:
            self._keep(data)
            return
        try:
            if not self._begun:
                self._begun = True
                self._look(data)
                if self._holder is not None or self._finished:
                    return
            found = self._reader.feed(data)
            if found is not None:
                self._head_complete(*found)
        except HandshakeFailure as failure:
            self._refuse(failure)

    def eof_received(self) -> None:
        """A client that sends no more can take part in no closing handshake: it is gone."""
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._gone()
        self._listener.lost(self._transport)

    def give_up(self) -> None:
        """Close a connection whose request is not complete."""
        if self._holder is None:
            self.finish(b"")

    # The Wire of the session.

    def switch(self, answer: bytes, take: Callable[[asyncio.Transport, Callable[[], None]], object]) -> bytes:
        """Send the answer, hand the transport over, and return what came and was not read."""
        transport, listener = self._transport, self._listener
        self._stop_timer()
        self._finished = True
        if answer:
            transport.write(answer)
        take(transport, lambda: listener.lost(transport))
        if not transport.is_closing():
            transport.resume_reading()
        return bytes(self._rest)

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine."""
        peer = self._transport.get_extra_info("peername")
        return bool(peer) and ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback

    def look_inside(self, answer: bytes, receiver: Receiver) -> None:
        """Send the answer, and read what comes after it as a connection of its own."""
        transport, listener = self._transport, self._listener
        self._stop_timer()
        self._finished = True
        transport.write(answer)
        inside = Incoming(listener, receiver, transport)
        transport.set_protocol(inside)
        if self._rest:
            inside.data_received(bytes(self._rest))

    def finish(self, answer: bytes) -> None:
        """Send a last answer, or none, and close."""
        self._stop_timer()
        self._finished = True
        transport, listener = self._transport, self._listener
        if answer and not transport.is_closing():
            Linger(transport, answer, listener.timeouts.close, lambda: listener.lost(transport))
        else:
            transport.close()

    # Inside.

    def _head_complete(self, head: bytes, rest: bytes) -> None:
        self._stop_timer()
        self._rest += rest
        request = read_request(head, self._listener.limits.fields)
        holder = self._receiver.receive(request, self)
        if not self._finished:
            self._holder = holder

    def _look(self, data: bytes) -> None:
        holder = self._receiver.look(data, self)
        if holder is not None:
            self._stop_timer()
            self._holder = holder
            self._rest += data

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self._listener.limits.read_buffer:
            self._transport.pause_reading()

    def _refuse(self, failure: HandshakeFailure) -> None:
        log.get_logger().debug("request refused", status=failure.status, why=failure.reason)
        self.finish(refusal(failure.status, failure.reason, failure.headers))

    def _head_timed_out(self) -> None:
        if self._begun:
            patience = self._listener.timeouts.head
            self._refuse(HandshakeFailure(408, f"the request head was not complete within {patience} s"))
        else:
            self.finish(b"")  # Browsers open connections on suspicion; nobody waits for an answer.

    def _gone(self) -> None:
        self._stop_timer()
        self._finished = True
        if self._holder is not None:
            self._holder.client_gone()

    def _start_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._listener.timeouts.head, self._head_timed_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
