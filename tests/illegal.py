"""Every kind of frame that RFC 6455 forbids, with the close code that is due; for either side.

The one table of them: `test_attacks.py` sends each over TCP to a host, `test_connection_end.py` to a
connection of either side, `test_messages.py` to the reader of frames alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from .peer import BINARY, CLOSE, CONT, MASK, PING, PONG, TEXT, frame

LIMIT = 1024
"""The limit of a message for which the table is made."""

DATA = {"text": TEXT, "binary": BINARY}
CONTROL = {"close": CLOSE, "ping": PING, "pong": PONG}
OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
CODES = (0, 1, 500, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 9999, 65535)
BAD_TEXT = (b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xe2(")


class Writer(NamedTuple):
    """Writes frames as one side does.

    Attributes:
        mask: of the frames; None where the side does not mask.
    """

    mask: bytes | None

    def __call__(self, opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        return frame(opcode, data, fin=fin, rsv=rsv, mask=self.mask)

    def head(self, opcode: int, length: int, size: int) -> bytes:
        """The head of a frame that has its length in 2 or 8 bytes, whatever it is."""
        bit = 0x80 if self.mask is not None else 0
        mark = 126 if size == 2 else 127
        return bytes([0x80 | opcode, bit | mark]) + length.to_bytes(size, "big") + (self.mask or b"")

    def other(self, opcode: int) -> bytes:
        """A frame as only the other side may write it."""
        return frame(opcode, mask=MASK if self.mask is None else None)


CLIENT, SERVER = Writer(MASK), Writer(None)
Write = Callable[[Writer], bytes]


class Illegal(NamedTuple):
    """What no peer may send, and the code of section 7.4.1 with which the connection is failed."""

    write: Write
    code: int


def one(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> Write:
    """A frame."""
    return lambda writer: writer(opcode, data, fin=fin, rsv=rsv)


def other(opcode: int) -> Write:
    """A frame of the other side."""
    return lambda writer: writer.other(opcode)


def head(opcode: int, length: int, size: int) -> Write:
    """The head of a frame, and nothing after it."""
    return lambda writer: writer.head(opcode, length, size)


def pieces(opcode: int, *parts: bytes, then: Write) -> Write:
    """The first fragments of a message, and what comes inside of it."""
    frames = [one(opcode if index == 0 else CONT, part, fin=False) for index, part in enumerate(parts)]
    return lambda writer: b"".join(write(writer) for write in (*frames, then))


def _wrong_heads() -> dict[str, Write]:
    kinds = {**DATA, **CONTROL}
    return {
        **{f"opcode {opcode}": one(opcode, b"x") for opcode in OPCODES},
        **{
            f"reserved bits {rsv:03b} of a {name}": one(opcode, rsv=rsv)
            for name, opcode in kinds.items()
            for rsv in range(1, 8)
        },
        **{f"the other side's {name}": other(opcode) for name, opcode in kinds.items()},
        "a reserved bit of a continuation": pieces(TEXT, b"a", then=one(CONT, b"b", rsv=4)),
        "the other side's continuation": pieces(TEXT, b"a", then=other(CONT)),
    }


def _wrong_controls() -> dict[str, Write]:
    found = {f"close code {code}": one(CLOSE, struct.pack("!H", code)) for code in CODES}
    found["a close of one byte"] = one(CLOSE, b"\x03")
    for name, opcode in CONTROL.items():
        for size in (126, 1000):
            found[f"a {name} of {size} bytes"] = one(opcode, b"\x03\xe8" + b"x" * (size - 2))
        found[f"a fragmented {name}"] = one(opcode, fin=False)
    return found


def _wrong_order() -> dict[str, Write]:
    found = {
        "a continuation of nothing": one(CONT, b"x"),
        "a continuation of nothing, unfinished": one(CONT, b"x", fin=False),
        "bad text inside a binary": pieces(BINARY, b"a", b"b", then=one(TEXT, b"\xff")),
        "bad text inside a text": pieces(TEXT, b"a", b"b", then=one(TEXT, b"\xff", fin=False)),
    }
    for outer, begun in DATA.items():
        for inner, opcode in DATA.items():
            found[f"a {inner} inside a {outer}"] = pieces(begun, b"a", then=one(opcode, b"b"))
            found[f"a fragment of a {inner} inside a {outer}"] = pieces(
                begun, b"a", then=one(opcode, b"b", fin=False)
            )
    return found


def _wrong_texts() -> dict[str, Write]:
    found: dict[str, Write] = {}
    for bad in BAD_TEXT:
        singly = [bad[index : index + 1] for index in range(len(bad))]
        found |= {
            f"text {bad!r}": one(TEXT, bad),
            f"text {bad!r} first": one(TEXT, bad + b"end"),
            f"text {bad!r} amid": one(TEXT, b"start" + bad + b"end"),
            f"text {bad!r} last": one(TEXT, b"start" + bad),
            f"text {bad!r} in the first fragment": pieces(TEXT, bad, b"end", then=one(CONT)),
            f"text {bad!r} in the last fragment": pieces(TEXT, b"start", then=one(CONT, bad)),
            f"text {bad!r} one byte a fragment": pieces(TEXT, b"a", *singly, then=one(CONT)),
            f"close reason {bad!r}": one(CLOSE, b"\x03\xe8" + bad),
            f"close reason {bad!r} last": one(CLOSE, b"\x03\xe8well" + bad),
        }
    return found


def _too_large() -> dict[str, Write]:
    return {
        "a message over the limit": one(BINARY, bytes(LIMIT + 1)),
        "a text over the limit": one(TEXT, b"x" * (LIMIT + 1)),
        "fragments over the limit": pieces(BINARY, bytes(LIMIT), then=one(CONT, b"x")),
        # Of these nobody waits for the payload.
        "the head of a large message": head(BINARY, 65535, 2),
        "the head of a huge message": head(BINARY, 2**40, 8),
        "the head of a huge ping": head(PING, 2**32, 8),
        "a length with its top bit set": head(BINARY, 2**63, 8),
        "a length of all bits": head(TEXT, 2**64 - 1, 8),
    }


ILLEGAL: dict[str, Illegal] = {
    name: Illegal(write, code)
    for code, writes in (
        (1002, {**_wrong_heads(), **_wrong_controls(), **_wrong_order()}),
        (1007, _wrong_texts()),
        (1009, _too_large()),
    )
    for name, write in writes.items()
}
