"""What tunnels cost a proxy in memory: many that are idle, and one whose reader is slow."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from benchmarks.conditions import progress
from benchmarks.load import BUFFER, STALL, BenchmarkError, Client, binary_message, open_tunnel
from benchmarks.processes import ServerProcess

OTHER_FILES = 100  # that a process has open besides its sockets
MIB = 1024 * 1024
PIECE = bytes(MIB)
PAUSE = 0.001  # seconds that a slow reader rests after each read
SETTLED = 0.2  # seconds without progress after which a sender counts as held back
WARM = 50  # tunnels opened and closed beforehand, so that what is made once is not counted


@dataclass(frozen=True)
class HeldBack:
    """What a slow reader cost.

    Attributes:
        growth: bytes by which the proxy's memory grew at most; None where the system does not tell.
        ahead: bytes that were sent before the reader took the first one, the system's buffers included.
    """

    growth: int | None
    ahead: int


def allow_files(count: int) -> int:
    """Let this process and those that it starts open so many files; return how many the system allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def need_files(count: int, spare: int = 0) -> None:
    """Let this process and those that it starts open so many files, and a few to spare.

    Raises:
        BenchmarkError: the system does not allow so many.
    """
    allowed = allow_files(count + spare)
    if allowed < count:
        raise BenchmarkError(
            f"{count:,} open files are needed and the system allows {allowed:,}: "
            "raise its limit (ulimit -Hn), or have fewer sockets (--sockets)"
        )


def allowed_sockets(wanted: int) -> int:
    """How many of so many sockets can be open in one process; says so where the system allows fewer."""
    allowed = allow_files(wanted + OTHER_FILES) - OTHER_FILES
    if allowed < wanted:
        progress(
            f"{allowed:,} sockets instead of {wanted:,}: the system allows no more files (RLIMIT_NOFILE)"
        )
    return allowed


def idle_tunnel(proxy: ServerProcess, port: int, count: int) -> float | None:
    """Bytes of the proxy's memory for each of so many open WebSockets that have echoed one message."""
    close_all([used_client(port, proxy.port) for _ in range(WARM)])
    before = proxy.memory()
    clients = [used_client(port, proxy.port) for _ in range(count)]
    after = proxy.memory()
    close_all(clients)
    return None if before is None or after is None else (after - before) / count


def used_client(port: int, through: int) -> Client:
    """A WebSocket that has echoed a message."""
    client = Client(port, through)
    client.exchange([binary_message(1024)])
    return client


def close_all(clients: list[Client]) -> None:
    """End the sockets."""
    for client in clients:
        client.close()


class Sender(threading.Thread):
    """Sends zeros as fast as they are taken."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.size = size
        self.sent = 0

    def run(self) -> None:
        """Send all, then end the stream."""
        with suppress(OSError):  # the reader finds out
            while self.sent < self.size:
                self.sent += self.sock.send(PIECE[: self.size - self.sent])
            self.sock.shutdown(socket.SHUT_WR)

    def wait_held_back(self) -> int:
        """Return how much was sent when nothing more is taken."""
        before, sent = -1, 0
        while sent != before and sent < self.size:
            time.sleep(SETTLED)
            before, sent = sent, self.sent
        return sent


def slow_reader(proxy: ServerProcess, size: int, reader: str) -> HeldBack:
    """Send `size` bytes through a blind tunnel to a slow reader, which is the "client" or the "server"."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.settimeout(STALL)
        near = stack.enter_context(open_tunnel(listening.getsockname()[1], proxy.port))
        far = stack.enter_context(listening.accept()[0])
        far.settimeout(STALL)
        slow, fast = (near, far) if reader == "client" else (far, near)
        proxy.forget_peak()
        before = proxy.memory()
        sender = Sender(fast, size)
        sender.start()
        ahead = sender.wait_held_back()
        read_slowly(slow, size)
        peak = proxy.memory("VmHWM")
        sender.join(STALL)
    return HeldBack(None if before is None or peak is None else peak - before, ahead)


def read_slowly(sock: socket.socket, size: int) -> None:
    """Read `size` bytes with a rest after each read; raises where they do not come."""
    buffer, received = bytearray(BUFFER), 0
    while count := sock.recv_into(buffer):
        received += count
        time.sleep(PAUSE)
    if received != size:
        raise BenchmarkError(f"{received} of {size} bytes came through")
