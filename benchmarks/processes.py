"""Servers as processes: started one by one, ended by their own id whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from benchmarks.load import BenchmarkError

PATIENCE = 30.0  # seconds for a server to start, or to do what it was told
PROGRAM = (sys.executable, "-m", "benchmarks.servers")
GRACE = 5.0  # seconds for a server to end once its standard input has
RUNNING: list[subprocess.Popen[str]] = []
"""All that run now."""


class MissingServer(Exception):
    """A server cannot be measured because a package that it needs cannot be imported."""


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        output: what it printed after its port, known when it has ended.
    """

    name: str
    process: subprocess.Popen[str]
    port: int
    output: str = ""

    def processor_seconds(self) -> float | None:
        """Processor time of its threads so far, or None where the system does not tell (Linux does)."""
        try:
            threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
            return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
        except (OSError, ValueError, IndexError):
            return None

    def memory(self, what: str = "VmRSS") -> int | None:
        """Bytes of memory that it has now (`VmHWM`: had at most), or None where the system does not tell."""
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
            return int(text.partition(f"{what}:")[2].split()[0]) * 1024
        except (OSError, ValueError, IndexError):
            return None

    def order(self, text: str) -> None:
        """Have it do something, and wait until that is done."""
        self.begin(text)
        self.wait_done()

    def begin(self, text: str) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def wait_done(self) -> None:
        """Wait until it has done what it was told.

        Raises:
            BenchmarkError: it could not.
        """
        if (answer := read_line(self.process)) != "done":
            raise BenchmarkError(f"{self.name} was told to do something and said {answer!r}")

    def forget_peak(self) -> None:
        """Let `VmHWM` begin anew."""
        with suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


def start(
    name: str, loop: str, core: int | None, profile: bool, program: Sequence[str]
) -> subprocess.Popen[str]:
    """Start the server's process, in a session of its own so that Ctrl-C reaches only who measures."""
    command = [*program, name, "--loop", loop]
    command += ["--core", str(core)] if core is not None else []
    command += ["--profile"] if profile else []
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
        start_new_session=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints; nothing where it ends, or takes too long and is ended."""
    assert process.stdout is not None
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        return process.stdout.readline().strip()
    finally:
        timer.cancel()


def read_port(name: str, process: subprocess.Popen[str]) -> int:
    """The port that the server reports.

    Raises:
        MissingServer: a package is not there.
        BenchmarkError: the server failed, or said nothing in time.
    """
    word, _, rest = read_line(process).partition(" ")
    if word == "missing":
        raise MissingServer(rest)
    if word != "port":
        raise BenchmarkError(f"{name} did not start")
    return int(rest)


def interrupt(number: int, frame: object) -> NoReturn:
    """What Ctrl-C does: end all servers first, of which none can then complain that its clients are gone."""
    for process in RUNNING:
        process.kill()
    raise KeyboardInterrupt


@contextmanager
def interruptible(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have Ctrl-C end this one at once during the block, however many others there are."""
    RUNNING.append(process)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        RUNNING.remove(process)


def end(process: subprocess.Popen[str]) -> str:
    """End the process by closing its standard input, or else by force; return its last output."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after a second Ctrl-C: nothing may be left running
        if process.poll() is None:
            process.kill()
            process.wait()
    with process.stdout as output:
        return output.read()


@contextmanager
def running(
    name: str,
    loop: str,
    core: int | None,
    profile: bool = False,
    program: Sequence[str] = PROGRAM,
) -> Iterator[ServerProcess]:
    """A server that runs as long as the block; `program` is what knows servers by their names."""
    process = start(name, loop, core, profile, program)
    server = None
    try:
        with interruptible(process):
            server = ServerProcess(name, process, read_port(name, process))
            yield server
    finally:
        output = end(process)
        if server is not None:
            server.output = output
