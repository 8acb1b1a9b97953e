"""What fuzzing tries: each target takes any bytes, and raises where the host breaks a promise."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable
from typing import Any

from interceptor import WebSocketUpgrade
from tests.streams import Desk, examine_answer, examine_frames, examine_head

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]

_runner = asyncio.Runner()
_desks: list[Desk] = []


def frames(data: bytes) -> None:
    """A stream of frames comes to the same messages, end and answers however it is cut."""
    flags, places, stream = _split(data)
    options = {name: bool(flags & 1 << bit) for bit, name in enumerate(("chunks", "deflate", "held", "eof"))}
    _runner.run(examine_frames(stream, places, **options))


def head(data: bytes) -> None:
    """The first bytes of a connection come to the same answer and events however they are cut."""
    _, places, stream = _split(data)
    _runner.run(examine_head(_desk(), stream, places))


def answer(data: bytes) -> None:
    """Whatever a program answers, its client gets one right answer, or 500."""
    flags, _, stream = _split(data)

    def reply(event: WebSocketUpgrade) -> object:
        if flags & 1:
            return event.verbatim(stream)
        key = str(event.accept().headers).partition("Sec-WebSocket-Accept: ")[2].partition("\r\n")[0]
        return event.answer(stream.decode("utf-8", "surrogateescape").replace("KEY", key))

    _runner.run(examine_answer(_desk(), reply, verbatim=stream if flags & 1 else None))


TARGETS: dict[str, Target] = {"frames": frames, "head": head, "answer": answer}


def _split(data: bytes) -> tuple[int, list[int], bytes]:
    """Read an input: flags, the number of cuts, the place of each in two bytes, and then the stream."""
    data = data.ljust(2, b"\0")
    count = data[1] % 8
    places = [int.from_bytes(data[at : at + 2], "big") for at in range(2, 2 + 2 * count, 2)]
    return data[0], places, data[2 + 2 * count :]


def _desk() -> Desk:
    if not _desks:
        opening: Any = Desk.open()
        _desks.append(_runner.run(opening.__aenter__()))
        atexit.register(_close, opening)
    return _desks[0]


def _close(opening: Any) -> None:
    _runner.run(opening.__aexit__(None, None, None))
    _runner.close()
