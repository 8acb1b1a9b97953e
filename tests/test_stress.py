"""Eight threads, two hundred sockets, everything at random; nothing lost, no order broken, no thread left.

For some seconds; `STRESS=30 make test ARGS="-k stress"` does it for half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import random
import threading
import time
from collections import defaultdict

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from interceptor import Host, UnknownSocket, WebSocketClose, WebSocketReceive, WebSocketUpgrade

from .peer import PATIENCE
from .threads import Program, make_host, no_thread_left, soon

SECONDS = float(os.environ.get("STRESS", "6"))
SOCKETS = 200
THREADS = 8


class Account:
    """What one side has sent and heard on each socket, by the socket's name."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = defaultdict(int)
        self.heard: dict[str, int] = defaultdict(int)
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def hear(self, name: str, text: str | bytes) -> None:
        """Check that the next number has come."""
        if text != str(self.heard[name]):
            self.wrong.append(f"{name}: {text!r} came where {self.heard[name]} was next")
        self.heard[name] += 1


class Stress:
    """A host, the threads that use it, and its clients, which are on a loop of the test's."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.ours, self.theirs = Account(), Account()
        self.ids: dict[str, str] = {}
        self.locks: dict[str, threading.Lock] = {}
        self.over = threading.Event()
        self.opened = 0
        self.ends: dict[str, WebSocketClose] = {}
        host.on("WebSocketUpgrade")(self.open)
        host.on("WebSocketReceive")(self.receive)
        host.on("WebSocketClose")(self.close)

    # Callbacks.

    def open(self, event: WebSocketUpgrade) -> None:
        self.opened += 1
        self.ids[event.id] = event.url.rpartition("/")[2]
        self.locks[event.id] = threading.Lock()

    def receive(self, event: WebSocketReceive) -> None:
        self.ours.hear(self.ids[event.id], event.data)

    def close(self, event: WebSocketClose) -> None:
        self.ends[self.ids.pop(event.id)] = event

    # The threads of the program.

    def work(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self.over.is_set():
            open_now = list(self.ids.items())
            for id, name in dice.sample(open_now, min(10, len(open_now))):
                with contextlib.suppress(UnknownSocket):
                    self.use(id, name, dice)
            time.sleep(0.005)

    def use(self, id: str, name: str, dice: random.Random) -> None:
        """Send some, rarely close; the numbers of one socket are given out in the order of the calls."""
        with self.locks[id]:
            for _ in range(dice.randrange(4)):
                self.host.WebSocketSend(id, str(self.ours.sent[name]))
                self.ours.sent[name] += 1
            if dice.random() < 0.01:
                self.host.WebSocketClose(id, 3000)
                assert id not in self.host.sockets or self.host.sockets[id].url

    # The clients.

    async def clients(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(SOCKETS):
                group.create_task(self.client(number))

    async def client(self, number: int) -> None:
        dice, index = random.Random(number), 0
        while not self.over.is_set():
            name = f"{number}-{index}"
            index += 1
            async with connect(self.host.ws_url(f"/{name}"), open_timeout=PATIENCE) as socket:
                listener = asyncio.create_task(self.listen(name, socket))
                with contextlib.suppress(ConnectionClosed):
                    while not self.over.is_set() and dice.random() > 0.02:
                        await socket.send(str(self.theirs.sent[name]))
                        self.theirs.sent[name] += 1
                        await asyncio.sleep(dice.random() * 0.2)
                await socket.close()
                await listener

    async def listen(self, name: str, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                self.theirs.hear(name, text)

    # All of it.

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self.work, args=(seed,)) for seed in range(THREADS)]
        clients = threading.Thread(target=lambda: asyncio.run(self.clients()))
        clients.start()
        soon(lambda: self.opened >= SOCKETS)
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in (*threads, clients):
            thread.join(3 * PATIENCE)
            assert not thread.is_alive()

    def check(self) -> None:
        """Every number that one side sent came to the other, in order; only a close cuts it off."""
        assert not self.ours.wrong, self.ours.wrong[:10]
        assert not self.theirs.wrong, self.theirs.wrong[:10]
        assert self.opened == len(self.ends) >= SOCKETS
        assert sum(self.ours.heard.values()) > SOCKETS
        assert sum(self.theirs.heard.values()) > SOCKETS
        kinds = {(event.initiator, event.code) for event in self.ends.values()}
        assert {("client", 1000), ("host", 3000)} <= kinds
        for name, event in self.ends.items():
            if (event.initiator, event.code) == ("client", 1000):
                assert self.ours.heard[name] == self.theirs.sent[name], name
            elif (event.initiator, event.code) == ("host", 3000):
                assert self.theirs.heard[name] == self.ours.sent[name], name


@pytest.mark.timeout(SECONDS + 6 * PATIENCE)
@pytest.mark.parametrize("style", ["loop", "post", "dq"])
def test_stress(style: str) -> None:
    faulthandler.dump_traceback_later(SECONDS + 5 * PATIENCE, exit=False)
    try:
        with no_thread_left(), Program() as program:
            host = make_host(program.post if style == "post" else None)
            stress = Stress(host)
            with host.in_thread(dq=style == "dq"):
                taker = threading.Thread(target=host.dq) if style == "dq" else None
                if taker is not None:
                    taker.start()
                stress.run(SECONDS / 3)
                soon(lambda: not host.sockets)
                host.stop()
                if taker is not None:
                    taker.join(PATIENCE)
            stress.check()
    finally:
        faulthandler.cancel_dump_traceback_later()
