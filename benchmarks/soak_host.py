"""The host of `soak.py`, in a process of its own: an echo that keeps account of every socket.

    python -m benchmarks.soak_host NAME [--loop asyncio|uvloop] [--core N]

The first line on stdout is `port N`, as servers.py has it; the others are JSON objects, named by `what`:

    end       a socket has ended: its name, how many messages were heard and sent, and how it ended
    failed    an upgrade failed
    census    what the process holds now; for each line on standard input
    error     what went wrong in the host, or in a callback of it
    left      the census after the host has stopped, and that of before it was made

`host` sends many keepalive pings, `many` waits for no answer to them. Every other name breaks a promise on
purpose, so that one can see that it is found out.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from benchmarks.serving import loop_factory, report
from interceptor import (
    Host,
    InterceptorError,
    Mode,
    Rule,
    Security,
    Session,
    Timeouts,
    WebSocketClose,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

Census = dict[str, int]

BYE = "bye"  # a message whose second word this is asks the host to close
BYE_CODE = 3000
PLANTED = ("leak", "lose", "repeat")
HELD = ("Session", "Connection", "Lane", "Inbox", "Incoming", "Linger", "Relay")
TRANSPORTS = ("_SelectorSocketTransport", "_ProactorSocketTransport", "TCPTransport")
RULES = [
    Rule("ws://*/auto/*"),
    Rule("ws://*/chunks/*", chunks=True),
    *(Rule(f"ws://*/{kind}/*", Mode.MANUAL) for kind in ("manual", "later", "deny")),
]


def tell(what: str, **values: object) -> None:
    """Report something."""
    print(json.dumps({"what": what, **values}), flush=True)


def take_census() -> Census:
    """Count what this process holds: parts of sockets, transports, timers to come, tasks, descriptors."""
    gc.collect()
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        name = type(thing).__name__
        if name in HELD:
            found[name] += 1
        elif name in TRANSPORTS:
            found["transports"] += 1
        elif name == "TimerHandle":
            found["timers"] += not thing.cancelled()
    parts = {name: found[name] for name in (*HELD, "transports", "timers")}
    return {**parts, "tasks": len(asyncio.all_tasks()), "files": count_files()}


def count_files() -> int:
    """Count the open descriptors, where the system tells; -1 where it does not."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return -1


def report_errors(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Pass an error of the host's log on."""
    tell("error", text=f"logged: {line['event']}", why=repr(line.get("exc_info")))
    raise structlog.DropEvent


@dataclass(slots=True)
class Account:
    """What the host heard and sent on one socket, and the first thing that was wrong."""

    name: str
    heard: int = 0
    sent: int = 0
    wrong: str = ""
    routed: bool = False

    def hear(self, data: str | bytes) -> str:
        """Check that the next number has come; return what else the message says first."""
        text = data if isinstance(data, str) else data[:64].decode("latin-1")
        number, _, rest = text[:64].partition(" ")
        if number != str(self.heard):
            self.wrong = self.wrong or f"{number!r} came where {self.heard} was next"
        self.heard += 1
        return rest.partition(" ")[0]


class Books:
    """A host and the accounts of its sockets.

    Args:
        planted: a fault to have, once it is warm.
    """

    def __init__(self, planted: str) -> None:
        self.planted = planted if planted in PLANTED else ""
        timeouts = Timeouts(pong=None) if planted == "many" else Timeouts(ping=5, close=60)
        self.accounts: dict[str, Account] = {}
        self.kept: list[object] = []
        self.begun: set[str] = set()
        self.host = Host(RULES, security=Security(allow_no_origin=True), timeouts=timeouts)
        self.host.on("WebSocketUpgrade")(self.upgrade)
        self.host.on("WebSocketReceive")(self.receive)
        self.host.on("WebSocketClose")(self.close)
        self.host.on("WebSocketError")(self.fail)
        self.host.route("ws://*/route/*")(self.route)
        self.host.route("ws://*/lazy/*")(self.route_slowly)

    def upgrade(self, event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        """Open the account; of the manual ones one kind is answered at once, one later, one denied."""
        kind, name = event.url.rsplit("/", 2)[1:]
        if kind == "deny":
            return event.deny(403, body="not you")
        self.accounts[event.id] = Account(name, routed=kind in ("route", "lazy"))
        if kind == "later":
            asyncio.get_running_loop().call_later(0.05, self.answer, event)
            return None
        return event.accept() if kind == "manual" else None

    def answer(self, event: WebSocketUpgrade) -> None:
        """Answer a manual upgrade, whose client may have left."""
        with suppress(InterceptorError):
            self.host.answer(event.id, event.accept())

    def receive(self, event: WebSocketReceive) -> None:
        """Send a message, or a piece of one, back as it came; a route does so itself."""
        account = self.accounts[event.id]
        first = event.id not in self.begun
        said = account.hear(event.data) if first else ""
        (self.begun.discard if event.fin else self.begun.add)(event.id)
        if account.routed:
            return
        self.send(account, event)
        if said == BYE:
            self.host.WebSocketClose(event.id, BYE_CODE, "as you wished")

    def send(self, account: Account, event: WebSocketReceive) -> None:
        """Send back, rightly or not."""
        last = account.heard == 3 and event.fin and not account.name.startswith("warm")
        account.sent += event.fin
        if self.planted == "lose" and last:
            return
        self.host.WebSocketSend(event.id, event.data, fin=event.fin)
        if self.planted == "repeat" and last:
            self.host.WebSocketSend(event.id, event.data)

    async def route(self, socket: Session, rest: float = 0) -> None:
        """Send messages back from a route."""
        account = self.accounts[socket.id]
        async for data in socket:
            await asyncio.sleep(rest)
            account.sent += 1
            await socket.send(data)
            text = data if isinstance(data, str) else data[:64].decode("latin-1")
            if text[:64].split(" ")[1] == BYE:
                await socket.close(BYE_CODE, "as you wished")

    async def route_slowly(self, socket: Session) -> None:
        """Send messages back, each after a rest."""
        await self.route(socket, 0.01)

    def close(self, event: WebSocketClose) -> None:
        """Close the account and report it."""
        account = self.accounts.pop(event.id)
        self.begun.discard(event.id)
        if self.planted == "leak" and not account.name.startswith("warm"):
            self.kept.append(self.host.sockets[event.id])
        tell(
            "end",
            name=account.name,
            heard=account.heard,
            sent=account.sent,
            wrong=account.wrong,
            code=event.code,
            initiator=event.initiator,
        )

    def fail(self, event: WebSocketError) -> None:
        """Report an upgrade that failed; of a socket that was open the end is still to come."""
        if event.id not in self.host.sockets:
            account = self.accounts.pop(event.id, None)
            tell("failed", name=(event.url or "").rpartition("/")[2], known=account is not None)


def watch(on_line: Callable[[], None], on_end: Callable[[], None]) -> None:
    """Call for each line of standard input, and at its end; by a thread, as not every loop can watch it."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(on_line)
        loop.call_soon_threadsafe(on_end)

    threading.Thread(target=read, daemon=True).start()


async def listen_once() -> None:
    """Have the loop make what it keeps from its first listening socket on: libuv has a spare descriptor."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    await server.wait_closed()


async def give_back() -> None:
    """Have the C library return what it keeps free: what it keeps, and how much, differs from run to run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # glibc's own
    while trim is not None:
        trim(0)
        await asyncio.sleep(1)


async def serve(planted: str) -> None:
    """Serve as long as standard input is open."""
    stop = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: tell("error", text=context["message"], why=repr(context.get("exception")))
    )
    watch(lambda: tell("census", **take_census()), stop.set)
    await listen_once()
    before = take_census()
    books = Books(planted)
    async with books.host:
        report(books.host.address[1])
        giving = asyncio.create_task(give_back())
        await stop.wait()
        giving.cancel()
        await asyncio.wait([giving])
    tell("left", before=before, after=take_census(), accounts=len(books.accounts))


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="The host of the soak.")
    parser.add_argument("name", choices=["host", "many", *PLANTED])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--core", type=int, help="the processor core to stay on")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    structlog.configure(
        processors=[report_errors], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )
    try:
        with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
            runner.run(serve(options.name))
    except ImportError as exc:
        print(f"missing {exc}", flush=True)


if __name__ == "__main__":
    main()
