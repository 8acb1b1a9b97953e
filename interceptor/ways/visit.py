"""One HTTP request that the host answers itself: its body, its answer, and what comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

import h11

from .. import log
from ..config import Settings
from ..dispatch import Dispatcher
from ..exceptions import HandshakeFailure
from ..handshake import Request, refusal
from ..linger import Linger
from .forward import Stream
from .listener import Receiver, Tunnel

__all__ = ["Content", "Home", "Response", "Visit"]

PIECE = 64 * 1024
"""Most bytes read at once."""


class Content(Protocol):
    """A body that is read as it is sent, such as a file's."""

    def __iter__(self) -> Iterator[bytes]:
        """Read it."""

    def close(self) -> None:
        """Read no more."""


@dataclass(slots=True)
class Response:
    """An answer.

    Attributes:
        status: 200 to 599.
        reason: phrase of the status.
        fields: of its head, but none that frames it: Date, Content-Length and Connection are added.
        body: what it brings.
        length: of the body; None for that of bytes.
    """

    status: int
    reason: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Content = b""
    length: int | None = None

    def add(self, name: str, value: str) -> None:
        """Add a field unless there is one of its name."""
        if not self._values(name):
            self.fields.append((name, value))

    @property
    def is_page(self) -> bool:
        """Whether it brings HTML."""
        return any(value.lower().startswith("text/html") for value in self._values("content-type"))

    def _values(self, name: str) -> list[str]:
        return [value for found, value in self.fields if found.lower() == name.lower()]

    def close(self) -> None:
        """Let the body go."""
        if not isinstance(self.body, bytes):
            self.body.close()


Respond = Callable[[bytearray, asyncio.Future[None]], Awaitable[Response]]
"""Makes the answer, given the body of the request, and what is done once the client has left."""


class Room:
    """The memory for the bodies of all requests that are being answered.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size

    def take(self, size: int) -> None:
        """Take some of it.

        Raises:
            HandshakeFailure: 503, so much is not left.
        """
        if size > self._free:
            raise HandshakeFailure(
                503,
                f"the bodies of all requests may have {self._size} bytes at once (four times Limits.body), "
                "and those that are not answered yet leave no room; try again later",
            )
        self._free -= size

    def give(self, size: int) -> None:
        """Give some of it back."""
        self._free += size


class Home(Protocol):
    """What a visit needs of its host."""

    @property
    def settings(self) -> Settings:
        """What the host was told."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Runs coroutines to their end."""


class Visit:
    """A request, from its head to the end of its answer.

    Args:
        home: the host.
        wire: the client's side; taken at once.
        request: its head.
        respond: makes the answer.
        then: receives what comes on the connection afterwards.
        room: for its body.

    Raises:
        HandshakeFailure: 400 or 413, its body cannot be taken.
    """

    def __init__(
        self, home: Home, wire: Tunnel, request: Request, respond: Respond, then: Receiver, room: Room
    ) -> None:
        self._settings = home.settings
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * self._settings.limits.head)
        self._request = request
        self._respond = respond
        self._wire = wire
        self._then = then
        self._room = room
        self._held = 0
        self._near = Stream()
        self._settled = False
        self._feed(request.head)
        self._check_length(self._next())
        self._feed(wire.switch(b"", self._near.take))
        home.dispatcher.spawn(self._run()).add_done_callback(self._clean_up)

    async def _run(self) -> None:
        try:
            response = await self._respond(await self._read_body(), self._near.gone)
            try:
                await self._send(response)
            finally:
                response.close()
            await self._part()
        except HandshakeFailure as failure:
            log.get_logger().debug("request refused", status=failure.status, why=failure.reason)
            self._linger(refusal(failure.status, failure.reason, failure.headers))
        except OSError:
            pass  # The client has left.
        except Exception as exc:
            log.get_logger().error("answering a request failed", exc_info=exc)
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._linger(refusal(500, "the host failed"))

    # The request.

    def _feed(self, data: bytes) -> None:
        if data:
            self._http.receive_data(data)

    def _next(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as exc:
            raise HandshakeFailure(400, f"the request is malformed: {exc}") from exc

    def _check_length(self, head: object) -> None:
        assert isinstance(head, h11.Request)
        if int(dict(head.headers).get(b"content-length", 0)) > self._settings.limits.body:
            raise self._too_large()

    def _too_large(self) -> HandshakeFailure:
        return HandshakeFailure(413, f"the body is over {self._settings.limits.body} bytes (Limits.body)")

    async def _read_body(self) -> bytearray:
        patience = self._settings.timeouts.answer
        try:
            async with asyncio.timeout(patience):
                return await self._collect()
        except TimeoutError as exc:
            raise HandshakeFailure(408, f"the body was not complete within {patience} s") from exc

    async def _collect(self) -> bytearray:
        body = bytearray()
        while not isinstance(event := self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                self._keep(len(event.data))
                body += event.data
            else:
                await self._wait_for_more()
        return body

    def _keep(self, size: int) -> None:
        if self._held + size > self._settings.limits.body:
            raise self._too_large()
        self._room.take(size)
        self._held += size

    async def _wait_for_more(self) -> None:
        if self._http.they_are_waiting_for_100_continue:
            proceed = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._near.write(self._http.send(proceed) or b"")
        data = await self._near.reader.read(PIECE)
        if not data:
            raise ConnectionResetError("the client left before its request was complete")
        self._http.receive_data(data)

    # The answer.

    async def _send(self, response: Response) -> None:
        fields = [("Date", formatdate(usegmt=True)), *response.fields]
        body, status = response.body, response.status
        if status not in (204, 304):
            length = len(body) if isinstance(body, bytes) else response.length
            fields.append(("Content-Length", str(length)))
        head = h11.Response(status_code=status, headers=fields, reason=response.reason.encode("latin-1"))
        await self._write(head)
        if self._request.method != "HEAD" and status not in (204, 304):
            if isinstance(body, bytes):
                await self._write(h11.Data(data=body))
            else:
                await self._send_pieces(body, response.length or 0)
        await self._write(h11.EndOfMessage())

    async def _send_pieces(self, body: Content, length: int) -> None:
        """Send what the head has promised, and no more: a file may have grown since, or got shorter."""
        for piece in body:
            await self._write(h11.Data(data=piece[:length]))
            length -= len(piece)
            if length <= 0:
                return
        if length > 0:
            log.get_logger().warning("a file got shorter while it was sent", missing=length)
            raise ConnectionAbortedError("what was promised is not there any more")

    async def _write(self, event: h11.Event) -> None:
        """Send a part; a client that does not take it in time is dropped."""
        async with asyncio.timeout(self._settings.timeouts.answer):
            await self._near.write(self._http.send(event) or b"")

    async def _part(self) -> None:
        if self._http.our_state is not h11.DONE or self._near.reader.at_eof():
            self._linger(b"")
            return
        rest = self._http.trailing_data[0] + await self._near.leave()
        self._settled = True
        self._wire.look_again(self._then, rest, None)

    def _linger(self, data: bytes) -> None:
        if not self._near.transport.is_closing():
            self._settled = True
            near, patience = self._near, self._settings.timeouts.close
            Linger(near.transport, data, patience, near.lost, ended=near.ended)

    def _clean_up(self, task: asyncio.Task[None]) -> None:
        self._room.give(self._held)
        if not self._settled:
            self._near.close()
