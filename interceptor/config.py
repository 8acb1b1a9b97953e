"""What a Host can be told, as frozen values by purpose: Limits, Timeouts, Security, Tls."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields

from .exceptions import InvalidArgument, UnsupportedType

__all__ = ["Limits", "Security", "Settings", "Timeouts", "Tls"]

KIB = 1024
MIB = 1024 * KIB

ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+(?::[0-9]+)?|\[[0-9a-f:.]+\](?::[0-9]+)?)")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

TOKEN_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_.~")
"""Characters that stand for themselves in a query, in a cookie and in a subprotocol."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a host takes before it refuses; sizes in bytes, the rest in counts.

    Attributes:
        head: size of a request head, request line included (414, 431).
        fields: header fields in a request head (431).
        message: size of a received message, unpacked (close code 1009).
        body: size of the body of a request for a page (413); all of them together may have four times
            that (503).
        sockets: WebSockets open at once (503).
        pending: upgrades waiting for an answer at once, and requests for pages as many (503).
        read_buffer: undelivered data of one socket above which it is not read further.
        write_buffer: unsent data of one socket above which it is flagged full and closed.

    Raises:
        InvalidArgument: a limit is not a whole number above 0.
    """

    _: KW_ONLY
    head: int = 16 * KIB
    fields: int = 100
    message: int = 16 * MIB
    body: int = 16 * MIB
    sockets: int = 10_000
    pending: int = 1_000
    read_buffer: int = 1 * MIB
    write_buffer: int = 16 * MIB

    def __post_init__(self) -> None:
        for name, value in _items(self):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidArgument(f"Limits.{name} is {value!r}; a whole number above 0 is needed")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a host waits, in seconds.

    Attributes:
        head: for a whole request head (408).
        answer: for the answer to a manual upgrade or to a request for a page (504), and for its body (408).
        close: for the other end to finish a close, and for `stop()` in all. While the program is slow and the
            host does not read, this time does not pass; at most it takes ten times as long.
        ping: between two keepalive pings; None sends none.
        pong: for the answer to a ping; None waits for ever.

    Raises:
        InvalidArgument: a time is not a number above 0 (or None where that is allowed).
    """

    _: KW_ONLY
    head: float = 10
    answer: float = 30
    close: float = 10
    ping: float | None = 20
    pong: float | None = 20

    def __post_init__(self) -> None:
        for name, value in _items(self):
            if value is None and name in ("ping", "pong"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InvalidArgument(f"Timeouts.{name} is {value!r}; seconds above 0 are needed")


CSP = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
"""Scripts, styles and connections of the page's own origin only, and none that are written into the page."""


@dataclass(frozen=True, slots=True)
class Security:
    """Who may open a WebSocket; the defaults let in the host's own pages and holders of the token.

    Attributes:
        origins: origins of pages that may connect besides the host's own and that of the URL asked for, as
            `scheme://host[:port]`; `"null"` stands for pages without an origin, `"*"` for all pages.
        allow_no_origin: let in programs (which send no Origin) without the token.
        token: the secret of `host.ws_url()`; None makes a new one for each host. Never shown by `repr`.
        allow_remote: let `listen` name an address that is not loopback.
        csp: Content-Security-Policy of the files of `Host(ui=...)`; None sends none.

    Raises:
        InvalidArgument: an origin or the token is not written as above.
        UnsupportedType: `origins` is a single string.
    """

    _: KW_ONLY
    origins: Sequence[str] = ()
    allow_no_origin: bool = False
    token: str | None = field(default=None, repr=False)
    allow_remote: bool = False
    csp: str | None = CSP

    def __post_init__(self) -> None:
        if isinstance(self.origins, str) or not isinstance(self.origins, Iterable):
            raise UnsupportedType(f"Security.origins is {self.origins!r}; a list of origins is needed")
        object.__setattr__(self, "origins", tuple(_origin(value) for value in self.origins))
        if not (
            self.csp is None or (isinstance(self.csp, str) and self.csp.isascii() and self.csp.isprintable())
        ):
            raise InvalidArgument(f"Security.csp is {self.csp!r}; it is one line of ASCII, or None")
        if not isinstance(self.token, str | None):
            raise UnsupportedType("Security.token is no str")
        if self.token is not None and not (len(self.token) >= 16 and TOKEN_CHARACTERS.issuperset(self.token)):
            # The value is a secret, so the message does not repeat it.
            raise InvalidArgument("Security.token needs at least 16 characters out of A-Z a-z 0-9 - _ . ~")


@dataclass(frozen=True, slots=True)
class Tls:
    """How the host ends TLS (wss://), and whom it believes beyond.

    Attributes:
        ca: file of the host's own certificate authority (its key and its certificate in PEM, readable for its
            owner alone); made if it is not there. None: a new authority for each run, in memory only.
        trust: file with certificates in PEM of authorities that are believed for real servers besides those
            of the system.

    Raises:
        UnsupportedType: a value is no path.
    """

    _: KW_ONLY
    ca: str | os.PathLike[str] | None = None
    trust: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name, value in _items(self):
            if not isinstance(value, str | os.PathLike | None):
                raise UnsupportedType(f"Tls.{name} is {value!r}; the path of a file is needed")


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a host was told, for the parts of it."""

    subprotocols: tuple[str, ...]
    compression: bool
    chunks: bool
    limits: Limits
    timeouts: Timeouts
    security: Security


def _items(config: Limits | Timeouts | Tls) -> Iterable[tuple[str, object]]:
    return ((f.name, getattr(config, f.name)) for f in fields(config))


def _origin(value: object) -> str:
    if not isinstance(value, str):
        raise UnsupportedType(f"Security.origins holds {value!r}; each origin is a string")
    origin = value.lower()
    if origin in ("*", "null"):
        return origin
    match = ORIGIN.fullmatch(origin)
    if match is None:
        raise InvalidArgument(
            f"Security.origins holds {value!r}; write scheme://host[:port] as a browser sends it "
            "(no path, no wildcard, international names as xn--...), 'null' or '*'"
        )
    scheme, authority = match.groups()
    if scheme in ("ws", "wss"):
        raise InvalidArgument(f"Security.origins holds {value!r}; pages have http or https origins")
    # Browsers leave the default port out.
    return f"{scheme}://{authority.removesuffix(DEFAULT_PORTS.get(scheme, ' '))}"
