"""What a signal's handler raises, between any two steps of the program's thread: nothing is lost with it."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from interceptor import (
    Event,
    Host,
    Timeouts,
    WebSocketClose,
    WebSocketReceive,
    WebSocketUpgrade,
)
from interceptor.dispatch.crossing import Call, Crossing
from interceptor.dispatch.dispatcher import Dispatcher
from interceptor.dispatch.dq import Queue
from interceptor.dispatch.lane import Crossed, Lane

from .peer import PATIENCE
from .threads import Program, Seen, client, dial, make_host, no_thread_left
from .wire import Line
from .wire import lines as lines

OPENED, HEARD, CLOSED = "WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"

Interrupt = Callable[[Callable[[], object]], None]
needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")


class Stop(BaseException):
    """What the handler of a signal raises."""


class Raiser:
    """Raises once at the start, or the end, of a method, on the program's thread."""

    def __init__(self, owner: type, name: str, after: bool = False, *, thread: int = 0) -> None:
        self.place = (owner, name, after)
        self.armed = False
        self.raised = False
        self._thread = thread or threading.get_ident()
        self._owner, self._name, self._after = owner, name, after
        self._method = getattr(owner, name)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def method(*args: object, **kwargs: object) -> object:
            if not self._after:
                self._raise()
            result = self._method(*args, **kwargs)
            if self._after:
                self._raise()
            return result

        monkeypatch.setattr(self._owner, self._name, method)

    def _raise(self) -> None:
        if self.armed and not self.raised and threading.get_ident() == self._thread:
            self.raised = True
            raise Stop


PLACES = {
    "job": (Crossed, "__call__", False),
    "cross": (Lane, "_cross", False),
    "call": (Lane, "_call", False),
    "callback": (Lane, "_call", True),
    "cross on": (Lane, "_cross_on", False),
    "report": (Dispatcher, "report", False),
    "reported": (Dispatcher, "report", True),
    "crossed": (Lane, "_cross_on", True),
    "run": (Crossing, "run", True),
    "take": (Queue, "_take", True),
}


@pytest.fixture(params=PLACES)
def raiser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Raiser:
    owner, name, after = PLACES[request.param]
    made = Raiser(owner, name, after)
    made.install(monkeypatch)
    return made


def until_raised(host: Host, raiser: Raiser) -> None:
    raiser.armed = True
    with pytest.raises(Stop):
        soon_in_dq(host, lambda: raiser.raised)


@pytest.mark.parametrize("what", [HEARD, CLOSED])
def test_the_next_dq_goes_on(raiser: Raiser, what: str, lines: list[Line]) -> None:
    """With every event that callbacks had not begun with, each once."""
    host = make_host()
    seen = Seen(host)
    with no_thread_left(), host.in_thread(dq=True):
        peer = dial(host)
        while not seen.events:
            host.dq(0.01)
        if what is CLOSED:
            peer.close()
        else:
            peer.send("1")
        until_raised(host, raiser)
        if what is HEARD:
            peer.send("2")
        while what not in seen.names() or (what is HEARD and "2" not in seen.data()):
            assert host.dq(0.01) is None
        threading.Thread(target=peer.close).start()
        soon_in_dq(host, lambda: CLOSED in seen.names())
        soon_in_dq(host, lambda: not host.sockets)
    heard = [HEARD] * 2 if what is HEARD else []
    assert seen.names() == [OPENED, *heard, CLOSED]
    assert not [line for line in lines if line["log_level"] == "error"]


def soon_in_dq(host: Host, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        assert host.dq(0.01) is None


def test_stop_goes_on(raiser: Raiser, lines: list[Line]) -> None:
    host = make_host(timeouts=Timeouts(close=3600))
    seen = Seen(host)
    with no_thread_left():
        with host.in_thread(dq=True):
            peer = dial(host)
            peer.send("1")
            while not seen.events:
                host.dq(0.01)
            peer.send("2")
            until_raised(host, raiser)
        peer.close()
    assert seen.names() == [OPENED, HEARD, HEARD, CLOSED]
    assert not [line for line in lines if line["log_level"] == "error"]


@pytest.mark.parametrize("name", ["cross on", "run", "take"])
def test_an_event_that_dq_was_about_to_return(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comes next, and once."""
    raiser = Raiser(*PLACES[name])
    raiser.install(monkeypatch)
    host = make_host()
    with no_thread_left(), host.in_thread(dq=True):
        with client(host) as peer:
            assert isinstance(host.dq(PATIENCE), WebSocketUpgrade)
            peer.send("1")
            until_raised(host, raiser)
            peer.send("2")
            for text in ("1", "2"):
                event = host.dq(PATIENCE)
                assert isinstance(event, WebSocketReceive)
                assert event.data == text
        assert isinstance(host.dq(PATIENCE), WebSocketClose)
        assert host.dq(0) is None


@pytest.mark.parametrize("upgraded", [True, False])
def test_a_manual_upgrade_is_answered(raiser: Raiser, upgraded: bool) -> None:
    host = make_host(timeouts=Timeouts(answer=0.5, close=5))
    statuses: list[int] = []

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> WebSocketUpgrade | None:
        return event.accept() if upgraded else None

    host.on("WebSocketError")(lambda event: None)
    host.on("WebSocketClose")(lambda event: None)

    def ask() -> None:
        try:
            with client(host, "/manual"):
                statuses.append(101)
        except InvalidStatus as exc:
            statuses.append(exc.response.status_code)

    with no_thread_left(), host.in_thread(dq=True):
        asking = threading.Thread(target=ask)
        asking.start()
        until_raised(host, raiser)
        soon_in_dq(host, lambda: statuses)
        asking.join(PATIENCE)
    lost = raiser.place == PLACES["callback"]
    assert statuses == [101 if upgraded and not lost else 504]


def test_an_answer_that_never_left_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was noted as given, and is not waited for beyond Timeouts.answer."""
    raiser = Raiser(Dispatcher, "run")
    raiser.install(monkeypatch)
    host = make_host(timeouts=Timeouts(answer=0.5, close=5))
    failed = Seen(host, "WebSocketError")

    @host.on("WebSocketUpgrade")
    def answer(event: WebSocketUpgrade) -> WebSocketUpgrade:
        raiser.armed = True
        return event.accept()

    def ask() -> None:
        with pytest.raises(InvalidStatus, match="504"), client(host, "/manual"):
            pass

    with no_thread_left(), host.in_thread(dq=True):
        asking = threading.Thread(target=ask)
        asking.start()
        with pytest.raises(Stop):
            host.dq(PATIENCE)
        soon_in_dq(host, lambda: failed.events)
        asking.join(PATIENCE)


def test_the_next_pump_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for at once: no other event may come."""
    with Program() as program:
        raiser = Raiser(Lane, "_cross", thread=program.ident)
        raiser.install(monkeypatch)
        stopped: list[bool] = []

        def post(function: Callable[[], None]) -> None:
            def run() -> None:
                try:
                    function()
                except Stop:
                    stopped.append(True)

            program.post(run)

        host = make_host(post)
        seen = Seen(host)
        with no_thread_left(), host.in_thread(), client(host) as peer:
            seen.wait_for(OPENED)
            raiser.armed = True
            peer.send("1")
            seen.wait_for(HEARD)
            peer.send("2")
            seen.wait_for(HEARD, 2)
        assert stopped
        assert seen.data() == ["1", "2"]


def test_a_plain_callback_beside_an_async_one(monkeypatch: pytest.MonkeyPatch) -> None:
    raiser = Raiser(Call, "__call__")
    raiser.install(monkeypatch)
    host = make_host()
    seen = Seen(host)

    @host.on("WebSocketReceive")
    async def other(event: WebSocketReceive) -> None:
        """Has the event go by a task."""

    with no_thread_left(), host.in_thread(dq=True), client(host) as peer:
        soon_in_dq(host, lambda: seen.events)
        peer.send("1")
        until_raised(host, raiser)
        soon_in_dq(host, lambda: seen.data() == ["1"])


def check_each(told: list[Event], sockets: int) -> None:
    """Of each socket the numbers came in order, none twice, and one end behind them."""
    by_id: dict[str, list[Event]] = {}
    for event in told:
        by_id.setdefault(event.id, []).append(event)  # type: ignore[attr-defined]
    assert len(by_id) == sockets
    for events in by_id.values():
        assert events[-1].event == CLOSED
        assert [event.event for event in events].count(CLOSED) == 1
        heard = [int(event.data) for event in events if isinstance(event, WebSocketReceive)]
        assert heard == sorted(set(heard))


@needs_timer
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Raised in a weakref's callback.
def test_thousands_of_signals() -> None:
    """Each raises; the program catches that, and goes on."""
    host, raised = make_host(), 0
    seen = Seen(host)
    count, sockets = 1000, 4

    def talk() -> None:
        peers = [dial(host) for _ in range(sockets)]
        for index in range(count):
            for peer in peers:
                peer.send(str(index))
        for peer in peers:
            peer.close()

    def stop(signum: int, frame: object) -> None:
        if amid:
            amid.clear()
            raise Stop

    amid: list[bool] = []
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with no_thread_left(), host.in_thread(dq=True):
            talking = threading.Thread(target=talk)
            talking.start()
            deadline = time.monotonic() + PATIENCE
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            while seen.names().count(CLOSED) < sockets and time.monotonic() < deadline:
                try:
                    amid.append(True)
                    host.dq(0.2)
                    amid.clear()
                except Stop:
                    raised += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            talking.join(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised > 10
    check_each(seen.events, sockets)


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    """Calls a function that takes long, until a signal's handler raises at some step of it."""
    amid: list[bool] = []

    def stop(signum: int, frame: object) -> None:
        if amid:
            amid.clear()
            raise Stop

    def begin(function: Callable[[], object]) -> None:
        amid.append(True)
        function()

    def call(function: Callable[[], object]) -> None:
        with pytest.raises(Stop):
            begin(function)

    before = signal.signal(signal.SIGALRM, stop)
    gc.disable()  # What is raised amid its work Python only prints.
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    signal.signal(signal.SIGALRM, before)


@needs_timer
def test_signals_amid_jobs_leave_the_thread_out_of_them(
    interrupt: Interrupt,
) -> None:
    """Else a stop would be refused, as one in a callback."""
    crossing = Crossing(lambda pump: None, lambda: None)

    def job() -> None:
        crossing.enter(job)

    for _ in range(200):
        job()  # The last one is lost where the signal came as it was taken.
        interrupt(crossing.run)
        assert not crossing.in_job


@needs_timer
async def test_signals_amid_calls_of_threads_keep_nothing_back(
    interrupt: Interrupt,
) -> None:
    """Else their sockets would never write again."""
    dispatcher = Dispatcher()
    dispatcher.bind()

    def call() -> None:
        """It costs as little as can be."""

    for _ in range(200):
        dispatcher._calls.extend([(call, ())] * 100_000)
        interrupt(dispatcher._run_calls)
        assert dispatcher.flushes is None
        dispatcher._calls.clear()


@pytest.mark.parametrize("kind", [WebSocketUpgrade, WebSocketReceive])
def test_what_ends_the_program_just_as_an_event_is_done_holds_up_no_stop(
    kind: type[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler may raise between any two steps, so before the loop is told of that, too."""
    host = make_host(timeouts=Timeouts(close=3600))
    dispatcher, taken = host._dispatcher, list[Event]()
    report = dispatcher.report

    def raise_instead(function: Callable[..., object], *args: object) -> None:
        if any(isinstance(event, kind) for event in taken):
            monkeypatch.undo()
            raise SystemExit(3)
        report(function, *args)

    host.on("All")(taken.append)
    monkeypatch.setattr(dispatcher, "report", raise_instead)
    with no_thread_left():
        with pytest.raises(SystemExit), host.in_thread(dq=True):  # noqa: PT012
            peer = dial(host)
            peer.send("hello")
            host.dq()
        with pytest.raises(ConnectionClosed) as caught:
            peer.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001
    assert [event.event for event in taken] == ["WebSocketUpgrade", "WebSocketReceive", "WebSocketClose"]
