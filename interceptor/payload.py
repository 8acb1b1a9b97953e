"""What a program may send, and with which codes it may close; checked before it goes anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .exceptions import InvalidArgument, UnsupportedType

__all__ = ["Data", "check_close", "to_payload"]

Data = str | bytes | bytearray | memoryview | Sequence[int]
"""Text, or binary data; a sequence of integers -128..255 is binary, as in HTMLRenderer."""

MAX_REASON = 123
"""RFC 6455 section 5.5: a control frame holds 125 bytes, two of them the close code."""


def to_payload(data: Data, opcode: int | None) -> tuple[bytes, Literal[1, 2]]:
    """Return the bytes to send and their opcode.

    Args:
        data: what to send.
        opcode: 1 text, 2 binary, None as the type of `data` says.

    Raises:
        InvalidArgument: the opcode is no such, an integer is out of range, or text is not UTF-8.
        UnsupportedType: `data` is of no such type.
    """
    if opcode is not None and (opcode not in (1, 2) or isinstance(opcode, bool)):
        raise InvalidArgument(f"opcode {opcode!r} is none of 1 text, 2 binary, or 0 in a piece of a message")
    if isinstance(data, str):
        return _encode(data), 2 if opcode == 2 else 1
    payload = _to_bytes(data)
    if opcode == 1:
        _check_utf8(payload)
        return payload, 1
    return payload, 2


def check_close(code: int, reason: str) -> None:
    """Check what a program closes with (WHATWG, close() steps 1 and 2).

    Raises:
        InvalidArgument: the code is not 1000 or 3000-4999, or the reason is over 123 bytes of UTF-8.
        UnsupportedType: the code is no integer, or the reason no str.
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise UnsupportedType(f"close code {code!r} is no integer")
    if not isinstance(reason, str):
        raise UnsupportedType(f"close reason {reason!r} is no str")
    if code != 1000 and not 3000 <= code <= 4999:
        raise InvalidArgument(f"close code {code} is not for programs; use 1000, or 3000 to 4999")
    size = len(_encode(reason))
    if size > MAX_REASON:
        raise InvalidArgument(f"the close reason is {size} bytes of UTF-8; at most {MAX_REASON} fit")


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgument(f"text cannot be UTF-8: lone surrogate at position {exc.start}") from exc


def _check_utf8(payload: bytes) -> None:
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidArgument(
            f"opcode 1 sends text, and the bytes are not UTF-8: {exc.reason} at position {exc.start}"
        ) from exc


def _to_bytes(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()  # type: ignore[arg-type]  # that it may not be one is the question
    except TypeError:
        pass
    if not isinstance(data, Sequence):
        raise UnsupportedType(
            f"{type(data).__name__} cannot be sent; send str, bytes-like, or a sequence of integers -128..255"
        )
    return bytes(_to_byte(item, index) for index, item in enumerate(data))


def _to_byte(item: object, index: int) -> int:
    if not isinstance(item, int):
        raise UnsupportedType(f"item {index} is {item!r}; a sequence to send holds integers -128..255")
    if not -128 <= item <= 255:
        raise InvalidArgument(f"item {index} is {item}; a sequence to send holds integers -128..255")
    return item & 0xFF
