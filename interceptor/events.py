"""The events of the host, with HTMLRenderer's numbers, names and message vectors.

    number  name              elements of the vector after Object and Event
    840     HTTPRequest       'ProcessRequest', Handle, Status, Message, MIME, URL, Headers, Body, Method
    841     WebSocketUpgrade  ID, URL, Headers, Type
    842     WebSocketReceive  ID, Data, FIN, Datatype
    843     WebSocketClose    ID, Status code, Reason
    844     WebSocketError    ID, Message

An event is a frozen value. `event.message()` gives its vector, `Event.from_message(vector)` reads one;
pydantic reads and writes JSON (`AnyEvent`, `event.model_dump_json()`), where binary data is base64.
"""

from __future__ import annotations

import base64
import builtins
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    SkipValidation,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from .binary import TextOrBytes, from_base64, to_bytes
from .exceptions import InvalidAnswer, InvalidArgument, UnknownEvent, UnsupportedType
from .heads import Fields, Headers, field_lines, final_answer, pairs, switching_answer

__all__ = [
    "EVENTS",
    "AnyEvent",
    "Event",
    "HTTPRequest",
    "Named",
    "WebSocketClose",
    "WebSocketError",
    "WebSocketReceive",
    "WebSocketUpgrade",
    "close_event",
    "event_class",
    "read_event",
    "receive_event",
    "upgrade_event",
]

Vector = list[object]
"""An event as HTMLRenderer has it: `[Object, Event, ...]`."""

ID_PATTERN = r"^[0-9a-f]{15}$"
TOKEN_PREFIX = "interceptor.token."
"""A subprotocol that starts so carries the host's token; it is no subprotocol of the program."""


class Named(Protocol):
    """What an event's `object` is: something with a name, such as a Host."""

    @property
    def name(self) -> str:
        """The name, as it stands in the vector."""


class Event(BaseModel):
    """What all events share: the object they come from, and the two ways to write them.

    Attributes:
        number: the published number of the event.
        object: the host, or its name where the event was read from a vector or from JSON.
    """

    model_config = ConfigDict(
        frozen=True,
        arbitrary_types_allowed=True,
        extra="forbid",
        defer_build=True,  # It takes long, and most events are never validated.
    )

    number: ClassVar[int]
    vector_fields: ClassVar[tuple[str, ...]]

    event: str
    object: Annotated[Named | str, SkipValidation] = Field(repr=False)

    @field_validator("object")
    @classmethod
    def _object_has_name(cls, value: builtins.object) -> builtins.object:
        if isinstance(value, str) or isinstance(getattr(value, "name", None), str):
            return value
        raise ValueError("Object is a name, or something that has one")

    @field_serializer("object")
    def _object_name(self, value: Named | str) -> str:
        return value if isinstance(value, str) else value.name

    def message(self, *, numeric: bool = False) -> Vector:
        """Return the published vector; Event is the name, or the number if `numeric`."""
        values: Vector = [self._object_name(self.object), self.number if numeric else self.event]
        return values + [_to_element(getattr(self, name)) for name in self.vector_fields]

    @classmethod
    def from_message(cls, vector: Sequence[builtins.object]) -> Self:
        """Read a published vector; `Event.from_message` reads any, a subclass its own only.

        Args:
            vector: `[Object, Event, ...]` where Event is a name or a number.

        Raises:
            UnknownEvent: Event is no event of these.
            InvalidArgument: the elements are too many, too few, or not what they should be.
        """
        if isinstance(vector, str | bytes) or not isinstance(vector, Sequence) or len(vector) < 2:
            raise InvalidArgument(f"{vector!r} is no event message; it starts with Object and Event")
        which = event_class(vector[1])
        if not issubclass(which, cls):
            raise UnknownEvent(f"the message is of {which.__name__}, not of {cls.__name__}")
        if len(vector) != 2 + len(which.vector_fields):
            names = ", ".join(("Object", "Event", *which.vector_fields))
            raise InvalidArgument(
                f"a message of {which.__name__} has {2 + len(which.vector_fields)} elements ({names}); "
                f"this one has {len(vector)}"
            )
        values = dict(zip(which.vector_fields, vector[2:], strict=True))
        return which._read(vector[0], values)

    @classmethod
    def _read(cls, object: builtins.object, values: dict[str, Any]) -> Self:
        try:
            return cls.model_validate({"object": object, **values})
        except ValidationError as exc:
            raise InvalidArgument(f"not a valid {cls.__name__} message: {_faults(exc)}") from exc


class HTTPRequest(Event):
    """840: a page or a resource is asked of the host.

    A callback returns the event with the answer in it: by `respond` below, or in the vector with Handle 1.
    `None`, or Handle 0, means: not mine; the client gets a file of `Host(ui=...)`, or 404.

    Attributes:
        id: names the kind of request; always `ProcessRequest`.
        handle: 1 once the program has answered, 0 while it has not.
        status: HTTP status of the answer, 200 to 599; 0 stands for 200.
        status_text: reason phrase of the answer; empty for the usual one.
        mime: media type of the body of the answer; empty for HTML where that is str, for unknown bytes else.
        url: the URL that was asked for, in normal form.
        headers: the request head as received, text with CRLF; in an answer the text of its header fields.
        body: of the request, str where it says that it is text, and is; in an answer its own.
        method: HTTP method of the request.
    """

    number: ClassVar[int] = 840
    vector_fields: ClassVar[tuple[str, ...]] = (
        "id",
        "handle",
        "status",
        "status_text",
        "mime",
        "url",
        "headers",
        "body",
        "method",
    )

    event: Literal["HTTPRequest"] = "HTTPRequest"
    id: Literal["ProcessRequest"] = "ProcessRequest"
    handle: Literal[0, 1] = 0
    status: int = Field(default=0, ge=0, le=599)
    status_text: str = ""
    mime: str = ""
    url: str
    headers: str = Field(default="", repr=False)  # Cookies are in it, and a repr finds its way into logs.
    body: TextOrBytes = ""
    method: str = "GET"

    # What the request says, read from its text.

    def header(self, name: str) -> str | None:
        """Return the value of a header field, several joined by a comma, or None; case does not matter."""
        return Fields(self.headers).value(name)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies sent, by name; of several with one name the first, which is the most specific."""
        return Fields(self.headers).cookies

    def respond(
        self, body: str | bytes = "", status: int = 200, *, mime: str = "", headers: Headers = ()
    ) -> Self:
        """Return a copy of the event that answers it.

        Args:
            body: str goes as UTF-8.
            status: 200 to 599.
            mime: media type of the body; empty for HTML where it is str, for unknown bytes where it is not.
            headers: more header fields, such as Location, as a mapping or as pairs.

        Raises:
            InvalidAnswer: the status, or a field, cannot be sent.
            UnsupportedType: the body is neither str nor bytes, or the headers are no mapping or pairs of str.
        """
        if not _is_final(status):
            raise InvalidAnswer(f"status {status!r} answers nothing; respond(body, status) takes 200 to 599")
        if not isinstance(body, str | bytes | bytearray | memoryview):
            raise UnsupportedType(
                f"the body of respond() is str or bytes, not {type(body).__name__}; for JSON write "
                'event.respond(json.dumps(value), mime="application/json")'
            )
        answer = {
            "handle": 1,
            "status": status,
            "mime": mime,
            "headers": field_lines(pairs(headers)),
            "body": body if isinstance(body, str) else bytes(body),
        }
        return self.model_copy(update=answer)


class WebSocketUpgrade(Event):
    """841: a page opens a WebSocket whose URL matches a rule.

    With type `auto` the connection is open when this is reported. With type `manual` a callback returns
    the event with its Headers replaced by the answer: by `accept`, `deny`, `answer`, `verbatim` or `drop`
    below, or in the vector. `None` means: not answered yet, `host.answer()` will do it.

    Attributes:
        id: ID of the WebSocket, 15 lower-case hexadecimal digits.
        url: the URL asked for, in normal form.
        headers: the request head as received, text with CRLF, request line and empty line included.
            In an answer: text, checked before it is sent; or bytes, sent as they are (none: no answer).
        type: `auto` or `manual`.
    """

    number: ClassVar[int] = 841
    vector_fields: ClassVar[tuple[str, ...]] = ("id", "url", "headers", "type")

    event: Literal["WebSocketUpgrade"] = "WebSocketUpgrade"
    id: str = Field(pattern=ID_PATTERN)
    url: str
    headers: TextOrBytes = Field(repr=False)  # Cookies are in it, and a repr finds its way into logs.
    type: Literal["auto", "manual"]
    _extensions: str = PrivateAttr(default="")
    _usual: str = PrivateAttr(default="")

    # What the request says, read from its text.

    def header(self, name: str) -> str | None:
        """Return the value of a header field, several joined by a comma, or None; case does not matter."""
        return self._fields().value(name)

    @property
    def origin(self) -> str | None:
        """Origin of the page, `"null"` for a page without one, None where a program connects."""
        return self.header("Origin")

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols asked for, in the order of preference."""
        return tuple(name for name in self._fields().subprotocols if not name.startswith(TOKEN_PREFIX))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies sent, by name; of several with one name the first, which is the most specific."""
        return self._fields().cookies

    def _fields(self) -> Fields:
        return Fields("" if isinstance(self.headers, bytes) else self.headers)

    # Answers: each returns a copy of the event with Headers replaced.

    def accept(
        self,
        subprotocol: str | None = None,
        headers: Headers = (),
        *,
        compression: bool = True,
    ) -> Self:
        """Answer with a right 101 (RFC 6455 section 4.2.2).

        Args:
            subprotocol: one of `subprotocols`, or None for none.
            headers: more header fields, such as Set-Cookie, as a mapping or as pairs.
            compression: use permessage-deflate where both sides can.

        Raises:
            InvalidAnswer: the subprotocol was not asked for, a field cannot be sent, or the event holds no
                request with a key.
            UnsupportedType: the headers are no mapping or pairs of str.
        """
        if subprotocol is None and headers == () and compression and (usual := _private(self)["_usual"]):
            return self._replaced(usual)
        request = self._fields()
        keys, asked = request.values("Sec-WebSocket-Key"), request.subprotocols
        if not keys:
            raise InvalidAnswer(
                "this event holds no request with a Sec-WebSocket-Key; answer the one that came"
            )
        if subprotocol is not None and subprotocol not in self.subprotocols:
            listed = ", ".join(self.subprotocols) or "none"
            raise InvalidAnswer(f"subprotocol {subprotocol!r} was not asked for; asked for: {listed}")
        # A browser fails a socket that asked for subprotocols and was given none (WHATWG, 2.2 step 11.2).
        chosen = subprotocol or next((name for name in asked if name.startswith(TOKEN_PREFIX)), None)
        extensions = self._extensions if compression else ""
        return self.answer(switching_answer(keys[0], chosen, extensions, headers))

    def deny(self, status: int = 403, body: str = "", headers: Headers = ()) -> Self:
        """Answer with a final status, 200 to 599, and a body: plain text, unless `headers` have another type.

        Args:
            status: what the client is told.
            body: goes as UTF-8.
            headers: more header fields, such as WWW-Authenticate, as a mapping or as pairs.

        Raises:
            InvalidAnswer: the status is out of range, or a field cannot be sent.
            UnsupportedType: the body is no str, or the headers are no mapping or pairs of str.
        """
        if not _is_final(status):
            raise InvalidAnswer(f"status {status!r} denies nothing; deny(status, body) takes 200 to 599")
        if not isinstance(body, str):
            raise UnsupportedType(f"the body of deny() is text, not {type(body).__name__}")
        return self.answer(final_answer(status, headers, body))

    def answer(self, text: str) -> Self:
        """Answer with raw text: status line, header fields, an empty line, perhaps a body.

        The host checks it before it is sent; what is not valid fails the upgrade, with 500 for the client.

        Raises:
            UnsupportedType: it is no str.
        """
        if not isinstance(text, str):
            raise UnsupportedType(f"answer() takes text, not {type(text).__name__}; bytes go by verbatim()")
        return self._replaced(text)

    def verbatim(self, data: bytes) -> Self:
        """Send these bytes as they are, checked by nobody; for tests of clients.

        Raises:
            UnsupportedType: they are no bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UnsupportedType(f"verbatim() takes bytes, not {type(data).__name__}; text goes by answer()")
        return self._replaced(bytes(data))

    def drop(self) -> Self:
        """Close the TCP connection without an answer."""
        return self._replaced(b"")

    def _replaced(self, headers: str | bytes) -> Self:
        copy = _new(self.__class__)
        copy.__dict__.update(self.__dict__, headers=headers)
        return _finish(copy, {**_private(self), "_usual": ""})


class WebSocketReceive(Event):
    """842: a message came in, or with `chunks=True` a piece of one.

    Attributes:
        id: ID of the WebSocket.
        data: str where datatype is 1 (text), bytes where it is 2 (binary).
        fin: whether this is the whole message or its last piece.
        datatype: 1 text, 2 binary.
    """

    number: ClassVar[int] = 842
    vector_fields: ClassVar[tuple[str, ...]] = ("id", "data", "fin", "datatype")

    event: Literal["WebSocketReceive"] = "WebSocketReceive"
    id: str = Field(pattern=ID_PATTERN)
    data: str | bytes
    fin: bool = True
    datatype: Literal[1, 2]

    @model_validator(mode="before")
    @classmethod
    def _data_from_json(cls, values: object, info: ValidationInfo) -> object:
        if not isinstance(values, dict):
            return values
        data = values.get("data")
        if info.mode == "json" and values.get("datatype") == 2:
            data = from_base64(data)
        return {**values, "data": to_bytes(data)}

    @model_validator(mode="after")
    def _data_fits_datatype(self) -> Self:
        if isinstance(self.data, str) is not (self.datatype == 1):
            raise ValueError("datatype 1 needs text (str), datatype 2 needs bytes")
        return self

    @field_serializer("data", when_used="json")
    def _data_to_json(self, value: str | bytes) -> str:
        return value if isinstance(value, str) else base64.b64encode(value).decode("ascii")


class WebSocketClose(Event):
    """843: the WebSocket has ended, whoever ended it; nothing follows.

    Attributes:
        id: ID of the WebSocket.
        code: the peer's close code, 1005 if it gave none, 1006 if the connection was lost.
        reason: the peer's reason, possibly empty.
        was_clean: whether both sides finished the closing handshake.
        initiator: who began the end: `client`, `host` (the program, or stop()), or `fault`.
    """

    number: ClassVar[int] = 843
    vector_fields: ClassVar[tuple[str, ...]] = ("id", "code", "reason")

    event: Literal["WebSocketClose"] = "WebSocketClose"
    id: str = Field(pattern=ID_PATTERN)
    code: int = Field(ge=0, le=65535)
    reason: str = ""
    was_clean: bool = True
    initiator: Literal["client", "host", "fault"] = "client"


class WebSocketError(Event):
    """844: a handshake failed, or a socket ended abnormally.

    Attributes:
        id: ID of the WebSocket, or the one that the upgrade would have had.
        text: what was wrong and what would be right, in plain words; `Message` in the vector.
        url: of the WebSocket; beyond the published elements, empty in what was read from a vector.
    """

    number: ClassVar[int] = 844
    vector_fields: ClassVar[tuple[str, ...]] = ("id", "text")

    event: Literal["WebSocketError"] = "WebSocketError"
    id: str = Field(pattern=ID_PATTERN)
    text: str
    url: str = ""


AnyEvent = Annotated[
    HTTPRequest | WebSocketUpgrade | WebSocketReceive | WebSocketClose | WebSocketError,
    Discriminator("event"),
]
"""Any event, told apart by its name; for annotations and pydantic's TypeAdapter."""

EVENTS: tuple[type[Event], ...] = (
    HTTPRequest,
    WebSocketUpgrade,
    WebSocketReceive,
    WebSocketClose,
    WebSocketError,
)

_BY_KEY: dict[object, type[Event]] = {
    key: cls for cls in EVENTS for key in (cls, cls.number, cls.__name__, str(cls.number))
}


@cache
def _adapter() -> TypeAdapter[Event]:
    return TypeAdapter(AnyEvent)


def event_class(which: object) -> type[Event]:
    """Return the class of an event given by class, number or name.

    Raises:
        UnknownEvent: `which` is none of these.
    """
    try:
        return _BY_KEY[which]
    except (KeyError, TypeError):
        if callable(which) and not isinstance(which, type):
            raise UnknownEvent(
                f'the event comes first: write @host.on("WebSocketReceive"), not @host.on, before {which!r}'
            ) from None
        known = ", ".join(f"{cls.__name__} ({cls.number})" for cls in EVENTS)
        raise UnknownEvent(f"{which!r} is no event; there are {known}, and 'All'") from None


def read_event(json: str | bytes) -> Event:
    """Read any event from JSON.

    Raises:
        InvalidArgument: the JSON is not an event.
    """
    try:
        return _adapter().validate_json(json)
    except ValidationError as exc:
        raise InvalidArgument(f"not an event: {_faults(exc)}") from exc


# Events that the host makes itself, of parts that are known to be right: the same values as the classes make,
# without their validation, which would be half the cost of a message and a tenth of that of an upgrade.

EventT = TypeVar("EventT", bound=Event)
_FIELDS = {cls: set(cls.model_fields) for cls in EVENTS}  # Shared: events are frozen, nothing adds to it.
_RECEIVE_FIELDS = _FIELDS[WebSocketReceive]
_new = object.__new__
# The slots of a pydantic model, without a look-up by name.
_private: Callable[[BaseModel], dict[str, Any]] = vars(BaseModel)["__pydantic_private__"].__get__
_set_fields, _set_extra, _set_private = (
    vars(BaseModel)[name].__set__
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def upgrade_event(
    host: Named,
    id: str,
    url: str,
    headers: str,
    type: Literal["auto", "manual"],
    extensions: str = "",
    usual: str = "",
) -> WebSocketUpgrade:
    """Make a WebSocketUpgrade of parts that are known to be right.

    `accept` answers with these extensions; without arguments, with the `usual` answer if one is made already.
    """
    event = _new(WebSocketUpgrade)
    name = "WebSocketUpgrade"
    event.__dict__.update(event=name, object=host, id=id, url=url, headers=headers, type=type)
    return _finish(event, {"_extensions": extensions, "_usual": usual})


def close_event(
    host: Named,
    id: str,
    code: int,
    reason: str,
    was_clean: bool,
    initiator: Literal["client", "host", "fault"],
) -> WebSocketClose:
    """Make a WebSocketClose of parts that are known to be right."""
    event = _new(WebSocketClose)
    event.__dict__.update(event="WebSocketClose", object=host, id=id, code=code, reason=reason)
    event.__dict__.update(was_clean=was_clean, initiator=initiator)
    return _finish(event, None)


def _finish(event: EventT, private: dict[str, object] | None) -> EventT:
    _set_fields(event, _FIELDS.get(event.__class__, set()))
    _set_extra(event, None)
    _set_private(event, private)
    return event


def receive_event(
    host: Named, id: str, data: str | bytes, fin: bool, datatype: Literal[1, 2]
) -> WebSocketReceive:
    """Make a WebSocketReceive of parts that are known to be right.

    The same value as the class makes, without its validation, at half the cost: this runs once a message.
    """
    event = _new(WebSocketReceive)
    fields = event.__dict__
    fields["event"] = "WebSocketReceive"
    fields["object"] = host
    fields["id"] = id
    fields["data"] = data
    fields["fin"] = fin
    fields["datatype"] = datatype
    _set_fields(event, _RECEIVE_FIELDS)
    _set_extra(event, None)
    _set_private(event, None)
    return event


def _is_final(status: object) -> bool:
    return isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599


def _to_element(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def _faults(exc: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'message'}: {error['msg']}" for error in exc.errors()
    )
