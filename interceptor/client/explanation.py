"""Explain a handshake: what was asked and answered, what browsers make of it, and which rule decides."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..config import Limits, Timeouts
from ..connection import Connection, End
from ..exceptions import ConnectFailure
from ..handshake.client import Opening, Response, check_response, write_request
from ..upstream import read_upstream
from .address import Address, Headers, opening, parse_address
from .dial import Exchange, dial
from .verdicts import RULES, Verdict, verdicts

__all__ = ["Explanation", "explain"]

PATIENCE = 20.0
"""Seconds for the whole handshake: Firefox's."""

SHOWN = 16 * 1024
"""Most bytes of a head that are printed."""

SHOWN_OF_BODY, LINES = 500, 5
"""Most bytes and lines of a body that are printed."""

GOODBYE = 1.0
"""Seconds for the server to answer our close."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A handshake, and what decides it.

    Attributes:
        url: the URL that was asked, serialized.
        request: the request head; empty where it was not sent.
        response: the head of the answer, or what came in its place; possibly empty.
        rule: short name of the rule that decides; `open` where nothing is wrong.
        reason: what is wrong, in plain words; or that nothing is.
        standard: where the rule stands.
        mark: which head, and which line of it from 0, decides; None where none does.
        verdicts: of Chromium, Firefox and WebKit.
        body: what came at once after the head of an answer that is no 101; there a server says why.
    """

    url: str
    request: bytes
    response: bytes
    rule: str
    reason: str
    standard: str
    mark: tuple[Literal["request", "response"], int] | None
    verdicts: tuple[Verdict, Verdict, Verdict]
    body: bytes = b""

    @property
    def chromium(self) -> Verdict:
        """What Chromium does."""
        return self.verdicts[0]

    @property
    def firefox(self) -> Verdict:
        """What Firefox does."""
        return self.verdicts[1]

    @property
    def webkit(self) -> Verdict:
        """What WebKit does."""
        return self.verdicts[2]

    @property
    def opens(self) -> bool:
        """Whether all three open it."""
        return all(verdict.opens for verdict in self.verdicts)

    def __str__(self) -> str:
        return "\n".join(
            (
                self.url,
                "",
                *self._lines("request", self.request, "not sent"),
                *self._lines("response", self.response, "none"),
                *self._body_lines(),
                f"{self.reason[:1].upper()}{self.reason[1:]}.",
                f"The rule: {self.standard}.",
                "",
                *map(str, self.verdicts),
            )
        )

    def _lines(self, which: str, head: bytes, missing: str) -> Iterator[str]:
        yield f"{which}:" if head else f"{which}: {missing}"
        for number, line in enumerate(_split(head[:SHOWN])):
            marked = self.mark is not None and self.mark == (which, number)
            yield f"{'  > ' if marked else '    '}{line}"
        yield ""

    def _body_lines(self) -> Iterator[str]:
        for line in _split(self.body[:SHOWN_OF_BODY])[:LINES]:
            yield f"    {line}"
        if self.body:
            yield ""


async def explain(
    url: str,
    protocols: str | Sequence[str] = (),
    *,
    origin: str | None = None,
    headers: Headers = (),
    ssl: tls.SSLContext | None = None,
    proxy: str | None = None,
    timeout: float = PATIENCE,
) -> Explanation:
    """Make a handshake as a browser does, and explain what comes of it.

    A WebSocket that opens is closed again with 1000.

    Args:
        url: ws, wss, http or https; without a fragment.
        protocols: subprotocols to ask for.
        origin: value of Origin; None sends none, as a program does.
        headers: more request fields.
        ssl: for wss; None checks certificates against the system's authorities.
        proxy: an HTTP proxy to go through.
        timeout: seconds for the whole handshake.

    Raises:
        DOMException: SyntaxError, as `WebSocket` raises it.
        InvalidArgument, UnsupportedType: another argument cannot be used.
    """
    address = parse_address(url)
    trial = Trial(opening(address, protocols, origin, headers))
    via = None if proxy is None else read_upstream(proxy, "proxy")
    try:
        async with asyncio.timeout(timeout):
            await dial(trial.exchange, address, context=ssl, proxy=via)
    except TimeoutError:
        if not trial.opened:  # It may have been just in time.
            return trial.explanation(address, ConnectFailure("timeout", f"not open within {timeout:g} s"))
    except ConnectFailure as exc:
        return trial.explanation(address, exc)
    await trial.leave()
    return trial.explanation(address, trial.remark())


class Trial:
    """One handshake, and a goodbye where it went well."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._request = write_request(opening)
        self._response: Response | None = None
        self._connection: Connection | None = None
        self._body = b""
        self._gone = asyncio.Event()
        self.exchange = Exchange(self._request, self._answered)

    def _answered(self, transport: asyncio.Transport, response: Response, rest: bytes) -> None:
        self._response = response
        if response.status != 101:
            self._body = rest
        accepted = check_response(response, self._opening)
        self._connection = Connection(
            transport,
            Nobody(),
            extensions=accepted.extensions,
            limits=Limits(),
            timeouts=Timeouts(close=GOODBYE, ping=None),
            lost=self._gone.set,
            client=True,
        )
        self._connection.data_received(rest)

    @property
    def opened(self) -> bool:
        """Whether the answer was right."""
        return self._connection is not None

    async def leave(self) -> None:
        """Close what was opened."""
        if self._connection is not None:
            self._connection.close()
            await self._gone.wait()

    def remark(self) -> ConnectFailure:
        """Return what is to be said of an answer that is right."""
        assert self._response is not None
        if self.exchange.interim:
            status = self.exchange.interim[0]
            return ConnectFailure("interim", f"the 101 is right, but status {status} comes before it")
        if self._response.oddities:
            return ConnectFailure("odd", f"the answer is right, but {self._response.oddities[0]}")
        return ConnectFailure("open", "the answer is right", "sec-websocket-accept")

    def explanation(self, address: Address, failure: ConnectFailure) -> Explanation:
        """Say what decides."""
        response = self.exchange.received if self._response is None else self._response.head
        request = self._request if self.exchange.reached else b""
        return Explanation(
            address.href,
            request,
            response,
            failure.rule,
            failure.reason,
            RULES[failure.rule].standard,
            _mark(failure, request, response),
            verdicts(failure.rule),
            self._body,
        )


class Nobody:
    """The owner of a connection that is closed at once."""

    def message_received(self, data: str | bytes, fin: bool, datatype: Literal[1, 2]) -> None:
        """Take no message."""

    def connection_ending(self) -> None:
        """Have nothing to send."""

    def connection_ended(self, end: End) -> None:
        """Not mind."""


def _mark(
    failure: ConnectFailure, request: bytes, response: bytes
) -> tuple[Literal["request", "response"], int] | None:
    if failure.rule == "subprotocol-missing" and not failure.field:
        return "request", _find(request, "sec-websocket-protocol") or 0
    line = _find(response, failure.field) if failure.field else None
    if line is None and failure.rule in ("status", "redirect", "authentication", "malformed") and response:
        line = 0
    return None if line is None else ("response", line)


def _find(head: bytes, name: str) -> int | None:
    """Return the last line of a field."""
    found = [
        number for number, line in enumerate(_split(head)) if line.partition(":")[0].strip().lower() == name
    ]
    return found[-1] if found else None


def _split(head: bytes) -> list[str]:
    """Return the lines of a head, safe for a terminal: what a server sends may be anything."""
    text = head.decode("latin-1").replace("\r\n", "\n").strip("\n")
    return [_safe(line) for line in text.split("\n")] if text else []


def _safe(line: str) -> str:
    return "".join(char if " " <= char <= "~" or char == "\t" else f"\\x{ord(char):02x}" for char in line)
