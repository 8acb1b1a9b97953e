"""The package's log lines, by structlog, which the program configures and this package never does."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import structlog
from structlog.typing import FilteringBoundLogger

__all__ = ["Logger", "Seldom", "get_logger", "info"]

Logger = FilteringBoundLogger


def get_logger(**context: object) -> Logger:
    """Return a logger whose lines carry `context`, such as `id` and `url`.

    A program that has configured structlog gets every line in its own way. One that has not gets
    warnings and errors only, on standard error.
    """
    if structlog.is_configured():
        logger: Logger = structlog.get_logger("interceptor", **context)
        return logger
    return _plain_logger().bind(**context)


def info(text: str, **context: object) -> None:
    """Log what is no fault: to a program that has configured structlog, to nobody else."""
    if structlog.is_configured():
        get_logger().info(text, **context)


class Seldom:
    """Warnings of what strangers do: of each kind `BURST` at once, and then one a second.

    A page can have a host refuse it hundreds of times a second. What was left out is counted, and told with
    the next line of its kind.

    Args:
        clock: seconds.
    """

    BURST = 20
    LONGEST = 200

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, float, int]] = {}

    def warning(self, event: str, *, url: str | None = None, **context: object) -> None:
        """Write a line, or count it; a long URL is cut."""
        left_out = self._count(event)
        if left_out is None:
            return
        if url is not None:
            context["url"] = url if len(url) <= self.LONGEST else f"{url[: self.LONGEST]}..."
        if left_out:
            context["left_out"] = left_out
        get_logger(**context).warning(event)

    def _count(self, kind: str) -> int | None:
        """Return how many lines were left out before this one, None where this one is."""
        now = self._clock()
        room, last, left_out = self._kinds.get(kind, (float(self.BURST), now, 0))
        room = min(room + now - last, self.BURST)
        if room < 1:
            self._kinds[kind] = (room, now, left_out + 1)
            return None
        self._kinds[kind] = (room - 1, now, 0)
        return left_out


def _plain_logger() -> Logger:
    # Made anew for each use: standard error may have been replaced in between.
    logger: Logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # Not the formatter that it takes where `rich` is installed: that shows the values of all locals,
            # an event with its cookies among them.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    return logger
