"""Where a WebSocket goes: its URL and subprotocols, by the constructor steps of the WebSockets Standard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ada_url import URL

from ..exceptions import DOMException, InvalidArgument, UnsupportedType
from ..handshake.client import OWN_FIELDS, Opening, new_key
from ..urls import DEFAULT_PORTS, repair, shown

__all__ = ["Address", "Headers", "check_headers", "opening", "parse_address", "parse_protocols"]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# fmt: off
BAD_PORTS = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512,
    513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719,
    1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080,
))
# fmt: on
"""Ports that no browser connects to (Fetch Standard section 2.9)."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL.

    Attributes:
        href: the URL, serialized.
        origin: its origin, serialized.
        authority: host and, where it is not the scheme's default, port: the value of Host.
        hostname: without brackets; what is connected to.
        port: in full.
        resource: path and query (section 2.1 steps 3 and 4).
        secure: whether it is wss.
    """

    href: str
    origin: str
    authority: str
    hostname: str
    port: int
    resource: str
    secure: bool

    @property
    def public(self) -> str:
        """The URL without what may be a secret, for the log."""
        return self.origin + self.resource.partition("?")[0]


def parse_address(url: str, base_url: str | None = None) -> Address:
    """Parse a URL (constructor steps 1 to 7).

    Raises:
        DOMException: SyntaxError; it cannot be parsed, has a fragment, or another scheme.
        UnsupportedType: not a str.
    """
    if not isinstance(url, str):
        raise UnsupportedType(f"a URL is a str, not {type(url).__name__}")
    try:  # Steps 1 and 2.
        record = URL(repair(url), None if base_url is None else repair(base_url))
    except ValueError:  # Step 3.
        hint = "" if base_url is not None or "://" in url else ", or base_url is missing"
        raise DOMException(f"{shown(url)} is no URL, such as wss://host/path{hint}", "SyntaxError") from None
    scheme = str(record.protocol).removesuffix(":")
    if scheme in ("http", "https"):  # Steps 4 and 5.
        scheme = scheme.replace("http", "ws")
        record.protocol = f"{scheme}:"
    if scheme not in ("ws", "wss"):  # Step 6.
        raise DOMException(f"the scheme of {shown(url)} is none of ws, wss, http, https", "SyntaxError")
    href = str(record.href)
    if "#" in href:  # Step 7; an empty fragment is one too.
        raise DOMException(f"{shown(url)} has a fragment (#), which a WebSocket cannot have", "SyntaxError")
    query = href.partition("?")[2]
    return Address(
        href=href,
        origin=f"{scheme}://{record.host}",
        authority=str(record.host),
        hostname=str(record.hostname).strip("[]"),
        port=int(record.port or DEFAULT_PORTS[scheme]),
        resource=str(record.pathname) + (f"?{query}" if query else ""),
        secure=scheme == "wss",
    )


def parse_protocols(protocols: str | Sequence[str]) -> tuple[str, ...]:
    """Return the subprotocols (constructor steps 8 and 9).

    Raises:
        DOMException: SyntaxError; one is no token, or comes twice.
        UnsupportedType: not a str or a sequence of them.
    """
    if not isinstance(protocols, Iterable) or isinstance(protocols, bytes):
        raise UnsupportedType(f"protocols is {protocols!r}; it is a str, or a sequence of str")
    names = (protocols,) if isinstance(protocols, str) else tuple(protocols)
    for name in names:
        if not isinstance(name, str):
            raise UnsupportedType(f"a subprotocol is a str, not {type(name).__name__}")
        if not TOKEN.fullmatch(name):
            raise DOMException(
                f"subprotocol {shown(name)} is no token (RFC 9110 section 5.6.2)", "SyntaxError"
            )
    if len(set(names)) != len(names):
        raise DOMException(f"a subprotocol comes twice: {', '.join(names)}", "SyntaxError")
    return names


def opening(
    address: Address,
    protocols: str | Sequence[str],
    origin: str | None,
    headers: Headers,
    compression: bool = True,
) -> Opening:
    """Return what the handshake to an address says, with a new key.

    Raises:
        DOMException: SyntaxError; a subprotocol is no token, or comes twice.
        InvalidArgument: the origin or a header field cannot stand in a request.
    """
    names = parse_protocols(protocols)
    if origin is not None:
        check_headers([("Origin", origin)])
    extra = check_headers(headers)
    return Opening(address.authority, address.resource, new_key(), names, origin, extra, compression)


def check_headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return extra request fields, checked.

    Raises:
        InvalidArgument: a name or value cannot stand in a request, or the field is the handshake's own.
    """
    pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        if not TOKEN.fullmatch(name):
            raise InvalidArgument(f"header name {shown(name)} is no token")
        if name.lower() in OWN_FIELDS:
            raise InvalidArgument(f"{name} is the handshake's own; it cannot be given as an extra header")
        if not VALUE.fullmatch(value):
            raise InvalidArgument(f"the value of {name} has a control character, or one beyond latin-1")
    return pairs
