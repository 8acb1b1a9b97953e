"""The client's side of the opening handshake: write a request, read the head of its answer, check it.

Nothing here touches a transport or a clock. The request is that of the WHATWG WebSockets Standard, section
2.2, with what the Fetch Standard adds; the answer is checked as that section and RFC 6455 section 4.1 have
it. Whatever is wrong with an answer raises ConnectFailure with the rule that decided.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import parse_extension
from websockets.typing import ExtensionHeader
from websockets.utils import accept_key

from ..exceptions import ConnectFailure
from .server import COMPRESS_SETTINGS, DEFLATE, Accepted, without_token

__all__ = [
    "OWN_FIELDS",
    "Opening",
    "Response",
    "ResponseReader",
    "check_response",
    "new_key",
    "write_connect",
    "write_request",
]

OFFER = "permessage-deflate; client_max_window_bits"
"""The extension offer that the WHATWG standard writes out (section 2.2 step 9)."""

OWN_FIELDS = frozenset(
    (
        "upgrade",
        "connection",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "content-length",
        "transfer-encoding",
    )
)
"""Fields that are the handshake's own: a program cannot give them."""

MAX_HEAD = 256 * 1024
"""Most bytes of an answer's head, the interim answers before it included; what Chromium takes."""

HEAD_END = re.compile(rb"\r?\n\r?\n")
STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([0-9]{3})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)([ \t]*):(.*)")
CONTROLS = re.compile(r"[\x00\r]")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a handshake request says.

    Attributes:
        host: value of Host.
        resource: path and query.
        key: value of Sec-WebSocket-Key.
        protocols: subprotocols asked for, in order of preference.
        origin: value of Origin; None sends none, as a program does.
        headers: more fields; they take the place of Host and of what the Fetch Standard adds.
        compression: whether permessage-deflate is offered.
    """

    host: str
    resource: str
    key: str
    protocols: tuple[str, ...] = ()
    origin: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    compression: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """The head of an answer, read but not yet judged.

    Attributes:
        head: the bytes as they came, empty line included, without interim answers.
        status: status code.
        fields: name in lower case and value, in order.
        oddities: what is wrong with it though it can be read, in plain words.
    """

    head: bytes
    status: int
    fields: tuple[tuple[str, str], ...]
    oddities: tuple[str, ...] = ()

    def values(self, name: str) -> list[str]:
        """Return the values of a field, by its name in lower case."""
        return [value for field, value in self.fields if field == name]


def new_key() -> str:
    """Return a nonce: 16 random bytes in base64 (WHATWG section 2.2 step 5)."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def write_request(opening: Opening) -> bytes:
    """Write the request head (WHATWG section 2.2; Fetch, HTTP-network-or-cache fetch)."""
    given = {name.lower() for name, _ in opening.headers}
    fields = [("Host", opening.host), *_standard_fields(opening), *_fetch_fields(opening)]
    fields = [(name, value) for name, value in fields if name.lower() not in given] + [*opening.headers]
    lines = [f"GET {opening.resource} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _standard_fields(opening: Opening) -> list[tuple[str, str]]:
    fields = [  # Section 2.2: steps 3, 4, 6 and 7.
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", opening.key),
        ("Sec-WebSocket-Version", "13"),
    ]
    if opening.protocols:  # Step 8: combined into one field.
        fields.append(("Sec-WebSocket-Protocol", ", ".join(opening.protocols)))
    if opening.compression:  # Steps 9 and 10.
        fields.append(("Sec-WebSocket-Extensions", OFFER))
    return fields


def _fetch_fields(opening: Opening) -> list[tuple[str, str]]:
    # Fetch: Accept where there is none, Origin in mode "websocket", User-Agent, then cache mode "no-store".
    origin = [] if opening.origin is None else [("Origin", opening.origin)]
    agent = ("User-Agent", "interceptor")
    return [("Accept", "*/*"), *origin, agent, ("Pragma", "no-cache"), ("Cache-Control", "no-cache")]


def write_connect(authority: str, authorization: str | None) -> bytes:
    """Write the request for a tunnel (RFC 9110 section 9.3.6)."""
    secret = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{secret}\r\n".encode("latin-1")


class ResponseReader:
    """Collects bytes until the head of the answer is complete; interim answers (1xx) are skipped.

    Attributes:
        received: all bytes so far, for whoever wants to see what an answer came to that never was one.
        interim: statuses of the interim answers so far.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.interim: list[int] = []
        self._start = 0
        self._searched = 0

    def feed(self, data: bytes) -> tuple[Response, bytes] | None:
        """Take bytes; return the head and the bytes after it once it is complete.

        Raises:
            ConnectFailure: the answer is not HTTP, is malformed, or its head is too long.
        """
        self.received += data
        while match := HEAD_END.search(self.received, self._searched):
            head = bytes(self.received[self._start : match.end()])
            response = _read_response(head)
            if not 100 <= response.status <= 199 or response.status == 101:
                return response, bytes(self.received[match.end() :])
            self._start = self._searched = match.end()
            self.interim.append(response.status)
        self._searched = max(self._start, len(self.received) - 3)
        _check_beginning(bytes(self.received[self._start : self._start + 8]))
        if len(self.received) > MAX_HEAD:
            raise ConnectFailure("malformed", f"the head of the answer is over {MAX_HEAD} bytes")
        return None


def _check_beginning(beginning: bytes) -> None:
    wanted = b"HTTP/1."
    if beginning[: len(wanted)] != wanted[: len(beginning)]:
        raise ConnectFailure(
            "malformed", "the answer does not begin with HTTP/1.1 and a status: no HTTP server"
        )


def _read_response(head: bytes) -> Response:
    lines = HEAD_END.sub(b"", head).decode("latin-1").replace("\r\n", "\n").split("\n")
    match = STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise ConnectFailure("malformed", "the answer does not begin with HTTP/1.1 and a status")
    fields: list[tuple[str, str]] = []
    oddities: list[str] = []
    for line in lines[1:]:
        if CONTROLS.search(line):
            raise ConnectFailure("malformed", "a header line of the answer holds a control character")
        if line.startswith((" ", "\t")) and fields:  # RFC 9112 section 5.2: a folded line is one value.
            name, value = fields.pop()
            fields.append((name, f"{value} {line.strip()}"))
        elif field := FIELD.fullmatch(line):  # As Chromium, which reads on where RFC 9112 leaves it open.
            fields.append((field[1].lower(), field[3].strip(" \t")))
            oddities += ["there is a blank before a colon"] if field[2] else []
        else:
            oddities.append("a header line is not: name, colon, value")
    return Response(head, int(match[2]), tuple(fields), tuple(oddities))


# What the answer must be. The order is the standard's: its section 2.2 step 11, then RFC 6455 section 4.1.


def check_response(response: Response, opening: Opening) -> Accepted:
    """Check an answer as the WHATWG standard has it (section 2.2 step 11).

    Raises:
        ConnectFailure: the connection fails; with the rule and the field that decided.
    """
    _check_status(response)
    _check_acknowledged(response, opening)
    _check_upgrade(response)
    _check_connection(response)
    _check_accept(response, opening)
    extensions = _check_extensions(response, opening)
    subprotocol = _check_subprotocol(response, opening)
    header = ", ".join(response.values("sec-websocket-extensions")) if extensions else ""
    return Accepted(subprotocol, extensions, header)


def _check_status(response: Response) -> None:
    # Step 11.1. The request's redirect mode is "error", so a redirect is a network error.
    status = response.status
    if status == 101:
        return
    if status in REDIRECTS and response.values("location"):
        raise ConnectFailure("redirect", f"status {status}: a WebSocket follows no redirect", "location")
    if status in (401, 407):
        raise ConnectFailure("authentication", f"status {status}: the server wants credentials")
    raise ConnectFailure("status", f"status {status}; only 101 opens a WebSocket")


def _check_acknowledged(response: Response, opening: Opening) -> None:
    # Step 11.2, which RFC 6455 does not have: what was asked for must be acknowledged.
    name = "sec-websocket-protocol"
    values = response.values(name)
    if len(values) > 1:
        raise ConnectFailure(
            "subprotocol-repeated", "the answer has Sec-WebSocket-Protocol more than once", name
        )
    if not opening.protocols:
        return
    asked = without_token(opening.protocols)
    if not values or not values[0]:
        reason = f"subprotocols were asked for ({asked}) and the answer names none"
        raise ConnectFailure("subprotocol-missing", reason, name if values else "")
    if not TOKEN.fullmatch(values[0]):
        reason = f"Sec-WebSocket-Protocol is no single subprotocol; asked for: {asked}"
        raise ConnectFailure("subprotocol-unasked", reason, name)


def _check_upgrade(response: Response) -> None:
    # RFC 6455 section 4.1, last list, 2: compared without case.
    values = response.values("upgrade")
    if [value.lower() for value in values] != ["websocket"]:
        what = "is " + ", ".join(map(repr, values)) if values else "is missing"
        raise ConnectFailure("upgrade", f"Upgrade {what}; it must be websocket, once", "upgrade")


def _check_connection(response: Response) -> None:
    # The same, 3: a token of the list, without case.
    options = ",".join(response.values("connection")).lower().split(",")
    if "upgrade" not in (option.strip(" \t") for option in options):
        raise ConnectFailure("connection", "Connection does not name Upgrade", "connection")


def _check_accept(response: Response, opening: Opening) -> None:
    # The same, 4: with case; section 11.3.3: once.
    right = accept_key(opening.key)
    values = response.values("sec-websocket-accept")
    if values != [right]:
        what = "is missing" if not values else "comes more than once" if len(values) > 1 else "is wrong"
        reason = f"Sec-WebSocket-Accept {what}; for this key it must be {right}"
        raise ConnectFailure("accept", reason, "sec-websocket-accept")


def _check_extensions(response: Response, opening: Opening) -> tuple[Extension, ...]:
    # The same, 5: only what was offered; its parameters as RFC 7692 section 7.1 has them.
    name = "sec-websocket-extensions"
    answered: list[ExtensionHeader] = []
    try:
        for value in response.values(name):
            answered += parse_extension(value)
    except InvalidHeader as exc:
        raise ConnectFailure("extension", "Sec-WebSocket-Extensions is malformed", name) from exc
    unknown = [extension for extension, _ in answered if extension != DEFLATE or not opening.compression]
    if unknown or len(answered) > 1:
        what = f"{unknown[0]} was not offered" if unknown else f"{DEFLATE} comes more than once"
        raise ConnectFailure("extension", f"Sec-WebSocket-Extensions: {what}", name)
    return tuple(_agree(extension) for extension in answered)


def _agree(answered: ExtensionHeader) -> Extension:
    factory = ClientPerMessageDeflateFactory(client_max_window_bits=True, compress_settings=COMPRESS_SETTINGS)
    try:
        return factory.process_response_params(answered[1], ())
    except NegotiationError as exc:
        reason = f"{DEFLATE} has parameters that do not answer the offer: {exc}"
        raise ConnectFailure("extension", reason, "sec-websocket-extensions") from exc


def _check_subprotocol(response: Response, opening: Opening) -> str | None:
    # The same, 6: only what was asked for, with case.
    values = response.values("sec-websocket-protocol")
    if not values:
        return None
    if values[0] not in opening.protocols:
        asked = without_token(opening.protocols) or "none"
        reason = f"subprotocol {values[0][:80]!r} was not asked for; asked for: {asked}"
        raise ConnectFailure("subprotocol-unasked", reason, "sec-websocket-protocol")
    return values[0]
