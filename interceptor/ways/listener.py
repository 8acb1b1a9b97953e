"""The listening port: it collects each connection's request head, then hands the connection over."""

from __future__ import annotations

import asyncio
import enum
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, Self, cast

from .. import log
from ..clock import Clock, Timer
from ..config import Limits, Security, Timeouts
from ..connection import fit_reads
from ..exceptions import HandshakeFailure, InvalidArgument
from ..handshake import HeadReader, Request, read_request, refusal
from ..linger import Linger
from ..session import Wire
from .gate import start_tls, tell_successor

__all__ = ["Holder", "Kept", "Listener", "Look", "Receiver", "Tunnel", "check_listen"]


TRIES = 8
"""How often the system is asked for a port that is free at both loopback addresses."""

TICK = 0.001
"""Any delay above 0: it is about the order of things, not about time."""

BACKLOG = 128
"""Connections that may wait; asyncio accepts as many in a turn."""

GRACE = 1.0
"""Seconds in which connections that were dropped are gone."""

OTHER_LOOPBACK = {"127.0.0.1": "::1", "0.0.0.0": "::1", "::1": "127.0.0.1", "::": "127.0.0.1"}  # noqa: S104
"""What `localhost` can mean besides the address that is listened on."""

NOBODY_CAN = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""The machine has no such address, so no program can have it."""

ACCEPTING = 5
"""Turns of the loop within which a connection that was accepted before the port closed shows up."""


class Holder(Protocol):
    """Who holds a wire whose request is not settled yet."""

    def client_gone(self) -> None:
        """Learn that the client left."""


class Look(enum.Enum):
    """What to do with a connection whose first bytes were looked at."""

    HEAD = "read a request head"
    MORE = "look again when more has come"


class Kept(Protocol):
    """What the last request of a connection left for the next one."""

    def close(self) -> None:
        """Let it go."""


class Receiver(Protocol):
    """Takes what comes on a connection."""

    def look(self, data: bytes, wire: Tunnel) -> Holder | Look:
        """Look at all bytes that came so far; take the connection, or tell what to do with it.

        Raises:
            HandshakeFailure: they are refused.
        """

    def receive(self, request: Request, wire: Tunnel) -> Holder | None:
        """Take a complete request head and the connection that it came on.

        Raises:
            HandshakeFailure: the request is refused.
        """


class Tunnel(Wire, Protocol):
    """A wire that can be read on after its first answer.

    Attributes:
        kept: what the request before this one left; closed with the connection. Who takes it sets it to None.
    """

    kept: Kept | None

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine."""

    def drop(self, size: int) -> None:
        """Forget the first bytes that came: they were for whoever looked at them."""

    def look_inside(self, answer: bytes, receiver: Receiver) -> None:
        """Send the answer, and read what comes after it as a connection of its own."""

    def look_again(self, receiver: Receiver, data: bytes, kept: Kept | None) -> None:
        """Read the next request of a connection that `switch` gave away; `data` came of it already."""

    async def secure(self, context: ssl.SSLContext, receiver: Receiver) -> None:
        """End TLS, whose first bytes came already, and read what is inside as a connection of its own.

        Raises:
            OSError: TLS did not come about; the connection is gone.
        """


class Listener:
    """A TCP port.

    Args:
        receiver: gets each request.
        limits: `head`, `fields`, `read_buffer`, and for all connections `sockets` + `pending`.
        timeouts: `head` and `close`.

    Attributes:
        transports: the connections that are open.
        clock: has their timers.
        complaints: warnings of what strangers do.
        holds_localhost: whether no other program can be at `localhost` with the port.
    """

    def __init__(self, receiver: Receiver, limits: Limits, timeouts: Timeouts) -> None:
        self.receiver = receiver
        self.limits = limits
        self.timeouts = timeouts
        self.transports: set[asyncio.Transport] = set()
        self.clock = Clock()
        self.complaints = log.Seldom()
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self.holds_localhost = False
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int) -> list[tuple[str, int]]:
        """Listen; return the addresses, with the port that the system chose where 0 was asked for.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        port_socket = self._open(host, port)
        try:
            self._server = await loop.create_server(
                lambda: Incoming(self, self.receiver), sock=port_socket, backlog=BACKLOG
            )
        except BaseException:
            port_socket.close()
            self._let_localhost_go()
            raise
        return [listening.getsockname()[:2] for listening in self._server.sockets]

    def _open(self, host: str, port: int) -> Port:
        """Listen, also where `localhost` leads besides; the system is asked again where it chose a port."""
        tries = TRIES if port == 0 else 1
        while True:
            opened = Port.open(host, port)
            chosen = opened.getsockname()[1]
            tries -= 1
            if self._hold_localhost(host, chosen):
                return opened
            if not tries:
                break
            opened.close()
        log.get_logger().warning(
            "another program has the port at the other loopback address; pages of localhost are its",
            address=OTHER_LOOPBACK[host],
            port=chosen,
        )
        return opened

    def _hold_localhost(self, host: str, port: int) -> bool:
        """Keep other programs from the address that `localhost` might mean besides ours; tell if they are."""
        other = OTHER_LOOPBACK.get(host)
        if other is None:
            return True
        try:
            self._held = hold(other, port)
            self.holds_localhost = True
        except OSError as exc:
            self.holds_localhost = exc.errno in NOBODY_CAN
        return self.holds_localhost

    def _let_localhost_go(self) -> None:
        if self._held is not None:
            self._held.close()

    @property
    def is_closed(self) -> bool:
        """Whether no new request is waited for."""
        return self._closed

    async def close(self) -> None:
        """Listen no longer; of the connections stay those that have made their request."""
        # asyncio trips over a connection that was accepted but has no transport yet when the server closes
        # (an assertion in Server._attach). A timer's callback runs after the accepts of its turn of the loop,
        # and what it wakes runs after their transports are made and before the next accepts.
        await asyncio.sleep(TICK)
        self._closed = True
        if self._server is not None:
            self._server.close()
        self._let_localhost_go()
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
            await asyncio.wait([self._emptied], timeout=GRACE)
        if self.transports:
            log.get_logger().error("connections will not end and are left", count=len(self.transports))

    def made(self, transport: asyncio.Transport) -> bool:
        """Count a connection in; False if it is one too many."""
        self.transports.add(transport)
        if self._closed:
            transport.abort()
        most = self.limits.sockets + self.limits.pending
        if len(self.transports) <= most:
            return True
        why = f"{most} connections are open (Limits.sockets + Limits.pending)"
        self.complaints.warning("connection refused", status=503, why=why)
        return False

    def replace(self, transport: asyncio.Transport, inside: asyncio.Transport) -> None:
        """Count the inside of a connection in its place."""
        self.transports.discard(transport)
        self.transports.add(inside)
        if self._closed:
            inside.abort()

    def lost(self, transport: asyncio.Transport) -> None:
        """Count a connection out."""
        self.transports.discard(transport)
        if not self.transports and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)


class Port(socket.socket):
    """A listening socket that fails once a turn where the system has no descriptor left for a connection.

    asyncio tries on, up to BACKLOG times, logs each failure, and tries again for each of them a second later:
    more and more.
    """

    _failed = False

    @classmethod
    def open(cls, host: str, port: int) -> Self:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # The protocol is named: else asyncio would not switch the delay of small packets off.
        return cls(made.family, made.type, socket.IPPROTO_TCP, made.detach())

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; right after a failure nobody seems to wait."""
        if self._failed:
            self._failed = False
            raise BlockingIOError("the system has no descriptor left; later")
        try:
            return super().accept()
        except OSError as exc:
            self._failed = exc.errno in (errno.EMFILE, errno.ENFILE)
            raise


class Incoming(asyncio.Protocol):
    """One connection until its request is answered; the Wire of its session."""

    def __init__(
        self,
        listener: Listener,
        receiver: Receiver,
        transport: asyncio.Transport | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.kept = kept
        self._listener = listener
        self._receiver = receiver
        self._reader: HeadReader | None = None
        self._holder: Holder | None = None
        self._finished = False
        self._rest = bytearray()
        self._timer: Timer | None = None
        if transport is not None:
            self._transport = transport
            self._start_timer()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request head."""
        self._transport = cast(asyncio.Transport, transport)
        fit_reads(self._transport, large=False)
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
            if self._reader is None:
                self._look(data)
            else:
                self._read_head(self._reader, data)
        except HandshakeFailure as failure:
            self._refuse(failure)

    def eof_received(self) -> None:
        """A client that sends no more can take part in no closing handshake: it is gone."""
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if not tell_successor(self._transport, self, exc):
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
        self._settle()
        self._holder = None
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

    def drop(self, size: int) -> None:
        """Forget the first bytes that came."""
        del self._rest[:size]

    def look_inside(self, answer: bytes, receiver: Receiver) -> None:
        """Send the answer, and read what comes after it as a connection of its own."""
        self._settle()
        if answer:
            self._transport.write(answer)
        self.look_again(receiver, bytes(self._rest), None)

    def look_again(self, receiver: Receiver, data: bytes, kept: Kept | None) -> None:
        """Read the next request of a connection that was given away."""
        transport = self._transport
        following = Incoming(self._listener, receiver, transport, kept)
        transport.set_protocol(following)
        if self._listener.is_closed and not data:
            following.give_up()
            return
        if not transport.is_closing():
            transport.resume_reading()
        if data:
            following.data_received(data)

    async def secure(self, context: ssl.SSLContext, receiver: Receiver) -> None:
        """End TLS, and read what is inside as a connection of its own."""
        self._settle()
        transport, listener = self._transport, self._listener
        try:
            inside, gate = await start_tls(transport, context, listener.timeouts, data=bytes(self._rest))
        except BaseException:
            transport.abort()
            listener.lost(transport)
            raise
        listener.replace(transport, inside)
        gate.hand_over(inside, Incoming(listener, receiver, inside))

    def finish(self, answer: bytes) -> None:
        """Send a last answer, or none, and close."""
        self._settle()
        self._holder = None
        transport, listener = self._transport, self._listener
        if answer and not transport.is_closing():
            Linger(transport, answer, listener.timeouts.close, lambda: listener.lost(transport))
        else:
            transport.close()

    # Inside.

    def _look(self, data: bytes) -> None:
        self._rest += data
        found = self._receiver.look(bytes(self._rest), self)
        if self._finished:
            return
        if found is Look.HEAD:
            self._reader, came = HeadReader(self._listener.limits.head), bytes(self._rest)
            self._rest.clear()
            self._read_head(self._reader, came)
        elif found is not Look.MORE:
            self._stop_timer()
            self._holder = found
        elif len(self._rest) > self._listener.limits.head:
            self.finish(b"")  # In no protocol of ours is so much needed to tell what it is.

    def _read_head(self, reader: HeadReader, data: bytes) -> None:
        found = reader.feed(data)
        if found is not None:
            self._head_complete(*found)

    def _head_complete(self, head: bytes, rest: bytes) -> None:
        self._stop_timer()
        self._rest += rest
        request = read_request(head, self._listener.limits.fields)
        holder = self._receiver.receive(request, self)
        if not self._finished:
            self._holder = holder

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self._listener.limits.read_buffer:
            self._transport.pause_reading()

    def _refuse(self, failure: HandshakeFailure) -> None:
        if failure.status == 431:  # By cookies of other ports, most likely: the program is to know of that.
            self._listener.complaints.warning("request refused", status=431, why=failure.reason)
        else:
            log.get_logger().debug("request refused", status=failure.status, why=failure.reason)
        self.finish(refusal(failure.status, failure.reason, failure.headers))

    def _head_timed_out(self) -> None:
        if self._reader is not None:
            patience = self._listener.timeouts.head
            self._refuse(HandshakeFailure(408, f"the request head was not complete within {patience} s"))
        else:
            self.finish(b"")  # Browsers open connections on suspicion; nobody waits for an answer.

    def _gone(self) -> None:
        self._settle()
        if self._holder is not None:
            self._holder.client_gone()

    def _settle(self) -> None:
        """Read no more here, and let go what was kept."""
        self._stop_timer()
        self._finished = True
        if self.kept is not None:
            self.kept.close()
            self.kept = None

    def _start_timer(self) -> None:
        listener = self._listener
        self._timer = listener.clock.after(listener.timeouts.head, self._head_timed_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def hold(host: str, port: int) -> socket.socket:
    """Take a port without serving there.

    Raises:
        OSError: another program has it, or there is no such address.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if exclusive := getattr(socket, "SO_EXCLUSIVEADDRUSE", 0):
            held.setsockopt(socket.SOL_SOCKET, exclusive, 1)  # Else Windows lets others have it, too.
        held.bind((host, port))
    except OSError:
        held.close()
        raise
    return held


def check_listen(listen: tuple[str, int], security: Security) -> tuple[str, int]:
    """Check an address and a port to listen on.

    Raises:
        InvalidArgument: they are no such, or other machines could reach them.
    """
    try:
        host, port = listen
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"listen is {listen!r}; it is (address, port), such as ('127.0.0.1', 0)"
        ) from None
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise InvalidArgument(f"listen has port {port!r}; a port is 0 to 65535, 0 lets the system choose")
    if host == "localhost":
        host = "127.0.0.1"  # Two families would mean two ports.
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InvalidArgument(f"listen has address {host!r}; it is an IP address, or localhost") from None
    if not loopback and not security.allow_remote:
        raise InvalidArgument(
            f"listen names {host}, which other machines can reach; "
            "use 127.0.0.1, or set Security(allow_remote=True) if that is meant"
        )
    return host, port
