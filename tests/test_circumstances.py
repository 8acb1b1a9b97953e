"""Odd circumstances: no descriptor left, a port taken, clocks that jump, SIGTERM, a loop that is closed."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import time

import pytest
from cryptography import x509
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from interceptor import Host, InvalidState, Timeouts, WebSocketUpgrade

from .conftest import FACTORIES
from .peer import PATIENCE, TEXT, Peer, Recorder, close_frame, frame
from .started import program
from .wire import BOTH_LOOPS, HEAD, MANUAL, make_host, opened, switched
from .wire import lines as lines

LOOPS = pytest.mark.parametrize("loop", list(FACTORIES))
RUN = {"asyncio": "asyncio.run(main())", "uvloop": "import uvloop; uvloop.run(main())"}
FACTORY = {"asyncio": "None", "uvloop": "__import__('uvloop').new_event_loop"}

needs_signals = pytest.mark.skipif(os.name == "nt", reason="signals and limits of this kind are Unix's")


# No descriptor left

EXHAUSTED = """
import asyncio, json, logging, os, resource, socket, sys
from interceptor import Host
from tests.peer import PATIENCE, TEXT, Peer, frame
from tests.programs import echo
from tests.wire import ANYONE

logged = []
class Kept(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())
logging.getLogger("asyncio").addHandler(Kept())
logging.getLogger("asyncio").propagate = False

async def say(peer, text):
    await peer.send(frame(TEXT, text))
    return (await peer.frame()).payload.decode()

async def main():
    host = Host([("*", 1)], security=ANYONE)
    host.route("*")(echo)
    told = {}
    async with host, Peer.open(host) as before:
        waiting = [socket.socket() for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        files = []
        try:
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as exc:
            told["full"] = exc.errno
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(host.address)
        told["served"] = []
        for number in range(25):  # Two and a half times the second after which asyncio tries again.
            told["served"].append(await say(before, str(number)))
            await asyncio.sleep(0.1)
        told["logged"] = list(logged)
        for file in files:
            os.close(file)
        for sock in waiting:
            sock.close()
        async with asyncio.timeout(PATIENCE), Peer.open(host) as after:
            told["recovered"] = await say(after, "again")
        told["still"] = await say(before, "still")
    await asyncio.sleep(1.5)
    told["later"] = logged[len(told["logged"]):]
    sys.stdout.write("TOLD " + json.dumps(told))

"""


@needs_signals
@LOOPS
def test_no_descriptor_left(loop: str) -> None:
    """Open sockets are served on, and new ones again once there is room; asyncio says so once a second."""
    with program(EXHAUSTED + RUN[loop]) as process:
        out, errors = process.communicate(timeout=PATIENCE)
    assert "TOLD " in out, errors
    told = json.loads(out.partition("TOLD ")[2])
    assert told["served"] == [str(number) for number in range(25)]
    assert (told["recovered"], told["still"]) == ("again", "still")
    if loop == "asyncio":
        assert 1 <= len(told["logged"]) <= 4
        assert all(line.startswith("socket.accept() out of system resource") for line in told["logged"])
    else:  # uvloop closes who comes, and says nothing.
        assert told["logged"] == []
    assert len(told["later"]) <= 1
    assert process.returncode == 0, errors


# A port that is taken


@BOTH_LOOPS
async def test_a_port_that_is_taken() -> None:
    async with make_host() as first:
        address = first.address
        second = Host(listen=address)
        with pytest.raises(InvalidState, match=r"cannot listen.*port 0 takes any free one") as caught:
            await second.start()
        assert str(address[1]) in str(caught.value)
    await second.start()  # Its port is free by now.
    assert second.address == address
    await second.stop()


# Clocks


@BOTH_LOOPS
@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize("days", [-3650, 3650])
async def test_a_clock_that_jumps_changes_nothing(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is by the loop's own clock, which never jumps."""
    real = time.time
    limits = Timeouts(head=60, answer=60, close=60, ping=60, pong=60)
    async with make_host(timeouts=limits) as host:
        seen = Recorder(host)
        async with opened(host) as peer, Peer.connect(host) as late, Peer.connect(host) as waiting:
            await late.send(HEAD[:-2])
            await waiting.send(MANUAL)
            event = await seen.wait_for(WebSocketUpgrade, 2)
            monkeypatch.setattr(time, "time", lambda: real() + days * 86400)
            await asyncio.sleep(0.05)
            await peer.send(frame(TEXT, "hello") + close_frame(3000))
            assert await peer.close_code() == 3000
            await late.send(b"\r\n")
            await switched(late)
            host.answer(event.id, event.accept())
            await switched(waiting)
            session = host.sockets[event.id]
            ping = asyncio.create_task(session.ping())
            await waiting.send(frame(10, (await waiting.frame()).payload))
            assert 0 <= await ping < 60
            await waiting.send(close_frame(1000))
            await late.send(close_frame(1000))
            assert (await waiting.close_code(), await late.close_code()) == (1000, 1000)
    assert "WebSocketError" not in seen.names()


def test_a_certificate_holds_on_a_clock_that_was_set_back() -> None:
    """Made now, it is good for a browser whose clock is hours behind, and for one that is weeks ahead."""
    host = Host([("wss://myapp.test/*", 1)])
    certificate = x509.load_pem_x509_certificate(host.ca_pem.encode())
    now, hours = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
    assert certificate.not_valid_before_utc < now - 20 * hours
    assert certificate.not_valid_after_utc > now + 14 * 24 * hours


# SIGTERM

HOST = """
import asyncio, signal, sys
from interceptor import Host, Timeouts
host = Host([("ws://myapp/*", 1)], root="myapp", timeouts=Timeouts(close=3600))
"""
IN_ASYNCIO = """
async def main():
    async with host:
        {}
        print(host.ws_url("/"), flush=True)
        await asyncio.Event().wait()
"""
IN_THREAD = """
{}
with host.in_thread(loop_factory={}):
    print(host.ws_url("/"), flush=True)
    while host.dq():
        pass
"""
STOPS = """asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)"""
EXITS = """signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"""


def terminated(code: str, *options: str) -> tuple[int, int | None, str]:
    """Run a program, open a socket, send SIGTERM; its exit status, the close code, what it complains of."""
    with program(code, *options) as process:
        assert process.stdout is not None
        with connect(process.stdout.readline().strip()) as peer:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)
            code_seen = peer.close_code
        _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, code_seen, errors


def complaints(errors: str) -> list[str]:
    """What of an output speaks of trouble."""
    troubles = ("ResourceWarning", "was destroyed", "never awaited", "Exception ignored", "Fatal", "Error")
    return [line for line in errors.splitlines() if any(trouble in line for trouble in troubles)]


@needs_signals
@LOOPS
@pytest.mark.parametrize("place", ["asyncio", "thread"])
def test_sigterm_that_nobody_takes_ends_the_program_at_once(place: str, loop: str) -> None:
    code = (
        IN_ASYNCIO.format("pass") + RUN[loop] if place == "asyncio" else IN_THREAD.format("", FACTORY[loop])
    )
    status, code_seen, errors = terminated(HOST + code)
    assert (status, code_seen, complaints(errors)) == (-signal.SIGTERM, 1006, [])
    assert "Traceback" not in errors


@needs_signals
@LOOPS
def test_sigterm_that_cancels_the_program_closes_its_sockets(loop: str) -> None:
    body = IN_ASYNCIO.format(STOPS)
    run = f"try:\n    {RUN[loop]}\nexcept asyncio.CancelledError:\n    sys.exit(3)\n".replace("; ", "\n    ")
    status, code_seen, errors = terminated(HOST + body + run)
    assert (status, code_seen, complaints(errors)) == (3, 1001, [])
    assert "Traceback" not in errors


STRUCK = (
    EXITS
    + """
import threading, time
def waits():
    return sys._current_frames()[threading.main_thread().ident].f_code.co_name == "_wait"
def strike():
    while not (host.sockets and waits()):
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=strike).start()
"""
)


@needs_signals
@LOOPS
def test_a_signal_that_interrupts_no_wait_is_noticed_all_the_same(loop: str) -> None:
    """One that strikes another thread, or comes between two instructions, does not wake who is in dq()."""
    with program(HOST + IN_THREAD.format(STRUCK, FACTORY[loop]), "-W", "default") as process:
        assert process.stdout is not None
        with connect(process.stdout.readline().strip()) as peer:
            with pytest.raises(ConnectionClosed):
                peer.recv(PATIENCE)
            code_seen = peer.close_code
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, code_seen, complaints(errors)) == (3, 1001, [])


@needs_signals
@LOOPS
def test_sigterm_that_exits_closes_the_sockets_of_a_thread(loop: str) -> None:
    """The signal comes just when an event does, and neither may be lost.

    Not in development mode: there asyncio walks the stack for each call, and what is raised meanwhile is lost
    in the generator that does it.
    """
    for _ in range(4):
        status, code_seen, errors = terminated(HOST + IN_THREAD.format(EXITS, FACTORY[loop]), "-W", "default")
        assert (status, code_seen, complaints(errors)) == (3, 1001, [])
        assert "Traceback" not in errors


# A loop that is closed from outside

CLOSED = """
import asyncio, json, socket, threading
from interceptor import InvalidState, WebSocketUpgrade
from tests.peer import Recorder
from tests.wire import HEAD, MANUAL, make_host

sockets = []
host = make_host()
seen = Recorder(host)

async def begin():
    await host.start()
    for number, head in enumerate((HEAD, MANUAL), 1):
        sockets.append(socket.create_connection(host.address))
        sockets[-1].send(head)
        await seen.wait_for(WebSocketUpgrade, number)

def run():
    loop = make_loop()
    loop.run_until_complete(begin())
    loop.close()

thread = threading.Thread(target=run)
thread.start()
thread.join()

async def stop():
    await host.stop()

open_id, waiting_id = (event.id for event in seen.of(WebSocketUpgrade))
calls = {
    "send": lambda: host.WebSocketSend(open_id, "hello"),
    "close": lambda: host.WebSocketClose(open_id),
    "answer": lambda: host.answer(waiting_id, seen.of(WebSocketUpgrade)[1].accept()),
    "stop_soon": host.stop_soon,
    "dq": host.dq,
    "stop": lambda: asyncio.run(stop()),
}
told = {}
for name, call in calls.items():
    try:
        told[name] = f"returned {call()!r}"
    except InvalidState as exc:
        told[name] = str(exc)
print("TOLD " + json.dumps(told), flush=True)
"""


@LOOPS
def test_a_loop_that_is_closed_while_the_host_runs(loop: str) -> None:
    """Whoever calls the host from another thread is told; nobody waits for ever."""
    make = "asyncio.new_event_loop" if loop == "asyncio" else "__import__('uvloop').new_event_loop"
    with program(CLOSED.replace("make_loop()", f"{make}()")) as process:
        out, errors = process.communicate(timeout=PATIENCE)
    assert "TOLD " in out, errors
    told = json.loads(out.partition("TOLD ")[2])
    assert "belongs to the host's event loop" in told.pop("stop")
    assert {name for name, text in told.items() if "the host's event loop has ended" in text} == set(told)
    assert len(told) == 5
