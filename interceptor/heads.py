"""Heads of requests and of answers, as the text that events carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from .exceptions import InvalidAnswer, UnsupportedType

__all__ = ["NAME", "Headers", "cookie_pairs", "field_lines", "pairs", "read_cookies", "read_fields"]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Fields of an answer; pairs where one name comes twice, as Set-Cookie may."""

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def read_fields(head: str) -> dict[str, list[str]]:
    """Return the fields in the text of a request head: names in lower case, and their values in order."""
    fields: dict[str, list[str]] = {}
    for line in head.partition("\r\n\r\n")[0].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    return fields


def read_cookies(text: str) -> dict[str, str]:
    """Read a Cookie field (RFC 6265 section 5.4) as servers do: what one cookie says never hides another."""
    cookies: dict[str, str] = {}
    for name, value in cookie_pairs(text):
        cookies.setdefault(name, value)
    return cookies


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
