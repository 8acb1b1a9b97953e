"""What Chromium, Firefox and WebKit make of an answer, rule by rule.

Chromium's verdicts were all seen. Of Firefox and WebKit some were; the rest is what the standards say, which
these two follow elsewhere, and is marked so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["RULES", "Rule", "Verdict", "verdicts"]

WSP = "RFC 6455 section 4.1, what the client validates, step"
WHATWG = "WebSockets Standard section 2.2, step"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one browser does.

    Attributes:
        browser: `Chromium`, `Firefox` or `WebKit`.
        opens: whether it opens the WebSocket; None where that is not known.
        why: in plain words; empty where there is nothing to add.
        seen: whether that was tried; else it follows from the standard.
    """

    browser: str
    opens: bool | None
    why: str = ""
    seen: bool = True

    def __str__(self) -> str:
        word = {True: "opens it", False: "does not open it", None: "cannot be told"}[self.opens]
        why = f": {self.why}" if self.why else ""
        return f"{self.browser:<9} {word}{why}{'' if self.seen else ' (by the standard; not tried)'}"


class Rule(NamedTuple):
    """A rule that decides.

    Attributes:
        standard: where it stands.
        chromium: whether it opens the socket, and what else to say of it.
        firefox: the same.
        webkit: the same.
        tried: whether Firefox and WebKit were tried.
    """

    standard: str
    chromium: tuple[bool | None, str] = (False, "")
    firefox: tuple[bool | None, str] = (False, "")
    webkit: tuple[bool | None, str] = (False, "")
    tried: bool = False


FINE = (True, "")
UNKNOWN = (None, "it was not tried with such a head")
BLANK = (True, 'its protocol is ""')
FOLLOWS = (None, "it follows the redirect; explain the URL that it leads to")

RULES = {
    "open": Rule(f"{WHATWG} 11", FINE, FINE, FINE, tried=True),
    "odd": Rule("RFC 9112 section 5", FINE, UNKNOWN, UNKNOWN, tried=True),
    "interim": Rule("Fetch Standard, HTTP-network fetch", (False, "it takes no 1xx but 101"), FINE, FINE),
    "malformed": Rule("RFC 9112 sections 4 and 5"),
    "status": Rule(f"{WHATWG} 11.1", tried=True),
    "redirect": Rule(f"{WHATWG} 2 (redirect mode error) and 11.1", webkit=FOLLOWS, tried=True),
    "authentication": Rule(
        f"{WHATWG} 11.1", (False, "its console says that authentication failed"), tried=True
    ),
    "subprotocol-missing": Rule(f"{WHATWG} 11.2", firefox=BLANK, webkit=BLANK, tried=True),
    "subprotocol-repeated": Rule("RFC 6455 section 11.3.4"),
    "subprotocol-unasked": Rule(f"{WSP} 6", firefox=BLANK, tried=True),
    "upgrade": Rule(f"{WSP} 2"),
    "connection": Rule(f"{WSP} 3"),
    "accept": Rule(f"{WSP} 4", tried=True),
    "extension": Rule(f"{WSP} 5; RFC 7692 section 7.1"),
    "port": Rule("Fetch Standard section 2.9, bad port"),
    "network": Rule("RFC 6455 section 4.1, opening the connection, step 4"),
    "proxy": Rule("RFC 6455 section 4.1, opening the connection, step 3"),
    "tls": Rule("RFC 6455 section 4.1, opening the connection, step 5"),
    "timeout": Rule(
        "no standard: each has its own patience",
        (False, "it gives up after 240 s"),
        (False, "it gives up after 20 s"),
        (False, "it still waited after 250 s"),
        tried=True,
    ),
}
"""By the short name of the rule."""


def verdicts(rule: str) -> tuple[Verdict, Verdict, Verdict]:
    """Return what the three browsers do where a rule decides."""
    found = RULES[rule]
    return (
        Verdict("Chromium", *found.chromium),
        Verdict("Firefox", *found.firefox, found.tried),
        Verdict("WebKit", *found.webkit, found.tried),
    )
