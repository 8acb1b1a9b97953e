"""The package's log lines, by structlog, which the program configures and this package never does."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger

__all__ = ["Logger", "get_logger", "info"]

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
