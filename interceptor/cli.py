"""The command line: `python -m interceptor demo`, `doctor` and `explain`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from . import Host, InterceptorError, InvalidArgument, Tls, __version__, demo
from .doctor import BROWSERS, Diagnosis

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
        status: int = arguments.run(arguments)
        return status
    except InterceptorError as exc:
        print(f"interceptor: {exc}", file=sys.stderr)
        return UNAVAILABLE


def _demo(arguments: argparse.Namespace) -> int:
    return _check(arguments) if arguments.check else _show(arguments)


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


def _doctor(arguments: argparse.Namespace) -> int:
    async def examine() -> Diagnosis:
        return await Host(tls=Tls(ca=arguments.ca)).doctor(arguments.browser, say=_say)

    diagnosis = _run(examine())
    if diagnosis is None:
        return INTERRUPTED
    _say(f"\n{diagnosis}")
    return int(not diagnosis.working)


def _explain(arguments: argparse.Namespace) -> int:
    from .client import explain  # Not needed for anything else.

    try:
        context = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None
    except OSError as exc:
        raise InvalidArgument(f"--ca {arguments.ca}: {exc}") from exc
    explanation = _run(
        explain(
            arguments.url,
            arguments.protocol,
            origin=arguments.origin,
            headers=arguments.header,
            ssl=context,
            proxy=arguments.proxy,
            timeout=arguments.timeout,
        )
    )
    if explanation is None:
        return INTERRUPTED
    _say(str(explanation))
    return int(not explanation.opens)


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
    command.set_defaults(run=_demo)
    _add_doctor(commands.add_parser("doctor", help=DOCTOR, description=_sentence(DOCTOR)))
    _add_explain(commands.add_parser("explain", help=EXPLAIN, description=_sentence(EXPLAIN)))
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


DOCTOR = "start a browser with the host's settings and say which ways lead its sockets to the program"


def _add_doctor(command: argparse.ArgumentParser) -> None:
    command.epilog = (
        "Exit status: 0 if a way works whole, 1 if none does, 2 if it cannot be tried. "
        "CHROMIUM and FIREFOX in the environment name the browser's path where it is not found."
    )
    command.add_argument(
        "--browser", choices=tuple(BROWSERS), default="chromium", help="which; chromium if not given"
    )
    command.add_argument(
        "--ca", metavar="FILE", help="the certificate authority that your program keeps (Tls.ca)"
    )
    command.set_defaults(run=_doctor)


EXPLAIN = "make a WebSocket handshake and say whether browsers open it, and which rule decides"


def _add_explain(command: argparse.ArgumentParser) -> None:
    command.epilog = (
        "Exit status: 0 if Chromium, Firefox and WebKit open it, 1 if not all do, 2 if it cannot be tried."
    )
    command.add_argument("url", metavar="URL", help="ws://, wss://, http:// or https://")
    command.add_argument(
        "--protocol", action="append", default=[], help="ask for a subprotocol; may be repeated"
    )
    command.add_argument("--origin", help="be a page of this origin, such as http://example.com")
    command.add_argument(
        "--header", action="append", type=_header, default=[], help="one more request field, as 'Name: value'"
    )
    command.add_argument("--proxy", help="go through an HTTP proxy, http://host:port")
    command.add_argument("--ca", metavar="FILE", help="trust the authorities in this PEM file instead")
    command.add_argument(
        "--timeout", type=_seconds, default=20.0, help="seconds for the whole handshake; 20 is Firefox's"
    )
    command.set_defaults(run=_explain)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not 'Name: value'")
    return name.strip(), value.strip()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


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
