"""What the host of `soak.py` reports, read by a thread as it comes."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.load import BenchmarkError
from benchmarks.processes import ServerProcess, running

Report = dict[str, Any]

PATIENCE = 60.0  # seconds until what should come is taken to be lost
PROGRAM = (sys.executable, "-m", "benchmarks.soak_host")


class Reports:
    """The reports of a running host.

    Attributes:
        server: its process.
        on_report: called in the reading thread with each `end` and `failed`.
        errors: what went wrong there, in words.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.on_report: Callable[[Report], None] = lambda report: None
        self.errors: list[str] = []
        self._answers: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def census(self) -> dict[str, int]:
        """Ask the host what it holds now."""
        stdin = self.server.process.stdin
        assert stdin is not None
        stdin.write("census\n")
        stdin.flush()
        return self._wait("census")

    def stop(self) -> Report:
        """Stop the host, and return what it left."""
        stdin = self.server.process.stdin
        assert stdin is not None
        stdin.close()
        return self._wait("left")

    def end(self) -> None:
        """Wait for the end of the reading thread, which comes with that of the process."""
        stdin = self.server.process.stdin
        assert stdin is not None
        stdin.close()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self.server.process.kill()
            self._thread.join()

    def _wait(self, what: str) -> Report:
        try:
            report = self._answers.get(timeout=PATIENCE)
        except queue.Empty:
            raise BenchmarkError(f"the host did not report its {what} within {PATIENCE:.0f} s") from None
        if report.pop("what") != what:
            raise BenchmarkError(f"the host ended instead of reporting its {what}")
        return report

    def _read(self) -> None:
        assert self.server.process.stdout is not None
        for line in self.server.process.stdout:
            report: Report = json.loads(line)
            if report["what"] in ("census", "left"):
                self._answers.put(report)
            elif report["what"] == "error":
                self.errors.append(f"{report['text']} ({report['why']})")
            else:
                self.on_report(report)
        self._answers.put({"what": "end of the process"})


@contextmanager
def hosting(name: str, loop: str, core: int | None) -> Iterator[Reports]:
    """A host that runs as long as the block; `name` is `host`, or a fault that it is to have."""
    with running(name, loop, core, program=PROGRAM) as server:
        reports = Reports(server)
        try:
            yield reports
        finally:
            reports.end()
