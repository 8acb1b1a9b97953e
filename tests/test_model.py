"""Program, peers and faults in any order, against a real host: guarantees 1 to 8 hold all the time.

hypothesis chooses what happens; the loop runs between its steps only. `MODEL=2000 make test ARGS="-k
test_model"` tries so many sequences on each loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)
from structlog.testing import capture_logs

from interceptor import (
    Event,
    EventName,
    Host,
    Limits,
    SocketClosed,
    State,
    Timeouts,
    UnknownSocket,
    WebSocketError,
    WebSocketReceive,
    WebSocketUpgrade,
)

from .conftest import FACTORIES
from .far import Far
from .illegal import CLIENT, ILLEGAL, LIMIT
from .model import WHOLE, Data, Outcome, check, story
from .peer import PATIENCE, TEXT, frame
from .programs import narrow
from .wire import ANYONE

EXAMPLES = int(os.environ.get("MODEL", "100"))
WRITE_BUFFER = 512 * 1024
MUCH = bytes(range(256)) * 1800  # More than the system takes at once.
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
# Whole at once, so that it is the same whatever was sent before.
SUDDEN = {name: bad for name, bad in ILLEGAL.items() if bad.write(CLIENT)[0] & 0x80}

texts = st.text(max_size=20)
datas = texts | st.binary(max_size=20)
codes = st.sampled_from([1000, 3000, 4999])


T = TypeVar("T")


class Mine(Exception):
    """What the program raises."""


class Life(RuleBasedStateMachine):
    """A host, its program, and its peers."""

    factory: ClassVar[Any]

    fars = Bundle("fars")

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.factory()
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

    @initialize(chunks=st.booleans(), deflate=st.booleans(), small=st.booleans())
    def start(self, chunks: bool, deflate: bool, small: bool) -> None:
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

    # Peers open.

    def connect(self, target: str, outcome: Outcome) -> Far:
        far = Far(self.host.address, target, self.deflate)
        far.possible = {outcome}
        self.all.append(far)
        return far

    @precondition(lambda self: len(self.all) < 12)
    @rule(target=fars, wait=st.booleans())
    def open_auto(self, wait: bool) -> Far:
        self.count += 1
        far = self.connect(f"/auto/{self.count}", "opened")
        if wait:
            self.until(lambda: far.status)
            assert far.status == 101
        return far

    @precondition(lambda self: len(self.all) < 12)
    @rule(target=fars, how=st.sampled_from(sorted(ANSWERS)))
    def open_manual(self, how: str) -> Far:
        self.count += 1
        far = self.connect(f"/manual/{how}/{self.count}", ANSWERS[how])
        self.until(lambda: self.of(far))
        return far

    # Peers talk.

    @staticmethod
    def can_talk(far: Far) -> bool:
        return not far.silent and bool(far.possible & {"opened", "waiting"})

    @rule(far=fars, data=datas, pieces=st.integers(1, 4))
    def says(self, far: Far, data: Data, pieces: int) -> None:
        if self.can_talk(far) and far.account.begun is None:
            far.say(data, pieces)

    @rule(far=fars, count=st.integers(100, 4000))
    def says_much(self, far: Far, count: int) -> None:
        if self.can_talk(far) and far.account.begun is None:
            for number in range(count):
                far.say(f"{number:020}")

    def last_words(self, far: Far, count: int) -> None:
        """Say something in the very packet that ends it."""
        if far.account.begun is None and not far.singly:
            for number in range(count):
                far.say(f"last {number}")

    @rule(far=fars, text=texts)
    def says_a_part(self, far: Far, text: str) -> None:
        if self.can_talk(far):
            far.begin(text)

    @rule(far=fars)
    def says_the_last_part(self, far: Far) -> None:
        if self.can_talk(far) and far.account.begun is not None:
            far.finish_message()

    @rule(far=fars, payload=st.binary(max_size=4))
    def pings(self, far: Far, payload: bytes) -> None:
        if self.can_talk(far):
            far.ping(payload)

    @rule(far=fars, code=st.none() | codes | st.just(1001), last=st.integers(0, 9), more=st.booleans())
    def leaves(self, far: Far, code: int | None, last: int, more: bool) -> None:
        if self.can_talk(far):
            self.last_words(far, last)
            far.close(code)
            if more:
                far.put(frame(TEXT, "late"))
            far.account.lossy_out = True

    @rule(far=fars, last=st.integers(0, 9), name=st.sampled_from(sorted(SUDDEN)))
    def breaks_the_rules(self, far: Far, last: int, name: str) -> None:
        if self.can_talk(far) and far.account.begun is None and not (self.deflate and "100" in name):
            self.last_words(far, last)
            far.put(SUDDEN[name].write(CLIENT))
            far.silent = True
            far.account.lost()
            far.account.codes = {1006}
            far.closing.append(SUDDEN[name].code)

    # Faults.

    @rule(far=fars)
    def reads_no_more(self, far: Far) -> None:
        far.reading = False

    @rule(far=fars)
    def reads_on(self, far: Far) -> None:
        far.reading = True

    @rule(far=fars, singly=st.booleans())
    def sends_one_byte_at_a_time(self, far: Far, singly: bool) -> None:
        far.singly = singly

    @staticmethod
    def cut_off(far: Far) -> None:
        """Say half a frame, and nothing after it, not even to answer a close."""
        far.put(frame(TEXT, "cut off")[:9])
        far.silent = True

    @rule(far=consumes(fars), last=st.integers(0, 9), cut=st.booleans())
    def ends_the_stream(self, far: Far, last: int, cut: bool) -> None:
        if self.can_talk(far):
            self.last_words(far, last)
        if cut and self.can_talk(far):
            self.cut_off(far)
        self.drain(far)
        far.half_close()
        self.left_early(far)

    @rule(far=consumes(fars), cut=st.booleans())
    def resets(self, far: Far, cut: bool) -> None:
        if cut and self.can_talk(far):
            self.cut_off(far)
            far.turn()
        far.reset()
        self.left_early(far)

    def drain(self, far: Far) -> None:
        """Have all be on the wire that a socket has said, unless the host does not read it."""
        far.singly = False
        for _ in range(3):
            self.turn()
        if far.waits:
            far.account.lossy_in = True

    def left_early(self, far: Far) -> None:
        """One that leaves before it is answered has failed; it cannot tell yet whether it was."""
        if not far.status and far.target.startswith("/manual"):
            far.possible = far.possible - {"waiting"} | {"failed"}
        if not self.of(far):
            far.possible.add("none")

    # The program.

    def may_send(self, far: Far) -> bool:
        """Whether the ID is the program's to use."""
        session = self.host.sockets.get(self.id_of(far))
        return session is not None and session.state is State.OPEN and far.target not in self.closes

    def may_be_unknown(self, far: Far) -> bool:
        """Whether the ID may be not open (yet), or not any more."""
        letters = story(self.of(far))
        before = "U" if far.target.startswith("/manual") else ""
        return far.target in self.closes or letters in ("", before) or letters[-1] == "C" or letters == "UE"

    def sends(self, far: Far, data: Data, fin: bool = True) -> None:
        """WebSocketSend; it is refused only where it must be."""
        try:
            self.call(self.host.WebSocketSend, self.id_of(far), data, fin)
        except UnknownSocket:
            assert self.may_be_unknown(far)
            return
        assert far.target not in self.closes, "taken after WebSocketClose"
        begun = self.pieces.pop(far.target, None)
        whole = data if begun is None else begun + data  # type: ignore[operator]  # of one type
        if fin:
            self.took(far, whole)
        else:
            self.pieces[far.target] = whole

    @rule(far=fars, data=datas)
    def program_sends(self, far: Far, data: Data) -> None:
        begun = self.pieces.get(far.target)
        if begun is None or type(begun) is type(data):
            self.sends(far, data)

    @rule(far=fars, text=texts)
    def program_sends_a_piece(self, far: Far, text: str) -> None:
        if not isinstance(self.pieces.get(far.target), bytes):
            self.sends(far, text, False)

    @rule(far=fars, count=st.integers(1, 30), deaf=st.booleans())
    def program_sends_much(self, far: Far, count: int, deaf: bool) -> None:
        if deaf:
            far.reading = False
        if far.target not in self.pieces:
            for number in range(count):
                self.sends(far, os.urandom(8) + bytes([number]) * 50_000)

    @rule(data=datas)
    def program_broadcasts(self, data: Data) -> None:
        fars = [far for far in self.all if far.target not in self.pieces]
        taking = [
            far for far in fars if self.id_of(far) in self.host.sockets and far.target not in self.closes
        ]
        ids = [self.id_of(far) for far in fars]
        assert self.call(self.host.broadcast, ids, data) <= len(taking)
        for far in taking:
            self.took(far, data)

    def took(self, far: Far, data: Data) -> None:
        """Note what was sent; where the far end is through, the host may know by now that nobody listens."""
        far.account.taken.append(data)
        far.account.lossy_out |= far.silent
        far.unread += len(data)
        # More waits for it than the host keeps: it may be dropped, and all with it.
        far.full = far.full or far.unread > WRITE_BUFFER

    @rule(far=fars, code=codes, much=st.booleans())
    def program_closes(self, far: Far, code: int, much: bool) -> None:
        if much and far.target not in self.pieces:
            self.sends(far, MUCH)
        try:
            self.call(self.host.WebSocketClose, self.id_of(far), code, "enough")
        except UnknownSocket:
            assert self.may_be_unknown(far)
            return
        assert far.target not in self.closes, "closed twice"
        self.closes[far.target] = code
        self.pieces.pop(far.target, None)

    @rule(far=fars, accept=st.booleans())
    def program_answers(self, far: Far, accept: bool) -> None:
        upgrades = [event for event in self.of(far) if isinstance(event, WebSocketUpgrade)]
        if not upgrades:
            return
        try:
            answer = upgrades[0].accept() if accept else upgrades[0].deny()
            self.call(self.host.answer, upgrades[0].id, answer)
        except UnknownSocket:
            assert "waiting" not in far.possible
            return
        far.possible = {"opened" if accept else "denied"}

    @rule(far=fars)
    def program_waits_for_a_pong(self, far: Far) -> None:
        if self.may_send(far):
            self.tasks.append(self.loop.create_task(self.quiet(self.host.sockets[self.id_of(far)].ping())))

    @rule(far=fars)
    def program_waits_for_room(self, far: Far) -> None:
        if self.may_send(far) and far.target not in self.pieces:
            self.tasks.append(self.loop.create_task(self.send_and_wait(far)))

    async def send_and_wait(self, far: Far) -> None:
        if self.may_send(far) and far.target not in self.pieces:
            self.took(far, MUCH)
            await self.quiet(self.host.sockets[self.id_of(far)].send(MUCH))

    @staticmethod
    async def quiet(coroutine: Any) -> None:
        """Await what may be cut short by the end of its socket."""
        with contextlib.suppress(SocketClosed):
            await coroutine

    @rule(far=fars)
    def program_gets_stuck(self, far: Far) -> None:
        if "slow" not in self.handlers:
            self.program_changes_its_handlers("slow")
        self.gates.setdefault(self.id_of(far), asyncio.Event())

    @rule(far=fars)
    def program_gets_on(self, far: Far) -> None:
        if gate := self.gates.pop(self.id_of(far), None):
            gate.set()

    @rule(name=st.sampled_from(["slow", "failing"]))
    def program_changes_its_handlers(self, name: str) -> None:
        which: EventName = "All" if name == "slow" else "WebSocketReceive"
        handler: Any = getattr(self, name)
        if name in self.handlers:
            self.host.off(which, handler)
        else:
            self.host.on(which)(handler)
        self.handlers ^= {name}

    @rule(table=st.sampled_from(TABLES))
    def program_changes_its_rules(self, table: Any) -> None:
        self.host.intercepted_urls = table

    # What holds.

    @invariant()
    def nothing_is_wrong(self) -> None:
        if not self.all:
            return
        self.turn(2)
        assert not self.troubles, self.troubles
        for far in self.all:
            self.look_at(far, over=False)
        for session in self.host.sockets.values():
            assert session.buffered_amount <= WRITE_BUFFER, "more than Limits.write_buffer waits"
        self.check_log()

    @invariant()
    def nobody_waits_for_another(self) -> None:
        if self.all:
            self.witness.ping(b"w")
            self.until(lambda: not self.witness.pongs)

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

    @rule()
    def all_comes_to_rest(self) -> None:
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

    def teardown(self) -> None:
        try:
            if self.all and sys.exc_info()[0] is None:
                self.stop()
            elif self.all:
                self.give_up()
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
        self.all_comes_to_rest()
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


OPTIONS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def life_on(name: str) -> Any:
    """The test of one kind of loop."""
    machine: Any = type(f"Life_{name}", (Life,), {"factory": staticmethod(FACTORIES[name])})
    machine.TestCase.settings = OPTIONS
    return machine.TestCase


TestOnAsyncio = pytest.mark.timeout(60 + EXAMPLES)(life_on("asyncio"))
if "uvloop" in FACTORIES:
    TestOnUvloop = pytest.mark.timeout(60 + EXAMPLES)(life_on("uvloop"))
