"""Every error that this package raises, each with whose fault it is.

InterceptorError
├── the program's fault
│   ├── InvalidArgument (ValueError)      a value that cannot be used; says what would be right
│   │   ├── InvalidRule                   a row of InterceptedURLs
│   │   ├── UnknownEvent                  a name or number that is no event
│   │   └── InvalidAnswer                 a handshake answer that must not be sent
│   ├── UnsupportedType (TypeError)       an object of a type that cannot be used
│   │   └── InvalidHandler                a callback that could not be called
│   ├── UnknownSocket (LookupError)       an ID that is not open (any more)
│   ├── InvalidState (RuntimeError)       the right call at the wrong time
│   └── DOMException                      what a browser throws; its name says which
└── the other end's doing
    ├── HandshakeFailure                  a request that is refused, with the status to answer
    ├── ConnectFailure                    a WebSocket of ours that could not be opened
    └── SocketClosed                      the socket ended while the program waited on it
"""

from __future__ import annotations

__all__ = [
    "ConnectFailure",
    "DOMException",
    "HandshakeFailure",
    "InterceptorError",
    "InvalidAnswer",
    "InvalidArgument",
    "InvalidHandler",
    "InvalidRule",
    "InvalidState",
    "SocketClosed",
    "UnknownEvent",
    "UnknownSocket",
    "UnsupportedType",
]


class InterceptorError(Exception):
    """The base of all errors of this package."""


class InvalidArgument(InterceptorError, ValueError):
    """A value cannot be used; the message names it and what would be right."""


class InvalidRule(InvalidArgument):
    """A row of InterceptedURLs cannot be used.

    Attributes:
        row: index of the row in the table as it was given, from 0.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message if row is None else f"row {row} of InterceptedURLs: {message}")
        self.row = row


class UnknownEvent(InvalidArgument):
    """A name, number or class stands for no event."""


class InvalidAnswer(InvalidArgument):
    """A handshake answer must not be sent; the message says what is wrong and what would be right."""


class UnsupportedType(InterceptorError, TypeError):
    """An object is of a type that cannot be used here."""


class InvalidHandler(UnsupportedType):
    """A callback cannot be called with one event (or, for a route, one socket)."""


class UnknownSocket(InterceptorError, LookupError):
    """An ID is not open: never given out, closed by the program, or ended.

    Attributes:
        id: the ID as it was given.
    """

    def __init__(self, id: str, why: str = "no open socket has this ID") -> None:
        if not isinstance(id, str):
            why = f"an ID is a str, not {type(id).__name__}; pass event.id, or socket.id"
        super().__init__(f"{id!r:.80}: {why}")
        self.id = id


class InvalidState(InterceptorError, RuntimeError):
    """A call came at the wrong time: before start(), twice, or after stop()."""


class DOMException(InterceptorError):
    """What the WHATWG interface throws (Web IDL section 2.8.1).

    Attributes:
        message: what was wrong and what would be right.
        name: the standard's, such as `SyntaxError`; no class of Python's is meant.
    """

    def __init__(self, message: str = "", name: str = "Error") -> None:
        super().__init__(message, name)
        self.message = message
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class ConnectFailure(InterceptorError):
    """A WebSocket of ours to another server could not be opened.

    Attributes:
        rule: the one that decided, by its short name in `interceptor.client.explain`.
        reason: what was wrong and what would be right, in plain words.
        field: the header field of the answer that decided, in lower case; empty where none did.
    """

    def __init__(self, rule: str, reason: str, field: str = "") -> None:
        super().__init__(rule, reason, field)
        self.rule = rule
        self.reason = reason
        self.field = field

    def __str__(self) -> str:
        return self.reason


class HandshakeFailure(InterceptorError):
    """A request cannot become a WebSocket; the answer says why.

    Attributes:
        status: HTTP status to answer with.
        reason: what was wrong and what would be right, in plain words.
        headers: extra header fields of the answer.
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers


class SocketClosed(InterceptorError):
    """The socket ended before or while the program waited on it.

    Attributes:
        code: close code, as in WebSocketClose (1005 none given, 1006 connection lost).
        reason: close reason, possibly empty.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the socket ended with {code}" + (f" ({reason})" if reason else ""))
        self.code = code
        self.reason = reason
