"""What is behind a WebSocket object: its connection, from the first byte to the last.

The link lives as long as the connection does. It holds the object only while the standard has it live on
(section 7); an object that nobody can reach any more is gone, and its link closes the connection. What
happens on the wire is told in tasks of the loop's queue, one for each thing, in order (section 4).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Literal, Protocol
from weakref import ref

from .. import log
from ..config import Limits, Timeouts
from ..connection import Connection, End
from ..exceptions import ConnectFailure
from ..handshake import Accepted
from ..handshake.client import Opening, Response, check_response, write_request
from ..upstream import Upstream
from .address import Address
from .dial import Exchange, dial

__all__ = ["Diagnosis", "Link", "Options", "Watcher"]

_links: set[Link] = set()
"""Holds every link whose connection has not ended: nothing else may."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a program may say beyond the standard.

    Attributes:
        context: for wss; None checks certificates against the system's authorities.
        proxy: to go through.
        open_timeout: seconds until the connection must be open; None waits for ever.
        limits: `message`, `read_buffer` and `write_buffer` count.
        timeouts: `close`, `ping` and `pong` count.
    """

    context: ssl.SSLContext | None
    proxy: Upstream | None
    open_timeout: float | None
    limits: Limits
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a WebSocket failed: what its events must not tell.

    Attributes:
        rule: short name of the rule that decided; `connection` where it failed after it was open.
        reason: in plain words.
        request: the request head that was sent; empty where it was not.
        response: the bytes of the answer that came; empty where there were none.
        field: the header field of the answer that decided, in lower case; empty where none did.
    """

    rule: str
    reason: str
    request: bytes = b""
    response: bytes = b""
    field: str = ""


class Watcher(Protocol):
    """Who a link works for. Calls come in tasks of their own, in wire order."""

    def link_opened(self, accepted: Accepted) -> None:
        """Learn that the connection is established."""

    def link_received(self, data: str | bytes) -> None:
        """Take a message."""

    def link_closing(self) -> None:
        """Learn that the closing handshake was started."""

    def link_closed(self, end: End) -> None:
        """Learn that the connection is closed."""

    def link_drained(self) -> None:
        """Learn that the network takes data again."""


class Link:
    """One connection to a server, from its first byte on.

    Args:
        watcher: whom to tell; held weakly unless `pin` says otherwise.
        address: where to.
        opening: the handshake's request.
        options: what else was said.

    Attributes:
        diagnosis: why it failed; None while it has not.
    """

    def __init__(self, watcher: Watcher, address: Address, opening: Opening, options: Options) -> None:
        self._loop = asyncio.get_running_loop()
        self._watcher = ref(watcher)
        self._pin: Watcher | None = None
        self._address = address
        self._opening = opening
        self._options = options
        self._connection: Connection | None = None
        self._end: End | None = None
        self._gone = False
        self._told = False
        self._undelivered = 0
        self._held = False
        self._closing = False
        self._exchange: Exchange[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self.diagnosis: Diagnosis | None = None
        _links.difference_update([link for link in _links if link._loop.is_closed()])
        _links.add(self)
        # Not create_task: what is eager (a task factory of Python 3.12) is over before it is noted.
        self._opener = asyncio.Task(self._open(), loop=self._loop)

    # For the WebSocket object.

    @property
    def established(self) -> bool:
        """Whether the WebSocket connection is established (RFC 6455 section 4.1), or was."""
        return self._connection is not None

    @property
    def connection(self) -> Connection:
        """The connection; only where it is established."""
        assert self._connection is not None
        return self._connection

    @property
    def busy(self) -> bool:
        """Whether data is queued that the network has not taken."""
        return self._draining is not None

    def pin(self, watcher: Watcher | None) -> None:
        """Hold the watcher, or hold it no longer."""
        self._pin = watcher

    def send(self, payload: bytes, opcode: Literal[1, 2]) -> None:
        """Send a message."""
        connection = self.connection
        connection.send(payload, opcode)
        if connection.blocked and self._draining is None and connection.end is None:
            self._draining = asyncio.Task(self._drain(connection), loop=self._loop)

    def close(self, code: int | None, reason: str = "") -> None:
        """Start the closing handshake; what comes after that is delivered to nobody."""
        self._closing = True
        self._held = False
        self.connection.hold(False)
        self.connection.close(code, reason)
        self._tell(lambda watcher: watcher.link_closing())

    def fail(self, reason: str) -> None:
        """Fail the connection before it is established (RFC 6455 section 7.1.7)."""
        self._opener.cancel()
        self._failed(ConnectFailure("closed", reason))

    def keep(self, data: object) -> None:
        """Count a message as undelivered until `release`; too much of it stops the reading."""
        self._undelivered += _cost(data)
        if self._undelivered > self._options.limits.read_buffer and not (self._held or self._closing):
            self._held = True
            self.connection.hold(True)

    def release(self, data: object) -> None:
        """Count a message as delivered."""
        self._undelivered -= _cost(data)
        if self._held and self._undelivered <= self._options.limits.read_buffer // 2:
            self._held = False
            self.connection.hold(False)

    def abandon(self) -> None:
        """The object is gone: close without a status (section 7); callable from any thread."""
        if self._told or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._abandoned)

    def _abandoned(self) -> None:
        if self._connection is None:
            self.fail("the WebSocket object was let go")
            return
        self.close(None)

    # The handshake.

    async def _open(self) -> None:
        request = write_request(self._opening)
        self._exchange = exchange = Exchange(request, self._answered)
        options = self._options
        try:
            async with asyncio.timeout(options.open_timeout):
                await dial(exchange, self._address, context=options.context, proxy=options.proxy)
        except TimeoutError:
            self._failed(ConnectFailure("timeout", f"not open within {options.open_timeout} s"))
        except ConnectFailure as exc:
            self._failed(exc)

    def _answered(self, transport: asyncio.Transport, response: Response, rest: bytes) -> None:
        if self._end is not None:
            raise ConnectFailure("closed", "the answer came too late")
        accepted = check_response(response, self._opening)
        self._exchange = None  # With all bytes of the answer, which a failure would be told by.
        self._tell(lambda watcher: watcher.link_opened(accepted))
        self._connection = Connection(
            transport,
            self,
            extensions=accepted.extensions,
            limits=self._options.limits,
            timeouts=self._options.timeouts,
            lost=self._lost,
            client=True,
        )
        if rest:
            self._connection.data_received(rest)

    def _failed(self, failure: ConnectFailure) -> None:
        if self._end is not None or self._connection is not None:  # Given up, or answered just in time.
            return
        exchange = self._exchange
        request = write_request(self._opening) if exchange is not None and exchange.reached else b""
        response = exchange.received if exchange is not None else b""
        self._note(Diagnosis(failure.rule, failure.reason, request, response, failure.field))
        self._end = End(1006, "", False, "fault", failure.reason)
        self._finish(self._end)

    # The connection's owner.

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        """Queue a task for a message."""
        self.keep(data)
        self._loop.call_soon(self._deliver, data)

    def _deliver(self, data: str | bytes) -> None:
        watcher = self._watcher()
        if watcher is not None:
            watcher.link_received(data)
        self.release(data)

    def connection_ending(self) -> None:
        """Messages that came before the end are still to be delivered: nothing to tell yet."""

    def connection_ended(self, end: End) -> None:
        """Queue the tasks of the end: at once where it failed, else once TCP is closed too."""
        self._end = end
        if not end.was_clean:
            self._note(Diagnosis("connection", end.fault))
        self._tell(lambda watcher: watcher.link_closing())
        if self._gone or not end.was_clean:
            self._finish(end)

    def _lost(self) -> None:
        self._gone = True
        if self._end is not None:
            self._finish(self._end)

    # Tasks of the loop.

    def _finish(self, end: End) -> None:
        if not self._told:
            self._told = True
            self._tell(lambda watcher: watcher.link_closed(end))
            self._loop.call_soon(_links.discard, self)

    def _tell(self, step: Callable[[Watcher], None]) -> None:
        self._loop.call_soon(self._run, step)

    def _run(self, step: Callable[[Watcher], None]) -> None:
        watcher = self._watcher()
        if watcher is not None:
            step(watcher)

    async def _drain(self, connection: Connection) -> None:
        await connection.drain()
        self._draining = None
        self._run(lambda watcher: watcher.link_drained())

    def _note(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        logger = log.get_logger(url=self._address.public)
        logger.debug("a WebSocket failed", rule=diagnosis.rule, reason=diagnosis.reason)


EVENT_COST = 512
"""Bytes that a message is counted for besides its data, so that empty ones are not free."""


def _cost(data: object) -> int:
    return EVENT_COST + (len(data) if isinstance(data, Sized) else 0)
