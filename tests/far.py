"""The far end of a socket for tests that drive the loop by hand: it never waits, and keeps an account."""

from __future__ import annotations

import socket
import struct
import zlib

from .model import Account, Data, Outcome
from .peer import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, request

TAIL = b"\0\0\xff\xff"


class Far:
    """A client that sends and reads as much as it can without waiting.

    Args:
        address: of the host.
        target: of the request; tells this socket from all others.
        deflate: offer permessage-deflate.

    Attributes:
        account: what went over the wire.
        status: of the answer; 0 while there is none.
        ended: whether the host has ended the stream, or it is lost.
        left: whether this end can send no more.
        silent: whether it has nothing more to say: it closed, or broke the rules.
        reading: whether it reads at all.
        singly: whether it sends one byte at a time.
        closing: the code of the close frame that it sent.
        closed_with: the codes of the host's close frames.
        pongs: payloads of pings that are not answered yet.
        unread: bytes that the program has sent since it read all.
        full: whether so much waits for it that the host may have dropped it.
        early: bytes that it sent before it had an answer, the request included.
        possible: what its upgrade may have become; one unless it left before it was answered.
    """

    def __init__(self, address: tuple[str, int], target: str, deflate: bool) -> None:
        self.target = target
        self.account = Account()
        self.status = 0
        self.ended = self.left = self.silent = False
        self.reading = True
        self.singly = False
        self.closing: list[int] = []
        self.closed_with: list[int] = []
        self.pongs: list[bytes] = []
        self.unread = self.early = 0
        self.full = False
        self.possible: set[Outcome] = set()
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)  # Little is on the way.
        self.sock.connect(address)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out = bytearray()
        self._in = bytearray()
        self._message: tuple[int, bool, bytearray] | None = None
        self._unpacker = zlib.decompressobj(wbits=-15)
        extra = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
        self.put(request(target, f"{address[0]}:{address[1]}", extra=extra))

    # What it does.

    def put(self, data: bytes) -> None:
        """Send bytes, soon."""
        if not self.left:
            self._out += data
            self.early += 0 if self.status else len(data)

    def say(self, data: Data, pieces: int = 1) -> None:
        """Send a message, in so many frames."""
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        size = -(-len(payload) // pieces) or 1
        parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        for index, part in enumerate(parts):
            self.put(frame(CONT if index else opcode, part, fin=index == len(parts) - 1))
        self.account.sent.append(data)

    def begin(self, text: str) -> None:
        """Send a piece of a text, the first or another."""
        begun = self.account.begun
        assert not isinstance(begun, bytes)
        self.put(frame(TEXT if begun is None else CONT, text, fin=False))
        self.account.begun = (begun or "") + text

    def finish_message(self) -> None:
        """Send the last piece."""
        begun = self.account.begun
        assert isinstance(begun, str)
        self.put(frame(CONT, "."))
        self.account.sent.append(begun + ".")
        self.account.begun = None

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        self.put(frame(PING, payload))
        self.pongs.append(payload)

    def close(self, code: int | None) -> None:
        """Send a close frame; the first one counts."""
        self.put(frame(CLOSE, b"" if code is None else struct.pack("!H", code) + b"bye"))
        self.closing.append(1005 if code is None else code)
        self.account.codes = self.account.codes or {self.closing[0]}
        self.silent = True

    def half_close(self) -> None:
        """Send what waits, and end this direction."""
        self.flush()
        if not self.left:
            self.left = self.silent = True
            self.account.lost()
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._lost()

    def reset(self) -> None:
        """End the connection with a reset."""
        if self.ended:  # The system has nobody to tell.
            self.left = self.silent = True
        else:
            self.account.lossy_in = True
            self.account.lost()
            # What it said last may have been read, or not.
            self.account.codes |= {1006}
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self._lost()

    def flush(self) -> None:
        """Send all that waits, or as much as the system takes."""
        self.singly = False
        self.turn()

    # Its turn.

    def turn(self) -> None:
        """Send and read what is possible now."""
        if self.sock.fileno() < 0:
            return
        try:
            self._send()
            if self.reading and not self.ended:
                self._receive()
        except BlockingIOError:
            pass
        except OSError:
            self.account.lossy_out = True
            self._lost()

    @property
    def waits(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._out)

    def _send(self) -> None:
        while self._out and not self.left:
            try:
                sent = self.sock.send(self._out[:1] if self.singly else self._out)
            except BlockingIOError:
                return
            del self._out[:sent]
            if self.singly:
                return

    def _lost(self) -> None:
        self.ended = self.left = self.silent = True
        self._out.clear()
        if self.sock.fileno() >= 0:
            self.sock.close()

    def _receive(self) -> None:
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                break
            if not data:
                self.ended = True
                break
            self._in += data
        if not self.status:
            self._read_head()
        while self.status == 101 and self._read_frame():
            pass
        if self.ended:
            self._lost()

    def _read_head(self) -> None:
        end = self._in.find(b"\r\n\r\n")
        if end >= 0:
            self.status = int(self._in[9:12])
            del self._in[: end + 4]

    def _read_frame(self) -> bool:
        data = self._in
        if len(data) < 2:
            return False
        size, at = data[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            return False
        first, payload = data[0], bytes(data[at : at + size])
        del data[: at + size]
        # A ping that came before its close is still answered (section 5.5.2).
        assert not self.closed_with or first & 15 == PONG, "a frame after the close frame"
        self._take(first & 15, bool(first & 0x80), bool(first & 0x40), payload)
        return True

    def _take(self, opcode: int, fin: bool, packed: bool, payload: bytes) -> None:
        if opcode == CLOSE:
            self.closed_with.append(int.from_bytes(payload[:2], "big") if payload else 1005)
            if not self.silent:
                self.close(self.closed_with[0] if payload else None)
        elif opcode == PONG:
            assert payload == self.pongs.pop(0), "not the pong that was due"
        elif opcode == PING:
            self.put(frame(PONG, payload))
        else:
            self._take_data(opcode, fin, packed, payload)

    def _take_data(self, opcode: int, fin: bool, packed: bool, payload: bytes) -> None:
        assert (opcode == CONT) is (self._message is not None)
        if self._message is None:
            self._message = (opcode, packed, bytearray())
        kind, packed, whole = self._message
        whole += payload
        if not fin:
            return
        self._message = None
        data = self._unpacker.decompress(bytes(whole) + TAIL) if packed else bytes(whole)
        self.account.got.append(data.decode() if kind == TEXT else data)
