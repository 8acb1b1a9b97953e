"""Binary data as events carry it: bytes in Python, base64 in JSON, integers in a vector."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, NoReturn

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo

__all__ = ["TextOrBytes", "from_base64", "to_bytes"]


def _to_json(value: str | bytes) -> str | dict[str, str]:
    """Return text as it is, bytes as an object with their base64."""
    if isinstance(value, str):
        return value
    return {"base64": base64.b64encode(value).decode("ascii")}


def _from_json(value: object, info: ValidationInfo) -> object:
    """Undo `_to_json`; other kinds of bytes become bytes."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if info.mode == "json" and isinstance(value, dict) and set(value) == {"base64"}:
        return from_base64(value["base64"])
    return value


TextOrBytes = Annotated[str | bytes, BeforeValidator(_from_json), PlainSerializer(_to_json, when_used="json")]
"""Text or bytes: in JSON a string, or an object with base64."""


def to_bytes(data: object) -> object:
    """Return whatever stands for binary data as bytes, anything else as it is.

    Raises:
        ValueError: integers that are no bytes.
    """
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        # As HTMLRenderer has it: integers -128 to 127.
        if not all(isinstance(item, int) and -128 <= item <= 255 for item in data):
            raise ValueError("binary data is bytes, or integers -128 to 255")
        return bytes(item & 0xFF for item in data)
    return data


def from_base64(value: object) -> bytes:
    """Return the bytes of a base64 string.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        _refuse_base64()
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        _refuse_base64()


def _refuse_base64() -> NoReturn:
    raise ValueError("binary data in JSON is a base64 string")
