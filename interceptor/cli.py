"""The command line: `python -m interceptor demo`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from . import InterceptorError, __version__, demo

__all__ = ["main"]

T = TypeVar("T")

UNAVAILABLE = 2
INTERRUPTED = 130
"""Exit status of a check that was stopped: it has shown nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    _make_output_safe()
    try:
        return _check(arguments) if arguments.check else _show(arguments)
    except InterceptorError as exc:
        print(f"interceptor: {exc}", file=sys.stderr)
        return UNAVAILABLE


def _show(arguments: argparse.Namespace) -> int:
    demonstration = demo.show(
        _say, port=arguments.port, browser=not arguments.no_browser, colours=_has_colours()
    )
    _run(demonstration)
    _say("Stopped.")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    agreed = _run(demo.check(_say, port=arguments.port))
    return INTERRUPTED if agreed is None else int(not agreed)


def _run(work: Coroutine[None, None, T]) -> T | None:
    """Run a coroutine; return None if Ctrl-C cancelled it."""

    async def interruptible() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def interrupt(signum: int, frame: object) -> None:
            # Ending takes no two seconds. A second Ctrl-C, as asyncio.run has it, would be raised in the
            # middle of that, wherever the loop is: a traceback, or a task that nobody wakes.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            loop.call_soon_threadsafe(task.cancel)

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, interrupt)
        return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="interceptor",
        description="A Python program answers the WebSockets that the pages of a browser component open.",
    )
    parser.add_argument("--version", action="version", version=f"interceptor {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    command = commands.add_parser(
        "demo",
        help="a page whose three WebSockets are answered here",
        description="Serve a page that opens three WebSockets: one answered by the host, one accepted by the "
        "program with a subprotocol, one denied with 403. Each event is printed as it comes, until Ctrl-C.",
    )
    command.add_argument(
        "--check",
        action="store_true",
        help="drive the page in a headless Chromium, print what page and host saw, exit 1 if they disagree",
    )
    command.add_argument("--no-browser", action="store_true", help="open no browser, only print the URL")
    command.add_argument(
        "--port",
        type=_port,
        default=0,
        help="port of the page on 127.0.0.1; 0, the default, takes a free one",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Nobody reads any more, as after `| head`; the demonstration itself goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_output_safe() -> None:
    """See to it that no message of a page can fail on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _has_colours() -> bool:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    # The old console of Windows shows the codes themselves.
    return sys.platform != "win32" or "WT_SESSION" in os.environ
