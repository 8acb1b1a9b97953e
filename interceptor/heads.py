"""Heads of requests and of answers, as the text that events carry."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus

from .exceptions import InvalidAnswer, UnsupportedType

__all__ = [
    "NAME",
    "Fields",
    "Headers",
    "cookie_pairs",
    "field_lines",
    "final_answer",
    "pairs",
    "switching_answer",
]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Fields of an answer; pairs where one name comes twice, as Set-Cookie may."""

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class Fields:
    """The header fields in the text of a request head; the case of their names does not matter."""

    __slots__ = ("_values",)

    def __init__(self, head: str) -> None:
        self._values: dict[str, list[str]] = {}
        for line in head.partition("\r\n\r\n")[0].split("\r\n")[1:]:
            name, _, value = line.partition(":")
            self._values.setdefault(name.lower(), []).append(value.strip(" \t"))

    def values(self, name: str) -> list[str]:
        """Return the values of a field, in order."""
        return self._values.get(name.lower(), [])

    def value(self, name: str) -> str | None:
        """Return the value of a field, several joined by a comma, or None."""
        values = self.values(name)
        return ", ".join(values) if values else None

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies (RFC 6265 section 5.4) as servers read them: what one says never hides another."""
        cookies: dict[str, str] = {}
        for name, value in cookie_pairs(";".join(self.values("Cookie"))):
            cookies.setdefault(name, value)
        return cookies

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols asked for, that with the host's token included."""
        values = self.values("Sec-WebSocket-Protocol")
        return [name.strip() for value in values for name in value.split(",") if name.strip()]


def cookie_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Read the cookies of a Cookie field in order; one name may come twice, from two paths."""
    for pair in text.split(";"):
        name, separator, value = pair.partition("=")
        if separator:
            yield name.strip(), value.strip().removeprefix('"').removesuffix('"')


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of an answer as pairs.

    Raises:
        UnsupportedType: they are no mapping, and no pairs, of str.
    """
    try:
        found = [tuple(pair) for pair in (headers.items() if isinstance(headers, Mapping) else headers)]
    except TypeError:
        found = [()]
    if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in found) or (
        not isinstance(headers, Mapping) and any(isinstance(pair, str) for pair in headers)
    ):
        raise UnsupportedType("headers are a mapping of names to values, or pairs of them, all str")
    return [(name, value) for name, value in found]


def field_lines(fields: Iterable[tuple[str, str]]) -> str:
    """Write header fields, each line with its CRLF.

    Raises:
        InvalidAnswer: a name or a value cannot stand in a head.
    """
    fields = tuple(fields)
    for name, value in fields:
        if not NAME.fullmatch(name):
            raise InvalidAnswer(f"{name[:40]!r} is no name of a header field")
        if CONTROL.search(value):
            raise InvalidAnswer(
                f"the value of {name} has a control character; a line break would end the field"
            )
        if not value.isascii():
            raise InvalidAnswer(
                f"the value of {name} is not ASCII; write other characters as %XX of their UTF-8, as in "
                "filename*=UTF-8''caf%C3%A9"
            )
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


def switching_answer(key: str, subprotocol: str | None, extensions: str, headers: Headers) -> str:
    """Write a right 101 (RFC 6455 section 4.2.2).

    Args:
        key: Sec-WebSocket-Key of the request.
        subprotocol: agreed on, or None.
        extensions: value of Sec-WebSocket-Extensions, or empty for none.
        headers: more fields.

    Raises:
        InvalidAnswer: one of them cannot stand in a head.
        UnsupportedType: they are no mapping, and no pairs, of str.
    """
    # Step 5.4: SHA-1 of the key and the GUID, in base64.
    digest = hashlib.sha1((key + ACCEPT_GUID).encode(), usedforsecurity=False).digest()
    lines = f"{SWITCHING}Sec-WebSocket-Accept: {base64.b64encode(digest).decode('ascii')}\r\n"
    if subprotocol:
        lines += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if extensions:
        lines += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    return f"{lines}{field_lines(pairs(headers))}\r\n"


def final_answer(status: int, headers: Headers, body: str) -> str:
    """Write an answer that ends the handshake, with a text body or none.

    Raises:
        InvalidAnswer: a field cannot stand in a head.
        UnsupportedType: they are no mapping, and no pairs, of str.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Denied"
    given = pairs(headers)
    if body and "content-type" not in (name.lower() for name, _ in given):
        given.insert(0, ("Content-Type", "text/plain; charset=utf-8"))
    return f"HTTP/1.1 {status} {phrase}\r\n{field_lines(given)}\r\n{body}"
