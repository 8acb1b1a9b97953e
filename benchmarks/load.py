"""The client of the benchmarks: raw sockets, frames made beforehand, replies counted by their bytes.

A client that parsed every frame would cost more than some of the servers. This one checks each server's echo
byte for byte before and after a measurement (`check_echo`, `Client.close`) and in between only counts: an
unfragmented reply has a known length (RFC 6455, section 5.2), so the number of bytes gives that of the
messages, however they arrive. Compressed replies have no known length; deflate.py has the client for those.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

TEXT, BINARY, CLOSE = 1, 2, 8
MASK = bytes.fromhex("37fa213d")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE_1000 = (1000).to_bytes(2, "big")
STALL = 10.0  # seconds without a byte after which a server counts as hung
BUFFER = 256 * 1024
READ, READ_WRITE = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE


class BenchmarkError(Exception):
    """A server did not start, did not echo rightly or fell silent: its figures would mean nothing."""


def length_field(size: int, masked: int) -> bytes:
    """The second and following bytes of a frame's head, RFC 6455 section 5.2."""
    if size < 126:
        return bytes([masked | size])
    if size < 1 << 16:
        return bytes([masked | 126]) + size.to_bytes(2, "big")
    return bytes([masked | 127]) + size.to_bytes(8, "big")


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A whole message in one frame, masked with the fixed mask."""
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return bytes([0x80 | opcode]) + length_field(len(payload), 0x80) + MASK + masked


def server_frame(opcode: int, payload: bytes) -> bytes:
    """The one right echo of a message, byte for byte."""
    return bytes([0x80 | opcode]) + length_field(len(payload), 0) + payload


@dataclass(frozen=True)
class Message:
    """A message, ready to be sent, and the echo that must come back."""

    opcode: int
    payload: bytes
    frame: bytes = field(init=False, repr=False)
    reply: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", client_frame(self.opcode, self.payload))
        object.__setattr__(self, "reply", server_frame(self.opcode, self.payload))


def binary_message(size: int) -> Message:
    """Random bytes, the same in every run."""
    return Message(BINARY, random.Random(size).randbytes(size))


def ascii_message(size: int) -> Message:
    """Letters only, which is what most text on WebSockets is."""
    return Message(TEXT, bytes(random.Random(size).choices(b"abcdefghijklmnopqrstuvwxyz ", k=size)))


def unicode_message(size: int) -> Message:
    """Text with characters of one to four bytes each, `size` bytes in all."""
    return Message(TEXT, ("aé€😀" * (size // 10) + "x" * (size % 10)).encode())


def request_head(port: int, key: bytes, offer: bytes = b"", path: str = "/") -> bytes:
    """An opening handshake without Origin; nobody compresses unless an extension is offered."""
    extensions = b"Sec-WebSocket-Extensions: %s\r\n" % offer if offer else b""
    return (
        b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
        % (path.encode(), port, key, extensions)
    )


def accept_key(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key, RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def check_response(head: bytes, key: bytes) -> bytes:
    """Raise unless this is a 101 with the right Accept; return the extensions that it agrees to."""
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
    if (
        not head.startswith(b"HTTP/1.1 101 ")
        or fields.get(b"sec-websocket-accept") != accept_key(key).lower()
    ):
        raise BenchmarkError(f"no right 101 but {head!r}")
    return fields.get(b"sec-websocket-extensions", b"")


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes; raises where the connection ends before them."""
    received = bytearray()
    while len(received) < size:
        data = sock.recv(min(size - len(received), BUFFER))
        if not data:
            raise BenchmarkError(f"connection ended after {len(received)} of {size} bytes")
        received += data
    return bytes(received)


def receive_head(sock: socket.socket) -> bytes:
    """The next head, byte by byte: nothing after it may be taken with it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += receive_exactly(sock, 1)
    return head


def open_tunnel(port: int, through: int | None, source: str = "") -> socket.socket:
    """A connection to a port of this machine, by a proxy on another (CONNECT) if that is given."""
    sock = socket.create_connection(("127.0.0.1", through or port), STALL, (source, 0) if source else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if through is not None:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port))
        head = receive_head(sock)
        if head.split(b" ")[1] != b"200":
            raise BenchmarkError(f"no tunnel but {head!r}")
    return sock


class Client:
    """One open WebSocket of the client.

    It keeps up to `window` messages in flight. All counting is in whole messages, save `received` (bytes).

    Args:
        port: of the server.
        through: port of a proxy.
        path: of the URL.
        source: loopback address that it comes from, where that is not the usual one.
    """

    offer = b""

    def __init__(self, port: int, through: int | None = None, path: str = "/", source: str = "") -> None:
        self.sock = open_tunnel(port, through, source)
        try:
            self.shake_hands(port, path)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def shake_hands(self, port: int, path: str) -> None:
        """Have the connection be a WebSocket."""
        key = base64.b64encode(os.urandom(16))
        self.sock.sendall(request_head(port, key, self.offer, path))
        self.agree(check_response(receive_head(self.sock), key))

    def agree(self, extensions: bytes) -> None:
        """Take what the server agreed to."""
        if extensions:
            raise BenchmarkError(f"an extension that was not offered: {extensions!r}")

    def prepare(self, message: Message, window: int) -> None:
        """Get ready to send `message` again and again, `window` of them in flight."""
        self.frame_size, self.reply_size = len(message.frame), len(message.reply)
        self.batch = memoryview(message.frame * window)
        self.unsent = self.batch[:0]
        self.due = self.answered = self.received = 0

    def send_due(self) -> bool:
        """Send what is due, as far as the socket takes it; return whether all of it went out."""
        while self.unsent or self.due:
            if not self.unsent:
                self.unsent = self.next_frames(self.due)
                self.due = 0
            try:
                sent = self.sock.send(self.unsent)
            except BlockingIOError:
                return False
            self.unsent = self.unsent[sent:]
        return True

    def next_frames(self, count: int) -> memoryview:
        """The frames of the next messages."""
        return self.batch[: count * self.frame_size]

    def receive(self, buffer: bytearray) -> int:
        """Take the bytes that are there; return how many messages they complete."""
        count = self.sock.recv_into(buffer)
        if not count:
            raise BenchmarkError("the server ended the connection while it was measured")
        self.received += count
        answered = self.received // self.reply_size - self.answered
        self.answered += answered
        return answered

    def exchange(self, messages: Sequence[Message]) -> None:
        """Send the messages in one piece; raise unless their echoes come back, in order, byte for byte."""
        self.sock.settimeout(STALL)
        self.sock.sendall(b"".join(message.frame for message in messages))
        for message in messages:
            reply = receive_exactly(self.sock, len(message.reply))
            if reply != message.reply:
                what = f"opcode {message.opcode}, {len(message.payload)} bytes"
                raise BenchmarkError(f"wrong echo of {what}: {reply[:40]!r}...")

    def check(self) -> None:
        """Raise unless the echoes' bytes came and not one more; nothing may be in flight."""
        if surplus := self.received - self.answered * self.reply_size:
            raise BenchmarkError(f"{surplus} bytes more than the echoes have")

    def prove(self) -> None:
        """Raise unless the server still echoes rightly: a byte too many or too few before shows here."""
        self.exchange([binary_message(77), unicode_message(77)])

    def close(self, exact: bool = True) -> None:
        """End the socket; where `exact`, with a proof that all was right."""
        if exact:
            self.prove()
        self.sock.settimeout(STALL)
        self.sock.sendall(client_frame(CLOSE, CLOSE_1000))
        answer = receive_exactly(self.sock, 4)
        if answer != server_frame(CLOSE, CLOSE_1000):
            raise BenchmarkError(f"wrong answer to a close frame: {answer!r}")
        self.sock.close()


def check_echo(port: int, sizes: Iterable[int], through: int | None = None) -> None:
    """Raise unless the server echoes text and binary of these and of awkward sizes, alone and in a row."""
    with Client(port, through) as client:
        for size in sorted({0, 1, 125, 126, 65535, 65536, *sizes}):
            client.exchange([binary_message(size)])
            client.exchange([unicode_message(size)])
        kinds = (binary_message, unicode_message)
        client.exchange([make(size) for size in (32, 0, 1024, 126) for make in kinds])
        client.close()


@dataclass(frozen=True)
class Sample:
    """What one measurement of one server gave.

    Attributes:
        messages: echoed messages, each counted once.
        seconds: time from the first send to the last reply.
        client_seconds: processor time that the client used in it.
        server_seconds: processor time that the server used in it, or None where the system does not tell.
        latencies: nanoseconds of each round trip, sorted; empty unless one message was in flight at a time.
    """

    messages: int
    seconds: float
    client_seconds: float
    server_seconds: float | None = None
    latencies: Sequence[int] = field(default=(), repr=False)

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds

    @property
    def client_cost(self) -> float:
        """Microseconds of the client's processor time per message."""
        return self.client_seconds / self.messages * 1e6

    @property
    def server_cost(self) -> float | None:
        """Microseconds of the server's processor time per message, or None where it is not known."""
        return None if self.server_seconds is None else self.server_seconds / self.messages * 1e6

    def percentile(self, fraction: float) -> float | None:
        """A latency in microseconds, or None where none was taken."""
        if not self.latencies:
            return None
        return self.latencies[min(len(self.latencies) - 1, int(fraction * len(self.latencies)))] / 1000


def measure_one(client: Client, seconds: float) -> Sequence[int]:
    """One message in flight: send, wait for its whole echo, send the next; the times, in nanoseconds."""
    clock, sock, size = time.perf_counter_ns, client.sock, client.reply_size
    frame, buffer, latencies = client.batch[: client.frame_size], bytearray(BUFFER), []
    missing, now = 0, clock()
    end = now + int(seconds * 1e9)
    while now < end:
        sock.sendall(frame)
        missing += size  # less than 0 before, and so at the end, where more has come than the echo
        while missing > 0:
            missing -= sock.recv_into(buffer) or fail_ended()
        latencies.append(clock() - now)
        now = clock()
    if missing:
        raise BenchmarkError(f"{-missing} bytes more than the echoes have")
    return latencies


def fail_ended() -> int:
    """Raise because the server has gone."""
    raise BenchmarkError("the server ended the connection while it was measured")


def measure_many(clients: Sequence[Client], window: int, seconds: float) -> int:
    """Several sockets, `window` messages in flight on each; every echo is followed by the next message."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.sock.setblocking(False)
            client.due = window
            selector.register(client.sock, READ_WRITE, client)
        return pump(selector, window * len(clients), time.perf_counter() + seconds)


def pump(selector: selectors.BaseSelector, in_flight: int, end: float) -> int:
    """Keep the messages going until `end`, then wait for those in flight; return how many came back."""
    buffer, clock, messages = bytearray(BUFFER), time.perf_counter, 0
    while in_flight:
        ready = selector.select(STALL)
        if not ready:
            raise BenchmarkError(f"{in_flight} messages were not answered within {STALL} s")
        again = clock() < end
        for key, events in ready:
            client: Client = key.data
            if events & READ:
                answered = client.receive(buffer)
                messages += answered
                if again:
                    client.due += answered
                else:
                    in_flight -= answered
            wanted = READ if client.send_due() else READ_WRITE
            if wanted != key.events:
                selector.modify(client.sock, wanted, client)
    return messages


@dataclass(frozen=True)
class Load:
    """What is sent: which message, on how many sockets, how many in flight on each, for how many seconds."""

    message: Message
    sockets: int
    window: int
    seconds: float
    client: Callable[[int, int | None], Client] = Client


def measure(
    port: int,
    load: Load,
    server_clock: Callable[[], float | None],
    exact: bool = True,
    through: int | None = None,
) -> Sample:
    """Open the sockets, warm up for a quarter of the time, measure, and check what came at the end.

    Args:
        server_clock: the processor time, in seconds, of what is measured: the server, or the proxy.
        exact: whether the server echoes contents, not only counts.
        through: port of the proxy that the sockets are opened by.
    """
    clients = [load.client(port, through) for _ in range(load.sockets)]
    for client in clients:
        client.prepare(load.message, load.window)
    run_load(clients, load, load.seconds / 4)
    before = server_clock()
    used, start = time.process_time(), time.perf_counter()
    messages, latencies = run_load(clients, load, load.seconds)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    after = server_clock()
    for client in clients:
        client.check()
        client.close(exact)
    served = None if before is None or after is None else after - before
    return Sample(messages, seconds, used, served, sorted(latencies))


def run_load(clients: Sequence[Client], load: Load, seconds: float) -> tuple[int, Sequence[int]]:
    """Put the load on for so long; return how many messages were echoed, and their latencies if taken."""
    if load.sockets == load.window == 1:
        latencies = measure_one(clients[0], seconds)
        return len(latencies), latencies
    return measure_many(clients, load.window, seconds), ()
