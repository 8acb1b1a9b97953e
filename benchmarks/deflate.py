"""The client for permessage-deflate (RFC 7692); it sends JSON that differs a bit from message to message.

Its frames are made beforehand, each message compressed for itself, which any server must take. The replies
may build on those before them, so that their sizes vary: the client counts frames, keeps what came, and when
the clock has stopped it inflates every reply and compares it with what was sent.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import zlib
from collections.abc import Sequence

from benchmarks.load import (
    BUFFER,
    STALL,
    TEXT,
    BenchmarkError,
    Client,
    Message,
    client_frame,
)

SIZE = 1024
POOL = 64  # different messages; each socket sends them in turn
OFFER = b"permessage-deflate; client_max_window_bits"  # as browsers do
WINDOW_BITS = 10  # holds a whole message
TAIL = b"\x00\x00\xff\xff"  # the end of a message that is not sent, RFC 7692 section 7.2.1
PLAIN, COMPRESSED = 0x80 | TEXT, 0xC0 | TEXT  # the first byte of a text message in one frame
NAMES = ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Ken Iverson", "Barbara Liskov", "Edsger Dijkstra")
NOTE = (
    "Leave it at the back door and ring twice. The driver calls before he comes, and takes back the old one. "
)
NOTE *= 2
STATES = ("open", "pending", "shipped", "returned")


class NotAgreed(BenchmarkError):
    """A server does not agree to permessage-deflate."""


def made_order(number: int, chance: random.Random) -> dict[str, object]:
    """One entry of a message."""
    return {
        "id": f"{chance.getrandbits(32):08x}",
        "customer": chance.choice(NAMES),
        "state": chance.choice(STATES),
        "quantity": chance.randint(1, 99),
        "price": round(chance.uniform(1, 500), 2),
        "changed": f"2026-05-17T09:{number % 60:02}:{chance.randint(0, 59):02}Z",
    }


@functools.cache
def json_text(number: int) -> bytes:
    """A message of an application, 1 KiB to the byte."""
    chance = random.Random(number)
    orders = [made_order(number, chance) for _ in range(6)]
    record = {
        "type": "orders",
        "channel": "warehouse-7",
        "sequence": 40_000 + number,
        "orders": orders,
        "note": "",
    }
    missing = SIZE - len(json.dumps(record))
    assert 0 <= missing <= len(NOTE)
    record["note"] = NOTE[:missing]
    return json.dumps(record).encode()


def compressed(payload: bytes) -> bytes:
    """A payload as RFC 7692 section 7.2.1 has it, of a context of its own."""
    deflate = zlib.compressobj(wbits=-WINDOW_BITS)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def compressed_frame(payload: bytes) -> bytes:
    """A client's text message with the bit that says that it is compressed."""
    frame = client_frame(TEXT, compressed(payload))
    return bytes([COMPRESSED]) + frame[1:]


@functools.cache
def ring() -> tuple[memoryview, Sequence[int]]:
    """The frames of all messages, twice in a row, and where each begins."""
    frames = [compressed_frame(json_text(number)) for number in range(POOL)] * 2
    return memoryview(b"".join(frames)), [0, *itertools.accumulate(map(len, frames))]


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut what a server sent into whole frames, each its first byte and then its payload, and the rest."""
    frames, start, end = [], 0, len(data)
    while start + 2 <= end:
        width = {126: 2, 127: 8}.get(data[start + 1], 0)
        body = start + 2 + width
        length = int.from_bytes(data[start + 2 : body], "big") if width else data[start + 1]
        if body + length > end:
            break
        frames.append(data[start : start + 1] + data[body : body + length])
        start = body + length
    return frames, data[start:]


class Inflater:
    """Unpacks the messages of one server's end, whether each builds on those before it or not.

    Attributes:
        plain: messages that were not compressed.
        size: bytes of all payloads as they came.
    """

    def __init__(self) -> None:
        self.inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self.plain = self.size = 0

    def unpack(self, frame: bytes) -> bytes:
        """The text of a frame as `split_frames` gives it."""
        self.size += len(frame) - 1
        if frame[0] == PLAIN:
            self.plain += 1
            return frame[1:]
        if frame[0] != COMPRESSED:
            raise BenchmarkError(f"no whole text message but {frame[:40]!r}...")
        try:
            return self.inflate.decompress(frame[1:] + TAIL)
        except zlib.error as exc:
            raise BenchmarkError(f"a reply that cannot be inflated: {exc}") from exc


class JsonClient(Client):
    """One open WebSocket that sends the messages of `ring` in turn.

    Args:
        deflate: offer permessage-deflate; without it the client only listens, for `ring` is compressed.
    """

    def __init__(self, port: int, through: int | None = None, deflate: bool = True) -> None:
        self.offer = OFFER if deflate else b""
        self.inflater = Inflater()
        self.frames: list[bytes] = []
        self.rest = b""
        self.sent = self.checked = 0
        super().__init__(port, through)

    def agree(self, extensions: bytes) -> None:
        """Take what the server agreed to, which must let a message of 1 KiB be compressed at all."""
        if not self.offer:
            super().agree(extensions)
        elif not extensions.startswith(b"permessage-deflate"):
            raise NotAgreed("it does not agree to permessage-deflate")
        bits = re.search(rb"client_max_window_bits=(\d+)", extensions)
        if bits and int(bits[1]) < WINDOW_BITS:
            raise NotAgreed(f"it lets the client have a window of {int(bits[1])} bits only")

    def prepare(self, message: Message, window: int) -> None:
        """Get ready to send; the messages are this client's own."""
        super().prepare(message, window)
        self.batch, self.starts = ring()
        self.unsent = self.batch[:0]

    def next_frames(self, count: int) -> memoryview:
        """The frames of the next messages of the ring."""
        start = self.sent % POOL
        self.sent += count
        return self.batch[self.starts[start] : self.starts[start + count]]

    def receive(self, buffer: bytearray) -> int:
        """Take what is there; return how many messages it completes."""
        data = self.sock.recv(BUFFER)
        if not data:
            raise BenchmarkError("the server ended the connection while it was measured")
        frames, self.rest = split_frames(self.rest + data if self.rest else data)
        self.frames += frames
        return len(frames)

    def check(self) -> None:
        """Raise unless every message came back, inflated byte for byte, and nothing more."""
        for frame in self.frames:
            if self.inflater.unpack(frame) != json_text(self.checked % POOL):
                raise BenchmarkError(f"message {self.checked} came back changed")
            self.checked += 1
        self.frames.clear()
        if self.checked != self.sent or self.rest:
            raise BenchmarkError(
                f"{self.checked} of {self.sent} messages came back, and {len(self.rest)} bytes"
            )

    def prove(self) -> None:
        """Send all messages once, in one piece, and check what comes back."""
        self.sock.settimeout(STALL)
        due = POOL
        self.sock.sendall(self.next_frames(POOL))
        while due > 0:
            due -= self.receive(bytearray())
        self.check()


def check_deflate(port: int) -> tuple[float, bool]:
    """Raise unless a server echoes what is compressed; return bytes of a reply, and whether it compresses."""
    with JsonClient(port) as client:
        client.prepare(Message(TEXT, b""), 1)
        client.prove()
        client.close()
    return client.inflater.size / client.checked, not client.inflater.plain
