"""The program as a server of pages: a request becomes an HTTPRequest, and its callback's result an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol

from .. import log
from ..config import Settings
from ..dispatch import Dispatcher, Lane
from ..events import Event, HTTPRequest, Named
from ..exceptions import HandshakeFailure, InterceptorError, InvalidAnswer, InvalidArgument
from ..handshake import Request
from ..heads import field_lines
from ..patterns import URL
from .visit import Response

__all__ = ["Program"]

FRAMING = frozenset(("connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"))
"""Fields that are the host's own business."""

TEXTUAL = ("text/", "application/x-www-form-urlencoded", "application/json")
NOTHING = "no callback for HTTPRequest answers this URL"


class Home(Protocol):
    """What is asked for the program."""

    @property
    def object(self) -> Named:
        """The host."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Delivers events."""

    @property
    def settings(self) -> Settings:
        """What the host was told."""

    def check_program(self) -> None:
        """Check that the program can be asked.

        Raises:
            HandshakeFailure: 503.
        """


class Program:
    """Asks the program for pages.

    Args:
        home: the host.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._asked = 0

    @property
    def has_callback(self) -> bool:
        """Whether the program has a callback for HTTPRequest."""
        return bool(self._home.dispatcher.callbacks[HTTPRequest])

    async def ask(self, request: Request, url: URL, body: bytearray, gone: asyncio.Future[None]) -> object:
        """Return what the callbacks made of a request, for `read`; None where none returned anything.

        Args:
            request: its head.
            url: what it asks for.
            body: emptied, so that it is not held twice.
            gone: done when the client has left.

        Raises:
            HandshakeFailure: 500 the program failed, 503 it cannot be asked, 504 it did not answer in time.
            ConnectionError: the client left before the program took the request.
        """
        result = await self._result(self._event(request, url, body), gone)
        if isinstance(result, BaseException):
            raise HandshakeFailure(500, "the program failed")
        return result

    def read(self, result: object, request: Request, url: URL) -> Response | None:
        """Return the program's answer to a request; None where it is not the program's.

        Raises:
            HandshakeFailure: 500, the answer cannot be sent.
        """
        if result is None:
            return None
        try:
            return _read(result, request)
        except InterceptorError as exc:
            log.get_logger(url=url).error("the answer to an HTTPRequest is not valid", why=str(exc))
            raise HandshakeFailure(500, "the program's answer is not valid") from exc

    async def _result(self, event: HTTPRequest, gone: asyncio.Future[None]) -> object:
        """Return what the callbacks made of an event; one that nobody waits for any more is not kept."""
        patience = self._home.settings.timeouts.answer
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        lane = self._lane(event, answered)

        def withdraw(_: object) -> None:
            if lane.withdraw():
                self._asked -= 1
                if not answered.done():
                    answered.set_exception(ConnectionResetError("the client left"))

        gone.add_done_callback(withdraw)
        try:
            async with asyncio.timeout(patience):
                return await answered
        except TimeoutError as exc:
            lane.skip("the client was told that there is no answer")
            withdraw(None)
            why = f"the program did not answer within {patience} s (Timeouts.answer)"
            log.get_logger(url=event.url).error("no answer to an HTTPRequest in time", seconds=patience)
            raise HandshakeFailure(504, why) from exc
        finally:
            gone.remove_done_callback(withdraw)

    def _lane(self, event: HTTPRequest, answered: asyncio.Future[object]) -> Lane:
        home = self._home
        home.check_program()
        if self._asked >= home.settings.limits.pending:
            raise HandshakeFailure(503, f"{self._asked} requests wait for the program (Limits.pending)")
        self._asked += 1

        def settle(result: object) -> None:
            self._asked -= 1
            if not answered.done():
                answered.set_result(result)

        lane = Lane(home.dispatcher, event.id, event.url, home.settings.limits.read_buffer, _hold)
        lane.put(event, settle)
        return lane

    def _event(self, request: Request, url: URL, body: bytearray) -> HTTPRequest:
        return HTTPRequest(
            object=self._home.object,
            url=url,
            headers=request.head.decode("latin-1"),
            body=_text(request.value("content-type") or "", body),
            method=request.method,
        )


def _hold(held: bool) -> None:
    """One event fills no lane."""


def _text(mime: str, body: bytearray) -> str | bytes:
    """Return a body as text where it says that it is, and is; empty it."""
    text: str | bytes | None = None
    if not body or mime.lower().startswith(TEXTUAL):
        with suppress(UnicodeDecodeError):
            text = body.decode()
    if text is None:
        text = bytes(body)
    body.clear()
    return text


def _read(message: object, request: Request) -> Response | None:
    """Read what a callback returned: the event, or its vector.

    Raises:
        InterceptorError: it cannot be sent.
    """
    event = _event_of(message)
    if not event.handle:
        return None
    status = event.status or 200
    if not 200 <= status <= 599:
        raise InvalidAnswer(f"Status is {status}; an answer has 200 to 599")
    body = event.body if isinstance(event.body, bytes) else _encoded(event.body)
    if body and status in (204, 304):
        raise InvalidAnswer(f"an answer of status {status} has no body, and this one has {len(body)} bytes")
    fields = _fields(event.headers, request)
    if body and not any(name.lower() == "content-type" for name, _ in fields):
        fields.insert(0, ("Content-Type", _mime(event).strip(" \t")))
    field_lines(fields)
    return Response(status, _phrase(event), fields, body)


def _encoded(body: str) -> bytes:
    try:
        return body.encode()
    except UnicodeEncodeError as exc:
        raise InvalidAnswer(
            f"Body has half a surrogate pair at {exc.start}, {body[exc.start]!r}, which UTF-8 has not"
        ) from exc


def _event_of(message: object) -> HTTPRequest:
    if isinstance(message, HTTPRequest):
        return message
    if isinstance(message, Sequence) and not isinstance(message, str | bytes):
        return _read_vector(message)
    what = message.event if isinstance(message, Event) else type(message).__name__
    raise InvalidAnswer(
        f"the callback returned {what}; return event.respond(...), the event's vector with Handle 1, or None"
    )


def _read_vector(message: Sequence[object]) -> HTTPRequest:
    try:
        return HTTPRequest.from_message(message)
    except InvalidArgument as exc:
        raise InvalidAnswer(
            f"{type(message).__name__} is read as an event message: {exc}; return event.respond(body, status)"
        ) from exc


def _fields(text: str, request: Request) -> list[tuple[str, str]]:
    if text == request.head.decode("latin-1"):
        return []  # The request's own, which the callback left as they were.
    fields = []
    for line in text.replace("\r\n", "\n").rstrip("\n").split("\n"):
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise InvalidAnswer(f"a line of Headers is {line[:80]!r}; each is: name, colon, value")
            if name.lower() in FRAMING:
                raise InvalidAnswer(f"Headers has {name}, which the host writes itself; leave it out")
            fields.append((name, value.strip(" \t")))
    return fields


def _mime(event: HTTPRequest) -> str:
    if not event.mime:
        return "text/html; charset=utf-8" if isinstance(event.body, str) else "application/octet-stream"
    if isinstance(event.body, str) and event.mime.startswith("text/") and ";" not in event.mime:
        return f"{event.mime}; charset=utf-8"
    return event.mime


def _phrase(event: HTTPRequest) -> str:
    if event.status_text:
        if not (event.status_text.isascii() and event.status_text.isprintable()):
            raise InvalidAnswer(f"Message is {event.status_text[:80]!r}; a status has one line of ASCII")
        return event.status_text
    try:
        return HTTPStatus(event.status or 200).phrase
    except ValueError:
        return ""
