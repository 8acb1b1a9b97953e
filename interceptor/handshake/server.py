"""The server's side of the opening handshake: split a head from the stream, read it, check it, answer it.

Nothing here touches a transport or a clock: bytes and text in, values and bytes out. A request that must be
refused raises HandshakeFailure with the status to answer; an answer that must not be sent raises
InvalidAnswer. The rules are RFC 9112 (the head), RFC 6455 section 4.2 and RFC 7692 section 7.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import (
    build_extension,
    parse_connection,
    parse_extension,
    parse_subprotocol,
    parse_upgrade,
)
from websockets.typing import ExtensionHeader, ExtensionParameter
from websockets.utils import accept_key

from ..events import TOKEN_PREFIX
from ..exceptions import HandshakeFailure, InvalidAnswer
from ..heads import NAME

__all__ = [
    "Accepted",
    "Answer",
    "HeadReader",
    "Offer",
    "Request",
    "accept",
    "check_body",
    "check_request",
    "choose_extensions",
    "final_answer",
    "read_answer",
    "read_offer",
    "read_request",
    "read_verbatim",
    "refusal",
]

T = TypeVar("T")

METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
STATUS_LINE = re.compile(r"HTTP/1\.1 ([0-9]{3})(?: ([\t -~]*))?")
NO_REASON = re.compile(r"\AHTTP/1\.1 [0-9]{3}(?=\r|\Z)")
FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/1\.1)?")
END_OF_HEAD = re.compile(r"\n\r?\n")
LENGTH = re.compile(r"[0-9]{1,19}")
LONE_LF = re.compile(rb"(?<!\r)\n")
ONCE = ("origin", "sec-websocket-key", "sec-websocket-version", "content-length")
"""Fields that a request must not repeat."""

COOKIES = (
    "; it has cookies, which a browser keeps by address and not by port, so other servers set them too: "
    "clear the cookies of this address in the browser, or raise the limit"
)

DEFLATE = "permessage-deflate"
COMPRESS_SETTINGS = {"level": 4, "memLevel": 4}
"""A tenth faster than zlib's own level, for a twentieth more bytes, which stay on the machine."""

WINDOW_BITS = 11
"""2 KiB windows: under 40 KiB of memory a socket. Small messages that are alike shrink as well as with the
largest ones, long texts to 37 % instead of 28 %."""

FACTORY = ServerPerMessageDeflateFactory(
    server_max_window_bits=WINDOW_BITS,
    client_max_window_bits=WINDOW_BITS,
    compress_settings=COMPRESS_SETTINGS,
)

VERSION_FIELD = (("Sec-WebSocket-Version", "13"),)
UPGRADE_FIELDS = (("Upgrade", "websocket"), *VERSION_FIELD)


class HeadReader:
    """Collects bytes until a request head is complete, within limits.

    Args:
        limit: most bytes of a head, its empty line included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._first = True

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take bytes; return the head (empty line included) and the bytes after it once it is complete.

        Raises:
            HandshakeFailure: the head is over the limit (414 in its first line, else 431), or holds a
                line that ends with a lone LF (400: that is how requests are smuggled).
        """
        start = max(len(self._buffer) - 3, 0)
        self._buffer += data
        self._skip_empty_line()
        end = self._buffer.find(b"\r\n\r\n", start)
        size = end + 4 if end >= 0 else len(self._buffer)
        if LONE_LF.search(self._buffer, start, min(size, self._limit)):
            raise HandshakeFailure(400, "a line of the request ends with a lone LF; lines end with CRLF")
        if size > self._limit:
            raise self._too_long()
        if end < 0:
            return None
        return bytes(self._buffer[:size]), bytes(self._buffer[size:])

    def _skip_empty_line(self) -> None:
        # RFC 9112 section 2.2: a server ignores an empty line before the request line; one, not any number.
        if self._first and len(self._buffer) >= 2:
            self._first = False
            if self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]

    def _too_long(self) -> HandshakeFailure:
        if self._buffer.find(b"\r\n", 0, self._limit) < 0:
            return HandshakeFailure(414, f"the request line is over {self._limit} bytes (Limits.head)")
        remedy = COOKIES if b"\r\ncookie:" in self._buffer[: self._limit].lower() else ""
        return HandshakeFailure(431, f"the request head is over {self._limit} bytes (Limits.head){remedy}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request head, read but not yet judged.

    Attributes:
        head: the bytes as they came, empty line included.
        method: as sent.
        target: as sent; visible ASCII.
        version: HTTP version, such as (1, 1).
        fields: name in lower case and value, in order.
    """

    head: bytes
    method: str
    target: str
    version: tuple[int, int]
    fields: tuple[tuple[str, str], ...]
    _values: dict[str, list[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.fields:
            self._values.setdefault(name, []).append(value)

    def values(self, name: str) -> Sequence[str]:
        """Return the values of a field, by its name in lower case."""
        return self._values.get(name, ())

    def value(self, name: str) -> str | None:
        """Return the first value of a field, by its name in lower case, or None."""
        values = self._values.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a right handshake request asks for.

    Attributes:
        key: Sec-WebSocket-Key.
        subprotocols: in the client's order of preference.
        extensions: name and parameters, in the client's order.
    """

    key: str
    subprotocols: tuple[str, ...]
    extensions: tuple[ExtensionHeader, ...]

    @property
    def token_subprotocol(self) -> str | None:
        """The subprotocol that carries the host's token, if one does."""
        return next((name for name in self.subprotocols if name.startswith(TOKEN_PREFIX)), None)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a right 101 agreed to.

    Attributes:
        subprotocol: the one chosen, or None.
        extensions: for the core, in order.
        header: the value of Sec-WebSocket-Extensions, possibly empty.
    """

    subprotocol: str | None = None
    extensions: tuple[Extension, ...] = ()
    header: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer ready to be sent.

    Attributes:
        data: its bytes.
        status: its status, 0 where bytes are sent verbatim that are no right 101.
        accepted: what it agreed to, None unless it is a right 101.
    """

    data: bytes
    status: int
    accepted: Accepted | None = None


# Requests


def read_request(head: bytes, max_fields: int) -> Request:
    """Read a complete head (RFC 9112 sections 3 and 5).

    Raises:
        HandshakeFailure: 400 malformed, 431 too many fields.
    """
    lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, version = _read_request_line(lines[0])
    if len(lines) - 1 > max_fields:
        count = f"{len(lines) - 1} header fields, over {max_fields} (Limits.fields)"
        raise HandshakeFailure(431, f"the request has {count}")
    return Request(head, method, target, version, tuple(map(_read_field, lines[1:])))


def check_request(request: Request) -> None:
    """Check what every request needs (RFC 9112 sections 2.3 and 3.2, RFC 9110 section 9.1).

    Raises:
        HandshakeFailure: 400 a field repeated or missing, 501 unknown method, 505 unknown HTTP version.
    """
    if request.version != (1, 1):
        raise HandshakeFailure(505, "this host speaks HTTP/1.1 only")
    if request.method not in METHODS:
        raise HandshakeFailure(501, "this host does not know the request method")
    for name in ONCE:
        if len(request.values(name)) > 1:
            raise HandshakeFailure(400, f"the request has more than one {name} field")


def check_body(request: Request) -> None:
    """Check that nobody could read another length of the body than we do (RFC 9112 section 6.1).

    Raises:
        HandshakeFailure: 400.
    """
    length = request.value("content-length")
    if length is not None and not LENGTH.fullmatch(length):
        raise HandshakeFailure(400, "Content-Length is no number")
    if length is not None and request.values("transfer-encoding"):
        # Who stands between may have read another body, with another request in it (request smuggling).
        raise HandshakeFailure(400, "the request has Content-Length and Transfer-Encoding")


def _read_request_line(line: str) -> tuple[str, str, tuple[int, int]]:
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HandshakeFailure(400, "the request line is not: method, space, target, space, HTTP/1.1")
    method, target, major, minor = match.groups()
    return method, target, (int(major), int(minor))


def _read_field(line: str) -> tuple[str, str]:
    match = FIELD.fullmatch(line)
    if match is None:
        raise HandshakeFailure(400, "a header line is not: name, colon, value without control characters")
    return match[1].lower(), match[2].strip(" \t")


def read_offer(request: Request) -> Offer:
    """Check that a request asks for a WebSocket as RFC 6455 section 4.2.1 has it.

    Raises:
        HandshakeFailure: 400, 405, 426 or 501 with what is wrong.
    """
    if request.method != "GET":
        raise HandshakeFailure(405, "a WebSocket is opened with GET", (("Allow", "GET"),))
    _check_no_body(request)
    try:
        _check_upgrade(request)
        subprotocols = _tokens(parse_subprotocol, request.values("sec-websocket-protocol"))
        extensions = _flat(parse_extension, request.values("sec-websocket-extensions"))
    except InvalidHeader as exc:
        raise HandshakeFailure(400, f"the request's {exc.name} field is malformed") from exc
    if len(set(subprotocols)) != len(subprotocols):
        raise HandshakeFailure(400, "Sec-WebSocket-Protocol names a subprotocol twice")
    return Offer(_read_key(request), tuple(subprotocols), tuple(extensions))


def _check_no_body(request: Request) -> None:
    if request.values("transfer-encoding"):
        raise HandshakeFailure(501, "a WebSocket handshake has no body, so no Transfer-Encoding")
    if request.value("content-length") not in (None, "0"):
        raise HandshakeFailure(400, "a WebSocket handshake has no body, so no Content-Length")


def _check_upgrade(request: Request) -> None:
    upgrades = _tokens(parse_upgrade, request.values("upgrade"))
    if "websocket" not in (value.lower() for value in upgrades):
        raise HandshakeFailure(
            426,
            "this address is a WebSocket: the request needs Upgrade: websocket; "
            'in a page, open it with new WebSocket("ws://...")',
            (*UPGRADE_FIELDS, ("Connection", "Upgrade")),
        )
    options = _tokens(parse_connection, request.values("connection"))
    if "upgrade" not in (value.lower() for value in options):
        raise HandshakeFailure(400, "the request needs Connection: Upgrade")
    if request.value("sec-websocket-version") != "13":
        raise HandshakeFailure(426, "the request needs Sec-WebSocket-Version: 13", VERSION_FIELD)


def _read_key(request: Request) -> str:
    key = request.value("sec-websocket-key") or ""
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise HandshakeFailure(400, "Sec-WebSocket-Key needs to be 16 bytes in base64")
    return key


def _flat(parse: Callable[[str], Sequence[T]], values: Sequence[str]) -> list[T]:
    return [item for value in values for item in parse(value)]


def _tokens(parse: Callable[[str], Sequence[str]], values: Sequence[str]) -> list[str]:
    """Read lists of tokens; one alone, the usual case, is what it says."""
    return [item for value in values for item in ((value,) if NAME.fullmatch(value) else parse(value))]


# Answers made by the host


def choose_extensions(offer: Offer, compression: bool) -> Accepted:
    """Take the first permessage-deflate offer that the host can do, if it compresses at all."""
    for name, parameters in offer.extensions if compression else ():
        if name == DEFLATE:
            try:
                chosen, extension = FACTORY.process_request_params(parameters, [])
            except NegotiationError:
                continue
            return Accepted(None, (extension,), build_extension([(name, chosen)]))
    return Accepted()


def accept(offer: Offer, agreed: Accepted) -> bytes:
    """Write the 101 that agrees to an offer (RFC 6455 section 4.2.2)."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(offer.key)}",
    ]
    if agreed.subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {agreed.subprotocol}")
    if agreed.header:
        lines.append(f"Sec-WebSocket-Extensions: {agreed.header}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def refusal(status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Write a final answer with `reason` as its body, after which the connection is closed."""
    return final_answer(status, "text/plain; charset=utf-8", f"{reason}\n".encode(), headers)


def final_answer(status: int, mime: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Write a final answer with a body, after which the connection is closed."""
    fields = [
        ("Content-Type", mime),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        *headers,
    ]
    if not any(name == "Connection" for name, _ in headers):
        fields.append(("Connection", "close"))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode("ascii") + body


# Answers written by the program


def read_answer(text: str, offer: Offer) -> Answer:
    """Check an answer that a program wrote, and make it ready to be sent.

    A lone LF becomes CRLF in the head; Content-Length is added where a body has none.

    Args:
        text: status line, header fields, empty line, perhaps a body (sent as UTF-8).
        offer: the request that is answered.

    Raises:
        InvalidAnswer: naming what is wrong and what would be right.
    """
    head, separator, body = _split_answer(text)
    if not separator:
        raise InvalidAnswer("the answer's head does not end; an empty line (\\r\\n\\r\\n) ends it")
    lines = head.split("\r\n")
    status = _read_status_line(lines[0])
    fields = [_read_answer_field(line) for line in lines[1:]]
    if status == 101:
        accepted = _check_101(fields, body, offer)
        return Answer(f"{head}\r\n\r\n".encode("ascii"), status, accepted)
    content = _encode_body(body)
    head += _content_length(status, fields, content)
    return Answer(f"{head}\r\n\r\n".encode("ascii") + content, status)


def read_verbatim(data: bytes, offer: Offer) -> Answer:
    """Take bytes to be sent as they are; see whether they happen to open the socket."""
    head, separator, _ = data.partition(b"\r\n\r\n")
    if LONE_LF.search(head):
        return Answer(data, 0)
    try:
        answer = read_answer((head + separator).decode("ascii"), offer)
    except ValueError:
        return Answer(data, 0)
    return Answer(data, answer.status if answer.accepted else 0, answer.accepted)


def _split_answer(text: str) -> tuple[str, str, str]:
    match = END_OF_HEAD.search(text)
    if match is None:
        return text, "", ""
    head = text[: match.start()].removesuffix("\r").replace("\r\n", "\n").replace("\n", "\r\n")
    # RFC 9112 section 4: the space stays where there is no reason phrase, and some clients insist.
    head = NO_REASON.sub(r"\g<0> ", head)
    if not head.isascii():
        raise InvalidAnswer(
            "the answer's head holds text that is not ASCII; encode it (RFC 9110 section 5.5)"
        )
    return head, "\r\n\r\n", text[match.end() :]


def _read_status_line(line: str) -> int:
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        if REQUEST_LINE.fullmatch(line):
            raise InvalidAnswer("Headers still holds the request; replace it, as event.accept() does")
        raise InvalidAnswer(f"the answer starts with {_name(line)!r}; it starts with HTTP/1.1 and a status")
    status = int(match[1])
    if status != 101 and not 200 <= status <= 599:
        raise InvalidAnswer(f"status {status} ends no handshake; 101 opens it, 200 to 599 deny it")
    return status


def _read_answer_field(line: str) -> tuple[str, str]:
    match = FIELD.fullmatch(line)
    if line.startswith((" ", "\t")):
        raise InvalidAnswer("the head has a folded line (one that begins with a blank); write it in one line")
    if match is None:
        raise InvalidAnswer(
            f"the header line {_name(line)!r} is not: name, colon, value without control characters"
        )
    return match[1].lower(), match[2].strip(" \t")


def _encode_body(body: str) -> bytes:
    try:
        return body.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidAnswer(f"the answer's body cannot be UTF-8: {exc.reason}") from exc


def _content_length(status: int, fields: list[tuple[str, str]], content: bytes) -> str:
    """Check the fields that frame a final answer's body; return the line that is missing, if any."""
    lengths = _values(fields, "content-length")
    if _values(fields, "transfer-encoding"):
        raise InvalidAnswer("the answer has Transfer-Encoding; give the body whole, its length is added")
    if content.lstrip(b"\r\n").startswith(b"HTTP/1."):
        raise InvalidAnswer("the answer holds a second head; one upgrade has one answer")
    if content and status in (204, 205, 304):
        raise InvalidAnswer(f"an answer with status {status} has no body (RFC 9110)")
    if len(lengths) > 1 or any(value != str(len(content)) for value in lengths):
        raise InvalidAnswer(f"Content-Length is {', '.join(lengths)}; the body has {len(content)} bytes")
    return "" if lengths or not content else f"\r\nContent-Length: {len(content)}"


def _check_101(fields: list[tuple[str, str]], body: str, offer: Offer) -> Accepted:
    """Check a 101 as RFC 6455 section 4.1 has a client check it."""
    if body:
        raise InvalidAnswer("text follows the head of a 101; frames are sent with WebSocketSend")
    for name in ("content-length", "transfer-encoding"):
        if _values(fields, name):
            raise InvalidAnswer(f"a 101 has no body, so no {name} (RFC 9110 section 8.6)")
    if [value.lower() for value in _values(fields, "upgrade")] != ["websocket"]:
        raise InvalidAnswer("a 101 needs Upgrade: websocket, once")
    if "upgrade" not in _read_connection(fields):
        raise InvalidAnswer("a 101 needs Connection: Upgrade")
    right = accept_key(offer.key)
    if _values(fields, "sec-websocket-accept") != [right]:
        raise InvalidAnswer(f"a 101 needs Sec-WebSocket-Accept: {right}, once; event.accept() writes it")
    subprotocol = _check_subprotocol(_values(fields, "sec-websocket-protocol"), offer)
    extensions, header = _check_extensions(_values(fields, "sec-websocket-extensions"), offer)
    return Accepted(subprotocol, extensions, header)


def _read_connection(fields: list[tuple[str, str]]) -> list[str]:
    try:
        return [option.lower() for option in _tokens(parse_connection, _values(fields, "connection"))]
    except InvalidHeader as exc:
        raise InvalidAnswer("the Connection field is malformed; a 101 needs Connection: Upgrade") from exc


def _check_subprotocol(values: list[str], offer: Offer) -> str | None:
    if not values:
        return None
    if len(values) > 1:
        raise InvalidAnswer("a 101 names one subprotocol at most, in one Sec-WebSocket-Protocol field")
    if values[0] not in offer.subprotocols:
        answered, asked = without_token(values[0].split(",")), without_token(offer.subprotocols) or "none"
        raise InvalidAnswer(f"subprotocol {answered!r} was not asked for; asked for: {asked}")
    return values[0]


def without_token(names: Iterable[str]) -> str:
    return ", ".join(name for name in map(str.strip, names) if not name.startswith(TOKEN_PREFIX))


def _check_extensions(values: list[str], offer: Offer) -> tuple[tuple[Extension, ...], str]:
    try:
        answered = _flat(parse_extension, values)
    except InvalidHeader as exc:
        raise InvalidAnswer(f"the answer's {exc.name} field is malformed") from exc
    if not answered:
        return (), ""
    if len(answered) > 1 or answered[0][0] != DEFLATE:
        raise InvalidAnswer(
            f"Sec-WebSocket-Extensions is {', '.join(values)}; this host can do {DEFLATE} only, once"
        )
    parameters = answered[0][1]
    for name, offered in offer.extensions:
        extension = _agree(parameters, offered) if name == DEFLATE else None
        if extension is not None:
            return (extension,), values[0]
    right = choose_extensions(offer, True).header
    raise InvalidAnswer(
        f"Sec-WebSocket-Extensions: {', '.join(values)} answers none of the client's offers; "
        + (f"right would be: {right}" if right else f"the client did not offer {DEFLATE}")
    )


def _agree(answered: Sequence[ExtensionParameter], offered: Sequence[ExtensionParameter]) -> Extension | None:
    """Make the extension of an answer to one offer, or None where it is no answer to it (RFC 7692, 7.1).

    The library's negotiation is asked to make the same answer: what comes out must be what was written.
    """
    try:  # An offer with a fault is declined whatever the answer is.
        ServerPerMessageDeflateFactory().process_request_params(offered, [])
    except NegotiationError:
        return None
    named = dict(answered)
    # What the client says of its own compression binds nobody: an answer may leave it out.
    relevant = [(name, value) for name, value in offered if name in named or not name.startswith("client_")]
    try:
        factory = ServerPerMessageDeflateFactory(
            server_no_context_takeover="server_no_context_takeover" in named,
            client_no_context_takeover="client_no_context_takeover" in named,
            server_max_window_bits=_bits(named.get("server_max_window_bits")),
            client_max_window_bits=_bits(named.get("client_max_window_bits")),
            compress_settings=COMPRESS_SETTINGS,
        )
        made, extension = factory.process_request_params(relevant, [])
    except (ValueError, NegotiationError):
        return None
    return extension if len(answered) == len(named) and dict(made) == named else None


def _bits(value: str | None) -> int | None:
    return None if value is None else int(value)


def _name(line: str) -> str:
    """Return what may be shown of a line, the name that it begins with: the rest may be a secret."""
    match = TOKEN.match(line)
    return match[0][:40] if match else ""


def _values(fields: list[tuple[str, str]], name: str) -> list[str]:
    return [value for found, value in fields if found == name]
