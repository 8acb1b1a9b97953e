"""What the doctor found, and how it is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["SOCKETS", "Diagnosis", "Finding", "Socket"]


@dataclass(frozen=True, slots=True)
class Socket:
    """One of the sockets that the page opens.

    Attributes:
        scheme: ws or wss.
        ours: whether the program is to answer it, and not the real server.
    """

    scheme: str
    ours: bool

    def __str__(self) -> str:
        return f"{self.scheme} {'intercepted' if self.ours else 'passed on'}"


SOCKETS = tuple(Socket(scheme, ours) for ours in (True, False) for scheme in ("ws", "wss"))


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one socket by one way.

    Attributes:
        via: the way, as the settings have it: pac, proxy, resolver.
        socket: which of the sockets.
        fault: what is wrong and how to mend it, in plain words; empty where all is well.
    """

    via: str
    socket: Socket
    fault: str = ""

    @property
    def works(self) -> bool:
        """Whether all is well."""
        return not self.fault


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found; as text a table and what there is to say.

    Attributes:
        browser: its name, with its version if it tells it.
        settings: the method of Host that has the settings for it.
        findings: way by way, socket by socket.
    """

    browser: str
    settings: str
    findings: tuple[Finding, ...]

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways that were tried."""
        return tuple(dict.fromkeys(finding.via for finding in self.findings))

    @property
    def working(self) -> tuple[str, ...]:
        """The ways by which all sockets come to where they belong."""
        return tuple(via for via in self.ways if all(finding.works for finding in self._of(via)))

    def __str__(self) -> str:
        return "\n".join((*self._table(), *self._faults(), self._conclusion()))

    def _of(self, via: str) -> Iterator[Finding]:
        return (finding for finding in self.findings if finding.via == via)

    def _table(self) -> Iterator[str]:
        yield self.browser
        heads = [str(socket) for socket in SOCKETS]
        yield "  ".join((" " * 10, *heads))
        for via in self.ways:
            cells = ("works" if finding.works else "FAILS" for finding in self._of(via))
            columns = (f"{cell:{len(head)}}" for cell, head in zip(cells, heads, strict=True))
            yield "  ".join((f"{via:10}", *columns))

    def _faults(self) -> Iterator[str]:
        by_fault: dict[str, list[str]] = {}
        for finding in self.findings:
            if finding.fault:
                by_fault.setdefault(finding.fault, []).append(f"{finding.via}: {finding.socket}")
        for fault, where in by_fault.items():
            yield f"\n{', '.join(where)}\n    {fault}"

    def _conclusion(self) -> str:
        if not self.working:
            return "\nNo way works whole."
        calls = " or ".join(f'host.{self.settings}(via="{via}")' for via in self.working)
        return f"\nIn your program: {calls}"
