"""What the figures should reach: our figure divided by a peer's, or an amount."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """At least so much, or, where `most`, no more."""

    limit: float
    most: bool = False

    def met(self, figure: float) -> bool:
        """Whether a figure reaches it."""
        return figure <= self.limit if self.most else figure >= self.limit

    def words(self, figure: float | None) -> str:
        """The aim and what became of it, for a table."""
        sign = "<=" if self.most else ">="
        verdict = "not known" if figure is None else "ok" if self.met(figure) else "MISSED"
        return f"{sign} {self.limit:g} {verdict}"


@dataclass(frozen=True)
class Verdict:
    """One aim and what was measured for it; no figure where that is not known here."""

    what: str
    figure: float | None
    aim: Aim

    @property
    def missed(self) -> bool:
        """Whether the figure is there and falls short."""
        return self.figure is not None and not self.aim.met(self.figure)

    def __str__(self) -> str:
        figure = "" if self.figure is None else f"{self.figure:.3g} "
        return f"{self.what}: {figure}{self.aim.words(self.figure)}"

    def as_json(self) -> dict[str, object]:
        """All of it for programs to read."""
        met = None if self.figure is None else not self.missed
        return {"what": self.what, "figure": self.figure, "limit": self.aim.limit, "met": met}


Aims = Mapping[tuple[str, str], Aim]
"""By the name of a cell and of the peer."""


def of_echo() -> Aims:
    """Our messages/s divided by each peer's."""
    peers = ("websockets", "aiohttp", "uvicorn-sansio", "uvicorn-wsproto", "picows")
    rows = {
        "32:one": (1.2, 1.0, 1.0, 1.0, 0.6),
        "32:many": (2.0, 1.1, 2.0, 2.0, 0.7),
        "1024:many": (2.0, 1.1, 2.0, 2.0, 0.6),
        "65536:many": (1.2, 1.0, 1.5, 1.5, 0.6),
        "1048576:many": (1.2, 1.0, 1.2, 1.2, 0.6),
        "1024:json": (1.2, 1.0, 1.2, 1.2),
    }
    return {
        (cell, peer): Aim(limit)
        for cell, limits in rows.items()
        for peer, limit in zip(peers, limits, strict=False)
    }


ECHO: Aims = of_echo()

THREADS: Aims = {
    # The ratio is that of callbacks on the loop to those on another thread, which bring at least half.
    ("32:many", "interceptor-post"): Aim(2.0, most=True),
    ("32:many", "interceptor-dq"): Aim(2.0, most=True),
}

BROADCAST: Aims = {
    ("1024:plain", "websockets"): Aim(1.0),
    ("1024:deflate", "websockets"): Aim(1.0),
}

UPGRADES: Aims = {("0:auto", "websockets"): Aim(1.0), ("0:manual", "websockets"): Aim(1.0)}

RELAY: Aims = {
    (f"{size}:{shape}", peer): Aim(limit)
    for size, shape in ((32, "one"), (32, "many"), (1024, "many"), (65536, "many"))
    for peer, limit in (("plain relay", 0.8), ("mitmproxy", 5.0))
}

MEMORY = {"plain": Aim(10, most=True), "deflate": Aim(40, most=True)}
"""KiB of our memory for each idle socket."""

IMPORT = Aim(150, most=True)
"""Milliseconds that the import of interceptor takes beyond that of its dependencies."""

FLAT = Aim(0.2, most=True)
LINEAR = Aim(1.2, most=True)
"""Exponents of growth: the cost is as its cause to the power of this."""
