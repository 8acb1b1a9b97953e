"""Frames: whatever comes, however it is cut, gives what websockets' core alone gives; and what goes out."""

from __future__ import annotations

import itertools
import logging
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode
from websockets.protocol import Protocol as Core
from websockets.protocol import Side

from interceptor.frames import LARGE, SLICE, Frames, Shared
from interceptor.messages import Inflate, Message, Messages, Utf8

from .peer import BINARY, CLOSE, CONT, MASK, PING, PONG, TEXT, close_frame, frame

LIMIT = 100_000
BOTH = pytest.mark.parametrize("deflating", [False, True], ids=["plain", "deflate"])


def extensions(deflating: bool) -> list[PerMessageDeflate]:
    return [PerMessageDeflate(False, False, 12, 12, {"memLevel": 4})] if deflating else []


class Outcome(NamedTuple):
    """What came of a stream of bytes: messages, pongs, bytes to send, and how the core stands."""

    messages: list[Message]
    pongs: list[bytes]
    writes: bytes
    state: str
    close_rcvd: Close | None
    close_sent: Close | None
    fault: str


def outcome(core: Core, messages: list[Message], pongs: list[bytes], writes: bytes) -> Outcome:
    fault = type(core.parser_exc).__name__
    return Outcome(messages, pongs, writes, core.state.name, core.close_rcvd, core.close_sent, fault)


def by_the_core(data: bytes, deflating: bool, chunks: bool) -> Outcome:
    """What the core gives of all at once, with nothing of ours but Inflate and the check of UTF-8."""
    extra = LIMIT // 64 + 64 if deflating else 0
    core = Core(Side.SERVER, max_size=LIMIT + extra, logger=logging.getLogger("reference"))
    utf8 = Utf8(lambda: setattr(core, "current_size", None))
    core.extensions = [utf8, *(Inflate(deflate, extra) for deflate in extensions(deflating))]
    assembled, messages, pongs = Messages(utf8.texts, chunks), [], []
    core.receive_data(data)
    for event in core.events_received():
        assert not hasattr(event, "headers")
        if event.opcode is Opcode.PONG:
            pongs.append(bytes(event.data))
        elif event.opcode in (CONT, TEXT, BINARY) and (message := assembled.take(event)):
            messages.append(message)
    return outcome(core, messages, pongs, b"".join(core.data_to_send()))


class End:
    """Frames, and what they gave."""

    def __init__(self, deflating: bool = False, *, chunks: bool = False, client: bool = False) -> None:
        self.messages: list[Message] = []
        self.pongs: list[bytes] = []
        self.written = b""
        self.hold_after = -1
        self.frames = Frames(
            extensions(deflating),
            LIMIT,
            chunks=chunks,
            client=client,
            deliver=self.deliver,
            pong=self.pongs.append,
        )

    def deliver(self, data: str | bytes, fin: bool, datatype: object) -> None:
        assert datatype in (1, 2)
        self.messages.append((data, fin, 1 if datatype == 1 else 2))
        self.frames.held = len(self.messages) == self.hold_after

    def take(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.frames.receive(piece)
        self.written += b"".join(self.frames.take_writes())

    def outcome(self) -> Outcome:
        return outcome(self.frames.core, self.messages, self.pongs, self.written)


# --- whatever comes -----------------------------------------------------------------------------------------


def packed(payload: bytes) -> bytes:
    """What permessage-deflate makes of a payload, for itself."""
    packer = zlib.compressobj(wbits=-12)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def raw_frame(first: int, payload: bytes, masked: bool, width: int) -> bytes:
    """A frame with any first byte, and a length field at least so wide."""
    size = len(payload)
    width = max(width, 0 if size < 126 else 2 if size < 65536 else 8)
    short = {0: size, 2: 126, 8: 127}[width]
    field = size.to_bytes(width, "big") if width else b""
    key = (MASK * (size // 4 + 1))[:size]
    body = bytes(a ^ b for a, b in zip(payload, key, strict=True)) if masked else payload
    return bytes((first, short | (0x80 if masked else 0))) + field + (MASK if masked else b"") + body


PAYLOADS = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=40),
    st.binary(max_size=40).map(packed),
    st.text(max_size=40).map(lambda text: packed(text.encode())),
    st.sampled_from(
        [b"", b"x" * 125, b"y" * 126, b"\xc3", b"\xff" * 300, bytes(LARGE), "é".encode() * LARGE]
    ),
    st.sampled_from([bytes(65536), bytes(LIMIT + 1), packed(bytes(LIMIT)), packed(bytes(LIMIT + 1))]),
    st.integers(0, 5000).map(lambda code: code.to_bytes(2, "big") + b"why"),
)
USUAL = st.sampled_from([0x81, 0x82, 0xC1, 0xC2, 0x01, 0x02, 0x41, 0x42, 0x00, 0x80, 0x89, 0x8A])
FIRST = st.one_of(USUAL, USUAL, USUAL, st.just(0x88), st.integers(0, 255))
WIRE_FRAMES = st.builds(
    raw_frame, FIRST, PAYLOADS, st.sampled_from([True] * 20 + [False]), st.sampled_from([0] * 8 + [2, 8])
)
STREAMS = st.builds(
    lambda parts, lost: b"".join(parts)[: -lost or None], st.lists(WIRE_FRAMES, max_size=8), st.integers(0, 3)
)


def cuts(data: bytes, places: list[float]) -> Iterator[bytes]:
    """The data, cut at these places, which are parts of its length."""
    ends = sorted({int(place * len(data)) for place in places} | {0, len(data)})
    yield from (data[start:end] for start, end in itertools.pairwise(ends))


@BOTH
@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "chunks"])
@settings(deadline=None, max_examples=400)
@given(data=STREAMS, places=st.lists(st.floats(0, 1), max_size=6))
@example(data=frame(TEXT, "x", mask=None), places=[])
@example(data=frame(BINARY, bytes(LIMIT + 1)), places=[])
@example(data=frame(TEXT, b"\xc3") + frame(TEXT, "x"), places=[])
@example(data=b"\x82\xff" + b"\x80" + bytes(11), places=[0.5])
@example(data=frame(TEXT, "a", fin=False) + frame(TEXT, "b"), places=[0.4])
@example(data=frame(TEXT, "a", fin=False) + frame(PING, "b") + frame(CONT, "c") + frame(TEXT, "d"), places=[])
@example(data=frame(BINARY, bytes(3 * SLICE)) + frame(TEXT, "é" * SLICE), places=[0.1, 0.7])
def test_the_same_as_by_the_core_however_it_is_cut(
    deflating: bool, chunks: bool, data: bytes, places: list[float]
) -> None:
    end = End(deflating, chunks=chunks)
    end.take(*cuts(data, places))
    assert end.outcome() == by_the_core(data, deflating, chunks)


@BOTH
@settings(deadline=None, max_examples=30)
@given(data=st.lists(WIRE_FRAMES, max_size=5).map(b"".join).filter(lambda data: len(data) < 3000))
def test_the_same_byte_by_byte(deflating: bool, data: bytes) -> None:
    end = End(deflating)
    end.take(*(data[index : index + 1] for index in range(len(data))))
    assert end.outcome() == by_the_core(data, deflating, chunks=False)


@BOTH
@settings(deadline=None, max_examples=200)
@given(data=STREAMS, places=st.lists(st.floats(0, 1), max_size=4), after=st.integers(1, 4))
def test_what_is_held_comes_later_and_nothing_is_lost(
    deflating: bool, data: bytes, places: list[float], after: int
) -> None:
    end = End(deflating)
    end.hold_after = after
    expected = by_the_core(data, deflating, chunks=False)
    end.take(*cuts(data, places))
    assert end.messages == expected.messages[:after]
    end.frames.held = False
    end.take(b"")
    assert end.outcome() == expected


# --- holding ------------------------------------------------------------------------------------------------


def test_held_it_delivers_no_message_more() -> None:
    end = End()
    end.hold_after = 2
    end.take(frame(TEXT, "1") + frame(TEXT, "2") + frame(TEXT, "3") + close_frame(1000))
    assert (end.messages, end.frames.waiting) == ([("1", True, 1), ("2", True, 1)], True)
    end.take(frame(TEXT, "lost"))
    assert end.frames.core.close_rcvd is None
    end.frames.drop()
    end.frames.held = False
    end.take(b"")
    assert (len(end.messages), end.frames.waiting) == (2, False)


def test_a_piece_of_a_frame_does_not_wait_for_anybody() -> None:
    end = End()
    end.take(frame(TEXT, "cut")[:3])
    assert not end.frames.waiting
    end.take(frame(BINARY, bytes(LARGE))[:100])
    assert not end.frames.waiting


def test_a_message_byte_by_byte_takes_its_own_size() -> None:
    """Each byte kept for itself would take forty times as much."""
    end, size = End(), LIMIT - 1
    data = frame(BINARY, bytes(range(256)) * (size // 256))
    pieces = [data[index : index + 1] for index in range(len(data))]
    tracemalloc.start()
    try:
        for piece in itertools.islice(pieces, len(pieces) - 1):
            end.frames.receive(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    end.take(pieces[-1])
    assert peak < 2 * size
    assert end.messages == [(bytes(range(256)) * (size // 256), True, 2)]


@pytest.mark.parametrize("client", [False, True])
def test_no_limit_is_a_limit_too(client: bool) -> None:
    got: list[object] = []
    frames = Frames(
        extensions(True),
        sys.maxsize,
        chunks=False,
        client=client,
        deliver=lambda data, fin, datatype: got.append(data),
        pong=got.append,
    )
    mask = None if client else MASK
    frames.receive(frame(TEXT, packed(b"packed"), rsv=4, mask=mask) + frame(TEXT, "plain", mask=mask))
    assert got == ["packed", "plain"]


def test_to_hold_after_each_message_copies_nothing() -> None:
    count = 0

    def deliver(data: str | bytes, fin: bool, datatype: object) -> None:
        nonlocal count
        count += 1
        frames.held = True

    frames = Frames([], LIMIT, chunks=False, client=False, deliver=deliver, pong=lambda payload: None)
    data = frame(TEXT, "x" * 100) * 4000
    tracemalloc.start()
    try:
        frames.receive(data)
        while frames.waiting:
            frames.held = False
            frames.receive()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4000
    assert peak < len(data) / 10


# --- out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_what_goes_out_is_what_the_core_would_send(size: int, opcode: int) -> None:
    end, core = End(), Core(Side.SERVER)
    end.frames.send(b"x" * size, 1 if opcode == TEXT else 2, True)
    (core.send_text if opcode == TEXT else core.send_binary)(b"x" * size)
    assert b"".join(end.frames.take_writes()) == b"".join(core.data_to_send())


def test_what_goes_out_keeps_its_order() -> None:
    end = End()
    end.take(frame(PING, "1"))
    end.frames.send(b"2", 1, True)
    end.frames.send(b"3", 2, False)
    end.frames.ping(b"4")
    end.frames.send(b"5", 0, True)
    end.frames.add(end.frames.share(Shared(b"6", 1)))
    end.frames.close(3000, "7")
    written = end.written + b"".join(end.frames.take_writes())
    expected = [(PONG, b"1", True), (TEXT, b"2", True), (BINARY, b"3", False), (PING, b"4", True)]
    expected += [(CONT, b"5", True), (TEXT, b"6", True), (CLOSE, b"\x0b\xb87", True)]
    assert written == b"".join(frame(opcode, data, fin=fin, mask=None) for opcode, data, fin in expected)


@pytest.mark.parametrize("size", [65536, 100])
def test_a_length_of_zero_bytes_is_complete(size: int) -> None:
    end = End()
    end.take(frame(TEXT)[:2], frame(TEXT)[2:], frame(BINARY, bytes(size)))
    assert end.messages == [("", True, 1), (bytes(size), True, 2)]


def test_a_client_masks() -> None:
    end = End(client=True)
    end.frames.send(b"secret", 1, True)
    [data] = end.frames.take_writes()
    assert data[1] & 0x80
    server = End()
    server.take(bytes(data))
    assert server.messages == [("secret", True, 1)]
