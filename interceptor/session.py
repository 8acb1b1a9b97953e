"""One intercepted WebSocket, from its request to its end: the only place where wire and program meet.

    CONNECTING ──► OPEN ──► CLOSING ──► CLOSED
         └───────────────────────────────►┘

Events go up through the socket's lane, in order; what the program sends goes down to the connection.
A session is exactly one of: opened (and later one 843), denied by the program, failed (one 844).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Literal, Protocol, Self

from . import log
from .answering import agree, own_subprotocol, program_answer, usual_answer
from .clock import Timer
from .config import Settings
from .connection import Connection, End
from .dispatch import Dispatcher, Lane
from .events import (
    EVENTS,
    Named,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
    close_event,
    receive_event,
    upgrade_event,
)
from .exceptions import (
    HandshakeFailure,
    InvalidAnswer,
    InvalidState,
    SocketClosed,
    UnknownSocket,
)
from .handshake import Answer, Offer, Request, refusal
from .inbox import Inbox
from .outgoing import Outgoing
from .patterns import URL, Mode, Rule
from .payload import Data, check_close
from .state import MOVES, State
from .stream import Then

__all__ = ["Home", "Session", "Wire", "new_id"]

EVERY_EVENT = frozenset(EVENTS)

_counter = itertools.count()


class Home(Protocol):
    """What a session needs of its host."""

    @property
    def object(self) -> Named:
        """The object that events come from."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Delivers the events."""

    @property
    def settings(self) -> Settings:
        """What the host was told."""

    def session_promised(self, session: Session) -> None:
        """Learn, on another thread than the loop's, that a socket was answered and will be open."""

    @property
    def complaints(self) -> log.Seldom:
        """Warnings of what strangers do."""

    def session_opened(self, session: Session) -> None:
        """Learn that a socket is open."""

    def session_over(self, session: Session) -> None:
        """Learn that nothing more comes of a session."""

    def failure_begun(self, admitted: bool) -> None:
        """Learn of a failed upgrade that the program is not told of yet; whether it had been let in."""

    def failure_told(self, session: Session, admitted: bool) -> None:
        """Learn that the program was told of a failed upgrade."""


class Wire(Protocol):
    """What a session needs of the way in: the TCP connection that the request came on."""

    def switch(self, answer: bytes, take: Callable[[asyncio.Transport, Callable[[], None]], object]) -> bytes:
        """Send the answer, hand the transport over, and return the bytes that came and were not read."""

    def finish(self, answer: bytes) -> None:
        """Send a last answer, or none, and close."""


def new_id() -> str:
    """Return 15 hexadecimal digits: 32 secure random bits and a counter, so that no ID comes twice."""
    return f"{secrets.randbits(32):08x}{next(_counter) & 0xFFFFFFF:07x}"


class Session:
    """A WebSocket whose other end is the program.

    Attributes:
        id: 15 hexadecimal digits.
        url: the URL the page asked for, in normal form.
        mode: AUTO where the host made its handshake, MANUAL where the program did.
        origin: Origin of the page, None where a program connects.
        subprotocol: the one agreed on, or None.
        extensions: value of Sec-WebSocket-Extensions in the answer, possibly empty.
        state: CONNECTING, OPEN, CLOSING, CLOSED.
        close_code: as in WebSocketClose; None while the socket has not ended.
        close_reason: as in WebSocketClose; empty while the socket has not ended.
        ended: done once the socket has ended on the wire, or its upgrade failed.
        is_refused: whether the answer is known, and is none that opens the socket.
        outgoing: how the host sends; a program has `send` and `host.WebSocketSend`.
    """

    def __init__(self, home: Home, rule: Rule, url: URL, request: Request, wire: Wire) -> None:
        self.id = new_id()
        self.url = url
        self.mode = rule.mode
        self.origin = request.value("origin")
        self.subprotocol: str | None = None
        self.extensions = ""
        self.state = State.CONNECTING
        self.close_code: int | None = None
        self.close_reason = ""
        self._home = home
        self._object = home.object
        self._dispatcher = home.dispatcher
        self._rule = rule
        self._head = request.head
        self._wire: Wire | None = wire
        self._offer: Offer | None = None
        self._usual = ""
        self._connection: Connection | None = None
        self._lane = Lane(home.dispatcher, self.id, url, home.settings.limits.read_buffer, self._hold)
        self._inbox: Inbox | None = None
        self.outgoing = Outgoing(home.dispatcher, home.settings.limits.write_buffer)
        self._answer_given = False
        self.is_refused = False
        self._given_up = False
        self._wire_gone = False
        self._patience: Timer | None = None
        self.ended: asyncio.Future[None] = home.dispatcher.loop.create_future()

    # For the program.

    @property
    def buffered_amount(self) -> int:
        """Bytes sent that the operating system has not taken yet, frame heads included.

        What other threads sent counts from their call on, each message for 256 bytes more until the loop
        has it.
        """
        connection = self._connection  # Another thread may ask while it ends.
        return 0 if connection is None else connection.buffered_amount + self.outgoing.crossing_bytes

    async def send(self, data: Data, *, fin: bool = True, opcode: int | None = None) -> None:
        """Send a message, or a piece of one, and wait until the connection can take more.

        Args:
            data: text as str, binary as bytes-like or as integers -128..255.
            fin: False if more pieces of this message follow.
            opcode: 1 text or 2 binary where the type of `data` does not say it.

        Raises:
            SocketClosed: the socket is not open.
            InvalidArgument, UnsupportedType: the data cannot be sent.
            InvalidState: not on the host's loop, as for all that is awaited here.
        """
        self._dispatcher.check_here("socket.send()")
        connection = self._connection
        if self.state is not State.OPEN or connection is None:
            raise self._closed()
        self.send_soon(data, fin, opcode)
        await self.outgoing.arrived()
        await connection.drain()

    async def receive(self) -> str | bytes:
        """Wait for the next message. Messages are kept from the first call on (on a route, all of them).

        Raises:
            SocketClosed: the socket has ended and all its messages were taken.
            InvalidState: called in a callback of this very socket, whose messages wait for its return.
        """
        self._dispatcher.check_here("socket.receive()")
        if not self._inbox and self._in_callback():
            raise InvalidState(
                "a callback waits here for messages that wait for the callback to return; "
                "use host.route() or asyncio.create_task()"
            )
        event = await self._open_inbox().take()
        if event is None:
            raise self._closed()
        return event.data

    # No generator: where one is let go before its end, uvloop's debug mode crashes Python 3.12 and newer.
    def __aiter__(self) -> Self:
        """Give the messages as they come; ends when the socket has ended, see `close_code`."""
        return self

    async def __anext__(self) -> str | bytes:
        """Wait for the next message as `receive` does, or for the end."""
        try:
            return await self.receive()
        except SocketClosed:
            raise StopAsyncIteration from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket and wait until it has ended; without effect if it has.

        Messages that have not come yet are not kept for `receive` any more. In a callback of this very
        socket it does not wait: the end would wait for the callback.

        Raises:
            InvalidArgument: the code is not 1000 or 3000-4999, or the reason is over 123 bytes of UTF-8.
            UnsupportedType: the code is no integer, or the reason no str.
        """
        check_close(code, reason)
        self._dispatcher.check_here("socket.close()")
        self._dispatcher.run(self.close_soon, code, reason)
        if self._inbox is not None:
            self._inbox.close()
        if not self._in_callback():
            await asyncio.shield(self.ended)

    async def ping(self) -> float:
        """Send a ping and return the seconds until its pong.

        Raises:
            SocketClosed: the socket is not open, or ended first.
            TimeoutError: no pong within `Timeouts.pong`.
        """
        self._dispatcher.check_here("socket.ping()")
        connection = self._connection
        if self.state is not State.OPEN or connection is None:
            raise self._closed()
        start = time.perf_counter()
        async with asyncio.timeout(self._home.settings.timeouts.pong):
            await connection.ping(secrets.token_bytes(8))
        if connection.end is not None:
            raise self._closed()
        return time.perf_counter() - start

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state.name} {self.url}>"

    # For the host: sends down.

    def send_soon(self, data: Data, fin: bool = True, opcode: int | None = None) -> None:
        """Send without waiting. What the peer will not read any more is dropped.

        Raises:
            UnknownSocket: the program has closed this socket, or it is not open yet.
            InvalidArgument, UnsupportedType: the data cannot be sent.
        """
        if self.state is not State.OPEN or self._given_up:
            self._check_open()
        self.outgoing.send(data, fin, opcode)

    @property
    def is_usable(self) -> bool:
        """Whether the socket is open, and the program's."""
        return self.state is State.OPEN and not self._given_up

    def give_up(self) -> None:
        """Note, on whichever thread, that the program closes the socket: it is not the program's any more.

        Raises:
            UnknownSocket: the program has closed it before, or it is not open.
        """
        self._check_open()
        self._given_up = True

    def _check_open(self) -> None:
        """Check that the program may use the ID.

        The peer may have closed or vanished without the program's knowing: that is no error before its
        WebSocketClose is reported. One that is CONNECTING still was answered on another thread.
        """
        if self._given_up:
            raise UnknownSocket(self.id, "the program has closed this socket")
        if self.state is State.CLOSING and not self._wire_gone:
            raise UnknownSocket(self.id, f"the socket is {self.state.name}, not open")
        last = WebSocketClose if self._connection else WebSocketError
        if self.state is State.CLOSED and isinstance(self._lane.current, last):
            raise UnknownSocket(self.id, "the socket has ended")

    def close_soon(self, code: int, reason: str = "") -> None:
        """Start the closing handshake if the socket is open; on the loop's thread."""
        if self.state is State.OPEN:
            self._move(State.CLOSING)
        if self._connection is not None:
            self._connection.close(code, reason)

    def abort(self, why: str) -> None:
        """Drop the connection now."""
        if self._connection is not None:
            self._connection.abort(why)

    # For the way in: the handshake.

    def start(self, offer: Offer) -> None:
        """Answer the request (automatic), or have the program answer it (manual)."""
        self._offer = offer
        if self.mode is Mode.AUTO:
            listed = (*self._rule.subprotocols, *self._home.settings.subprotocols)
            self._open(usual_answer(offer, agree(offer, self._home.settings.compression, listed)))
            return
        if not self._dispatcher.callbacks[WebSocketUpgrade]:
            self.fail(
                HandshakeFailure(500, "the program has no answer"),
                "no callback for WebSocketUpgrade, which a manual rule needs; "
                'register one with host.on("WebSocketUpgrade")',
            )
            return
        patience = self._home.settings.timeouts.answer
        self._patience = self._dispatcher.clock.after(patience, self._answer_timed_out)
        agreed = agree(offer, self._home.settings.compression)
        self._usual = usual_answer(offer, agreed).data.decode("ascii")
        self._lane.put(self._upgrade_event("manual", agreed.header, self._usual), self._answered)

    def answer(self, message: object) -> bool:
        """Take the program's answer, an event or its vector, on any thread; False if there was one before.

        What is called next on the same thread comes after it. One that is not valid fails the upgrade.
        """
        offer = self._offer
        if offer is None:
            return False
        try:
            answer = program_answer(message, self.id, offer, self._usual, self._home.settings.compression)
        except InvalidAnswer as exc:
            failure = HandshakeFailure(500, "the program's answer is not valid")
            return self._settle(False, self.fail, failure, f"the answer is not valid: {exc}")
        return self._settle(answer.accepted is not None, self._send_answer, answer)

    def _settle(self, opens: bool, function: Callable[..., None], *args: object) -> bool:
        """Call a function on the loop's thread, unless the upgrade has its answer already."""
        dispatcher = self._dispatcher
        with dispatcher.changing:
            if self._answer_given or self.state is not State.CONNECTING:
                return False
            self._answer_given = True
            self.is_refused = not opens
            if not dispatcher.is_here:
                if opens:
                    self._home.session_promised(self)
                # Within the lock: nobody may send by this ID before the answer is on its way.
                dispatcher.run(function, *args)
                return True
        function(*args)  # Outside of it: this may call the program.
        return True

    def _send_answer(self, answer: Answer) -> None:
        if self.state is not State.CONNECTING:
            return  # It came too late, which is nobody's fault.
        if answer.accepted is not None:
            self._open(answer)
        else:
            self._over()
            self._finish(answer.data)
            log.info("denied", id=self.id, url=self.url, status=answer.status)

    def fail(self, failure: HandshakeFailure, text: str = "", *, logged: bool = False) -> None:
        """Refuse the request and report one WebSocketError, unless the session is already over.

        Args:
            failure: what to tell the client.
            text: what to tell the program, if it differs.
            logged: whether the log has it already.
        """
        if self.state is not State.CONNECTING:
            return
        self._over()
        self._finish(refusal(failure.status, failure.reason, failure.headers))
        self._report_failure(text or failure.reason, failure.status, logged)

    def client_gone(self) -> None:
        """The client left before it was answered."""
        if self.state is State.CONNECTING:
            self._over()
            self._finish(b"")
            self._report_failure("the client went away before it was answered", None, False)

    def _answered(self, result: object) -> None:
        """Take what the callbacks made of the upgrade; on the thread where they ran."""
        with suppress(InvalidState):  # The loop has ended, and with it who asked.
            if isinstance(result, BaseException):
                failure = HandshakeFailure(500, "the program failed")
                fail = partial(self.fail, logged=True)
                self._settle(False, fail, failure, f"the callback raised {result!r}")
            elif result is not None:  # Else host.answer() came first, or will come.
                self.answer(result)

    def _ignore_answer(self, event: WebSocketUpgrade, result: object) -> None:
        if isinstance(result, WebSocketUpgrade) and result.headers != event.headers:
            self.logger.warning(
                "an answer was ignored: the rule is automatic (mode 1) and the socket is open; "
                "a manual rule (mode 2) asks the callback first"
            )

    def _answer_timed_out(self) -> None:
        if self._answer_given:
            with self._dispatcher.changing:
                """Another thread that is giving it has put it on its way, or was ended by an exception."""
        patience = self._home.settings.timeouts.answer
        self._dispatcher.run(  # After an answer that is on its way.
            self.fail,
            HandshakeFailure(504, "the program did not answer in time"),
            f"timed out: no answer to the upgrade within {patience} s (Timeouts.answer); a callback "
            "returns its answer (return event.accept()), or host.answer(event.id, ...) gives it",
        )

    def _open(self, answer: Answer) -> None:
        assert answer.accepted is not None
        self._stop_patience()
        self.subprotocol = own_subprotocol(answer.accepted.subprotocol)
        self.extensions = answer.accepted.header
        self._move(State.OPEN)
        extensions = answer.accepted.extensions

        def connect(transport: asyncio.Transport, lost: Callable[[], None]) -> Connection:
            self._connection = self.outgoing.connection = Connection(
                transport,
                self,
                extensions=extensions,
                limits=self._home.settings.limits,
                timeouts=self._home.settings.timeouts,
                chunks=self._home.settings.chunks if self._rule.chunks is None else self._rule.chunks,
                lost=lost,
                clock=self._dispatcher.clock,
            )
            return self._connection

        wire, self._wire = self._wire, None
        assert wire is not None
        rest = wire.switch(answer.data, connect)
        self._home.session_opened(self)
        log.info("opened", id=self.id, url=self.url, mode=self.mode.name)
        if self._rule.handler is not None:
            self._open_inbox()
            self._lane.claimed |= EVERY_EVENT
        if self.mode is Mode.AUTO:
            event = self._upgrade_event("auto")
            self._lane.put(event, lambda result: self._ignore_answer(event, result))
        self._forget_request()
        if self._rule.handler is not None:
            self._dispatcher.spawn(self._route())
        if rest and self._connection is not None:
            self._connection.data_received(rest)

    def _upgrade_event(
        self, kind: Literal["auto", "manual"], extensions: str = "", usual: str = ""
    ) -> WebSocketUpgrade:
        head = self._head.decode("latin-1")
        return upgrade_event(self._object, self.id, self.url, head, kind, extensions, usual)

    # From the connection: events up.

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        """Report a message; called by the connection."""
        event = receive_event(self._object, self.id, data, fin, datatype)
        if self._inbox is None:
            self._lane.put(event)
        else:
            self._inbox.put(event)

    def connection_ending(self) -> None:
        """The wire takes nothing more, but messages are still to be reported; called by the connection."""
        self._wire_gone = True
        if self.state is State.OPEN:
            self._move(State.CLOSING)

    def connection_ended(self, end: End) -> None:
        """Report the end; called by the connection."""
        self.close_code, self.close_reason = end.code, end.reason
        self._move(State.CLOSED)
        self.ended.set_result(None)
        if self._inbox is not None:
            self._inbox.end()
        if end.fault:
            self.logger.warning("ended abnormally", fault=end.fault)
            self._put_error(end.fault)
        event = close_event(self._object, self.id, end.code, end.reason, end.was_clean, end.initiator)
        self._lane.put(event, lambda _: self._let_go())
        log.info("closed", id=self.id, url=self.url, code=end.code, initiator=end.initiator)

    def _report_failure(self, text: str, status: int | None, logged: bool) -> None:
        if not logged:
            self._home.complaints.warning(
                "handshake failed", id=self.id, url=self.url, why=text, status=status
            )
        self._lane.skip(text)
        # It waits with nothing but its lane: there may be many, from anybody.
        admitted = self._offer is not None
        self._forget_request()
        self._home.failure_begun(admitted)
        self._put_error(text, lambda _: self._home.failure_told(self, admitted))

    def _put_error(self, text: str, then: Then | None = None) -> None:
        event = WebSocketError(object=self._object, id=self.id, text=text, url=self.url)
        self._lane.put(event, then)

    # Inside.

    @property
    def logger(self) -> log.Logger:
        """A logger that carries the ID and the URL."""
        return log.get_logger(id=self.id, url=self.url)

    def _move(self, state: State) -> None:
        assert state in MOVES[self.state], f"{self.state} to {state}"
        self.state = state

    def _over(self) -> None:
        """End a session that never opened."""
        self._stop_patience()
        with self._dispatcher.changing:  # Another thread may be answering.
            self._move(State.CLOSED)
        self.ended.set_result(None)
        self._let_go()

    def _let_go(self) -> None:
        """Nothing more comes: leave no circle, which only the garbage collector would find, minutes later."""
        self._home.session_over(self)
        self._lane.let_go()
        self._connection = self.outgoing.connection = None

    def _finish(self, answer: bytes) -> None:
        """Say the last word to a client whose socket never opens."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.finish(answer)

    def _forget_request(self) -> None:
        self._head = b""
        self._offer = None
        self._usual = ""

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _in_callback(self) -> bool:
        return self._lane.task is not None and asyncio.current_task() is self._lane.task

    def _hold(self, held: bool) -> None:
        if self._connection is not None:
            self._connection.hold(held)

    def _closed(self) -> SocketClosed:
        return SocketClosed(self.close_code or 1006, self.close_reason)

    def _open_inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self._lane)
            self._lane.claimed |= {WebSocketReceive}
            if self.state is State.CLOSED:
                self._inbox.end()
        return self._inbox

    async def _route(self) -> None:
        """Run the route's handler; the socket lives as long as it does."""
        assert self._rule.handler is not None
        code = 1000
        try:
            await self._rule.handler(self)
        except (Exception, asyncio.CancelledError) as exc:
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # The host is stopped.
            # That the peer left while the handler waited on it is no error.
            if not isinstance(exc, SocketClosed) or self.state is State.OPEN:
                code = 1011
                self.logger.error("route handler raised", exc_info=exc)
        finally:
            self._open_inbox().clear()
            self.close_soon(code)
