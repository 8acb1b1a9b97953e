"""The WebSocket interface of the WHATWG WebSockets Standard, on asyncio, name for name.

The numbers in comments are the steps of the standard's algorithms.
"""

from __future__ import annotations

import asyncio
import math
import ssl as tls
import sys
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Final, Literal, Self

from .. import log
from ..config import Limits, Timeouts
from ..connection import End
from ..exceptions import DOMException, InvalidState, SocketClosed, UnsupportedType
from ..handshake import Accepted
from ..upstream import read_upstream
from ..urls import repair
from .address import Headers, opening, parse_address
from .blob import Blob
from .buffered import Buffered
from .inbox import Inbox, Later
from .link import Diagnosis, Link, Options
from .target import CloseEvent, Event, EventTarget, Handler, MessageEvent

__all__ = ["BinaryType", "WebSocket"]

BinaryType = Literal["blob", "arraybuffer"]
MAX_REASON = 123
"""RFC 6455 section 5.5: a control frame holds 125 bytes, two of them the close code."""

WRITE_BUFFER = 256 * 1024 * 1024
NEEDED = {0: ("open", "message", "error", "close"), 1: ("message", "error", "close"), 2: ("error", "close")}
"""Section 7: in which state listeners for which events keep an object alive."""


class WebSocket(EventTarget):
    """A WebSocket as a page has it.

    The connection is begun at once, on the running loop.

    Args:
        url: ws, wss, http or https; without a fragment.
        protocols: one subprotocol or several, in order of preference; the server must choose one of them.
        base_url: what a relative URL is relative to.
        origin: value of Origin; None sends none, as a program does.
        headers: more request fields.
        ssl: for wss; None checks certificates against the system's authorities.
        proxy: an HTTP proxy to go through, `http://[user:password@]host:port`.
        compression: offer permessage-deflate, as browsers do.
        open_timeout: seconds until the socket must be open; None waits as long as the system does.
        close_timeout: seconds for the server to finish closing.
        ping_interval: seconds between keepalive pings, and for the answer to one; None sends none.
        max_size: bytes of a received message, unpacked, above which the socket fails; None for no limit.
        max_buffered: bytes of unsent data above which the socket is full, and closed.

    Raises:
        DOMException: SyntaxError; the URL or a subprotocol cannot be used.
        InvalidArgument, UnsupportedType: another argument cannot be used.
        InvalidState: there is no running loop.
    """

    CONNECTING: Final = 0
    OPEN: Final = 1
    CLOSING: Final = 2
    CLOSED: Final = 3

    def __init__(
        self,
        url: str,
        protocols: str | Sequence[str] = (),
        *,
        base_url: str | None = None,
        origin: str | None = None,
        headers: Headers = (),
        ssl: tls.SSLContext | None = None,
        proxy: str | None = None,
        compression: bool = True,
        open_timeout: float | None = None,
        close_timeout: float = 10,
        ping_interval: float | None = None,
        max_size: int | None = None,
        max_buffered: int = WRITE_BUFFER,
    ) -> None:
        self._begin()
        self._address = parse_address(url, base_url)  # Steps 1 to 7 and 10.
        asked = opening(self._address, protocols, origin, headers, compression)  # Steps 8 and 9.
        options = Options(
            ssl,
            None if proxy is None else read_upstream(proxy, "proxy"),
            open_timeout,
            Limits(message=sys.maxsize if max_size is None else max_size, write_buffer=max_buffered),
            Timeouts(close=close_timeout, ping=ping_interval, pong=ping_interval),
        )
        try:
            self._link = Link(self, self._address, asked, options)  # Step 12, in parallel.
        except RuntimeError as exc:
            raise InvalidState("a WebSocket needs a running event loop; make it in an async def") from exc
        self._ready_state = self.CONNECTING

    def _begin(self) -> None:
        self._ready_state = self.CLOSED  # What is let go half made has nothing to close.
        super().__init__()
        self._binary_type: BinaryType = "blob"
        self._protocol = ""
        self._extensions = ""
        self._buffered = Buffered()
        self._inbox: Inbox | None = None
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._end: CloseEvent | None = None
        self._awaited = 0

    def __del__(self) -> None:
        # Section 7: let go while the connection is open, the closing handshake is started.
        if self._ready_state in (self.CONNECTING, self.OPEN):
            self._link.abandon()

    def __repr__(self) -> str:
        state = ("CONNECTING", "OPEN", "CLOSING", "CLOSED")[self._ready_state]
        return f"<WebSocket {state} {self._address.public}>"

    # The attributes.

    @property
    def url(self) -> str:
        """The URL, serialized."""
        return self._address.href

    @property
    def readyState(self) -> int:
        """CONNECTING 0, OPEN 1, CLOSING 2 or CLOSED 3."""
        return self._ready_state

    @property
    def bufferedAmount(self) -> int:
        """Bytes of messages that were sent and that the network has not taken; it never falls back to 0."""
        return int(self._buffered)

    @property
    def extensions(self) -> str:
        """The extensions that the server chose; empty before it is open."""
        return self._extensions

    @property
    def protocol(self) -> str:
        """The subprotocol that the server chose; empty before it is open."""
        return self._protocol

    @property
    def binaryType(self) -> BinaryType:
        """How binary messages come: `blob` (Blob) or `arraybuffer` (bytes); another value is ignored."""
        return self._binary_type

    @binaryType.setter
    def binaryType(self, value: BinaryType) -> None:
        if value in ("blob", "arraybuffer"):
            self._binary_type = value
        else:  # Web IDL section 3.7.6: what is no value of the enumeration changes nothing.
            log.get_logger().warning("binaryType is 'blob' or 'arraybuffer'; ignored", value=value)

    @property
    def onopen(self) -> Handler | None:
        """Called when the socket is open."""
        return self._handler("open")

    @onopen.setter
    def onopen(self, handler: Handler | None) -> None:
        self._set_handler("open", handler)

    @property
    def onmessage(self) -> Handler | None:
        """Called with each message."""
        return self._handler("message")

    @onmessage.setter
    def onmessage(self, handler: Handler | None) -> None:
        self._set_handler("message", handler)

    @property
    def onerror(self) -> Handler | None:
        """Called before `onclose` where the socket failed; it does not say why."""
        return self._handler("error")

    @onerror.setter
    def onerror(self, handler: Handler | None) -> None:
        self._set_handler("error", handler)

    @property
    def onclose(self) -> Handler | None:
        """Called last, once."""
        return self._handler("close")

    @onclose.setter
    def onclose(self, handler: Handler | None) -> None:
        self._set_handler("close", handler)

    # The methods.

    def send(self, data: str | bytes | bytearray | memoryview | Blob) -> None:
        """Send a message; without effect once the socket is closing, but for `bufferedAmount`.

        Raises:
            DOMException: InvalidStateError; the socket is still CONNECTING.
            UnsupportedType: data of another type.
        """
        payload = _to_bytes(data)
        if self._ready_state == self.CONNECTING:  # Step 1.
            raise DOMException("the socket is not open yet; wait for open", "InvalidStateError")
        if self._ready_state != self.OPEN:  # Step 2: nothing is sent, and yet it counts.
            self._buffered.lost(len(payload))
            return
        connection = self._link.connection
        made = connection.made_bytes
        self._link.send(payload, 1 if isinstance(data, str) else 2)
        if connection.made_bytes == made:
            self._buffered.lost(len(payload))
        else:
            self._buffered.queued(connection, len(payload))
        if self._link.busy:
            self._review()

    def close(self, code: float | None = None, reason: str | None = None) -> None:
        """Close the socket, after what was sent; without effect if it is closing or closed.

        Args:
            code: 1000, or 3000 to 4999; None sends no code, and no reason then.
            reason: at most 123 bytes of UTF-8.

        Raises:
            DOMException: InvalidAccessError for the code, SyntaxError for the reason.
            UnsupportedType: the code is no number, or the reason no str.
        """
        number = None if code is None else _clamp(code)
        if number is not None and number != 1000 and not 3000 <= number <= 4999:  # Step 1.
            raise DOMException(f"close code {code} is neither 1000 nor 3000 to 4999", "InvalidAccessError")
        text = _check_reason(reason)  # Step 2.
        if self._ready_state in (self.CLOSING, self.CLOSED):  # Step 3, in its order.
            return
        self._set_state(self.CLOSING)
        self._end_link(
            number, "" if number is None else text, "close() was called before the socket was open"
        )

    def disappear(self) -> None:
        """Do what a browser does with the sockets of a page that goes away (section 7): close with 1001."""
        if self._ready_state in (self.CONNECTING, self.OPEN):
            self._end_link(1001, "", "the page went away before the socket was open")

    def _end_link(self, code: int | None, reason: str, failure: str) -> None:
        if self._link.established:
            self._link.close(code, reason)
        else:
            self._link.fail(failure)

    # What fits Python, beyond the standard.

    @property
    def diagnosis(self) -> Diagnosis | None:
        """Why the socket failed, which its events must not tell; None while it has not. For tests."""
        return self._link.diagnosis

    @property
    def opened(self) -> Awaitable[Self]:
        """Await it for the open socket.

        Raises (when awaited):
            SocketClosed: it was closed, or failed, before it was open.
        """
        return Later(self._until_open)

    @property
    def closed(self) -> Awaitable[CloseEvent]:
        """Await it for the event of the end."""
        return Later(self._until_closed)

    async def _until_open(self) -> Self:
        await self._wait(self._begun)
        if self._end is not None and not self._link.established:
            raise SocketClosed(self._end.code, self._end.reason)
        return self

    async def _until_closed(self) -> CloseEvent:
        await self._wait(self._over)
        assert self._end is not None
        return self._end

    async def _wait(self, moment: asyncio.Event) -> None:
        self._awaited += 1  # Whoever waits keeps the object alive.
        self._review()
        try:
            await moment.wait()
        finally:
            self._awaited -= 1
            self._review()

    async def __aenter__(self) -> Self:
        self._collect()
        try:
            return await self._until_open()
        except asyncio.CancelledError:
            self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(1000)
        await self._until_closed()

    # No generator: where one is let go before its end, uvloop's debug mode crashes Python 3.12 and newer.
    def __aiter__(self) -> Self:
        """Give the messages as they come; ends when the socket has ended.

        They are kept from now on, within `async with` from the beginning, and while too many wait the
        socket is not read.
        """
        self._collect()
        return self

    async def __anext__(self) -> MessageEvent:
        """Wait for the next message, or for the end."""
        inbox = self._collect()
        while not inbox and self._end is None:
            await self._wait(inbox.changed)
        if not inbox:
            raise StopAsyncIteration
        return inbox.take()

    def _collect(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self._link)
        return self._inbox

    # Section 4: feedback from the protocol. Each is a task of its own.

    def link_opened(self, accepted: Accepted) -> None:
        """Run the steps of "the WebSocket connection is established"."""
        if self._ready_state != self.CONNECTING:
            return  # close() came first.
        self._set_state(self.OPEN)  # 1
        self._extensions = accepted.header  # 2
        self._protocol = accepted.subprotocol or ""  # 3
        self._begun.set()
        self.dispatchEvent(Event("open"))  # 4
        self._review()

    def link_received(self, data: str | bytes) -> None:
        """Run the steps of "a WebSocket message has been received"."""
        if self._ready_state != self.OPEN:  # 1
            return
        as_blob = isinstance(data, bytes) and self._binary_type == "blob"
        content = Blob([data]) if as_blob else data  # 2
        event = MessageEvent("message", content, self._address.origin)
        if self._inbox is not None:
            self._inbox.put(event)
        self.dispatchEvent(event)  # 3

    def link_closing(self) -> None:
        """Run the step of "the WebSocket closing handshake is started"."""
        self._set_state(self.CLOSING)

    def link_closed(self, end: End) -> None:
        """Run the steps of "the WebSocket connection is closed"."""
        self._ready_state = self.CLOSED  # 1
        if not end.was_clean:  # 2
            self.dispatchEvent(Event("error"))
        self._end = CloseEvent("close", end.was_clean, end.code, end.reason)
        self._begun.set()
        self._over.set()
        if self._inbox is not None:
            self._inbox.changed.set()
        self.dispatchEvent(self._end)  # 3
        self._review()

    def link_drained(self) -> None:
        """Let go of what waited for the network."""
        self._review()

    # Section 7: garbage collection.

    def _set_state(self, state: int) -> None:
        self._ready_state = max(state, self._ready_state)
        self._review()

    def _listeners_changed(self) -> None:
        self._review()

    def _review(self) -> None:
        """Have the link hold this object while the standard forbids that it is collected."""
        state = self._ready_state
        needed = state != self.CLOSED and (
            self._awaited > 0 or self._link.busy or self._listens(*NEEDED[state])
        )
        self._link.pin(self if needed else None)

    # Async listeners: what they work on counts as undelivered.

    def _started(self, task: asyncio.Future[object], event: Event) -> None:
        if isinstance(event, MessageEvent):
            self._link.keep(event.data)

    def _finished(self, task: asyncio.Future[object], event: Event) -> None:
        super()._finished(task, event)
        if isinstance(event, MessageEvent):
            self._link.release(event.data)


def _to_bytes(data: object) -> bytes:
    if isinstance(data, str):
        return repair(data).encode()
    if isinstance(data, bytes | bytearray | memoryview | Blob):
        return bytes(data)
    raise UnsupportedType(f"{type(data).__name__} cannot be sent; send str, bytes-like or Blob")


def _clamp(code: object) -> int:
    """Convert as Web IDL's [Clamp] unsigned short: to the nearest integer, ties to even, within 0..65535."""
    if not isinstance(code, int | float):
        raise UnsupportedType(f"close code {code!r} is no number")
    return 0 if math.isnan(code) else round(min(max(code, 0), 65535))


def _check_reason(reason: object) -> str:
    if reason is None:
        return ""
    if not isinstance(reason, str):
        raise UnsupportedType(f"close reason {reason!r} is no str")
    text = repair(reason)
    size = len(text.encode())
    if size > MAX_REASON:
        raise DOMException(f"the reason is {size} bytes of UTF-8; at most {MAX_REASON} fit", "SyntaxError")
    return text
