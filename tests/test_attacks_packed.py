"""What hostile peers can do by permessage-deflate over TCP: RFC 7692 to the letter, nothing out of bounds.

The bombs are in `test_attacks.py`; what RFC 6455 forbids whether packed or not is in `illegal.py`.
"""

from __future__ import annotations

import itertools
import os
import zlib
from typing import NamedTuple

import pytest

from interceptor import Limits, WebSocketClose, WebSocketReceive
from interceptor.messages import FINALS

from .illegal import BAD_TEXT
from .model import assemble
from .peer import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, close_frame, frame
from .programs import CLOSED, DEFLATE, ERROR, MIB, RECEIVE, UPGRADE, opened
from .test_attacks import attacked
from .wire import BOTH_LOOPS
from .wire import lines as lines
from .wire import quiet_loop as quiet_loop

pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("lines")]

LIMIT = 4096
RSV1 = 4
TAIL = b"\0\0\xff\xff"
ASKED = f"{DEFLATE[:-2]}; client_max_window_bits\r\n"
ALONE = f"{DEFLATE[:-2]}; client_no_context_takeover\r\n"


def pack(data: bytes, bits: int = 11, level: int = 6) -> bytes:
    """The payload of a packed frame (RFC 7692 section 7.2.1)."""
    packer = zlib.compressobj(level, wbits=-bits)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def final(data: bytes) -> bytes:
    """The same with a block that has BFINAL, and without the octet that follows it (section 7.2.3.4)."""
    packer = zlib.compressobj(wbits=-11)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH)


def text(payload: bytes, rsv: int = RSV1) -> bytes:
    """A packed frame."""
    return frame(TEXT, payload, rsv=rsv)


def cut(payload: bytes, *places: int, opcode: int = TEXT, between: bytes = b"") -> bytes:
    """A packed message in fragments, and what comes between them."""
    marks = [0, *places, len(payload)]
    pieces = [payload[start:end] for start, end in itertools.pairwise(marks)]
    return between.join(
        frame(CONT if index else opcode, piece, fin=index == len(pieces) - 1, rsv=0 if index else RSV1)
        for index, piece in enumerate(pieces)
    )


class Case(NamedTuple):
    """What is sent, what the program gets of it, and the close code that follows where it is illegal."""

    data: bytes
    gets: list[str | bytes]
    code: int = 1000


HELLO = bytes([0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00])  # Section 7.2.3.1.
AGAIN = bytes([0xF2, 0x00, 0x11, 0x00, 0x00])  # 7.2.3.2
STORED = bytes([0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00])  # 7.2.3.3
FINAL = bytes([0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00])  # 7.2.3.4
TWO_BLOCKS = bytes([0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00])  # 7.2.3.5
LONG = bytes(range(32, 127)) * 20
NOISE = os.urandom(LIMIT)

LEGAL = {
    "the RFC's Hello": Case(text(HELLO), ["Hello"]),
    "in two fragments": Case(cut(HELLO, 3), ["Hello"]),
    "the second refers to the first": Case(text(HELLO) + text(AGAIN), ["Hello", "Hello"]),
    "a stored block": Case(text(STORED), ["Hello"]),
    "two blocks": Case(text(TWO_BLOCKS), ["Hello"]),
    "a final block": Case(text(FINAL), ["Hello"]),
    "a final block before others": Case(text(FINAL) + text(HELLO) + text(AGAIN), ["Hello"] * 3),
    "a final block without its octet": Case(text(FINAL[:-1]) + text(HELLO), ["Hello"] * 2),
    "data after a final block": Case(
        text(final(b"one, ") + pack(b"two")) + text(HELLO), ["one, two", "Hello"]
    ),
    "several final blocks": Case(text(final(b"ab") * 9 + b"\0") + text(HELLO), ["ab" * 9, "Hello"]),
    "a final block in fragments": Case(
        cut(final(LONG) + final(b"end") + b"\0", 5, 40) + text(HELLO), [LONG.decode() + "end", "Hello"]
    ),
    "fragments that end where a block does": Case(
        cut(final(b"one") + final(b"two"), len(final(b"one"))) + text(HELLO), ["onetwo", "Hello"]
    ),
    "an empty message": Case(text(b"\0") + text(HELLO), ["", "Hello"]),
    "an empty message in fragments": Case(cut(b"\0", 0, 0, 1) + text(HELLO), ["", "Hello"]),
    "an empty final block": Case(text(final(b"") + b"\0") + text(HELLO), ["", "Hello"]),
    "plain amid packed": Case(text(HELLO) + text(b"plain", 0) + text(AGAIN), ["Hello", "plain", "Hello"]),
    "one byte a fragment": Case(cut(pack(LONG), *range(1, len(pack(LONG)))), [LONG.decode()]),
    "characters cut by fragments": Case(
        cut(pack("äöü€😀".encode(), level=0), *range(1, len(pack("äöü€😀".encode(), level=0)))), ["äöü€😀"]
    ),
    "just at the limit": Case(frame(BINARY, pack(bytes(LIMIT)), rsv=RSV1), [bytes(LIMIT)]),
    "just at the limit, in fragments": Case(cut(pack(bytes(LIMIT)), 3, 9, opcode=BINARY), [bytes(LIMIT)]),
    "noise at the limit": Case(frame(BINARY, pack(NOISE), rsv=RSV1), [NOISE]),
    "noise at the limit, in fragments": Case(cut(pack(NOISE), 9, 4000, opcode=BINARY), [NOISE]),
}

ILLEGAL = {
    "a bit of a continuation": Case(
        frame(TEXT, HELLO[:3], fin=False, rsv=RSV1) + frame(CONT, HELLO[3:], rsv=RSV1), [], 1002
    ),
    "a bit of a plain message's continuation": Case(
        frame(TEXT, "a", fin=False) + frame(CONT, "b", rsv=RSV1), [], 1002
    ),
    "a bit of a ping": Case(frame(PING, rsv=RSV1), [], 1002),
    "a bit of a pong": Case(frame(PONG, rsv=RSV1), [], 1002),
    "a bit of a close": Case(frame(CLOSE, rsv=RSV1), [], 1002),
    "a second bit": Case(text(HELLO, 6), [], 1002),
    "a third bit": Case(text(HELLO, 5), [], 1002),
    "garbage": Case(text(b"\xff" * 20), [], 1002),
    "garbage in a continuation": Case(cut(HELLO + TAIL + b"\xff" * 20, len(HELLO) + 4), [], 1002),
    "garbage after a final block": Case(text(FINAL[:-1] + b"\xff" * 20), [], 1002),
    "final blocks without end": Case(text(final(b"") * (FINALS + 1) + b"\0"), [], 1002),
    "a reference to nothing": Case(text(AGAIN), [], 1002),
    "one over the limit": Case(frame(BINARY, pack(bytes(LIMIT + 1)), rsv=RSV1), [], 1009),
    "noise over the limit": Case(frame(BINARY, pack(NOISE + b"x"), rsv=RSV1), [], 1009),
    "one over the limit, in fragments": Case(cut(pack(bytes(LIMIT + 1)), 3, opcode=BINARY), [], 1009),
    "over the limit behind a final block": Case(text(final(bytes(LIMIT)) + pack(b"x")), [], 1009),
    "a bomb in a continuation at the limit": Case(
        cut(pack(bytes(LIMIT), level=0) + TAIL + pack(bytes(MIB)), len(pack(bytes(LIMIT), level=0)) + 4),
        [],
        1009,
    ),
    "a plain message over the limit": Case(frame(BINARY, bytes(LIMIT + 1)), [], 1009),
    "plain fragments over the limit": Case(
        frame(BINARY, bytes(LIMIT), fin=False) + frame(CONT, b"x"), [], 1009
    ),
} | {
    f"text {bad!r} {name}": Case(data, [], 1007)
    for bad in BAD_TEXT
    for name, data in (
        ("packed", text(pack(b"start" + bad))),
        ("packed, one byte a fragment", cut(pack(bad, level=0), *range(1, len(pack(bad, level=0))))),
    )
}


@pytest.mark.parametrize("extra", [DEFLATE, ASKED], ids=["", "small window"])
@pytest.mark.parametrize("chunks", [False, True], ids=["", "chunks"])
async def test_right_or_refused_and_nothing_else(chunks: bool, extra: str) -> None:
    """Each on a socket of its own, between two good messages; the code, the events, the data."""
    found: dict[str, object] = {}
    async with attacked(Limits(message=LIMIT), chunks=chunks) as scene:
        for name, case in (LEGAL | ILLEGAL).items():
            async with opened(scene.host, scene.seen, extra=extra) as (peer, id):
                await peer.send(text(b"good", 0) + case.data + text(b"late", 0) + close_frame())
                code = await peer.close_code()
            closed = await scene.first(WebSocketClose, id)
            whole, _ = assemble(scene.seen.of(WebSocketReceive, id))
            late, error = (["late"], []) if case.code == 1000 else ([], [ERROR])
            names = [one for one in scene.seen.names(id) if one != RECEIVE]
            told = (code, whole, names, closed.code)
            if told != (
                case.code,
                ["good", *case.gets, *late],
                [UPGRADE, *error, CLOSED],
                1006 if error else 1000,
            ):
                found[name] = told
    assert found == {}


async def test_control_frames_between_the_fragments_of_a_packed_message() -> None:
    packed = pack(LONG)
    places = range(7, len(packed), 7)
    async with attacked() as scene, opened(scene.host, scene.seen, extra=DEFLATE) as (peer, id):
        await peer.send(cut(packed, *places, between=frame(PING, "?") + frame(PONG)) + close_frame())
        got = [await peer.frame() for _ in places]
        assert got == [Frame(PONG, b"?")] * len(places)
        assert await peer.close_code() == 1000
        await scene.first(WebSocketClose, id)
        assert [event.data for event in scene.seen.of(WebSocketReceive, id)] == [LONG.decode()]


@pytest.mark.parametrize("before", [b"", text(FINAL)], ids=["", "behind a final block"])
@pytest.mark.parametrize("extra", [DEFLATE, ASKED], ids=["", "small window"])
async def test_what_refers_to_more_than_was_agreed(extra: str, before: bytes) -> None:
    """A client that offered a smaller window was told 2 KiB; one that did not has all 32."""
    first, second = os.urandom(8000), pack(b"")
    packer = zlib.compressobj(wbits=-15)
    frames = []
    for data in (first, first[:300]):
        made = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
        frames.append(frame(BINARY, made.removesuffix(TAIL), rsv=RSV1))
    assert len(frames[1]) < 50 + len(second)  # It refers to the first, 8,000 bytes back.
    async with attacked() as scene, opened(scene.host, scene.seen, extra=extra) as (peer, id):
        await peer.send(before + b"".join(frames) + close_frame())
        agreed = extra == DEFLATE
        assert await peer.close_code() == (1000 if agreed else 1002)
        await scene.first(WebSocketClose, id)
        wanted = [first, first[:300]] if agreed else [first]
        hello = ["Hello"] if before else []
        assert [event.data for event in scene.seen.of(WebSocketReceive, id)] == [*hello, *wanted]


async def test_without_takeover_each_message_stands_for_itself() -> None:
    async with attacked() as scene, opened(scene.host, scene.seen, extra=ALONE) as (peer, id):
        await peer.send(text(HELLO) + text(FINAL) + cut(HELLO, 3) + text(HELLO) + text(AGAIN))
        assert await peer.close_code() == 1002
        await scene.first(WebSocketClose, id)
        assert [event.data for event in scene.seen.of(WebSocketReceive, id)] == ["Hello"] * 4
