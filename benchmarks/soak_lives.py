"""The sockets of `soak.py`: how each lives and ends, drawn by lot, and what both sides must count."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import string
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from benchmarks.load import request_head
from benchmarks.soak_host import BYE, BYE_CODE
from benchmarks.soak_reports import PATIENCE, Report

NAME = "soak.test"  # of the host, for those that come through the proxy
KINDS = {"auto": 45, "manual": 12, "later": 12, "chunks": 12, "route": 9, "lazy": 6, "deny": 4}
ENDS = {"close": 30, "leave": 20, "bye": 15, "reset": 20, "vanish": 15}
QUIT = 0.15  # of those that wait for their answer leave before it comes
SIZES = {100: 60, 4_000: 30, 64_000: 9, 256_000: 1}
LONGEST = 20.0  # seconds that a socket talks
SLOW = 0.04  # of the sockets do not read for a while, and ask for much
SLOW_COUNT, SLOW_SIZE, SLOW_REST = 120, 64_000, 4.0
LETTERS = "".join(random.Random(0).choices(string.ascii_letters + "é€😀", k=max(SIZES)))

Message = str | bytes


class Broken(Exception):
    """A promise was broken."""


@dataclass(frozen=True)
class Life:
    """What one socket does.

    Attributes:
        kind: of the host's rules.
        end: `close` once all echoes are there, `leave` at once, `bye` asks the host to close, `reset` and
            `vanish` (the end of the stream without a close frame) break off, `quit` leaves before the answer.
        seconds: how long it talks.
        slow: whether it reads nothing for a while, though much is on its way.
        proxied: whether it comes through a tunnel (CONNECT).
        deflate: whether it offers permessage-deflate.
    """

    kind: str
    end: str
    seconds: float
    slow: bool
    proxied: bool
    deflate: bool


def pick(dice: random.Random, weights: dict[Any, int]) -> Any:
    """One of these, by its weight."""
    return dice.choices(list(weights), list(weights.values()))[0]


def draw(dice: random.Random) -> Life:
    """Draw a life by lot."""
    kind, end = pick(dice, KINDS), pick(dice, ENDS)
    if kind == "later" and dice.random() < QUIT:
        end = "quit"
    slow = kind in ("auto", "chunks") and dice.random() < SLOW / 0.57
    return Life(
        kind,
        end,
        min(dice.expovariate(1 / 5), LONGEST),
        slow,
        not slow and dice.random() < 0.3,
        not slow and dice.random() < 0.3,
    )


@dataclass
class Ledger:
    """What a client has sent, and what of it has not come back yet."""

    sent: int = 0
    received: int = 0
    due: deque[Message] = field(default_factory=deque)
    wrong: str = ""

    def make(self, dice: random.Random, size: int, word: str = "-") -> Message:
        """Make the next message: its number, a word, and letters."""
        start = dice.randrange(1000)
        text = f"{self.sent} {word} {LETTERS[start : start + dice.randrange(size)]}"
        message = text.encode() if dice.random() < 0.3 else text
        self.sent += 1
        self.due.append(message)
        return message

    def receive(self, message: Message) -> None:
        """Check that this is the next one that was to come back, to the last character."""
        self.received += 1
        if not self.due or self.due.popleft() != message:
            self.wrong = self.wrong or f"the {self.received}. message back is not the {self.received}. sent"


def verdict(life: Life, ledger: Ledger, report: Report) -> str:
    """What is wrong between the two accounts of a socket, in words; empty if nothing is."""
    if ledger.wrong or report["wrong"]:
        return f"client: {ledger.wrong or 'right'}; host: {report['wrong'] or 'right'}"
    heard, sent = report["heard"], report["sent"]
    if heard > ledger.sent or ledger.received > sent:
        return f"more came than was sent: {heard} of {ledger.sent} up, {ledger.received} of {sent} down"
    if life.end != "reset" and heard != ledger.sent:  # A reset may overtake what was sent before it.
        return f"{heard} of {ledger.sent} messages were heard"
    if life.end in ("close", "bye") and ledger.received != ledger.sent:
        return f"{ledger.received} of {ledger.sent} messages came back"
    code = {"close": 1000, "leave": 1000, "bye": BYE_CODE}.get(life.end, 1006)
    initiator = {"bye": "host", "close": "client", "leave": "client"}.get(life.end, "fault")
    if (report["code"], report["initiator"]) != (code, initiator):
        return f"ended with {report['code']} by {report['initiator']}, not {code} by {initiator}"
    return ""


class Visit:
    """One socket from its opening to its end.

    Args:
        life: what it is to do.
        port: the host's.
        name: by which the host reports it.
        dice: what is drawn on the way comes from here.
        patience: seconds to wait for what is to come back.
    """

    def __init__(
        self, life: Life, port: int, name: str, dice: random.Random, patience: float = PATIENCE
    ) -> None:
        self.life = life
        self.patience = patience
        self.port = port
        self.name = name
        self.dice = dice
        self.ledger = Ledger()

    async def live(self, over: asyncio.Event) -> bool:
        """Live; return whether the host will report its end.

        Raises:
            Broken: not as it must be.
        """
        if self.life.kind == "deny":
            await self.be_denied()
            return False
        if self.life.end == "quit":
            await self.quit()
            return True
        client = await self.open()
        listener = asyncio.create_task(self.listen(client))
        try:
            await self.talk(client, over)
            await self.leave(client)
            async with asyncio.timeout(PATIENCE):
                await listener
        except TimeoutError:
            raise Broken(f"{len(self.ledger.due)} messages did not come back, or no end came") from None
        finally:
            listener.cancel()
            client.transport.abort()
        return True

    async def open(self) -> ClientConnection:
        """Open it as it was drawn."""
        life = self.life
        place = NAME if life.proxied else f"127.0.0.1:{self.port}"
        try:
            return await connect(
                f"ws://{place}/{life.kind}/{self.name}",
                proxy=f"http://127.0.0.1:{self.port}" if life.proxied else None,
                sock=narrow_socket(self.port) if life.slow else None,
                compression="deflate" if life.deflate else None,
                ping_interval=None,
                open_timeout=PATIENCE,
                close_timeout=PATIENCE,
                max_size=None,
            )
        except (OSError, TimeoutError, InvalidHandshake) as exc:
            raise Broken(f"it did not open: {exc!r}") from exc

    async def be_denied(self) -> None:
        """Ask, and be told 403."""
        try:
            client = await connect(f"ws://127.0.0.1:{self.port}/deny/{self.name}", proxy=None)
        except InvalidStatus as exc:
            if exc.response.status_code == 403:
                return
            raise Broken(f"it was answered {exc.response.status_code}, not 403") from exc
        client.transport.abort()
        raise Broken("it was denied by the program, and opened")

    async def quit(self) -> None:
        """Ask, and go away before or while the answer comes."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", self.port)
        transport.write(request_head(self.port, base64.b64encode(bytes(16)), path=f"/later/{self.name}"))
        await asyncio.sleep(self.dice.random() * 0.08)
        reset(transport, self.dice.random() < 0.5)

    async def listen(self, client: ClientConnection) -> None:
        """Take what comes, up to the end; slow ones begin late."""
        if self.life.slow:
            await asyncio.sleep(SLOW_REST)
        try:
            while True:
                self.ledger.receive(await client.recv())
        except ConnectionClosed:
            return

    async def talk(self, client: ClientConnection, over: asyncio.Event) -> None:
        """Send some messages now and then."""
        dice, clock = self.dice, asyncio.get_running_loop().time
        for _ in range(SLOW_COUNT if self.life.slow else 0):
            await client.send(self.ledger.make(dice, SLOW_SIZE))
        until = clock() + self.life.seconds
        while clock() < until and not over.is_set():
            for _ in range(dice.randrange(4)):
                await self.send(client, self.ledger.make(dice, pick(dice, SIZES)))
            await asyncio.sleep(dice.random() * 0.8)

    async def send(self, client: ClientConnection, message: Message) -> None:
        """Send a message in one frame, or in several."""
        if self.life.kind == "chunks" and len(message) > 200:
            cut = self.dice.randrange(64, len(message))
            pieces = [message[:cut], message[cut:]]
            await client.send(cast(list[str] | list[bytes], pieces))
        else:
            await client.send(message)

    async def leave(self, client: ClientConnection) -> None:
        """End it as it was drawn."""
        end = self.life.end
        if end == "bye":
            await client.send(self.ledger.make(self.dice, 100, BYE))
        elif end == "close":
            async with asyncio.timeout(self.patience):
                while self.ledger.due and not self.ledger.wrong:  # noqa: ASYNC110  # a program that counts has no event for this
                    await asyncio.sleep(0.01)
            await client.close()
        elif end == "leave":
            await client.close()
        elif end == "vanish":
            client.transport.write_eof()
        else:
            reset(client.transport, True)


def reset(transport: asyncio.Transport, hard: bool) -> None:
    """End a connection with a TCP reset, or as a process does that ends."""
    if hard:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def narrow_socket(port: int) -> socket.socket:
    """A connection whose system buffers little, so that a reader that rests is soon noticed."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock
