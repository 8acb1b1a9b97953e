"""HTTP requests that go on to their real servers, with the answers, as they come.

The bytes that leave are the bytes that came; h11 reads along and tells where a message ends, so that the next
request on the same connection can be decided anew.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Protocol, cast

import h11

from ..backlog import fit_writes
from ..config import Timeouts
from ..exceptions import HandshakeFailure
from ..handshake import Request, refusal
from ..linger import Linger
from ..relay import Relay
from .chunks import ChunkedBody
from .dial import INTERIM, Target
from .gate import tell_successor
from .listener import Receiver, Tunnel

__all__ = ["Exchange", "Server"]

PIECE = 16 * 1024
"""Most bytes read at once (in chunks of one byte they take h11 milliseconds); twice as many may wait."""

NUMBER = re.compile(r"[0-9]{1,20}")
SAFE = (b"GET", b"HEAD", b"OPTIONS")

LONGEST_HEAD = 256 * 1024
"""Of an answer, of all interim answers before it together, and of the trailers of a chunked body."""


class Stream(asyncio.Protocol):
    """A connection that a coroutine reads and writes, and that can be given away.

    Attributes:
        reader: what comes on it.
        unread: bytes that came and were not read.
        ended: whether its end came.
        transport: once it is made.
        lost: counts the transport out; called when it is gone, and when it is given up.
        gone: done once it is gone.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=PIECE)
        self.unread = 0
        self.ended = False
        self.lost: Callable[[], None] = lambda: None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()

    def take(self, transport: asyncio.Transport, lost: Callable[[], None]) -> None:
        """Take a transport from another protocol."""
        self.lost = lost
        transport.set_protocol(self)
        self.connection_made(transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read it."""
        self.transport = cast(asyncio.Transport, transport)
        fit_writes(self.transport)
        self.reader.set_transport(transport)

    def data_received(self, data: bytes) -> None:
        """Keep bytes for the reader, which stops the transport when it has enough."""
        self.unread += len(data)
        self.reader.feed_data(data)

    def eof_received(self) -> bool:
        """Tell the reader; the other direction stays open where there is such a thing."""
        self.ended = True
        self.reader.feed_eof()
        return self.transport.can_write_eof()

    def pause_writing(self) -> None:
        """The transport is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The transport has room."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out at once, and wake whoever waits."""
        if tell_successor(self.transport, self, exc):
            return
        self.lost()
        if not self.gone.done():
            self.gone.set_result(None)
        self._room.set()
        if exc is None:
            self.reader.feed_eof()
        else:
            self.reader.set_exception(exc)

    async def read(self) -> bytes:
        """Wait for bytes; none at the end.

        Raises:
            OSError: the connection was cut off.
        """
        data = await self.reader.read(PIECE)
        self.unread -= len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait until the connection can take more.

        Raises:
            OSError: the connection is gone.
        """
        if not data:
            return
        if not self.transport.is_closing():
            self.transport.write(data)
            await self._room.wait()
        if self.gone.done() or self.transport.is_closing():
            raise ConnectionResetError("the connection was lost")

    def end(self) -> None:
        """Pass the end of the other direction on; TLS, which is never half closed here, ends as a whole."""
        if not self.transport.can_write_eof():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    async def leave(self) -> bytes:
        """Read no more, for somebody else to take the transport at once; return what was not read."""
        self.transport.pause_reading()
        self.reader.feed_eof()
        return await self.reader.read()

    def close(self) -> None:
        """Drop the connection."""
        self.transport.abort()
        self.lost()


class Server(Stream):
    """A connection to a real server, for one request after the other.

    Args:
        target: where it is.

    Attributes:
        is_reused: whether it has answered a request before.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        self.is_reused = False

    @property
    def is_usable(self) -> bool:
        """Whether it can take another request, as far as one can tell."""
        return not (self.transport.is_closing() or self.unread or self.ended)


class Message:
    """Reads along one message.

    Args:
        request: None for a request, for an answer what it answers.

    Attributes:
        over: whether its end was seen.
        switched: whether it is a 101: no HTTP follows.
        rest: what came after its end.
        head: a request's.
    """

    def __init__(self, request: h11.Request | None = None) -> None:
        self.over = False
        self.switched = False
        self.rest = b""
        self.head: h11.Request | None = None
        self._begun = False
        self._interim = 0
        self._size = 0
        self._held = b""
        role = h11.SERVER if request is None else h11.CLIENT
        self._http = h11.Connection(role, max_incomplete_event_size=LONGEST_HEAD)
        if request is not None:
            self._http.send(_as_sent(request))

    @property
    def is_begun(self) -> bool:
        """Whether its head was seen."""
        return self._begun

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can take another message after it."""
        return self.over and self._http.their_state not in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)

    def feed(self, data: bytes) -> bytes:
        """Take bytes, none at the end of the stream; return those that are to be passed on.

        Raises:
            h11.RemoteProtocolError: they are no HTTP.
        """
        self._http.receive_data(data)
        self._held += data
        self._size += len(data)
        while not self.over and (event := self._http.next_event()) is not h11.NEED_DATA:
            self._take(event)
        if not self._begun:
            return b""
        passed, self._held = self._held, b""
        if self.over:
            self.rest = self._http.trailing_data[0]
        return passed[: len(passed) - len(self.rest)]

    def _take(self, event: object) -> None:
        self._begun = True
        if isinstance(event, h11.Request):
            self.head = event
        elif isinstance(event, h11.InformationalResponse):
            self.over = self.switched = event.status_code == 101
            self._interim += 1
            if self._interim > INTERIM or self._size > LONGEST_HEAD + PIECE:
                raise h11.RemoteProtocolError("interim answers are too many, or too long together")
        else:
            self.over = isinstance(event, h11.EndOfMessage | h11.ConnectionClosed)


class Onward(Protocol):
    """Where requests go on."""

    @property
    def timeouts(self) -> Timeouts:
        """`close` for a client's last answer; `answer` for a server whose client sends no more."""

    async def server(self, target: Target) -> Server:
        """Open a connection to a server.

        Raises:
            HandshakeFailure: the server cannot be reached.
        """

    def new_relay(self) -> Relay:
        """Return a relay that the host ends when it stops."""

    def note_failure(self, target: Target, failure: HandshakeFailure) -> None:
        """Write into the log that something could not go on."""

    def spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine that is cancelled when the host stops."""


class Exchange:
    """One request and its answer; broken off when the client's connection is gone.

    Args:
        onward: reaches servers.
        wire: the client's side; taken at once.
        target: the server.
        request: its target is a path.
        then: receives what comes on the connection afterwards.

    Raises:
        HandshakeFailure: 400, the request's body could be smuggling.
    """

    def __init__(
        self, onward: Onward, wire: Tunnel, target: Target, request: Request, then: Receiver
    ) -> None:
        _check_framing(request)
        self._onward = onward
        self._wire = wire
        self._target = target
        self._then = then
        self._near = Stream()
        self._far, wire.kept = wire.kept, None
        self._request = Message()
        self._answer: Message | None = None
        self._fault: HandshakeFailure | None = None
        self._ended = False
        self._settled = False
        self._waiting: asyncio.Timeout | None = None
        self._chunks = ChunkedBody() if request.values("transfer-encoding") else None
        self._head_size = len(request.head)
        self._first = request.head + wire.switch(b"", self._near.take)
        task = onward.spawn(self._run())
        task.add_done_callback(self._clean_up)
        self._near.gone.add_done_callback(lambda _: task.cancel())

    async def _run(self) -> None:
        try:
            first = self._feed_request(self._first)
            far = self._kept() or await self._reach()
            if not await self._talk(far, first):
                # A server may end a connection that idles just as the next request is on its way.
                far = await self._reach()
                await self._talk(far, first)
            await self._part(far)
        except HandshakeFailure as failure:
            self._refuse(failure)
        except OSError as exc:
            # One of the two has gone; the other one is dropped, or told so if nothing was said to it yet.
            if self._answer is not None and not self._answer.is_begun:
                why = exc.strerror or "it cut the connection off"
                self._refuse(HandshakeFailure(502, f"{self._target} did not answer: {why}"))

    def _feed_request(self, data: bytes) -> bytes:
        try:
            passed = self._request.feed(data)
            if self._chunks is not None:
                self._chunks.feed(passed[self._head_size :])
                self._head_size = 0
            return passed
        except (h11.RemoteProtocolError, ValueError) as exc:
            # What h11 says of it may quote a secret.
            raise HandshakeFailure(400, "the request is malformed: its framing is no HTTP/1.1") from exc

    def _kept(self) -> Server | None:
        """Return the connection of the request before this one, if it is of use."""
        far = self._far
        usable = isinstance(far, Server) and far.target == self._target and far.is_usable
        return cast(Server, far) if usable else None

    async def _reach(self) -> Server:
        if self._far is not None:
            self._far.close()
            self._far = None
        self._far = server = await self._onward.server(self._target)
        return server

    async def _talk(self, far: Server, first: bytes) -> bool:
        """Pass the request on and the answer back, both at once: either may wait for the other.

        Returns:
            Whether it came to an answer. If not, nothing was said to the client, and it can be tried anew.
        """
        assert self._request.head is not None
        self._answer = Message(self._request.head)
        up = asyncio.create_task(self._send_request(far, first))
        try:
            await self._send_answer(far, self._answer)
        except (HandshakeFailure, OSError):
            if not self._can_try_anew(far, self._answer):
                raise
            return False
        finally:
            up.cancel()
            await asyncio.wait([up])
        return True

    def _can_try_anew(self, far: Server, answer: Message) -> bool:
        """Whether a lost request does no harm if it is made twice (RFC 9110 section 9.2.2)."""
        head = self._request.head
        safe = head is not None and head.method in SAFE and self._request.over
        return far.is_reused and safe and not answer.is_begun and not self._near.transport.is_closing()

    async def _send_request(self, far: Server, first: bytes) -> None:
        try:
            await far.write(first)
            while data := await self._near.read():
                if self._request.over:
                    self._request.rest += data  # The next request came before this one was answered.
                    return
                await far.write(self._feed_request(data))
            self._end(far)
        except HandshakeFailure as failure:
            self._fault = failure
            far.transport.abort()
        except OSError:
            pass  # The server takes no more; what it says of that is passed on.

    def _end(self, far: Server) -> None:
        """Pass on that the client sends no more: it may have left, and the server decides what that means."""
        self._ended = True
        far.end()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time() + self._patience)

    @property
    def _patience(self) -> float:
        return self._onward.timeouts.answer

    async def _send_answer(self, far: Server, answer: Message) -> None:
        while not answer.over:
            async with asyncio.timeout(self._patience if self._ended else None) as self._waiting:
                data = await far.read()
            await asyncio.sleep(0)  # However fast it comes, others have their turn.
            try:
                passed = answer.feed(data)
            except h11.RemoteProtocolError as exc:
                raise self._failed(answer, f"{self._target} did not answer in HTTP/1.1") from exc
            await self._near.write(passed)
            if not data and not answer.over:
                raise self._failed(answer, f"{self._target} closed the connection without an answer")

    def _failed(self, answer: Message, why: str) -> Exception:
        if answer.is_begun:
            return ConnectionResetError(why)
        return self._fault or HandshakeFailure(502, why)

    async def _part(self, far: Server) -> None:
        """Leave the connections as the messages have it."""
        assert self._answer is not None
        answer, near = self._answer, self._near
        if answer.switched:
            await self._step_aside(far, answer)
        elif self._request.keeps_alive and answer.keeps_alive and not self._ended:
            rest = self._request.rest + await near.leave()
            self._far, self._settled = None, True
            far.is_reused = True
            far.unread += len(answer.rest)  # An answer to nothing: it is not used again.
            self._wire.look_again(self._then, rest, far)
        else:
            self._linger(b"")

    async def _step_aside(self, far: Server, answer: Message) -> None:
        if self._ended:
            return  # Who sends no more can take part in no WebSocket.
        relay, near = self._onward.new_relay(), self._near
        down = answer.rest + await far.leave()
        up = self._request.rest + await near.leave()
        self._far, self._settled = None, True
        relay.far.lost = far.lost
        relay.far.take(far.transport)
        relay.attach(near.transport, near.lost)
        relay.near.give(down)
        relay.far.give(up)
        if not near.transport.is_closing():
            near.transport.resume_reading()

    def _refuse(self, failure: HandshakeFailure) -> None:
        self._onward.note_failure(self._target, failure)
        self._linger(refusal(failure.status, failure.reason))

    def _linger(self, data: bytes) -> None:
        if not self._near.transport.is_closing():
            self._settled = True
            near, patience = self._near, self._onward.timeouts.close
            Linger(near.transport, data, patience, near.lost, ended=near.ended)

    def _clean_up(self, task: asyncio.Task[None]) -> None:
        if not self._settled:
            self._near.close()
        if self._far is not None:
            self._far.close()


def _check_framing(request: Request) -> None:
    """Check that nobody could read another length of the body than we do (RFC 9112 section 11.2).

    Raises:
        HandshakeFailure: 400; 505 a version that we cannot pass on.
    """
    lengths, codings = request.values("content-length"), request.values("transfer-encoding")
    if request.version not in ((1, 0), (1, 1)):
        raise HandshakeFailure(505, "this host passes HTTP/1.1 and HTTP/1.0 on")
    if len(lengths) > 1 or (lengths and codings) or not all(map(NUMBER.fullmatch, lengths)):
        raise HandshakeFailure(400, "the request says in two ways, or in none, how long its body is")
    if codings and ([coding.lower() for coding in codings] != ["chunked"] or request.version != (1, 1)):
        raise HandshakeFailure(400, "the one transfer coding of a request is chunked, in HTTP/1.1")
    if len(request.values("host")) > 1:
        raise HandshakeFailure(400, "the request has more than one Host field")


def _as_sent(request: h11.Request) -> h11.Request:
    """Return a request as h11 sends one; of its version the answer does not depend."""
    headers = list(request.headers)
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", b""))
    return h11.Request(method=request.method, target=request.target, headers=headers)
