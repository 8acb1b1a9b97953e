"""stop() amid a storm: floods from both sides, broadcasts, unfinished handshakes; many times, at random.

`STORMS=100 make test ARGS="-k storm"` does each a hundred times.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from interceptor import (
    Event,
    Host,
    InvalidState,
    Timeouts,
    UnknownSocket,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .conftest import FACTORIES
from .model import Account, check
from .peer import CLOSE, PATIENCE, TEXT, Peer, close_frame, frame
from .threads import Program, make_host, no_thread_left, soon
from .wire import HEAD, MANUAL, SWITCHED, Line
from .wire import lines as lines

STORMS = int(os.environ.get("STORMS", "4"))
SOCKETS = 20
MOST = 2000
"""Messages of a peer, or of a thread to each; all share a processor, and a test has to end."""

SIZE = 32
FILES = Path("/proc/self/fd")
KINDS = ("floods", "answers", "threads", "broadcast", "handshakes", "manual")


def text_of(number: int) -> str:
    """A message of 32 bytes."""
    return f"{number:0{SIZE}}"


class Client:
    """A peer that sends without end, reads what comes, and answers a close."""

    def __init__(self, kind: str) -> None:
        self.account = Account(outcome="none", lossy_in=True, lossy_out=True)
        self.kind = kind
        self.status = 0
        self.codes: list[int] = []
        self.heard: int | None = None

    async def run(self, address: tuple[str, int], name: int) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(*address)
            try:
                await self._talk(Peer(reader, writer), name)
            finally:
                writer.transport.abort()

    async def _talk(self, peer: Peer, name: int) -> None:
        head = MANUAL if self.kind == "manual" else HEAD
        if self.kind == "handshakes" and name % 2:
            await peer.send(head[: random.randrange(len(head))])
            await peer.rest()
            return
        await peer.send(head.replace(b" HTTP/1.1", b"/%d HTTP/1.1" % name))
        if self.kind == "manual":
            self.status = (await peer.answer()).status
            assert self.status in (101, 503)
            if self.status == 503:
                return
        else:
            assert await peer.reader.readexactly(len(SWITCHED)) == SWITCHED
        sending = asyncio.create_task(self._send(peer))
        try:
            await self._read(peer)
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def _send(self, peer: Peer) -> None:
        number = 0
        while not self.codes and number < MOST:
            await peer.send(b"".join(frame(TEXT, text_of(number + index)) for index in range(100)))
            number += 100
            await asyncio.sleep(0)

    async def _read(self, peer: Peer) -> None:
        while (got := await peer.frame()).opcode != CLOSE:
            number = int(got.payload)
            assert self.heard in (None, number - 1), "not in order"
            assert self.heard is not None or number == 0 or self.kind == "broadcast"
            self.heard = number
        self.codes.append(int.from_bytes(got.payload[:2], "big"))
        await peer.send(close_frame(1001))
        await peer.rest()


class Storm:
    """A program in whose threads everything happens at once."""

    def __init__(self, host: Host, kind: str) -> None:
        self.host = host
        self.kind = kind
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.sent: dict[str, int] = defaultdict(int)
        self.over = threading.Event()
        self.wrong: list[BaseException] = []
        host.on("All")(self.take)

    def take(self, event: Event) -> object:
        id = str(getattr(event, "id", ""))
        self.events[id].append(event)
        if isinstance(event, WebSocketUpgrade) and event.type == "manual":
            # Every third is answered by a thread, and every third never.
            return event.accept() if int(event.url.rpartition("/")[2]) % 3 == 0 else None
        if isinstance(event, WebSocketReceive) and self.kind == "answers":
            with suppress(UnknownSocket):
                self.host.WebSocketSend(id, text_of(self.sent[id]))
                self.sent[id] += 1
        return None

    def work(self) -> None:
        """What a thread of the program does; it may be told that a socket or the host has ended, no more."""
        try:
            for _ in range(MOST):
                if self.over.is_set():
                    return
                with suppress(UnknownSocket):
                    self.step()
                time.sleep(0.0005)
        except InvalidState as exc:
            assert "has ended" in str(exc) or "stop" in str(exc), exc  # noqa: PT017
        except BaseException as exc:
            self.wrong.append(exc)

    def step(self) -> None:
        if self.kind == "threads":
            for id in self.host.sockets:
                self.host.WebSocketSend(id, text_of(self.sent[id]))
                self.sent[id] += 1
        elif self.kind == "broadcast":
            self.host.broadcast(self.host.sockets, text_of(self.sent[""]))
            self.sent[""] += 1
        elif self.kind == "manual":
            for id, events in list(self.events.items()):
                upgrade = events[0]
                if isinstance(upgrade, WebSocketUpgrade) and int(upgrade.url.rpartition("/")[2]) % 3 == 1:
                    with suppress(UnknownSocket):
                        self.host.answer(id, upgrade.accept())

    def check(self, clients: list[Client]) -> None:
        """Each end was told once, behind all that came before it; each peer heard 1001 or was lost."""
        assert not self.wrong, self.wrong
        for id, events in self.events.items():
            received = [event.data for event in events if isinstance(event, WebSocketReceive)]
            assert received == [text_of(number) for number in range(len(received))], id
            closes = [event for event in events if isinstance(event, WebSocketClose)]
            account = Account(outcome="opened" if closes else "failed", lossy_in=True, lossy_out=True)
            account.sent = list(received)
            account.codes = {1001, 1006}
            check(events, account, over=True)
            assert not closes or closes[0].initiator in ("host", "fault")
        assert {code for client in clients for code in client.codes} <= {1001}
        refused = [events for events in self.events.values() if isinstance(events[-1], WebSocketError)]
        if self.kind == "manual":
            assert len([client for client in clients if client.status == 503]) >= len(refused)


@pytest.fixture(autouse=True)
def only_the_hosts_own(lines: list[Line], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged but the losses, and nothing at all by the loop."""
    caplog.set_level(logging.WARNING)
    yield
    told = {str(line["event"]) for line in lines if line["log_level"] in ("warning", "error")}
    assert told <= {"ended abnormally", "handshake failed"}
    said = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    # In development mode it tells of whatever took a tenth of a second.
    assert not [text for text in said if not (sys.flags.dev_mode and text.startswith("Executing "))]


def in_clients(clients: list[Client], address: tuple[str, int]) -> threading.Thread:
    """Run the peers on a loop of their own."""

    async def run() -> None:
        await asyncio.gather(*(client.run(address, name) for name, client in enumerate(clients)))

    return threading.Thread(target=lambda: asyncio.run(run()))


def storm(kind: str, leave: Callable[[Host], object], loop: str, post: Program | None, moment: float) -> None:
    """Run a host, its threads and its peers, and stop it at a moment."""
    host = make_host(None if post is None else post.post, timeouts=Timeouts(close=30))
    program, clients = Storm(host, kind), [Client(kind) for _ in range(SOCKETS)]
    workers = [threading.Thread(target=program.work) for _ in range(2 if kind == "manual" else 1)]
    with host.in_thread(loop_factory=FACTORIES[loop]):
        address = host.address
        threads = [in_clients(clients, address), *workers]
        for thread in threads:
            thread.start()
        if kind not in ("handshakes", "manual"):
            soon(lambda: len(host.sockets) > SOCKETS // 2)
        time.sleep(moment)
        leave(host)
    program.over.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    program.check(clients)
    assert not host.sockets
    assert not host._listener.transports
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


LEAVE: dict[str, Callable[[Host], object]] = {
    "leaving": lambda host: None,
    "stop": lambda host: host.stop(),
    "stop_soon": lambda host: host.stop_soon(),
}


@pytest.mark.timeout(60 + STORMS * 10)
@pytest.mark.parametrize("style", ["loop", "post"])
@pytest.mark.parametrize("loop", FACTORIES)
@pytest.mark.parametrize("kind", KINDS)
def test_storm(kind: str, loop: str, style: str) -> None:
    dice = random.Random(f"{kind} {loop} {style}")
    files: list[int] = []
    with no_thread_left(), Program() as program:
        for _ in range(STORMS):
            leave = LEAVE[dice.choice(list(LEAVE))]
            storm(kind, leave, loop, program if style == "post" else None, dice.random() * 0.1)
            files.append(len(list(FILES.iterdir())) if FILES.exists() else 0)
    assert len(set(files)) == 1  # libuv keeps two from the first loop on.
