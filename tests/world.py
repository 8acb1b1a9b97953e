"""A host, its program and its peers, on a loop that only a test drives; and what must hold of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from structlog.testing import capture_logs

from interceptor import Event, Host, Limits, Timeouts, WebSocketError, WebSocketReceive, WebSocketUpgrade

from .far import Far
from .illegal import LIMIT
from .model import WHOLE, Data, Outcome, check, story
from .peer import PATIENCE
from .programs import narrow
from .wire import ANYONE

WRITE_BUFFER = 512 * 1024
ANSWERS: dict[str, Outcome] = {
    "accept": "opened",
    "deny": "denied",
    "drop": "denied",
    "verbatim": "denied",
    "wrong": "failed",
    "raise": "failed",
    "late": "waiting",
}
TABLES = (
    [("*/manual/*", 2), ("*", 1)],
    [("*/manual/*", 2), ("*/auto/*", 1), ("*", 0)],
    [("*/witness", 1), (re.compile(r".*/manual/.*"), 2), (lambda url: "auto" in url, 1)],
)

T = TypeVar("T")


class Mine(Exception):
    """What the program raises."""


class World:
    """A host, its program, and its peers.

    Args:
        loop: runs only while something here runs it; closed at the end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.troubles: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self.exits = contextlib.ExitStack()
        self.lines = self.exits.enter_context(capture_logs())
        self.events: list[Event] = []
        self.ids: dict[str, str] = {}  # By the target of the socket.
        self.all: list[Far] = []
        self.count = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.inside: set[str] = set()
        self.slow_log: list[tuple[Event, int]] = []
        self.handlers: set[str] = set()
        self.raised: list[str] = []
        self.tasks: list[asyncio.Task[object]] = []
        self.pieces: dict[str, Data] = {}
        self.closes: dict[str, int] = {}  # The program's, by target.
        self.stopping = False

    # The host and its program.

    def start(self, chunks: bool, deflate: bool, small: bool) -> None:
        """Start the host, and a socket that sees whether it still answers."""
        self.deflate = deflate
        self.read_buffer = 64 if small else 2**20
        self.host = Host(
            TABLES[0],
            root="r",
            security=ANYONE,
            chunks=chunks,
            compression=deflate,
            limits=Limits(message=LIMIT, read_buffer=self.read_buffer, write_buffer=WRITE_BUFFER, sockets=50),
            timeouts=Timeouts(head=3600, answer=3600, close=3600, ping=None, pong=None),
        )
        self.host.on("All")(self.record)
        self.host.on("WebSocketUpgrade")(self.answer)
        self.run(self.host.start())
        narrow(self.host)
        self.witness = self.connect("/witness", "opened")
        self.until(lambda: self.witness.status)

    def record(self, event: Event) -> None:
        """Keep all events."""
        if isinstance(event, WebSocketUpgrade):
            target = event.url.removeprefix("ws://r")
            assert target not in self.ids, "reported twice"
            assert event.id not in self.ids.values(), "an ID came twice"
            assert re.fullmatch("[0-9a-f]{15}", event.id)
            self.ids[target] = event.id
        elif isinstance(event, WebSocketError) and event.id not in self.ids.values():
            self.ids[event.url.removeprefix("ws://r")] = event.id
        self.events.append(event)

    def answer(self, event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        """Answer a manual upgrade as its URL says."""
        if event.type == "auto":
            return None
        match event.url.split("/")[4]:
            case "accept":
                return event.accept()
            case "deny":
                return event.deny(403, body="no")
            case "drop":
                return event.drop()
            case "verbatim":
                return event.verbatim(b"HTTP/1.1 299 Odd\r\n\r\n")
            case "wrong":
                return event.answer("HTTP/1.1 101 Nope\r\n\r\n")
            case "raise":
                self.raised.append(event.id)
                raise Mine
        return None

    async def slow(self, event: Any) -> None:
        """Wait at the gate of the socket, if it has one; no two of a socket at once."""
        assert event.id not in self.inside, "two handlers of one socket at once"
        self.inside.add(event.id)
        try:
            await asyncio.sleep(0)
            if event.id in self.gates:
                await self.gates[event.id].wait()
        finally:
            self.inside.discard(event.id)
        self.slow_log.append((event, len(self.events)))

    def failing(self, event: WebSocketReceive) -> None:
        """Raise."""
        self.raised.append(event.id)
        raise Mine

    # Driving the loop.

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(coroutine)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of the program's, where its loop runs."""

        async def call() -> T:
            return function(*args)

        return self.run(call())  # type: ignore[no-any-return]

    def turn(self, count: int = 3) -> None:
        """Let everybody have a few turns."""

        async def turns() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        for far in self.all:
            far.turn()
        self.run(turns())

    def until(self, condition: Callable[[], object]) -> None:
        """Let everybody have turns until something holds."""
        deadline = time.process_time() + PATIENCE / 4  # However busy the machine is.
        while not condition():
            self.turn()
            assert time.process_time() < deadline, self.report()

    def report(self) -> str:
        """What there is to know of a socket that does not go on."""
        lines = []
        for far in self.all:
            account = {key: (len(v) if isinstance(v, list) else v) for key, v in vars(far.account).items()}
            state = {key: v for key, v in vars(far).items() if isinstance(v, bool | int | set)}
            lines.append(f"{far.target} {story(self.of(far))[-20:]} {account} {state}")
        return "\n".join(["this never came about:", *lines])

    def of(self, far: Far) -> list[Event]:
        """The events of a socket so far."""
        id = self.ids.get(far.target)
        return [event for event in self.events if id is not None and event.id == id]  # type: ignore[attr-defined]

    def id_of(self, far: Far) -> str:
        """The ID of a socket; one that nobody has if it was not reported."""
        return self.ids.get(far.target, "f" * 15)

    def connect(self, target: str, outcome: Outcome) -> Far:
        far = Far(self.host.address, target, self.deflate)
        far.possible = {outcome}
        self.all.append(far)
        return far

    # What holds.

    def look_at(self, far: Far, *, over: bool) -> None:
        """Check a socket; where several things may have become of it, the events say which."""
        events, account = self.of(far), far.account
        account.outcome = self.outcome(far, story(events))
        given, account.codes = account.codes, account.codes | ({1006} if far.full else set())
        given_up, account.lossy_out = account.lossy_out, account.lossy_out or far.full
        lost_in, account.lossy_in = account.lossy_in, account.lossy_in or far.full
        try:
            check(events, account, over=over)
        finally:
            account.codes, account.lossy_out, account.lossy_in = given, given_up, lost_in
        program = [self.closes[far.target]] if far.target in self.closes else []
        allowed = {*program, *far.closing, *([1001] if self.stopping else [])}
        assert set(far.closed_with) <= allowed, (far.closed_with, allowed)

    def outcome(self, far: Far, letters: str) -> Outcome:
        """What became of an upgrade, so far."""
        if len(far.possible) == 1:
            return next(iter(far.possible))
        seen: Outcome = "opened"
        if letters in ("", "U", "UE", "E"):
            seen = {"": "none", "U": "denied", "UE": "failed", "E": "failed"}[letters]  # type: ignore[assignment]
        # What is on its way is one of these too.
        return seen if seen in far.possible or letters.endswith("C") else min(far.possible)

    def check_log(self) -> None:
        """What a callback raises is logged once, with the ID."""
        logged = [line for line in self.lines if line.get("event") == "callback raised"]
        assert all(isinstance(line["exc_info"], Mine) for line in logged), logged
        assert [line["id"] for line in logged] == self.raised

    def come_to_rest(self) -> None:
        """Nothing stands in anybody's way any more: what is due has come, without anything else happening."""
        for gate in self.gates.values():
            gate.set()
        self.gates.clear()
        for far in self.all:
            far.reading, far.singly = True, False
        self.until(lambda: all(self.is_at_rest(far) for far in self.all))
        self.until(lambda: all(task.done() for task in self.tasks))
        for task in self.tasks:
            task.result()
        self.tasks.clear()
        for far in self.all:
            far.unread = 0
            self.look_at(far, over=self.is_over(far))
            far.full = far.full and self.is_over(far)

    def is_over(self, far: Far) -> bool:
        """Whether the last event of a socket has come."""
        letters, final = story(self.of(far)), far.possible - {"waiting"}
        return bool(final) and any(re.fullmatch(WHOLE[outcome], letters) for outcome in final)

    def is_at_rest(self, far: Far) -> bool:
        """Whether all has come that is due."""
        account = far.account
        if self.is_over(far) and (far.ended or far.left):
            return True
        if far.possible == {"waiting"} and not far.left:
            return not far.waits or self.is_unread(far)
        if far.left and self.is_unread(far) and "failed" in far.possible:
            return True  # That it left is seen when it is answered, or in `Timeouts.answer`.
        if far.possible != {"opened"} or far.silent or far.target in self.closes:
            return False
        received = sum(isinstance(event, WebSocketReceive) and event.fin for event in self.of(far))
        return (received, len(account.got), far.pongs) == (len(account.sent), len(account.taken), [])

    def is_unread(self, far: Far) -> bool:
        """Whether a socket has sent so much before it is answered that the host does not read on."""
        return story(self.of(far)) == "U" and far.early > self.read_buffer

    # The end.

    def end(self, *, unfinished: bool) -> None:
        """Stop the host, and see what is left; or let it all go where a test ends before its end."""
        try:
            if self.all and unfinished:
                self.give_up()
            elif self.all:
                self.stop()
        finally:
            for far in self.all:
                far.sock.close()
            self.exits.close()
            structlog.reset_defaults()
            self.loop.close()

    def give_up(self) -> None:
        """The sequence ends before its end: let go what is left."""
        for gate in self.gates.values():
            gate.set()
        for far in self.all:
            far.reset()
        with contextlib.suppress(Exception):
            self.run(asyncio.wait_for(self.host.stop(), 2))
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.run(asyncio.wait(left, timeout=2))

    def stop(self) -> None:
        """stop() ends them all with 1001, and leaves nothing."""
        self.come_to_rest()
        self.stopping = True
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stopping = asyncio.ensure_future(self.host.stop(), loop=self.loop)
            open_before = [far for far in self.all if self.is_open(far)]
            self.until(stopping.done)
            stopping.result()
            gc.collect()
        assert not [str(warning.message) for warning in caught]
        assert not asyncio.all_tasks(self.loop)
        assert not self.host.sockets
        assert not self.troubles, self.troubles
        for far in self.all:
            far.turn()
            if far.possible == {"waiting"}:  # An upgrade that nobody answered has failed.
                far.possible = {"failed"}
                assert far.status == 503
            self.look_at(far, over=True)
        for far in open_before:
            assert far.closed_with == [1001], (far.target, far.closed_with)
        self.check_log()
        self.check_slow_log()

    def is_open(self, far: Far) -> bool:
        """Whether a socket is open at both ends."""
        return not far.silent and far.status == 101 and not far.closing

    def check_slow_log(self) -> None:
        """Slow handlers had the events of each socket in the order in which they came."""
        for id in set(self.ids.values()):
            mine = [event for event in self.events if event.id == id]  # type: ignore[attr-defined]
            slow = [event for event, _ in self.slow_log if event.id == id]  # type: ignore[attr-defined]
            order = [next(i for i, event in enumerate(mine) if event is one) for one in slow]
            assert order == sorted(order), "slow handlers overtook each other"
