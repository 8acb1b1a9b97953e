"""Blob: bytes that do not change (W3C File API section 3), as far as a WebSocket needs it."""

from __future__ import annotations

from collections.abc import Iterable

from ..exceptions import UnsupportedType
from ..urls import repair

__all__ = ["Blob"]


class Blob:
    """Raw data.

    Args:
        parts: text (as UTF-8), bytes-like, or other blobs, one after the other.
        type: MIME type, kept as lower-case ASCII.

    Raises:
        UnsupportedType: a part is of no such type, or `parts` is a single one.
    """

    __slots__ = ("_data", "type")

    def __init__(
        self, parts: Iterable[str | bytes | bytearray | memoryview | Blob] = (), *, type: str = ""
    ) -> None:
        if isinstance(parts, str | bytes | bytearray | memoryview | Blob):
            raise UnsupportedType("Blob takes a list of parts: Blob([data])")
        self._data = b"".join(map(_to_bytes, parts))
        self.type = type.lower() if all(" " <= char <= "~" for char in type) else ""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self._data)

    def slice(self, start: int = 0, end: int | None = None, contentType: str = "") -> Blob:
        """Return a part; negative places count from the end."""
        return Blob([self._data[start:end]], type=contentType)

    async def text(self) -> str:
        """Return the data decoded as UTF-8; what is not UTF-8 becomes U+FFFD."""
        return self._data.decode("utf-8-sig", "replace")

    async def arrayBuffer(self) -> bytes:
        """Return the data."""
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return self._data

    def __repr__(self) -> str:
        return f"<Blob {self.size} bytes{f' {self.type}' if self.type else ''}>"


def _to_bytes(part: object) -> bytes:
    if isinstance(part, str):
        return repair(part).encode()
    if isinstance(part, Blob):
        return bytes(part)
    if isinstance(part, bytes | bytearray | memoryview):
        return bytes(part)
    raise UnsupportedType(f"{type(part).__name__} is no part of a Blob; give str, bytes-like or Blob")
