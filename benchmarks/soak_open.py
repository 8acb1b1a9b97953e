"""Ten thousand sockets open at once, some of which talk."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Sequence

from benchmarks.load import (
    CLOSE,
    CLOSE_1000,
    TEXT,
    BenchmarkError,
    Client,
    Message,
    client_frame,
    receive_exactly,
    server_frame,
)
from benchmarks.memory import MIB
from benchmarks.soak_reports import PATIENCE, Report, Reports

ROUNDS = 20  # messages of each socket that talks
SOURCES = [f"127.0.0.{last}" for last in range(2, 10)]
FROM_ONE_ADDRESS = 2_000  # sockets; a system has some 28,000 ports for each address, at times 5,000
WARM = 100
PING = 9


def usable_sources() -> list[str]:
    """Loopback addresses that connections can come from; macOS has but one."""
    found = []
    for address in SOURCES:
        try:
            socket.create_server((address, 0)).close()
        except OSError:
            break
        found.append(address)
    return found or [""]


def open_clients(port: int, names: Sequence[str]) -> list[Client]:
    """Open a socket for each name, one after the other, from several addresses."""
    sources = usable_sources()
    clients = []
    for number, name in enumerate(names):
        source = sources[number // FROM_ONE_ADDRESS % len(sources)]
        clients.append(Client(port, path=f"/auto/{name}", source=source))
    return clients


def talk(clients: Sequence[Client], rounds: int) -> int:
    """Have all send a message each, then take all echoes, and so on; return how many came back rightly."""
    received = 0
    for number in range(rounds):
        for index, client in enumerate(clients):
            client.sock.sendall(numbered(number, index).frame)
        for index, client in enumerate(clients):
            expected = numbered(number, index).reply
            if (reply := receive_frame(client.sock)) != expected:
                raise BenchmarkError(f"socket {index}: {reply!r} came instead of {expected!r}")
            received += 1
    return received


def receive_frame(sock: socket.socket) -> bytes:
    """The next frame but for pings, to which the host waits for no answer; all are short."""
    while True:
        head = receive_exactly(sock, 2)
        frame = head + receive_exactly(sock, head[1])
        if head[0] & 0x0F != PING:
            return frame


def close(client: Client) -> None:
    """End a socket."""
    client.sock.sendall(client_frame(CLOSE, CLOSE_1000))
    if (answer := receive_frame(client.sock)) != server_frame(CLOSE, CLOSE_1000):
        raise BenchmarkError(f"wrong answer to a close frame: {answer!r}")
    client.sock.close()


def numbered(number: int, index: int) -> Message:
    """The message of that number of one socket."""
    return Message(TEXT, f"{number} - socket {index}".encode())


def ends(reports: Reports, clients: Sequence[Client]) -> dict[str, Report]:
    """Close all, and wait for what the host reports of them."""
    reported: queue.SimpleQueue[Report] = queue.SimpleQueue()
    reports.on_report = reported.put
    for client in clients:
        close(client)
    found: dict[str, Report] = {}
    for _ in clients:
        try:
            report = reported.get(timeout=PATIENCE)
        except queue.Empty:
            raise BenchmarkError(f"the host reports the ends of {len(found)} of {len(clients)}") from None
        found[report["name"]] = report
    return found


def find_wrong(found: dict[str, Report], names: Sequence[str], talking: int) -> list[str]:
    """Compare what the host counted with what was sent."""
    broken = []
    for index, name in enumerate(names):
        expected = ROUNDS if index < talking else 0
        report = found.get(name)
        if report is None:
            broken.append(f"the end of {name} was not reported")
        elif (report["heard"], report["sent"], report["wrong"]) != (expected, expected, ""):
            broken.append(f"{name}: {report}, where {expected} were sent")
    return broken


def open_many(reports: Reports, sockets: int, talking: int) -> tuple[dict[str, object], list[str]]:
    """Open so many sockets, let some talk, close them all; return the figures, and what was broken."""
    port, server = reports.server.port, reports.server
    ends(reports, open_clients(port, [f"warm{number}" for number in range(WARM)]))
    names = [f"open{number}" for number in range(sockets)]
    before, start = server.memory(), time.perf_counter()
    clients = open_clients(port, names)
    opened, after = time.perf_counter(), server.memory()
    holding = reports.census()
    began = time.perf_counter()
    received = talk(clients[:talking], ROUNDS)
    talked, peak = time.perf_counter(), server.memory("VmHWM")
    found = ends(reports, clients)
    closed = time.perf_counter()
    broken = find_wrong(found, names, talking)
    if holding["Session"] != sockets:
        broken.append(f"{holding['Session']} of {sockets} were open at once")
    figures: dict[str, object] = {
        "sockets": sockets,
        "talking": talking,
        "open_seconds": opened - start,
        "talk_seconds": talked - began,
        "close_seconds": closed - talked,
        "each": None if before is None or after is None else (after - before) / sockets,
        "peak_mib": None if peak is None else peak / MIB,
        "holding": holding,
        "sent": talking * ROUNDS,
        "heard": sum(report["heard"] for report in found.values()),
        "received": received,
    }
    return figures, broken
