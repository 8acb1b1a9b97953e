"""Another proxy, by which connections go on (CONNECT): how it is written."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import unquote

from .exceptions import InvalidArgument

__all__ = ["Upstream", "read_upstream"]

UPSTREAM = re.compile(
    r"http://(?:([^:@/]*)(?::([^@/]*))?@)?(\[[0-9a-f:.]+\]|[^\[\]\s:/?#@]+):([0-9]{1,5})/?", re.IGNORECASE
)


class Upstream(NamedTuple):
    """Another proxy.

    Attributes:
        host: name or address, IPv6 in brackets.
        port: 1 to 65535.
        credentials: value of Proxy-Authorization, None where it asks for none.
    """

    host: str
    port: int
    credentials: str | None = None

    def __str__(self) -> str:
        return f"{self.host[:100]}:{self.port}"


def read_upstream(url: str, argument: str) -> Upstream:
    """Read `http://[user:password@]host:port`.

    Args:
        url: what was written.
        argument: the name of what it was written for.

    Raises:
        InvalidArgument: it is not written so.
    """
    match = UPSTREAM.fullmatch(url) if isinstance(url, str) else None
    if match is None or not 0 < int(match[4]) < 65536:
        # The value may hold a password, so the message does not repeat it.
        raise InvalidArgument(f"{argument} is not http://host:port, or http://user:password@host:port")
    user, password, host, port = match.groups()
    credentials = None
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        credentials = f"Basic {base64.b64encode(pair).decode()}"
    return Upstream(host, int(port), credentials)
