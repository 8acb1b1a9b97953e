"""Program, peers and faults in any order, against a real host: guarantees 1 to 8 hold all the time.

hypothesis chooses what happens; the loop runs between its steps only. `MODEL=2000 make test ARGS="-k
test_model"` tries so many sequences on each loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any, ClassVar

import pytest
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

from interceptor import EventName, SocketClosed, State, UnknownSocket, WebSocketUpgrade

from .conftest import FACTORIES
from .far import Far
from .illegal import CLIENT, ILLEGAL
from .model import Data, story
from .peer import TEXT, frame
from .world import ANSWERS, TABLES, WRITE_BUFFER, World

EXAMPLES = int(os.environ.get("MODEL", "100"))
MUCH = bytes(range(256)) * 1800  # More than the system takes at once.
# Whole at once, so that it is the same whatever was sent before.
SUDDEN = {name: bad for name, bad in ILLEGAL.items() if bad.write(CLIENT)[0] & 0x80}

texts = st.text(max_size=20)
datas = texts | st.binary(max_size=20)
codes = st.sampled_from([1000, 3000, 4999])


class Life(World, RuleBasedStateMachine):
    """What may happen, in any order."""

    factory: ClassVar[Any]

    fars = Bundle("fars")

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        World.__init__(self, self.factory())

    @initialize(chunks=st.booleans(), deflate=st.booleans(), small=st.booleans())
    def begins(self, chunks: bool, deflate: bool, small: bool) -> None:
        self.start(chunks, deflate, small)

    def teardown(self) -> None:
        self.end(unfinished=sys.exc_info()[0] is not None)

    # Peers open.

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

    # At any moment.

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

    @rule()
    def all_comes_to_rest(self) -> None:
        self.come_to_rest()


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
